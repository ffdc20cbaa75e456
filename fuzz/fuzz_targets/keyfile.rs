//! Texts from disk and from people: key files, boot counters, did:keys and cluster names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew_io::security::{BootCounter, PublicKey, keyfile};
use sinew_io::wire::ClusterName;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(identity) = keyfile::parse(bytes) {
        assert_eq!(keyfile::format(&identity).as_bytes(), bytes);
    }
    if let Some(counter) = BootCounter::parse(bytes) {
        assert_eq!(counter.format().as_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = PublicKey::from_did(text) {
        assert_eq!(key.to_did(), text);
    }
    if let Ok(name) = ClusterName::new(text) {
        assert_eq!(name.as_str(), text);
    }
});

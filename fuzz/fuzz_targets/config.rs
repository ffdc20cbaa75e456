//! `sinew.toml`: any text is a configuration or an error of one line with its place.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew_io::node::parse;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse(text, Path::new("sinew.toml")) {
        Ok(config) => config.validate().expect("what was read is valid"),
        Err(error) => {
            let error = error.to_string();
            assert!(!error.contains('\n'), "{error}");
            let lines = text.lines().count().max(1);
            let place = error.strip_prefix("sinew.toml:").and_then(|rest| rest.split_once(':'));
            let line: usize = place.expect("a place").0.parse().expect("a line");
            assert!((1..=lines + 1).contains(&line), "{error}");
        }
    }
});

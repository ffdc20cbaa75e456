//! Key files and the boot counter on a real file system.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sinew_io::security::{
    BootCounter, BootError, Identity, KeyFileError, KeyTextError, PrivateFileError, keyfile,
};
use sinew_io::wire::Epoch;
use tempfile::TempDir;
use zeroize::Zeroizing;

fn identity() -> Identity {
    Identity::from_secret(&Zeroizing::new([0x5c; 32])).unwrap()
}

fn text() -> String {
    keyfile::format(&identity()).to_string()
}

fn directory() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("robot.key");
    (directory, path)
}

fn write(path: &Path, bytes: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_stored_key_is_private_and_loads_as_the_same_identity() {
    let (directory, path) = directory();
    keyfile::store(&path, &identity()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(keyfile::load(&path).unwrap().public(), identity().public());
    assert_eq!(names(&directory), ["robot.key"]);
}

#[test]
fn a_key_is_never_overwritten_nor_written_through_a_link() {
    let (directory, path) = directory();
    keyfile::store(&path, &identity()).unwrap();
    let before = fs::read(&path).unwrap();
    let again = keyfile::store(&path, &Identity::generate().unwrap());
    assert!(matches!(again, Err(KeyFileError::File(PrivateFileError::Exists { .. }))), "{again:?}");
    assert_eq!(fs::read(&path).unwrap(), before);

    let (link, target) = (directory.path().join("link"), directory.path().join("target"));
    symlink(&target, &link).unwrap();
    assert!(keyfile::store(&link, &identity()).is_err());
    assert!(!target.exists(), "the key was written through the link");
}

#[test]
fn a_key_that_others_can_reach_is_refused_with_the_command_that_fixes_it() {
    let (_directory, path) = directory();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777] {
        write(&path, text(), mode);
        let error = keyfile::load(&path).unwrap_err();
        let shown = error.to_string();
        assert!(
            matches!(error, KeyFileError::File(PrivateFileError::OpenToOthers { mode: got, .. }) if got == mode),
            "{shown}"
        );
        assert!(shown.contains(&format!("chmod 600 {}", path.display())), "{shown}");
    }
    write(&path, text(), 0o400);
    assert!(keyfile::load(&path).is_ok(), "an owner who may only read is private enough");
}

#[test]
fn links_directories_pipes_and_missing_files_are_refused_by_name() {
    let (directory, path) = directory();
    let shown = keyfile::load(&path).unwrap_err().to_string();
    assert!(shown.contains("no such file") && shown.contains("sinew key new"), "{shown}");

    keyfile::store(&path, &identity()).unwrap();
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    let error = keyfile::load(&link).unwrap_err();
    assert!(matches!(error, KeyFileError::File(PrivateFileError::SymbolicLink { .. })), "{error}");

    let error = keyfile::load(directory.path()).unwrap_err();
    assert!(matches!(error, KeyFileError::File(PrivateFileError::NotAFile { .. })), "{error}");

    // A pipe without a writer: opening it must not wait for one.
    let pipe = directory.path().join("pipe");
    let name = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: `name` is a string with a terminator that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let error = keyfile::load(&pipe).unwrap_err();
    assert!(matches!(error, KeyFileError::File(PrivateFileError::NotAFile { .. })), "{error}");
}

#[test]
fn a_key_of_another_user_is_refused_with_both_user_ids() {
    let (_directory, path) = directory();
    write(&path, text(), 0o600);
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\nSKIPPED: giving a file away needs CAP_CHOWN\n",
        );
        return;
    }
    let shown = keyfile::load(&path).unwrap_err().to_string();
    assert!(shown.contains("belongs to user 12345") && shown.contains("chown"), "{shown}");
}

#[test]
fn a_file_that_is_too_long_is_refused_without_being_read_whole() {
    let (_directory, path) = directory();
    write(&path, vec![b'x'; 257], 0o600);
    let error = keyfile::load(&path).unwrap_err();
    assert!(
        matches!(error, KeyFileError::File(PrivateFileError::TooLong { max: 256, .. })),
        "{error}"
    );
    write(&path, vec![b'x'; 256], 0o600);
    let error = keyfile::load(&path).unwrap_err();
    assert!(
        matches!(error, KeyFileError::Text { fault: KeyTextError::NotAKeyFile, .. }),
        "{error}"
    );
}

#[test]
fn every_fault_in_the_text_has_its_name() {
    let fault = |text: &str| keyfile::parse(text.as_bytes()).unwrap_err();
    let good = text();
    assert!(keyfile::parse(good.as_bytes()).is_ok());
    assert_eq!(fault(""), KeyTextError::NotAKeyFile);
    assert_eq!(fault("-----BEGIN PRIVATE KEY-----\n"), KeyTextError::NotAKeyFile);
    assert_eq!(keyfile::parse(&[0xff; 90]).unwrap_err(), KeyTextError::NotAKeyFile);
    let version = KeyTextError::Version { got: "2".into() };
    assert_eq!(fault(&good.replace("identity 1", "identity 2")), version);
    let line = |line, want| KeyTextError::Line { line, want };
    assert_eq!(fault("sinew-identity 1\n"), line(2, "public"));
    assert_eq!(fault(&good.replace("public", "pubic")), line(2, "public"));
    assert_eq!(fault(&good.replace("secret", "Secret")), line(3, "secret"));
    assert_eq!(fault(good.trim_end()), line(3, "secret"));
    assert_eq!(fault(&format!("{good}\n")), KeyTextError::Trailing);
    assert_eq!(fault(&good.replace('\n', "\r\n")), KeyTextError::Version { got: "1\r".into() });
    assert!(matches!(fault(&good.replace("did:key:z6", "did:key:z7")), KeyTextError::Public(_)));
    assert_eq!(fault(&good.replace("5c\n", "5\n")), KeyTextError::Secret);
    assert_eq!(fault(&good.replace("5c\n", "5C\n")), KeyTextError::Secret);
    assert_eq!(fault(&good.replace("5c\n", "5c5\n")), KeyTextError::Secret);
    assert_eq!(fault(&good.replace("5c\n", "5d\n")), KeyTextError::Mismatch);
}

#[test]
fn the_secret_never_appears_in_an_error() {
    let digits = "5c".repeat(32);
    let good = text();
    assert!(good.contains(&digits));
    for at in 0..good.len() {
        let mut bad = good.clone().into_bytes();
        bad[at] = b'!';
        let error = keyfile::parse(&bad).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("5c5c"), "byte {at}: {shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_identity_survives_its_key_file_and_no_other_text_gives_it(
        seed in any::<[u8; 32]>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let identity = Identity::from_secret(&Zeroizing::new(seed)).unwrap();
        let text = keyfile::format(&identity);
        prop_assert!(text.len() <= keyfile::KEY_FILE_MAX);
        let back = keyfile::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(back.public(), identity.public());
        let mut bytes = text.as_bytes().to_vec();
        let at = at.index(bytes.len());
        let same = bytes[at] == byte;
        bytes[at] = byte;
        prop_assert_eq!(keyfile::parse(&bytes).is_ok(), same);
    }

    #[test]
    fn random_texts_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), tail in ".{0,80}") {
        prop_assert!(keyfile::parse(&bytes).is_err());
        let damaged = ["sinew-identity 1\npublic did:key:z", &tail].concat();
        prop_assert!(keyfile::parse(damaged.as_bytes()).is_err());
        prop_assert_eq!(BootCounter::parse(&bytes), None);
    }

    #[test]
    fn a_boot_counter_survives_its_text_and_no_other_text_is_one(
        count in any::<u64>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let counter = BootCounter::new(Epoch::new(count));
        let text = counter.format();
        prop_assert!(text.len() <= sinew_io::security::boot::BOOT_FILE_MAX);
        prop_assert_eq!(BootCounter::parse(text.as_bytes()), Some(counter));
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        let same = bytes[at] == byte;
        bytes[at] = byte;
        prop_assert_eq!(BootCounter::parse(&bytes).is_some(), same);
    }
}

#[test]
fn every_life_gets_the_next_epoch_and_it_is_in_the_file_before_it_is_returned() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("boot");
    for life in 1..=5 {
        let epoch = BootCounter::advance(&path).unwrap();
        assert_eq!(epoch, Epoch::new(life));
        assert_eq!(BootCounter::parse(&fs::read(&path).unwrap()).unwrap().epoch(), epoch);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(names(&directory), ["boot"]);
    }
}

#[test]
fn what_a_crash_left_beside_the_counter_does_not_stop_the_next_life() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("boot");
    BootCounter::advance(&path).unwrap();
    write(&directory.path().join("boot.new"), "torn", 0o644);
    assert_eq!(BootCounter::advance(&path).unwrap(), Epoch::new(2));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(names(&directory), ["boot"]);
}

#[test]
fn a_damaged_counter_is_an_error_that_says_what_to_do_and_stays_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("boot");
    for bad in ["", "sinew-boot 1\nepoch 7\ncheck 0000000000000000\n", "7\n"] {
        write(&path, bad, 0o600);
        let error = BootCounter::advance(&path).unwrap_err();
        assert!(matches!(error, BootError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("restore the file"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    write(&path, BootCounter::new(Epoch::new(u64::MAX)).format(), 0o600);
    assert!(matches!(BootCounter::advance(&path).unwrap_err(), BootError::Exhausted { .. }));
    write(&path, BootCounter::new(Epoch::new(3)).format(), 0o666);
    let error = BootCounter::advance(&path).unwrap_err();
    assert!(matches!(error, BootError::File(PrivateFileError::OpenToOthers { .. })), "{error}");
}

#[test]
fn lives_that_start_at_once_never_share_an_epoch() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("boot");
    let mut epochs: Vec<u64> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..8).map(|_| BootCounter::advance(&path).unwrap().get()).collect::<Vec<_>>()
                })
            })
            .collect();
        starts.into_iter().flat_map(|start| start.join().unwrap()).collect()
    });
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=64).collect::<Vec<_>>());
}

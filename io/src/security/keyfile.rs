//! Key files: one identity as three lines of text, in a file that only its owner can read.
//!
//! ```text
//! sinew-identity 1
//! public did:key:z6Mk…
//! secret 64 hexadecimal digits: the 32-byte seed of RFC 8032
//! ```
//!
//! The text is exact: one space, one line feed, lower-case digits, nothing more. The public key is
//! there to be read by people, and must be the secret's own.

use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::identity::{DidError, Identity, KeyRefused, PublicKey};
use super::private_file::{self, PrivateFileError};

/// The longest key file, in bytes.
pub const KEY_FILE_MAX: usize = 256;

const HEADER: &str = "sinew-identity";
const VERSION: &str = "1";

/// What is wrong with the text of a key file. Never shows any of the secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyTextError {
    /// The first line is not that of a key file.
    #[error("the first line is not `{HEADER} {VERSION}`: this is not a key file")]
    NotAKeyFile,
    /// The version is a later one.
    #[error("key file version `{got}`; this release reads version {VERSION}")]
    Version {
        /// The version in the file.
        got: String,
    },
    /// A line is missing, or not of the form `word value`.
    #[error("line {line} is not `{want} VALUE`; restore the file from a backup or make a new key")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// The word that begins it.
        want: &'static str,
    },
    /// Something follows the third line.
    #[error("there is text after line 3; a key file has three lines")]
    Trailing,
    /// The public key is not readable.
    #[error("line 2: {0}")]
    Public(#[from] DidError),
    /// The secret is not 64 lower-case hexadecimal digits.
    #[error("line 3: the secret has to be 64 lower-case hexadecimal digits")]
    Secret,
    /// The secret does not make an acceptable key.
    #[error("line 3: {0}")]
    Key(#[from] KeyRefused),
    /// The two halves do not belong together.
    #[error("the public key on line 2 is not that of the secret on line 3; one of them was edited")]
    Mismatch,
}

/// Why a key file was not loaded or stored. Every message names the path and what to do.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// There is no key file yet.
    #[error("{}: no such file; make a key with `sinew key new {}`", path.display(), path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file itself is not acceptable: link, mode, owner, length, or an error of the system.
    #[error(transparent)]
    File(PrivateFileError),
    /// Its text is not.
    #[error("{}: {fault}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: KeyTextError,
    },
}

/// Writes an identity as the text of a key file, in memory that is wiped on drop.
#[must_use]
pub fn format(identity: &Identity) -> Zeroizing<String> {
    // Reserved once: growing would leave unwiped copies behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_MAX));
    for part in [HEADER, " ", VERSION, "\npublic ", &identity.public().to_did(), "\nsecret "] {
        text.push_str(part);
    }
    for byte in identity.secret() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).expect("a nibble is a digit"));
        }
    }
    text.push('\n');
    text
}

/// Reads the text of a key file.
pub fn parse(text: &[u8]) -> Result<Identity, KeyTextError> {
    let text = std::str::from_utf8(text).map_err(|_| KeyTextError::NotAKeyFile)?;
    let (header, rest) = text.split_once('\n').ok_or(KeyTextError::NotAKeyFile)?;
    match header.split_once(' ') {
        Some((HEADER, VERSION)) => {}
        Some((HEADER, got)) => {
            return Err(KeyTextError::Version { got: got.chars().take(16).collect() });
        }
        _ => return Err(KeyTextError::NotAKeyFile),
    }
    let (public, rest) = line(rest, 2, "public")?;
    let (secret, rest) = line(rest, 3, "secret")?;
    if !rest.is_empty() {
        return Err(KeyTextError::Trailing);
    }
    let public = PublicKey::from_did(public)?;
    let identity = Identity::from_secret(&unhex(secret)?)?;
    if *identity.public() != public {
        return Err(KeyTextError::Mismatch);
    }
    Ok(identity)
}

fn line<'a>(
    text: &'a str,
    line: usize,
    want: &'static str,
) -> Result<(&'a str, &'a str), KeyTextError> {
    let fault = KeyTextError::Line { line, want };
    let Some((first, rest)) = text.split_once('\n') else { return Err(fault) };
    match first.split_once(' ') {
        Some((word, value)) if word == want => Ok((value, rest)),
        _ => Err(fault),
    }
}

fn unhex(digits: &str) -> Result<Zeroizing<[u8; 32]>, KeyTextError> {
    let mut secret = Zeroizing::new([0; 32]);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != secret.len() || !rest.is_empty() {
        return Err(KeyTextError::Secret);
    }
    for (byte, &[high, low]) in secret.iter_mut().zip(pairs) {
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Ok(secret)
}

fn nibble(digit: u8) -> Result<u8, KeyTextError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(KeyTextError::Secret),
    }
}

/// Loads the identity in the key file at `path`: an edge, for start-up and tools.
///
/// Refuses symbolic links, anything but a regular file of this user, and any permission for others.
pub fn load(path: &Path) -> Result<Identity, KeyFileError> {
    let text = private_file::read(path, KEY_FILE_MAX).map_err(|error| match error {
        PrivateFileError::Missing { path } => KeyFileError::Missing { path },
        error => KeyFileError::File(error),
    })?;
    parse(&text).map_err(|fault| KeyFileError::Text { path: path.to_owned(), fault })
}

/// Stores `identity` in a new file of mode 0600 at `path`, on disk when this returns: an edge, for
/// tools. Never overwrites.
pub fn store(path: &Path, identity: &Identity) -> Result<(), KeyFileError> {
    private_file::create(path, format(identity).as_bytes()).map_err(KeyFileError::File)
}

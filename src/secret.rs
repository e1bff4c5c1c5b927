//! Values that must not be shown: passwords, session tokens, invitation codes, and the digests under which they are
//! stored.
//!
//! None of them implements `Display`, and `Debug` hides them, so that none gets into a log by accident.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Minimum characters of a password.
pub const PASSWORD_MIN_CHARS: usize = 8;
/// Maximum characters of a password.
pub const PASSWORD_MAX_CHARS: usize = 256;
/// Random bytes of a session token.
pub const TOKEN_BYTES: usize = 32;
/// Random bytes of an invitation's code: too many to guess, and short enough for a link.
pub const INVITE_BYTES: usize = 16;

/// A password, hidden from `Debug` and without `Display`.
pub struct Password(String);

impl Password {
    /// Checks a password for a new account.
    #[must_use]
    pub fn parse(password: String) -> Option<Self> {
        let chars = password.chars().count();
        (PASSWORD_MIN_CHARS..=PASSWORD_MAX_CHARS).contains(&chars).then_some(Self(password))
    }

    /// Accepts a password to be verified, of any length: it is compared, not stored.
    #[must_use]
    pub const fn claimed(password: String) -> Self {
        Self(password)
    }

    /// The bytes to hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// `BYTES` random bytes in hexadecimal that grant access to their holder; hidden from `Debug`.
///
/// The server stores only the [`Digest`], so that a stolen database grants no access.
pub struct Secret<const BYTES: usize>(String);

/// Proves a client's session.
pub type Token = Secret<TOKEN_BYTES>;

/// Lets its holder register.
pub type InviteCode = Secret<INVITE_BYTES>;

impl<const BYTES: usize> Secret<BYTES> {
    /// Generates a new one with the operating system's generator.
    #[must_use]
    pub fn random() -> Self {
        Self(random_hex::<BYTES>())
    }

    /// Checks the form of a string from outside.
    #[must_use]
    pub fn parse(secret: &str) -> Option<Self> {
        let well_formed = secret.len() == 2 * BYTES && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
        well_formed.then(|| Self(secret.to_owned()))
    }

    /// The digest under which it is stored.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The secret itself, for the one answer or link that hands it out.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<const BYTES: usize> fmt::Debug for Secret<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// SHA-256 of the text of a token or of an invitation's code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest in hexadecimal.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Parses the output of [`to_hex`](Self::to_hex).
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.is_ascii() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The digest's bytes, as stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(hidden)")
    }
}

/// A name that is never used twice, not even after a restart.
pub(crate) fn random_name() -> String {
    random_hex::<8>()
}

/// `N` random bytes from the operating system, in hexadecimal.
pub(crate) fn random_hex<const N: usize>() -> String {
    use rand::TryRng as _;
    let mut bytes = [0; N];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).expect("the operating system has a random generator");
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        hex.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        hex.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_back_from_its_hexadecimal() {
        let digest = InviteCode::random().digest();
        assert_eq!(Digest::from_hex(&digest.to_hex()), Some(digest));
        for bad in ["", "00", &"x".repeat(64), &"é".repeat(32)] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_has_the_form_of_a_secret_is_taken_for_one() {
        let token = Token::random();
        let text = token.reveal();
        assert_eq!(Token::parse(text).map(|parsed| parsed.digest()), Some(token.digest()));
        for bad in ["", &text[1..], &format!("{text}0"), &format!("x{}", &text[1..])] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
        assert_ne!(random_name(), random_name());
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let token = Token::random();
        assert!(!format!("{token:?} {:?}", token.digest()).contains(token.reveal()));
        let code = InviteCode::random();
        assert!(!format!("{code:?}").contains(code.reveal()));
        let password = Password::parse("correct horse".into()).unwrap();
        assert!(!format!("{password:?}").contains("horse"));
    }
}

//! What a chat is made of: ids, names, tokens, messages.
//!
//! Everything that comes from outside enters through a `parse` function here, so that holding a value is proof that
//! it was checked. This module knows nothing of JSON, SQL or sockets.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

/// Most characters of a username.
pub const USERNAME_MAX_CHARS: usize = 32;
/// Fewest characters of a password.
pub const PASSWORD_MIN_CHARS: usize = 8;
/// Most characters of a password.
pub const PASSWORD_MAX_CHARS: usize = 256;
/// Most characters (Unicode scalar values) of a message, after trimming.
pub const CONTENT_MAX_CHARS: usize = 4_000;
/// Most characters of a nonce.
pub const NONCE_MAX_CHARS: usize = 64;
/// The largest id that an import or a restore takes: readers of JSON hold whole numbers exactly up to here (RFC 8259 6), and from
/// here on, at a million messages a second, ids last for 290,000 years.
pub const ID_MAX: i64 = (1 << 53) - 1;
/// Random bytes behind a session token.
pub const TOKEN_BYTES: usize = 32;
/// Random bytes behind an invitation's code: as good against guessing, and short enough for a link.
pub const INVITE_BYTES: usize = 16;

/// The place of a message in the one order there is: ids rise by commit order and are never used again.
///
/// Zero is the place before the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId(i64);

impl MessageId {
    /// Takes a number as an id.
    #[must_use]
    pub const fn new(id: i64) -> Self {
        Self(id)
    }

    /// The id as the number the wire and the database use.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The id after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A user's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserId(pub i64);

/// A login's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub i64);

/// Milliseconds since the Unix epoch, by the wall clock: for people to read and for what expires, never for order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The wall clock now; a clock before 1970 counts as 1970.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// This moment, later by `millis`.
    #[must_use]
    pub const fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// A name a person goes by: 1 to 32 of `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
///
/// Names are compared without regard to case by the database; here they are kept as they were written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(Arc<str>);

impl Username {
    /// Checks a name from outside.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let well_formed = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        (starts_well && well_formed && name.len() <= USERNAME_MAX_CHARS).then(|| Self(name.into()))
    }

    /// Takes a name as the database gives it: it was parsed when it was stored, or stands for a deleted user.
    pub(crate) fn from_database(name: &str) -> Self {
        Self(name.into())
    }

    /// What stands for a deleted user: no name that anybody could register.
    #[must_use]
    pub fn deleted(user: UserId) -> Self {
        Self(format!("(deleted {})", user.0).into())
    }

    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network of IP addresses, as `10.0.0.0/8`; a bare address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` is in the network. An IPv4 address is itself, however it is written.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.base)
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "it is an address, such as 192.0.2.1, or a network, such as 192.0.2.0/24 or 2001:db8::/32";
        let (base, prefix) = text.split_once('/').map_or((text, None), |(base, prefix)| (base, Some(prefix)));
        let base = base.parse::<IpAddr>().map_err(|_| SHAPE)?.to_canonical();
        let prefix = match prefix {
            None => {
                if base.is_ipv4() {
                    32
                } else {
                    128
                }
            }
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| SHAPE)?,
            Some(_) => return Err(SHAPE),
        };
        match masked(base, prefix) {
            Some(network) if network == base => Ok(Self { base, prefix }),
            Some(_) => Err("the address has bits past its prefix: is one of the two mistyped?"),
            None => Err(SHAPE),
        }
    }
}

/// The first `prefix` bits of an address; `None` if it has not that many.
fn masked(address: IpAddr, prefix: u32) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => {
            let host_bits = 32_u32.checked_sub(prefix)?;
            IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            let host_bits = 128_u32.checked_sub(prefix)?;
            IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into())
        }
    })
}

/// A password, hidden from `Debug` and without `Display`.
pub struct Password(String);

impl Password {
    /// Checks a password for a new account.
    #[must_use]
    pub fn parse(password: String) -> Option<Self> {
        let chars = password.chars().count();
        (PASSWORD_MIN_CHARS..=PASSWORD_MAX_CHARS).contains(&chars).then_some(Self(password))
    }

    /// Takes what a login claims the password to be, whatever its length: it is compared, not kept.
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

/// `BYTES` random bytes in hexadecimal, which open something to whoever shows them; hidden from `Debug`.
///
/// The server keeps only the [`Digest`], so that a stolen database opens nothing.
pub struct Secret<const BYTES: usize>(String);

/// What a client shows to prove its session.
pub type Token = Secret<TOKEN_BYTES>;

/// What somebody shows to be let in.
pub type InviteCode = Secret<INVITE_BYTES>;

impl<const BYTES: usize> Secret<BYTES> {
    /// Draws a new one from the operating system's generator.
    #[must_use]
    pub fn random() -> Self {
        Self(random_hex::<BYTES>())
    }

    /// Checks that a string from outside has its form.
    #[must_use]
    pub fn parse(secret: &str) -> Option<Self> {
        let well_formed = secret.len() == 2 * BYTES && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
        well_formed.then(|| Self(secret.to_owned()))
    }

    /// The digest under which what it opens is stored.
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
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest in hexadecimal.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads what [`to_hex`](Self::to_hex) wrote.
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

/// The text of a message: trimmed, 1 to 4,000 characters, no control characters but newline and tab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(Box<str>);

/// Why a text cannot be a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContent {
    /// Nothing is left after trimming.
    #[error("a message needs some text")]
    Blank,
    /// More than [`CONTENT_MAX_CHARS`].
    #[error("a message has at most {CONTENT_MAX_CHARS} characters")]
    TooLong,
    /// A control character other than newline and tab.
    #[error("a message has no control characters but line feeds and tabs")]
    ControlCharacter,
}

impl Content {
    /// Checks and trims a text from outside.
    pub fn parse(text: &str) -> Result<Self, InvalidContent> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidContent::Blank);
        }
        // A character has at least one byte, so most texts need not be counted.
        if text.len() > CONTENT_MAX_CHARS && text.chars().nth(CONTENT_MAX_CHARS).is_some() {
            return Err(InvalidContent::TooLong);
        }
        if text.chars().any(|char| char.is_control() && char != '\n' && char != '\t') {
            return Err(InvalidContent::ControlCharacter);
        }
        Ok(Self(text.into()))
    }

    /// Takes a text as the database gives it.
    pub(crate) fn from_database(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client calls a message until it has an id: 1 to 64 characters, unique to the user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nonce(Box<str>);

impl Nonce {
    /// Checks a nonce from outside.
    #[must_use]
    pub fn parse(nonce: &str) -> Option<Self> {
        let chars = nonce.chars().take(NONCE_MAX_CHARS + 1).count();
        (1..=NONCE_MAX_CHARS).contains(&chars).then(|| Self(nonce.into()))
    }

    /// The nonce as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the one order.
    pub id: MessageId,
    /// Who wrote it.
    pub username: Username,
    /// What it says.
    pub content: Content,
    /// When it was stored.
    pub created_at: UnixMillis,
}

/// Names a history: drawn with the database, and again when a backup is restored.
///
/// A client that holds ids of another epoch holds ids of other messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Draws a new epoch.
    #[must_use]
    pub fn random() -> Self {
        Self(random_hex::<8>().into())
    }

    /// Takes an epoch as the database gives it.
    pub(crate) fn from_database(epoch: &str) -> Self {
        Self(epoch.into())
    }

    /// The epoch as on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name that nothing else has had or will have, before or after a restart.
pub(crate) fn random_name() -> String {
    random_hex::<8>()
}

/// `N` random bytes of the operating system in hexadecimal.
fn random_hex<const N: usize>() -> String {
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
    fn a_username_is_1_to_32_of_its_alphabet_and_starts_with_a_letter_or_digit() {
        for good in ["a", "9", "Ada.Lovelace_1815-", &"x".repeat(32)] {
            assert!(Username::parse(good).is_some(), "{good}");
        }
        for bad in ["", ".a", "_a", "-a", "a b", "a\n", "é", "ａ", &"x".repeat(33)] {
            assert!(Username::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_network_contains_the_addresses_that_share_its_prefix() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse::<IpAddr>().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("192.0.2.7", "::ffff:192.0.2.7"), "an IPv4 address on a socket of both families");
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1") && !contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("::1", "::1") && contains("0.0.0.0/0", "192.0.2.1") && contains("::/0", "2001:db8::1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1") && !contains("::/0", "192.0.2.1"));
        for bad in ["", "10", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/", "10.0.0.1/8", "::1/129", "x/8"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn content_counts_characters_after_trimming() {
        assert_eq!(Content::parse("  hi \n").unwrap().as_str(), "hi");
        assert!(Content::parse(&"🦀".repeat(4_000)).is_ok());
        assert_eq!(Content::parse(&"🦀".repeat(4_001)), Err(InvalidContent::TooLong));
        assert_eq!(Content::parse(" \u{3000}\n"), Err(InvalidContent::Blank));
    }

    #[test]
    fn content_keeps_newline_and_tab_and_refuses_other_control_characters() {
        assert!(Content::parse("a\n\tb").is_ok());
        for bad in ["a\0b", "a\rb", "a\u{1b}[2Jb", "a\u{7f}b", "a\u{85}b"] {
            assert_eq!(Content::parse(bad), Err(InvalidContent::ControlCharacter), "{bad:?}");
        }
    }

    #[test]
    fn a_digest_is_read_back_from_its_hexadecimal() {
        let digest = InviteCode::random().digest();
        assert_eq!(Digest::from_hex(&digest.to_hex()), Some(digest));
        for bad in ["", "00", &"x".repeat(64), &"é".repeat(32)] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
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

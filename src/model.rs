//! The vocabulary of a chat: ids, names, messages.
//!
//! Everything from outside enters through a `parse` function, so that holding a value is proof that it was checked.
//! This module knows nothing of JSON, SQL or sockets.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::room::{EVERYBODY, Extras, RoomId};
use crate::secret::random_hex;

/// Maximum characters of a username.
pub const USERNAME_MAX_CHARS: usize = 32;
/// Maximum characters (Unicode scalar values) of a message, after trimming.
pub const CONTENT_MAX_CHARS: usize = 4_000;
/// Maximum characters of a nonce.
pub const NONCE_MAX_CHARS: usize = 64;
/// The largest id an event is ever given: JSON readers represent integers exactly up to here (RFC 8259 6). At a million
/// events a second ids last for 285 years.
pub const ID_MAX: i64 = (1 << 53) - 1;

/// The id of any event, which is its position in the one order: ids rise in commit order and are never used again. The
/// id of a message is that of the event that stored it.
///
/// Zero is the position before the first event. An edit, a delete or a reaction has an id of its own and that of its
/// message, which the compiler cannot tell apart: name them `event` and `message`.
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

/// A user's row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UserId(pub i64);

/// A session's row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub i64);

/// Milliseconds since the Unix epoch by the wall clock: for display and expiry, never for ordering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The wall clock now; a clock before 1970 counts as 1970.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// This moment plus `millis`.
    #[must_use]
    pub const fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// A username: 1 to 32 of `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
///
/// The database compares names without regard to case; here they keep their spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Username(Arc<str>);

/// Without regard to case, as the database sorts them; names that differ in nothing else follow each other.
impl Ord for Username {
    fn cmp(&self, other: &Self) -> Ordering {
        let folded = self.0.bytes().map(|byte| byte.to_ascii_lowercase());
        folded.cmp(other.0.bytes().map(|byte| byte.to_ascii_lowercase())).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Username {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Username {
    /// Checks a name from outside.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let well_formed = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        (starts_well && well_formed && name.len() <= USERNAME_MAX_CHARS).then(|| Self(name.into()))
    }

    /// Whether nobody may have the name, since it mentions everybody.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.eq_ignore_ascii_case(EVERYBODY)
    }

    /// Accepts a name from the database: it was parsed when it was stored, or replaces a deleted user's.
    pub(crate) fn from_database(name: &str) -> Self {
        Self(name.into())
    }

    /// Replaces the name of a deleted user. Nobody could register it.
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

/// The text of a message: trimmed, 1 to 4,000 characters, no control characters other than newline and tab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(Arc<str>);

/// Why a text cannot be a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContent {
    /// Nothing is left after trimming.
    #[error("a message needs some text")]
    Blank,
    /// More than [`CONTENT_MAX_CHARS`].
    #[error("a message must have at most {CONTENT_MAX_CHARS} characters")]
    TooLong,
    /// A control character other than newline and tab.
    #[error("control characters other than newline and tab are not allowed")]
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

    /// The empty text, which only a message with a picture may have.
    #[must_use]
    pub fn none() -> Self {
        Self("".into())
    }

    /// Accepts a text from the database.
    pub(crate) fn from_database(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A client's own name for a message until it has an id: 1 to 64 characters, unique to the user.
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
    /// Its position in the one order.
    pub id: MessageId,
    /// Its room.
    pub room: RoomId,
    /// Who wrote it.
    pub username: Username,
    /// Whether the author is a bot.
    pub is_bot: bool,
    /// Its text.
    pub content: Content,
    /// When it was stored.
    pub created_at: UnixMillis,
    /// What few messages have.
    pub extras: Option<Box<Extras>>,
}

impl Message {
    /// A text in the lobby, and nothing else.
    #[must_use]
    pub fn plain(id: MessageId, username: Username, content: Content, created_at: UnixMillis) -> Self {
        Self { id, room: RoomId::LOBBY, username, is_bot: false, content, created_at, extras: None }
    }

    /// Bytes that were written in it and beside it, about as many as it takes to hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.content.as_str().len() + self.extras.as_ref().map_or(0, |extras| extras.bytes())
    }
}

/// Identifies a history: generated with the database, and again when a backup is restored or a log is begun anew.
///
/// Ids of another epoch are ids of other messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Generates a new epoch.
    #[must_use]
    pub fn random() -> Self {
        Self(random_hex::<8>().into())
    }

    /// Accepts an epoch from the database.
    pub(crate) fn from_database(epoch: &str) -> Self {
        Self(epoch.into())
    }

    /// The epoch as on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
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
}

//! What a room is made of, and what can happen in one.
//!
//! As in [`model`](crate::model), everything from outside enters through a `parse` function, so that holding a value is
//! proof that it was checked; and nothing here knows JSON, SQL or sockets.

use std::sync::Arc;

use crate::model::{Content, Message, MessageId, UnixMillis, UserId, Username};

/// Most characters of a room's name, after trimming.
pub const ROOM_NAME_MAX_CHARS: usize = 60;
/// Most characters of a room's emoji: one that is joined from several people has seven.
pub const ROOM_EMOJI_MAX_CHARS: usize = 16;
/// Most characters of a room's topic, after trimming.
pub const TOPIC_MAX_CHARS: usize = 250;
/// Most characters of the text that describes a picture.
pub const ALT_MAX_CHARS: usize = 1_000;
/// Most characters of the text that a quote shows.
pub const QUOTE_MAX_CHARS: usize = 140;
/// Most people that one message mentions.
pub const MENTIONS_MAX: usize = 16;
/// Most names that a reaction lists; all of them are counted.
pub const REACTION_NAMES_MAX: usize = 10;
/// Most names that a room's list of members has; all of them are counted.
pub const MEMBERS_LISTED_MAX: usize = 200;
/// The name that mentions everybody, in whatever case, and that nobody can register.
pub const EVERYBODY: &str = "all";
/// The emoji that people can react with.
pub const REACTIONS: [&str; 8] = ["👍", "❤️", "😂", "🎉", "😮", "😢", "🙏", "👀"];

/// A room's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(pub i64);

impl RoomId {
    /// The open room that is always there, and the only one that a client of the first edition knows.
    pub const LOBBY: Self = Self(1);
}

/// Who reads a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomKind {
    /// Everybody.
    Open,
    /// Its members.
    Private,
    /// Two people, or one person and their notes; the members never change.
    Direct,
}

/// A room's name: 1 to 60 characters after trimming, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomName(Box<str>);

impl RoomName {
    /// Checks and trims a name from outside.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        (!name.is_empty() && is_line(name, ROOM_NAME_MAX_CHARS)).then(|| Self(name.into()))
    }

    /// The name as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The emoji beside a room's name: 1 to 16 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEmoji(Box<str>);

impl RoomEmoji {
    /// Checks and trims an emoji from outside.
    #[must_use]
    pub fn parse(emoji: &str) -> Option<Self> {
        let emoji = emoji.trim();
        (!emoji.is_empty() && is_line(emoji, ROOM_EMOJI_MAX_CHARS)).then(|| Self(emoji.into()))
    }

    /// The emoji as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a room is about: up to 250 characters on one line; empty if nobody said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topic(Box<str>);

impl Topic {
    /// Checks and trims a topic from outside.
    #[must_use]
    pub fn parse(topic: &str) -> Option<Self> {
        let topic = topic.trim();
        is_line(topic, TOPIC_MAX_CHARS).then(|| Self(topic.into()))
    }

    /// The topic as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_line(text: &str, max_chars: usize) -> bool {
    text.chars().count() <= max_chars && !text.chars().any(char::is_control)
}

/// A text for comparison without regard to case, by Unicode's simple case folding as far as the mappings of single
/// characters give it.
#[must_use]
pub fn fold(text: &str) -> String {
    text.chars().map(fold_char).collect()
}

/// What a character is folded to: through its capital, so that `ſ` and `s`, `ς` and `σ` are one. Turkish `ı` and `İ`
/// fold to themselves (CaseFolding.txt, statuses C and S).
#[must_use]
pub fn fold_char(char: char) -> char {
    if char.is_ascii() {
        return char.to_ascii_lowercase();
    }
    if matches!(char, 'ı' | 'İ') {
        return char;
    }
    let single = |mut mapped: Box<dyn Iterator<Item = char>>| match (mapped.next(), mapped.next()) {
        (Some(mapped), None) => Some(mapped),
        _ => None,
    };
    let capital = single(Box::new(char.to_uppercase())).unwrap_or(char);
    single(Box::new(capital.to_lowercase())).unwrap_or(capital)
}

/// One of [`REACTIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emoji(&'static str);

impl Emoji {
    /// Finds an emoji from outside among those one may react with.
    #[must_use]
    pub fn parse(emoji: &str) -> Option<Self> {
        REACTIONS.into_iter().find(|known| *known == emoji).map(Self)
    }

    /// The emoji as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// What a message replies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The message that is replied to.
    pub id: MessageId,
    /// Who wrote it and how it begins; `None` if it was deleted.
    pub shown: Option<(Username, String)>,
}

/// How many reacted to a message with one emoji, as one reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// One of [`REACTIONS`].
    pub emoji: Emoji,
    /// How many people reacted with it.
    pub count: u32,
    /// Whether the reader is one of them.
    pub mine: bool,
    /// The first of them, up to [`REACTION_NAMES_MAX`].
    pub names: Vec<Username>,
}

/// A picture's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageId(pub i64);

/// A picture of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The picture's row.
    pub id: ImageId,
    /// Its media type, without `image/`.
    pub subtype: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// What it shows, in words.
    pub alt: String,
}

/// What a picture shows, in words: up to [`ALT_MAX_CHARS`] characters on one line; empty if nobody said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AltText(Box<str>);

impl AltText {
    /// Checks and trims a description from outside.
    #[must_use]
    pub fn parse(alt: &str) -> Option<Self> {
        let alt = alt.trim();
        is_line(alt, ALT_MAX_CHARS).then(|| Self(alt.into()))
    }

    /// The description as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What few messages have, kept apart so that a plain message stays small.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// When its text was last edited.
    pub edited_at: Option<UnixMillis>,
    /// The message it replies to.
    pub reply_to: Option<Quote>,
    /// The users it mentioned when it was stored; an edit does not change them.
    pub mentions: Vec<Username>,
    /// Its picture.
    pub image: Option<Image>,
    /// Reactions as one reader sees them; empty in what everybody gets.
    pub reactions: Vec<Reaction>,
}

impl Extras {
    /// About as many bytes as it takes to hold them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let quote = self.reply_to.as_ref().and_then(|quote| quote.shown.as_ref()).map_or(0, |(_, text)| text.len());
        let alt = self.image.as_ref().map_or(0, |image| image.alt.len());
        let reactions = self.reactions.iter().map(|reaction| size_of_val(reaction) + bytes_of(&reaction.names));
        quote + alt + bytes_of(&self.mentions) + reactions.sum::<usize>()
    }
}

fn bytes_of(names: &[Username]) -> usize {
    names.iter().map(|name| size_of_val(name) + name.as_str().len()).sum()
}

/// A message was given another text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The event.
    pub id: MessageId,
    /// The message's room.
    pub room: RoomId,
    /// The message.
    pub message: MessageId,
    /// The text it has now.
    pub content: Content,
    /// When it was edited.
    pub edited_at: UnixMillis,
    /// The users that the first text mentioned.
    pub mentions: Vec<Username>,
}

/// A message was taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The event.
    pub id: MessageId,
    /// The message's room.
    pub room: RoomId,
    /// The message.
    pub message: MessageId,
    /// Who took it away.
    pub by: Username,
}

/// Somebody reacted to a message, or took that back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct React {
    /// The event.
    pub id: MessageId,
    /// The message's room.
    pub room: RoomId,
    /// The message.
    pub message: MessageId,
    /// The user who reacted.
    pub username: Username,
    /// One of [`REACTIONS`].
    pub emoji: Emoji,
    /// Whether the reaction is there now.
    pub on: bool,
}

/// Whom an event reaches: nobody outside may learn of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody: what happens in open rooms.
    Everyone,
    /// The members of a private or direct room.
    Members(RoomId),
    /// One person.
    User(UserId),
}

/// One event of a commit. Those of a commit are in `id` order.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message was stored.
    Message(Message, Audience),
    /// A message was given another text.
    Edit(Edit, Audience),
    /// A message was taken away.
    Delete(Delete, Audience),
    /// A reaction came or went.
    React(React, Audience),
    /// A room changed, or its members did. It looks different to each reader, so each reads it from the database.
    Room {
        /// The event.
        id: MessageId,
        /// The room.
        room: RoomId,
        /// Its current readers, without anyone just removed.
        audience: Audience,
        /// The users who were added or removed: the rooms that they read change here.
        members: Vec<UserId>,
    },
}

impl Event {
    /// The event's place in the one order.
    #[must_use]
    pub fn id(&self) -> MessageId {
        match self {
            Self::Message(message, _) => message.id,
            Self::Edit(edit, _) => edit.id,
            Self::Delete(delete, _) => delete.id,
            Self::React(react, _) => react.id,
            Self::Room { id, .. } => *id,
        }
    }
}

/// A room as one reader sees it: ROOM of the contract.
#[derive(Debug, Clone)]
pub struct RoomView {
    /// The room.
    pub id: RoomId,
    /// Who reads it.
    pub kind: RoomKind,
    /// Its name; `None` for a direct room.
    pub name: Option<String>,
    /// The emoji beside the name.
    pub emoji: Option<String>,
    /// What it is about.
    pub topic: String,
    /// The first of its members by name, and the number of all; `None` for an open room.
    pub members: Option<(Vec<Username>, u32)>,
    /// Whether it can only be read.
    pub archived: bool,
    /// Its newest message.
    pub last: Option<Message>,
    /// How far this reader has read.
    pub read: MessageId,
    /// Others' messages past that, up to [`UNREAD_COUNTED_MAX`].
    pub unread: u32,
    /// How many of those mention this reader.
    pub mentioned: u32,
    /// What this reader wants to be notified of here, if they chose.
    pub notify: Option<NotifyAbout>,
}

/// Most unread messages that are counted.
pub const UNREAD_COUNTED_MAX: u32 = 1_000;

/// An event as it is replayed to a client that comes back.
#[derive(Debug, Clone)]
pub enum Missed {
    /// A message, as it is now.
    Message(Message),
    /// The last edit of a message the client has.
    Edit(Edit),
    /// A message is gone.
    Delete(Delete),
    /// Whether somebody's reaction with one emoji to a message the client has is there now.
    React(React),
    /// A room is new to the reader, or changed.
    Room(MessageId, Box<RoomView>),
    /// The reader may not read this room any more.
    RoomGone(MessageId, RoomId),
}

impl Missed {
    /// The event's place in the one order.
    #[must_use]
    pub fn id(&self) -> MessageId {
        match self {
            Self::Message(message) => message.id,
            Self::Edit(edit) => edit.id,
            Self::Delete(delete) => delete.id,
            Self::React(react) => react.id,
            Self::Room(id, _) | Self::RoomGone(id, _) => *id,
        }
    }

    /// Bytes that were written in it, about as many as it takes to hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.bytes(),
            Self::Edit(edit) => edit.content.as_str().len() + bytes_of(&edit.mentions),
            Self::Room(_, view) => {
                let members = view.members.as_ref().map_or(0, |(names, _)| bytes_of(names));
                members + view.last.as_ref().map_or(0, Message::bytes)
            }
            Self::Delete(_) | Self::React(_) | Self::RoomGone(..) => 0,
        }
    }
}

/// A reader's private and direct rooms, sorted.
pub type PrivateRooms = Arc<[RoomId]>;

/// The messages of a room that a user wants to be notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize))]
pub enum NotifyAbout {
    /// Every message.
    #[default]
    All,
    /// Those that mention them; in a direct room, all.
    Mentions,
    /// Nothing.
    Nothing,
}

/// The text that a quote shows.
#[must_use]
pub fn quoted(text: &str) -> String {
    text.chars().take(QUOTE_MAX_CHARS).collect()
}

/// Candidates for the names that a text mentions, each as long as it can be: what follows an `@` at the start of a
/// word. Only the database knows whether somebody has such a name, and how many of the final `.`, `_` and `-` belong to
/// it.
pub fn mention_candidates(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    text.match_indices('@').filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|char| char.is_alphanumeric() || matches!(char, '.' | '/' | '@')) {
            return None;
        }
        let rest = &text[at + 1..];
        let name = &rest[..rest.find(|char| !is_name(char)).unwrap_or(rest.len())];
        let goes_on = rest[name.len()..].chars().next().is_some_and(char::is_alphanumeric);
        (!name.is_empty() && !goes_on).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_name_is_a_line_of_1_to_60_characters() {
        assert_eq!(RoomName::parse("  Küche  ").unwrap().as_str(), "Küche");
        assert!(RoomName::parse(&"ü".repeat(60)).is_some());
        for bad in ["", " \t ", &"x".repeat(61), "a\nb", "a\u{7f}b"] {
            assert!(RoomName::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn what_else_is_said_of_rooms_and_pictures_is_a_line_of_so_many_characters() {
        let lengths = |text: &str| {
            let length = |text: &str| text.chars().count();
            let emoji = RoomEmoji::parse(text).map(|emoji| length(emoji.as_str()));
            let topic = Topic::parse(text).map(|topic| length(topic.as_str()));
            [emoji, topic, AltText::parse(text).map(|alt| length(alt.as_str()))]
        };
        let max = [ROOM_EMOJI_MAX_CHARS, TOPIC_MAX_CHARS, ALT_MAX_CHARS];
        for (at, chars) in max.into_iter().enumerate() {
            assert_eq!(lengths(&format!(" {} ", "ü".repeat(chars)))[at], Some(chars));
            assert_eq!(lengths(&"x".repeat(chars + 1))[at], None);
        }
        assert_eq!(lengths(" "), [None, Some(0), Some(0)]);
        assert_eq!(lengths("a\nb"), [None; 3]);
    }

    #[test]
    fn a_quote_is_the_beginning_of_a_text() {
        let text = "ü".repeat(QUOTE_MAX_CHARS);
        assert_eq!(quoted(&format!("{text}x")), text);
        assert_eq!(quoted("short"), "short");
    }

    #[test]
    fn folding_joins_what_differs_in_case_alone() {
        for (one, other) in [("Küche", "KÜCHE"), ("ΟΔΟΣ", "οδος"), ("ſ", "S"), ("\u{212a}", "k"), ("ẞ", "ß")]
        {
            assert_eq!(fold(one), fold(other));
        }
        assert_ne!(fold("ı"), fold("i"));
        assert_ne!(fold("ss"), fold("ß"), "simple folding keeps lengths");
    }

    #[test]
    fn a_mention_begins_a_word_and_is_no_part_of_an_address() {
        let found = |text| mention_candidates(text).collect::<Vec<_>>();
        assert_eq!(found("@ada, (@grace) @all!"), ["ada", "grace", "all"]);
        assert_eq!(found("ask @ada.lovelace. or @ada-"), ["ada.lovelace.", "ada-"]);
        assert_eq!(found("ada@example.org https://x.example/@ada a.@b @@c é@d"), ["c"; 0]);
        assert_eq!(found("@adaé @ada語 @ada…"), ["ada"]);
        assert_eq!(found("@ @"), [""; 0]);
    }

    #[test]
    fn only_the_reactions_that_are_offered_are_taken() {
        assert!(REACTIONS.iter().all(|emoji| Emoji::parse(emoji).is_some()));
        assert!(["", "x", "👍👍", "🦀"].iter().all(|emoji| Emoji::parse(emoji).is_none()));
    }
}

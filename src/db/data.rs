//! The types that go in and out of the database. Those that a [`Change`](super::change::Change) contains are written
//! into the log of a cluster: a field that is added or renamed there needs a new version of entries.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::config::{Durability, Retention};
use crate::limits::{EDIT_WITHIN, IMAGE_WAIT, SESSION_LIFETIME, SESSION_TOUCH};
use crate::model::{Content, Message, MessageId, Nonce, SessionId, UnixMillis, UserId, Username};
use crate::room::{AltText, Emoji, Event, ImageId, RoomId};

/// The operator's choices about a database.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What an acknowledged message has survived.
    pub durability: Durability,
    /// How much of the history stays.
    pub retention: Retention,
}

/// The user that a login is checked against.
#[derive(Debug)]
pub struct Credentials {
    /// The user's row.
    pub user: UserId,
    /// The name, as it was registered.
    pub username: Username,
    /// The PHC string of the password.
    pub password_hash: String,
}

/// A live login.
#[derive(Debug, Clone)]
pub struct Session {
    /// The login's row.
    pub id: SessionId,
    /// The user who logged in.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// Whether the user is a program.
    pub is_bot: bool,
    /// Whether the user is a moderator.
    pub is_moderator: bool,
    /// When it was last used, to about an hour.
    pub(super) last_used_at: UnixMillis,
}

impl Session {
    /// Whether its use should be recorded now.
    pub(super) fn is_to_be_touched(&self, now: UnixMillis) -> bool {
        now.0.saturating_sub(self.last_used_at.0) > millis(SESSION_TOUCH)
    }
}

/// A session as its user sees it.
#[derive(Debug)]
pub struct LoginRow {
    /// The login's row.
    pub id: SessionId,
    /// When it began.
    pub created_at: UnixMillis,
    /// When it was last used, accurate to about an hour.
    pub last_used_at: UnixMillis,
    /// A short form of the client's name.
    pub client: String,
}

/// An invitation, as users who may invite see it.
#[derive(Debug)]
pub struct InviteRow {
    /// The invitation's row.
    pub id: i64,
    /// How many may register with it in all.
    pub uses: u32,
    /// How many more may.
    pub left: u32,
    /// Who made it; `None` if it was made from a shell.
    pub created_by: Option<Username>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it stops working.
    pub expires_at: UnixMillis,
    /// The users who registered with it.
    pub users: Vec<Username>,
}

/// A user, as the others see them.
#[derive(Debug)]
pub struct Person {
    /// The user's name.
    pub username: Username,
    /// Whether the user is a program.
    pub is_bot: bool,
    /// Whether the user is a moderator.
    pub is_moderator: bool,
    /// When the user was last seen.
    pub last_seen: Option<UnixMillis>,
}

/// The sender of messages.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Sender {
    /// The session they are sent in. Once it has ended, nothing more is stored.
    pub session: SessionId,
    /// The user who logged in.
    pub user: UserId,
    /// The user's name, as shown to the readers.
    pub username: Username,
    /// Whether the user is a program.
    pub is_bot: bool,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Its event; for a repeat, the event of the first.
    pub event: MessageId,
    /// Whether it had the nonce of an earlier write, so that nothing was stored.
    pub is_repeat: bool,
}

/// A message to be stored.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct NewMessage {
    /// The room it is for.
    pub room: RoomId,
    /// Its text; empty only if it has a picture.
    pub content: Content,
    /// The message it replies to.
    pub reply_to: Option<MessageId>,
    /// A picture that the sender has stored before, and its description.
    pub image: Option<(ImageId, AltText)>,
    /// The sender's name for it.
    pub nonce: Option<Nonce>,
}

impl NewMessage {
    /// A text in the lobby.
    #[must_use]
    pub fn plain(content: Content, nonce: Option<Nonce>) -> Self {
        Self { room: RoomId::LOBBY, content, reply_to: None, image: None, nonce }
    }
}

/// Something that a member writes. Each becomes one event, unless it is refused, a repeat, or changes nothing.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub enum Write {
    /// Stores a message.
    Message(NewMessage),
    /// Replaces the text of one's own message.
    Edit {
        /// The message.
        message: MessageId,
        /// The new text.
        content: Content,
        /// The sender's name for the edit.
        nonce: Option<Nonce>,
    },
    /// Deletes a message.
    Delete {
        /// The message.
        message: MessageId,
        /// The sender's name for the deletion.
        nonce: Option<Nonce>,
    },
    /// Reacts to a message, or takes that back.
    React {
        /// The message.
        message: MessageId,
        /// The reaction.
        emoji: Emoji,
        /// Whether to add it or to take it back.
        on: bool,
        /// The sender's name for this change.
        nonce: Option<Nonce>,
    },
}

impl Write {
    /// The sender's name for it.
    #[must_use]
    pub fn nonce(&self) -> Option<&Nonce> {
        match self {
            Self::Message(NewMessage { nonce, .. })
            | Self::Edit { nonce, .. }
            | Self::Delete { nonce, .. }
            | Self::React { nonce, .. } => nonce.as_ref(),
        }
    }

    /// Bytes of its text.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::Message(NewMessage { content, image, .. }) => {
                content.as_str().len() + image.as_ref().map_or(0, |(_, alt)| alt.as_str().len())
            }
            Self::Edit { content, .. } => content.as_str().len(),
            Self::Delete { .. } | Self::React { .. } => 0,
        }
    }

    /// Memory it takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.text_bytes() + self.nonce().map_or(0, |nonce| nonce.as_str().len())
    }
}

/// The rules for members' writes that are not in the database. They come with the writes, so that they are the same
/// wherever those are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct WriteRules {
    /// For how long a message can be edited, in milliseconds.
    pub edit_within_ms: i64,
    /// For how long a picture waits for its message, in milliseconds.
    pub image_wait_ms: i64,
}

impl WriteRules {
    /// Those of this version.
    pub(super) fn current() -> Self {
        Self { edit_within_ms: millis(EDIT_WITHIN), image_wait_ms: millis(IMAGE_WAIT) }
    }
}

/// Which part of a room's history to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageQuery {
    /// The newest.
    Newest,
    /// The newest messages before this one.
    Before(MessageId),
    /// The oldest messages after this one.
    After(MessageId),
    /// The messages on both sides of this one.
    Around(MessageId),
}

/// The messages from one id to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first of them.
    pub first: MessageId,
    /// The last of them.
    pub last: MessageId,
}

/// The messages of a page in one room.
#[derive(Debug)]
pub enum Page {
    /// Its messages, ascending.
    Messages(Vec<Message>),
    /// The ids it covers: its text is more than is held in memory at once, and is read in pieces with
    /// [`Db::messages_in`](super::Db::messages_in).
    Range(IdRange),
}

/// A page, and whether there is more beyond it.
#[derive(Debug)]
pub struct FoundPage {
    /// The page.
    pub page: Page,
    /// Whether there is more in the direction of reading; for a page around a message, whether there are older ones.
    pub has_more: bool,
    /// Whether there are newer messages; only for a page around a message.
    pub has_newer: Option<bool>,
    /// A place for its encoding, which is made once for all who get the same page.
    pub encoded: OnceLock<Bytes>,
}

impl FoundPage {
    pub(super) fn new(page: Page, has_more: bool, has_newer: Option<bool>) -> Self {
        Self { page, has_more, has_newer, encoded: OnceLock::new() }
    }
}

/// A page of a room's history, and the session of the request.
#[derive(Debug)]
pub struct History {
    /// The session of the request.
    pub session: Session,
    /// The page; `None` if its user may not read the room.
    pub page: Option<Arc<FoundPage>>,
}

/// One step of removing old messages.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub(super) struct Prune {
    /// The step begins after this message.
    pub(super) after: MessageId,
    /// Messages up to this one are removed,
    pub(super) until: MessageId,
    /// and those stored before this moment.
    pub(super) before: UnixMillis,
    /// How many messages the step looks at.
    pub(super) rows: u32,
}

/// What a step of removing messages did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pruned {
    pub(super) removed: usize,
    /// Where the next step begins; `None` if no messages are left to look at.
    pub(super) next: Option<MessageId>,
}

/// A picture to be stored.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct NewImage {
    /// Its media type, without `image/`.
    pub subtype: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The file.
    #[cfg_attr(feature = "cluster", serde(with = "super::encoding::base64"))]
    pub bytes: Vec<u8>,
}

/// What the head of an answer says of a picture.
#[derive(Debug)]
pub struct ImageInfo {
    /// Its media type, without `image/`.
    pub subtype: String,
    /// The size of the file.
    pub bytes: u32,
}

/// Some of the messages that a user has written.
#[derive(Debug)]
pub struct MessagesBy {
    /// Ascending.
    pub messages: Vec<Message>,
    /// Where to continue; `None` at the end.
    pub next: Option<MessageId>,
}

/// What one transaction stored.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The last event of the commit before.
    pub after: MessageId,
    /// The events, in `id` order; possibly none.
    pub events: &'a [Event],
    /// Commands in the transaction.
    pub commands: usize,
    /// How many commands were waiting when it was done.
    pub waiting: usize,
    /// Time from the first statement to the end of the commit.
    pub took: Duration,
}

/// What the writer thread reports of a commit.
#[derive(Debug)]
pub enum Committed<'a> {
    /// These sessions have ended. Reported before the request that ended them is answered, so that nothing sent on
    /// their sockets afterwards is accepted.
    SessionsEnded(&'a [SessionId]),
    /// Rooms or their members changed by these events. Reported before the request for it is answered, so that somebody
    /// who was removed is told nothing that comes after (promise 8).
    Membership(&'a [Event]),
    /// These events were stored. Reported after the senders are answered.
    Stored(Commit<'a>),
    /// A failed commit reached the disk after all. This is the last event now; what the ones before it were has to be
    /// read from the database.
    TurnedUp(MessageId),
}

/// Called by the writer thread after each commit, in order: it must not block for long, since nothing is stored
/// meanwhile.
pub type OnCommit = Box<dyn FnMut(Committed<'_>) + Send>;

/// Sessions that were last used at or before this moment are expired.
pub(super) fn expired_at(now: UnixMillis) -> UnixMillis {
    now.plus(-millis(SESSION_LIFETIME))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

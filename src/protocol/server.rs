//! The frames that the server sends over a WebSocket, serialized straight from the model's types: nothing is copied to
//! be encoded.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};

use crate::model::{Message, Nonce, Username};
use crate::room::{Delete, Edit, Image, Missed, NotifyAbout, Quote, React, Reaction, RoomKind, RoomView};

/// A frame from the server: the contract's table, with its names.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the contract says what each frame and field means")]
pub enum ServerFrame<'a> {
    AuthSuccess {
        username: &'a str,
        last_id: i64,
        epoch: &'a str,
        online: usize,
        users: &'a [Username],
        moderator: bool,
        server: &'a str,
    },
    AuthFailed {
        code: AuthFailure,
        message: &'static str,
    },
    UserJoin {
        username: &'a str,
    },
    UserLeave {
        username: &'a str,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        last_id: Option<i64>,
    },
    Message(WireMessage<'a>),
    Edit {
        id: i64,
        room: i64,
        message: i64,
        content: &'a str,
        edited_at: i64,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        mentions: &'a [Username],
    },
    Delete {
        id: i64,
        room: i64,
        message: i64,
        by: &'a str,
    },
    React {
        id: i64,
        room: i64,
        message: i64,
        username: &'a str,
        emoji: &'static str,
        on: bool,
    },
    Room {
        id: i64,
        room: WireRoom<'a>,
    },
    RoomGone {
        id: i64,
        room: i64,
    },
    Read {
        room: i64,
        id: i64,
    },
    Ack {
        nonce: &'a str,
        id: i64,
    },
    Typing {
        username: &'a str,
        room: i64,
    },
    Presence {
        online: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        users: Option<&'a [Username]>,
    },
    Resync {
        after: i64,
        last_id: i64,
    },
    Error {
        code: ErrorCode,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        nonce: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
}

impl<'a> ServerFrame<'a> {
    /// A stored message, as everyone gets it.
    #[must_use]
    pub fn message(message: &'a Message) -> Self {
        Self::Message(WireMessage::from(message))
    }

    pub(crate) fn edit(edit: &'a Edit) -> Self {
        let Edit { id, room, message, content, edited_at, mentions } = edit;
        let (id, room, message) = (id.get(), room.0, message.get());
        Self::Edit { id, room, message, content: content.as_str(), edited_at: edited_at.0, mentions }
    }

    pub(crate) fn delete(delete: &'a Delete) -> Self {
        let Delete { id, room, message, by } = delete;
        Self::Delete { id: id.get(), room: room.0, message: message.get(), by: by.as_str() }
    }

    pub(crate) fn react(react: &'a React) -> Self {
        let React { id, room, message, username, emoji, on } = react;
        let (id, room, message) = (id.get(), room.0, message.get());
        Self::React { id, room, message, username: username.as_str(), emoji: emoji.as_str(), on: *on }
    }

    /// An event as it is replayed to a client that comes back.
    pub(crate) fn missed(event: &'a Missed) -> Self {
        match event {
            Missed::Message(message) => Self::message(message),
            Missed::Edit(edit) => Self::edit(edit),
            Missed::Delete(delete) => Self::delete(delete),
            Missed::React(react) => Self::react(react),
            Missed::Room(id, room) => Self::Room { id: id.get(), room: WireRoom::from(&**room) },
            Missed::RoomGone(id, room) => Self::RoomGone { id: id.get(), room: room.0 },
        }
    }

    pub(crate) fn auth_failed(code: AuthFailure) -> Self {
        Self::AuthFailed { code, message: code.message() }
    }

    pub(crate) fn refusal(refusal: &'a Refusal) -> Self {
        Self::Error {
            code: refusal.code,
            message: &refusal.message,
            nonce: refusal.nonce.as_ref().map(Nonce::as_str),
            // Rounded up, so that a client that waits as long as this is not refused again.
            retry_after: refusal
                .retry_after
                .map(|wait| u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)),
        }
    }
}

impl Serialize for Username {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// MESSAGE of the contract.
#[derive(Debug, Serialize)]
pub struct WireMessage<'a> {
    id: i64,
    room: i64,
    username: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bot: bool,
    content: &'a str,
    created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a Quote>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mentions: &'a [Username],
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a Image>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reactions: &'a [Reaction],
}

impl<'a> From<&'a Message> for WireMessage<'a> {
    fn from(message: &'a Message) -> Self {
        let extras = message.extras.as_deref();
        Self {
            id: message.id.get(),
            room: message.room.0,
            username: message.username.as_str(),
            bot: message.is_bot,
            content: message.content.as_str(),
            created_at: message.created_at.0,
            edited_at: extras.and_then(|extras| extras.edited_at).map(|at| at.0),
            reply_to: extras.and_then(|extras| extras.reply_to.as_ref()),
            mentions: extras.map_or(&[], |extras| &extras.mentions),
            image: extras.and_then(|extras| extras.image.as_ref()),
            reactions: extras.map_or(&[], |extras| &extras.reactions),
        }
    }
}

impl Serialize for Quote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut quote = serializer.serialize_struct("Quote", 3)?;
        quote.serialize_field("id", &self.id.get())?;
        if let Some((username, content)) = &self.shown {
            quote.serialize_field("username", username)?;
            quote.serialize_field("content", content)?;
        }
        quote.end()
    }
}

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut image = serializer.serialize_struct("Image", 5)?;
        image.serialize_field("id", &self.id.0)?;
        image.serialize_field("type", &format_args!("image/{}", self.subtype))?;
        image.serialize_field("width", &self.width)?;
        image.serialize_field("height", &self.height)?;
        image.serialize_field("alt", &self.alt)?;
        image.end()
    }
}

impl Serialize for Reaction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut reaction = serializer.serialize_struct("Reaction", 4)?;
        reaction.serialize_field("emoji", self.emoji.as_str())?;
        reaction.serialize_field("count", &self.count)?;
        reaction.serialize_field("mine", &self.mine)?;
        reaction.serialize_field("names", &self.names)?;
        reaction.end()
    }
}

/// ROOM of the contract, as one reader sees it.
#[derive(Debug, Serialize)]
pub struct WireRoom<'a> {
    id: i64,
    kind: &'static str,
    name: Option<&'a str>,
    emoji: Option<&'a str>,
    topic: &'a str,
    members: Option<&'a [Username]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member_count: Option<u32>,
    archived: bool,
    last: Option<WireMessage<'a>>,
    read: i64,
    unread: u32,
    mentioned: u32,
    notify: Option<&'static str>,
}

impl<'a> From<&'a RoomView> for WireRoom<'a> {
    fn from(room: &'a RoomView) -> Self {
        Self {
            id: room.id.0,
            kind: kind_name(room.kind),
            name: room.name.as_deref(),
            emoji: room.emoji.as_deref(),
            topic: &room.topic,
            members: room.members.as_ref().map(|(names, _)| &names[..]),
            member_count: room.members.as_ref().map(|(_, count)| *count),
            archived: room.archived,
            last: room.last.as_ref().map(WireMessage::from),
            read: room.read.get(),
            unread: room.unread,
            mentioned: room.mentioned,
            notify: room.notify.map(notify_name),
        }
    }
}

/// The wire's name for what a user wants to be notified of.
const fn notify_name(about: NotifyAbout) -> &'static str {
    match about {
        NotifyAbout::All => "all",
        NotifyAbout::Mentions => "mentions",
        NotifyAbout::Nothing => "nothing",
    }
}

/// The wire's name for a kind of room.
const fn kind_name(kind: RoomKind) -> &'static str {
    match kind {
        RoomKind::Open => "open",
        RoomKind::Private => "private",
        RoomKind::Direct => "direct",
    }
}

/// Why a frame was refused: the code, the text, and the nonce of the message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: Cow<'static, str>,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn invalid_json(message: &'static str) -> Self {
        Self { code: ErrorCode::InvalidJson, message: message.into(), nonce: None, retry_after: None }
    }

    pub(crate) fn invalid_message(message: impl Into<Cow<'static, str>>, nonce: Option<Nonce>) -> Self {
        Self { code: ErrorCode::InvalidMessage, message: message.into(), nonce, retry_after: None }
    }

    /// The sender is too fast and may continue after `wait`.
    pub(crate) fn rate_limited(wait: Duration, nonce: Option<Nonce>) -> Self {
        let message = "too many messages: wait a moment".into();
        Self { code: ErrorCode::RateLimited, message, nonce, retry_after: Some(wait) }
    }

    /// The disk has no room for more text.
    pub(crate) fn no_space(nonce: Option<Nonce>) -> Self {
        let message = "this server has no disk space for new messages: its operator can free some".into();
        Self { code: ErrorCode::NoSpace, message, nonce, retry_after: None }
    }

    /// The room or the message does not allow it; `message` says why.
    pub(crate) fn of_write(code: ErrorCode, message: String, nonce: Option<Nonce>) -> Self {
        Self { code, message: message.into(), nonce, retry_after: None }
    }

    /// The database fails or its queue is full.
    pub(crate) fn unavailable(nonce: Option<Nonce>) -> Self {
        let message = "the message could not be stored: try again soon".into();
        Self { code: ErrorCode::Unavailable, message, nonce, retry_after: None }
    }
}

/// The codes of an `error` frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the contract says when each is sent")]
pub enum ErrorCode {
    InvalidJson,
    InvalidMessage,
    RateLimited,
    Unavailable,
    Forbidden,
    NotFound,
    Archived,
    TooOld,
    Gone,
    NoSpace,
}

/// The codes of `auth_failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the contract says when each is sent")]
pub enum AuthFailure {
    Unauthorized,
    InvalidJson,
    AuthTimeout,
    Unavailable,
}

impl AuthFailure {
    const fn message(self) -> &'static str {
        match self {
            Self::Unauthorized => "the first frame must be an auth with the token of a live session: log in",
            Self::InvalidJson => "the first frame must be {\"type\":\"auth\",\"token\":…}",
            Self::AuthTimeout => "no auth frame came in time",
            Self::Unavailable => "the session cannot be checked now: try again soon",
        }
    }
}

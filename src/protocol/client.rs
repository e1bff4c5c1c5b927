//! The frames that clients send over a WebSocket.
//!
//! Parsing checks everything that needs no database, so that a [`ClientFrame`] is proof of it. A plain message, the
//! most frequent frame, takes one pass over the text. Any other frame takes one for its type and one for each group of
//! fields, so that a refusal can say which is wrong, and names the nonce even if another field is.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::parse_object;
use super::server::{AuthFailure, Refusal};
use crate::db::NewMessage;
use crate::model::{Content, InvalidContent, MessageId, Nonce};
use crate::room::{AltText, Emoji, ImageId, RoomId};
use crate::secret::Token;

/// A frame from a client that has authenticated.
#[derive(Debug)]
pub(crate) enum ClientFrame {
    Message(NewMessage),
    Edit {
        message: MessageId,
        content: Content,
        nonce: Option<Nonce>,
    },
    Delete {
        message: MessageId,
        nonce: Option<Nonce>,
    },
    React {
        message: MessageId,
        emoji: Emoji,
        on: bool,
        nonce: Option<Nonce>,
    },
    Read {
        room: RoomId,
        id: MessageId,
    },
    Typing {
        room: RoomId,
    },
    Ping {
        /// Whether the page is in sight, if it says.
        #[cfg(feature = "push")]
        in_sight: Option<bool>,
    },
}

/// The optional parts of a message.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Attachments {
    pub(crate) room: Option<i64>,
    reply_to: Option<i64>,
    image: Option<i64>,
    alt: Option<String>,
}

impl Attachments {
    /// Checks a message with these parts. The error is a text for the client.
    pub(crate) fn to_message(
        &self,
        content: &str,
        nonce: Option<Nonce>,
    ) -> Result<NewMessage, (Cow<'static, str>, Option<Nonce>)> {
        let image = match (self.image, AltText::parse(self.alt.as_deref().unwrap_or_default())) {
            (None, _) => None,
            (Some(image), Some(alt)) => Some((ImageId(image), alt)),
            (Some(_), None) => return Err((INVALID_ALT.into(), nonce)),
        };
        let content = match Content::parse(content) {
            Ok(content) => content,
            Err(InvalidContent::Blank) if image.is_some() => Content::none(),
            Err(error) => return Err((error.to_string().into(), nonce)),
        };
        let room = self.room.map_or(RoomId::LOBBY, RoomId);
        Ok(NewMessage { room, content, reply_to: self.reply_to.map(MessageId::new), image, nonce })
    }
}

const INVALID_ALT: &str = "alt must be one line of at most 1,000 characters";

/// The first frame of a connection.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) token: Token,
    /// The last message the client has, and the epoch it belongs to if the client sends one.
    pub(crate) last_id: Option<MessageId>,
    pub(crate) epoch: Option<String>,
    /// Whether it reads all rooms that its user may read; a client of the first edition reads the lobby alone.
    pub(crate) all_rooms: bool,
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

impl Auth {
    /// Parses the first frame of a connection.
    pub(crate) fn parse(text: &str) -> Result<Self, AuthFailure> {
        #[derive(Deserialize)]
        struct Fields {
            token: String,
            last_id: Option<i64>,
            epoch: Option<String>,
            rooms: Option<bool>,
        }
        let tag: Tag<'_> = parse_object(text.as_bytes()).ok_or(AuthFailure::InvalidJson)?;
        if tag.r#type != "auth" {
            return Err(AuthFailure::Unauthorized);
        }
        let fields: Fields = parse_object(text.as_bytes()).ok_or(AuthFailure::InvalidJson)?;
        if fields.last_id.is_some_and(|id| id < 0) {
            return Err(AuthFailure::InvalidJson);
        }
        let token = Token::parse(&fields.token).ok_or(AuthFailure::Unauthorized)?;
        let all_rooms = fields.rooms.unwrap_or_default();
        Ok(Self { token, last_id: fields.last_id.map(MessageId::new), epoch: fields.epoch, all_rooms })
    }
}

impl ClientFrame {
    /// Parses any later frame of a connection.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        // The fast pass: a borrowed string fails to parse if it has escapes, and the frame then takes the slow way.
        #[derive(Deserialize)]
        struct Plain<'a> {
            r#type: &'a str,
            content: &'a str,
            nonce: Option<&'a str>,
            room: Option<i64>,
            reply_to: Option<IgnoredAny>,
            image: Option<IgnoredAny>,
        }
        if let Some(Plain { r#type: "message", content, nonce, room, reply_to: None, image: None }) =
            parse_object(text.as_bytes())
        {
            let attached = Attachments { room, ..Attachments::default() };
            return message(content, &attached, checked(nonce)?);
        }
        let tag: Tag<'_> = parse_object(text.as_bytes())
            .ok_or_else(|| Refusal::invalid_json("a frame must be a JSON object with a type"))?;
        match tag.r#type.as_ref() {
            "message" => Self::parse_message(text),
            "edit" => Self::parse_edit(text),
            "delete" => Self::parse_delete(text),
            "react" => Self::parse_react(text),
            "read" => Self::parse_read(text),
            "typing" => Self::parse_typing(text),
            "ping" => Ok(Self::parse_ping(text)),
            "auth" => Err(Refusal::invalid_message("this connection is already authenticated", None)),
            _ => Err(Refusal::invalid_json("unknown frame type")),
        }
    }

    #[cfg_attr(not(feature = "push"), expect(unused_variables, reason = "only a server that pushes looks into it"))]
    fn parse_ping(text: &str) -> Self {
        #[cfg(feature = "push")]
        #[derive(Deserialize)]
        struct Fields {
            in_sight: Option<bool>,
        }
        Self::Ping {
            #[cfg(feature = "push")]
            in_sight: serde_json::from_str(text).ok().and_then(|Fields { in_sight }| in_sight),
        }
    }

    fn parse_message(text: &str) -> Result<Self, Refusal> {
        /// It may be left out beside a picture.
        #[derive(Deserialize)]
        struct Caption<'a> {
            #[serde(borrow, default)]
            content: Cow<'a, str>,
        }
        let nonce = nonce_of(text)?;
        let content: Caption<'_> = fields(text, "a message needs content, a string", nonce.as_ref())?;
        let attached: Attachments =
            fields(text, "room, reply_to and image must be ids, and alt a string", nonce.as_ref())?;
        message(&content.content, &attached, nonce)
    }

    fn parse_edit(text: &str) -> Result<Self, Refusal> {
        let nonce = nonce_of(text)?;
        let message = target_of(text, nonce.as_ref())?;
        let content: ContentField<'_> = fields(text, "an edit needs content, a string", nonce.as_ref())?;
        match Content::parse(&content.content) {
            Ok(content) => Ok(Self::Edit { message, content, nonce }),
            Err(error) => Err(Refusal::invalid_message(error.to_string(), nonce)),
        }
    }

    fn parse_delete(text: &str) -> Result<Self, Refusal> {
        let nonce = nonce_of(text)?;
        Ok(Self::Delete { message: target_of(text, nonce.as_ref())?, nonce })
    }

    fn parse_react(text: &str) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Fields {
            emoji: String,
            on: bool,
        }
        let nonce = nonce_of(text)?;
        let message = target_of(text, nonce.as_ref())?;
        let Fields { emoji, on } = fields(text, "a reaction needs emoji, a string, and on, a boolean", nonce.as_ref())?;
        match Emoji::parse(&emoji) {
            Some(emoji) => Ok(Self::React { message, emoji, on, nonce }),
            None => Err(Refusal::invalid_message("unknown reaction", nonce)),
        }
    }

    fn parse_read(text: &str) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Fields {
            room: i64,
            id: i64,
        }
        let Fields { room, id } = fields(text, "a read needs room and id, both ids", None)?;
        Ok(Self::Read { room: RoomId(room), id: MessageId::new(id) })
    }

    fn parse_typing(text: &str) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Fields {
            room: Option<i64>,
        }
        let Fields { room } = fields(text, "room must be an id", None)?;
        Ok(Self::Typing { room: room.map_or(RoomId::LOBBY, RoomId) })
    }
}

#[derive(Deserialize)]
struct ContentField<'a> {
    #[serde(borrow)]
    content: Cow<'a, str>,
}

fn message(content: &str, attached: &Attachments, nonce: Option<Nonce>) -> Result<ClientFrame, Refusal> {
    let message = attached.to_message(content, nonce);
    message.map(ClientFrame::Message).map_err(|(error, nonce)| Refusal::invalid_message(error, nonce))
}

/// The message that a frame is about.
fn target_of(text: &str, nonce: Option<&Nonce>) -> Result<MessageId, Refusal> {
    #[derive(Deserialize)]
    struct Fields {
        message: i64,
    }
    let Fields { message } = fields(text, "the frame needs message, an id", nonce)?;
    Ok(MessageId::new(message))
}

/// The fields of a frame; `otherwise` says what they must be.
fn fields<'a, T: Deserialize<'a>>(text: &'a str, otherwise: &'static str, nonce: Option<&Nonce>) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|_| Refusal::invalid_message(otherwise, nonce.cloned()))
}

/// The nonce of a frame, if it has one.
fn nonce_of(text: &str) -> Result<Option<Nonce>, Refusal> {
    #[derive(Deserialize)]
    struct NonceField<'a> {
        #[serde(borrow)]
        nonce: Option<Cow<'a, str>>,
    }
    let field: NonceField<'_> = serde_json::from_str(text).map_err(|_| invalid_nonce())?;
    checked(field.nonce.as_deref())
}

fn checked(nonce: Option<&str>) -> Result<Option<Nonce>, Refusal> {
    nonce.map(|nonce| Nonce::parse(nonce).ok_or_else(invalid_nonce)).transpose()
}

fn invalid_nonce() -> Refusal {
    Refusal::invalid_message("nonce must be a string of 1 to 64 characters", None)
}

impl Refusal {
    /// Adds the nonce of the frame `text`, if it has one, so that the client knows which message to send again.
    pub(crate) fn of(self, text: &str) -> Self {
        Self { nonce: nonce_of(text).ok().flatten(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ErrorCode;
    use super::*;

    #[test]
    fn a_refused_message_keeps_its_nonce() {
        let refusal = ClientFrame::parse(r#"{"type":"message","content":" ","nonce":"n1"}"#).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidMessage);
        assert_eq!(refusal.nonce, Nonce::parse("n1"));
        let refusal = ClientFrame::parse(r#"{"type":"message","content":7,"nonce":"n1"}"#).unwrap_err();
        assert_eq!((refusal.code, refusal.nonce), (ErrorCode::InvalidMessage, Nonce::parse("n1")));
    }

    #[test]
    fn a_message_is_the_same_however_its_strings_are_written() {
        let escaped = |text: &str| text.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<Vec<_>>().concat();
        let as_is = ToOwned::to_owned;
        let long = "n".repeat(65);
        for (content, nonce) in [("hello", "n1"), (" hello ", "n1"), (" ", "n1"), ("hello", ""), ("hello", &long)] {
            let parsed = |write: &dyn Fn(&str) -> String| {
                let (kind, content, nonce) = (write("message"), write(content), write(nonce));
                let frame = format!(r#"{{"type":"{kind}","content":"{content}","nonce":"{nonce}"}}"#);
                format!("{:?}", ClientFrame::parse(&frame))
            };
            assert_eq!(parsed(&as_is), parsed(&escaped));
        }
        let without = ClientFrame::parse(r#"{"nonce":null,"content":"hello","type":"message"}"#);
        assert!(matches!(without, Ok(ClientFrame::Message(NewMessage { nonce: None, .. }))), "{without:?}");
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_types_refused() {
        assert!(matches!(ClientFrame::parse(r#"{"a":[{}],"type":"ping","b":1}"#), Ok(ClientFrame::Ping { .. })));
        for bad in ["", "[]", "null", "{}", r#"{"type":7}"#, r#"{"type":"nope"}"#, r#"{"type":"ping""#] {
            assert_eq!(ClientFrame::parse(bad).unwrap_err().code, ErrorCode::InvalidJson, "{bad}");
        }
    }

    #[test]
    fn a_first_frame_that_is_not_auth_is_unauthorized() {
        assert_eq!(Auth::parse(r#"{"type":"ping"}"#).unwrap_err(), AuthFailure::Unauthorized);
        assert_eq!(Auth::parse(r#"{"type":"auth","token":"short"}"#).unwrap_err(), AuthFailure::Unauthorized);
        assert_eq!(Auth::parse(r#"{"type":"auth"}"#).unwrap_err(), AuthFailure::InvalidJson);
        assert_eq!(Auth::parse("hello").unwrap_err(), AuthFailure::InvalidJson);
    }
}

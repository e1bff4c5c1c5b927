//! The bodies of HTTP requests and answers: of messages, rooms, users and the server itself. A password leaves here
//! only as a `Password`, which no log shows.

use serde::{Deserialize, Serialize};

use super::client::Attachments;
use super::parse_object;
use super::server::{WireMessage, WireRoom};
use crate::model::{Message, MessageId, UnixMillis, Username};
use crate::room::{NotifyAbout, RoomView};
use crate::secret::{Password, Token};

/// The body of `POST /register` and `POST /login`.
#[derive(Deserialize)]
pub(crate) struct CredentialsBody {
    pub(crate) username: String,
    password: String,
}

/// The optional field of the body of `POST /register`.
#[derive(Deserialize)]
pub(crate) struct InviteBody {
    /// The code of an invitation.
    #[serde(rename = "invite")]
    pub(crate) code: Option<String>,
}

impl CredentialsBody {
    /// The password for a new account, if its length is acceptable.
    pub(crate) fn new_password(self) -> Option<Password> {
        Password::parse(self.password)
    }

    /// The password as sent to log in.
    pub(crate) fn claimed_password(self) -> Password {
        Password::claimed(self.password)
    }
}

/// The body of `PUT /push`: a browser's subscription as its JSON has it, and what to push.
#[cfg(feature = "push")]
#[derive(Deserialize)]
pub(crate) struct SubscriptionBody {
    pub(crate) endpoint: String,
    pub(crate) keys: KeysBody,
    #[serde(default)]
    what: What,
    #[serde(default)]
    pub(crate) hides_text: bool,
}

/// The keys of a subscription, in base64url.
#[cfg(feature = "push")]
#[derive(Deserialize)]
pub(crate) struct KeysBody {
    pub(crate) p256dh: String,
    pub(crate) auth: String,
}

#[cfg(feature = "push")]
impl SubscriptionBody {
    /// Whether anything would be pushed: a subscription to nothing is refused.
    pub(crate) fn tells(&self) -> bool {
        self.what != What::Nothing
    }

    pub(crate) fn about(&self) -> NotifyAbout {
        self.what.into()
    }
}

/// What somebody wants to be notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    #[default]
    All,
    Mentions,
    Nothing,
}

impl From<What> for NotifyAbout {
    fn from(what: What) -> Self {
        match what {
            What::All => Self::All,
            What::Mentions => Self::Mentions,
            What::Nothing => Self::Nothing,
        }
    }
}

/// The body of `DELETE /push`.
#[cfg(feature = "push")]
#[derive(Deserialize)]
pub(crate) struct EndpointBody {
    pub(crate) endpoint: String,
}

/// The body of `200` to `GET /push`.
#[cfg(feature = "push")]
pub(crate) fn push_key_body(key: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        key: &'a str,
    }
    to_json(&Body { key })
}

/// The body of `POST /messages` as JSON.
#[derive(Deserialize)]
pub(crate) struct MessageBody {
    /// May be left out beside a picture.
    #[serde(default)]
    pub(crate) content: String,
    pub(crate) nonce: Option<String>,
    #[serde(flatten)]
    pub(crate) attached: Attachments,
}

/// The body of `PATCH /messages/ID`.
#[derive(Deserialize)]
pub(crate) struct EditBody {
    pub(crate) content: String,
    pub(crate) nonce: Option<String>,
}

/// The body of `POST /rooms`.
#[derive(Deserialize)]
pub(crate) struct NewRoomBody {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) emoji: Option<String>,
    pub(crate) topic: Option<String>,
    #[serde(default)]
    pub(crate) members: Vec<String>,
}

/// The body of `PATCH /rooms/ID`.
#[derive(Deserialize)]
pub(crate) struct RoomChangeBody {
    pub(crate) name: Option<String>,
    /// `null` removes it.
    #[serde(default, deserialize_with = "given")]
    #[expect(clippy::option_option, reason = "null and a missing field differ")]
    pub(crate) emoji: Option<Option<String>>,
    pub(crate) topic: Option<String>,
    pub(crate) archived: Option<bool>,
}

#[expect(clippy::option_option, reason = "null and a missing field differ")]
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The body of `PUT /rooms/ID/notify`.
#[derive(Deserialize)]
pub(crate) struct NotifyBody {
    pub(crate) what: What,
}

/// The body of `POST /direct`.
#[derive(Deserialize)]
pub(crate) struct DirectBody {
    pub(crate) username: String,
}

/// Reads a JSON body; `None` if it is not the JSON object that the route takes.
pub(crate) fn parse_body<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Option<T> {
    parse_object(body)
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'a str,
    message: &'a str,
}

/// The body of every error answer.
pub(crate) fn error_body(code: &str, message: &str) -> Vec<u8> {
    to_json(&ErrorBody { error: ErrorFields { code, message } })
}

/// The body of `201` to `POST /register`.
pub(crate) fn registered_body(username: &Username) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        username: &'a Username,
    }
    to_json(&Body { username })
}

/// The body of `200` to `POST /login`.
pub(crate) fn login_body(token: &Token, username: &Username, expires_at: UnixMillis) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        token: &'a str,
        username: &'a Username,
        expires_at: i64,
    }
    to_json(&Body { token: token.reveal(), username, expires_at: expires_at.0 })
}

/// The body of an answer with the id of an event.
pub(crate) fn event_body(id: MessageId) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body {
        id: i64,
    }
    to_json(&Body { id: id.get() })
}

/// ROOM as a body.
pub(crate) fn room_body(room: &RoomView) -> Vec<u8> {
    to_json(&WireRoom::from(room))
}

/// The body of `200` to `GET /rooms`.
pub(crate) fn rooms_body(rooms: &[RoomView]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        rooms: Vec<WireRoom<'a>>,
    }
    to_json(&Body { rooms: rooms.iter().map(WireRoom::from).collect() })
}

/// One of `GET /users`.
#[derive(Serialize)]
pub(crate) struct WireUser<'a> {
    pub(crate) username: &'a Username,
    pub(crate) bot: bool,
    pub(crate) moderator: bool,
    pub(crate) online: bool,
    pub(crate) last_seen: Option<i64>,
}

/// The body of `200` to `GET /users`.
pub(crate) fn users_body(users: &[WireUser<'_>]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        users: &'a [WireUser<'a>],
    }
    to_json(&Body { users })
}

/// The body of `200` to `GET /about`.
#[derive(Serialize)]
pub(crate) struct AboutBody<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'static str,
    pub(crate) registration: &'static str,
    pub(crate) new: bool,
    pub(crate) push: bool,
    pub(crate) reactions: &'static [&'static str],
    pub(crate) limits: AboutLimits,
}

/// The server's limits that clients need to know; times in milliseconds.
#[derive(Serialize)]
pub(crate) struct AboutLimits {
    pub(crate) content: usize,
    pub(crate) edit_within: u64,
    pub(crate) page: u32,
    pub(crate) room_name: usize,
    pub(crate) topic: usize,
    pub(crate) alt: usize,
    pub(crate) image_bytes: usize,
    /// Of a side.
    pub(crate) image_pixels: u32,
}

impl AboutBody<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// The body of `200` to `GET /messages`, in one piece or in several.
#[derive(Debug)]
pub(crate) struct HistoryBody {
    has_more: bool,
    /// Only of a page around a message.
    has_newer: Option<bool>,
    begun: bool,
}

impl HistoryBody {
    pub(crate) fn new(has_more: bool, has_newer: Option<bool>) -> Self {
        Self { has_more, has_newer, begun: false }
    }

    /// Appends the next messages, in ascending order.
    pub(crate) fn push(&mut self, messages: &[Message], body: &mut Vec<u8>) {
        // Room for everything except escapes: growing step by step would copy it repeatedly.
        body.reserve(messages.iter().map(|message| message.content.as_str().len() + MESSAGE_BYTES).sum());
        for message in messages {
            let start: &[u8] = if std::mem::replace(&mut self.begun, true) { b"," } else { HISTORY_START };
            body.extend_from_slice(start);
            put_message(body, message);
        }
    }

    /// Appends the end of the body.
    pub(crate) fn end(self, body: &mut Vec<u8>) {
        if !self.begun {
            body.extend_from_slice(HISTORY_START);
        }
        body.extend_from_slice(format!(r#"],"has_more":{}"#, self.has_more).as_bytes());
        if let Some(has_newer) = self.has_newer {
            body.extend_from_slice(format!(r#","has_newer":{has_newer}"#).as_bytes());
        }
        body.push(b'}');
    }
}

/// Appends a message. One with nothing but a text is written without serde, which would have a page take a fifth more
/// instructions. No character of a name needs an escape.
fn put_message(body: &mut Vec<u8>, message: &Message) {
    let Message { id, room, username, is_bot, content, created_at, extras } = message;
    if *is_bot || extras.is_some() {
        return serde_json::to_writer(body, &WireMessage::from(message)).expect(ENCODES);
    }
    let number = |body: &mut Vec<u8>, number: i64| serde_json::to_writer(body, &number).expect(ENCODES);
    body.extend_from_slice(br#"{"id":"#);
    number(body, id.get());
    body.extend_from_slice(br#","room":"#);
    number(body, room.0);
    body.extend_from_slice(br#","username":""#);
    body.extend_from_slice(username.as_str().as_bytes());
    body.extend_from_slice(br#"","content":"#);
    let content = content.as_str();
    if content.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        serde_json::to_writer(&mut *body, content).expect(ENCODES);
    } else {
        body.push(b'"');
        body.extend_from_slice(content.as_bytes());
        body.push(b'"');
    }
    body.extend_from_slice(br#","created_at":"#);
    number(body, created_at.0);
    body.push(b'}');
}

const HISTORY_START: &[u8] = br#"{"messages":["#;
/// Maximum bytes of a plain message in JSON, without its content.
const MESSAGE_BYTES: usize = 144;
const ENCODES: &str = "structs of strings and numbers always encode, and writing to a vector cannot fail";

pub(super) fn to_json<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect(ENCODES)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Content, MessageId, UserId};
    use crate::room::{Extras, RoomId};

    #[test]
    fn a_message_in_a_history_is_written_as_serde_writes_it() {
        for content in ["hello", "naïve 🦀", "\"", "back\\slash", "a\tb\nc", "</script>", "a\u{2028}b"] {
            let (username, content) = (Username::parse("Ada.9_-").unwrap(), Content::parse(content).unwrap());
            let plain = Message::plain(MessageId::new(7), username, content, UnixMillis(1_700_000_000_000));
            let deleted = Message { username: Username::deleted(UserId(7)), room: RoomId(2), ..plain.clone() };
            let edited = Extras { edited_at: Some(UnixMillis(9)), ..Extras::default() };
            let edited = Message { extras: Some(Box::new(edited)), ..plain.clone() };
            let bot = Message { is_bot: true, ..plain.clone() };
            for message in [plain, deleted, edited, bot] {
                let mut body = Vec::new();
                put_message(&mut body, &message);
                assert_eq!(body, to_json(&WireMessage::from(&message)));
            }
        }
    }

    #[test]
    fn a_history_is_the_same_in_pieces() {
        let message = |id| {
            let (username, content) = (Username::parse("ada").unwrap(), Content::parse("\"hello\"\n").unwrap());
            Message::plain(MessageId::new(id), username, content, UnixMillis(1))
        };
        let messages: Vec<_> = (1..=3).map(message).collect();
        let entry = |id| json!({"id": id, "room": 1, "username": "ada", "content": "\"hello\"", "created_at": 1});
        for cut in 0..=messages.len() {
            let (mut history, mut body) = (HistoryBody::new(true, None), Vec::new());
            history.push(&messages[..cut], &mut body);
            history.push(&messages[cut..], &mut body);
            history.end(&mut body);
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, json!({"messages": [entry(1), entry(2), entry(3)], "has_more": true}));
        }
        let mut empty = Vec::new();
        HistoryBody::new(false, Some(true)).end(&mut empty);
        assert_eq!(empty, br#"{"messages":[],"has_more":false,"has_newer":true}"#);
    }
}

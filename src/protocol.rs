//! The JSON of the wire, and the frame around it: what clients send, what the server says.
//!
//! The server's only module that knows serde, so that a change of the wire is a change of this file. It knows the model and
//! nothing of connections: a frame is encoded here once, as finished bytes, however many sockets it goes to.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use serde::{Deserialize, Serialize};

use crate::model::{Content, Message, MessageId, Nonce, Password, Token, UnixMillis, Username};

// --- What clients send ---------------------------------------------------------------------------------------------

/// The body of `POST /register` and `POST /login`.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    password: String,
}

/// What else the body of `POST /register` may have.
#[derive(Deserialize)]
pub(crate) struct Invite {
    /// The code of an invitation.
    #[serde(rename = "invite")]
    pub(crate) code: Option<String>,
}

impl Invite {
    /// Reads a body; `None` if it is not the JSON object asked for.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        parse_object(body)
    }
}

impl Credentials {
    /// Reads a body; `None` if it is not the JSON object asked for.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        parse_object(body)
    }

    /// The password for a new account, if its length is acceptable.
    pub(crate) fn new_password(self) -> Option<Password> {
        Password::parse(self.password)
    }

    /// The password as a login claims it.
    pub(crate) fn claimed_password(self) -> Password {
        Password::claimed(self.password)
    }
}

/// Reads a JSON object; `None` for anything else. Serde would take an array for a struct as well.
fn parse_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(json).ok()).flatten()
}

/// A frame from a client that has authenticated.
#[derive(Debug)]
pub(crate) enum ClientFrame {
    Message { content: Content, nonce: Option<Nonce> },
    Typing,
    Ping,
}

/// Why a frame was refused: the code, the words, and the nonce to name the message by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: Cow<'static, str>,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    fn invalid_json(message: &'static str) -> Self {
        Self { code: ErrorCode::InvalidJson, message: message.into(), nonce: None, retry_after: None }
    }

    fn invalid_message(message: impl Into<Cow<'static, str>>, nonce: Option<Nonce>) -> Self {
        Self { code: ErrorCode::InvalidMessage, message: message.into(), nonce, retry_after: None }
    }

    /// The sender is too fast and may go on after `wait`.
    pub(crate) fn rate_limited(wait: Duration, nonce: Option<Nonce>) -> Self {
        let message = "too many messages: wait a moment".into();
        Self { code: ErrorCode::RateLimited, message, nonce, retry_after: Some(wait) }
    }

    /// The same, naming the message that `text` would have been: the client is to know which to send again.
    pub(crate) fn of(self, text: &str) -> Self {
        Self { nonce: nonce_of(text).ok().flatten(), ..self }
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

/// The first frame of a connection.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) token: Token,
    /// The last message the client has, and the epoch it belongs to if the client says.
    pub(crate) last_id: Option<MessageId>,
    pub(crate) epoch: Option<String>,
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

impl Auth {
    /// Reads the first frame of a connection.
    pub(crate) fn parse(text: &str) -> Result<Self, AuthFailure> {
        #[derive(Deserialize)]
        struct Fields {
            token: String,
            last_id: Option<i64>,
            epoch: Option<String>,
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
        Ok(Self { token, last_id: fields.last_id.map(MessageId::new), epoch: fields.epoch })
    }
}

impl ClientFrame {
    /// Reads any later frame of a connection.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        // What comes most, a message with nothing wrong and nothing escaped in it, takes one pass; what else there is, and
        // what is wrong with it, is found out in several.
        #[derive(Deserialize)]
        struct Plain<'a> {
            r#type: &'a str,
            content: &'a str,
            nonce: Option<&'a str>,
        }
        if let Some(Plain { r#type: "message", content, nonce }) = parse_object(text.as_bytes()) {
            return Self::message(content, checked(nonce)?);
        }
        let tag: Tag<'_> = parse_object(text.as_bytes())
            .ok_or_else(|| Refusal::invalid_json("a frame is a JSON object with a type"))?;
        match tag.r#type.as_ref() {
            "message" => Self::parse_message(text),
            "typing" => Ok(Self::Typing),
            "ping" => Ok(Self::Ping),
            "auth" => Err(Refusal::invalid_message("this connection has authenticated already", None)),
            _ => Err(Refusal::invalid_json("there is no such type of frame")),
        }
    }

    fn parse_message(text: &str) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct ContentField<'a> {
            #[serde(borrow)]
            content: Cow<'a, str>,
        }
        let nonce = nonce_of(text)?;
        let Ok(field) = serde_json::from_str::<ContentField<'_>>(text) else {
            return Err(Refusal::invalid_message("a message needs its content as a string", nonce));
        };
        Self::message(&field.content, nonce)
    }

    fn message(content: &str, nonce: Option<Nonce>) -> Result<Self, Refusal> {
        match Content::parse(content) {
            Ok(content) => Ok(Self::Message { content, nonce }),
            Err(error) => Err(Refusal::invalid_message(error.to_string(), nonce)),
        }
    }
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
    Refusal::invalid_message("a nonce is a string of 1 to 64 characters", None)
}

// --- What the server says ------------------------------------------------------------------------------------------

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
    Pong,
    Message(WireMessage<'a>),
    Ack {
        nonce: &'a str,
        id: i64,
    },
    Typing {
        username: &'a str,
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
    /// A stored message, as everybody gets it.
    #[must_use]
    pub fn message(message: &'a Message) -> Self {
        Self::Message(WireMessage::from(message))
    }

    pub(crate) fn auth_failed(code: AuthFailure) -> Self {
        Self::AuthFailed { code, message: code.message() }
    }

    pub(crate) fn refusal(refusal: &'a Refusal) -> Self {
        Self::Error {
            code: refusal.code,
            message: &refusal.message,
            nonce: refusal.nonce.as_ref().map(Nonce::as_str),
            // Rounded up, so that a client which waits as long as it is told is not refused again.
            retry_after: refusal
                .retry_after
                .map(|wait| u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)),
        }
    }
}

impl Serialize for Username {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// MESSAGE of the contract.
#[derive(Debug, Serialize)]
pub struct WireMessage<'a> {
    id: i64,
    username: &'a str,
    content: &'a str,
    created_at: i64,
}

impl<'a> From<&'a Message> for WireMessage<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            id: message.id.get(),
            username: message.username.as_str(),
            content: message.content.as_str(),
            created_at: message.created_at.0,
        }
    }
}

/// Encodes frames one behind the other into one buffer, ready for the socket.
#[derive(Debug, Default)]
pub struct Encoder {
    json: Vec<u8>,
    frames: BytesMut,
}

impl Encoder {
    /// Appends a text frame.
    #[expect(clippy::missing_panics_doc, reason = "it never does, as the text of the expectation says")]
    pub fn push(&mut self, frame: &ServerFrame<'_>) {
        self.json.clear();
        serde_json::to_writer(&mut self.json, frame)
            .expect("a vector takes all, and the frames have no failing fields");
        put_frame(&mut self.frames, FIN_TEXT, &self.json);
    }

    /// Appends a frame that is encoded already.
    pub(crate) fn push_encoded(&mut self, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
    }

    /// Bytes encoded so far.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Takes what was encoded, leaving the encoder empty.
    #[must_use]
    pub fn take(&mut self) -> BytesMut {
        self.frames.split()
    }
}

/// Encodes one frame.
pub(crate) fn encode(frame: &ServerFrame<'_>) -> bytes::Bytes {
    let mut encoder = Encoder::default();
    encoder.push(frame);
    encoder.take().freeze()
}

/// First byte of an unfragmented text frame (RFC 6455 5.2).
pub(crate) const FIN_TEXT: u8 = 0x81;
/// First byte of an unfragmented binary frame, which the contract has no use for.
pub(crate) const FIN_BINARY: u8 = 0x82;

/// Appends `payload` as one unmasked frame (RFC 6455 5.2; a server does not mask, 5.1).
pub(crate) fn put_frame(out: &mut BytesMut, first: u8, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    out.put_u8(first);
    // The length in the fewest bytes that hold it: 7 bits, or 126 and 16 bits, or 127 and 64 bits.
    match payload.len() {
        len @ 0..=125 => out.put_u8(u8::try_from(len).expect("at most 125")),
        len @ 126..=0xFFFF => {
            out.put_u8(126);
            out.put_u16(u16::try_from(len).expect("at most 65,535"));
        }
        len => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
    out.extend_from_slice(payload);
}

// --- Bodies of HTTP answers ----------------------------------------------------------------------------------------

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

/// The body of `200` to `GET /messages`, in one piece or in several.
#[derive(Debug)]
pub(crate) struct History {
    has_more: bool,
    begun: bool,
}

impl History {
    pub(crate) fn new(has_more: bool) -> Self {
        Self { has_more, begun: false }
    }

    /// Appends the next messages, ascending.
    pub(crate) fn push(&mut self, messages: &[Message], body: &mut Vec<u8>) {
        // Room for all of it, but for what has to be escaped: growing step by step would copy it as often.
        body.reserve(messages.iter().map(|message| message.content.as_str().len() + MESSAGE_BYTES).sum());
        for message in messages {
            let start: &[u8] = if std::mem::replace(&mut self.begun, true) { b"," } else { HISTORY_START };
            body.extend_from_slice(start);
            serde_json::to_writer(&mut *body, &WireMessage::from(message)).expect(ENCODES);
        }
    }

    /// Appends what stands behind the last message.
    pub(crate) fn end(self, body: &mut Vec<u8>) {
        if !self.begun {
            body.extend_from_slice(HISTORY_START);
        }
        body.extend_from_slice(if self.has_more { br#"],"has_more":true}"# } else { br#"],"has_more":false}"# });
    }
}

const HISTORY_START: &[u8] = br#"{"messages":["#;
/// Bytes of a message in JSON, at the most, but for its content.
const MESSAGE_BYTES: usize = 128;
const ENCODES: &str = "plain structs of strings and numbers always encode, and a vector takes all";

fn to_json<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect(ENCODES)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

    use super::*;

    #[test]
    fn a_history_is_the_same_in_pieces() {
        let message = |id| Message {
            id: MessageId::new(id),
            username: Username::parse("ada").unwrap(),
            content: Content::parse("\"hello\"\n").unwrap(),
            created_at: UnixMillis(1),
        };
        let messages: Vec<_> = (1..=3).map(message).collect();
        let entry = |id| json!({"id": id, "username": "ada", "content": "\"hello\"", "created_at": 1});
        for cut in 0..=messages.len() {
            let (mut history, mut body) = (History::new(true), Vec::new());
            history.push(&messages[..cut], &mut body);
            history.push(&messages[cut..], &mut body);
            history.end(&mut body);
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, json!({"messages": [entry(1), entry(2), entry(3)], "has_more": true}));
        }
        let mut empty = Vec::new();
        History::new(false).end(&mut empty);
        assert_eq!(empty, br#"{"messages":[],"has_more":false}"#);
    }

    #[test]
    fn the_frame_header_is_what_the_library_reads_at_every_length_class() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let mut out = BytesMut::new();
            put_frame(&mut out, FIN_TEXT, &vec![b'x'; len]);
            let mut cursor = std::io::Cursor::new(&out[..]);
            let (header, payload_len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!(payload_len, len as u64);
            assert_eq!(u64::try_from(out.len()).unwrap(), cursor.position() + payload_len);
            assert!(header.is_final && header.mask.is_none() && !header.rsv1 && !header.rsv2 && !header.rsv3);
        }
    }

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
        assert!(matches!(without, Ok(ClientFrame::Message { nonce: None, .. })), "{without:?}");
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_types_refused() {
        assert!(matches!(ClientFrame::parse(r#"{"a":[{}],"type":"ping","b":1}"#), Ok(ClientFrame::Ping)));
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

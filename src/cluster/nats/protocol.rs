//! What goes over a connection: messages as bytes, and what a server says, which is lines of text, and after that of a
//! message so many bytes.

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;

/// Bytes of a line of the protocol. The longest is `INFO`, which names the other servers.
const LINE_MAX_BYTES: usize = 64 * 1024;
/// Bytes of a message with its headers: twice the most that servers take by default.
const MESSAGE_MAX_BYTES: usize = 2 * 1024 * 1024;

/// What a server says about itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the server's, not ours")]
pub(crate) struct Info {
    pub(crate) version: String,
    pub(crate) max_payload: usize,
    pub(super) headers: bool,
    pub(super) auth_required: bool,
    pub(super) tls_required: bool,
    pub(super) nonce: Option<String>,
    /// "Lame duck": the server is about to stop and asks its clients to go.
    pub(super) ldm: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    /// The subject for an answer; JetStream uses it to describe its messages.
    pub(crate) reply: Option<String>,
    /// From `NATS/1.0` to the empty line; empty without headers.
    headers: Bytes,
    pub(crate) payload: Bytes,
}

/// Nobody listens at the subject of a request.
pub(super) const NO_RESPONDERS: u16 = 503;

impl Message {
    /// The status of a message that is a notice.
    pub(crate) fn status(&self) -> Option<u16> {
        let line = self.headers.split(|byte| *byte == b'\r').next()?;
        let line = std::str::from_utf8(line).ok()?.strip_prefix("NATS/1.0 ")?;
        line.split(' ').next()?.parse().ok()
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = std::str::from_utf8(&self.headers).ok()?;
        let mut pairs = headers.split("\r\n").filter_map(|line| line.split_once(':'));
        pairs.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// A message as it is sent.
pub(super) fn encode_publish(subject: &str, reply: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let head = match reply {
        Some(reply) => format!("PUB {subject} {reply} {length}\r\n"),
        None => format!("PUB {subject} {length}\r\n"),
    };
    [head.as_bytes(), payload, b"\r\n"].concat()
}

/// An operation from a server.
#[derive(Debug)]
pub(super) enum Op {
    Info(Box<Info>),
    Message { sid: u64, message: Message },
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// The bytes break the protocol or a limit.
#[derive(Debug)]
pub(super) struct Malformed;

/// Takes the next operation from the front of `buffer`; `None` if it is incomplete.
pub(super) fn parse(buffer: &mut BytesMut) -> Result<Option<Op>, Malformed> {
    let looked_at = &buffer[..buffer.len().min(LINE_MAX_BYTES)];
    let Some(end) = looked_at.windows(2).position(|two| two == b"\r\n") else {
        return if buffer.len() < LINE_MAX_BYTES { Ok(None) } else { Err(Malformed) };
    };
    let line = std::str::from_utf8(&buffer[..end]).map_err(|_| Malformed)?;
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let op = match verb.to_ascii_uppercase().as_str() {
        "MSG" | "HMSG" => return parse_message(buffer, end),
        "PING" => Op::Ping,
        "PONG" => Op::Pong,
        "+OK" => Op::Ok,
        "-ERR" => Op::Error(rest.trim().trim_matches('\'').to_owned()),
        "INFO" => Op::Info(Box::new(serde_json::from_str(rest).map_err(|_| Malformed)?)),
        _ => return Err(Malformed),
    };
    buffer.advance(end + 2);
    Ok(Some(op))
}

/// Feeds bytes to the parser, as if a server had sent them.
#[cfg(any(test, fuzzing))]
pub(in crate::cluster) fn read_anything(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(op)) = parse(&mut buffer) {
        if let Op::Message { message, .. } = op {
            assert!(message.payload.len() <= MESSAGE_MAX_BYTES);
            drop((message.status(), message.header("Nats-Last-Stream").map(ToOwned::to_owned)));
        }
    }
}

/// Takes a message whose first line ends at `end`: `MSG subject sid [reply] bytes`, or with headers
/// `HMSG subject sid [reply] header-bytes bytes`.
fn parse_message(buffer: &mut BytesMut, end: usize) -> Result<Option<Op>, Malformed> {
    let line = std::str::from_utf8(&buffer[..end]).map_err(|_| Malformed)?;
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let number = |word: &str| word.parse::<usize>().map_err(|_| Malformed);
    let has_headers = words[0].eq_ignore_ascii_case("HMSG");
    let (subject, sid, reply, headers, total) = match (has_headers, &words[1..]) {
        (false, [subject, sid, total]) => (subject, sid, None, 0, number(total)?),
        (false, [subject, sid, reply, total]) => (subject, sid, Some(reply), 0, number(total)?),
        (true, [subject, sid, headers, total]) => (subject, sid, None, number(headers)?, number(total)?),
        (true, [subject, sid, reply, headers, total]) => (subject, sid, Some(reply), number(headers)?, number(total)?),
        _ => return Err(Malformed),
    };
    if total > MESSAGE_MAX_BYTES || headers > total {
        return Err(Malformed);
    }
    let start = end + 2;
    if buffer.len() < start + total + 2 {
        return Ok(None);
    }
    let (subject, reply) = ((*subject).to_owned(), reply.map(|reply| (*reply).to_owned()));
    let sid = sid.parse().map_err(|_| Malformed)?;
    buffer.advance(start);
    let headers = buffer.split_to(headers).freeze();
    let payload = buffer.split_to(total - headers.len()).freeze();
    if !buffer.starts_with(b"\r\n") {
        return Err(Malformed);
    }
    buffer.advance(2);
    Ok(Some(Op::Message { sid, message: Message { subject, reply, headers, payload } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &[u8] = b"INFO {\"version\":\"2.15.1\",\"max_payload\":1048576,\"headers\":true}\r\nPING\r\n+OK\r\n\
        MSG a.b 7 5\r\nhello\r\nMSG a.b 7 _INBOX.x.3 0\r\n\r\n\
        HMSG a 9 12 14\r\nNATS/1.0\r\n\r\nhi\r\n\
        HMSG a 9 r 48 48\r\nNATS/1.0 100 Idle\r\nNats-Last-Stream: 1234567\r\n\r\n\r\n-ERR 'no'\r\nPONG\r\n";

    fn all(pieces: impl Iterator<Item = Bytes>) -> Vec<String> {
        let (mut buffer, mut ops) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(&piece);
            while let Some(op) = parse(&mut buffer).unwrap() {
                ops.push(format!("{op:?}"));
            }
        }
        assert!(buffer.is_empty());
        ops
    }

    #[test]
    fn what_a_server_says_is_understood_in_whatever_pieces_it_comes() {
        let whole = all(std::iter::once(Bytes::from_static(SAID)));
        assert_eq!(whole.len(), 9, "{whole:?}");
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(all(SAID.chunks(size).map(Bytes::copy_from_slice)), whole);
        }
    }

    #[test]
    fn headers_say_what_a_notice_is() {
        let headers = Bytes::from_static(b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Stream: 41\r\n\r\n");
        let message = Message { subject: String::new(), reply: None, headers, payload: Bytes::new() };
        assert_eq!(message.status(), Some(100));
        assert_eq!(message.header("nats-last-stream"), Some("41"));
        assert_eq!(message.header("other"), None);
    }

    #[test]
    fn what_is_no_nats_is_an_error_and_not_waited_for() {
        for bad in [
            "HTTP/1.1 400 Bad Request\r\n",
            "MSG a\r\n",
            "MSG a 1 99999999\r\n",
            "HMSG a 1 9 3\r\nabc\r\n",
            "MSG a 1 1\r\nxyz",
        ] {
            assert!(parse(&mut BytesMut::from(bad)).is_err(), "{bad}");
        }
        assert!(parse(&mut BytesMut::from(&vec![b'x'; LINE_MAX_BYTES][..])).is_err());
    }
}

//! Reading frames, and closing: the only place that knows tungstenite, but for the accept key of the upgrade.
//!
//! The library parses, unmasks, assembles and checks (RFC 6455 5); which close code a violation gets is ours. Its
//! buffers exist only while something is in them: at the end of a burst, when the last byte that came was the last of
//! a message, they are dropped, so that an idle connection has none, whatever it once sent.

use std::io::{self, Cursor, Read, Write};

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message as WsMessage, Utf8Bytes};

use crate::config::{CLOSE_TIMEOUT, READ_BUFFER_BYTES, READ_BURST_BYTES, WRITE_STALL};
use crate::stream::Stream;

/// What reading came to.
#[derive(Debug)]
pub(super) enum Received {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping, whose pong is among the [replies](Reader::take_replies), or a pong.
    Control,
    /// Nothing more for now.
    Nothing,
    /// The [burst](Reader::begin_burst) is used up; there may be more.
    Enough,
    /// The peer is done: close with this.
    End(Close),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Close {
    /// `None` in the answer to a close frame without a code.
    code: Option<CloseCode>,
    reason: &'static str,
    /// Whether there is nobody to read a close frame.
    unsaid: bool,
}

impl Close {
    const fn with(code: CloseCode, reason: &'static str) -> Self {
        Self { code: Some(code), reason, unsaid: false }
    }

    /// The socket is gone: nothing can be said.
    pub(super) const GONE: Self = Self { code: None, reason: "the connection was lost", unsaid: true };
    /// The socket took nothing for [`WRITE_STALL`].
    pub(super) const STALLED: Self = Self { code: None, reason: "the client stopped reading", unsaid: true };
    pub(super) const DEAD_PEER: Self = Self::with(CloseCode::Away, "no sign of life");
    pub(super) const SHUTDOWN: Self = Self::with(CloseCode::Away, "the server is stopping");
    pub(super) const AUTH_FAILED: Self = Self::with(CloseCode::Policy, "authentication failed");
    pub(super) const REVOKED: Self = Self::with(CloseCode::Policy, "the session has ended");
    pub(super) const ABUSE: Self = Self::with(CloseCode::Policy, "too many frames were refused");
    pub(super) const TOO_MANY: Self = Self::with(CloseCode::Again, "too many connections of this user");
    pub(super) const UNAVAILABLE: Self = Self::with(CloseCode::Again, "the server cannot serve this connection now");
    pub(super) const BINARY: Self = Self::with(CloseCode::Unsupported, "only text frames are understood");

    /// The code on the wire, for the log.
    pub(super) fn code(self) -> Option<u16> {
        self.code.map(u16::from)
    }

    /// Why, for the log.
    pub(super) const fn reason(self) -> &'static str {
        self.reason
    }

    /// The answer to the peer's own close frame: its code, sent back (RFC 6455 5.5.1).
    fn echo(frame: Option<&CloseFrame>) -> Self {
        Self { code: frame.map(|frame| frame.code), reason: "", unsaid: false }
    }

    /// What the library's error means for the peer (RFC 6455 7.4.1).
    fn from_error(error: &Error) -> Self {
        match error {
            Error::Utf8(_) => Self::with(CloseCode::Invalid, "the text is not UTF-8"),
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                Self::with(CloseCode::Size, "the message is too large")
            }
            // The peer's bytes ended.
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Io(_) => Self::GONE,
            _ => Self::with(CloseCode::Protocol, "the frame breaks the WebSocket protocol"),
        }
    }

    fn frame(self) -> Bytes {
        let frame = self.code.map(|code| CloseFrame { code, reason: Utf8Bytes::from_static(self.reason) });
        let mut bytes = Vec::new();
        Frame::close(frame).format(&mut bytes).expect("a vector takes all");
        bytes.into()
    }
}

/// Reads messages from a stream, keeping buffers only while something is in them.
#[derive(Debug)]
pub(super) struct Reader {
    open: Option<Box<Open>>,
    /// Bytes of the largest frame or message.
    max_bytes: usize,
    /// Bytes that may still be read in this burst.
    burst_left: usize,
    /// Fragments that came and were not asked for.
    fragments: u32,
}

/// The parser, and where in a message it stands.
#[derive(Debug)]
struct Open {
    context: WebSocketContext,
    boundary: Boundary,
    replies: Vec<u8>,
}

impl Open {
    fn new(early: Vec<u8>, max_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_frame_size(Some(max_bytes))
            .max_message_size(Some(max_bytes));
        let mut boundary = Boundary::default();
        boundary.pass(&early);
        let context = WebSocketContext::from_partially_read(early, Role::Server, Some(config));
        Self { context, boundary, replies: Vec::new() }
    }
}

impl Reader {
    /// A reader of a stream from which `early` was read already, with a bound for frames and messages.
    pub(super) fn new(early: &[u8], max_bytes: usize) -> Self {
        let open = (!early.is_empty()).then(|| Box::new(Open::new(early.to_vec(), max_bytes)));
        Self { open, max_bytes, burst_left: READ_BURST_BYTES, fragments: 0 }
    }

    /// Lets [`READ_BURST_BYTES`] be read. Without this bound a peer who sends empty fragments faster than they are
    /// parsed would hold the thread for good: inside the library a message is read to its end.
    pub(super) fn begin_burst(&mut self) {
        self.burst_left = READ_BURST_BYTES;
    }

    /// How many fragments came since this was last asked, but for the first of each message.
    pub(super) fn take_fragments(&mut self) -> u32 {
        std::mem::take(&mut self.fragments)
    }

    /// Whether something may be read without waiting for the stream: the last burst was longer than one is let to be.
    pub(super) fn has_buffered(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.boundary.unread)
    }

    /// Reads the next message, without waiting.
    pub(super) fn next(&mut self, stream: &Stream) -> Received {
        let open = self.open.get_or_insert_with(|| Box::new(Open::new(Vec::new(), self.max_bytes)));
        open.boundary.unread = true;
        let mut source = Source {
            stream,
            boundary: &mut open.boundary,
            replies: &mut open.replies,
            burst_left: &mut self.burst_left,
        };
        let read = open.context.read(&mut source);
        self.fragments = self.fragments.saturating_add(std::mem::take(&mut open.boundary.fragments));
        match read {
            Ok(WsMessage::Text(text)) => Received::Text(text),
            Ok(WsMessage::Ping(_) | WsMessage::Pong(_)) => Received::Control,
            Ok(WsMessage::Binary(bytes)) => Received::Binary(bytes),
            Ok(WsMessage::Close(frame)) => Received::End(Close::echo(frame.as_ref())),
            Ok(WsMessage::Frame(_)) => unreachable!("the library returns raw frames to nobody who reads messages"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.burst_left == 0 {
                    return Received::Enough;
                }
                open.boundary.unread = false;
                Received::Nothing
            }
            Err(error) => Received::End(Close::from_error(&error)),
        }
    }

    /// Takes the pongs that are due, and lets go of the buffers if nothing is in them.
    pub(super) fn take_replies(&mut self, into: &mut BytesMut) {
        if let Some(open) = &mut self.open {
            into.extend_from_slice(&open.replies);
            open.replies.clear();
            if open.boundary.is_at_rest() {
                self.open = None;
            }
        }
    }
}

/// The stream as the library reads and writes it: what it writes is kept for the connection to send in its turn.
struct Source<'a> {
    stream: &'a Stream,
    boundary: &'a mut Boundary,
    replies: &'a mut Vec<u8>,
    burst_left: &'a mut usize,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(*self.burst_left);
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self.stream.try_read(&mut buf[..len])?;
        *self.burst_left -= read;
        self.boundary.pass(&buf[..read]);
        Ok(read)
    }
}

impl Write for Source<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Follows the bytes that pass into the parser, to know when it holds none of them.
#[derive(Debug, Default)]
pub(crate) struct Boundary {
    /// Header of the frame that has begun.
    head: [u8; 14],
    head_len: usize,
    /// Bytes left of its payload.
    payload_left: u64,
    /// Whether more fragments of a message are to come.
    in_message: bool,
    /// Continuation frames that passed.
    fragments: u32,
    /// Whether the header could not be read: the parser will say so.
    broken: bool,
    /// Whether the parser may hold messages that were not taken from it.
    unread: bool,
}

impl Boundary {
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes
            && !self.broken
        {
            if self.payload_left > 0 {
                let passed = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                self.payload_left -= passed as u64;
                bytes = &bytes[passed..];
                continue;
            }
            self.head[self.head_len] = *first;
            self.head_len += 1;
            bytes = rest;
            match FrameHeader::parse(&mut Cursor::new(&self.head[..self.head_len])) {
                Ok(None) => {}
                Ok(Some((header, len))) => {
                    self.payload_left = len;
                    self.head_len = 0;
                    if let OpCode::Data(data) = header.opcode {
                        self.in_message = !header.is_final;
                        self.fragments += u32::from(data == Data::Continue);
                    }
                }
                Err(_) => self.broken = true,
            }
        }
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.payload_left == 0 && self.head_len == 0 && !self.in_message && !self.broken && !self.unread
    }
}

/// Writes all of `bytes`, as long as the peer takes some of them every [`WRITE_STALL`]. Cancel safe: `bytes` is what is
/// left.
pub(super) async fn write(stream: &Stream, bytes: &mut &[u8]) -> Result<(), Close> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => *bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(stream).await?,
            Err(_) => return Err(Close::GONE),
        }
    }
    Ok(())
}

/// Waits until the peer takes more, for at most [`WRITE_STALL`].
pub(super) async fn writable(stream: &Stream) -> Result<(), Close> {
    match tokio::time::timeout(WRITE_STALL, stream.writable()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Close::GONE),
        Err(_) => Err(Close::STALLED),
    }
}

/// Ends a connection: `last_words`, the close frame, and the end of the stream, which the server is to close first
/// (RFC 6455 7.1.1). Bounded in time and bytes.
pub(super) async fn close(stream: &Stream, close: Close, last_words: &[u8]) {
    if close.unsaid {
        return;
    }
    let ending = async {
        write(stream, &mut &*last_words).await?;
        write(stream, &mut &*close.frame()).await?;
        stream.finish().await;
        Ok::<_, Close>(())
    };
    // A peer that does not play along is dropped.
    drop(tokio::time::timeout(CLOSE_TIMEOUT, ending).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_at_rest_only_between_messages() {
        // A fragmented text, a ping between the fragments, and a text of 16-bit length: masked, as clients send.
        let mut bytes = vec![0x01, 0x82, 1, 2, 3, 4, 5, 6, 0x89, 0x80, 1, 2, 3, 4, 0x80, 0x81, 1, 2, 3, 4, 5];
        let first = bytes.len();
        bytes.extend([0x81, 0xFE, 0, 200, 1, 2, 3, 4]);
        bytes.extend([7; 200]);
        let mut boundary = Boundary::default();
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(boundary.is_at_rest(), at == 0 || at == first, "before byte {at}");
            boundary.pass(std::slice::from_ref(byte));
        }
        assert!(boundary.is_at_rest());
        let mut at_once = Boundary::default();
        at_once.pass(&bytes);
        assert!(at_once.is_at_rest());
    }

    #[test]
    fn a_header_that_cannot_be_read_is_never_at_rest() {
        let mut boundary = Boundary::default();
        boundary.pass(&[0x8F, 0x80, 0, 0, 0, 0]);
        assert!(!boundary.is_at_rest());
    }
}

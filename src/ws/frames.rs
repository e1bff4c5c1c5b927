//! Reading frames, and closing: the only place that knows tungstenite, except for the accept key of the upgrade.
//!
//! The library parses, unmasks, assembles and checks (RFC 6455 5); which close code a violation gets is decided here.
//! Its buffers exist only while they hold something: if a read ends between two messages they are dropped, so that an
//! idle connection has none, whatever it sent before.

use std::io::{self, Cursor, Read, Write};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message as WsMessage, Utf8Bytes};

use crate::limits::{CLOSE_TIMEOUT, MESSAGE_TIMEOUT, READ_BUDGET_BYTES, READ_BUFFER_BYTES, WRITE_STALL};
use crate::net::Stream;

/// The result of reading.
#[derive(Debug)]
pub(super) enum Received {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(#[cfg_attr(not(feature = "echo"), expect(dead_code, reason = "only the echo sends it back"))] Bytes),
    /// A ping, whose pong is among the [replies](Reader::take_replies), or a pong.
    Control,
    /// Nothing more for now.
    Nothing,
    /// The [read budget](Reader::begin_read) is used up; there may be more.
    BudgetSpent,
    /// The connection ends, with this close frame.
    Closed(Close),
}

/// How a connection ends: the close frame, and the reason in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Close {
    /// `None` when answering a close frame that has no code.
    code: Option<CloseCode>,
    reason: &'static str,
    /// Whether no close frame is sent.
    unsaid: bool,
}

impl Close {
    const fn with(code: CloseCode, reason: &'static str) -> Self {
        Self { code: Some(code), reason, unsaid: false }
    }

    /// The socket is gone: nothing can be sent.
    pub(super) const GONE: Self = Self { code: None, reason: "the connection was lost", unsaid: true };
    /// The socket accepted nothing for [`WRITE_STALL`].
    pub(super) const STALLED: Self = Self { code: None, reason: "the client stopped reading", unsaid: true };
    pub(super) const DEAD_PEER: Self = Self::with(CloseCode::Away, "no sign of life");
    pub(super) const SHUTDOWN: Self = Self::with(CloseCode::Away, "the server is stopping");
    pub(super) const AUTH_FAILED: Self = Self::with(CloseCode::Policy, "authentication failed");
    pub(super) const REVOKED: Self = Self::with(CloseCode::Policy, "the session has ended");
    pub(super) const ABUSE: Self = Self::with(CloseCode::Policy, "too many frames were refused");
    pub(super) const TOO_MANY: Self = Self::with(CloseCode::Again, "too many connections of this user");
    pub(super) const UNAVAILABLE: Self = Self::with(CloseCode::Again, "the server cannot serve this connection now");
    pub(super) const UNFINISHED: Self = Self::with(CloseCode::Policy, "a message took too long to arrive");
    pub(super) const TOO_MUCH_UNFINISHED: Self = Self::with(CloseCode::Again, "too many unfinished messages");
    pub(super) const BINARY: Self = Self::with(CloseCode::Unsupported, "only text frames are understood");

    /// The code on the wire, for the log.
    pub(super) fn code(self) -> Option<u16> {
        self.code.map(u16::from)
    }

    /// Why, for the log.
    pub(super) const fn reason(self) -> &'static str {
        self.reason
    }

    /// The answer to the peer's own close frame, with the same code (RFC 6455 5.5.1).
    fn echo(frame: Option<&CloseFrame>) -> Self {
        Self { code: frame.map(|frame| frame.code), reason: "", unsaid: false }
    }

    /// The close frame for an error of the library (RFC 6455 7.4.1).
    fn from_error(error: &Error) -> Self {
        match error {
            Error::Utf8(_) => Self::with(CloseCode::Invalid, "the text is not UTF-8"),
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                Self::with(CloseCode::Size, "the message is too large")
            }
            // The stream ended.
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
        Frame::close(frame).format(&mut bytes).expect("writing to a vector cannot fail");
        bytes.into()
    }
}

/// Reads messages from a stream, keeping buffers only while they hold something.
#[derive(Debug)]
pub(super) struct Reader {
    open: Option<Box<Open>>,
    /// The largest frame or message, in bytes.
    max_bytes: usize,
    /// What is left of the read budget.
    budget_left: usize,
    /// Continuation frames that arrived and have not been counted yet.
    fragments: u32,
}

/// The parser, and the position in a message.
#[derive(Debug)]
struct Open {
    context: WebSocketContext,
    tracker: FrameTracker,
    replies: Vec<u8>,
    /// When the first byte of the unfinished message or frame was seen.
    begun: Option<Instant>,
}

impl Open {
    fn new(early: Vec<u8>, max_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_frame_size(Some(max_bytes))
            .max_message_size(Some(max_bytes));
        let mut tracker = FrameTracker::default();
        tracker.pass(&early);
        let context = WebSocketContext::from_partially_read(early, Role::Server, Some(config));
        let begun = (!tracker.is_between_messages()).then(Instant::now);
        Self { context, tracker, replies: Vec::new(), begun }
    }
}

impl Reader {
    /// A reader of a stream from which `early` was read already.
    pub(super) fn new(early: &[u8], max_bytes: usize) -> Self {
        let open = (!early.is_empty()).then(|| Box::new(Open::new(early.to_vec(), max_bytes)));
        Self { open, max_bytes, budget_left: READ_BUDGET_BYTES, fragments: 0 }
    }

    /// Allows messages of up to `max_bytes` from here on.
    pub(super) fn allow(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
        if let Some(open) = &mut self.open {
            let set = |config: &mut WebSocketConfig| {
                (config.max_frame_size, config.max_message_size) = (Some(max_bytes), Some(max_bytes));
            };
            open.context.set_config(set);
        }
    }

    /// Starts a read of at most [`READ_BUDGET_BYTES`]. Without this bound a peer that sends empty fragments faster than
    /// they are parsed would occupy the thread forever, since the library reads a message to its end.
    pub(super) fn begin_read(&mut self) {
        self.budget_left = READ_BUDGET_BYTES;
    }

    /// How many continuation frames arrived since the last call.
    pub(super) fn take_fragments(&mut self) -> u32 {
        std::mem::take(&mut self.fragments)
    }

    /// Whether something can be read without waiting for the stream, since the last read used up its budget.
    pub(super) fn has_buffered(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.tracker.unread)
    }

    /// Reads the next message, without waiting.
    pub(super) fn next(&mut self, stream: &Stream) -> Received {
        let open = self.open.get_or_insert_with(|| Box::new(Open::new(Vec::new(), self.max_bytes)));
        // Until the parser asks in vain for more bytes, it may hold messages: one read can bring several.
        open.tracker.unread = true;
        let mut source = Source {
            stream,
            tracker: &mut open.tracker,
            replies: &mut open.replies,
            budget_left: &mut self.budget_left,
        };
        let read = open.context.read(&mut source);
        let finished = std::mem::take(&mut open.tracker.finished);
        if open.tracker.is_between_messages() {
            open.begun = None;
        } else if finished || open.begun.is_none() {
            open.begun = Some(Instant::now());
        }
        self.fragments = self.fragments.saturating_add(std::mem::take(&mut open.tracker.fragments));
        match read {
            Ok(WsMessage::Text(text)) => Received::Text(text),
            Ok(WsMessage::Ping(_) | WsMessage::Pong(_)) => Received::Control,
            Ok(WsMessage::Binary(bytes)) => Received::Binary(bytes),
            Ok(WsMessage::Close(frame)) => Received::Closed(Close::echo(frame.as_ref())),
            Ok(WsMessage::Frame(_)) => unreachable!("reading messages never returns a raw frame"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.budget_left == 0 {
                    return Received::BudgetSpent;
                }
                open.tracker.unread = false;
                Received::Nothing
            }
            Err(error) => Received::Closed(Close::from_error(&error)),
        }
    }

    /// When the unfinished message or frame, if there is one, has to be whole: however it dribbles, [`MESSAGE_TIMEOUT`]
    /// after its first byte.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.as_ref()?.begun.map(|begun| begun + MESSAGE_TIMEOUT)
    }

    /// Bytes of a message that is not whole yet.
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.tracker.held)
    }

    /// Takes the pongs to be sent, and frees the buffers if they are empty.
    pub(super) fn take_replies(&mut self, into: &mut BytesMut) {
        if let Some(open) = &mut self.open {
            into.extend_from_slice(&open.replies);
            open.replies.clear();
            if open.tracker.is_idle() {
                self.open = None;
            }
        }
    }
}

/// The stream as the library reads and writes it. What it writes is kept until the connection may send.
struct Source<'a> {
    stream: &'a Stream,
    tracker: &'a mut FrameTracker,
    replies: &'a mut Vec<u8>,
    budget_left: &'a mut usize,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(*self.budget_left);
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self.stream.try_read(&mut buf[..len])?;
        *self.budget_left -= read;
        self.tracker.pass(&buf[..read]);
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

/// Tracks the bytes that pass into the parser, to know when it holds none of them.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is true at other times than the rest")]
pub(crate) struct FrameTracker {
    /// The part of a frame's header that has arrived.
    head: [u8; 14],
    head_len: usize,
    /// Bytes left of the frame's payload.
    payload_left: u64,
    /// Whether more fragments of a message will follow.
    in_message: bool,
    /// Bytes of the message or frame that is not whole yet.
    held: usize,
    /// Whether a message or frame became whole.
    finished: bool,
    /// Continuation frames that passed.
    fragments: u32,
    /// Whether a header was malformed, which the parser will report.
    broken: bool,
    /// Whether the parser may hold messages that have not been taken yet.
    unread: bool,
}

impl FrameTracker {
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes
            && !self.broken
        {
            if self.payload_left > 0 {
                let passed = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                self.payload_left -= passed as u64;
                self.held = self.held.saturating_add(passed);
                bytes = &bytes[passed..];
                self.note_end();
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
                    self.note_end();
                }
                Err(_) => self.broken = true,
            }
        }
    }

    /// Notes that a message, or a frame between two, is whole.
    fn note_end(&mut self) {
        if self.payload_left == 0 && !self.in_message {
            self.held = 0;
            self.finished = true;
        }
    }

    fn is_between_messages(&self) -> bool {
        self.payload_left == 0 && self.head_len == 0 && !self.in_message
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.is_between_messages() && !self.broken && !self.unread
    }
}

/// Writes all of `bytes`, as long as the peer accepts some of them every [`WRITE_STALL`]. Cancel safe: `bytes` is what
/// is left.
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

/// Waits until the peer accepts more, for at most [`WRITE_STALL`].
pub(super) async fn writable(stream: &Stream) -> Result<(), Close> {
    match tokio::time::timeout(WRITE_STALL, stream.writable()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Close::GONE),
        Err(_) => Err(Close::STALLED),
    }
}

/// Ends a connection with `pending_output`, the close frame and the end of the stream, which the server is to close
/// first (RFC 6455 7.1.1). Bounded in time and bytes.
pub(super) async fn close(stream: &Stream, close: Close, pending_output: &[u8]) {
    if close.unsaid {
        return;
    }
    let closing = async {
        write(stream, &mut &*pending_output).await?;
        write(stream, &mut &*close.frame()).await?;
        stream.finish().await;
        Ok::<_, Close>(())
    };
    // A peer that does not cooperate is dropped.
    drop(tokio::time::timeout(CLOSE_TIMEOUT, closing).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tracker_is_idle_only_between_messages() {
        // A fragmented text, a ping between the fragments, and a text of 16-bit length: masked, as clients send.
        let mut bytes = vec![0x01, 0x82, 1, 2, 3, 4, 5, 6, 0x89, 0x80, 1, 2, 3, 4, 0x80, 0x81, 1, 2, 3, 4, 5];
        let first = bytes.len();
        bytes.extend([0x81, 0xFE, 0, 200, 1, 2, 3, 4]);
        bytes.extend([7; 200]);
        let mut tracker = FrameTracker::default();
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(tracker.is_idle(), at == 0 || at == first, "before byte {at}");
            tracker.pass(std::slice::from_ref(byte));
        }
        assert!(tracker.is_idle());
        let mut at_once = FrameTracker::default();
        at_once.pass(&bytes);
        assert!(at_once.is_idle());
    }

    #[test]
    fn a_header_that_cannot_be_read_is_never_idle() {
        let mut tracker = FrameTracker::default();
        tracker.pass(&[0x8F, 0x80, 0, 0, 0, 0]);
        assert!(!tracker.is_idle());
    }
}

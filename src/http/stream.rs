//! The stream that hyper reads requests from and writes answers to.
//!
//! It adds three things to hyper: a write fails if the peer accepts nothing of an answer for [`ANSWER_STALL`]; a closed
//! connection [lingers](Stream::finish), with a timer that exists only meanwhile; and a request that hyper refuses
//! before the router sees it gets [the contract's answer](HyperErrorOverride) instead of hyper's empty one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::Sleep;

use crate::limits::{ANSWER_STALL, LINGER_MAX_BYTES, LINGER_TIMEOUT};
use crate::net::Stream;

/// A connection's stream, as hyper uses it.
#[derive(Debug)]
pub(crate) struct HttpStream {
    stream: Stream,
    stall: Deadline,
    linger: Deadline,
    linger_left: usize,
    error_override: HyperErrorOverride,
    /// The rest of an answer that replaces one of hyper's own.
    override_left: Vec<u8>,
}

/// A timer that exists only during one wait.
#[derive(Debug, Default)]
struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Ready when `time` has passed since the first call, or the first after the timer was cleared.
    fn poll(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(time))).as_mut().poll(cx)
    }

    fn clear(&mut self) {
        self.0 = None;
    }
}

/// The answer that replaces one of hyper's own, over TLS of ours or not; `None` for any other.
pub(crate) type HyperErrorOverride = fn(&[u8], bool) -> Option<Vec<u8>>;

impl HttpStream {
    pub(crate) fn new(stream: Stream, error_override: HyperErrorOverride) -> Self {
        let (stall, linger) = (Deadline::default(), Deadline::default());
        Self { stream, stall, linger, linger_left: LINGER_MAX_BYTES, error_override, override_left: Vec::new() }
    }

    /// Returns the bare stream, after an upgrade.
    pub(crate) fn into_inner(self) -> Stream {
        self.stream
    }
}

impl Read for HttpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // Hyper's cursor has no safe view of its uninitialised bytes, so the data passes through a small initialised
        // buffer.
        loop {
            std::task::ready!(self.stream.poll_read_ready(cx))?;
            let mut bytes = [0; 4096];
            let len = bytes.len().min(buf.remaining());
            match self.stream.try_read(&mut bytes[..len]) {
                Ok(read) => {
                    buf.put_slice(&bytes[..read]);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl HttpStream {
    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.stall.clear();
                    return Poll::Ready(done);
                }
            }
            if self.stream.poll_write_ready(cx)?.is_pending() {
                std::task::ready!(self.stall.poll(cx, ANSWER_STALL));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }
}

impl Write for HttpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.override_left.is_empty() {
            match (this.error_override)(bytes, this.stream.is_tls()) {
                Some(error_override) => this.override_left = error_override,
                None => return this.poll_write_some(cx, bytes),
            }
        }
        while !this.override_left.is_empty() {
            let left = std::mem::take(&mut this.override_left);
            let written = this.poll_write_some(cx, &left);
            this.override_left = left;
            this.override_left.drain(..std::task::ready!(written)?);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(flushed) = self.stream.poll_flush(cx) {
            self.stall.clear();
            return Poll::Ready(flushed);
        }
        std::task::ready!(self.stall.poll(cx, ANSWER_STALL));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.stream.shut_down_write();
        if this.stream.poll_discard(cx, &mut this.linger_left).is_pending() {
            std::task::ready!(this.linger.poll(cx, LINGER_TIMEOUT));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_deadline_begins_anew_once_it_was_cleared() {
        let (mut deadline, time) = (Deadline::default(), Duration::from_millis(200));
        for _ in 0..2 {
            assert!(!poll_fn(|cx| Poll::Ready(deadline.poll(cx, time).is_ready())).await);
            poll_fn(|cx| deadline.poll(cx, time)).await;
            deadline.clear();
        }
    }
}

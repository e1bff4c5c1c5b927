//! The one type that owns a connection's byte stream.
//!
//! TCP, a Unix socket, or TLS over TCP: whatever a listener accepts is a variant here, and nothing else names it. An
//! enum and not a trait object, so that the kind is a comparison in the call and not an allocation for each
//! connection. Reading and writing take `&self`, so that the task that reads a WebSocket and the shard that writes to
//! it share one stream (without a lock, but for TLS), and neither call ever waits: waiting is the business of `readable` and
//! `writable`.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use rustix::net::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use crate::config::{ANSWER_STALL, LINGER_MAX_BYTES, LINGER_TIMEOUT};
#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// A connection's stream of bytes.
#[derive(Debug)]
pub(crate) struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed: it must not make the others larger.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

const _: () =
    assert!(size_of::<Stream>() <= size_of::<TcpStream>() + size_of::<usize>(), "a kind costs a word at most");

/// Calls the same method of whichever kind of stream it is.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match &$stream.0 {
            Kind::Tcp($inner) => $call,
            Kind::Unix($inner) => $call,
            #[cfg(feature = "tls")]
            Kind::Tls($inner) => $call,
        }
    };
}

impl Stream {
    /// Takes an accepted TCP connection. Small writes leave at once: a chat frame must not wait for the next.
    pub(crate) fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(Kind::Tcp(stream)))
    }

    /// Takes an accepted connection of a Unix socket.
    pub(crate) fn from_unix(stream: UnixStream) -> Self {
        Self(Kind::Unix(stream))
    }

    /// Takes an accepted TCP connection that speaks TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn from_tls(stream: TlsStream) -> Self {
        Self(Kind::Tls(Box::new(stream)))
    }

    /// Whether the first byte either way costs a handshake.
    pub(crate) fn is_tls(&self) -> bool {
        match &self.0 {
            Kind::Tcp(_) | Kind::Unix(_) => false,
            #[cfg(feature = "tls")]
            Kind::Tls(_) => true,
        }
    }

    /// Reads what is there, or fails with `WouldBlock`.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(stream) => read_all(stream, buf, |read| stream.try_io(Interest::READABLE, read)),
            Kind::Unix(stream) => read_all(stream, buf, |read| stream.try_io(Interest::READABLE, read)),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.try_read(buf),
        }
    }

    /// Writes as much as the socket's buffer takes, or fails with `WouldBlock`.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => stream.try_write(bytes))
    }

    /// Resolves once a read may succeed. Cancel safe. For one task at a time.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Resolves once a write may succeed. Cancel safe. For one task at a time, that which reads.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read_ready(cx))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_write_ready(cx))
    }

    /// Ready when all that was written is with the kernel: at once, but for what TLS has encrypted.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "only TLS holds anything back"))]
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Tcp(_) | Kind::Unix(_) => Poll::Ready(Ok(())),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// Tells the peer that nothing more comes, then reads and throws away what it still sends until it ends too: closed
    /// with bytes unread, a socket is reset, and the reset may take the last answer from the peer. At most
    /// [`LINGER_MAX_BYTES`]; the caller bounds the time. Cancel safe.
    pub(crate) async fn finish(&self) {
        let mut left = LINGER_MAX_BYTES;
        self.shut_down_write();
        poll_fn(|cx| self.poll_discard(cx, &mut left)).await;
    }

    fn shut_down_write(&self) {
        let shut_down = match &self.0 {
            Kind::Tcp(stream) => shutdown(stream, Shutdown::Write).map_err(io::Error::from),
            Kind::Unix(stream) => shutdown(stream, Shutdown::Write).map_err(io::Error::from),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.shut_down_write(),
        };
        if let Err(error) = shut_down {
            tracing::trace!(%error, "the peer is gone already");
        }
    }

    /// Throws away what the peer sends, until it ends, fails, or `left` is used up.
    fn poll_discard(&self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let mut bytes = [0; 1024];
        while *left > 0 {
            if std::task::ready!(self.poll_read_ready(cx)).is_err() {
                break;
            }
            match self.try_read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => *left = left.saturating_sub(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

/// Reads from a socket by its `try_io`. A read that leaves room in `buf` has taken all there was, and says so to the
/// runtime, so that the next one fails without asking the kernel: one system call less for each time something comes.
pub(crate) fn read_all(
    socket: impl AsFd,
    buf: &mut [u8],
    try_io: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
) -> io::Result<usize> {
    let mut read = 0;
    let tried = try_io(&mut || {
        read = rustix::io::read(&socket, &mut *buf)?;
        let emptied = 0 < read && read < buf.len();
        if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match tried {
        Err(error) if read == 0 => Err(error),
        _ => Ok(read),
    }
}

/// What hyper reads requests from and writes answers to.
///
/// Three things hyper does not do: a peer that takes none of an answer for [`ANSWER_STALL`] fails the write; a
/// connection that is closed [lingers](Stream::finish), the timer existing only meanwhile; and a request that hyper
/// refuses by itself, before the router sees it, gets [the contract's answer](Instead) and not hyper's empty one.
#[derive(Debug)]
pub(crate) struct HttpStream {
    stream: Stream,
    deadline: Option<Pin<Box<Sleep>>>,
    linger_left: usize,
    instead: Instead,
    /// What is left of an answer that stands for one of hyper's own.
    instead_left: Vec<u8>,
}

/// The answer to send for one that is hyper's own; `None` if it is not.
pub(crate) type Instead = fn(&[u8]) -> Option<Vec<u8>>;

impl HttpStream {
    pub(crate) fn new(stream: Stream, instead: Instead) -> Self {
        Self { stream, deadline: None, linger_left: LINGER_MAX_BYTES, instead, instead_left: Vec::new() }
    }

    /// Ready when `time` has passed since this was first called for the wait at hand.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(time))).as_mut().poll(cx)
    }

    /// Gives the bare stream back, after an upgrade.
    pub(crate) fn into_inner(self) -> Stream {
        self.stream
    }
}

impl Read for HttpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // Hyper's cursor has no safe view of its uninitialised bytes: a small initialised buffer stands between.
        let mut bytes = [0; 4096];
        let len = bytes.len().min(buf.remaining());
        loop {
            std::task::ready!(self.stream.poll_read_ready(cx))?;
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
                    self.deadline = None;
                    return Poll::Ready(done);
                }
            }
            if self.stream.poll_write_ready(cx)?.is_pending() {
                std::task::ready!(self.poll_deadline(cx, ANSWER_STALL));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }
}

impl Write for HttpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead_left.is_empty() {
            match (this.instead)(bytes) {
                Some(instead) => this.instead_left = instead,
                None => return this.poll_write_some(cx, bytes),
            }
        }
        while !this.instead_left.is_empty() {
            let left = std::mem::take(&mut this.instead_left);
            let written = this.poll_write_some(cx, &left);
            this.instead_left = left;
            this.instead_left.drain(..std::task::ready!(written)?);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(flushed) = self.stream.poll_flush(cx) {
            self.deadline = None;
            return Poll::Ready(flushed);
        }
        std::task::ready!(self.poll_deadline(cx, ANSWER_STALL));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.stream.shut_down_write();
        if this.stream.poll_discard(cx, &mut this.linger_left).is_pending() {
            std::task::ready!(this.poll_deadline(cx, LINGER_TIMEOUT));
        }
        Poll::Ready(Ok(()))
    }
}

//! The one type that owns a connection's byte stream.
//!
//! TCP, a Unix socket, or TLS over TCP: each kind that a listener accepts is a variant here, and nothing else names it.
//! It is an enum and not a trait object, so that the kind costs a comparison per call and not an allocation per
//! connection. Reading and writing take `&self`, so that the task that reads a WebSocket and the shard that writes to
//! it share one stream (without a lock, except for TLS). Neither call ever waits: that is what `readable` and
//! `writable` are for.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use rustix::net::{Shutdown, shutdown};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::read_all::read_all;
#[cfg(feature = "tls")]
use super::tls::TlsStream;
use crate::limits::{LINGER_MAX_BYTES, UNSENT_MAX_BYTES};

/// A connection's stream of bytes.
#[derive(Debug)]
pub(crate) struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed, so that it does not make the others larger.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

const _: () =
    assert!(size_of::<Stream>() <= size_of::<TcpStream>() + size_of::<usize>(), "a kind costs at most a word");

/// Calls the same method of any kind of stream.
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
    /// Wraps an accepted TCP connection.
    pub(crate) fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        prepare(&stream)?;
        Ok(Self(Kind::Tcp(stream)))
    }

    /// Wraps an accepted connection of a Unix socket.
    pub(crate) fn from_unix(stream: UnixStream) -> Self {
        Self(Kind::Unix(stream))
    }

    /// Wraps an accepted TCP connection that speaks TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn from_tls(stream: TlsStream) -> Self {
        Self(Kind::Tls(Box::new(stream)))
    }

    /// Whether a handshake comes before the first byte in either direction.
    pub(crate) fn is_tls(&self) -> bool {
        match &self.0 {
            Kind::Tcp(_) | Kind::Unix(_) => false,
            #[cfg(feature = "tls")]
            Kind::Tls(_) => true,
        }
    }

    /// Reads what has arrived, or fails with `WouldBlock`.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(stream) => read_all(stream, buf, |read| stream.try_io(Interest::READABLE, read)),
            Kind::Unix(stream) => read_all(stream, buf, |read| stream.try_io(Interest::READABLE, read)),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.try_read(buf),
        }
    }

    /// Writes as much as the socket's buffer accepts, or fails with `WouldBlock`.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => stream.try_write(bytes))
    }

    /// Resolves once a read may succeed. Cancel safe. For one task at a time.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Resolves once a write may succeed. Cancel safe. For one task at a time, the one that reads.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read_ready(cx))
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_write_ready(cx))
    }

    /// Ready when the kernel has everything that was written: at once, unless TLS holds encrypted bytes.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "only TLS buffers output"))]
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Tcp(_) | Kind::Unix(_) => Poll::Ready(Ok(())),
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// Tells the peer that nothing more will come, then reads and discards what it still sends until it closes, too: if
    /// a socket is closed with bytes unread it is reset, and the reset may cost the peer the last answer. Reads at most
    /// [`LINGER_MAX_BYTES`]; the caller bounds the time. Cancel safe.
    pub(crate) async fn finish(&self) {
        let mut left = LINGER_MAX_BYTES;
        self.shut_down_write();
        poll_fn(|cx| self.poll_discard(cx, &mut left)).await;
    }

    pub(crate) fn shut_down_write(&self) {
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

    /// Discards what the peer sends, until it closes, fails, or `left` is used up.
    pub(crate) fn poll_discard(&self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
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

/// Has small writes sent at once: a chat frame must not wait for the next one. And of what the peer has no room for the
/// kernel takes a bounded part, while what is on its way to a peer that reads is as much as the network takes.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_MAX_BYTES)
}

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
use std::task::{Context, Poll};

use rustix::net::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use crate::config::LINGER_MAX_BYTES;
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

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read_ready(cx))
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_write_ready(cx))
    }

    /// Ready when all that was written is with the kernel: at once, but for what TLS has encrypted.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "only TLS holds anything back"))]
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    /// Throws away what the peer sends, until it ends, fails, or `left` is used up.
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

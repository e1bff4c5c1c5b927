//! Listening: TCP and Unix sockets, bound here or inherited from systemd, and the streams they accept.
//!
//! The rest of the server gets a [`Stream`] and an address, and knows nothing of where they came from.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::str::FromStr;
#[cfg(feature = "tls")]
use std::sync::Arc;

use listenfd::ListenFd;
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::set_ipv6_v6only;
use rustix::process::geteuid;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

#[cfg(feature = "tls")]
use super::certificate::Certificate;
use super::stream::Stream;
use crate::limits::{LISTEN_BACKLOG, UNIX_SOCKET_MODE};

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected the path of a socket after unix:"),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| "expected ADDR:PORT, such as 127.0.0.1:8080, or unix:PATH"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    #[cfg(feature = "tls")]
    certificate: Option<Arc<Certificate>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Its file, if it was created here: removed on drop.
        _file: Option<SocketFile>,
    },
}

impl Listener {
    /// Listens on `endpoint`, one of `all`. A Unix socket's file that no process listens on is replaced.
    pub(crate) fn bind(endpoint: &Endpoint, all: &[Endpoint]) -> io::Result<Self> {
        Ok(match endpoint {
            Endpoint::Tcp(address) => Socket::Tcp(bind_tcp(*address, all)?).into(),
            Endpoint::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile::of(path, UNIX_SOCKET_MODE)?;
                Socket::Unix { listener, _file: Some(file) }.into()
            }
        })
    }

    /// The sockets that systemd listens on and has passed to this process (`sd_listen_fds(3)`), in their order.
    pub(crate) fn inherited() -> io::Result<Vec<Self>> {
        // Unlike systemd's own library, the crate would take sockets without this variable, too.
        if std::env::var_os("LISTEN_PID").is_none() {
            return Ok(Vec::new());
        }
        let mut passed = ListenFd::from_env();
        (0..passed.len()).map(|at| Self::take_inherited(&mut passed, at)).collect()
    }

    fn take_inherited(passed: &mut ListenFd, at: usize) -> io::Result<Self> {
        if let Ok(Some(listener)) = passed.take_unix_listener(at) {
            listener.set_nonblocking(true)?;
            return Ok(Socket::Unix { listener: UnixListener::from_std(listener)?, _file: None }.into());
        }
        let listener = passed.take_tcp_listener(at)?.ok_or(io::ErrorKind::InvalidInput)?;
        listener.set_nonblocking(true)?;
        Ok(Socket::Tcp(TcpListener::from_std(listener)?).into())
    }

    /// Makes TCP connections speak TLS. A Unix socket is for a proxy on this machine, which has done that.
    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(self, certificate: &Arc<Certificate>) -> Self {
        Self { certificate: Some(Arc::clone(certificate)), ..self }
    }

    /// The next connection and its address, which a Unix socket's peer does not have. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Fails only if the peer is gone.
                let stream = self.take(stream).map_err(|_| io::ErrorKind::ConnectionAborted)?;
                Ok((stream, Some(address.ip())))
            }
            Socket::Unix { listener, .. } => Ok((Stream::from_unix(listener.accept().await?.0), None)),
        }
    }

    #[cfg(feature = "tls")]
    fn take(&self, stream: TcpStream) -> io::Result<Stream> {
        match &self.certificate {
            Some(certificate) => certificate.accept(stream).map(Stream::from_tls),
            None => Stream::from_tcp(stream),
        }
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "with TLS it depends on the listener")]
    fn take(&self, stream: TcpStream) -> io::Result<Stream> {
        Stream::from_tcp(stream)
    }

    /// The TCP address that this listens on.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix { .. } => None,
        }
    }

    /// Whether only this machine can connect. To a Unix socket it is a proxy that does.
    pub(crate) fn is_for_this_machine(&self) -> bool {
        self.tcp_address().is_some_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// How people reach this: a URL, or the path of a socket.
    pub(crate) fn name(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => {
                let address = listener.local_addr().map_or_else(|_| "?".into(), |address| address.to_string());
                format!("{}://{address}", self.scheme())
            }
            Socket::Unix { listener, .. } => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname()).unwrap_or(Path::new("?"));
                format!("unix:{}", path.display())
            }
        }
    }

    #[cfg(feature = "tls")]
    fn scheme(&self) -> &'static str {
        if self.certificate.is_some() { "https" } else { "http" }
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "with TLS it depends on the listener")]
    fn scheme(&self) -> &'static str {
        "http"
    }
}

impl From<Socket> for Listener {
    fn from(socket: Socket) -> Self {
        Self {
            socket,
            #[cfg(feature = "tls")]
            certificate: None,
        }
    }
}

/// Listens on a TCP address. `[::]` includes all addresses of IPv4, unless one of these is in `all` with the same port,
/// which would then be in use.
fn bind_tcp(address: SocketAddr, all: &[Endpoint]) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    let is_ipv4_here =
        |other: &Endpoint| matches!(other, Endpoint::Tcp(other) if other.is_ipv4() && other.port() == address.port());
    if address.is_ipv6() && address.port() != 0 && all.iter().any(is_ipv4_here) {
        set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// Removes a socket's file that a crash left behind. A file that is in use, or not a socket, stays: binding then
/// reports that the address is in use.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused =
        || unix::UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && refused() { fs::remove_file(path) } else { Ok(()) }
}

/// The file of a Unix socket that was created here: removed on drop, unless it has been replaced since.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// The file of a socket that was just bound at `path`, which is given these permissions. What the owner of the
    /// directory puts in its place meanwhile is not followed: the file is opened first, and only then looked at.
    pub(crate) fn of(path: &Path, mode: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.file_type().is_socket() || metadata.uid() != geteuid().as_raw() {
            return Err(io::Error::other("another file was put in the place of the socket"));
        }
        // The only way by which permissions are changed by such a handle.
        let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(opened, fs::Permissions::from_mode(mode))?;
        Ok(Self { path: path.into(), inode: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's file");
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_the_place_of_a_socket_keeps_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let (secret, path) = (directory.path().join("secret"), directory.path().join("chinwag.sock"));
        let listener = unix::UnixListener::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = SocketFile::of(&path, 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop((file, listener));
        fs::write(&secret, "").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o400)).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(SocketFile::of(&path, 0o660).is_err());
        assert_eq!(mode(&secret), 0o400);
    }
}

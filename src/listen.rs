//! Listening: TCP and Unix sockets, made here or passed on by systemd, and what each makes of a connection.
//!
//! The rest of the server is given a [`Stream`] and an address, and knows nothing of where they came from.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
#[cfg(feature = "tls")]
use std::sync::Arc;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::config::{Endpoint, UNIX_SOCKET_MODE};
use crate::stream::Stream;
#[cfg(feature = "tls")]
use crate::tls::Certificate;

/// A socket that connections come from.
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
        /// Its file, if that was made here: held to be removed.
        _file: Option<SocketFile>,
    },
}

impl Listener {
    /// Listens at `endpoint`. A Unix socket's file that nobody listens at any more is replaced.
    pub(crate) async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        Ok(match endpoint {
            Endpoint::Tcp(address) => Socket::Tcp(TcpListener::bind(address).await?).into(),
            Endpoint::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile::of(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(UNIX_SOCKET_MODE))?;
                Socket::Unix { listener, _file: Some(file) }.into()
            }
        })
    }

    /// The sockets that systemd listens at and has passed on to this process (`sd_listen_fds(3)`), in their order.
    pub(crate) fn inherited() -> io::Result<Vec<Self>> {
        // Unlike systemd's own library, the crate takes the sockets without this too.
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

    /// Has TCP connections speak TLS. A Unix socket is for a proxy on this machine, which has done that.
    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(self, certificate: &Arc<Certificate>) -> Self {
        Self { certificate: Some(Arc::clone(certificate)), ..self }
    }

    /// The next connection, and the address it is from; a Unix socket's peer has none. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Fails only for a peer that is gone.
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

    /// The TCP address that is listened at.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix { .. } => None,
        }
    }

    /// What to tell a person who wants to come: a URL, or the path of a socket.
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

/// Removes a socket's file that a crash left behind. One that is listened at, or is no socket, stays: binding then
/// says that the address is in use.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused =
        || unix::UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && refused() { fs::remove_file(path) } else { Ok(()) }
}

/// The file of a Unix socket that was made here: removed on drop, unless it has been replaced by another since.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file stays behind");
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

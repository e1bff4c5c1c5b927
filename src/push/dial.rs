//! The way to a push service: its name is resolved, every address is checked, and one of the checked addresses is
//! connected to. Resolving again to connect would let the name change in between (DNS rebinding).
//!
//! A proxy from the environment is not used: it would resolve the name itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::global::is_public;
use super::resolve::Resolver;
use crate::limits::push::{PUSH_ADDRESSES_TRIED, PUSH_ANSWER_MAX_BYTES, PUSH_CONNECT_TIMEOUT, PUSH_TLS_SESSIONS};

const HTTPS_PORT: u16 = 443;

/// Connects to push services over TLS.
#[derive(Debug)]
pub(super) struct Dialer {
    resolver: Resolver,
    tls: Arc<ClientConfig>,
    /// Whether an address may be connected to.
    permits: fn(IpAddr) -> bool,
    port: u16,
}

impl Dialer {
    /// Trusts the authorities that browsers trust, and public addresses only.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Ok(Self { resolver: Resolver::system(), tls: tls_config(roots)?, permits: is_public, port: HTTPS_PORT })
    }

    /// The program's dialer: [`Dialer::new`], unless tests of the whole server replace it.
    #[cfg(not(feature = "push-test"))]
    pub(super) fn for_program() -> Result<Self, super::PushError> {
        Ok(Self::new()?)
    }

    /// The dialer for tests of the whole server: if `CHINWAG_PUSH_TEST` names a port and a directory with `root.pem`,
    /// `hosts` and `resolv.conf`, this machine at that port is the only push service. No released build has the feature
    /// `push-test`.
    #[cfg(feature = "push-test")]
    pub(super) fn for_program() -> Result<Self, super::PushError> {
        use rustls::pki_types::pem::PemObject as _;

        let Ok(setting) = std::env::var("CHINWAG_PUSH_TEST") else { return Ok(Self::new()?) };
        let wrong = |error: &dyn std::fmt::Display| super::PushError::Tests(error.to_string());
        let (port, directory) = setting.split_once(':').ok_or_else(|| wrong(&"PORT:DIRECTORY"))?;
        let directory = std::path::Path::new(directory);
        let root = rustls::pki_types::CertificateDer::from_pem_file(directory.join("root.pem"));
        let mut roots = RootCertStore::empty();
        roots.add(root.map_err(|error| wrong(&error))?)?;
        Ok(Self {
            resolver: Resolver::of_directory(directory),
            tls: tls_config(roots)?,
            permits: |address| address.is_loopback(),
            port: port.parse().map_err(|error| wrong(&error))?,
        })
    }

    /// Connects to `host`; TLS begins with the first byte that is written.
    pub(super) async fn dial(&self, host: &str) -> io::Result<TlsClient> {
        let addresses = self.resolver.resolve(host).await?;
        if !addresses.iter().all(|&address| (self.permits)(address)) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the name has an address that is not public"));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut failure = io::ErrorKind::NotFound.into();
        for address in addresses.into_iter().take(PUSH_ADDRESSES_TRIED) {
            let connecting = TcpStream::connect(SocketAddr::new(address, self.port));
            match timeout(PUSH_CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(tcp)) => {
                    tcp.set_nodelay(true)?;
                    let session = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
                    return Ok(TlsClient { tcp, session, left: PUSH_ANSWER_MAX_BYTES });
                }
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failure)
    }
}

fn tls_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(PUSH_TLS_SESSIONS);
    Ok(Arc::new(config))
}

/// A client's end of TLS, as hyper reads and writes it. Unlike the server's end ([`crate::net::tls`]), which a task and
/// a shard share, it belongs to one exchange.
#[derive(Debug)]
pub(super) struct TlsClient {
    tcp: TcpStream,
    session: ClientConnection,
    /// Bytes of the answer that may still be read. Hyper bounds one head, but skips any number of interim ones.
    left: usize,
}

impl TlsClient {
    /// Writes encrypted bytes to the kernel.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(&self.tcp)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.tcp.poll_write_ready(cx))?,
                sent => drop(sent?),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl rt::Read for TlsClient {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Hyper's cursor has no safe view of its uninitialised bytes: the data passes through a small initialised
        // buffer.
        let mut bytes = [0; 1024];
        let most = bytes.len().min(buf.remaining()).min(this.left);
        if most == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long")));
        }
        loop {
            match io::Read::read(&mut this.session.reader(), &mut bytes[..most]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let count = read?;
                    this.left -= count;
                    buf.put_slice(&bytes[..count]);
                    return Poll::Ready(Ok(()));
                }
            }
            // The handshake's answers. If the socket does not take them now, this task is woken when it does.
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            match this.session.read_tls(&mut Socket(&this.tcp)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(this.tcp.poll_read_ready(cx))?;
                    continue;
                }
                Ok(0) if this.session.is_handshaking() => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                read => drop(read?),
            }
            this.session.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl rt::Write for TlsClient {
    /// Never waits: a push is smaller than what rustls buffers (64 KiB).
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        Poll::Ready(io::Write::write(&mut this.session.writer(), bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.send_close_notify();
        ready!(this.poll_send(cx))?;
        pin!(&mut this.tcp).poll_shutdown(cx)
    }
}

struct Socket<'a>(&'a TcpStream);

impl io::Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::super::push_service::{HOST, PushService};
    use super::super::resolve::tests::NameServer;
    use super::*;

    const THIS_MACHINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// A dialer that trusts the tests' push service, and takes this machine's address for a public one.
    pub(in super::super) fn dialer(service: &PushService, resolver: Resolver) -> Dialer {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(service.directory().join("root.pem")).unwrap()).unwrap();
        let permits = |address| address == THIS_MACHINE || is_public(address);
        Dialer { resolver, tls: tls_config(roots).unwrap(), permits, port: service.port() }
    }

    impl Dialer {
        pub(in super::super) fn redirect_to(&mut self, port: u16) {
            self.port = port;
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_the_second_time_leads_nowhere() {
        let service = PushService::start();
        let names = NameServer::start(|n| vec![if n == 0 { THIS_MACHINE } else { [127, 0, 0, 2].into() }]).await;
        let dialer = dialer(&service, names.resolver());
        dialer.dial(HOST).await.unwrap();
        assert_eq!(names.asked(), 1, "the address that was judged is the one that is connected to");
        let error = dialer.dial(HOST).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(names.asked(), 2);
    }

    #[tokio::test]
    async fn one_address_among_several_that_is_not_public_is_enough_to_refuse_them() {
        let service = PushService::start();
        let names = NameServer::start(|_| vec![THIS_MACHINE, [10, 0, 0, 1].into()]).await;
        let error = dialer(&service, names.resolver()).dial(HOST).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[tokio::test]
    async fn the_dialer_that_is_used_does_not_connect_to_this_machine() {
        let names = NameServer::start(|_| vec![THIS_MACHINE]).await;
        let dialer = Dialer { resolver: names.resolver(), ..Dialer::new().unwrap() };
        assert_eq!(dialer.dial(HOST).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}

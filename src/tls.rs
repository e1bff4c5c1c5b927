//! TLS: a stream that keeps the contract of [`Stream`](crate::stream::Stream), and a certificate that is read again
//! when it changes.
//!
//! The shard writes without waiting, and believes that what was taken is on its way. Encrypted bytes that the socket
//! does not take would break that: nobody waits for it to take more. So there are never more of them than one record,
//! and whoever leaves them wakes the connection's own task, which waits for the socket in
//! [`poll_read_ready`](TlsStream::poll_read_ready) like it waits for the peer.
//!
//! A record need not carry a byte, and costs its opening all the same, or new keys: a peer could have one read for ever
//! without anything to show for it. So reading gives way to the others after so many bytes of records, whatever they
//! carry, and who sends far more records than they carry bytes is let go.
//!
//! The handshake is no state of its own: it happens while the first request is read, within that request's deadline.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use rustix::net::{Shutdown, shutdown};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::config::{
    TLS_AHEAD_BYTES, TLS_BYTES_PER_BYTE, TLS_HOLLOW_BURST, TLS_HOLLOW_RATE, TLS_LOOK_INTERVAL, TLS_TURN_BYTES,
};
use crate::rate_limit::{Allowance, Bucket};
use crate::stream::read_all;

/// A TCP connection that speaks TLS.
#[derive(Debug)]
pub(crate) struct TlsStream {
    tcp: TcpStream,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: ServerConnection,
    ending: Ending,
    /// Bytes of records that may still be read before the others have their turn.
    turn_left: usize,
    /// How many bytes of records may still carry nothing.
    hollow: Bucket,
    /// The connection's own task, which is woken when a write leaves encrypted bytes behind.
    task: Option<Waker>,
}

/// How far the end of what is written has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Open,
    /// Nothing more is to be written; the peer has not been told yet.
    Wanted,
    /// The peer is told (RFC 8446 6.1) by what is encrypted already.
    Encrypted,
    Done,
}

impl TlsStream {
    fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(TLS_AHEAD_BYTES));
        let hollow = Bucket::full(Instant::now());
        let state = State { session, ending: Ending::Open, turn_left: TLS_TURN_BYTES, hollow, task: None };
        Ok(Self { tcp, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is there, or fails with `WouldBlock`; also when the [turn](TLS_TURN_BYTES) is over.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        loop {
            match state.session.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer hung up without saying so in TLS: what it says ends by its own framing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if state.turn_left == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let read = state.session.read_tls(&mut Socket(&self.tcp))?;
            state.turn_left = state.turn_left.saturating_sub(read);
            let processed = state.session.process_new_packets();
            // Handshake messages, or the alert that says what was wrong. A socket that takes no more is waited for
            // by whoever waits for the next byte.
            match state.flush(&self.tcp) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            // There was nothing to read before: what there is now came with these bytes.
            let carried = processed.map_err(broken)?.plaintext_bytes_to_read();
            state.weigh(read, carried)?;
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let mut taken = 0;
        loop {
            match state.flush(&self.tcp) {
                Ok(()) if taken == bytes.len() => return Ok(taken),
                Ok(()) => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(full) => {
                    if let Some(task) = state.task.take() {
                        task.wake();
                    }
                    return if taken > 0 { Ok(taken) } else { Err(full) };
                }
            }
            match state.session.writer().write(&bytes[taken..])? {
                // Only before the handshake is done.
                0 => return if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::WouldBlock.into()) },
                written => taken += written,
            }
        }
    }

    /// Ready once a read may succeed; sends what is encrypted meanwhile. Gives way once after each turn.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut state = self.lock();
            if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                state.task = Some(cx.waker().clone());
            }
            match state.session.process_new_packets() {
                // Its end may have been read with what came before it, and the socket is not ready once more.
                Ok(session) if session.plaintext_bytes_to_read() > 0 || session.peer_has_closed() => {
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => {}
                // It stays broken: a read that may succeed will not come.
                Err(error) => return Poll::Ready(Err(broken(error))),
            }
            if state.turn_left == 0 {
                state.turn_left = TLS_TURN_BYTES;
                // `yield_now` wakes the task once the runtime has asked the kernel who else is ready; a waker that is called
                // here would wake it before that.
                return pin!(tokio::task::yield_now()).poll(cx).map(Ok);
            }
        }
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        self.tcp.poll_read_ready(cx)
    }

    /// Ready once a write may succeed.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_flush(cx))?;
        self.tcp.poll_write_ready(cx)
    }

    /// Ready when all that is encrypted is with the kernel.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.lock().flush(&self.tcp) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                flushed => return Poll::Ready(flushed),
            }
            std::task::ready!(self.tcp.poll_write_ready(cx))?;
        }
    }

    /// Tells the peer that nothing more comes, as soon as the socket takes it.
    pub(crate) fn shut_down_write(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.ending == Ending::Open {
            state.ending = Ending::Wanted;
        }
        state.flush(&self.tcp)
    }
}

impl State {
    /// Fails if the peer has sent too many bytes of records for what they `carried`.
    fn weigh(&mut self, read: usize, carried: usize) -> io::Result<()> {
        let allowance = Allowance::per_second(TLS_HOLLOW_RATE, TLS_HOLLOW_BURST);
        let (count, now) = (|bytes| u32::try_from(bytes).unwrap_or(u32::MAX), Instant::now());
        self.hollow.put_back(count(carried).saturating_mul(TLS_BYTES_PER_BYTE), allowance, now);
        let taken = self.hollow.take_many(count(read), allowance, now);
        taken.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the TLS records carry next to nothing"))
    }

    /// Writes what is encrypted, or fails with `WouldBlock` if something is left.
    fn flush(&mut self, tcp: &TcpStream) -> io::Result<()> {
        if self.ending == Ending::Wanted && !self.session.is_handshaking() {
            self.session.send_close_notify();
            self.ending = Ending::Encrypted;
        }
        while self.session.wants_write() {
            self.session.write_tls(&mut Socket(tcp))?;
        }
        if self.ending == Ending::Encrypted {
            self.ending = Ending::Done;
            shutdown(tcp, Shutdown::Write)?;
        }
        Ok(())
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The bare socket, as rustls reads and writes it.
struct Socket<'a>(&'a TcpStream);

impl io::Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_all(self.0, buf, |read| self.0.try_io(Interest::READABLE, read))
    }
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A certificate with its key, as their files have them: a renewed one is in use from the next connection on.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// The files that were read last, whether they were any good or not.
    seen: [Stamp; 2],
    looked_at: Instant,
}

/// What tells a file from a newer one in its place. `None`: it cannot be looked at.
type Stamp = Option<(SystemTime, u64)>;

impl Certificate {
    /// Reads a certificate chain and its key, both in PEM.
    pub(crate) fn load(chain: &Path, key: &Path) -> Result<Self, String> {
        let seen = [stamp(chain), stamp(key)];
        let loaded = Loaded { config: read(chain, key)?, seen, looked_at: Instant::now() };
        Ok(Self { chain: chain.into(), key: key.into(), loaded: Mutex::new(loaded) })
    }

    /// Begins TLS on a connection.
    pub(crate) fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream> {
        TlsStream::new(tcp, self.current())
    }

    /// The newest good pair. The two files are never replaced in one moment: a pair that does not match is not used,
    /// and looked at again when one of them changes.
    fn current(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.looked_at.elapsed() >= TLS_LOOK_INTERVAL {
            loaded.looked_at = Instant::now();
            let found = [stamp(&self.chain), stamp(&self.key)];
            if found != loaded.seen {
                loaded.seen = found;
                match read(&self.chain, &self.key) {
                    Ok(config) => {
                        loaded.config = config;
                        tracing::info!(path = %self.chain.display(), "the certificate has changed: the new one is in use");
                    }
                    Err(error) => {
                        tracing::error!(error, "the certificate has changed and cannot be used: the old one stays");
                    }
                }
            }
        }
        Arc::clone(&loaded.config)
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let unusable = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| unusable(chain, &error))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let mut config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, key_der)
        .map_err(|error| unusable(chain, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config.into())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::process::Command;
    use std::time::Duration;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::net::TcpListener;

    use super::*;

    /// Bytes of a record with one byte within.
    const SMALLEST: usize = 23;
    const PATIENCE: Duration = Duration::from_secs(30);

    /// The server's end of a connection past its handshake, and the client's.
    async fn connected() -> (TlsStream, ClientConnection, std::net::TcpStream) {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=chinwag", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&chain)
            .output();
        assert!(made.unwrap().status.success());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&chain).unwrap()).unwrap();
        let provider = rustls::crypto::ring::default_provider().into();
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::task::spawn_blocking(move || {
            let mut client = ClientConnection::new(config, "127.0.0.1".try_into().unwrap()).unwrap();
            let mut tcp = std::net::TcpStream::connect(address).unwrap();
            client.complete_io(&mut tcp).unwrap();
            (client, tcp)
        });
        let server = Certificate::load(&chain, &key).unwrap().accept(listener.accept().await.unwrap().0).unwrap();
        while server.lock().session.is_handshaking() {
            poll_fn(|cx| server.poll_read_ready(cx)).await.unwrap();
            assert_eq!(server.try_read(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        let (client, tcp) = client.await.unwrap();
        (server, client, tcp)
    }

    /// What is there to read until the stream says that it would block.
    fn read_turn(server: &TlsStream) -> usize {
        let (mut buf, mut carried) = ([0; 64], 0);
        loop {
            match server.try_read(&mut buf) {
                Ok(read) => carried += read,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                    return carried;
                }
            }
        }
    }

    #[tokio::test]
    async fn small_records_are_read_in_turns_and_none_is_left_or_refused() {
        let (server, mut client, mut tcp) = connected().await;
        let sent = 4 * TLS_TURN_BYTES / SMALLEST;
        let mut records = Vec::new();
        for _ in 0..sent {
            assert_eq!(client.writer().write(b"-").unwrap(), 1);
            client.write_tls(&mut records).unwrap();
        }
        assert!(records.len() > TLS_HOLLOW_BURST as usize, "they would be refused if they carried nothing");
        let sending = tokio::task::spawn_blocking(move || tcp.write_all(&records).map(|()| tcp));
        let (mut received, mut turns) = (0, 0);
        let reading = async {
            while received < sent {
                let (over, mut polls) = (server.lock().turn_left == 0, 0);
                let ready = poll_fn(|cx| {
                    polls += 1;
                    server.poll_read_ready(cx)
                });
                ready.await.unwrap();
                assert!(!over || polls > 1, "the others have their turn, whatever is there to read");
                turns += u32::from(over);
                let carried = read_turn(&server);
                assert!(carried <= 2 * TLS_TURN_BYTES / SMALLEST, "{carried} in a turn");
                received += carried;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        assert_eq!((received, turns), (sent, 3));
        sending.await.unwrap().unwrap();
    }
}

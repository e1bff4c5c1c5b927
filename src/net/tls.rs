//! TLS: a stream that keeps the contract of [`Stream`](super::stream::Stream).
//!
//! The shard writes without waiting, and relies on accepted bytes being sent. Encrypted bytes that the socket does not
//! accept would break that, since the shard does not wait for it. So there is never more than one record of them, and a
//! write that leaves any wakes the connection's own task, which waits for the socket in
//! [`poll_read_ready`](TlsStream::poll_read_ready) while it waits for the peer.
//!
//! Empty records and key updates cost CPU but carry no data, so a peer could keep the server busy forever. So reading
//! yields to other connections after a number of bytes of records, whatever they carry, and a peer that sends far more
//! records than data is disconnected.
//!
//! The handshake has no state of its own: it happens while the first request is read, before that request's deadline.

use std::io::{self, Read as _, Write as _};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use rustix::net::{Shutdown, shutdown};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::read_all::read_all;
use super::stream::prepare;
use crate::limits::{
    TLS_AHEAD_BYTES, TLS_BYTES_PER_BYTE, TLS_OVERHEAD_BURST, TLS_OVERHEAD_RATE, TLS_READ_BUDGET_BYTES,
};
use crate::rate_limit::{Allowance, Bucket};

/// A TCP connection that speaks TLS.
#[derive(Debug)]
pub(crate) struct TlsStream {
    tcp: TcpStream,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: ServerConnection,
    close_phase: ClosePhase,
    /// Bytes of records that may still be read before other connections run.
    budget_left: usize,
    /// Rate limit on bytes of records that carry no data.
    overhead: Bucket,
    /// The connection's own task, woken when a write leaves encrypted bytes behind.
    task: Option<Waker>,
}

/// How far closing the write side has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClosePhase {
    Open,
    /// Nothing more will be written; the peer has not been told yet.
    Wanted,
    /// The alert that tells the peer (RFC 8446 6.1) is encrypted.
    Encrypted,
    Done,
}

impl TlsStream {
    pub(super) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        prepare(&tcp)?;
        let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(TLS_AHEAD_BYTES));
        let overhead = Bucket::full(Instant::now());
        let state =
            State { session, close_phase: ClosePhase::Open, budget_left: TLS_READ_BUDGET_BYTES, overhead, task: None };
        Ok(Self { tcp, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what has arrived, or fails with `WouldBlock`, also when the [read budget](TLS_READ_BUDGET_BYTES) is used
    /// up.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        loop {
            match state.session.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer closed without saying so in TLS: the protocol within has its own framing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if state.budget_left == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let read = state.session.read_tls(&mut Socket(&self.tcp))?;
            state.budget_left = state.budget_left.saturating_sub(read);
            let processed = state.session.process_new_packets();
            // Handshake messages, or an alert. If the socket does not accept them, the task that waits for the next
            // byte waits for it.
            match state.flush(&self.tcp) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            // There was no data before: all of it came with these bytes.
            let carried = processed.map_err(broken)?.plaintext_bytes_to_read();
            state.charge(read, carried)?;
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

    /// Ready once a read may succeed; sends encrypted bytes meanwhile. Yields once when the read budget is used up.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut state = self.lock();
            if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                state.task = Some(cx.waker().clone());
            }
            match state.session.process_new_packets() {
                // The end may have been read with what came before it, and the socket does not become ready again.
                Ok(session) if session.plaintext_bytes_to_read() > 0 || session.peer_has_closed() => {
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => {}
                // The session stays broken: no later read can succeed.
                Err(error) => return Poll::Ready(Err(broken(error))),
            }
            if state.budget_left == 0 {
                state.budget_left = TLS_READ_BUDGET_BYTES;
                // `yield_now` wakes the task after the runtime has polled the kernel for other ready sockets; waking it
                // here would be before that.
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

    /// Ready when the kernel has everything that is encrypted.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.lock().flush(&self.tcp) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                flushed => return Poll::Ready(flushed),
            }
            std::task::ready!(self.tcp.poll_write_ready(cx))?;
        }
    }

    /// Tells the peer that nothing more will come, as soon as the socket accepts it.
    pub(crate) fn shut_down_write(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.close_phase == ClosePhase::Open {
            state.close_phase = ClosePhase::Wanted;
        }
        state.flush(&self.tcp)
    }
}

impl State {
    /// Fails if the peer has sent too many bytes of records for the data they `carried`.
    fn charge(&mut self, read: usize, carried: usize) -> io::Result<()> {
        let allowance = Allowance::per_second(TLS_OVERHEAD_RATE, TLS_OVERHEAD_BURST);
        let (count, now) = (|bytes| u32::try_from(bytes).unwrap_or(u32::MAX), Instant::now());
        self.overhead.put_back(count(carried).saturating_mul(TLS_BYTES_PER_BYTE), allowance, now);
        let taken = self.overhead.take_many(count(read), allowance, now);
        taken.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the TLS records carry almost no data"))
    }

    /// Writes what is encrypted, or fails with `WouldBlock` if something is left.
    fn flush(&mut self, tcp: &TcpStream) -> io::Result<()> {
        if self.close_phase == ClosePhase::Wanted && !self.session.is_handshaking() {
            self.session.send_close_notify();
            self.close_phase = ClosePhase::Encrypted;
        }
        while self.session.wants_write() {
            self.session.write_tls(&mut Socket(tcp))?;
        }
        if self.close_phase == ClosePhase::Encrypted {
            self.close_phase = ClosePhase::Done;
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::process::Command;
    use std::time::Duration;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::net::TcpListener;

    use super::super::certificate::Certificate;
    use super::*;

    /// The size of a record that carries one byte.
    const SMALLEST: usize = 23;
    const PATIENCE: Duration = Duration::from_secs(30);

    /// The server's end of a connection after its handshake, and the client's.
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

    /// Reads until the stream says that it would block; how many bytes.
    fn read_budget(server: &TlsStream) -> usize {
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
    async fn small_records_are_read_within_the_budget_and_none_is_lost_or_refused() {
        let (server, mut client, mut tcp) = connected().await;
        let sent = 4 * TLS_READ_BUDGET_BYTES / SMALLEST;
        let mut records = Vec::new();
        for _ in 0..sent {
            assert_eq!(client.writer().write(b"-").unwrap(), 1);
            client.write_tls(&mut records).unwrap();
        }
        assert!(records.len() > TLS_OVERHEAD_BURST as usize, "they would be refused if they carried no data");
        let sending = tokio::task::spawn_blocking(move || tcp.write_all(&records).map(|()| tcp));
        let (mut received, mut turns) = (0, 0);
        let reading = async {
            while received < sent {
                let (over, mut polls) = (server.lock().budget_left == 0, 0);
                let ready = poll_fn(|cx| {
                    polls += 1;
                    server.poll_read_ready(cx)
                });
                ready.await.unwrap();
                assert!(!over || polls > 1, "other connections run, whatever there is to read");
                turns += u32::from(over);
                let carried = read_budget(&server);
                assert!(carried <= 2 * TLS_READ_BUDGET_BYTES / SMALLEST, "{carried} in one read");
                received += carried;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        assert_eq!((received, turns), (sent, 3));
        sending.await.unwrap().unwrap();
    }
}

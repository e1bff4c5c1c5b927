//! One connection to one server: the handshake, the task that reads and the one that writes, and who waits for what.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::protocol::{Info, Malformed, Message, NO_RESPONDERS, Op, encode_publish, parse};
use crate::cluster::nkey::NKey;
use crate::secret::random_name;

/// Time to connect, shake hands and authenticate.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two pings, each of which the server answers.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// A server that is silent for so long despite pings is dead or cut off.
const SILENCE: Duration = Duration::from_secs(2);
const _: () = assert!(SILENCE.as_millis() > 3 * PING_INTERVAL.as_millis(), "one lost ping must not end a connection");
/// Messages and requests that wait to be written.
const OUTGOING: usize = 256;
/// Messages of one subscription that wait to be taken; past it they are lost, which their reader must notice, like
/// losses of the network. The entries that a consumer with flow control has under way, 1 MiB, fit.
const SUBSCRIPTION: usize = 8 * 1024;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a request could not be sent, or was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no connection, or it ended before the answer came.
    #[error("the connection to NATS is lost")]
    Lost,
    /// The queue of outgoing messages is full.
    #[error("the connection to NATS does not keep up")]
    Full,
    /// No answer came in time.
    #[error("NATS does not answer")]
    TimedOut,
    /// Nobody listens at the subject: JetStream is not enabled, or has no leader.
    #[error("nobody answers at this subject")]
    NoResponders,
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it does not answer")]
    TimedOut,
    #[error("it does not speak the NATS protocol")]
    Protocol,
    #[error("it says {0}")]
    Refused(String),
    #[error("it requires an nkey: give --log-nkey")]
    NeedsKey,
    #[error("it requires TLS: write its address with tls://")]
    NeedsTls,
}

/// How the servers are reached.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    /// In the order of preference.
    pub(crate) addresses: Vec<Address>,
    pub(crate) key: Option<Arc<NKey>>,
    pub(crate) tls: Arc<ClientConfig>,
}

/// A connection to one server, until it ends. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Vec<u8>>,
    /// The two tasks, which end with the last handle.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    info: Info,
    server: Address,
    /// Answers to our requests come to subjects below this one.
    inbox: String,
    next: AtomicU64,
    /// `None` once the connection has ended.
    waiting: Mutex<Option<Waiting>>,
    ended: watch::Sender<bool>,
}

/// The requests and subscriptions that wait for messages.
#[derive(Debug, Default)]
struct Waiting {
    requests: HashMap<u64, oneshot::Sender<Message>>,
    subscriptions: HashMap<u64, mpsc::Sender<Message>>,
}

/// The number of the subscription for answers to requests; the others have higher ones.
const ANSWERS: u64 = 1;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all requests and subscriptions.
    fn end(&self) {
        self.lock().take();
        self.ended.send_replace(true);
    }

    fn deliver(&self, sid: u64, message: Message) {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        if sid == ANSWERS {
            let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
            if let Some(request) = number.and_then(|number: u64| waiting.requests.remove(&number)) {
                // The caller may have gone.
                drop(request.send(message));
            }
        } else if let Some(subscription) = waiting.subscriptions.get(&sid)
            && subscription.try_send(message).is_err()
        {
            tracing::debug!(sid, "a message of NATS is not taken in time, and lost");
        }
    }
}

/// The messages at a subject. It ends, with [`None`](Option::None), when the connection does.
#[derive(Debug)]
pub(crate) struct Subscription {
    messages: mpsc::Receiver<Message>,
    sid: u64,
    connection: Connection,
}

impl Subscription {
    /// The next message. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(waiting) = self.connection.0.shared.lock().as_mut() {
            waiting.subscriptions.remove(&self.sid);
        }
        // Fails if the connection is gone or full, and then the server ends the subscription or its messages are
        // ignored.
        drop(self.connection.send(format!("UNSUB {}\r\n", self.sid).into_bytes()));
    }
}

/// A request that waits for its answer, until it is dropped.
struct Asked<'a> {
    connection: &'a Connection,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.connection.0.shared.lock().as_mut() {
            waiting.requests.remove(&self.number);
        }
    }
}

impl Connection {
    /// Connects to a server and authenticates.
    pub(crate) async fn open(server: &Address, servers: &Servers) -> Result<Self, ConnectError> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, Self::try_open(server, servers));
        opened.await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn try_open(server: &Address, servers: &Servers) -> Result<Self, ConnectError> {
        let host = server.host.trim_start_matches('[').trim_end_matches(']');
        let mut tcp = TcpStream::connect((host, server.port)).await?;
        tcp.set_nodelay(true)?;
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let Op::Info(info) = next_op(&mut tcp, &mut buffer).await? else { return Err(ConnectError::Protocol) };
        if !info.headers {
            return Err(ConnectError::Protocol);
        }
        let mut socket: Box<dyn Socket> = if server.tls {
            // The server says nothing more before the handshake. What came with its INFO is somebody's on the path, and
            // would be read as if it had come over TLS.
            if !buffer.is_empty() {
                return Err(ConnectError::Protocol);
            }
            let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Protocol)?;
            Box::new(TlsConnector::from(Arc::clone(&servers.tls)).connect(name, tcp).await?)
        } else if info.tls_required {
            return Err(ConnectError::NeedsTls);
        } else {
            Box::new(tcp)
        };
        let inbox = new_inbox();
        let hello = hello(&info, servers, server.tls)?;
        socket.write_all(format!("CONNECT {hello}\r\nSUB {inbox}.* {ANSWERS}\r\nPING\r\n").as_bytes()).await?;
        loop {
            match next_op(&mut socket, &mut buffer).await? {
                Op::Pong => break,
                Op::Error(error) => return Err(ConnectError::Refused(error)),
                _ => {}
            }
        }
        let (reading, writing) = tokio::io::split(socket);
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let shared = Arc::new(Shared {
            info: *info,
            server: server.clone(),
            inbox,
            next: AtomicU64::new(ANSWERS + 1),
            waiting: Mutex::new(Some(Waiting::default())),
            ended: watch::Sender::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(read(Arc::clone(&shared), reading, buffer, outgoing.clone()));
        tasks.spawn(write(Arc::clone(&shared), writing, queue));
        Ok(Self(Arc::new(Inner { shared, outgoing, _tasks: tasks })))
    }

    /// What the server says about itself.
    pub(crate) fn info(&self) -> &Info {
        &self.0.shared.info
    }

    /// Which server this is.
    pub(crate) fn server(&self) -> &Address {
        &self.0.shared.server
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        *self.0.shared.ended.borrow()
    }

    /// Ends the connection, for everybody who has it.
    pub(crate) fn leave(&self) {
        self.0.shared.end();
    }

    /// Resolves when the connection has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        // Fails when the sender is gone, which this handle holds.
        drop(self.0.shared.ended.subscribe().wait_for(|ended| *ended).await);
    }

    /// Publishes a message. Whether anybody received it is unknown.
    pub(crate) fn publish(&self, subject: &str, payload: &[u8]) -> Result<(), Error> {
        self.send(encode_publish(subject, None, payload))
    }

    /// Sends an empty message to which there may be several answers, at `reply`.
    pub(crate) fn publish_asking(&self, subject: &str, reply: &str) -> Result<(), Error> {
        self.send(encode_publish(subject, Some(reply), b""))
    }

    /// Sends a message and waits for the answer.
    pub(crate) async fn request(&self, subject: &str, payload: &[u8], timeout: Duration) -> Result<Message, Error> {
        let (request, answer) = oneshot::channel();
        let number = self.0.shared.next.fetch_add(1, Ordering::Relaxed);
        match self.0.shared.lock().as_mut() {
            Some(waiting) => waiting.requests.insert(number, request),
            None => return Err(Error::Lost),
        };
        let _asked = Asked { connection: self, number };
        let reply = format!("{}.{number}", self.0.shared.inbox);
        self.send(encode_publish(subject, Some(&reply), payload))?;
        let message = tokio::time::timeout(timeout, answer).await.map_err(|_| Error::TimedOut)?;
        let message = message.map_err(|_| Error::Lost)?;
        if message.status() == Some(NO_RESPONDERS) { Err(Error::NoResponders) } else { Ok(message) }
    }

    /// Listens at a subject, from now on.
    pub(crate) fn subscribe(&self, subject: &str) -> Result<Subscription, Error> {
        let (sender, messages) = mpsc::channel(SUBSCRIPTION);
        let sid = self.0.shared.next.fetch_add(1, Ordering::Relaxed);
        match self.0.shared.lock().as_mut() {
            Some(waiting) => waiting.subscriptions.insert(sid, sender),
            None => return Err(Error::Lost),
        };
        let subscription = Subscription { messages, sid, connection: self.clone() };
        self.send(format!("SUB {subject} {sid}\r\n").into_bytes())?;
        Ok(subscription)
    }

    fn send(&self, bytes: Vec<u8>) -> Result<(), Error> {
        self.0.outgoing.try_send(bytes).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Full,
            mpsc::error::TrySendError::Closed(_) => Error::Lost,
        })
    }
}

/// A subject that nobody else listens at.
pub(crate) fn new_inbox() -> String {
    format!("_INBOX.{}", random_name())
}

/// The object that `CONNECT` takes.
fn hello(info: &Info, servers: &Servers, tls: bool) -> Result<serde_json::Value, ConnectError> {
    let mut hello = serde_json::json!({
        "name": "chinwag", "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "protocol": 1, "verbose": false,
        "pedantic": false, "headers": true, "no_responders": true, "echo": true, "tls_required": tls,
    });
    if info.auth_required || servers.key.is_some() {
        let key = servers.key.as_ref().ok_or(ConnectError::NeedsKey)?;
        // A server without authentication has no nonce to sign.
        if let Some(nonce) = &info.nonce {
            hello["nkey"] = key.public().into();
            hello["sig"] = key.sign(nonce.as_bytes()).into();
        } else if info.auth_required {
            return Err(ConnectError::Refused("it wants a password and not an nkey".into()));
        }
    }
    Ok(hello)
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

async fn next_op(socket: &mut (impl AsyncRead + Unpin + ?Sized), buffer: &mut BytesMut) -> Result<Op, ConnectError> {
    loop {
        if let Some(op) = parse(buffer).map_err(|Malformed| ConnectError::Protocol)? {
            return Ok(op);
        }
        if socket.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Delivers messages until the connection ends.
async fn read(
    shared: Arc<Shared>,
    mut socket: ReadHalf<Box<dyn Socket>>,
    mut buffer: BytesMut,
    outgoing: mpsc::Sender<Vec<u8>>,
) {
    let why = loop {
        match parse(&mut buffer) {
            Ok(Some(Op::Message { sid, message })) => shared.deliver(sid, message),
            // If the queue is full, what it holds shows that we live as well as the answer would.
            Ok(Some(Op::Ping)) => drop(outgoing.try_send(b"PONG\r\n".to_vec())),
            Ok(Some(Op::Info(info))) if info.ldm => break "the server is about to stop",
            Ok(Some(Op::Error(error))) => tracing::error!(server = %shared.server, error, "NATS refuses something"),
            Ok(Some(Op::Info(_) | Op::Pong | Op::Ok)) => {}
            Ok(None) => {
                buffer.reserve(READ_BYTES);
                match tokio::time::timeout(SILENCE, socket.read_buf(&mut buffer)).await {
                    Ok(Ok(1..)) => {}
                    Ok(_) => break "the server hung up",
                    Err(_) => break "the server is silent",
                }
            }
            Err(Malformed) => break "the server does not speak the NATS protocol",
        }
    };
    tracing::debug!(server = %shared.server, why, "the connection to NATS ended");
    shared.end();
}

/// Writes waiting messages, and pings, until the connection ends.
async fn write(shared: Arc<Shared>, mut socket: WriteHalf<Box<dyn Socket>>, mut queue: mpsc::Receiver<Vec<u8>>) {
    let mut pings = tokio::time::interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    let mut ended = shared.ended.subscribe();
    loop {
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => return,
            taken = queue.recv_many(&mut waiting, OUTGOING) => if taken == 0 { return },
            _ = pings.tick() => waiting.push(b"PING\r\n".to_vec()),
        }
        let bytes = waiting.drain(..).reduce(|mut all, more| {
            all.extend_from_slice(&more);
            all
        });
        let written = tokio::time::timeout(SILENCE, async {
            socket.write_all(&bytes.unwrap_or_default()).await?;
            socket.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return shared.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_in_the_clear_with_the_info_of_a_server_with_tls_is_not_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tls://{}", listener.local_addr().unwrap()).parse().unwrap();
        let said = b"INFO {\"headers\":true,\"tls_required\":true}\r\nMSG chinwag.presence 1 2\r\n{}\r\nPONG\r\n";
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(said).await.unwrap();
            // Until the other side hangs up, before it says anything.
            socket.read(&mut [0]).await.unwrap_or(0)
        });
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let servers = Servers { addresses: Vec::new(), key: None, tls: Arc::new(tls) };
        let opened = Connection::open(&address, &servers).await;
        assert!(matches!(opened, Err(ConnectError::Protocol)), "{opened:?}");
        assert_eq!(server.await.unwrap(), 0, "no handshake was begun");
    }
}

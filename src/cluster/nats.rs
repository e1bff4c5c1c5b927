//! A client of NATS: the part of its protocol that a replicated log needs, which is core NATS.
//!
//! A [`Connection`] is one TCP (or TLS) connection to one server, and ends with it: requests over it fail at once, and
//! nothing is kept to be sent over another one later. So the [publisher](super::publisher) knows that an entry is
//! published once. [`Link`] reconnects; subscribers then subscribe again.
//!
//! The server is trusted no further than its bytes: lines, headers and payloads are bounded, and one that is silent for
//! [`SILENCE`] despite pings counts as dead.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::nkey::NKey;
use crate::secret::random_name;

/// The port of a server whose address has none.
const DEFAULT_PORT: u16 = 4222;
/// The first version of a server that keeps on disk what it acknowledges, also when another leads a stream.
pub(crate) const VERSION_NEEDED: (u32, u32) = (2, 15);
/// Time to connect, shake hands and authenticate.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two pings, each of which the server answers.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// A server that is silent for so long despite pings is dead or cut off.
const SILENCE: Duration = Duration::from_secs(2);
const _: () = assert!(SILENCE.as_millis() > 3 * PING_INTERVAL.as_millis(), "one lost ping must not end a connection");
/// Time between two tries to connect, to one server after the other.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Messages and requests that wait to be written.
const OUTGOING: usize = 256;
/// Messages of one subscription that wait to be taken; past it they are lost, which their reader must notice, like
/// losses of the network. The entries that a consumer with flow control has under way, 1 MiB, fit.
const SUBSCRIPTION: usize = 8 * 1024;
/// Bytes of a line of the protocol. The longest is `INFO`, which names the other servers.
const LINE_MAX_BYTES: usize = 64 * 1024;
/// Bytes of a message with its headers: twice the most that servers take by default.
const MESSAGE_MAX_BYTES: usize = 2 * 1024 * 1024;
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

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    host: String,
    port: u16,
}

impl Address {
    /// Whether the traffic stays on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether the connection uses TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "expected nats://HOST:PORT or tls://HOST:PORT, without user or password";
        let (tls, place) = match text.split_once("://") {
            Some(("nats", place)) => (false, place),
            Some(("tls", place)) => (true, place),
            Some(_) => return Err(SHAPE),
            None => (false, text),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        // A colon inside the brackets of an IPv6 address does not begin a port.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| SHAPE)?),
            _ => (place, DEFAULT_PORT),
        };
        let well_formed = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if !well_formed || (host.contains(':') && !bracketed) {
            return Err(SHAPE);
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, host, port } = self;
        write!(f, "{}://{host}:{port}", if *tls { "tls" } else { "nats" })
    }
}

/// How the servers are reached.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    /// In the order of preference.
    pub(crate) addresses: Vec<Address>,
    pub(crate) key: Option<Arc<NKey>>,
    pub(crate) tls: Arc<ClientConfig>,
}

/// What a server says about itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the server's, not ours")]
pub(crate) struct Info {
    pub(crate) version: String,
    pub(crate) max_payload: usize,
    headers: bool,
    auth_required: bool,
    tls_required: bool,
    nonce: Option<String>,
    /// "Lame duck": the server is about to stop and asks its clients to go.
    ldm: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    /// The subject for an answer; JetStream uses it to describe its messages.
    pub(crate) reply: Option<String>,
    /// From `NATS/1.0` to the empty line; empty without headers.
    headers: Bytes,
    pub(crate) payload: Bytes,
}

/// Nobody listens at the subject of a request.
const NO_RESPONDERS: u16 = 503;

impl Message {
    /// The status of a message that is a notice.
    pub(crate) fn status(&self) -> Option<u16> {
        let line = self.headers.split(|byte| *byte == b'\r').next()?;
        let line = std::str::from_utf8(line).ok()?.strip_prefix("NATS/1.0 ")?;
        line.split(' ').next()?.parse().ok()
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = std::str::from_utf8(&self.headers).ok()?;
        let mut pairs = headers.split("\r\n").filter_map(|line| line.split_once(':'));
        pairs.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
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

fn encode_publish(subject: &str, reply: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let head = match reply {
        Some(reply) => format!("PUB {subject} {reply} {length}\r\n"),
        None => format!("PUB {subject} {length}\r\n"),
    };
    [head.as_bytes(), payload, b"\r\n"].concat()
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

/// An operation from a server.
#[derive(Debug)]
enum Op {
    Info(Box<Info>),
    Message { sid: u64, message: Message },
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// The bytes break the protocol or a limit.
#[derive(Debug)]
struct Malformed;

/// Takes the next operation from the front of `buffer`; `None` if it is incomplete.
fn parse(buffer: &mut BytesMut) -> Result<Option<Op>, Malformed> {
    let looked_at = &buffer[..buffer.len().min(LINE_MAX_BYTES)];
    let Some(end) = looked_at.windows(2).position(|two| two == b"\r\n") else {
        return if buffer.len() < LINE_MAX_BYTES { Ok(None) } else { Err(Malformed) };
    };
    let line = std::str::from_utf8(&buffer[..end]).map_err(|_| Malformed)?;
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let op = match verb.to_ascii_uppercase().as_str() {
        "MSG" | "HMSG" => return parse_message(buffer, end),
        "PING" => Op::Ping,
        "PONG" => Op::Pong,
        "+OK" => Op::Ok,
        "-ERR" => Op::Error(rest.trim().trim_matches('\'').to_owned()),
        "INFO" => Op::Info(Box::new(serde_json::from_str(rest).map_err(|_| Malformed)?)),
        _ => return Err(Malformed),
    };
    buffer.advance(end + 2);
    Ok(Some(op))
}

/// Feeds bytes to the parser, as if a server had sent them.
#[cfg(any(test, fuzzing))]
pub(super) fn read_anything(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(op)) = parse(&mut buffer) {
        if let Op::Message { message, .. } = op {
            assert!(message.payload.len() <= MESSAGE_MAX_BYTES);
            drop((message.status(), message.header("Nats-Last-Stream").map(ToOwned::to_owned)));
        }
    }
}

/// Takes a message whose first line ends at `end`: `MSG subject sid [reply] bytes`, or with headers
/// `HMSG subject sid [reply] header-bytes bytes`.
fn parse_message(buffer: &mut BytesMut, end: usize) -> Result<Option<Op>, Malformed> {
    let line = std::str::from_utf8(&buffer[..end]).map_err(|_| Malformed)?;
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let number = |word: &str| word.parse::<usize>().map_err(|_| Malformed);
    let has_headers = words[0].eq_ignore_ascii_case("HMSG");
    let (subject, sid, reply, headers, total) = match (has_headers, &words[1..]) {
        (false, [subject, sid, total]) => (subject, sid, None, 0, number(total)?),
        (false, [subject, sid, reply, total]) => (subject, sid, Some(reply), 0, number(total)?),
        (true, [subject, sid, headers, total]) => (subject, sid, None, number(headers)?, number(total)?),
        (true, [subject, sid, reply, headers, total]) => (subject, sid, Some(reply), number(headers)?, number(total)?),
        _ => return Err(Malformed),
    };
    if total > MESSAGE_MAX_BYTES || headers > total {
        return Err(Malformed);
    }
    let start = end + 2;
    if buffer.len() < start + total + 2 {
        return Ok(None);
    }
    let (subject, reply) = ((*subject).to_owned(), reply.map(|reply| (*reply).to_owned()));
    let sid = sid.parse().map_err(|_| Malformed)?;
    buffer.advance(start);
    let headers = buffer.split_to(headers).freeze();
    let payload = buffer.split_to(total - headers.len()).freeze();
    if !buffer.starts_with(b"\r\n") {
        return Err(Malformed);
    }
    buffer.advance(2);
    Ok(Some(Op::Message { sid, message: Message { subject, reply, headers, payload } }))
}

/// The current connection, if there is one; kept up by [`Link::keep`].
#[derive(Debug, Clone)]
pub(crate) struct Link(watch::Receiver<Option<Connection>>);

impl Link {
    /// Connects, and reconnects whenever the connection ends. The future is the task that does this, and never ends.
    pub(crate) fn keep(servers: Servers) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = watch::channel(None);
        (Self(receiver), keep(servers, sender))
    }

    /// The current connection.
    pub(crate) fn current(&self) -> Option<Connection> {
        self.0.borrow().clone()
    }

    /// Waits until there is a connection. Cancel safe.
    pub(crate) async fn connected(&self) -> Connection {
        let mut watched = self.0.clone();
        loop {
            if let Some(connection) = watched.borrow_and_update().clone() {
                return connection;
            }
            if watched.changed().await.is_err() {
                // The server stops: there will be none.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn keep(servers: Servers, current: watch::Sender<Option<Connection>>) {
    let mut failing = false;
    for server in servers.addresses.iter().cycle() {
        match Connection::open(server, &servers).await {
            Ok(connection) => {
                failing = false;
                let version = &connection.info().version;
                tracing::info!(%server, version, "connected to NATS");
                if !is_new_enough(version) {
                    tracing::warn!(%server, version, "this NATS server is too old: it may lose what it acknowledged");
                }
                current.send_replace(Some(connection.clone()));
                connection.ended().await;
                current.send_replace(None);
                tracing::warn!(%server, "the connection to NATS is lost");
            }
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%server, %error, "cannot connect to NATS, trying the next");
            }
            Err(error) => tracing::debug!(%server, %error, "cannot connect to NATS"),
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Whether a server of this version loses nothing that it acknowledged.
pub(crate) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= VERSION_NEEDED
}

/// Connects to the first of the servers that accepts us, for a command.
///
/// # Errors Why the last of them did not.
pub(crate) async fn connect_to_any(servers: &Servers) -> Result<Connection, (Address, ConnectError)> {
    let mut last = None;
    for server in &servers.addresses {
        match Connection::open(server, servers).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = Some((server.clone(), error)),
        }
    }
    Err(last.expect("there is one server at least"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &[u8] = b"INFO {\"version\":\"2.15.1\",\"max_payload\":1048576,\"headers\":true}\r\nPING\r\n+OK\r\n\
        MSG a.b 7 5\r\nhello\r\nMSG a.b 7 _INBOX.x.3 0\r\n\r\n\
        HMSG a 9 12 14\r\nNATS/1.0\r\n\r\nhi\r\n\
        HMSG a 9 r 48 48\r\nNATS/1.0 100 Idle\r\nNats-Last-Stream: 1234567\r\n\r\n\r\n-ERR 'no'\r\nPONG\r\n";

    fn all(pieces: impl Iterator<Item = Bytes>) -> Vec<String> {
        let (mut buffer, mut ops) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(&piece);
            while let Some(op) = parse(&mut buffer).unwrap() {
                ops.push(format!("{op:?}"));
            }
        }
        assert!(buffer.is_empty());
        ops
    }

    #[test]
    fn what_a_server_says_is_understood_in_whatever_pieces_it_comes() {
        let whole = all(std::iter::once(Bytes::from_static(SAID)));
        assert_eq!(whole.len(), 9, "{whole:?}");
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(all(SAID.chunks(size).map(Bytes::copy_from_slice)), whole);
        }
    }

    #[test]
    fn headers_say_what_a_notice_is() {
        let headers = Bytes::from_static(b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Stream: 41\r\n\r\n");
        let message = Message { subject: String::new(), reply: None, headers, payload: Bytes::new() };
        assert_eq!(message.status(), Some(100));
        assert_eq!(message.header("nats-last-stream"), Some("41"));
        assert_eq!(message.header("other"), None);
    }

    #[test]
    fn what_is_no_nats_is_an_error_and_not_waited_for() {
        for bad in [
            "HTTP/1.1 400 Bad Request\r\n",
            "MSG a\r\n",
            "MSG a 1 99999999\r\n",
            "HMSG a 1 9 3\r\nabc\r\n",
            "MSG a 1 1\r\nxyz",
        ] {
            assert!(parse(&mut BytesMut::from(bad)).is_err(), "{bad}");
        }
        assert!(parse(&mut BytesMut::from(&vec![b'x'; LINE_MAX_BYTES][..])).is_err());
    }

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

    #[test]
    fn a_server_is_new_enough_from_2_15_on() {
        assert!(is_new_enough("2.15.0") && is_new_enough("2.15.1-RC.1") && is_new_enough("3.0.0"));
        assert!(!is_new_enough("2.14.9") && !is_new_enough("1.99.0") && !is_new_enough(""));
    }

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port_and_no_secret() {
        let shown = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(shown("nats://a.example"), Ok("nats://a.example:4222".into()));
        assert_eq!(shown("tls://10.0.0.1:4333/"), Ok("tls://10.0.0.1:4333".into()));
        assert_eq!(shown("[::1]:1"), Ok("nats://[::1]:1".into()));
        assert_eq!(shown("nats://[::1]"), Ok("nats://[::1]:4222".into()));
        for bad in
            ["", "nats://", "http://a", "nats://user:secret@a", "nats://a:b", "nats://a/b", "::1", "nats://a:99999"]
        {
            assert!(shown(bad).is_err(), "{bad}");
        }
        assert!("nats://127.0.0.1".parse::<Address>().unwrap().is_loopback());
        assert!("[::1]:4".parse::<Address>().unwrap().is_loopback() && !"a".parse::<Address>().unwrap().is_loopback());
    }
}

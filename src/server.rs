//! The listener: accepts, admits, hands to hyper; and the order in which everything stops.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{
    ACCEPT_BACKOFF, CLEAN_INTERVAL, CORES_PER_SHARD, Config, DATABASE_TIMEOUT, DRAIN_RETRY, DRAIN_TIMEOUT, Endpoint,
    FEW_CONNECTIONS, HEAD_MAX_BYTES, HEAD_TIMEOUT, HEADERS_MAX, LINGER_TIMEOUT, REFUSALS_AT_ONCE, RESERVED_DESCRIPTORS,
};
use crate::control::{self, Control};
use crate::db::{self, Commit, Committed, Db};
use crate::error::ApiError;
use crate::fan_out::{Clock, Shard};
use crate::handler::{Admission, App, Peer, metrics};
use crate::http_stream::HttpStream;
use crate::hub::{Event, Hub, Position};
use crate::listen::Listener;
use crate::metrics::{Metrics, Refused};
use crate::presence::Presence;
use crate::rate_limit::address_key;
use crate::response::{instead_of_hypers, last_words};
use crate::router::route;
use crate::stream::Stream;
#[cfg(feature = "tls")]
use crate::tls::Certificate;

#[cfg(test)]
mod tests;

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The database cannot be opened.
    #[error("cannot open the database {path}")]
    Database {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: db::OpenError,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address, or the path of a Unix socket.
        address: Endpoint,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket that systemd passed on cannot be listened on.
    #[error("cannot listen on a socket that was passed on: {0}")]
    Inherited(#[source] io::Error),
    /// The certificate or its key cannot be used.
    #[cfg(feature = "tls")]
    #[error("cannot speak TLS: {0}")]
    Tls(String),
}

/// Why a server stopped that nobody told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A thread of the database ended.
    #[error("a thread of the database ended unexpectedly")]
    Database,
    /// A loop ended: a shard, one that accepts connections, or one that keeps house.
    #[error("a loop of the server ended unexpectedly")]
    Loop,
}

/// A server that listens and does not serve yet.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    shards: Vec<Arc<Shard>>,
    listeners: Vec<Listener>,
    metrics_listener: Option<Listener>,
    threads: db::Threads,
    control: Option<Control>,
    places: Arc<Semaphore>,
    max_connections: u32,
}

/// Tells a server to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShutdownHandle(Arc<App>);

impl ShutdownHandle {
    /// Has [`Server::run`] stop: no new connections; what was accepted is stored and acknowledged; every socket is
    /// closed with 1001.
    pub fn shutdown(&self) {
        self.0.stopping.send_replace(true);
    }
}

/// How many shards a machine of so many cores is served with.
#[must_use]
pub fn shards_for(cores: usize) -> usize {
    (cores / CORES_PER_SHARD).max(1)
}

impl Server {
    /// Opens the database and listens, with `shards` loops that write to sockets. Must be called on a tokio runtime.
    pub async fn bind(config: Config, shards: usize) -> Result<Self, BindError> {
        let (hub, metrics, clock) = (Hub::new(), Arc::new(Metrics::new()), Clock::start());
        let on_commit = {
            let (hub, metrics) = (hub.clone(), Arc::clone(&metrics));
            move |committed: Committed<'_>| match committed {
                Committed::Ended(sessions) => hub.publish(Event::Revoked(sessions.into())),
                Committed::Stored(commit) => {
                    count_commit(&metrics, &commit);
                    hub.publish_batch(commit.after, commit.messages);
                }
            }
        };
        let options = db::Options { durability: config.durability, retention: config.retention() };
        let opened = Db::open(&config.db, options, Box::new(on_commit));
        let path = || config.db.display().to_string();
        let (db, threads) = opened.map_err(|source| BindError::Database { path: path(), source })?;
        let listeners = listen_all(&config).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen(&Endpoint::Tcp(address)).await?),
            None => None,
        };

        let control = control::listen(&config.db);

        let max_connections = connection_limit(config.max_connections);
        let start = Position { message: db.last_id(), ..Position::default() };
        let shard = |_| Arc::new(Shard::new(clock, config.ping_interval(), Arc::clone(&metrics), start));
        let shards: Vec<_> = (0..shards).map(shard).collect();
        let places = Arc::new(Semaphore::new(max_connections as usize));
        let app = Arc::new(App::new(config, db, hub, metrics, clock, shards.clone()));
        Ok(Self { app, shards, listeners, metrics_listener, threads, control, places, max_connections })
    }

    /// Where the server is to be found: URLs, which a person can open, before the paths of Unix sockets.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let (tcp, unix): (Vec<_>, Vec<_>) =
            self.listeners.iter().partition(|listener| listener.tcp_address().is_some());
        tcp.into_iter().chain(unix).map(Listener::name).collect()
    }

    /// The address that metrics are served on.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_listener.as_ref().and_then(Listener::tcp_address)
    }

    /// Notes `addresses` where the commands find them, as those this server is reached at.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn announce(&self, addresses: &[String]) -> io::Result<()> {
        self.app.db.announce(addresses)
    }

    /// Whether nobody has registered yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.app.db.was_empty()
    }

    /// A handle that stops the server.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(Arc::clone(&self.app))
    }

    /// Serves until told to stop, or until it can no longer.
    pub async fn run(self) -> Result<(), RunError> {
        let Self { app, shards, listeners, metrics_listener, threads, control, places, max_connections } = self;
        let mut writing = JoinSet::new();
        for shard in shards {
            let (hub, events) = (app.hub.clone(), app.hub.subscribe());
            writing.spawn(async move { shard.run(hub, events).await });
        }
        let mut housekeeping = JoinSet::new();
        housekeeping.spawn(clean(Arc::clone(&app)));
        housekeeping.spawn(publish_counts(Arc::clone(&app.presence)));
        if let Some(listener) = metrics_listener {
            housekeeping.spawn(metrics::serve(Arc::clone(&app), listener));
        }
        if let Some(control) = control {
            housekeeping.spawn(control::serve(Arc::clone(&app), control));
        }
        let mut accepting = JoinSet::new();
        let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE));
        for listener in listeners {
            accepting.spawn(accept(Arc::clone(&app), listener, Arc::clone(&places), Arc::clone(&refusals)));
        }
        let result = until_over(&app, [&mut writing, &mut accepting, &mut housekeeping]).await;
        // The order of stopping: nobody comes in; who is in gets the answers that are due and 1001; then the database.
        accepting.shutdown().await;
        app.stopping.send_replace(true);
        housekeeping.shutdown().await;
        let drained = async {
            let mut retry = tokio::time::interval(DRAIN_RETRY);
            loop {
                tokio::select! {
                    _ = retry.tick() => app.hub.publish(Event::Shutdown),
                    _ = places.acquire_many(max_connections) => return,
                }
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            let left = max_connections as usize - places.available_permits();
            tracing::warn!(connections = left, "stopping without waiting longer for connections that do not end");
        }
        let stopped = async {
            app.db.stop().await;
            tokio::task::spawn_blocking(|| threads.join()).await
        };
        match tokio::time::timeout(DATABASE_TIMEOUT, stopped).await {
            Ok(Ok(Ok(()))) => result,
            Ok(_) => Err(RunError::Database),
            Err(_) => {
                tracing::warn!("stopping without waiting longer for the database");
                result
            }
        }
    }
}

/// Resolves when the server has been told to stop, or when a thread of the database or a loop has ended, which none does
/// but by a bug: better seen at once than found out by what is missing.
async fn until_over(app: &App, loops: [&mut JoinSet<Infallible>; 3]) -> Result<(), RunError> {
    let [writing, accepting, housekeeping] = loops;
    tokio::select! {
        () = app.until_stopping() => Ok(()),
        () = app.db.ended() => Err(RunError::Database),
        _ = writing.join_next() => Err(RunError::Loop),
        _ = accepting.join_next() => Err(RunError::Loop),
        _ = housekeeping.join_next() => Err(RunError::Loop),
    }
}

/// Listens on what systemd passed on; if that is nothing, where the flags say.
async fn listen_all(config: &Config) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Listener::inherited().map_err(BindError::Inherited)?;
    if listeners.is_empty() {
        for endpoint in &config.listen {
            listeners.push(listen(endpoint).await?);
        }
    }
    #[cfg(feature = "tls")]
    if let (Some(chain), Some(key)) = (&config.tls_cert, &config.tls_key) {
        let certificate = Arc::new(Certificate::load(chain, key).map_err(BindError::Tls)?);
        listeners = listeners.into_iter().map(|listener| listener.with_tls(&certificate)).collect();
    }
    Ok(listeners)
}

async fn listen(endpoint: &Endpoint) -> Result<Listener, BindError> {
    let bound = Listener::bind(endpoint).await;
    bound.map_err(|source| BindError::Listen { address: endpoint.clone(), source })
}

fn count_commit(metrics: &Metrics, commit: &Commit<'_>) {
    let micros = u64::try_from(commit.took.as_micros()).unwrap_or(u64::MAX);
    // What turned up after a commit that failed is of no transaction now.
    if commit.commands > 0 {
        metrics.commit_micros.observe(micros);
        metrics.queue_commands.observe(commit.waiting as u64);
    }
    if !commit.messages.is_empty() {
        metrics.messages.add(commit.messages.len() as u64);
        metrics.batch_messages.observe(commit.messages.len() as u64);
    }
    tracing::debug!(messages = commit.messages.len(), commands = commit.commands, commit_us = micros, "committed");
}

/// The most connections there may be: what was asked for, as far as the file descriptors go, after raising their soft
/// limit to the hard one.
fn connection_limit(asked: Option<u32>) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the file-descriptor limit stays as it is");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible =
        u32::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1)).unwrap_or(1_000_000).min(1_000_000);
    match asked {
        Some(asked) if asked > possible => {
            tracing::warn!(asked, possible, "the file-descriptor limit allows fewer connections than asked for");
            possible
        }
        Some(asked) => asked,
        None => {
            if possible < FEW_CONNECTIONS {
                tracing::warn!(possible, "the file-descriptor limit allows few connections: see ulimit -n");
            }
            possible
        }
    }
}

/// Accepts a listener's connections for good.
async fn accept(app: Arc<App>, listener: Listener, places: Arc<Semaphore>, refusals: Arc<Semaphore>) -> Infallible {
    let mut failing = false;
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that ended in the queue is no fault; no descriptor or memory left is one that lasts.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "cannot accept connections; those inside go on");
                    }
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            tracing::info!("accepting connections again");
        }
        let Some(peer) = admit(&app, &places, address, stream.is_tls()) else {
            app.metrics.refuse(Refused::Connections);
            tracing::debug!(?address, "connection refused");
            turn_away(stream, &refusals);
            continue;
        };
        if stream.is_tls() && !may_shake_hands(&app, &peer) {
            app.metrics.refuse(Refused::Rate);
            tracing::debug!(?address, "handshake refused");
            continue;
        }
        tokio::spawn(serve(Arc::clone(&app), stream, peer));
    }
}

/// Finds a connection its places, if there are any left. A trusted proxy's is nobody's until a client opens a
/// WebSocket over it, which then counts for the client's address. Whoever may use a Unix socket is trusted, and without
/// a forwarded address is this machine.
fn admit(app: &App, places: &Arc<Semaphore>, address: Option<IpAddr>, is_tls: bool) -> Option<Peer> {
    let place = Arc::clone(places).try_acquire_owned().ok()?;
    let proxied = address.is_none_or(|address| app.config.trusts(address));
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let guard = if proxied { None } else { Some(app.addresses.enter(address)?) };
    let admission = Admission { place, address: guard };
    Some(Peer { address, proxied, is_tls, admission: Arc::new(Mutex::new(Some(admission))) })
}

/// Whether an address has a TLS handshake left. A trusted proxy's are for its clients, whom nobody can tell apart yet.
fn may_shake_hands(app: &App, peer: &Peer) -> bool {
    peer.proxied || app.handshake_rate.take(address_key(peer.address), Instant::now()).is_ok()
}

/// Says that there is no place, to a connection that hyper never sees; to a few at once so that they surely hear it.
fn turn_away(stream: Stream, refusals: &Arc<Semaphore>) {
    // Over TLS there are no words before a handshake, which is more than a refusal is to cost. A socket that was just
    // accepted has room for them; one that has not is gone.
    if stream.is_tls() || stream.try_write(&last_words(&ApiError::TooManyConnections)).is_err() {
        return;
    }
    if let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
        tokio::spawn(async move {
            drop(tokio::time::timeout(LINGER_TIMEOUT, stream.finish()).await);
            drop(permit);
        });
    }
}

/// Serves HTTP on one connection, until it ends or becomes a WebSocket.
async fn serve(app: Arc<App>, stream: Stream, peer: Peer) {
    let service = service_fn(|request| {
        let answer = route(Arc::clone(&app), peer.clone(), request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(HttpStream::new(stream, instead_of_hypers), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = app.until_stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// Removes what has expired, round after round.
async fn clean(app: Arc<App>) -> Infallible {
    loop {
        let wait = app.db.clean().await.unwrap_or(CLEAN_INTERVAL);
        tokio::time::sleep(wait).await;
    }
}

async fn publish_counts(presence: Arc<Presence>) -> Infallible {
    let mut interval = tokio::time::interval(Presence::COUNT_INTERVAL);
    loop {
        interval.tick().await;
        presence.publish_count();
    }
}

//! The server: binds, runs, and stops everything in order.
//!
//! The database and the hub know nothing of each other: [`on_commit`] connects them, and says what follows a commit. The
//! order of stopping keeps what was promised to clients: what was accepted is stored and acknowledged, every socket is
//! closed with 1001 (promise 7), and only then does the database end.

mod accept;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
#[cfg(feature = "push")]
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::app::App;
#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::config::{Config, Endpoint, PublicUrl, Registration};
use crate::control::{self, Control};
use crate::db::{self, AdminCommand, AdminError, Commit, Committed, Db, OnCommit};
use crate::fan_out::{Broadcast, Clock, Hub, Position, Presence, Shard};
use crate::http::account::finish_erasures;
use crate::http::metrics;
use crate::limits::{
    CLEAN_INTERVAL, DATABASE_TIMEOUT, DRAIN_RETRY, DRAIN_TIMEOUT, FEW_CONNECTIONS, INVITE_LIFETIME, REFUSALS_AT_ONCE,
    RESERVED_DESCRIPTORS, SETTLE_INTERVAL, STORE_READS_INTERVAL,
};
use crate::metrics::Metrics;
use crate::model::UnixMillis;
#[cfg(feature = "tls")]
use crate::net::Certificate;
use crate::net::Listener;
#[cfg(feature = "push")]
use crate::push::{self, Push, Pusher};
use crate::room;
use crate::secret::InviteCode;
use accept::accept;

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The database cannot be opened.
    #[error("cannot open the database {path}")]
    Database {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: db::OpenError,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address, or the path of a Unix socket.
        address: Endpoint,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A socket inherited from systemd cannot be listened on.
    #[error("cannot listen on an inherited socket: {0}")]
    Inherited(#[source] io::Error),
    /// The node cannot join its cluster.
    #[cfg(feature = "cluster")]
    #[error("cannot join the cluster: {0}")]
    Cluster(#[from] crate::cluster::StartError),
    /// The certificate or its key cannot be used.
    #[cfg(feature = "tls")]
    #[error("cannot use TLS: {0}")]
    Tls(String),
}

/// Why a server stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A thread of the database ended.
    #[error("a thread of the database ended unexpectedly")]
    Database,
    /// This node cannot go on applying the log of its cluster.
    #[error("this node leaves the cluster: {0}")]
    Cluster(String),
    /// A loop ended: a shard, a listener, or a background task.
    #[error("a loop of the server ended unexpectedly")]
    Loop,
}

/// A server that is listening but not serving yet.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    shards: Vec<Arc<Shard>>,
    listeners: Vec<Listener>,
    metrics_listener: Option<Listener>,
    threads: db::Threads,
    control: Option<Control>,
    slots: Arc<Semaphore>,
    max_connections: u32,
}

/// Tells a server to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShutdownHandle(Arc<App>);

impl ShutdownHandle {
    /// Makes [`Server::run`] stop: no new connections; everything accepted is stored and acknowledged; every socket is
    /// closed with 1001.
    pub fn shutdown(&self) {
        self.0.stopping.send_replace(true);
    }
}

impl Server {
    /// Opens the database and listens. Must be called on a tokio runtime.
    pub async fn bind(mut config: Config) -> Result<Self, BindError> {
        let (hub, metrics, clock) = (Hub::new(), Arc::new(Metrics::new()), Clock::start());
        #[cfg(feature = "push")]
        let rooms = Arc::new(push::Rooms::default());
        let on_commit = on_commit(
            hub.clone(),
            Arc::clone(&metrics),
            #[cfg(feature = "push")]
            Arc::clone(&rooms),
        );
        let Opened {
            db,
            threads,
            #[cfg(feature = "cluster")]
            cluster,
        } = open(&config, on_commit).await?;
        let listeners = listen_all(&config)?;
        if !config.has_proxy() && listeners.iter().all(Listener::is_for_this_machine) {
            config.registration.get_or_insert(Registration::Open);
        }
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen(&Endpoint::Tcp(address), &[])?),
            None => None,
        };

        let control = control::listen(&config.db);

        let max_connections = connection_limit(config.max_connections);
        // One more than a new connection's count, so that it cannot join before it has looked up its rooms.
        let start = Position { event: db.last_id(), membership: 1, ..Position::default() };
        let shard = |_| Arc::new(Shard::new(clock, config.ping_interval(), Arc::clone(&metrics), start));
        let shards: Vec<_> = (0..config.shards()).map(shard).collect();
        let slots = Arc::new(Semaphore::new(max_connections as usize));
        #[cfg(feature = "push")]
        let push = Push::start(&config, &db, rooms).await;
        let app = App::new(config, db, hub, metrics, clock, shards.clone(), max_connections);
        #[cfg(feature = "push")]
        let app = app.with_push(push);
        #[cfg(feature = "cluster")]
        let app = app.in_cluster(cluster);
        let app = Arc::new(app);
        Ok(Self { app, shards, listeners, metrics_listener, threads, control, slots, max_connections })
    }

    /// Where the server can be reached: URLs, which a person can open, before the paths of Unix sockets.
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

    /// Stores `addresses` where commands find them, as those under which this server can be reached.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn announce(&self, addresses: &[String]) -> io::Result<()> {
        self.app.db.announce(addresses, self.app.config.public_url.as_ref().map(PublicUrl::as_str))
    }

    /// Who may create an account.
    #[must_use]
    pub fn registration(&self) -> Registration {
        self.app.config.registration()
    }

    /// Whether nobody has registered yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.app.db.was_empty()
    }

    /// Makes an invitation for one person: with an empty database, for the operator.
    ///
    /// # Errors
    /// If the database cannot store it.
    pub async fn first_invite(&self) -> Result<InviteCode, AdminError> {
        let code = InviteCode::random();
        let lifetime = i64::try_from(INVITE_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        let expires_at = UnixMillis::now().plus(lifetime);
        let invite = AdminCommand::CreateInvite { digest: code.digest(), uses: NonZeroU32::MIN, expires_at };
        self.app.db.administer(invite).await.map(|_| code)
    }

    /// A handle that stops the server.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(Arc::clone(&self.app))
    }

    /// Serves until told to stop, or until it can no longer.
    pub async fn run(self) -> Result<(), RunError> {
        let Self { app, shards, listeners, metrics_listener, threads, control, slots, max_connections } = self;
        let mut writing = JoinSet::new();
        for shard in shards {
            let (hub, events) = (app.hub.clone(), app.hub.subscribe());
            writing.spawn(async move { shard.run(hub, events).await });
        }
        let mut housekeeping = JoinSet::new();
        housekeeping.spawn(clean(Arc::clone(&app)));
        housekeeping.spawn(settle(app.db.clone()));
        housekeeping.spawn(publish_counts(Arc::clone(&app.presence)));
        // Of several, the node that sweeps does it.
        if !app.db.is_one_of_several() {
            tokio::spawn(finish_erasures(Arc::clone(&app)));
        }
        housekeeping.spawn(store_reads(Arc::clone(&app)));
        #[cfg(feature = "push")]
        if let Some(push) = &app.push {
            let pusher = Pusher {
                push: Arc::clone(push),
                db: app.db.clone(),
                metrics: Arc::clone(&app.metrics),
                #[cfg(feature = "cluster")]
                duty: app.cluster.as_ref().map(|cluster| cluster.duty(app.db.clone())),
            };
            housekeeping.spawn(pusher.run());
        }
        if let Some(listener) = metrics_listener {
            housekeeping.spawn(metrics::serve(Arc::clone(&app), listener));
        }
        if let Some(control) = control {
            housekeeping.spawn(control::serve(Arc::clone(&app), control));
        }
        let mut accepting = JoinSet::new();
        let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE));
        for listener in listeners {
            accepting.spawn(accept(Arc::clone(&app), listener, Arc::clone(&slots), Arc::clone(&refusals)));
        }
        let result = until_over(&app, [&mut writing, &mut accepting, &mut housekeeping]).await;
        // The order of stopping: no new connections; pending answers and 1001 for the existing ones; then the database.
        accepting.shutdown().await;
        app.stopping.send_replace(true);
        housekeeping.shutdown().await;
        let drained = async {
            let mut retry = tokio::time::interval(DRAIN_RETRY);
            loop {
                tokio::select! {
                    _ = retry.tick() => app.hub.publish(Broadcast::Shutdown),
                    _ = slots.acquire_many(max_connections) => return,
                }
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            let left = max_connections as usize - slots.available_permits();
            tracing::warn!(connections = left, "stopping without waiting any longer for connections");
        }
        let stopped = async {
            app.db.stop().await;
            tokio::task::spawn_blocking(|| threads.join()).await
        };
        match tokio::time::timeout(DATABASE_TIMEOUT, stopped).await {
            Ok(Ok(Ok(()))) => result,
            Ok(_) => Err(RunError::Database),
            Err(_) => {
                tracing::warn!("stopping without waiting any longer for the database");
                result
            }
        }
    }
}

/// What follows a commit, called by the writer thread: it closes the sockets of ended sessions, has connections look up
/// their rooms again, and publishes events in commit order. For [`Committed::Stored`] it may wait for slow shards.
fn on_commit(hub: Hub, metrics: Arc<Metrics>, #[cfg(feature = "push")] rooms: Arc<push::Rooms>) -> OnCommit {
    Box::new(move |committed: Committed<'_>| match committed {
        Committed::SessionsEnded(sessions) => hub.publish(Broadcast::Revoked(sessions.into())),
        Committed::Membership(events) => hub.publish_rooms(events),
        Committed::TurnedUp(last_id) => hub.publish_turned_up(last_id),
        Committed::Stored(commit) => {
            count_commit(&metrics, &commit);
            #[cfg(feature = "push")]
            note_news(&rooms, &metrics, &commit);
            hub.publish_batch(commit.after, commit.events);
        }
    })
}

/// The database, and what comes with it.
struct Opened {
    db: Db,
    threads: db::Threads,
    #[cfg(feature = "cluster")]
    cluster: Option<Cluster>,
}

/// Opens the database; as a node of a cluster, also applies what the log has that it lacks.
#[cfg_attr(not(feature = "cluster"), expect(clippy::unused_async, reason = "a log is waited for"))]
async fn open(config: &Config, on_commit: OnCommit) -> Result<Opened, BindError> {
    let options = db::Options { durability: config.durability, retention: config.retention() };
    let failed = |source| BindError::Database { path: config.db.display().to_string(), source };
    #[cfg(feature = "cluster")]
    if config.cluster.is_clustered() {
        let (db, threads, replica) = Db::open_replica(&config.db, options, on_commit).map_err(failed)?;
        let cluster = Some(Cluster::start(&config.cluster, db.clone(), replica).await?);
        return Ok(Opened { db, threads, cluster });
    }
    let (db, threads) = Db::open(&config.db, options, on_commit).map_err(failed)?;
    Ok(Opened {
        db,
        threads,
        #[cfg(feature = "cluster")]
        cluster: None,
    })
}

/// Resolves when the server has been told to stop, or when a thread of the database or a loop has ended. Those end only
/// by a bug, which is better noticed at once than by its consequences.
async fn until_over(app: &App, loops: [&mut JoinSet<Infallible>; 3]) -> Result<(), RunError> {
    let [writing, accepting, housekeeping] = loops;
    tokio::select! {
        () = app.until_stopping() => Ok(()),
        () = app.db.ended() => Err(RunError::Database),
        reason = app.out_of_cluster() => Err(RunError::Cluster(reason)),
        _ = writing.join_next() => Err(RunError::Loop),
        _ = accepting.join_next() => Err(RunError::Loop),
        _ = housekeeping.join_next() => Err(RunError::Loop),
    }
}

/// Listens on the sockets inherited from systemd, or, if there are none, where the flags say.
fn listen_all(config: &Config) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Listener::inherited().map_err(BindError::Inherited)?;
    if listeners.is_empty() {
        for endpoint in &config.listen {
            listeners.push(listen(endpoint, &config.listen)?);
        }
    }
    #[cfg(feature = "tls")]
    if let (Some(chain), Some(key)) = (&config.tls_cert, &config.tls_key) {
        let certificate = Arc::new(Certificate::load(chain, key).map_err(BindError::Tls)?);
        listeners = listeners.into_iter().map(|listener| listener.with_tls(&certificate)).collect();
    }
    Ok(listeners)
}

fn listen(endpoint: &Endpoint, all: &[Endpoint]) -> Result<Listener, BindError> {
    let bound = Listener::bind(endpoint, all);
    bound.map_err(|source| BindError::Listen { address: endpoint.clone(), source })
}

/// Notes which rooms have new messages, to be pushed later.
#[cfg(feature = "push")]
fn note_news(rooms: &push::Rooms, metrics: &Metrics, commit: &Commit<'_>) {
    let messages = commit.events.iter().filter_map(|event| match event {
        crate::room::Event::Message(message, _) => Some((message.room, message.id)),
        _ => None,
    });
    metrics.pushes.dropped.add(rooms.note(messages, Instant::now()));
}

fn count_commit(metrics: &Metrics, commit: &Commit<'_>) {
    let micros = u64::try_from(commit.took.as_micros()).unwrap_or(u64::MAX);
    metrics.commit_micros.observe(micros);
    metrics.queue_commands.observe(commit.waiting as u64);
    let messages = commit.events.iter().filter(|event| matches!(event, room::Event::Message(..))).count();
    if messages > 0 {
        metrics.messages.add(messages as u64);
        metrics.batch_messages.observe(messages as u64);
    }
    tracing::debug!(
        messages,
        events = commit.events.len(),
        commands = commit.commands,
        commit_us = micros,
        "committed"
    );
}

/// The connection limit: as requested, as far as the file descriptors allow, after raising their soft limit to the hard
/// one.
fn connection_limit(asked: Option<u32>) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "cannot raise the file-descriptor limit");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible =
        u32::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1)).unwrap_or(1_000_000).min(1_000_000);
    match asked {
        Some(asked) if asked > possible => {
            tracing::warn!(asked, possible, "the file-descriptor limit allows fewer connections than requested");
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

/// Removes expired data, round after round.
async fn clean(app: Arc<App>) -> Infallible {
    loop {
        let mut wait = CLEAN_INTERVAL;
        if app.is_sweeper().await {
            // The node that was at them may be gone for good.
            if app.db.is_one_of_several() {
                finish_erasures(Arc::clone(&app)).await;
            }
            wait = app.db.clean().await.unwrap_or(CLEAN_INTERVAL);
        }
        tokio::time::sleep(wait).await;
    }
}

/// Keeps the database's log short.
async fn settle(db: Db) -> Infallible {
    loop {
        tokio::time::sleep(SETTLE_INTERVAL).await;
        db.settle().await;
    }
}

/// Stores read positions that no other commit has stored.
async fn store_reads(app: Arc<App>) -> Infallible {
    let mut interval = tokio::time::interval(STORE_READS_INTERVAL);
    loop {
        interval.tick().await;
        // Positions that could not be stored wait for the next time.
        if app.db.store_reads().await.is_err() {
            tracing::debug!("read positions are not stored yet");
        }
    }
}

async fn publish_counts(presence: Arc<Presence>) -> Infallible {
    let mut interval = tokio::time::interval(Presence::COUNT_INTERVAL);
    loop {
        interval.tick().await;
        presence.publish_count();
    }
}

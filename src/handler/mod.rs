//! What answers requests, and the handles they may use.

pub(crate) mod assets;
pub(crate) mod metrics;
pub(crate) mod rest;
pub(crate) mod ws;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::{
    CATCH_UPS_AT_ONCE, CONNECT_BURST, CONNECT_RATE, Config, FRAME_BURST, FRAME_RATE, FRAMES_PER_MESSAGE,
    HANDSHAKE_BURST, HANDSHAKE_RATE, KEPT_OPEN, MESSAGE_BURST_SECONDS, REFUSAL_LOG_BURST, REFUSAL_LOG_RATE,
};
use crate::db::Db;
use crate::fan_out::{Clock, Shard};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::model::UserId;
use crate::password::Hasher;
use crate::presence::Presence;
use crate::rate_limit::{Allowance, Limiter, address_key};

/// The handles a request may use.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) hub: Hub,
    pub(crate) presence: Arc<Presence>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hasher: Hasher,
    pub(crate) clock: Clock,
    /// Registrations and logins, by address.
    pub(crate) auth_rate: Limiter<IpAddr>,
    /// TLS handshakes, by address.
    pub(crate) handshake_rate: Limiter<IpAddr>,
    /// Connections that authenticate, by user.
    pub(crate) connect_rate: Limiter<UserId>,
    /// Messages, by user.
    pub(crate) message_rate: Limiter<UserId>,
    /// Refused requests that are logged.
    pub(crate) refusal_log_rate: Limiter<()>,
    /// Whether a forwarded address that is not believed was warned about.
    pub(crate) warned_of_proxy: AtomicBool,
    /// Frames of any kind, by connection, while messages are limited at all.
    pub(crate) frame_allowance: Option<Allowance>,
    pub(crate) addresses: Arc<Addresses>,
    /// Held while a catch-up has a chunk of history in memory.
    pub(crate) catch_ups: Semaphore,
    /// Becomes true when the server stops.
    pub(crate) stopping: watch::Sender<bool>,
    shards: Vec<Arc<Shard>>,
    next_shard: AtomicUsize,
}

impl App {
    pub(crate) fn new(
        config: Config,
        db: Db,
        hub: Hub,
        metrics: Arc<Metrics>,
        clock: Clock,
        shards: Vec<Arc<Shard>>,
    ) -> Self {
        let minute = Duration::from_mins(1);
        let auth = (config.auth_rate > 0).then(|| Allowance::new(config.auth_rate, minute, config.auth_rate));
        let burst = config.message_rate.saturating_mul(MESSAGE_BURST_SECONDS);
        let frames = config.message_rate.saturating_mul(FRAMES_PER_MESSAGE).max(FRAME_RATE);
        let frame_burst = burst.saturating_mul(FRAMES_PER_MESSAGE).max(FRAME_BURST);
        let message = (config.message_rate > 0).then(|| Allowance::per_second(config.message_rate, burst));
        let connect = (config.user_connections > 0).then(|| Allowance::per_second(CONNECT_RATE, CONNECT_BURST));
        let handshake =
            (config.address_connections > 0).then(|| Allowance::per_second(HANDSHAKE_RATE, HANDSHAKE_BURST));
        Self {
            presence: Arc::new(Presence::new(hub.clone(), config.user_connections as usize)),
            hasher: Hasher::new(),
            auth_rate: Limiter::new(auth),
            handshake_rate: Limiter::new(handshake),
            connect_rate: Limiter::new(connect),
            message_rate: Limiter::new(message),
            refusal_log_rate: Limiter::new(Some(Allowance::per_second(REFUSAL_LOG_RATE, REFUSAL_LOG_BURST))),
            warned_of_proxy: AtomicBool::new(false),
            frame_allowance: message.map(|_| Allowance::per_second(frames, frame_burst)),
            addresses: Arc::new(Addresses::new(config.address_connections as usize)),
            catch_ups: Semaphore::new(CATCH_UPS_AT_ONCE),
            stopping: watch::Sender::new(false),
            next_shard: AtomicUsize::new(0),
            config,
            db,
            hub,
            metrics,
            clock,
            shards,
        }
    }

    /// The shard of a new connection: each in turn.
    pub(crate) fn next_shard(&self) -> &Arc<Shard> {
        &self.shards[self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len()]
    }

    /// Resolves when the server has been told to stop. Cancel safe.
    pub(crate) async fn until_stopping(&self) {
        // Fails when the sender is gone, which this handle holds.
        drop(self.stopping.subscribe().wait_for(|stopping| *stopping).await);
    }

    /// Whether the server has been told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

/// How many connections each address has that have not authenticated. Holds no address that has none.
#[derive(Debug)]
pub(crate) struct Addresses {
    most: usize,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    fn new(most: usize) -> Self {
        Self { most: if most == 0 { usize::MAX } else { most }, connections: Mutex::default() }
    }

    /// Counts a connection of `address` in, unless the address has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AddressGuard> {
        let address = address_key(address);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(AddressGuard { addresses: Arc::clone(self), address })
    }
}

/// One unauthenticated connection's share in its address, until it is dropped.
#[derive(Debug)]
pub(crate) struct AddressGuard {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl AddressGuard {
    /// Whether the address has more than half of the connections it may have, and more than a few browsers open.
    fn is_crowded(&self) -> bool {
        let Addresses { most, connections } = &*self.addresses;
        let connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.get(&self.address).is_some_and(|count| *count > (most / 2).max(KEPT_OPEN))
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut connections = self.addresses.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.address);
            }
        }
    }
}

/// What a connection was let in with.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Its place among all connections.
    pub(crate) place: OwnedSemaphorePermit,
    /// Its place among those of its address, given back when it authenticates. A trusted proxy's connection is nobody's
    /// until it becomes a WebSocket.
    pub(crate) address: Option<AddressGuard>,
}

/// Who is at the other end of a request, and what the connection was let in with until a WebSocket takes it over.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Of the client: behind a trusted proxy, the one that it tells.
    pub(crate) address: IpAddr,
    /// Whether the connection is of a trusted proxy.
    pub(crate) proxied: bool,
    /// Whether it cost a handshake, as another in its place would.
    pub(crate) is_tls: bool,
    pub(crate) admission: Arc<Mutex<Option<Admission>>>,
}

impl Peer {
    /// Whether the connection is to end with its answer, since its address has many: browsers keep theirs open for a
    /// while, and a class behind one address would keep its own latecomers out.
    pub(crate) fn is_crowded(&self) -> bool {
        if self.is_tls {
            return false;
        }
        let admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        admission.as_ref().and_then(|admission| admission.address.as_ref()).is_some_and(AddressGuard::is_crowded)
    }
}

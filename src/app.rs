//! The handles that requests and connections share, and the questions that need several of them: may this user write,
//! is there a place for this peer. Made once; everything in it is bounded, and takes care of its own locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

use crate::auth_rate::AuthRate;
#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::config::Config;
use crate::db::{Db, Write};
use crate::fan_out::{Clock, Hub, Presence, Shard};
use crate::limits::{
    ACTIVITY_BURST, ACTIVITY_RATE, ADDRESS_PLACES_KEPT, BYTE_BURST, BYTE_RATE, CATCH_UPS_AT_ONCE, CONNECT_BURST,
    CONNECT_RATE, CONNECTION_LOG_BURST, CONNECTION_LOG_RATE, DIRECT_ROOMS_AN_HOUR, EXPORTS_AN_HOUR, FRAME_BURST,
    FRAME_RATE, FRAMES_PER_MESSAGE, HANDSHAKE_BURST, HANDSHAKE_RATE, IMAGE_BURST, IMAGES_AN_HOUR, IMAGES_AT_ONCE,
    KNOWN_PLACES_KEPT, MESSAGE_BURST_SECONDS, NETWORK_PLACES, PASSWORD_RATE, REFUSAL_LOG_BURST, REFUSAL_LOG_RATE,
    ROOM_BURST, ROOM_CHANGE_BURST, ROOM_CHANGE_RATE, ROOMS_AN_HOUR, SEARCH_BURST, SEARCH_RATE,
};
use crate::memory;
use crate::metrics::Metrics;
use crate::model::UserId;
use crate::net::{ConnectionsPerIp, KnownAddresses, Peer};
use crate::password::Hasher;
#[cfg(feature = "push")]
use crate::push::Push;
use crate::rate_limit::{Allowance, IpLimiter, Limiter};
use crate::space::{Space, SpaceLimits};
use crate::unfinished::{UnfinishedBudget, Uploads};

/// Why a write is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteHeld {
    /// The user is too fast, and may go on after this time.
    TooFast(Duration),
    /// The disk has no space for more text, or the database is as large as it may be.
    NoSpace,
}

/// The rates at which clients may act: each counts by user, by address or by connection.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Registrations and logins, by name and address.
    pub(crate) auth: AuthRate,
    /// Guesses of one's own password, by user.
    pub(crate) passwords: Limiter<UserId>,
    /// TLS handshakes, by address.
    pub(crate) handshakes: IpLimiter,
    /// Connections that authenticate, by user.
    pub(crate) connects: Limiter<UserId>,
    /// Frames of any kind, by connection; `None` if messages are not limited.
    pub(crate) frames: Option<Allowance>,
    /// Everything that is written: messages, and changes of messages and rooms, by user.
    pub(crate) writes: Limiter<UserId>,
    /// Bytes of text, by user.
    bytes: Limiter<UserId>,
    /// New direct rooms, by user.
    pub(crate) direct_rooms: Limiter<UserId>,
    /// Other new rooms, by user.
    pub(crate) rooms: Limiter<UserId>,
    /// Changes of rooms and of their members, by user.
    pub(crate) room_changes: Limiter<UserId>,
    /// Typing and read marks, by user.
    pub(crate) activity: Limiter<UserId>,
    /// Exports, by user.
    pub(crate) exports: Limiter<UserId>,
    /// Pictures, by user.
    pub(crate) images: Limiter<UserId>,
    /// Searches, by user.
    pub(crate) searches: Limiter<UserId>,
    /// Log lines about refused requests.
    pub(crate) refusal_log: Limiter<()>,
    /// Log lines about users who come and go.
    pub(crate) connection_log: Limiter<()>,
}

impl Rates {
    /// A flag that lifts a limit lifts those that depend on it.
    fn new(config: &Config) -> Self {
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        let if_auth = |allowance| (config.auth_rate > 0).then_some(allowance);
        let if_messages = |allowance| (config.message_rate > 0).then_some(allowance);
        let burst = config.message_rate.saturating_mul(MESSAGE_BURST_SECONDS);
        let frames = config.message_rate.saturating_mul(FRAMES_PER_MESSAGE).max(FRAME_RATE);
        let frame_burst = burst.saturating_mul(FRAMES_PER_MESSAGE).max(FRAME_BURST);
        let connect = (config.user_connections > 0).then(|| Allowance::per_second(CONNECT_RATE, CONNECT_BURST));
        let handshake =
            (config.address_connections > 0).then(|| Allowance::per_second(HANDSHAKE_RATE, HANDSHAKE_BURST));
        let direct = Allowance::new(DIRECT_ROOMS_AN_HOUR, hour, DIRECT_ROOMS_AN_HOUR);
        Self {
            auth: AuthRate::new(config.auth_rate),
            passwords: Limiter::new(if_auth(Allowance::new(PASSWORD_RATE, minute, PASSWORD_RATE))),
            handshakes: IpLimiter::new(handshake),
            connects: Limiter::new(connect),
            frames: if_messages(Allowance::per_second(frames, frame_burst)),
            writes: Limiter::new(if_messages(Allowance::per_second(config.message_rate, burst))),
            bytes: Limiter::new(if_messages(Allowance::per_second(BYTE_RATE, BYTE_BURST))),
            direct_rooms: Limiter::new(if_messages(direct)),
            rooms: Limiter::new(if_messages(Allowance::new(ROOMS_AN_HOUR, hour, ROOM_BURST))),
            room_changes: Limiter::new(if_messages(Allowance::per_second(ROOM_CHANGE_RATE, ROOM_CHANGE_BURST))),
            activity: Limiter::new(if_messages(Allowance::per_second(ACTIVITY_RATE, ACTIVITY_BURST))),
            exports: Limiter::new(if_messages(Allowance::new(EXPORTS_AN_HOUR, hour, EXPORTS_AN_HOUR))),
            images: Limiter::new(if_messages(Allowance::new(IMAGES_AN_HOUR, hour, IMAGE_BURST))),
            searches: Limiter::new(if_messages(Allowance::per_second(SEARCH_RATE, SEARCH_BURST))),
            refusal_log: Limiter::new(Some(Allowance::per_second(REFUSAL_LOG_RATE, REFUSAL_LOG_BURST))),
            connection_log: Limiter::new(Some(Allowance::per_second(CONNECTION_LOG_RATE, CONNECTION_LOG_BURST))),
        }
    }
}

/// The handles that a request may use.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) hub: Hub,
    pub(crate) presence: Arc<Presence>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hasher: Hasher,
    pub(crate) clock: Clock,
    pub(crate) rates: Rates,
    /// Bytes of messages that are not whole yet.
    pub(crate) unfinished: Arc<UnfinishedBudget>,
    /// Whether the disk has room for what people write.
    pub(crate) space: Space,
    /// Pictures that are received or wait to be stored.
    pub(crate) images: Semaphore,
    /// Pictures that are received, by user.
    pub(crate) uploads: Uploads,
    /// Whether a warning about an ignored `X-Forwarded-For` was logged.
    pub(crate) warned_of_proxy: AtomicBool,
    /// Connections that have not authenticated, by address.
    pub(crate) connections_per_ip: Arc<ConnectionsPerIp>,
    /// Connections that have, by address, so that no address takes all the places.
    pub(crate) members_per_ip: Arc<ConnectionsPerIp>,
    /// The addresses from which users connected last.
    pub(crate) known_addresses: KnownAddresses,
    /// Places that are kept for those addresses.
    places_kept: usize,
    /// Held while a catch-up has a chunk of history in memory.
    pub(crate) catch_ups: Semaphore,
    /// `None`: nothing is pushed.
    #[cfg(feature = "push")]
    pub(crate) push: Option<Arc<Push>>,
    /// Becomes true when the server stops.
    pub(crate) stopping: watch::Sender<bool>,
    /// The other nodes; `None` outside a cluster.
    #[cfg(feature = "cluster")]
    pub(crate) cluster: Option<Cluster>,
    shards: Vec<Arc<Shard>>,
    next_shard: AtomicUsize,
}

impl App {
    /// For a server with `places` for connections.
    pub(crate) fn new(
        config: Config,
        db: Db,
        hub: Hub,
        metrics: Arc<Metrics>,
        clock: Clock,
        shards: Vec<Arc<Shard>>,
        places: u32,
    ) -> Self {
        let members_per_ip =
            if config.address_connections > 0 { (places - places / ADDRESS_PLACES_KEPT).max(1) as usize } else { 0 };
        Self {
            rates: Rates::new(&config),
            unfinished: Arc::default(),
            presence: Arc::new(Presence::new(hub.clone(), config.user_connections as usize)),
            hasher: Hasher::new(memory::limit()),
            space: Space::new(&config.db, SpaceLimits { min_free: config.min_free, max_database: config.max_db_size }),
            images: Semaphore::new(IMAGES_AT_ONCE),
            uploads: Uploads::default(),
            warned_of_proxy: AtomicBool::new(false),
            connections_per_ip: Arc::new(ConnectionsPerIp::new(
                config.address_connections as usize,
                (places / NETWORK_PLACES) as usize,
            )),
            members_per_ip: Arc::new(ConnectionsPerIp::new(members_per_ip, members_per_ip)),
            known_addresses: KnownAddresses::default(),
            places_kept: if config.address_connections > 0 { (places / KNOWN_PLACES_KEPT) as usize } else { 0 },
            catch_ups: Semaphore::new(CATCH_UPS_AT_ONCE),
            #[cfg(feature = "push")]
            push: None,
            stopping: watch::Sender::new(false),
            #[cfg(feature = "cluster")]
            cluster: None,
            next_shard: AtomicUsize::new(0),
            config,
            db,
            hub,
            metrics,
            clock,
            shards,
        }
    }

    /// Whether there is a place for a peer: the last ones are kept for addresses from which members connected before.
    pub(crate) fn has_place_for(&self, peer: &Peer) -> bool {
        !peer.has_one_of_the_last_places(self.places_kept) || self.known_addresses.contains(peer.address)
    }

    /// Whether browsers that are closed are notified.
    #[cfg_attr(not(feature = "push"), expect(clippy::unused_self, reason = "without the feature it is a constant"))]
    pub(crate) fn pushes(&self) -> bool {
        #[cfg(feature = "push")]
        return self.push.is_some();
        #[cfg(not(feature = "push"))]
        false
    }

    /// Adds push notifications, if the server pushes.
    #[cfg(feature = "push")]
    pub(crate) fn with_push(self, push: Option<Push>) -> Self {
        Self { push: push.map(Arc::new), ..self }
    }

    /// The shard of a new connection, in rotation.
    pub(crate) fn next_shard(&self) -> &Arc<Shard> {
        &self.shards[self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len()]
    }

    /// Lets a user write something, or says why not.
    pub(crate) fn may_write(&self, user: UserId, write: &Write, now: Instant) -> Result<(), WriteHeld> {
        let bytes = write.text_bytes();
        if bytes > 0 && self.space.is_low(self.db.free_bytes()) {
            return Err(WriteHeld::NoSpace);
        }
        self.rates.writes.take(user, now).map_err(WriteHeld::TooFast)?;
        self.rates.bytes.take_many(user, tokens(bytes), now).map_err(|wait| {
            self.rates.writes.put_back(&user, 1, now);
            WriteHeld::TooFast(wait)
        })
    }

    /// Refunds the rate tokens of repeats, given the bytes of text of each.
    pub(crate) fn forgive_repeats(&self, user: UserId, repeated: impl Iterator<Item = usize>, now: Instant) {
        let (repeats, bytes) =
            repeated.fold((0, 0_usize), |(repeats, sum), bytes| (repeats + 1, sum.saturating_add(bytes)));
        if repeats > 0 {
            self.rates.writes.put_back(&user, repeats, now);
            self.rates.bytes.put_back(&user, tokens(bytes), now);
        }
    }

    /// Resolves when the server has been told to stop. Cancel safe.
    pub(crate) async fn until_stopping(&self) {
        // Fails only when the sender is gone, which this handle holds.
        drop(self.stopping.subscribe().wait_for(|stopping| *stopping).await);
    }

    /// Makes this server a node of a cluster, if it is one.
    #[cfg(feature = "cluster")]
    pub(crate) fn in_cluster(self, mut cluster: Option<Cluster>) -> Self {
        if let Some(cluster) = &mut cluster {
            let (registration, Config { keep_messages, keep_days, .. }) = (self.config.registration(), &self.config);
            let pushes = if self.pushes() { "pushes" } else { "does not push" };
            let rules =
                format!("registration {registration:?}, keep {keep_messages:?} messages, {keep_days:?} days, {pushes}");
            #[cfg(feature = "push")]
            if let Some(push) = &self.push {
                cluster.take_part_in_pushing(self.db.clone(), Box::new(push.eyes()));
            }
            cluster.meet_others(Arc::clone(&self.presence), rules);
        }
        Self { cluster, ..self }
    }

    /// Whether this node runs the sweep; exactly one node of a cluster does.
    #[cfg_attr(not(feature = "cluster"), expect(clippy::unused_async, reason = "it is the only one"))]
    pub(crate) async fn is_sweeper(&self) -> bool {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.cluster {
            return cluster.is_sweeper(&self.db).await;
        }
        true
    }

    /// Resolves, with the reason, when this node must leave its cluster.
    pub(crate) async fn out_of_cluster(&self) -> String {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.cluster {
            return cluster.ended().await;
        }
        std::future::pending().await
    }

    /// Whether the server has been told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

/// As many tokens as bytes.
fn tokens(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

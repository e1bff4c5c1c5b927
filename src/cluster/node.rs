//! What the tasks of one node share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::entry::VERSION;
use super::nats::{Connection, Link};
use crate::db::{Followed, Position, Progress, Replies};
use crate::model::UnixMillis;
use crate::secret::random_name;

/// Entries that are published and not applied here yet.
const IN_FLIGHT: usize = 64;

/// One process that follows the log and publishes to it.
#[derive(Debug)]
pub(crate) struct Node {
    /// Names this process among all that ever publish. It begins with the time, so that the first of the nodes is the
    /// one that has been there longest, as far as clocks agree: it does not change when another comes.
    pub(crate) id: Box<str>,
    pub(crate) link: Link,
    pub(crate) followed: Followed,
    pub(crate) progress: Arc<Progress>,
    /// Who waits for the entries that this process published, by their numbers.
    pending: Mutex<BTreeMap<u64, Pending>>,
    in_flight: Arc<Semaphore>,
    /// The last of our own entries that came back.
    pub(crate) returned: watch::Sender<u64>,
    /// The last entry that the log is known to have.
    last_seq: AtomicU64,
    /// The newest version of entries that every node reads, as far as is known: the log has some of it, which end a node
    /// that does not, or all nodes have said so. It only rises.
    spoken: AtomicU32,
    /// Whether the log took the last entry that was published.
    pub(crate) takes_entries: AtomicBool,
    /// By how many milliseconds our clock is ahead of the log's.
    clock_ahead: AtomicI64,
    /// Why nothing can be written, if so.
    pub(crate) failure: watch::Sender<Option<Failure>>,
    /// The other nodes that were heard of lately, by their ids.
    peers: Mutex<BTreeMap<Box<str>, Peer>>,
    #[cfg(feature = "push")]
    pub(super) pushing: super::duty::Pushing,
    /// Whether the process stops.
    pub(crate) stopping: watch::Sender<bool>,
}

/// Another node, as far as it is known.
#[derive(Debug)]
pub(crate) struct Peer {
    /// When it was last heard of.
    pub(crate) heard_at: Instant,
    /// The last entry that it has applied.
    pub(crate) applied: u64,
    /// The newest entries that it reads, as far as it has said.
    pub(crate) version: u32,
    /// Whether its database is as ours where both were last compared.
    pub(crate) agrees: bool,
    /// Whether it applies entries, as far as it has said: one that cannot does nothing for all, and must not be waited
    /// for.
    pub(crate) is_well: bool,
    /// Whether it pushes when it is its duty.
    #[cfg(feature = "push")]
    pub(crate) pushes: bool,
}

impl Peer {
    /// One of which nothing else is known yet.
    pub(crate) fn heard_at(now: Instant) -> Self {
        Self {
            heard_at: now,
            applied: 0,
            version: 1,
            agrees: true,
            is_well: true,
            #[cfg(feature = "push")]
            pushes: false,
        }
    }
}

#[derive(Debug)]
struct Pending {
    replies: Replies,
    _place: OwnedSemaphorePermit,
}

/// Why a node applies no more entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The log is not the one that this node followed, as far as it can be seen: all nodes see the same, and go on to
    /// show what there is.
    Log(String),
    /// The log has lost what some node has applied, and could be read on without that: until it is begun anew, nothing of
    /// it is applied, and nothing is written.
    Lost(String),
    /// It is this node that is not as the others: its clients are better off elsewhere.
    Node(String),
}

impl Failure {
    pub(crate) fn reason(&self) -> &str {
        let (Self::Log(reason) | Self::Lost(reason) | Self::Node(reason)) = self;
        reason
    }
}

impl Node {
    pub(crate) fn new(link: Link, followed: Followed, progress: Arc<Progress>) -> Self {
        Self {
            id: format!("{:012x}{}", UnixMillis::now().0, random_name()).into(),
            link,
            last_seq: AtomicU64::new(followed.position.applied),
            spoken: AtomicU32::new(1),
            takes_entries: AtomicBool::new(true),
            followed,
            progress,
            pending: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            returned: watch::Sender::new(0),
            clock_ahead: AtomicI64::new(0),
            failure: watch::Sender::new(None),
            peers: Mutex::default(),
            #[cfg(feature = "push")]
            pushing: super::duty::Pushing::default(),
            stopping: watch::Sender::new(false),
        }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more entry, when there is one. Cancel safe.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.in_flight).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Notes who waits for an entry that is about to be published.
    pub(crate) fn expect(&self, number: u64, replies: Replies, place: OwnedSemaphorePermit) {
        self.pending().insert(number, Pending { replies, _place: place });
    }

    /// Takes those who wait for an entry of our own.
    pub(crate) fn take_replies(&self, number: u64) -> Replies {
        let pending = self.pending().remove(&number);
        self.returned.send_if_modified(|last| {
            let is_newer = number > *last;
            *last = number.max(*last);
            is_newer
        });
        pending.map(|pending| pending.replies).unwrap_or_default()
    }

    /// Tells those who wait for an entry that it will not be answered: they are dropped, which says so.
    pub(crate) fn give_up(&self, number: u64) {
        self.pending().remove(&number);
    }

    /// Whether nobody waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending().is_empty()
    }

    /// Takes note that the log has an entry.
    pub(crate) fn note_last(&self, seq: u64) {
        self.last_seq.fetch_max(seq, Ordering::Relaxed);
    }

    /// The last entry that another node has applied, well or not: the one that has most may have stopped because of it.
    pub(crate) fn applied_elsewhere(&self) -> u64 {
        self.peers().values().map(|peer| peer.applied).max().unwrap_or(0)
    }

    /// The last entry that the log is known to have, which a node that is gone does not tell for ever.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq.load(Ordering::Relaxed).max(self.applied_elsewhere())
    }

    /// How many entries the log is known to have that are not applied here.
    pub(crate) fn behind(&self) -> u64 {
        self.last_seq().saturating_sub(self.progress.position().applied)
    }

    /// The version in which entries are written.
    pub(crate) fn version_spoken(&self) -> u32 {
        self.spoken.load(Ordering::Relaxed)
    }

    /// Takes note that every node reads entries of a version.
    pub(crate) fn speak(&self, version: u32) {
        self.spoken.fetch_max(version.min(VERSION), Ordering::Relaxed);
    }

    /// Takes note of what the other nodes read, once all of them must have been heard.
    pub(crate) fn speak_as_all(&self) {
        let version = self.peers().values().map(|peer| peer.version).min();
        self.speak(version.unwrap_or(VERSION));
    }

    /// Takes note of the time at which the log took an entry of ours that has just come back.
    pub(crate) fn note_clock(&self, at: UnixMillis) {
        self.clock_ahead.store(UnixMillis::now().0.saturating_sub(at.0), Ordering::Relaxed);
    }

    /// By how many milliseconds our clock is ahead of the log's.
    pub(crate) fn clock_ahead(&self) -> i64 {
        self.clock_ahead.load(Ordering::Relaxed)
    }

    /// The other nodes that were heard of lately.
    pub(crate) fn peers(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares what another node says of its database with ours.
    pub(crate) fn compare(&self, id: &str, claim: Position) {
        if let Some(peer) = self.peers().get_mut(id)
            && let Some(agrees) = self.progress.agrees(claim)
        {
            peer.agrees = agrees;
        }
    }

    /// Whether this is the first of the nodes that live and are well: the one that does what must be done once.
    pub(crate) fn is_first(&self) -> bool {
        !self.peers().iter().any(|(id, peer)| peer.is_well && *id < self.id)
    }

    /// Takes note of why no entries are applied; said once. What is wrong with this node itself stays: it ends.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.send_if_modified(|known| {
            let is_new = match &*known {
                Some(Failure::Node(_)) => false,
                Some(Failure::Lost(_)) => matches!(failure, Failure::Node(_)),
                other => other.as_ref() != Some(&failure),
            };
            if is_new {
                tracing::error!(
                    reason = failure.reason(),
                    "this node applies no more entries of the log, and writes nothing"
                );
                *known = Some(failure);
            }
            is_new
        });
    }

    /// Takes note that the log can be read. That says nothing of what is wrong with this node itself.
    pub(crate) fn recover(&self) {
        let log_failed = |failure: &mut Failure| matches!(failure, Failure::Log(_));
        if self.failure.send_if_modified(|known| known.take_if(log_failed).is_some()) {
            tracing::info!("this node applies the entries of the log again");
        }
    }

    /// Why nothing of the log can be trusted any more, if so.
    pub(crate) fn lost(&self) -> Option<Failure> {
        self.failure.borrow().clone().filter(|failure| matches!(failure, Failure::Lost(_)))
    }

    /// Whether entries are applied and published, as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        self.is_sound() && self.link.current().is_some() && self.takes_entries.load(Ordering::Relaxed)
    }

    /// Whether entries can be published.
    pub(crate) fn is_sound(&self) -> bool {
        self.failure.borrow().is_none()
    }
}

/// Whether the server that this node is connected to reaches the log: one that is cut off from the others accepts
/// connections, and answers nothing.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// The first of the failures on this connection since the log last answered.
    lost_since: Option<Instant>,
    /// How many servers were left since then.
    left: u32,
}

impl Reach {
    /// How long a server may fail to reach the log: a little longer than the servers take to elect a leader.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(12);

    /// Takes note that the log has answered.
    pub(crate) fn seen(&mut self) {
        *self = Self::default();
    }

    /// Takes note that it has not, and leaves the server for the next when that has lasted too long: each time for longer,
    /// since the servers may all be without it.
    pub(crate) fn leave_if_lost(&mut self, connection: &Connection) {
        if connection.has_ended() {
            self.lost_since = None;
        } else if self.lost_since.get_or_insert_with(Instant::now).elapsed() >= Self::PATIENCE * (1 << self.left) {
            tracing::warn!(server = %connection.server(), "this NATS server does not reach the log, trying the next");
            connection.leave();
            *self = Self { lost_since: None, left: 4.min(self.left + 1) };
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::db::{Db, Offline, Options, Reads};
    use crate::model::Epoch;

    /// A node without a connection, and its database's thread ends.
    pub(crate) fn lone() -> Node {
        lone_with_database().0
    }

    /// The same with what it reads its database by.
    pub(crate) fn lone_with_database() -> (Node, Db, Reads) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chinwag.db");
        Offline::open(&path).unwrap().follow("log", &Epoch::random()).unwrap();
        let (db, _, replica) = Db::open_replica(&path, Options::default(), Box::new(|_| {})).unwrap();
        let servers = crate::cluster::Options { log: vec!["127.0.0.1".parse().unwrap()], ..Default::default() };
        let (link, _) = Link::keep(servers.servers().unwrap());
        (Node::new(link, replica.followed, replica.progress), db, replica.reads)
    }

    #[test]
    fn entries_are_written_as_the_oldest_of_the_nodes_reads_them() {
        let node = lone();
        assert_eq!(node.version_spoken(), 1, "nobody has said anything yet");
        let peer = |version| Peer { version, ..Peer::heard_at(Instant::now()) };
        node.peers().insert("a".into(), peer(VERSION + 1));
        node.peers().insert("b".into(), peer(VERSION - 1));
        node.speak_as_all();
        assert_eq!(node.version_spoken(), VERSION - 1);
        node.peers().remove("b");
        node.speak_as_all();
        assert_eq!(node.version_spoken(), VERSION);
        node.peers().insert("b".into(), peer(VERSION - 1));
        node.speak_as_all();
        assert_eq!(node.version_spoken(), VERSION, "it will end at what is in the log by now");
    }

    #[test]
    fn a_log_that_lost_entries_is_not_mended_by_reading_on() {
        let node = lone();
        node.fail(Failure::Lost("why".into()));
        node.fail(Failure::Log("what else".into()));
        node.recover();
        assert_eq!(node.lost(), Some(Failure::Lost("why".into())));
        assert!(!node.is_sound());
    }

    #[tokio::test]
    async fn who_waits_for_an_entry_waits_until_it_returns_or_is_given_up() {
        let node = lone();
        let mut returned = node.returned.subscribe();
        assert!(node.is_idle());
        for number in [2, 3] {
            node.expect(number, Replies::default(), node.place().await);
        }
        node.give_up(3);
        assert!(!node.is_idle());
        drop(node.take_replies(2));
        assert!(node.is_idle());
        assert_eq!(*returned.borrow_and_update(), 2);
        for number in [1, 2] {
            drop(node.take_replies(number));
            assert!(!returned.has_changed().unwrap(), "a later one has returned");
        }
    }

    #[test]
    fn what_was_lost_counts_until_the_log_answers() {
        let mut reach = Reach { lost_since: Some(Instant::now()), left: 3 };
        reach.seen();
        assert!(reach.lost_since.is_none() && reach.left == 0);
    }

    #[test]
    fn what_a_node_says_of_the_log_counts_while_it_is_there() {
        let node = lone();
        let stopped = Peer { applied: 9, is_well: false, ..Peer::heard_at(Instant::now()) };
        node.peers().insert("a".into(), stopped);
        assert_eq!(node.behind(), 9);
        node.peers().clear();
        assert_eq!(node.behind(), 0);
    }

    #[test]
    fn an_entry_that_is_read_mends_the_log_and_not_the_node() {
        let (node, reason) = (lone(), || String::from("why"));
        node.fail(Failure::Log(reason()));
        node.recover();
        assert!(node.is_sound());
        node.fail(Failure::Node(reason()));
        node.recover();
        node.fail(Failure::Log(reason()));
        assert_eq!(*node.failure.borrow(), Some(Failure::Node(reason())));
    }
}

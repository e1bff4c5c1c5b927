//! The follower: reads the log and hands its entries to the writer thread, each once and none left out.
//!
//! What comes from a consumer may have gaps: servers die, and a damaged replica skips what it cannot read. So every
//! sequence is demanded, and what is missing is read again with a new consumer, perhaps from another server. A gap that
//! stays is the end of this node's place in the log.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::entry::{self, Unreadable};
use super::jetstream::{self, ApiError, Consumer, Delivered};
use super::nats::Connection;
use super::node::{Failure, Node, Reach};
use crate::db::{Entry, Followed};
use crate::model::UnixMillis;

/// Attempts to read a missing entry before it counts as lost.
const TRIES: u32 = 10;
/// Time between two of them.
const PAUSE: Duration = Duration::from_secs(1);
/// Time before a consumer is made again that has ended without a word.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// Time for a consumer to be made before entries are asked for one by one.
const GRACE: Duration = Duration::from_millis(200);
/// How long a consumer may say that there is nothing more when other nodes have applied more.
const BEHIND_OTHERS: Duration = Duration::from_secs(2);
/// Time before an entry is asked for again that is not there yet.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// Why the log cannot be read on at the moment.
enum Trouble {
    /// It is asked again, as often as it takes.
    Passing,
    /// It may be a matter of one server, or of a moment; [`TRIES`] times it is not.
    Doubtful(Failure),
    /// It will not pass.
    Final(Failure),
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        if error.is_no_stream() {
            Self::Doubtful(Failure::Log("the log is gone: the NATS servers have no stream of its name".into()))
        } else {
            tracing::debug!(%error, "the log cannot be read");
            Self::Passing
        }
    }
}

/// Reads for good, or until the node stops or its writer thread has ended. `started` is told the last entry that there
/// was when the log could first be read.
pub(super) async fn follow(node: Arc<Node>, entries: mpsc::Sender<Entry>, started: mpsc::Sender<u64>) {
    let writer = entries.clone();
    let mut follower = Follower::new(Arc::clone(&node), entries, started);
    let mut stopping = node.stopping.subscribe();
    tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => {}
        // As long as there are senders it ends only by a bug, which nobody else would notice before the next entry.
        () = writer.closed() => node.fail(Failure::Node("the thread that applies the log has ended".into())),
        never = follower.follow() => match never {},
    }
}

struct Follower {
    node: Arc<Node>,
    entries: mpsc::Sender<Entry>,
    /// The last entry that the writer thread was handed.
    sent: u64,
    started: Option<mpsc::Sender<u64>>,
    /// How often in a row the log was found in doubt.
    tries: u32,
    reach: Reach,
    /// Since when others have applied what this consumer does not have.
    behind_others: Option<Instant>,
}

impl Follower {
    fn new(node: Arc<Node>, entries: mpsc::Sender<Entry>, started: mpsc::Sender<u64>) -> Self {
        let sent = node.followed.position.applied;
        let (started, reach) = (Some(started), Reach::default());
        Self { node, entries, sent, started, tries: 0, reach, behind_others: None }
    }

    async fn follow(&mut self) -> Infallible {
        loop {
            let connection = self.node.link.connected().await;
            let trouble = tokio::select! {
                trouble = self.read(&connection) => trouble,
                () = connection.ended() => Trouble::Passing,
            };
            match trouble {
                Trouble::Passing => {
                    self.reach.leave_if_lost(&connection);
                    tokio::time::sleep(SHORT_PAUSE).await;
                }
                Trouble::Doubtful(failure) => {
                    self.tries += 1;
                    if self.tries >= TRIES {
                        self.node.fail(failure);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Trouble::Final(failure) => {
                    self.node.fail(failure);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads until something is wrong.
    async fn read(&mut self, connection: &Connection) -> Trouble {
        match self.try_read(connection).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }

    async fn try_read(&mut self, connection: &Connection) -> Result<Infallible, Trouble> {
        self.behind_others = None;
        self.look_at_the_log(connection).await?;
        let mut consumer = self.consume(connection).await?;
        loop {
            match consumer.next().await.ok_or(Trouble::Passing)? {
                Delivered::Entry { seq, .. } if seq <= self.sent => {}
                Delivered::Entry { seq, at, payload } if seq == self.sent + 1 => {
                    self.hand_on(seq, at, &payload).await?;
                }
                Delivered::Heartbeat { last } if last <= self.sent => {
                    self.is_sound();
                    if self.lags_behind_others(Instant::now()) {
                        tracing::info!("other nodes have applied more than this log's server has: it is read again");
                        return Err(Trouble::Passing);
                    }
                }
                Delivered::Entry { seq: last, .. } | Delivered::Heartbeat { last } => {
                    tracing::info!(entry = self.sent + 1, "the log's server leaves out an entry: it is read again");
                    return Err(Trouble::Doubtful(Failure::Node(format!(
                        "entry {} of the log cannot be read from any server, though {last} can",
                        self.sent + 1
                    ))));
                }
            }
        }
    }

    /// Takes note that the log can be read up to here.
    fn is_sound(&mut self) {
        self.tries = 0;
        self.node.recover();
    }

    /// Whether a consumer has had nothing for too long that others have applied: its server may be cut off.
    fn lags_behind_others(&mut self, now: Instant) -> bool {
        if self.node.last_seq() <= self.sent {
            self.behind_others = None;
            return false;
        }
        let lags = now.duration_since(*self.behind_others.get_or_insert(now)) >= BEHIND_OTHERS;
        self.behind_others.take_if(|_| lags);
        lags
    }

    /// Has a consumer made. That takes seconds after a server died which led the others, or where the consumer was to be:
    /// meanwhile entries are asked for one by one, and nobody waits for them.
    async fn consume(&mut self, connection: &Connection) -> Result<Consumer, Trouble> {
        let first = self.sent + 1;
        let mut made = pin!(async {
            loop {
                match Consumer::from(connection, first).await {
                    Err(error) if !error.is_no_stream() => {
                        tracing::debug!(%error, "a consumer cannot be made");
                        tokio::time::sleep(SHORT_PAUSE).await;
                    }
                    made => return made,
                }
            }
        });
        let mut pause = GRACE;
        loop {
            let next = self.sent + 1;
            let found = async {
                loop {
                    tokio::time::sleep(std::mem::replace(&mut pause, ASK_PAUSE)).await;
                    if let Ok(Some(found)) = jetstream::entry_at(connection, next).await {
                        return found;
                    }
                }
            };
            tokio::select! {
                made = &mut made => return Ok(made?),
                () = tokio::time::sleep(Reach::PATIENCE) => return Err(Trouble::Passing),
                (at, payload) = found => {
                    self.hand_on(next, at, &payload).await?;
                    pause = Duration::ZERO;
                }
            }
        }
    }

    /// Hands the next entry to the writer thread.
    async fn hand_on(&mut self, seq: u64, at: i64, payload: &[u8]) -> Result<(), Trouble> {
        let entry = self.understand(seq, UnixMillis(at), payload)?;
        self.entries.send(entry).await.map_err(|_| Trouble::Passing)?;
        self.sent = seq;
        self.behind_others = None;
        self.is_sound();
        Ok(())
    }

    /// Sees to it that the stream is the log that this node followed, and has what comes next.
    async fn look_at_the_log(&mut self, connection: &Connection) -> Result<(), Trouble> {
        let info = jetstream::stream_info(connection).await?;
        self.reach.seen();
        let Followed { log, epoch, .. } = &self.node.followed;
        match info.identity() {
            Some(identity) if identity.log == *log && identity.epoch == epoch.as_str() => {}
            Some(identity) if identity.log == *log => {
                return Err(Trouble::Final(Failure::Log(format!(
                    "the log continues the history {}, and this database is of {}",
                    identity.epoch,
                    epoch.as_str()
                ))));
            }
            other => {
                let found = other.map_or_else(|| "none of chinwag".into(), |identity| identity.log);
                return Err(Trouble::Final(Failure::Log(format!(
                    "the log was replaced: it is {found}, and was {log}"
                ))));
            }
        }
        if let Some(fault) = info.fault() {
            return Err(Trouble::Doubtful(Failure::Log(format!("the stream is not what a log must be: {fault}"))));
        }
        let (first, last, next) = (info.state.first_seq, info.state.last_seq, self.sent + 1);
        if last < self.sent {
            return Err(Trouble::Doubtful(Failure::Lost(format!(
                "the log has lost entries: it ends with {last}, and {} was applied here",
                self.sent
            ))));
        }
        let elsewhere = self.node.applied_elsewhere();
        if last < elsewhere {
            return Err(Trouble::Doubtful(Failure::Lost(format!(
                "the log has lost entries: it ends with {last}, and another node has applied {elsewhere}"
            ))));
        }
        if let Some(lost) = self.node.lost() {
            return Err(Trouble::Final(lost));
        }
        if first > next && last > self.sent {
            return Err(Trouble::Final(Failure::Node(format!(
                "this node is too far behind: the log begins with entry {first}, and {next} is next here; start from a \
                 backup of another node"
            ))));
        }
        self.node.note_last(last);
        if self.started.is_some()
            && let Some((_, newest)) = jetstream::entry_at(connection, last).await.ok().flatten()
        {
            // Whoever does not read such entries has ended.
            self.node.speak(entry::version_of(&newest).unwrap_or(1));
        }
        if let Some(started) = self.started.take() {
            // Fails if the start was given up.
            started.try_send(last).ok();
        }
        Ok(())
    }

    fn understand(&self, seq: u64, at: UnixMillis, payload: &[u8]) -> Result<Entry, Trouble> {
        let body = match entry::decode(payload) {
            Ok(body) => Some(body),
            Err(newer @ Unreadable::Newer(_)) => return Err(Trouble::Final(Failure::Node(newer.to_string()))),
            Err(error @ Unreadable::Malformed) => {
                tracing::error!(seq, "{error}");
                // What waits for it is told that it failed, and its place is free.
                if let Some(number) = entry::number_of(payload, &self.node.id) {
                    drop(self.node.take_replies(number));
                }
                None
            }
        };
        self.node.note_last(seq);
        if let Some(body) = &body {
            self.node.speak(body.version);
            self.node.compare(&body.by, body.claim);
        }
        let own = body.as_ref().filter(|body| body.by == self.node.id);
        let replies = own.map(|body| {
            self.node.note_clock(at);
            self.node.take_replies(body.number)
        });
        Ok(Entry { seq, at, digest: Sha256::digest(payload).into(), body, replies: replies.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> Follower {
        let node = Arc::new(crate::cluster::node::tests::lone());
        Follower::new(node, mpsc::channel(1).0, mpsc::channel(1).0)
    }

    #[tokio::test]
    async fn doubts_that_were_settled_do_not_add_up() {
        let mut follower = follower();
        follower.tries = TRIES - 1;
        follower.is_sound();
        assert_eq!(follower.tries, 0);
    }

    #[tokio::test]
    async fn a_server_that_has_less_than_other_nodes_is_not_believed_for_long() {
        let (mut follower, now) = (follower(), Instant::now());
        follower.node.note_last(follower.sent);
        assert!(!follower.lags_behind_others(now));
        follower.node.note_last(follower.sent + 1);
        assert!(!follower.lags_behind_others(now));
        assert!(!follower.lags_behind_others(now + BEHIND_OTHERS / 2));
        assert!(follower.lags_behind_others(now + BEHIND_OTHERS));
        assert!(!follower.lags_behind_others(now + BEHIND_OTHERS), "the next consumer has as long");
        follower.sent += 1;
        assert!(!follower.lags_behind_others(now + 2 * BEHIND_OTHERS));
    }

    #[tokio::test]
    async fn the_end_of_the_writer_thread_is_noticed_before_the_next_entry() {
        let node = Arc::new(crate::cluster::node::tests::lone());
        let (entries, _) = mpsc::channel(1);
        let (started, _) = mpsc::channel(1);
        follow(Arc::clone(&node), entries, started).await;
        assert!(matches!(*node.failure.borrow(), Some(Failure::Node(_))));
    }
}

//! The writer thread of a database that is one of several: it applies only the entries of a [log](crate::cluster).
//!
//! What an entry does depends on the entry and on the database, which is all that the nodes have in common: the moment
//! of its changes is the entry's. How far the log is applied is written in the same transaction, so that an entry is
//! applied once, whatever happens to the process. A transaction that fails is tried again with the same entries until
//! it is committed: skipping one would leave this database different from the others for good.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};

use super::apply::Transaction;
use super::change::{Change, Done, Moment, Reply};
use super::data::millis;
use super::nonce_days::NonceDays;
use super::replica::{Position, get, join, set};
use super::writer::{Command, Writer};
use crate::limits::{MESSAGES_PER_COMMIT, NONCE_DAY};
use crate::model::{MessageId, UnixMillis};

/// Time between two tries at a transaction that fails.
const RETRY: Duration = Duration::from_secs(1);
/// Positions that are remembered, to compare with those that other nodes report: a few seconds' worth under load.
const REMEMBERED: usize = 4_096;
/// Processes whose last entry is remembered, so that none of their entries counts twice. It is part of what an entry
/// does, and the same for all nodes: more would need a new version of entries.
pub(super) const PUBLISHERS: usize = 256;

/// An entry of the log.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its place in the log.
    pub(crate) seq: u64,
    /// When the log took it.
    pub(crate) at: UnixMillis,
    /// SHA-256 of its bytes.
    pub(crate) digest: [u8; 32],
    /// Its content; `None` if it is malformed, for every node alike.
    pub(crate) body: Option<Body>,
    /// The requests here that wait for its changes.
    pub(crate) replies: Replies,
}

/// Changes, as an entry carries them.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Changes(Vec<Change>);

/// The requests that wait for an entry's changes, one for each; empty for another node's entry.
#[derive(Debug, Default)]
pub(crate) struct Replies(Vec<Reply>);

/// A change requested through a handle, to become part of an entry.
#[derive(Debug)]
pub(crate) struct Proposal {
    change: Change,
    reply: Reply,
}

impl Proposal {
    /// Whether nobody waits for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_abandoned()
    }

    /// The first version of entries that has the change.
    pub(crate) fn version(&self) -> u32 {
        self.change.version()
    }

    /// The change as it is written into an entry.
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&self.change).expect("a change is numbers and text")
    }

    /// The replies of these proposals.
    pub(crate) fn replies(proposals: impl Iterator<Item = Self>) -> Replies {
        Replies(proposals.map(|proposal| proposal.reply).collect())
    }
}

/// The changes requested through handles.
#[derive(Debug)]
pub(crate) struct Proposals(pub(super) mpsc::Receiver<Command>);

impl Proposals {
    /// Waits for proposals and takes those that wait, at most `most`; false once there will be no more. Cancel safe.
    pub(crate) async fn take(&mut self, most: usize, taken: &mut Vec<Proposal>) -> bool {
        let mut commands = Vec::new();
        self.0.recv_many(&mut commands, most).await;
        let is_last = commands.is_empty();
        for command in commands {
            match command {
                Command::Apply { change, reply } => taken.push(Proposal { change, reply }),
                Command::Stop => {
                    self.0.close();
                    return false;
                }
            }
        }
        !is_last
    }
}

/// The content of an entry.
#[derive(Debug)]
pub(crate) struct Body {
    /// The version of the entry, which every node that applies it reads. By it, what applying does may change.
    pub(crate) version: u32,
    /// The process that published it, and how many it had published by then.
    pub(crate) by: Box<str>,
    pub(crate) number: u64,
    /// How far the publisher had applied the log.
    pub(crate) claim: Position,
    /// Milliseconds that a session lives without use.
    pub(crate) session_lifetime: i64,
    /// What the publisher's clock said.
    pub(crate) published_at: Option<UnixMillis>,
    /// A day whose nonces are forgotten: it has been over for long enough by a clock that cannot be set.
    pub(crate) forget_day: Option<i64>,
    pub(crate) changes: Changes,
}

/// How far the log is applied, for the tasks that watch it.
#[derive(Debug)]
pub(crate) struct Progress {
    position: watch::Sender<Position>,
    /// The last of them, the oldest first.
    recent: Mutex<VecDeque<Position>>,
    /// The days whose nonces are remembered, the newest first.
    nonce_days: watch::Sender<Vec<i64>>,
}

impl Progress {
    pub(super) fn new(connection: &Connection, position: Position) -> rusqlite::Result<Self> {
        let Replicated { nonce_days, .. } = Replicated::read(connection)?;
        Ok(Self {
            position: watch::Sender::new(position),
            recent: Mutex::new(VecDeque::from([position])),
            nonce_days: watch::Sender::new(nonce_days),
        })
    }

    /// How far the log is applied and committed.
    pub(crate) fn position(&self) -> Position {
        *self.position.borrow()
    }

    /// Watches how far it is applied.
    pub(crate) fn watch(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    /// The days whose nonces are remembered, the newest first.
    pub(crate) fn nonce_days(&self) -> Vec<i64> {
        self.nonce_days.borrow().clone()
    }

    /// Whether this database was equal to another one at that one's position; `None` if this one has not reached the
    /// position yet, or no longer remembers it.
    pub(crate) fn agrees(&self, claim: Position) -> Option<bool> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = recent.binary_search_by_key(&claim.applied, |position| position.applied).ok()?;
        Some(recent[at].chain == claim.chain)
    }

    fn advance(&self, positions: &[Position], Replicated { position, nonce_days, .. }: &Replicated) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.extend(positions);
        let surplus = recent.len().saturating_sub(REMEMBERED);
        recent.drain(..surplus);
        drop(recent);
        self.nonce_days.send_if_modified(|known| {
            let is_new = known != nonce_days;
            if is_new {
                nonce_days.clone_into(known);
            }
            is_new
        });
        self.position.send_replace(*position);
    }
}

/// What entries do besides their changes. A copy of what is in the database, so that it is not read again for each
/// entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Replicated {
    position: Position,
    /// The days whose nonces are remembered, the newest first; at least one once an entry was applied.
    nonce_days: Vec<i64>,
    /// The last entry of each process that publishes, and when it came.
    publishers: BTreeMap<Box<str>, (u64, i64)>,
}

/// By `meta`'s primary key: one row for each process that publishes.
const PUBLISHER_ROWS: &str = "SELECT substr(key, 11), value FROM meta WHERE key >= 'publisher ' AND key < 'publisher!'";
const FORGET_PUBLISHER: &str = "DELETE FROM meta WHERE key = ?1";

impl Replicated {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let applied = get::<i64>(connection, "applied")?.unwrap_or_default().cast_unsigned();
        let chain = get::<i64>(connection, "chain")?.unwrap_or_default().cast_unsigned();
        let days = get::<String>(connection, "nonce_days")?.unwrap_or_default();
        let mut publishers = BTreeMap::new();
        let mut statement = connection.prepare_cached(PUBLISHER_ROWS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (by, last) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
            let (number, at) = last.split_once(' ').unwrap_or_default();
            publishers.insert(by.into(), (number.parse().unwrap_or(0), at.parse().unwrap_or(0)));
        }
        Ok(Self {
            position: Position { applied, chain },
            nonce_days: days.split_ascii_whitespace().filter_map(|day| day.parse().ok()).collect(),
            publishers,
        })
    }

    /// Notes the day of an entry, and forgets a day if the entry says so.
    fn advance_days(&mut self, connection: &Connection, at: UnixMillis, forget: Option<i64>) -> rusqlite::Result<()> {
        let today = at.0.div_euclid(millis(NONCE_DAY));
        let newest = self.nonce_days.first().copied();
        let before = self.nonce_days.clone();
        if newest.is_none_or(|newest| newest < today) {
            self.nonce_days.insert(0, today);
            self.nonce_days.truncate(NonceDays::REMEMBERED);
        }
        let today = self.nonce_days.first().copied();
        self.nonce_days.retain(|day| Some(*day) == today || Some(*day) != forget);
        if self.nonce_days != before {
            set(connection, "nonce_days", join(&self.nonce_days))?;
        }
        Ok(())
    }

    /// The moment of an entry. What a wrong clock removes is gone for good, so things expire by the earlier of two: that of
    /// the log's servers and that of the publisher.
    fn moment(&self, at: UnixMillis, Body { session_lifetime, published_at, .. }: &Body) -> Moment {
        let mut before = self.nonce_days.iter().skip(1).copied();
        let nonce_days = NonceDays {
            today: self.nonce_days.first().copied().unwrap_or_default(),
            before: std::array::from_fn(|_| before.next()),
        };
        let expiry = published_at.map_or(at, |published_at| published_at.min(at));
        Moment { now: at, expiry, expired_at: expiry.plus(session_lifetime.saturating_neg()), nonce_days }
    }

    /// Notes an entry of a process; false if it, or a later one of that process, was applied already.
    fn is_new(&mut self, connection: &Connection, by: &str, number: u64, at: UnixMillis) -> rusqlite::Result<bool> {
        if self.publishers.get(by).is_some_and(|(last, _)| *last >= number) {
            return Ok(false);
        }
        self.publishers.insert(by.into(), (number, at.0));
        set(connection, &publisher(by), format!("{number} {}", at.0))?;
        if self.publishers.len() > PUBLISHERS
            && let Some(oldest) = self.publishers.iter().min_by_key(|(_, (_, at))| *at).map(|(by, _)| by.clone())
        {
            self.publishers.remove(&oldest);
            connection.prepare_cached(FORGET_PUBLISHER)?.execute([publisher(&oldest)])?;
        }
        Ok(true)
    }
}

fn publisher(by: &str) -> String {
    format!("publisher {by}")
}

/// The digest of all entries up to one: equal logs applied to equal databases give equal digests. The last id stands
/// for what the entry did: a message that is stored on one node and refused on another is noticed at the next entry.
fn chain(before: u64, entry: &Entry, last_id: MessageId) -> u64 {
    let mut digest = Sha256::new();
    digest.update(before.to_be_bytes());
    digest.update(entry.seq.to_be_bytes());
    digest.update(entry.digest);
    digest.update(last_id.get().to_be_bytes());
    let digest = digest.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("eight of thirty-two bytes"))
}

/// What a transaction of entries has done so far.
struct Applied {
    done: Vec<Vec<Done>>,
    positions: Vec<Position>,
    replicated: Replicated,
}

impl Writer {
    /// Applies entries, batch after batch, until the sending side is gone.
    pub(super) fn follow(mut self, mut entries: mpsc::Receiver<Entry>, progress: &Arc<Progress>) {
        let mut replicated = None;
        while let Some(first) = entries.blocking_recv() {
            let mut batch = vec![first];
            let mut writes = count_writes(&batch[0]);
            while writes < MESSAGES_PER_COMMIT
                && let Ok(entry) = entries.try_recv()
            {
                writes += count_writes(&entry);
                batch.push(entry);
            }
            while !self.commit_entries(&mut batch, &mut replicated, progress, entries.len()) {
                // Requests that waited are answered `unavailable` at once; the contract allows that the entries are
                // applied later.
                for entry in &mut batch {
                    entry.replies.0.clear();
                }
                if entries.is_closed() {
                    return;
                }
                std::thread::sleep(RETRY);
            }
        }
    }

    /// Applies all entries in one transaction, or none. Returns whether it was committed.
    pub(super) fn commit_entries(
        &mut self,
        batch: &mut Vec<Entry>,
        known: &mut Option<Replicated>,
        progress: &Progress,
        waiting: usize,
    ) -> bool {
        let started = Instant::now();
        let replicated = known.take();
        let committed = self.transact(|transaction| {
            let replicated = replicated.map_or_else(|| Replicated::read(transaction.connection), Ok)?;
            apply_entries(transaction, replicated, batch)
        });
        let Some((Applied { done, positions, replicated }, effects)) = committed else { return false };
        progress.advance(&positions, &replicated);
        *known = Some(replicated);
        let answers = batch.drain(..).zip(done).flat_map(|(entry, done)| entry.replies.0.into_iter().zip(done));
        let answers: Vec<_> = answers.collect();
        self.publish(&effects, answers.into_iter(), started, || waiting);
        true
    }
}

fn count_writes(entry: &Entry) -> usize {
    let changes = entry.body.iter().flat_map(|body| &body.changes.0);
    changes.map(Change::writes).sum::<usize>().max(1)
}

fn apply_entries(
    transaction: &mut Transaction<'_>,
    mut replicated: Replicated,
    batch: &[Entry],
) -> rusqlite::Result<Applied> {
    let connection = transaction.connection;
    // Nodes apply the same entries in different batches, and their databases must stay equal: so no batch counts as one of
    // many people.
    transaction.nonces.begin(0);
    let (mut done, mut positions) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for entry in batch {
        let mut answers = Vec::new();
        // A transaction that was reported as failed may have reached the disk.
        if entry.seq > replicated.position.applied {
            if let Some(body) = &entry.body
                && replicated.is_new(connection, &body.by, body.number, entry.at)?
            {
                replicated.advance_days(connection, entry.at, body.forget_day)?;
                let moment = replicated.moment(entry.at, body);
                for change in &body.changes.0 {
                    answers.push(transaction.at(moment).run(change)?);
                }
            }
            let chain = chain(replicated.position.chain, entry, *transaction.last_id);
            replicated.position = Position { applied: entry.seq, chain };
            positions.push(replicated.position);
        }
        done.push(answers);
    }
    super::replica::set_position(connection, replicated.position)?;
    Ok(Applied { done, positions, replicated })
}

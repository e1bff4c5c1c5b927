//! State that the two threads and the handles share, so that a handle learns it without a place in a queue. Only
//! atomics, and locks that are held for a moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::cleaner::Cleaner;
use super::expiry::ExpiryClock;
use super::lock::Lock;
use super::memo::Generation;
use super::reads::ReadPositions;
use super::sessions::LiveSessions;
use super::settle::Settler;
use super::sql;
use crate::config::Retention;
use crate::limits::SEARCHES_AT_ONCE;
use crate::model::{Epoch, UnixMillis};
use crate::room::RoomId;

/// The shared state of a database.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) epoch: Epoch,
    pub(super) last_id: AtomicI64,
    /// Whether the last transaction failed.
    pub(super) failing: AtomicBool,
    /// Whether there were no users when it was opened.
    pub(super) was_empty: bool,
    pub(super) lock: Lock,
    pub(super) cleaner: Mutex<Cleaner>,
    pub(super) reads: ReadPositions,
    pub(super) generation: Generation,
    pub(super) sessions: LiveSessions,
    /// Rows changed by all commits so far: another number means that there has been one.
    pub(super) commits: AtomicU64,
    /// Pages of the file that hold nothing.
    pub(super) free_pages: AtomicU64,
    /// In bytes.
    pub(super) page_size: u64,
    pub(super) settler: Mutex<Settler>,
    pub(super) expiry: ExpiryClock,
    /// The rooms that everybody reads.
    pub(super) open_rooms: RwLock<BTreeSet<RoomId>>,
    /// The database file.
    pub(super) path: PathBuf,
    /// Held while somebody searches.
    pub(super) searches: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(
        connection: &Connection,
        path: &Path,
        lock: Lock,
        retention: Retention,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            epoch: sql::epoch(connection)?,
            last_id: AtomicI64::new(sql::last_id(connection)?.get()),
            failing: AtomicBool::new(false),
            was_empty: !sql::has_users(connection)?,
            lock,
            cleaner: Mutex::new(Cleaner::new(retention, sql::gap(connection)?)),
            reads: ReadPositions::default(),
            generation: Generation::default(),
            sessions: LiveSessions::default(),
            commits: AtomicU64::new(0),
            free_pages: AtomicU64::new(sql::free_pages(connection)?),
            page_size: sql::page_size(connection)?,
            expiry: ExpiryClock::since(
                sql::kept_belief(connection)?,
                sql::written_last(connection)?,
                UnixMillis::now(),
                Instant::now(),
            ),
            settler: Mutex::new(Settler::new(Instant::now())),
            open_rooms: RwLock::new(sql::open_rooms(connection)?),
            path: path.to_owned(),
            searches: Arc::new(Semaphore::new(SEARCHES_AT_ONCE)),
        })
    }
}

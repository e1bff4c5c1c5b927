//! When the log is moved into the database file, and emptied.
//!
//! SQLite does that by itself when the log is long, which on a quiet server is never: until then a copy of the file
//! alone has none of what was written, and the log still has texts that were removed. So it is done when nothing has
//! been committed for a while, and after some minutes in any case. A connection of its own does it, so that the writer
//! hardly waits, and never for a long read.

use std::path::Path;
use std::time::Instant;

use rusqlite::OpenFlags;

use super::error::OpenError;
use super::sql;
use crate::limits::{SETTLE_AT_LAST, SETTLE_QUIET};

/// What there was to move, and when.
#[derive(Debug)]
pub(super) struct Settler {
    /// The count of commits at the last look, and since when it has been that.
    seen: (u64, Instant),
    /// The count when the log was last emptied, and when that was.
    settled: (u64, Instant),
}

impl Settler {
    pub(super) fn new(now: Instant) -> Self {
        Self { seen: (0, now), settled: (0, now) }
    }

    /// Whether the log is to be emptied now.
    pub(super) fn is_due(&mut self, commits: u64, now: Instant) -> bool {
        if commits != self.seen.0 {
            self.seen = (commits, now);
        }
        if commits == self.settled.0 {
            self.settled.1 = now;
            return false;
        }
        let since = |at: Instant| now.duration_since(at);
        since(self.seen.1) >= SETTLE_QUIET || since(self.settled.1) >= SETTLE_AT_LAST
    }

    /// Notes that the first `commits` are in the database.
    pub(super) fn note(&mut self, commits: u64, now: Instant) {
        self.settled = (commits, now);
    }
}

/// Moves the log into the database and empties it; false if a read in progress prevents that.
pub(super) fn settle(path: &Path) -> Result<bool, OpenError> {
    let connection = sql::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Most of it, while the writer goes on.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))? == 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_log_is_emptied_when_it_is_quiet_and_at_last_when_it_is_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut settler = Settler::new(start);
        assert!(!settler.is_due(0, at(600)), "there is nothing in it");
        assert!(!settler.is_due(1, at(605)));
        assert!(settler.is_due(1, at(635)));
        settler.note(1, at(635));
        let trickle = (640..).step_by(5).zip(2..);
        let due = trickle.into_iter().find(|(second, commits)| settler.is_due(*commits, at(*second))).unwrap().0;
        assert_eq!(due, 875);
    }
}

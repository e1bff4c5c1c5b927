//! Space on the disk for what people write: below a floor of free space, and above a ceiling of the database, new text
//! and pictures are refused while everything else goes on.
//!
//! A disk that is full to the last byte takes down more than a chat: even logins and deletions need a little space.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::db::sibling;
use crate::limits::{MIN_FREE_BYTES, MIN_FREE_PERCENT, SPACE_LOOK_INTERVAL};

/// The limits of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SpaceLimits {
    /// Bytes that stay free on the disk; by default [`MIN_FREE_PERCENT`] hundredths of it or [`MIN_FREE_BYTES`],
    /// whichever is less.
    pub(crate) min_free: Option<u64>,
    /// The most bytes of the database with its log.
    pub(crate) max_database: Option<u64>,
}

/// Knows whether there is space, to about a second.
#[derive(Debug)]
pub(crate) struct Space {
    path: PathBuf,
    limits: SpaceLimits,
    looked: Mutex<Option<Instant>>,
    is_low: AtomicBool,
}

impl Space {
    pub(crate) fn new(path: &Path, limits: SpaceLimits) -> Self {
        Self { path: path.to_owned(), limits, looked: Mutex::default(), is_low: AtomicBool::new(false) }
    }

    /// Whether new text and pictures are to be refused, while `unused` bytes of the database's file hold nothing: the
    /// file does not shrink when something is removed. Looks at the disk once in [`SPACE_LOOK_INTERVAL`].
    pub(crate) fn is_low(&self, unused: u64) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_none_or(|at| at.elapsed() >= SPACE_LOOK_INTERVAL) {
            *looked = Some(Instant::now());
            let is_low = self.look(unused);
            if self.is_low.swap(is_low, Ordering::Relaxed) != is_low {
                if is_low {
                    tracing::error!("no disk space for new messages: see --min-free and --max-db-size");
                } else {
                    tracing::info!("there is disk space for new messages again");
                }
            }
        }
        self.is_low.load(Ordering::Relaxed)
    }

    /// A disk that does not tell how full it is counts as having space: if it has none, the write fails.
    fn look(&self, unused: u64) -> bool {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let size = bytes(&self.path).saturating_add(bytes(&sibling(&self.path, "-wal")));
        if self.limits.max_database.is_some_and(|max| size.saturating_sub(unused) > max) {
            return true;
        }
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return false };
        let all = disk.f_blocks.saturating_mul(disk.f_frsize);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(unused);
        free < self.limits.min_free.unwrap_or_else(|| default_floor(all))
    }
}

/// Bytes that stay free on a disk of `all` bytes.
fn default_floor(all: u64) -> u64 {
    MIN_FREE_BYTES.min(all / 100 * MIN_FREE_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_low(limits: SpaceLimits, unused: u64) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chinwag.db");
        std::fs::write(&path, [0; 1_000]).unwrap();
        Space::new(&path, limits).is_low(unused)
    }

    #[test]
    fn a_twentieth_of_a_small_disk_stays_free_and_256_mib_of_a_large_one() {
        assert_eq!(default_floor(1_000_000_000), 50_000_000);
        assert_eq!(default_floor(1 << 40), 256 << 20);
    }

    #[test]
    fn room_ends_at_the_floor_of_the_disk_and_at_the_ceiling_of_the_database() {
        let limits = |min_free, max_database| SpaceLimits { min_free, max_database };
        assert!(!is_low(limits(Some(0), None), 0));
        assert!(is_low(limits(Some(u64::MAX), None), 0), "no disk has so much");
        assert!(!is_low(limits(Some(0), Some(1_000)), 0));
        assert!(is_low(limits(Some(0), Some(999)), 0));
    }

    #[test]
    fn what_the_file_has_free_is_room() {
        let limits = |min_free, max_database| SpaceLimits { min_free, max_database };
        assert!(!is_low(limits(Some(u64::MAX), None), u64::MAX));
        assert!(!is_low(limits(Some(0), Some(999)), 1));
    }
}

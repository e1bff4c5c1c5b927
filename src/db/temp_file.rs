//! A file that is written under a temporary name next to its final one, so that nobody finds half of it there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::files::{create_new_private, directory_of, sibling, with_suffix};
use crate::secret::random_name;

/// The files that SQLite keeps next to a database. Left behind, they would be used with the next database of that name.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A file that is being written, and is removed unless it is finished.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    path: PathBuf,
}

impl TempFile {
    /// Creates an empty file next to `path`, readable by its owner only. Its name is random, so that two writers of the
    /// same file do not collide.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = sibling(path, &format!(".partial-{}", random_name()));
        Ok(Self { file: create_new_private(&path)?, path })
    }

    /// Creates an empty file next to the database at `path`, readable by its owner only, and removes what an
    /// interrupted attempt left. The caller holds the lock of the database.
    pub(super) fn beside(path: &Path, suffix: &str) -> io::Result<Self> {
        let path = sibling(path, suffix);
        remove_left_over(&path)?;
        Ok(Self { file: create_new_private(&path)?, path })
    }

    /// Its temporary path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, to write to.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its final name.
    ///
    /// # Errors
    /// If it cannot be done, or there is such a file by now.
    pub fn put_new(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        if !name_too(&self.path, path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        sync_directory(path)
    }

    /// Gives the file its final name, replacing a file that has it.
    pub(super) fn put(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        sync_directory(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After `put_new` this removes the temporary name; after `put` there is nothing to remove. If it fails, the
        // file stays under its temporary name.
        drop(remove_database(&self.path));
    }
}

/// A new name is on disk only once its directory is synced.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Gives the database at `from` and its sidecar files a second name, then removes the sidecars from the first, so that
/// another database can take that name. Until then the first name has a whole database, except that its log is gone at
/// the very end; if the process ends here, there is one database with two names. Returns whether there was a database.
pub(super) fn keep_as(from: &Path, to: &Path) -> io::Result<bool> {
    let existed = name_too(from, to)?;
    for suffix in SIDECARS {
        name_too(&with_suffix(from, suffix), &with_suffix(to, suffix))?;
    }
    sync_directory(to)?;
    remove_sidecars(from)?;
    Ok(existed)
}

/// Gives a file another name, which must be free. It also keeps its own, unless the file system has no hard links.
/// Returns whether there was such a file.
fn name_too(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(already_exists(to)),
        Err(_) => fs::rename(from, to)?,
        Ok(()) => {}
    }
    Ok(true)
}

fn already_exists(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists already", path.display()))
}

/// Removes what an interrupted attempt of ours left at `path`. Root works in other people's directories: a file that we
/// cannot have made is not removed.
fn remove_left_over(path: &Path) -> io::Result<()> {
    if let Ok(found) = fs::symlink_metadata(path) {
        let could_be_ours = [rustix::process::geteuid().as_raw(), fs::metadata(directory_of(path))?.uid()];
        if !found.is_file() || found.nlink() > 1 || !could_be_ours.contains(&found.uid()) {
            return Err(io::Error::other(format!("{} exists and is not ours: not replaced", path.display())));
        }
    }
    remove_database(path)
}

fn remove_database(path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    remove_sidecars(path)
}

fn remove_sidecars(path: &Path) -> io::Result<()> {
    SIDECARS.iter().try_for_each(|suffix| remove_if_there(&with_suffix(path, suffix)))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory, of which no file system makes a hard link, stands for a file on one that makes none.
    #[test]
    fn without_hard_links_a_file_is_renamed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        assert!(!name_too(&from, &to).expect("there is nothing to do"));
        fs::create_dir(&from).expect("a directory");
        assert!(name_too(&from, &to).expect("it is renamed"));
        assert!(to.exists() && !from.exists());
    }
}

//! A file that is made beside its place and takes it when it is complete, so that nobody finds half of it there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::ArchiveError;
use super::lock::{beside, with_suffix};
use super::sql::{create_new_private, directory_of};
use crate::model::random_name;

/// What SQLite keeps beside a database. Left there, it would be taken for that of whatever has the name next.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A file that is being made, and is gone if it is not finished.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
}

impl Partial {
    /// Makes an empty file beside the one that is to be at `path`, for its owner only. Two that become the same file have
    /// names of their own meanwhile.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = beside(path, &format!(".partial-{}", random_name()));
        Ok(Self { file: create_new_private(&path)?, path })
    }

    /// Makes an empty file beside the one at `path`, for its owner only. Who holds the lock of that one makes it,
    /// since what an interrupted attempt left is removed.
    pub(super) fn beside(path: &Path, suffix: &str) -> io::Result<Self> {
        let path = beside(path, suffix);
        remove_database(&path)?;
        Ok(Self { file: create_new_private(&path)?, path })
    }

    /// Where it is meanwhile.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, to write to.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name, for good.
    ///
    /// # Errors
    /// [`ArchiveError::Exists`] if something has it by now.
    pub fn put_new(self, path: &Path) -> Result<(), ArchiveError> {
        self.file.sync_all()?;
        if !name_too(&self.path, path)? {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        Ok(sync_directory(path)?)
    }

    /// The same; what has the name is replaced.
    pub(super) fn put(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        sync_directory(path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `put_new` this takes the first name away; after `put` there is nothing. What cannot be removed stays under
        // its odd name.
        drop(remove_database(&self.path));
    }
}

/// A new name in a directory is on disk only when the directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Gives the database at `from` a second name, with what SQLite keeps beside it, which is then taken away from the
/// first, for another database to take that. There is a whole database under the first name all the while, but for its
/// log in the last moment; if nothing takes the name, because the process ends here, it is one database with two names.
/// Whether there was one.
pub(super) fn keep_as(from: &Path, to: &Path) -> Result<bool, ArchiveError> {
    let existed = name_too(from, to)?;
    for suffix in SIDECARS {
        name_too(&with_suffix(from, suffix), &with_suffix(to, suffix))?;
    }
    sync_directory(to)?;
    remove_sidecars(from)?;
    Ok(existed)
}

/// Gives a file another name, which nothing may have. It keeps its own, unless the file system knows no second names.
/// Whether there was such a file.
fn name_too(from: &Path, to: &Path) -> Result<bool, ArchiveError> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(ArchiveError::Exists(to.into())),
        Err(_) => fs::rename(from, to)?,
        Ok(()) => {}
    }
    Ok(true)
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

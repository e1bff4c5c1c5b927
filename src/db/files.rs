//! The files of a database: their names, and who can read them.
//!
//! A path from the command line is only ever a path. SQLite gives `:memory:`, `file:` and an empty name other meanings,
//! so nothing opens a database except by [`resolve`], which makes the path absolute. It also decides which links are
//! followed: root works in directories that belong to others, who could have it change any file by a link.

use std::fs::{self, File};
use std::io;
use std::iter;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, access, statx};
use rustix::io::Errno;

/// Creates an empty file that only its owner can read, unless it exists; SQLite gives its log the same mode and owner.
/// Files created as root get the directory's owner: an administrator's command must not leave files that the server's
/// own user cannot open.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    match create_new_private(&resolve(path)?) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

/// Creates an empty file that only its owner can read; fails if it exists.
pub(super) fn create_new_private(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    if rustix::process::geteuid().is_root() {
        let directory = std::fs::metadata(directory_of(path))?;
        // By descriptor: the directory's owner could have replaced the file at this path.
        fchown(&file, Some(directory.uid()), Some(directory.gid()))?;
    }
    Ok(file)
}

/// The directory that a file is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path of a file that belongs to the database at `path`: next to the file itself, even if `path` is a link to it.
#[must_use]
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    with_suffix(&resolve(path).unwrap_or_else(|_| path.to_owned()), suffix)
}

/// A path with a suffix, without following links.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A path as SQLite reads it in a URI: each byte is escaped, so that none has a meaning of its own.
pub(super) fn uri_of(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes().iter().map(|byte| format!("%{byte:02x}"));
    iter::once("file:".to_owned()).chain(bytes).collect()
}

/// Whether the file is on a file system that is mounted read-only.
pub(super) fn is_on_read_only_medium(path: &Path) -> bool {
    matches!(access(path, Access::WRITE_OK), Err(Errno::ROFS))
}

/// Whether a file system, or a part of one, is mounted at exactly this file: SQLite's log is beside it, in another one.
pub(super) fn is_mount_point(path: &Path) -> bool {
    resolve(path).is_ok_and(|path| {
        statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
            .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    })
}

/// Links that lead to a database at most.
const LINKS_MAX: usize = 8;

/// The absolute path of a file, which may be missing, with all links followed: those to the file itself if they are
/// [safe](check_link).
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = place(path)?;
    for _ in 0..LINKS_MAX {
        match fs::symlink_metadata(&path) {
            Ok(link) if link.is_symlink() => {
                check_link(&path, link.uid())?;
                path = place(&directory_of(&path).join(fs::read_link(&path)?))?;
            }
            _ => return Ok(path),
        }
    }
    Err(io::Error::other(format!("too many links from {}", path.display())))
}

/// The absolute path of a file, without following a link at its name.
pub(super) fn place(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(fs::canonicalize(directory_of(&path))?.join(name))
}

/// Root follows a link only if it is root's, or if its owner has the file (or, if that is missing, the directory) that
/// it leads to: nobody can use root to reach a file that is not theirs.
fn check_link(path: &Path, owner: u32) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() || owner == 0 {
        return Ok(());
    }
    let target = directory_of(path).join(fs::read_link(path)?);
    let owner_of = |path: &Path| fs::metadata(path).map(|metadata| metadata.uid());
    if owner_of(&target).or_else(|_| owner_of(directory_of(&target))).is_ok_and(|of_target| of_target == owner) {
        return Ok(());
    }
    Err(io::Error::other(format!("not following the link {}: its owner does not own the file", path.display())))
}

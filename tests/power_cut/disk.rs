//! A disk that loses its power: for each file what is certain to be on it, and all that may be.
//!
//! What POSIX promises and no more: a write, a file's size and a name in a directory are certain after a sync of that
//! file or directory which began later and ended. Before that each 512-byte sector is as it was at any one moment since
//! the last sync, whatever its neighbours are; so is the size; and of the directory's changes the first few are there,
//! as in the journal of ext4, XFS and btrfs. What lies between an old end and a new one that was not written is zeros,
//! or whatever was on the disk before. A sector itself is whole ("power-safe overwrite"), which SQLite takes for
//! granted as well.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::common::Dice;
use super::record::Event;

const SECTOR: usize = 512;
/// What the kernel writes at once.
const PAGE: usize = 4_096;

/// The files of the database, and nothing else: the lock and the log's index are made anew by who opens it.
const SUFFIXES: [&str; 3] = ["", "-wal", "-journal"];

/// Files by name, with all that is in them.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What of the changes that were not synced a cut leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Left {
    Nothing,
    Everything,
    /// Those before some moment: a disk that writes in order.
    UpTo,
    /// Each piece of this many bytes as it was at a moment of its own.
    Pieces(usize),
    /// Everything but one piece, which is as it was before.
    AllButOne(usize),
    /// One piece only.
    OnlyOne(usize),
}

impl Left {
    pub(crate) fn any(dice: &mut Dice) -> Left {
        let piece = [SECTOR, PAGE][dice.below(2)];
        match dice.below(8) {
            0 => Left::Nothing,
            1 => Left::Everything,
            2 => Left::UpTo,
            3..5 => Left::Pieces(piece),
            5 => Left::OnlyOne(piece),
            _ => Left::AllButOne(piece),
        }
    }
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    /// The size of a file of `size` bytes after it.
    fn size_after(&self, size: usize) -> usize {
        match self {
            Change::Write(offset, bytes) => size.max(offset + bytes.len()),
            Change::Truncate(size) => *size,
        }
    }
}

#[derive(Debug, Default)]
struct DiskFile {
    certain: Vec<u8>,
    uncertain: Vec<Change>,
    /// How many of the changes a sync that has begun is about.
    syncing: usize,
}

#[derive(Debug)]
enum DirectoryChange {
    Link(String, usize),
    Unlink(String),
}

/// The directory of one database.
#[derive(Debug)]
pub(crate) struct Disk {
    database: PathBuf,
    files: Vec<DiskFile>,
    by_inode: HashMap<u64, usize>,
    certain: BTreeMap<String, usize>,
    uncertain: Vec<DirectoryChange>,
}

impl Disk {
    /// The directory of the database at `database`, with nothing in it yet except `files`, which are certain.
    pub(crate) fn new(database: &Path, files: Files) -> Disk {
        let mut disk = Disk {
            database: database.to_owned(),
            files: Vec::new(),
            by_inode: HashMap::new(),
            certain: BTreeMap::new(),
            uncertain: Vec::new(),
        };
        for (suffix, certain) in files {
            disk.certain.insert(suffix, disk.files.len());
            disk.files.push(DiskFile { certain, ..DiskFile::default() });
        }
        disk
    }

    /// What makes `path` a file of the database; none if it is not one.
    fn suffix(&self, path: &Path) -> Option<String> {
        let suffix = path.to_str()?.strip_prefix(self.database.to_str()?)?;
        SUFFIXES.contains(&suffix).then(|| suffix.to_owned())
    }

    /// The file that has a name now, for the running program.
    fn named(&self, suffix: &str) -> Option<usize> {
        let changed = self.uncertain.iter().rev().find_map(|change| match change {
            DirectoryChange::Link(name, file) if name == suffix => Some(Some(*file)),
            DirectoryChange::Unlink(name) if name == suffix => Some(None),
            _ => None,
        });
        changed.unwrap_or_else(|| self.certain.get(suffix).copied())
    }

    /// Does what the server did. Whether anything that was uncertain is certain now.
    pub(crate) fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Open { inode, is_new, path } => self.open(*inode, *is_new, path),
            Event::Write { inode, offset, bytes } => self.change(*inode, || Change::Write(*offset, bytes.clone())),
            Event::Truncate { inode, size } => self.change(*inode, || Change::Truncate(*size)),
            Event::SyncBegun { inode } => {
                if let Some(file) = self.by_inode.get(inode) {
                    let file = &mut self.files[*file];
                    file.syncing = file.uncertain.len();
                }
            }
            Event::Synced { is_directory: true, .. } => self.directory_synced(),
            Event::Synced { inode, .. } => {
                let Some(file) = self.by_inode.get(inode) else { return false };
                let file = &mut self.files[*file];
                let done: Vec<Change> = file.uncertain.drain(..file.syncing).collect();
                file.syncing = 0;
                file.certain = with(&file.certain, &done, |_| usize::MAX, usize::MAX, 0);
                return true;
            }
            Event::Unlink { path } => self.uncertain.extend(self.suffix(path).map(DirectoryChange::Unlink)),
            Event::Rename { from, to } => {
                let ours = self.suffix(from).or(self.suffix(to));
                assert!(ours.is_none(), "nobody renames a database that is open");
            }
            Event::Sent(_) | Event::Mark(_) => {}
        }
        false
    }

    fn open(&mut self, inode: u64, is_new: bool, path: &Path) {
        let Some(suffix) = self.suffix(path) else {
            // A number is given again when its file is gone.
            if is_new {
                self.by_inode.remove(&inode);
            }
            return;
        };
        let file = match self.named(&suffix) {
            Some(file) if !is_new => file,
            _ => {
                self.files.push(DiskFile::default());
                let file = self.files.len() - 1;
                self.uncertain.push(DirectoryChange::Link(suffix, file));
                file
            }
        };
        self.by_inode.insert(inode, file);
    }

    fn change(&mut self, inode: u64, change: impl FnOnce() -> Change) {
        if let Some(file) = self.by_inode.get(&inode) {
            self.files[*file].uncertain.push(change());
        }
    }

    fn directory_synced(&mut self) {
        for change in self.uncertain.drain(..) {
            apply_to(&mut self.certain, &change);
        }
    }

    /// Files that may be on the disk when the power goes now.
    pub(crate) fn after_a_cut(&self, left: Left, dice: &mut Dice) -> Files {
        let names = match left {
            Left::Nothing => 0,
            Left::Everything => self.uncertain.len(),
            _ => dice.below(self.uncertain.len() + 1),
        };
        let mut directory = self.certain.clone();
        for change in &self.uncertain[..names] {
            apply_to(&mut directory, change);
        }
        directory.into_iter().map(|(name, file)| (name, self.files[file].after_a_cut(left, dice))).collect()
    }
}

fn apply_to(directory: &mut BTreeMap<String, usize>, change: &DirectoryChange) {
    match change {
        DirectoryChange::Link(name, file) => directory.insert(name.clone(), *file),
        DirectoryChange::Unlink(name) => directory.remove(name),
    };
}

impl DiskFile {
    fn after_a_cut(&self, left: Left, dice: &mut Dice) -> Vec<u8> {
        let all = self.uncertain.len();
        // Which changes are there of the piece that holds a byte: those before this moment.
        let salt = dice.below(1 << 20);
        let moment = |piece: usize| Dice::new((piece * 7_919 + salt) as u64).below(all + 1);
        let size_moment = dice.below(all + 1);
        // Of the space behind the old end one in four disks shows what was there before.
        let stale = if dice.below(4) == 0 { 0xA5 } else { 0 };
        match left {
            Left::Nothing => self.certain.clone(),
            Left::Everything => with(&self.certain, &self.uncertain, |_| all, all, 0),
            Left::UpTo => with(&self.certain, &self.uncertain, |_| size_moment, size_moment, 0),
            Left::Pieces(piece) => with(&self.certain, &self.uncertain, |at| moment(at / piece), size_moment, stale),
            Left::AllButOne(piece) => {
                let lost = self.some_piece(piece, dice);
                with(&self.certain, &self.uncertain, |at| if at / piece == lost { 0 } else { all }, all, stale)
            }
            Left::OnlyOne(piece) => {
                let kept = self.some_piece(piece, dice);
                with(&self.certain, &self.uncertain, |at| if at / piece == kept { all } else { 0 }, all, stale)
            }
        }
    }

    /// A piece that one of the changes wrote to.
    fn some_piece(&self, piece: usize, dice: &mut Dice) -> usize {
        match self.uncertain.get(dice.below(self.uncertain.len().max(1))) {
            Some(Change::Write(offset, bytes)) => (offset + dice.below(bytes.len().max(1))) / piece,
            _ => 0,
        }
    }
}

/// `certain` after those of `changes` that are there: of a byte those before `moment` of its sector, of the size those
/// before `size_moment`. What was never written is `stale`.
fn with(certain: &[u8], changes: &[Change], moment: impl Fn(usize) -> usize, size_moment: usize, stale: u8) -> Vec<u8> {
    let room = changes.iter().fold(certain.len(), |room, change| change.size_after(room).max(room));
    let mut bytes = certain.to_vec();
    bytes.resize(room, stale);
    let mut size = certain.len();
    for (number, change) in changes.iter().enumerate() {
        let is_there = |at: usize| number < moment(at);
        match change {
            Change::Write(offset, written) => {
                for piece in sectors(*offset, offset + written.len()).filter(|piece| is_there(piece.start)) {
                    bytes[piece.clone()].copy_from_slice(&written[piece.start - offset..piece.end - offset]);
                }
            }
            // Bytes that come back when the file grows again are zeros.
            Change::Truncate(to) => {
                for piece in sectors(*to, room).filter(|piece| is_there(piece.start)) {
                    bytes[piece].fill(0);
                }
            }
        }
        if number < size_moment {
            size = change.size_after(size);
        }
    }
    bytes.truncate(size);
    bytes
}

/// The parts of sectors from `start` to `end`.
fn sectors(start: usize, end: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = start;
    std::iter::from_fn(move || {
        let piece = at..end.min((at / SECTOR + 1) * SECTOR);
        at = piece.end;
        (!piece.is_empty()).then_some(piece)
    })
}

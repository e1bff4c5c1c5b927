//! What the server did, read back from what `record.c` noted.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thing that the server did, or that the test marked between two of them.
#[derive(Debug)]
pub(crate) enum Event {
    Open {
        inode: u64,
        is_new: bool,
        path: PathBuf,
    },
    Write {
        inode: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: u64,
        size: usize,
    },
    SyncBegun {
        inode: u64,
    },
    Synced {
        inode: u64,
        is_directory: bool,
    },
    Unlink {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    /// Bytes about to be sent on a socket.
    Sent(String),
    /// Something the test knew at this point.
    Mark(String),
}

/// The record of one or more processes, while they run.
pub(crate) struct Recorder {
    library: PathBuf,
    record: PathBuf,
}

const MARK: u64 = b'm' as u64;

impl Recorder {
    /// Compiles the library that records; none where there is no C compiler.
    pub(crate) fn compile(folder: &Path) -> Option<Recorder> {
        let library = folder.join("record.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_cut/record.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).args([&library, &source]).arg("-ldl");
        assert!(compiler.status().ok()?.success(), "record.c compiles");
        Some(Recorder { library, record: folder.join("record") })
    }

    /// A recorder of something else, which forgets what was recorded before.
    pub(crate) fn anew(&self) -> Recorder {
        let record = self.record.with_extension("anew");
        std::fs::remove_file(&record).ok();
        Recorder { library: self.library.clone(), record }
    }

    /// The environment of a process that is to be recorded.
    pub(crate) fn environment(&self) -> [(&str, &str); 2] {
        let text = |path: &'_ Path| path.to_str().expect("a temporary path is text").to_owned().leak() as &str;
        [("LD_PRELOAD", text(&self.library)), ("POWER_CUT_RECORD", text(&self.record))]
    }

    /// Notes what the test knows, in line with what the processes do.
    pub(crate) fn mark(&self, what: &str) {
        let header = [MARK, 0, 0, what.len() as u64].map(u64::to_le_bytes).concat();
        let record = OpenOptions::new().append(true).open(&self.record);
        record.and_then(|mut file| file.write_all(&[&header, what.as_bytes()].concat())).expect("a mark is written");
    }

    /// All that happened. Nobody may be recorded any more.
    pub(crate) fn events(&self) -> Vec<Event> {
        let record = std::fs::read(&self.record).expect("something was recorded");
        let mut rest = record.as_slice();
        std::iter::from_fn(|| take_event(&mut rest)).collect()
    }
}

/// Takes the first event off `record`; none at its end.
fn take_event(record: &mut &[u8]) -> Option<Event> {
    let (header, rest) = record.split_first_chunk::<32>()?;
    let mut fields = header.chunks_exact(8).map(|field| u64::from_le_bytes(field.try_into().expect("eight bytes")));
    let [kind, inode, offset, length] = std::array::from_fn(|_| fields.next().expect("four fields"));
    let number = |value| usize::try_from(value).expect("a file's size");
    let (bytes, rest) = rest.split_at(number(length));
    *record = rest;
    let text = || String::from_utf8_lossy(bytes).into_owned();
    Some(match u8::try_from(kind).expect("a kind is a letter") {
        b'o' => Event::Open { inode, is_new: offset == 1, path: text().into() },
        b'w' => Event::Write { inode, offset: number(offset), bytes: bytes.to_vec() },
        b't' => Event::Truncate { inode, size: number(offset) },
        b'b' => Event::SyncBegun { inode },
        b's' => Event::Synced { inode, is_directory: offset == 1 },
        b'u' => Event::Unlink { path: text().into() },
        b'r' => {
            let (from, to) = text().split_once('\0').map(|(from, to)| (from.into(), to.into())).expect("two paths");
            Event::Rename { from, to }
        }
        b'n' => Event::Sent(text()),
        b'm' => Event::Mark(text()),
        other => panic!("no kind of event: {other}"),
    })
}

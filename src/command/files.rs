//! `backup`, `restore`, `check` and `prune`: the database as a file.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use chinwag::db::{self, AdminCommand, Snapshot, SnapshotError};
use chinwag::model::{MessageId, UnixMillis};

use super::time::ago;
use super::{Hands, count, look, note, say};

/// How long a command may take before it shows its progress.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn back_up(path: &Path, file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        bail!("{} exists already", file.display());
    }
    let archive = look(path)?;
    let mut progress = Progress::begin();
    let done = archive.back_up(file, |percent| progress.show(&format!("{percent} % copied")));
    progress.end();
    done.with_context(|| format!("cannot back up to {}", file.display()))?;
    let contents = Snapshot::open(file).map_err(SnapshotError::from).and_then(|copy| copy.contents())?;
    say(&format!(
        "{} is complete and verified: {}, {}, {} bytes",
        file.display(),
        count(contents.users, "user"),
        count(contents.messages, "message"),
        contents.bytes
    ))
}

pub(super) fn restore(path: &Path, file: &Path) -> anyhow::Result<()> {
    let kept = db::restore(file, path, UnixMillis::now())
        .with_context(|| format!("cannot restore {} to {}", file.display(), path.display()))?;
    if let Some(kept) = kept {
        note(&format!("the old database is kept as {}", kept.display()));
    }
    say(&format!("restored {} from {}", path.display(), file.display()))
}

pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    let archive = look(path)?;
    archive.verify().with_context(|| path.display().to_string())?;
    let contents = archive.contents()?;
    say(&format!("database   {}, {} bytes", path.display(), contents.bytes))?;
    say("integrity  ok")?;
    say(&format!("version    {}", archive.version()))?;
    say(&format!("epoch      {}", contents.epoch))?;
    say(&format!("users      {}", contents.users))?;
    say(&format!("sessions   {}", contents.sessions))?;
    say(&format!("messages   {}, last id {}", contents.messages, contents.last_id.get()))?;
    let addresses = db::server_addresses(path);
    say(&format!("server     {}", if addresses.is_empty() { "not running".into() } else { addresses.join(" ") }))
}

pub(super) fn prune(path: &Path, older_than: Duration) -> anyhow::Result<()> {
    let hands = Hands::on(path)?;
    let (before, mut next, mut removed) = (ago(older_than), Some(MessageId::default()), 0);
    let mut progress = Progress::begin();
    while let Some(after) = next {
        let step = Instant::now();
        let report = hands.step(&AdminCommand::Prune { before, after }).context("cannot go on")?;
        removed += report.removed;
        next = report.next;
        progress.show(&format!("{removed} messages removed"));
        // If the disk took long, everybody else gets as long.
        std::thread::sleep(if next.is_some() { step.elapsed() } else { Duration::ZERO });
    }
    progress.end();
    say(&format!("removed {}; the freed space will be reused", count(removed as u64, "message")))
}

/// Shows the progress of a long command.
struct Progress {
    shown_at: Instant,
    shown: bool,
}

impl Progress {
    fn begin() -> Self {
        Self { shown_at: Instant::now(), shown: false }
    }

    /// At most once in [`PATIENCE`]: on a terminal in one line that changes, otherwise in lines.
    fn show(&mut self, how_far: &str) {
        if self.shown_at.elapsed() < PATIENCE {
            return;
        }
        (self.shown_at, self.shown) = (Instant::now(), true);
        if std::io::stderr().is_terminal() {
            // Fails without a standard error, and then there is nobody to tell.
            drop(write!(std::io::stderr(), "\r{how_far}"));
        } else {
            note(how_far);
        }
    }

    fn end(self) {
        if self.shown && std::io::stderr().is_terminal() {
            note("");
        }
    }
}

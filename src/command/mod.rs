//! The commands besides `serve`: what an administrator does to a database from a shell.
//!
//! A command that only reads opens the file itself. A change becomes an [`AdminCommand`], which the server carries out
//! if one runs, and otherwise this process. Replacing a whole database is refused while a server runs.

#[cfg(feature = "cluster")]
mod cluster;
mod files;
mod health;
mod invite;
mod prompt;
mod time;
mod transfer;
mod user;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use chinwag::config::Config;
use chinwag::control::{self, Report};
use chinwag::db::{AdminCommand, AdminError, Db, LockError, OpenError, Options, Snapshot, Threads};
use clap::Subcommand;
use tokio::runtime::Runtime;

/// Tries at a database that another process has open without a control socket: a server that starts or stops, or
/// another command, is done soon.
const TRIES: u32 = 50;
/// Time between two tries.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// Tries at a step of what takes many, on a disk that is slow or has much else to do.
const STEP_TRIES: u32 = 10;
/// Time between two of them.
const STEP_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server (what chinwag does without a command)
    Serve(Box<Config>),
    /// Add, list, disable and delete users, and set their passwords
    #[command(subcommand)]
    User(user::UserCommand),
    /// Add bots, and give them other tokens
    #[command(subcommand)]
    Bot(user::BotCommand),
    /// List the sessions, and end them
    #[command(subcommand)]
    Session(user::SessionCommand),
    /// Print a link that lets somebody register
    Invite(invite::Invite),
    /// Copy the database to a new file, also while a server runs
    Backup {
        /// The file to create
        file: PathBuf,
    },
    /// Replace the database by a backup; the old one is kept beside it
    Restore {
        /// A file that backup made
        file: PathBuf,
    },
    /// Write the whole chat as JSON, one record per line
    Export {
        /// The file to create [default: standard output]
        file: Option<PathBuf>,
    },
    /// Fill an empty database from an export
    Import {
        /// The file to read [default: standard input]
        file: Option<PathBuf>,
    },
    /// Delete old messages for good
    Prune {
        /// How old: 90d, 12h
        #[arg(long, value_name = "AGE", value_parser = time::parse_age)]
        older_than: Duration,
    },
    /// Verify the database and say what is in it
    Check,
    /// Ask this database's server whether it is well (exit code 0) or not (1)
    Health,
    /// Create and inspect the log that several nodes share
    #[cfg(feature = "cluster")]
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
}

/// Runs a command on the database at `path`.
pub(crate) fn run(command: Command, path: &Path) -> anyhow::Result<()> {
    match command {
        Command::Serve(_) => unreachable!("main serves"),
        Command::User(command) => user::run_user(command, path),
        Command::Bot(command) => user::run_bot(command, path),
        Command::Session(command) => user::run_session(command, path),
        Command::Invite(invite) => invite.run(path),
        Command::Backup { file } => files::back_up(path, &file),
        Command::Restore { file } => files::restore(path, &file),
        Command::Export { file } => transfer::export(path, file.as_deref()),
        Command::Import { file } => transfer::import(path, file.as_deref()),
        Command::Prune { older_than } => files::prune(path, older_than),
        Command::Check => files::check(path),
        Command::Health => health::ask(path),
        #[cfg(feature = "cluster")]
        Command::Cluster(command) => cluster::run(command, path),
    }
}

/// Prints a line on standard output.
fn say(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", printable(line)) {
        // `chinwag check | grep -q` has read what it wanted, and the exit code is about the database.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        said => said.context("cannot print"),
    }
}

/// A line without control characters: a text from a file must not be able to control the terminal.
fn printable(line: &str) -> String {
    line.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// A number of things, in words.
fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Prints a note on standard error.
fn note(line: &str) {
    // Fails without a standard error, and then there is nobody to tell.
    drop(writeln!(std::io::stderr(), "{}", printable(line)));
}

/// Looks at the database at `path`.
fn look(path: &Path) -> anyhow::Result<Snapshot> {
    Snapshot::open(path).with_context(|| format!("cannot open the database {}", path.display()))
}

/// What carries out a command: the server that has the database open, or this process if there is none.
enum Hands<'a> {
    Server(&'a Path),
    Ours(Box<Ours>),
}

/// A database of which this process is the only writer.
struct Ours {
    runtime: Runtime,
    db: Db,
    threads: Option<Threads>,
}

impl<'a> Hands<'a> {
    /// Finds out which process has the database at `path`, which must exist.
    fn on(path: &'a Path) -> anyhow::Result<Self> {
        if !path.exists() {
            bail!("there is no database {}", path.display());
        }
        Self::on_or_new(path)
    }

    /// Finds out which process has the database at `path`; creates it if it is missing.
    fn on_or_new(path: &'a Path) -> anyhow::Result<Self> {
        if !path.exists() {
            note(&format!("creating the database {}", path.display()));
        }
        for _ in 0..TRIES {
            match Db::open_at_once(path, Options::default(), Box::new(|_| {})) {
                Ok((db, threads)) => {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
                    return Ok(Self::Ours(Box::new(Ours { runtime, db, threads: Some(threads) })));
                }
                Err(OpenError::Lock(LockError::Held)) if control::is_open(path) => return Ok(Self::Server(path)),
                Err(OpenError::Lock(LockError::Held | LockError::HeldByAnotherName)) => std::thread::sleep(TRY_EVERY),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot open the database {}", path.display()));
                }
            }
        }
        bail!("another chinwag has the database {} open, and does not answer", path.display())
    }

    /// Carries out one order.
    fn administer(&self, order: AdminCommand) -> anyhow::Result<Report> {
        let done = match self {
            Self::Server(path) => control::send(path, &order)
                .context("the server does not answer; the command may still be carried out")?,
            Self::Ours(ours) => ours.runtime.block_on(ours.db.administer(order)).map(|outcome| Report::from(&outcome)),
        };
        Ok(done?)
    }

    /// Has one of many steps carried out, each of which may be done twice: one that the database has no time for is
    /// tried again, for a while.
    fn step(&self, order: &AdminCommand) -> anyhow::Result<Report> {
        for _ in 1..STEP_TRIES {
            match self.administer(order.clone()) {
                Err(error) if matches!(error.downcast_ref(), Some(AdminError::Unavailable)) => {
                    note("the database has no time for this step: trying again");
                    std::thread::sleep(STEP_AGAIN);
                }
                done => return done,
            }
        }
        self.administer(order.clone()).context("given up; the same command goes on from here")
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.runtime.block_on(self.db.stop());
        if let Some(threads) = self.threads.take() {
            // Everything that was answered is on disk, however the threads end.
            drop(threads.join());
        }
    }
}

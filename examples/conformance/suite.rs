//! The suite: what a row is, how all of them are run, and what is reported of each.

mod check;
mod http;
mod rows;
mod socket;
mod world;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;

use check::{Check, Failure};
use world::World;

/// A server that only ever puts off is told to have failed. The longest rows wait out the rates of a thousand messages.
const ROW_DEADLINE: Duration = Duration::from_mins(5);

/// What is asked of a run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    /// Name and password; without them the first account of the server is the moderator.
    pub(crate) moderator: Option<(String, String)>,
    pub(crate) invite: Option<String>,
    pub(crate) bot: Option<String>,
    pub(crate) ping_interval: Duration,
    /// The id of the server's process, to be stopped by the last row.
    pub(crate) stop: Option<i32>,
    pub(crate) only: Only,
    /// How long anything that is no deadline of the contract may take.
    pub(crate) patience: Duration,
}

/// Which rows are run.
#[derive(Debug, Clone)]
pub(crate) enum Only {
    /// Those whose name contains this; all of them contain nothing.
    Containing(String),
    /// The one of this name.
    #[allow(dead_code, reason = "for tests that break one row at a time")]
    Named(&'static str),
}

impl Only {
    fn takes(&self, row: &Row) -> bool {
        match self {
            Self::Containing(pattern) => row.name.contains(pattern.as_str()),
            Self::Named(name) => row.name == *name,
        }
    }
}

/// How a row went.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    Failed { expected: String, got: String },
    NotOffered(String),
}

/// A row that was run: what is promised, how it went, and what was done for it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) promise: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) steps: Vec<String>,
}

impl Report {
    /// What was done, a step a line.
    pub(crate) fn told_steps(&self) -> String {
        self.steps.iter().flat_map(|step| ["    did       ", step, "\n"]).collect()
    }
}

impl fmt::Display for Report {
    /// A line; of a row that failed also what was expected, what came, and what was done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { name, promise, .. } = self;
        match &self.outcome {
            Outcome::Passed => writeln!(f, "pass         {name}: {promise}"),
            Outcome::NotOffered(why) => writeln!(f, "not offered  {name}: {promise} ({why})"),
            Outcome::Failed { expected, got } => {
                writeln!(f, "FAIL         {name}: {promise}\n    expected  {expected}\n    got       {got}")?;
                f.write_str(&self.told_steps())
            }
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Check> + Send>>;

/// One promise of the contract, and how it is tried.
struct Row {
    name: &'static str,
    promise: &'static str,
    run: fn(World) -> Running,
}

/// A table of rows: `"name", "what is promised" => function;`.
macro_rules! table {
    ($($name:literal, $promise:literal => $run:path;)*) => {
        &[$($crate::suite::Row { name: $name, promise: $promise, run: |world| Box::pin($run(world)) }),*]
    };
}
use table;

/// The address in `http://HOST:PORT`.
#[allow(dead_code, reason = "tests know the address")]
pub(crate) fn address(url: &str) -> anyhow::Result<SocketAddr> {
    use std::net::ToSocketAddrs as _;
    let authority = url.strip_prefix("http://").context("an address such as http://127.0.0.1:8080, without TLS")?;
    let authority = authority.trim_end_matches('/');
    let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    authority.to_socket_addrs()?.next().context("the host has no address")
}

/// The two parts of `NAME:PASSWORD`.
#[allow(dead_code, reason = "tests make the first account")]
pub(crate) fn credentials(text: &str) -> anyhow::Result<(String, String)> {
    let (name, password) = text.split_once(':').context("--moderator takes NAME:PASSWORD")?;
    Ok((name.to_owned(), password.to_owned()))
}

/// Every row, by name and promise.
pub(crate) fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows::all().map(|row| (row.name, row.promise))
}

/// Runs the rows asked for. Those that wait for a deadline run beside the others; those that leave the server in a
/// state in which others would fail are last.
pub(crate) async fn run(options: Options, mut tell: impl FnMut(&Report)) -> anyhow::Result<Vec<Report>> {
    let world = World::new(options.clone());
    world.prepare().await?;
    let chosen = |rows: &'static [&'static [Row]]| {
        let only = options.only.clone();
        rows.iter().copied().flatten().filter(move |row| only.takes(row))
    };
    let slow: Vec<_> = chosen(rows::SLOW).map(|row| tokio::spawn(grade(row, world.for_row()))).collect();
    let mut reports = Vec::new();
    for row in chosen(rows::USUAL) {
        reports.push(grade(row, world.for_row()).await);
        reports.last().into_iter().for_each(&mut tell);
    }
    for report in slow {
        reports.push(report.await?);
        reports.last().into_iter().for_each(&mut tell);
    }
    for row in chosen(rows::LAST) {
        reports.push(grade(row, world.for_row()).await);
        reports.last().into_iter().for_each(&mut tell);
    }
    Ok(reports)
}

async fn grade(row: &'static Row, world: World) -> Report {
    let ran = tokio::time::timeout(ROW_DEADLINE, (row.run)(world.clone())).await;
    let ran = ran.unwrap_or_else(|_| Err(check::broken("an end of the row", format!("none for {ROW_DEADLINE:?}"))));
    let outcome = match ran {
        Ok(()) => Outcome::Passed,
        Err(Failure::Broken { expected, got }) => Outcome::Failed { expected, got },
        Err(Failure::NotOffered(why)) => Outcome::NotOffered(why),
    };
    Report { name: row.name, promise: row.promise, outcome, steps: world.steps() }
}

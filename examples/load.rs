//! A load generator for any server that speaks chinwag's contract, so that everyone can measure their own device.
//!
//! `cargo build --release && cargo run --release --example load -- paced --clients 1000` starts
//! `target/release/chinwag` on a free port with a database of its own, drives it, and prints what it delivered, how
//! late, and what it cost in CPU and memory: beside the bare loop, which is what the kernel charges for the same
//! writes. `--help` tells the rest.
//!
//! It counts losses, repeats and disorder by the ids each connection saw, as a client would: a `resync` is followed by
//! reading `GET /messages?after=`, a closed connection by coming back with `last_id`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program talks to its terminal")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are read with three digits; lengths and ids stay far below 2^52"
)]

#[path = "load/bare.rs"]
mod bare;
#[path = "load/clients.rs"]
mod clients;
#[path = "load/report.rs"]
mod report;
#[path = "load/scenario.rs"]
mod scenario;
#[path = "load/seen.rs"]
mod seen;
#[path = "load/server.rs"]
mod server;
#[path = "load/wire.rs"]
mod wire;

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use clients::Crew;
use report::{Column, FAULTS, Report};
use server::Server;

/// The name of the column everything is compared with.
const BARE: &str = "bare";
const CHINWAG: &str = "target/release/chinwag --listen 127.0.0.1:{port} --db {db} --message-rate 0 --auth-rate 0 \
                       --address-connections 0 --user-connections 0";

/// Puts load on a chat server and says what it delivered and what it cost.
///
/// Without --spawn or --connect, chinwag itself is measured: build it first with `cargo build --release`. Latencies are
/// from sending a message to reading it; CPU and memory are the server process's own, from /proc.
#[derive(Parser)]
#[command(name = "load", next_help_heading = "Options of every scenario")]
struct Arguments {
    /// Start this server: words split at spaces, with {port} and {db} in it. `chinwag` alone is target/release/chinwag
    /// with its limits off. Repeat to compare several.
    #[arg(long, global = true, value_name = "[NAME=]COMMAND")]
    spawn: Vec<String>,
    /// Measure a server that runs already. Its limits must allow the load: see the flags chinwag is started with.
    #[arg(long, global = true, value_name = "ADDR:PORT", conflicts_with = "spawn")]
    connect: Option<SocketAddr>,
    /// The process of that server, for its CPU and memory.
    #[arg(long, global = true, requires = "connect")]
    pid: Option<u32>,
    /// Where started servers keep their databases; the speed of its disk is part of what is measured.
    #[arg(long, global = true, value_name = "DIRECTORY", default_value_os_t = env::temp_dir())]
    db_dir: PathBuf,
    /// Users to share out among the connections.
    #[arg(long, global = true, default_value_t = 4)]
    users: usize,
    /// Share the users out among so many private rooms, in which they talk instead of the lobby: the bare loop, and
    /// servers of the contract's first edition, have none.
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    rooms: usize,
    /// Characters of a message.
    #[arg(long, global = true, default_value_t = 64)]
    size: usize,
    /// Run everything so often, the servers in turn, and show each server's round with the least CPU, faults of all.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Leave out the bare loop that `paced`, `flood` and `idle` are compared with.
    #[arg(long, global = true)]
    no_bare: bool,
    /// Print JSON, one object a scenario and line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Clone, Subcommand)]
enum Scenario {
    /// A few clients send at a fixed rate, all read.
    Paced {
        #[arg(long, default_value_t = 1000)]
        clients: usize,
        /// Messages a second, all senders together.
        #[arg(long, default_value_t = 50.0)]
        rate: f64,
        #[arg(long, default_value_t = 10)]
        senders: usize,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Senders with a number of messages outstanding each: as fast as the server can.
    Flood {
        #[arg(long, default_value_t = 100)]
        clients: usize,
        #[arg(long, default_value_t = 50)]
        senders: usize,
        /// Messages each sender has under way.
        #[arg(long, default_value_t = 20)]
        outstanding: usize,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Connections that do nothing: memory for each, CPU for all.
    Idle {
        #[arg(long, default_value_t = 10_000)]
        clients: usize,
        /// Then so many of them send one frame of nearly 64 KiB: what memory is kept for it?
        #[arg(long, default_value_t = 1000)]
        heavy: usize,
        /// Two heartbeats fit in a minute.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Some clients stop reading for a while, then go on.
    Stall {
        #[arg(long, default_value_t = 100)]
        clients: usize,
        #[arg(long, default_value_t = 10)]
        stalling: usize,
        #[arg(long, default_value_t = 5000.0)]
        rate: f64,
        #[arg(long, default_value_t = 10)]
        senders: usize,
        /// How long they stop; before and after it is measured for half of it.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// As many people, each a user of their own, come in one after another, and leave all at once.
    ///
    /// Their sessions are written into the database, by a schema that chinwag and its peers share: hashing so many
    /// passwords would take minutes. So it works on servers started with --spawn.
    Join {
        #[arg(long, default_value_t = 10_000)]
        people: usize,
    },
    /// As many people are inside when the server is restarted, and all come back at once, having missed a little.
    ///
    /// It works on servers started with --spawn, like `join`.
    Restart {
        #[arg(long, default_value_t = 10_000)]
        people: usize,
        /// How many are on their way in at once.
        #[arg(long, default_value_t = 250)]
        at_once: usize,
        /// Messages that each of them has missed.
        #[arg(long, default_value_t = 10)]
        missed: u64,
    },
    /// One connection after another: the cost of an upgrade and an `auth`.
    Connect {
        #[arg(long, default_value_t = 5000)]
        connections: usize,
    },
    /// One page of 50 messages after another.
    History {
        #[arg(long, default_value_t = 5000)]
        requests: usize,
    },
    /// One list of so many open rooms after another, each with a message.
    List {
        #[arg(long, default_value_t = 50)]
        open_rooms: usize,
        #[arg(long, default_value_t = 5000)]
        requests: usize,
    },
    /// One search through so many messages, for a word that is in none, and what a page takes while others search.
    ///
    /// The messages are written into the database, so it works on servers started with --spawn.
    Search {
        #[arg(long, default_value_t = 1_000_000)]
        messages: u32,
        /// How many search while pages are asked for.
        #[arg(long, default_value_t = 4)]
        searchers: usize,
        #[arg(long, default_value_t = 2000)]
        requests: usize,
    },
    /// A few clients send at a fixed rate, first alone, then while pictures are stored.
    Pictures {
        #[arg(long, default_value_t = 10)]
        clients: usize,
        /// Messages a second, all senders together.
        #[arg(long, default_value_t = 20.0)]
        rate: f64,
        /// Pictures on their way at once.
        #[arg(long, default_value_t = 4)]
        at_once: usize,
        /// Bytes of a picture.
        #[arg(long, default_value_t = 300_000)]
        bytes: usize,
        /// How long without pictures, and how long with them.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// All that the contract's first edition has, as docs/PERFORMANCE.md shows it; some minutes.
    All,
    /// The limit itself, as a server: not stored, not checked, not resumed.
    #[command(hide = true)]
    BareServer { port: u16 },
}

impl Scenario {
    /// The runs of `all`.
    fn all() -> Vec<Self> {
        vec![
            Self::Paced { clients: 1000, rate: 50.0, senders: 10, seconds: 10 },
            Self::Flood { clients: 1000, senders: 20, outstanding: 5, seconds: 10 },
            Self::Flood { clients: 100, senders: 50, outstanding: 20, seconds: 10 },
            Self::Idle { clients: 10_000, heavy: 1000, seconds: 60 },
            Self::Stall { clients: 100, stalling: 10, rate: 5000.0, senders: 10, seconds: 10 },
            Self::Join { people: 10_000 },
            Self::Restart { people: 10_000, at_once: 250, missed: 10 },
            Self::Connect { connections: 5000 },
            Self::History { requests: 5000 },
        ]
    }

    /// Whether the bare loop can do it.
    fn has_limit(&self) -> bool {
        matches!(self, Self::Paced { .. } | Self::Flood { .. } | Self::Idle { .. })
    }

    /// How many users it needs, if their number is the point.
    fn users(&self) -> Option<usize> {
        if let Self::Join { people } | Self::Restart { people, .. } = self { Some(*people) } else { None }
    }

    /// How many messages it finds.
    fn messages(&self) -> u32 {
        if let Self::Search { messages, .. } = self { *messages } else { 0 }
    }

    fn title(&self) -> String {
        match self {
            Self::Paced { clients, rate, senders, seconds } => {
                format!("paced: {clients} clients, {senders} of them send {rate} messages/s together, {seconds} s")
            }
            Self::Flood { clients, senders, outstanding, seconds } => {
                format!("flood: {clients} clients, {senders} senders × {outstanding} outstanding, {seconds} s")
            }
            Self::Idle { clients, seconds, .. } => format!("idle: {clients} connections, {seconds} s"),
            Self::Stall { clients, stalling, rate, seconds, .. } => {
                format!("stall: {stalling} of {clients} clients stop reading for {seconds} s, {rate} messages/s")
            }
            Self::Join { people } => format!("join: {people} people come and go"),
            Self::Restart { people, at_once, missed } => {
                format!("restart: {people} people come back, {at_once} at once, and have missed {missed} messages")
            }
            Self::Connect { connections } => format!("connect: {connections} upgrades and auths"),
            Self::History { requests } => format!("history: {requests} pages of 50"),
            Self::List { open_rooms, requests } => format!("list: {requests} lists of {open_rooms} rooms"),
            Self::Search { messages, searchers, requests } => {
                format!("search: {messages} messages; {requests} pages of 50 while {searchers} search")
            }
            Self::Pictures { rate, at_once, bytes, seconds, .. } => {
                format!("pictures: {rate} messages/s, {seconds} s alone and {seconds} s with {at_once} × {bytes} bytes")
            }
            Self::All | Self::BareServer { .. } => String::new(),
        }
    }

    fn run(&self, server: &mut Server, size: usize, rooms: usize) -> Result<Column> {
        let crew = |clients, senders, stalling| Crew { clients, senders, stalling, rooms, size, sample: 1 };
        match *self {
            Self::Paced { clients, rate, senders, seconds } => {
                scenario::paced(server, crew(clients, senders, 0), rate, Duration::from_secs(seconds))
            }
            Self::Flood { clients, senders, outstanding, seconds } => {
                scenario::flood(server, crew(clients, senders, 0), outstanding, Duration::from_secs(seconds))
            }
            Self::Idle { clients, heavy, seconds } => {
                scenario::idle(server, crew(clients, 0, 0), heavy, Duration::from_secs(seconds))
            }
            Self::Stall { clients, stalling, rate, senders, seconds } => {
                scenario::stall(server, crew(clients, senders, stalling), rate, Duration::from_secs(seconds))
            }
            Self::Join { people } => scenario::join(server, crew(people, 0, 0)),
            Self::Restart { people, at_once, missed } => scenario::restart(server, crew(people, 1, 0), at_once, missed),
            Self::Connect { connections } => scenario::connect(server, connections),
            Self::History { requests } => scenario::history(server, crew(1, 1, 0), requests),
            Self::List { open_rooms, requests } => scenario::list(server, open_rooms, requests),
            Self::Search { searchers, requests, .. } => scenario::search(server, searchers, requests),
            Self::Pictures { clients, rate, at_once, bytes, seconds } => {
                let crew = crew(clients, clients, 0);
                scenario::pictures(server, crew, rate, (at_once, bytes), Duration::from_secs(seconds))
            }
            Self::All | Self::BareServer { .. } => unreachable!("`run` takes these apart"),
        }
    }
}

/// A server to measure: where it is, or how to start it.
enum Target {
    Spawned { name: String, command: String },
    Running { address: SocketAddr, pid: Option<u32> },
}

impl Target {
    fn name(&self) -> &str {
        match self {
            Self::Spawned { name, .. } => name,
            Self::Running { .. } => "server",
        }
    }

    /// Takes `NAME=COMMAND` apart; without a name the program's serves.
    fn parse(text: &str) -> Self {
        let text = if text == "chinwag" { CHINWAG } else { text };
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c));
        let (name, command) = text.split_once('=').filter(|(name, _)| is_name(name)).unwrap_or_else(|| {
            let program = text.split_whitespace().next().unwrap_or_default();
            (program.rsplit('/').next().unwrap_or_default(), text)
        });
        Self::Spawned { name: name.to_owned(), command: command.to_owned() }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Scenario::BareServer { port } = arguments.scenario {
        return bare::serve(port);
    }
    allow_many_sockets()?;
    let targets = targets(arguments)?;
    let scenarios = match &arguments.scenario {
        Scenario::All => Scenario::all(),
        one => vec![one.clone()],
    };
    let mut faultless = true;
    for scenario in scenarios {
        let report = compare(arguments, &scenario, &targets)?;
        if arguments.json {
            println!("{}", report.to_json());
        } else {
            println!("{}", report.to_table());
        }
        faultless &=
            report.columns.iter().all(|column| FAULTS.iter().all(|fault| column.value(fault).unwrap_or(0.0) == 0.0));
    }
    ensure!(faultless, "messages were lost, repeated, out of order or refused: see the tables");
    Ok(())
}

fn targets(arguments: &Arguments) -> Result<Vec<Target>> {
    if let Some(address) = arguments.connect {
        return Ok(vec![Target::Running { address, pid: arguments.pid }]);
    }
    if arguments.spawn.is_empty() {
        return Ok(vec![Target::parse("chinwag")]);
    }
    let targets: Vec<Target> = arguments.spawn.iter().map(|command| Target::parse(command)).collect();
    for target in &targets {
        if let Target::Spawned { command, .. } = target {
            ensure!(command.contains("{port}"), "--spawn needs {{port}} in its command: {command}");
        }
    }
    Ok(targets)
}

/// Runs one scenario on every target in turn, as many rounds as asked for.
fn compare(arguments: &Arguments, scenario: &Scenario, targets: &[Target]) -> Result<Report> {
    let this = env::current_exe()?;
    let bare = Target::Spawned { name: BARE.to_owned(), command: format!("{} bare-server {{port}}", this.display()) };
    let with_bare = scenario.has_limit() && !arguments.no_bare && arguments.rooms == 0;
    let targets: Vec<&Target> = with_bare.then_some(&bare).into_iter().chain(targets).collect();
    let users = scenario.users().unwrap_or(arguments.users).max(arguments.rooms).max(1);
    let mut columns: Vec<Column> = Vec::new();
    for _ in 0..arguments.rounds {
        for (index, target) in targets.iter().enumerate() {
            let server = match target {
                Target::Spawned { command, .. } => {
                    Server::spawn(command, &arguments.db_dir, users, scenario.messages())
                }
                Target::Running { address, pid } => Server::attach(*address, *pid, users),
            };
            let column = server.and_then(|mut server| scenario.run(&mut server, arguments.size, arguments.rooms));
            let mut column = column.with_context(|| format!("{}: {}", target.name(), scenario.title()))?;
            target.name().clone_into(&mut column.server);
            match columns.get_mut(index) {
                Some(best) => best.merge(column),
                None => columns.push(column),
            }
        }
    }
    let place = if arguments.rooms > 0 { format!(", in {} private rooms", arguments.rooms) } else { String::new() };
    Ok(Report { scenario: scenario.title() + &place, columns })
}

/// Every client is a socket, and a server that is started inherits the limit.
fn allow_many_sockets() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("cannot raise the limit of sockets")
}

//! Grades any server by chinwag's contract (`docs/PROTOCOL.md`), row by row.
//!
//! `cargo run --example conformance -- http://127.0.0.1:8080` prints for each row what is promised and, where the
//! server does not keep it, what was done, what was expected and what came. The server must be fresh, since its first
//! account is the moderator that some rows need; or `--moderator NAME:PASSWORD` names one. It must also let one address
//! in often, since some hundred people register and connect from here: chinwag with `--auth-rate 0 --message-rate 100
//! --user-connections 0 --address-connections 0`. The exit status is 0 only if no row failed: what a server need not
//! have (pictures, push) is counted as not offered, which is never a pass.
//!
//! A row proves that something does *not* come by asking `ping`, whose `pong` is in line with the events, and never by
//! waiting a while. Only the contract's own deadlines are waited for. The suite itself is in `tests/conformance.rs`
//! shown to fail, row by row, against a server broken on purpose.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program talks to its terminal")]

#[path = "conformance/suite.rs"]
mod suite;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use suite::{Options, Outcome, Report};

/// Grades a chat server by the contract, row by row.
///
/// Some hundred people register and connect from here: to a server that limits that, lift the limits first (chinwag
/// serve --auth-rate 0 --message-rate 100 --user-connections 0 --address-connections 0).
#[derive(Parser)]
#[command(name = "conformance")]
struct Arguments {
    /// The server, such as <http://127.0.0.1:8080>
    url: String,
    /// A moderator's account, for a server that has accounts already
    #[arg(long, value_name = "NAME:PASSWORD")]
    moderator: Option<String>,
    /// An invitation of many uses, for a server that asks for one
    #[arg(long, value_name = "CODE", allow_hyphen_values = true)]
    invite: Option<String>,
    /// A bot's token, for the rows about bots
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    bot: Option<String>,
    /// The server's interval between pings, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 30)]
    ping_interval: u64,
    /// The server's process, which the last row stops by SIGTERM
    #[arg(long, value_name = "PID")]
    stop: Option<i32>,
    /// Only rows whose name contains this
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// How long anything but a deadline of the contract may take, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 20)]
    patience: u64,
    /// Tell every step of the rows that passed, too
    #[arg(long)]
    verbose: bool,
    /// Only list the rows
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for (name, promise) in suite::names() {
            println!("{name:<32} {promise}");
        }
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let options = Options {
        address: suite::address(&arguments.url)?,
        moderator: arguments.moderator.as_deref().map(suite::credentials).transpose()?,
        invite: arguments.invite.clone(),
        bot: arguments.bot.clone(),
        ping_interval: Duration::from_secs(arguments.ping_interval),
        stop: arguments.stop,
        only: suite::Only::Containing(arguments.only.clone().unwrap_or_default()),
        patience: Duration::from_secs(arguments.patience),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reports = runtime.block_on(suite::run(options, |report| print(report, arguments.verbose)))?;
    let count = |wanted: fn(&Outcome) -> bool| reports.iter().filter(|report| wanted(&report.outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
    let not_offered = count(|outcome| matches!(outcome, Outcome::NotOffered(_)));
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    println!("{passed} passed, {failed} failed, {not_offered} not offered");
    Ok(failed == 0 && passed > 0)
}

fn print(report: &Report, verbose: bool) {
    print!("{report}");
    if verbose && !matches!(report.outcome, Outcome::Failed { .. }) {
        print!("{}", report.told_steps());
    }
}

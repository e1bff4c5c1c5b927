//! The command line: arguments, logs, signals, exit codes.

mod command;
mod notify;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use chinwag::config::{Config, LogFormat, Registration};
use chinwag::{Server, shards_for};
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use command::Command;
use notify::Supervisor;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// A real-time chat server for small devices
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Config,
}

const EXAMPLES: &str = "\
Every flag is also an environment variable: --message-rate is CHINWAG_MESSAGE_RATE.
Logs go to standard error; RUST_LOG=debug shows more.

Examples:
  chinwag                                        try it: http://127.0.0.1:8080, chinwag.db in this folder
  chinwag --listen 0.0.0.0:8080 --db /srv/chat.db  for everyone who can reach this machine
  chinwag --registration invite                  nobody comes in without an invitation ...
  chinwag invite --uses 5 --expires 7d           ... such as this one
  chinwag user disable mallory                   out at once, open windows and all
  chinwag backup chat-$(date +%F).db             while the server runs";

/// A bad flag or value, as most programs have it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            complain(&one_line(&error.to_string()));
            return ExitCode::from(EXIT_USAGE);
        }
        // `--help` and `--version`.
        Err(text) => return if text.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE },
    };
    let done = match cli.command {
        None => {
            log_to_stderr(cli.serve.log_format, Level::INFO);
            serve(cli.serve)
        }
        Some(Command::Serve(config)) => {
            log_to_stderr(config.log_format, Level::INFO);
            serve(*config)
        }
        Some(command) => {
            log_to_stderr(LogFormat::Text, Level::WARN);
            command::run(command, &cli.serve.db)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {}", whole_story(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Reads the arguments. Flags of the server belong behind `serve`; before another command they would do nothing, which
/// is said. `--db` is every command's, and may be anywhere.
fn parse() -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    if let Some((command, _)) = matches.subcommand()
        && let Some(stray) = matches.ids().filter(given).find(|id| *id != "db" && *id != "Config")
    {
        let flag = stray.as_str().replace('_', "-");
        let explanation = format!("--{flag} is a flag of the server: it belongs behind serve, not before {command}");
        return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, explanation));
    }
    Cli::from_arg_matches(&matches)
}

/// Clap explains over several lines; the contract asks for one.
fn one_line(explanation: &str) -> String {
    let lines = explanation.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    format!("{} (see chinwag --help)", lines.join(" "))
}

/// An error and what caused it. SQLite's bare error number is left out: the message before it says the same in words.
fn whole_story(error: &anyhow::Error) -> String {
    let causes = error.chain().filter(|cause| !cause.is::<rusqlite::ffi::Error>());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn complain(line: &str) {
    // Without a standard error there is nowhere left to complain.
    drop(writeln!(std::io::stderr(), "{}", line.replace('\n', " ")));
}

/// Logs to standard error, as `RUST_LOG` says: a level, or levels by module; if it says nothing, up to `level`.
fn log_to_stderr(format: LogFormat, level: Level) {
    let asked = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = asked.as_ref().map(|filter| filter.parse::<Targets>());
    let understood = !matches!(filter, Some(Err(_)));
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| Targets::new().with_default(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    if !understood {
        tracing::warn!(RUST_LOG = asked, %level, "RUST_LOG is not understood");
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    let shards = shards_for(std::thread::available_parallelism().map_or(1, Into::into));
    // One shard needs one thread: the writer thread and the kernel's part of each write keep the other core busy.
    let mut runtime = match shards {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime =
        runtime.worker_threads(shards).max_blocking_threads(8).enable_all().build().context("cannot start")?;
    let registration = config.registration;
    let served = runtime.block_on(async {
        let server = Server::bind(config, shards).await?;
        let supervisor = Supervisor::from_environment();
        // Before the address is printed: whoever reads it may stop the server at once.
        stop_on_signals(server.shutdown_handle(), supervisor.clone())?;
        let addresses = server.addresses();
        server.announce(&addresses).context("cannot write to the lock file")?;
        announce(&addresses)?;
        if let Some(address) = addresses.first()
            && server.is_new()
        {
            welcome(address, registration);
        }
        if let Some(address) = server.metrics_addr() {
            tracing::info!(%address, "serving metrics");
        }
        supervisor.ready();
        server.run().await?;
        tracing::info!("stopped");
        anyhow::Ok(())
    });
    // Work that does not end by itself was given up already.
    runtime.shutdown_background();
    served
}

fn announce(addresses: &[String]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    for address in addresses {
        writeln!(stdout, "chinwag is listening on {address}").context("cannot print the address")?;
        tracing::info!(address, "listening");
    }
    stdout.flush().context("cannot print the address")
}

/// Says to who starts a server for the first time what to do next.
fn welcome(url: &str, registration: Registration) {
    match registration {
        Registration::Open => tracing::info!("nobody has an account yet: open {url} and create one"),
        Registration::Invite => tracing::info!("nobody has an account yet: `chinwag invite` prints a link to {url}"),
        Registration::Closed => {
            tracing::info!("nobody has an account yet: `chinwag user add NAME` makes one, for {url}");
        }
    }
}

/// The first SIGTERM or SIGINT stops the server cleanly, the second at once.
fn stop_on_signals(handle: chinwag::ShutdownHandle, supervisor: Supervisor) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; a second signal ends at once");
        supervisor.stopping();
        handle.shutdown();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    Ok(())
}

//! The command line: arguments, logs, signals, exit codes.

mod notify;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use chinwag::config::{Config, LogFormat};
use chinwag::{Server, shards_for};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use notify::Supervisor;

/// A real-time chat server for small devices
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Config,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server (what chinwag does without a command)
    #[command(after_help = EXAMPLES)]
    Serve(Config),
}

const EXAMPLES: &str = "\
Every flag is also an environment variable: --message-rate is CHINWAG_MESSAGE_RATE.
Logs go to standard error; RUST_LOG=debug shows more.

Examples:
  chinwag                                        try it: http://127.0.0.1:8080, chinwag.db in this folder
  chinwag --listen 0.0.0.0:8080 --db /srv/chat.db  for everyone who can reach this machine
  chinwag --registration closed                  nobody new comes in";

/// A bad flag or value (as in `sysexits`-less tradition: 2).
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            complain(&one_line(&error.to_string()));
            return ExitCode::from(EXIT_USAGE);
        }
        // `--help` and `--version`.
        Err(text) => return if text.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE },
    };
    let config = match cli.command {
        Some(Command::Serve(config)) => config,
        None => cli.serve,
    };
    log_to_stderr(config.log_format);
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Clap explains over several lines; the contract asks for one.
fn one_line(explanation: &str) -> String {
    let lines = explanation.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    format!("{} (see chinwag --help)", lines.join(" "))
}

fn complain(line: &str) {
    // Without a standard error there is nowhere left to complain.
    drop(writeln!(std::io::stderr(), "{}", line.replace('\n', " ")));
}

/// Logs to standard error, as `RUST_LOG` says: a level, or levels by module.
fn log_to_stderr(format: LogFormat) {
    let asked = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = asked.as_ref().map(|filter| filter.parse::<Targets>());
    let understood = !matches!(filter, Some(Err(_)));
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    if !understood {
        tracing::warn!(RUST_LOG = asked, "RUST_LOG is not understood: the level is info");
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    let shards = shards_for(std::thread::available_parallelism().map_or(1, Into::into));
    // One shard needs one thread: a second would only move work between cores (measured, see the README).
    let mut runtime = match shards {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime =
        runtime.worker_threads(shards).max_blocking_threads(8).enable_all().build().context("cannot start")?;
    let served = runtime.block_on(async {
        let server = Server::bind(config, shards).await?;
        let supervisor = Supervisor::from_environment();
        // Before the address is printed: whoever reads it may stop the server at once.
        stop_on_signals(server.shutdown_handle(), supervisor.clone())?;
        announce(&server.addresses())?;
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

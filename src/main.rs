//! The command line: arguments, logs, signals, exit codes.

mod command;
mod notify;
mod output;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use chinwag::config::{Config, LogFormat, Registration};
use chinwag::{Server, reachable};
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use command::Command;
use notify::Supervisor;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
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
  chinwag --registration invite                  registration requires an invitation ...
  chinwag invite --uses 5 --expires 7d           ... such as this one
  chinwag user disable mallory                   ends their sessions and closes their windows at once
  chinwag backup chat-$(date +%F).db             while the server runs";

/// The exit code for a bad flag or value, as in most programs.
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
        None => log_and_serve(cli.serve),
        Some(Command::Serve(config)) => log_and_serve(*config),
        Some(command) => {
            // A command may wait until its output is read.
            log_to(BoxMakeWriter::new(std::io::stderr), LogFormat::Text, Level::WARN);
            command::run(command, &cli.serve.db)
        }
    };
    match done {
        Ok(()) => {
            output::end_log(None);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("error: {}", whole_story(&error)));
            ExitCode::FAILURE
        }
    }
}

fn log_and_serve(config: Config) -> anyhow::Result<()> {
    let log = output::Log::start().context("cannot start")?;
    log_to(BoxMakeWriter::new(log), config.log_format, Level::INFO);
    serve(config)
}

/// Parses the arguments. Flags of the server belong after `serve`; before another command they would have no effect,
/// which is an error. `--db` applies to every command and may be anywhere.
///
/// A variable that is set but empty, as in compose files, counts as not set.
fn parse() -> Result<Cli, clap::Error> {
    let matches = without_empty_variables(Cli::command()).try_get_matches()?;
    let given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    if let Some((command, _)) = matches.subcommand()
        && let Some(stray) = matches.ids().filter(given).find(|id| *id != "db" && *id != "Config")
    {
        let flag = stray.as_str().replace('_', "-");
        let explanation = format!("--{flag} is a flag of the server: it belongs after serve, not before {command}");
        return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, explanation));
    }
    Cli::from_arg_matches(&matches)
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if is_empty(name) => arg.env(None::<&'static str>),
        _ => arg,
    });
    let names: Vec<_> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_empty_variables))
}

/// Clap explains in several lines; the contract asks for one.
fn one_line(explanation: &str) -> String {
    let lines = explanation.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    format!("{} (see chinwag --help)", lines.join(" "))
}

/// An error and its causes. SQLite's bare error number is left out: the message before it says the same in words.
fn whole_story(error: &anyhow::Error) -> String {
    let causes = error.chain().filter(|cause| !cause.is::<rusqlite::ffi::Error>());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn complain(line: &str) {
    // A text from an argument or a file must not be able to control the terminal.
    let printable = |char: char| match char {
        '\n' => ' ',
        _ if char.is_control() => char::REPLACEMENT_CHARACTER,
        _ => char,
    };
    output::end_log(Some(&line.chars().map(printable).collect::<String>()));
}

/// Logs to `output`, at the level or the levels by module in `RUST_LOG`; at `level` without it.
fn log_to(output: BoxMakeWriter, format: LogFormat, level: Level) {
    let asked = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = asked.as_ref().map(|filter| filter.parse::<Targets>());
    let understood = !matches!(filter, Some(Err(_)));
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| Targets::new().with_default(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(output).with_target(false);
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
    let mut runtime = match config.shards() {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime =
        runtime.worker_threads(config.shards()).max_blocking_threads(8).enable_all().build().context("cannot start")?;
    let public_url = config.public_url.clone();
    let served = runtime.block_on(async {
        let server = Server::bind(config).await?;
        let supervisor = Supervisor::from_environment();
        // Before the address is printed: a process that reads it may stop the server at once.
        stop_on_signals(server.shutdown_handle(), supervisor.clone())?;
        let addresses = server.addresses();
        server.announce(&addresses).context("cannot write to the lock file")?;
        announce(&addresses)?;
        if let Some(address) = addresses.first()
            && server.is_new()
        {
            let address = match public_url {
                Some(url) => url.as_str().to_owned(),
                // Nobody's browser opens a Unix socket: there is a proxy in front.
                None if address.starts_with("unix:") => "(what people reach this server at, see --public-url)".into(),
                None => reachable(address),
            };
            welcome(&server, &address).await?;
        }
        if let Some(address) = server.metrics_addr() {
            tracing::info!(%address, "serving metrics");
        }
        supervisor.ready();
        server.run().await?;
        tracing::info!("stopped");
        anyhow::Ok(())
    });
    // The server has given up work that does not end by itself.
    runtime.shutdown_background();
    served
}

fn announce(addresses: &[String]) -> anyhow::Result<()> {
    for address in addresses {
        tracing::info!(address, "listening");
    }
    let lines: Vec<_> = addresses.iter().map(|address| format!("chinwag is listening on {address}\n")).collect();
    output::print(&lines.concat()).context("cannot print the address")
}

/// Says what to do next when a server starts for the first time.
async fn welcome(server: &Server, url: &str) -> anyhow::Result<()> {
    match server.registration() {
        Registration::Open => tracing::info!("nobody has an account yet: open {url} and create one"),
        Registration::Invite => {
            let code = server.first_invite().await.context("cannot make the first invitation")?;
            tracing::info!("nobody has an account yet: the link on standard output makes the first one");
            // Not in the log: the person who has the link administers the server from then on.
            output::print(&format!("the first account is made at {url}/#invite={}\n", code.reveal()))
                .context("cannot print the link")?;
        }
        Registration::Closed => {
            tracing::info!("nobody has an account yet: `chinwag user add NAME` makes one, for {url}");
        }
    }
    Ok(())
}

/// The first SIGTERM, SIGINT or SIGHUP stops the server cleanly, the second at once.
fn stop_on_signals(handle: chinwag::ShutdownHandle, supervisor: Supervisor) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // Its terminal is gone.
            _ = hangup.recv() => {}
        }
        tracing::info!("stopping; a second signal ends at once");
        supervisor.stopping();
        handle.shutdown();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        output::end_log(None);
        std::process::exit(1);
    });
    Ok(())
}

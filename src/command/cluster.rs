//! `cluster`: the log that several nodes share, from the operator's side.

use std::path::Path;

use anyhow::bail;
use chinwag::cluster::{self, LogStatus, NodeStatus, Options};
use clap::Subcommand;

use super::{count, note, say};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Create the log of a new cluster, starting from this database (no server may have it open)
    Init {
        #[command(flatten)]
        options: Options,
        /// How many of the NATS servers keep the log: 3, or 1 if losing that machine may lose everything
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=5))]
        replicas: u32,
        /// Replace an existing log: other nodes then need a backup of this database, and clients load everything again
        #[arg(long)]
        anew: bool,
    },
    /// Show what the log holds, and how far each node has applied it
    Status {
        #[command(flatten)]
        options: Options,
    },
    /// Say what is configured wrong in the NATS servers and the log
    Check {
        #[command(flatten)]
        options: Options,
        /// The monitoring port of a NATS server, to check that it syncs to its disk; repeatable
        #[arg(long, value_name = "HTTP-URL", value_delimiter = ',')]
        monitor: Vec<String>,
    },
    /// Detach this database from the log, to run as a single server again (no server may have it open)
    Leave {
        #[command(flatten)]
        options: Options,
        /// Do not ask the log whether this database has all that is in it: for a log that is gone
        #[arg(long)]
        unchecked: bool,
    },
}

pub(super) fn run(command: ClusterCommand, path: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        ClusterCommand::Init { options, replicas, anew } => {
            let made = runtime.block_on(cluster::init(&options, path, replicas, anew))?;
            if made.replicas < 3 {
                note("with fewer than 3 replicas, losing one machine can lose the log");
            }
            say(&format!("log {} is made; {} follows it, with epoch {}", made.log, path.display(), made.epoch))?;
            say("the other nodes start from a backup of this database: chinwag backup FILE")
        }
        ClusterCommand::Status { options } => {
            let status = runtime.block_on(cluster::status(&options))?;
            show(&status)
        }
        ClusterCommand::Check { options, monitor } => {
            let faults = runtime.block_on(cluster::check(&options, &monitor))?;
            if monitor.is_empty() {
                note("without --monitor it cannot be checked whether the servers sync to their disks");
            }
            if faults.is_empty() {
                return say("ok");
            }
            for fault in &faults {
                say(fault)?;
            }
            bail!("{} found", count(faults.len() as u64, "fault"))
        }
        ClusterCommand::Leave { options, unchecked } => {
            let log = runtime.block_on(cluster::leave((!unchecked).then_some(&options), path))?;
            say(&format!("{} no longer follows the log {log}", path.display()))
        }
    }
}

fn show(status: &LogStatus) -> anyhow::Result<()> {
    let LogStatus { server, version, log, entries: (first, last), bytes, replicas, leader, followers, nodes } = status;
    say(&format!("server     {server}, version {version}"))?;
    say(&format!("log        {}", log.as_deref().unwrap_or("not made by chinwag")))?;
    say(&format!("entries    {first} to {last}, {bytes} bytes"))?;
    say(&format!("replicas   {replicas}"))?;
    if let Some(leader) = leader {
        say(&format!("leader     {leader}"))?;
    }
    for (name, current) in followers {
        say(&format!("follower   {name}{}", if *current { "" } else { ", behind" }))?;
    }
    for NodeStatus { node, version, applied, chain, users, failure } in nodes {
        let failure = failure.as_ref().map_or_else(String::new, |failure| format!("; {failure}"));
        say(&format!(
            "node       {node}, entries of version {version}, applied {applied}, chain {chain}, {}{failure}",
            count(*users as u64, "user")
        ))?;
    }
    Ok(())
}

//! Many nodes, one chat: what one node is asked to change becomes an entry of a log that all nodes apply.
//!
//! The log is a stream of NATS JetStream, kept by a majority of its servers. Each node has its own database and applies
//! the same entries in the same order, so that all databases are equal: state machine replication. There is nothing
//! else that nodes agree on; names, invitations, nonces and sessions are decided where they are on one machine, when a
//! change is applied, and by the same code.

mod barrier;
#[cfg(feature = "push")]
mod duty;
mod entry;
mod follower;
mod jetstream;
mod nats;
mod nkey;
mod node;
mod operator;
mod presence;
mod publisher;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use nats::{Link, Servers};
use nkey::NKey;
use node::{Failure, Node};

use crate::db::{Db, Reads, Replica};
use crate::fan_out::Presence;

#[cfg(feature = "push")]
pub(crate) use duty::Duty;
#[cfg(test)]
pub(crate) use entry::VERSION;
pub use nats::Address;
pub use operator::{LogStatus, Made, NodeStatus, OperatorError, check, init, leave, status};

/// Bytes that a server must take in one message: the longest entry holds a picture, in base64.
pub(crate) const MAX_PAYLOAD_NEEDED: usize = 1024 * 1024;

/// How the log is reached.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// A NATS server that keeps the log, as nats://HOST:PORT or tls://HOST:PORT; repeatable
    #[arg(long, env = "CHINWAG_LOG", value_name = "URL", value_delimiter = ',')]
    pub log: Vec<Address>,

    /// The file with the nkey seed that the NATS servers know this node by
    #[arg(long, env = "CHINWAG_LOG_NKEY", value_name = "FILE", requires = "log")]
    pub log_nkey: Option<PathBuf>,

    /// The certificates (PEM) that the NATS servers' own are checked against
    #[arg(long, env = "CHINWAG_LOG_CA", value_name = "FILE", requires = "log")]
    pub log_ca: Option<PathBuf>,
}

/// Why the log cannot be reached as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no seed of a user.
    #[error("{0} has no nkey seed of a user: it begins with SU")]
    NoSeed(String),
    /// Others than its owner can read the file.
    #[error("{0} can be read by others: chmod 600 it")]
    ReadByOthers(String),
    /// The file has no certificates that could be used.
    #[error("{0} has no certificates in PEM")]
    NoCertificates(String),
    /// Nothing says whom to trust.
    #[error("tls:// needs --log-ca, the certificates to check the servers' own against")]
    NeedsCa,
    /// No server is named.
    #[error("give --log, the address of a NATS server")]
    NeedsLog,
}

impl Options {
    /// Whether this server is one of several.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        !self.log.is_empty()
    }

    /// Reads the files that are named.
    fn servers(&self) -> Result<Servers, OptionsError> {
        if self.log.is_empty() {
            return Err(OptionsError::NeedsLog);
        }
        let key = self.log_nkey.as_deref().map(read_key).transpose()?.map(Arc::new);
        let mut roots = RootCertStore::empty();
        match &self.log_ca {
            Some(path) => {
                let no_certificates = || OptionsError::NoCertificates(path.display().to_string());
                let pem = read(path)?;
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    roots.add(certificate.map_err(|_| no_certificates())?).map_err(|_| no_certificates())?;
                }
                if roots.is_empty() {
                    return Err(no_certificates());
                }
            }
            None if self.log.iter().any(Address::is_tls) => return Err(OptionsError::NeedsCa),
            None => {}
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        if let Some(open) = self.log.iter().find(|address| !address.is_tls() && !address.is_loopback()) {
            tracing::warn!(server = %open, "anybody on the network between here and there can read all messages: use tls://");
        }
        Ok(Servers { addresses: self.log.clone(), key, tls: Arc::new(tls) })
    }
}

/// By how much the clocks of a node and of the log may differ for what has expired to be removed.
const CLOCK_TOLERANCE_MS: u64 = 3_600_000;

/// Why a node cannot take its place in the log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The flags do not say how to reach the log.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The log is not what this node followed.
    #[error("{0}")]
    Log(String),
}

/// What is said of a task that is gone, which is better noticed at once than by its consequences.
const TASK_ENDED: &str = "a task of the node ended unexpectedly";

/// This node's part in the cluster: the tasks that publish and follow, which end with the value.
#[derive(Debug)]
pub(crate) struct Cluster {
    node: Arc<Node>,
    /// They end when the node stops, and before that by a bug only.
    tasks: Mutex<JoinSet<()>>,
    /// What is needed to meet the other nodes, until they are met.
    unmet: Option<(Db, Reads)>,
}

/// The health of this node, for monitoring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogFigures {
    /// The last entry that is applied.
    pub(crate) applied: u64,
    /// Entries that the log is known to have after it.
    pub(crate) behind: u64,
    /// What all entries come to.
    pub(crate) chain: u64,
    /// Nodes that live, this one included.
    pub(crate) nodes: usize,
    /// Whether entries are applied and published.
    pub(crate) is_up: bool,
    /// By how many milliseconds our clock is ahead of the log's.
    pub(crate) clock_ahead: i64,
}

impl Cluster {
    /// Connects to the log and applies all that it has: what comes to this database afterwards is new to everybody.
    /// Waits for servers that do not answer as long as it takes.
    pub(crate) async fn start(options: &Options, db: Db, replica: Replica) -> Result<Self, StartError> {
        let Replica { followed, proposals, entries, progress, barriers, reads } = replica;
        let (link, connecting) = Link::keep(options.servers()?);
        let node = Arc::new(Node::new(link, followed, progress));
        let (started, mut start) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(connecting);
        tasks.spawn(follower::follow(Arc::clone(&node), entries, started));
        tasks.spawn(publisher::publish(Arc::clone(&node), proposals));
        tasks.spawn(barrier::pass(db.clone(), barriers));
        let mut failure = node.failure.subscribe();
        tokio::select! {
            biased;
            failure = failure.wait_for(Option::is_some) => {
                let failure = failure.ok().and_then(|failure| failure.clone());
                return Err(StartError::Log(failure.map_or_else(String::new, |failure| failure.reason().to_owned())));
            }
            _ = tasks.join_next() => return Err(StartError::Log(TASK_ENDED.into())),
            () = reach(&node, &mut start) => {}
        }
        if node.version_spoken() < entry::VERSION {
            learn_versions(&node).await;
        }
        tracing::info!(node = %node.id, log = node.followed.log, applied = node.progress.position().applied, "in the cluster");
        Ok(Self { node, tasks: Mutex::new(tasks), unmet: Some((db, reads)) })
    }

    /// Tells other nodes who is here, and listens to who is there. `rules` are the flags that must be the same
    /// everywhere.
    pub(crate) fn meet_others(&mut self, presence: Arc<Presence>, rules: String) {
        if let Some((db, reads)) = self.unmet.take() {
            self.tasks().spawn(presence::keep(Arc::clone(&self.node), presence, rules, db, reads));
        }
    }

    /// Has this node push when it is its duty, and say when a page in sight of a user was last heard from here.
    #[cfg(feature = "push")]
    pub(crate) fn take_part_in_pushing(&mut self, db: Db, eyes: duty::Eyes) {
        self.node.pushing.take_part();
        self.tasks().spawn(duty::keep(Arc::clone(&self.node), db, eyes));
    }

    /// The duty to push, for the one who pushes.
    #[cfg(feature = "push")]
    pub(crate) fn duty(&self, db: Db) -> Duty {
        Duty::new(Arc::clone(&self.node), db)
    }

    /// Whether it is this node that removes what has expired: the first of those that live. A clock that is far from
    /// the log's, whichever of the two is wrong, removes nothing.
    pub(crate) async fn is_sweeper(&self, db: &Db) -> bool {
        // Its own entry says what time it is in the log.
        if !self.node.is_first() || db.pass_barrier().await.is_err() {
            return false;
        }
        let ahead = self.node.clock_ahead();
        let is_right = ahead.unsigned_abs() < CLOCK_TOLERANCE_MS;
        if !is_right {
            tracing::warn!(ahead_ms = ahead, "this clock and that of NATS differ: nothing that has expired is removed");
        }
        is_right
    }

    /// How this node is.
    pub(crate) fn figures(&self) -> LogFigures {
        let position = self.node.progress.position();
        LogFigures {
            applied: position.applied,
            behind: self.node.behind(),
            chain: position.chain,
            nodes: self.node.peers().len() + 1,
            is_up: self.node.is_up(),
            clock_ahead: self.node.clock_ahead(),
        }
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves, with the reason, when this node must not go on.
    pub(crate) async fn ended(&self) -> String {
        let mut failure = self.node.failure.subscribe();
        tokio::select! {
            // A task that ends because of a failure has said so.
            biased;
            failure = failure.wait_for(|failure| matches!(failure, Some(Failure::Node(_)))) => {
                let failure = failure.ok().and_then(|failure| failure.clone());
                failure.map_or_else(String::new, |failure| failure.reason().to_owned())
            }
            _ = std::future::poll_fn(|context| self.tasks().poll_join_next(context)) => TASK_ENDED.into(),
        }
    }
}

/// Waits until what the log had when it could first be read is applied.
async fn reach(node: &Node, start: &mut mpsc::Receiver<u64>) {
    let Some(last) = start.recv().await else { return std::future::pending().await };
    // Fails when the node is gone, which this reference holds.
    drop(node.progress.watch().wait_for(|position| position.applied >= last).await);
}

/// Asks the nodes that run which entries they read, before anything is written that one of them does not know.
async fn learn_versions(node: &Node) {
    if let Some(connection) = node.link.current()
        && let Ok(others) = presence::ask_all(&connection, Some(&node.followed.log)).await
    {
        node.speak(others.into_iter().map(|(_, beat)| beat.version).min().unwrap_or(entry::VERSION));
    }
}

/// Feeds bytes to the parsers of what comes from outside.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(bytes: &[u8]) {
    if let Ok(body) = entry::decode(bytes) {
        assert!(!body.by.is_empty());
    }
    nats::read_anything(bytes);
}

fn read(path: &Path) -> Result<Vec<u8>, OptionsError> {
    std::fs::read(path).map_err(|source| OptionsError::Unreadable { path: path.display().to_string(), source })
}

fn read_key(path: &Path) -> Result<NKey, OptionsError> {
    use std::os::unix::fs::PermissionsExt as _;
    let name = || path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|source| OptionsError::Unreadable { path: name(), source })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(OptionsError::ReadByOthers(name()));
    }
    let text = String::from_utf8(read(path)?).map_err(|_| OptionsError::NoSeed(name()))?;
    // Tools write comments and dashes around a seed.
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    seed.and_then(NKey::parse).ok_or_else(|| OptionsError::NoSeed(name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_over_tls_needs_the_certificates_that_its_own_is_checked_against() {
        let servers = |address: &str| Options { log: vec![address.parse().unwrap()], ..Options::default() }.servers();
        assert!(matches!(servers("tls://a.example"), Err(OptionsError::NeedsCa)));
        assert!(servers("nats://127.0.0.1").is_ok());
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_node() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        tasks.spawn(async { panic!("a bug") });
        let cluster = Cluster { node: Arc::new(node::tests::lone()), tasks: Mutex::new(tasks), unmet: None };
        assert_eq!(cluster.ended().await, TASK_ENDED);
    }
}

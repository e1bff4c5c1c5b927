//! What an operator does to a cluster from a shell: make its log, check that the log is kept safely, see how far each
//! node is, and detach a database.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::jetstream::{self, ApiError, Identity, StreamInfo};
use super::nats::{Connection, VERSION_NEEDED, connect_to_any, is_new_enough};
use super::presence::{self, Beat};
use super::{Options, OptionsError};
use crate::db::{Followed, Offline, OpenError};
use crate::model::Epoch;
use crate::secret::random_name;

/// The most time that servers take to elect a leader.
const ELECTION: Duration = Duration::from_secs(10);
/// Time for a monitor's answer.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(3);
/// The most bytes of it.
const MONITOR_MAX_BYTES: u64 = 1024 * 1024;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The flags do not say how to reach the log.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No server accepts us.
    #[error("cannot connect to {server}: {why}")]
    Connect {
        /// The last that was tried.
        server: String,
        /// Why.
        why: String,
    },
    /// A request about the stream failed.
    #[error("{0}")]
    Stream(String),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be read or written.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// It follows a log already.
    #[error(
        "this database follows the log {0} already; --anew gives it another one, and leaves the other nodes behind"
    )]
    Follows(String),
    /// The database does not follow a log.
    #[error("this database follows no log")]
    FollowsNone,
    /// The log has what the database does not.
    #[error(
        "this database has applied the log up to entry {0}, and the log ends with {1}: what is missing would be lost. Start \
         the node once more, or take the database of another"
    )]
    Behind(u64, u64),
    /// Nodes that write to the log.
    #[error("{0} of the other nodes still run, and what they write would be missing: stop them first")]
    Running(usize),
    /// The log is another one than the database follows.
    #[error("this database follows the log {0}, and the servers have another: {1}")]
    OtherLog(String, String),
    /// There is a log already.
    #[error(
        "these servers keep a log already (chinwag-log {0}): a node joins it with a backup of another node's database, and \
         --anew removes it"
    )]
    HasLog(String),
    /// The monitor does not answer, or not as expected.
    #[error("cannot ask the monitor {0}: {1}")]
    Monitor(String, String),
}

impl From<ApiError> for OperatorError {
    fn from(error: ApiError) -> Self {
        Self::Stream(error.to_string())
    }
}

/// What [`init`] made.
#[derive(Debug)]
pub struct Made {
    /// The log's id.
    pub log: String,
    /// The epoch of the history that it continues.
    pub epoch: String,
    /// How many servers keep it.
    pub replicas: u32,
}

async fn connect(options: &Options) -> Result<Connection, OperatorError> {
    let servers = options.servers()?;
    connect_to_any(&servers)
        .await
        .map_err(|(server, why)| OperatorError::Connect { server: server.to_string(), why: why.to_string() })
}

/// Makes the log of a new cluster, and attaches the database at `path` to it as the first; no server may have that
/// open. `anew` replaces an existing log, also one that the database followed before, and begins a new history.
pub async fn init(options: &Options, path: &Path, replicas: u32, anew: bool) -> Result<Made, OperatorError> {
    let mut database = Offline::open(path)?;
    if let Some(followed) = database.followed()?
        && !anew
    {
        return Err(OperatorError::Follows(followed.log));
    }
    let connection = connect(options).await?;
    match jetstream::stream_info(&connection).await {
        Ok(_) if anew => jetstream::delete_stream(&connection).await?,
        Ok(info) => {
            let log = info.identity().map_or_else(|| "of another program".into(), |identity| identity.log);
            return Err(OperatorError::HasLog(log));
        }
        Err(error) if error.is_no_stream() => {}
        Err(error) => return Err(error.into()),
    }
    // What an older log had may be missing here: its ids will be given again, to other events, so clients must discard
    // what they have.
    let epoch = if anew { Epoch::random() } else { database.epoch()? };
    let identity = Identity { log: random_name(), epoch: epoch.as_str().to_owned() };
    match jetstream::create_stream(&connection, &identity, replicas).await {
        Ok(_) => {}
        Err(ApiError::Nats(_)) if appears(options, &identity).await => {}
        Err(error) => return Err(error.into()),
    }
    database.follow(&identity.log, &epoch)?;
    Ok(Made { log: identity.log, epoch: identity.epoch, replicas })
}

/// Whether a stream whose making was not answered is there within the time that an election takes: to say that it failed
/// would leave a log that no database follows.
async fn appears(options: &Options, identity: &Identity) -> bool {
    let is_there = async || {
        let connection = connect(options).await?;
        Ok::<_, OperatorError>(jetstream::stream_info(&connection).await?.identity().as_ref() == Some(identity))
    };
    let found = async {
        while !matches!(is_there().await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(ELECTION, found).await.is_ok()
}

/// Detaches the database at `path`, which no server may have open, from its log, if it has all that is in it. Without
/// `options`, for a log that is gone, that is not looked at. Returns the log's id.
pub async fn leave(options: Option<&Options>, path: &Path) -> Result<String, OperatorError> {
    let mut database = Offline::open(path)?;
    let Followed { log, position, .. } = database.followed()?.ok_or(OperatorError::FollowsNone)?;
    if let Some(options) = options {
        let connection = connect(options).await?;
        // Before the log is looked at, whose end they would move.
        let running = presence::ask_all(&connection, Some(&log)).await;
        match running.map_err(|error| OperatorError::Stream(error.to_string()))?.len() {
            0 => {}
            running => return Err(OperatorError::Running(running)),
        }
        let info = jetstream::stream_info(&connection).await?;
        match info.identity() {
            Some(identity) if identity.log == log => {}
            other => {
                return Err(OperatorError::OtherLog(log, other.map_or_else(|| "no log".into(), |other| other.log)));
            }
        }
        if position.applied < info.state.last_seq {
            return Err(OperatorError::Behind(position.applied, info.state.last_seq));
        }
    }
    database.leave()?;
    Ok(log)
}

/// The state of a log, for people.
#[derive(Debug)]
pub struct LogStatus {
    /// The server that was asked.
    pub server: String,
    /// Its version.
    pub version: String,
    /// The log's id; `None` if chinwag did not make the stream.
    pub log: Option<String>,
    /// The first entry that is kept, and the last.
    pub entries: (u64, u64),
    /// Bytes of all of them.
    pub bytes: u64,
    /// How many servers keep each.
    pub replicas: u32,
    /// The server that leads; `None` without replicas.
    pub leader: Option<String>,
    /// The others, and whether each is up to date.
    pub followers: Vec<(String, bool)>,
    /// The nodes that answer.
    pub nodes: Vec<NodeStatus>,
}

/// The state of a node.
#[derive(Debug)]
pub struct NodeStatus {
    /// Its id, drawn anew at each start.
    pub node: String,
    /// The newest version of entries that it reads.
    pub version: u32,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The digest of all entries up to it.
    pub chain: String,
    /// People who are connected to it.
    pub users: usize,
    /// Why it does not apply entries at the moment.
    pub failure: Option<String>,
}

/// The state of the log and of the nodes that answer.
pub async fn status(options: &Options) -> Result<LogStatus, OperatorError> {
    let connection = connect(options).await?;
    let info = jetstream::stream_info(&connection).await?;
    let identity = info.identity().map(|identity| identity.log);
    let nodes = presence::ask_all(&connection, identity.as_deref())
        .await
        .map_err(|error| OperatorError::Stream(error.to_string()))?;
    let nodes = nodes.into_iter().map(|(node, Beat { applied, chain, users, version, failure, .. })| NodeStatus {
        node,
        version,
        applied,
        chain,
        users,
        failure,
    });
    Ok(log_status(&connection, &info, nodes.collect()))
}

fn log_status(connection: &Connection, info: &StreamInfo, nodes: Vec<NodeStatus>) -> LogStatus {
    LogStatus {
        server: connection.server().to_string(),
        version: connection.info().version.clone(),
        log: info.identity().map(|identity| identity.log),
        entries: (info.state.first_seq, info.state.last_seq),
        bytes: info.state.bytes,
        replicas: info.replicas(),
        leader: info.cluster.leader.clone(),
        followers: info.cluster.replicas.iter().map(|replica| (replica.name.clone(), replica.current)).collect(),
        nodes,
    }
}

/// The faults in the configuration of the servers and of the stream, each in a sentence. `monitors` are the addresses
/// of the servers' monitoring ports, without which it cannot be checked whether they sync to their disks.
pub async fn check(options: &Options, monitors: &[String]) -> Result<Vec<String>, OperatorError> {
    let connection = connect(options).await?;
    let mut faults = Vec::new();
    let info = connection.info();
    faults.extend(too_old(&connection.server().to_string(), &info.version));
    if info.max_payload < super::MAX_PAYLOAD_NEEDED {
        faults.push(format!("max_payload is {}, and must be {}", info.max_payload, super::MAX_PAYLOAD_NEEDED));
    }
    let stream = jetstream::stream_info(&connection).await?;
    if stream.identity().is_none() {
        faults.push("the stream chinwag was not made by chinwag cluster init".into());
    }
    if let Some(fault) = stream.fault() {
        faults.push(format!("the stream chinwag is not what a log must be: {fault}"));
    }
    if stream.replicas() < 3 {
        faults
            .push(format!("the log is kept by {} of the servers: if it is lost, so is what comes", stream.replicas()));
    }
    for monitor in monitors {
        let ask =
            async |path| monitored(monitor, path).await.map_err(|why| OperatorError::Monitor(monitor.clone(), why));
        let (varz, jsz) = (ask("/varz").await?, ask("/jsz?config=1").await?);
        faults.extend(too_old(monitor, varz["version"].as_str().unwrap_or_default()));
        if jsz["config"]["sync_always"] != true {
            faults
                .push(format!("the server at {monitor} does not sync before acknowledging: set sync_interval: always"));
        }
    }
    Ok(faults)
}

/// The fault of a server that is too old.
fn too_old(server: &str, version: &str) -> Option<String> {
    let (major, minor) = VERSION_NEEDED;
    (!is_new_enough(version))
        .then(|| format!("the NATS server at {server} is version {version}, and must be {major}.{minor} or newer"))
}

/// What the monitor at `http://HOST:PORT` says at a path.
async fn monitored(monitor: &str, path: &str) -> Result<serde_json::Value, String> {
    let place = monitor.strip_prefix("http://").unwrap_or(monitor).trim_end_matches('/');
    let place = if place.contains(':') { place.to_owned() } else { format!("{place}:8222") };
    let answer = tokio::time::timeout(MONITOR_TIMEOUT, async {
        let mut stream = TcpStream::connect(&place).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {place}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MONITOR_MAX_BYTES).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    let answer = answer.await.map_err(|_| "it does not answer".to_owned())?.map_err(|error| error.to_string())?;
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    body.and_then(|body| serde_json::from_slice(body).ok()).ok_or_else(|| "its answer is not understood".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_named() {
        assert_eq!(too_old("here", "2.15.2"), None);
        assert!(too_old("there", "2.14.9").is_some_and(|fault| fault.contains("there is version 2.14.9")));
    }
}

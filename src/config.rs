//! Every flag and every limit, with its unit and its reason.
//!
//! What an operator may want to set is a flag; what keeps the server bounded, and nobody needs to set, is a constant.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::model::{CONTENT_MAX_CHARS, Network};

/// What a person may set, as flags and as environment variables of the same names.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Where to listen: an address and a port (0 takes a free one), or unix: and the path of a socket; repeatable
    #[arg(long, env = "CHINWAG_LISTEN", value_name = "ADDR:PORT|unix:PATH", value_delimiter = ',', default_value = DEFAULT_LISTEN)]
    pub listen: Vec<Endpoint>,

    /// A proxy (10.0.0.1, or a network as 10.0.0.0/8) whose X-Forwarded-For is believed; repeatable
    #[arg(long, env = "CHINWAG_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',')]
    pub trusted_proxy: Vec<Network>,

    /// The certificate chain (PEM) to speak TLS with, read again when it changes
    #[cfg(feature = "tls")]
    #[arg(long, env = "CHINWAG_TLS_CERT", value_name = "PATH", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key (PEM) of the certificate
    #[cfg(feature = "tls")]
    #[arg(long, env = "CHINWAG_TLS_KEY", value_name = "PATH", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Address and port to serve Prometheus metrics on, at /metrics [default: nowhere]
    #[arg(long, env = "CHINWAG_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,

    /// The database file, made if missing
    #[arg(long, env = "CHINWAG_DB", value_name = "PATH", default_value = DEFAULT_DB, global = true)]
    pub db: PathBuf,

    /// Who may create an account
    #[arg(
        long,
        env = "CHINWAG_REGISTRATION",
        value_name = "open|invite|closed",
        hide_possible_values = true,
        default_value = "open"
    )]
    pub registration: Registration,

    /// What a power cut may take: nothing that was acknowledged (full), or the last moments (normal), for fewer writes
    #[arg(
        long,
        env = "CHINWAG_DURABILITY",
        value_name = "full|normal",
        hide_possible_values = true,
        default_value = "full"
    )]
    pub durability: Durability,

    /// Keep the newest N messages at most; older ones are removed for good [default: all]
    #[arg(long, env = "CHINWAG_KEEP_MESSAGES", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_messages: Option<u32>,

    /// Keep messages for N days; older ones are removed for good [default: for ever]
    #[arg(long, env = "CHINWAG_KEEP_DAYS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub keep_days: Option<u32>,

    /// Messages a second for each user, in bursts of three times that; 0 is no limit
    #[arg(long, env = "CHINWAG_MESSAGE_RATE", value_name = "N", default_value_t = 10)]
    pub message_rate: u32,

    /// Registrations and logins a minute for each address; 0 is no limit
    #[arg(long, env = "CHINWAG_AUTH_RATE", value_name = "N", default_value_t = 20)]
    pub auth_rate: u32,

    /// Connections in all [default: from the file-descriptor limit]
    #[arg(long, env = "CHINWAG_MAX_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: Option<u32>,

    /// Authenticated connections of one user; 0 is no limit
    #[arg(long, env = "CHINWAG_USER_CONNECTIONS", value_name = "N", default_value_t = 64)]
    pub user_connections: u32,

    /// Connections of one address that have not authenticated; 0 is no limit
    #[arg(long, env = "CHINWAG_ADDRESS_CONNECTIONS", value_name = "N", default_value_t = 64)]
    pub address_connections: u32,

    /// Seconds between pings; a connection silent for two and a half times that is closed
    #[arg(long, env = "CHINWAG_PING_INTERVAL", value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub ping_interval: u32,

    /// An origin (such as <https://chat.example>) whose pages may connect too; repeatable
    #[arg(
        long,
        env = "CHINWAG_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = parse_origin,
        help = "An origin (such as https://chat.example) whose pages may connect too; repeatable"
    )]
    pub allow_origin: Vec<String>,

    /// How the log on standard error is written: for people, or as a JSON object a line
    #[arg(
        long,
        env = "CHINWAG_LOG_FORMAT",
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: is followed by the path of a socket"),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| "it is ADDR:PORT, such as 127.0.0.1:8080, or unix:PATH"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a person who reads it.
    Text,
    /// For a program: a JSON object a line.
    Json,
}

/// Who may create an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Registration {
    /// Everybody who can reach the server.
    Open,
    /// Who has an invitation.
    Invite,
    /// Nobody.
    Closed,
}

/// What a message that is acknowledged has survived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// A power cut: each commit waits for the disk.
    #[default]
    Full,
    /// The end of the process, but not a power cut, which may take the commits of the last moments. The database
    /// stays sound. Spares flash and time.
    Normal,
}

/// How much of the history is kept; the rest is removed in small steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Only the newest so many.
    pub messages: Option<u32>,
    /// Only those not older than this.
    pub age: Option<Duration>,
}

const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
const DEFAULT_DB: &str = "chinwag.db";
const DAY: Duration = Duration::from_hours(24);

impl Config {
    /// The time between two pings of one connection.
    #[must_use]
    pub fn ping_interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.ping_interval))
    }

    /// How much of the history is kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        let age = self.keep_days.map(|days| DAY * days);
        Retention { messages: self.keep_messages, age }
    }

    /// Whether `address` is of a proxy that is believed.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxy.iter().any(|network| network.contains(address))
    }
}

/// Checks an origin: a scheme, a host, perhaps a port, and nothing behind it (RFC 6454 6.1).
pub(crate) fn parse_origin(origin: &str) -> Result<String, String> {
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => Ok(origin.to_ascii_lowercase()),
        _ => Err("an origin is http://HOST or https://HOST, perhaps with :PORT, and nothing behind it".into()),
    }
}

// --- HTTP ----------------------------------------------------------------------------------------------------------

/// Bytes of a request's head that hyper buffers; past it the answer is 431.
pub(crate) const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Headers of a request.
pub(crate) const HEADERS_MAX: usize = 64;
/// Bytes of a request's path and query.
pub(crate) const URI_MAX_BYTES: usize = 2 * 1024;
/// Bytes of a JSON body.
pub(crate) const BODY_MAX_BYTES: usize = 16 * 1024;
/// Time for a request's head, and for a kept-alive connection to send another.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request's body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a peer must take some of an HTTP answer.
pub(crate) const ANSWER_STALL: Duration = Duration::from_secs(10);
/// Refused requests that are logged at once above the level `debug`, and how many more in a second: whoever is refused
/// must not fill the disk with it.
pub(crate) const REFUSAL_LOG_BURST: u32 = 100;
/// Refused requests a second that are logged above the level `debug`.
pub(crate) const REFUSAL_LOG_RATE: u32 = 5;
/// Characters of a request id that a trusted proxy gives.
pub(crate) const REQUEST_ID_MAX_CHARS: usize = 64;
/// Time for one request for metrics.
pub(crate) const METRICS_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections for metrics that are served at once, so that a few that ask nothing do not hold up the one that does; the
/// next wait to be accepted.
pub(crate) const METRICS_AT_ONCE: usize = 4;
/// Messages a page of history may have.
pub(crate) const PAGE_MAX_MESSAGES: u32 = 200;
/// Messages a page of history has if the client does not say.
pub(crate) const PAGE_DEFAULT_MESSAGES: u32 = 50;
/// Bytes of text of a page that is answered at once; a longer one is read and sent in pieces, as fast as it is taken.
pub(crate) const PAGE_HELD_BYTES: usize = 256 * 1024;

// --- Connections ---------------------------------------------------------------------------------------------------

/// File descriptors kept back for the database, the listener and the standard streams.
pub(crate) const RESERVED_DESCRIPTORS: u64 = 64;
/// Unauthenticated connections of one address that are kept open between requests in any case: of five browsers.
pub(crate) const KEPT_OPEN: usize = 32;
/// So few connections are warned about when it is the descriptors that allow no more.
pub(crate) const FEW_CONNECTIONS: u32 = 100;
/// Permissions of a Unix socket that is made: its peers are trusted proxies, so only the owner and the group, which a
/// proxy's user can be added to, may connect.
pub(crate) const UNIX_SOCKET_MODE: u32 = 0o660;
/// How often the files of a TLS certificate are looked at, at most, when connections come.
#[cfg(feature = "tls")]
pub(crate) const TLS_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that TLS encrypts ahead of a socket that takes no more: one full record (RFC 8446 5.1), so that this is all
/// that a slow reader holds.
#[cfg(feature = "tls")]
pub(crate) const TLS_AHEAD_BYTES: usize = 16 * 1024;
/// Bytes of one connection's TLS records that are read before the others have their turn. Less than
/// [`READ_BURST_BYTES`]: it may be many small records to open, and new keys to derive for each.
#[cfg(feature = "tls")]
pub(crate) const TLS_TURN_BYTES: usize = 32 * 1024;
/// Bytes of TLS records that one byte within accounts for: alone in a record it takes 23 (RFC 8446 5.2).
#[cfg(feature = "tls")]
pub(crate) const TLS_BYTES_PER_BYTE: u32 = 32;
/// Bytes of TLS records, past those that what is within [accounts for](TLS_BYTES_PER_BYTE), that a connection may send
/// at once: the handshake, a record that is not whole yet, padding. Empty records and new keys without end are more.
#[cfg(feature = "tls")]
pub(crate) const TLS_HOLLOW_BURST: u32 = 64 * 1024;
/// Such bytes that a connection regains a second: one record full of padding.
#[cfg(feature = "tls")]
pub(crate) const TLS_HOLLOW_RATE: u32 = 16 * 1024;
/// TLS handshakes of one address in a second, in bursts of [`HANDSHAKE_BURST`], while an address's connections are
/// limited at all: each has the server sign, which is milliseconds on a small device.
pub(crate) const HANDSHAKE_RATE: u32 = 20;
/// TLS handshakes of one address at once: a household or a class that opens the page together.
pub(crate) const HANDSHAKE_BURST: u32 = 100;
/// How long accepting rests when the system has no descriptor or memory left.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Time for a client's first frame.
pub(crate) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one WebSocket frame or message from a client; past it the close code is 1009.
pub(crate) const FRAME_MAX_BYTES: usize = 64 * 1024;
/// Bytes a reader takes from its socket at once. Held only while a connection has something to read.
pub(crate) const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Bytes of one connection that are read before the others have their turn; a stranger may send no more at all.
pub(crate) const READ_BURST_BYTES: usize = 2 * FRAME_MAX_BYTES;
/// Frames of one connection that are answered together; a stranger may send so many pings.
pub(crate) const FRAMES_PER_READ: usize = 64;
/// Frames a connection may send in a second, in bursts of [`FRAME_BURST`], while messages are limited at all.
pub(crate) const FRAME_RATE: u32 = 100;
/// Frames a connection may send at once.
pub(crate) const FRAME_BURST: u32 = 1_000;
/// Seconds' worth of messages that a user may send at once.
pub(crate) const MESSAGE_BURST_SECONDS: u32 = 3;
/// Frames for each message a user may send, where that comes to more: typing and pings come with them.
pub(crate) const FRAMES_PER_MESSAGE: u32 = 2;
/// Connections of one user that may authenticate in a second, in bursts of [`CONNECT_BURST`], while a user's
/// connections are limited at all: each coming and going may be told to everyone.
pub(crate) const CONNECT_RATE: u32 = 5;
/// Connections of one user that may authenticate at once: every tab, over again while the network flaps.
pub(crate) const CONNECT_BURST: u32 = 256;
/// Refused frames a connection may send at once before it is closed with 1008.
pub(crate) const REFUSED_BURST: u32 = 200;
/// Refused frames a connection regains a second.
pub(crate) const REFUSED_RATE: u32 = 5;
/// How long a socket may take none of what is written to it before it is given up.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long the closing handshake may take.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a socket is kept, after the last answer, for the peer to end too.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are thrown away meanwhile.
pub(crate) const LINGER_MAX_BYTES: usize = 256 * 1024;
/// Connections that are being told that there is no place for them; more are closed without a word.
pub(crate) const REFUSALS_AT_ONCE: usize = 32;

// --- Fan-out -------------------------------------------------------------------------------------------------------

/// Events the broadcast channel holds for a shard that is busy; past it the shard's connections catch up.
pub(crate) const HUB_CAPACITY: usize = 1_024;
/// Messages encoded into one slice of a commit.
pub(crate) const SLICE_MAX_MESSAGES: usize = 1_024;
/// Bytes of frames encoded into one slice of a commit.
pub(crate) const SLICE_MAX_BYTES: usize = 64 * 1024;
/// Events a shard may be behind before the next commit waits for it.
pub(crate) const RUN_AHEAD_EVENTS: usize = 2;
/// How long a commit waits for the shards at most; with very many sockets on a small device the channel fills then.
pub(crate) const RUN_AHEAD_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that a shard joins into one write.
pub(crate) const WRITE_MAX_BYTES: usize = 64 * 1024;
/// Sockets a shard writes to before it gives way to other tasks.
pub(crate) const SOCKETS_PER_TURN: usize = 32;
/// Times in a ping interval that a shard looks for connections to ping or to close.
pub(crate) const HEARTBEAT_CHECKS: u32 = 8;
/// Cores for each shard: the kernel's work for a write, and the writer thread, need the other.
pub(crate) const CORES_PER_SHARD: usize = 2;

// --- Presence ------------------------------------------------------------------------------------------------------

/// Names in a list of users.
pub(crate) const USERS_LISTED_MAX: usize = 200;
/// People online above whom a count is told instead of names.
pub(crate) const COUNT_ABOVE: usize = 1_000;
/// People online below whom names are told again.
pub(crate) const NAMES_BELOW: usize = 900;
const _: () = assert!(NAMES_BELOW < COUNT_ABOVE, "one person coming and going must not switch back and forth");
/// How often one user's typing is passed on at most.
pub(crate) const TYPING_INTERVAL: Duration = Duration::from_secs(1);

// --- Catch-up ------------------------------------------------------------------------------------------------------

/// Messages that are replayed; a connection further behind is told to `resync`.
pub(crate) const REPLAY_MAX_MESSAGES: u32 = 1_000;
/// Messages that a catch-up reads at once.
pub(crate) const CHUNK_MAX_MESSAGES: u32 = 256;
/// Bytes of text that a catch-up reads at once.
pub(crate) const CHUNK_MAX_BYTES: usize = 64 * 1024;
/// Catch-ups that hold a chunk in memory at once; the others wait in order.
pub(crate) const CATCH_UPS_AT_ONCE: usize = 4;

// --- Storage -------------------------------------------------------------------------------------------------------

/// Commands that wait for the writer thread; past it the answer is `unavailable`.
pub(crate) const WRITE_QUEUE: usize = 4_096;
/// Of these, how many are kept free of what strangers can have done without end: health checks and logouts.
pub(crate) const WRITE_QUEUE_SPARED: usize = WRITE_QUEUE / 2;
/// Bytes of messages that wait for the writer thread; past it the answer is `unavailable`. As many again may be on
/// their way to the shards.
pub(crate) const WRITE_QUEUE_BYTES: usize = 16 * 1024 * 1024;
const _: () = assert!(WRITE_QUEUE_BYTES > 16 * READ_BURST_BYTES, "no burst is too large, and many fit");
/// Commands of one transaction.
pub(crate) const COMMANDS_PER_COMMIT: usize = 1_024;
/// Messages of one transaction, about; a command is not split.
pub(crate) const MESSAGES_PER_COMMIT: usize = 4_096;
/// Requests that wait for the reader thread.
pub(crate) const READ_QUEUE: usize = 4_096;
/// Pages of history that wait for the reader thread while there is anything else to read.
pub(crate) const PAGES_WAITING: usize = 1_024;
/// How long a request waits for its answer from the database.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long SQLite waits for a lock that another process holds.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const _: () = assert!(
    2 * LOCK_TIMEOUT.as_secs() < STORE_TIMEOUT.as_secs(),
    "a locked database is an answer, not a time-out, behind a commit that waits for it too"
);
/// How long the log keeps quiet about reads that fail after it has told of one.
pub(crate) const FAULT_SAID_AGAIN: Duration = Duration::from_mins(1);
/// Bytes written to show that the database works again: the longest message, at four bytes a character.
pub(crate) const PROOF_BYTES: u32 = 16_000;
const _: () = assert!(PROOF_BYTES as usize == 4 * CONTENT_MAX_CHARS, "a database with room for less is still full");
/// Logins of one user at a time; past it the oldest ends.
pub(crate) const USER_SESSIONS_MAX: u32 = 256;
/// How long a session lives without use.
pub(crate) const SESSION_LIFETIME: Duration = Duration::from_hours(720);
/// How old the noted last use of a session may be before it is noted again: a write a request would wear flash out.
pub(crate) const SESSION_TOUCH: Duration = Duration::from_hours(1);
/// How long a nonce is remembered after its day is over, and so at least.
pub(crate) const NONCE_DAY: Duration = Duration::from_hours(24);
/// Rows that one round of cleaning removes, so that no commit waits for it noticeably.
pub(crate) const CLEAN_ROWS: u32 = 500;
/// The time between two rounds of cleaning while there is something left.
pub(crate) const CLEAN_PACE: Duration = Duration::from_secs(1);
/// The longest time between two rounds of cleaning.
pub(crate) const CLEAN_INTERVAL: Duration = Duration::from_mins(1);
/// Messages that one round of pruning looks through and may remove, so that no commit waits for it noticeably.
pub(crate) const PRUNE_ROWS: u32 = 500;
/// Time between two rounds while there is more to prune: 20,000 messages a second go at most, which is more than people
/// write.
pub(crate) const PRUNE_PACE: Duration = Duration::from_millis(25);
/// How often pruning by age looks through all messages, and not only up to the first that are not old enough: those
/// that came while the clock was ahead hide older ones behind them. Days are kept, so a day later is soon enough.
pub(crate) const PRUNE_ALL_INTERVAL: Duration = Duration::from_hours(24);
/// Messages that one round looks through for those of a user whose messages are removed.
pub(crate) const ERASE_ROWS: u32 = 2_000;
/// How long a starting server, or a command that replaces the database, waits for the lock's holder: a command that asks
/// where the server listens holds it for an instant, and one that changes something is done soon.
pub(crate) const LOCK_FILE_PATIENCE: Duration = Duration::from_secs(1);
/// Time between two tries at the lock file.
pub(crate) const LOCK_FILE_RETRY: Duration = Duration::from_millis(20);
/// Bytes that are read of the addresses in a lock file: many times more than anybody listens at.
pub(crate) const LOCK_FILE_MAX_BYTES: u64 = 64 * 1024;
/// Pages that a backup copies between two reports of how far it is: 4 MiB.
pub(crate) const BACKUP_PAGES: i32 = 1_024;

// --- Administration ------------------------------------------------------------------------------------------------

/// Bytes of a line on the control socket: the longest has a name and a password's hash.
pub(crate) const CONTROL_LINE_MAX_BYTES: usize = 1_024;
/// Time for an order and its answer on the control socket.
pub(crate) const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
const _: () = assert!(STORE_TIMEOUT.as_secs() < CONTROL_TIMEOUT.as_secs(), "the database's refusal is heard");

// --- Passwords and rates -------------------------------------------------------------------------------------------

/// Passwords hashed at once: each takes 19 MiB and a core, or [`HASH_MEMORY_MAX_KIB`] if another program hashed it.
pub(crate) const HASHES_AT_ONCE: usize = 2;
/// KiB that verifying a password may take. A stored hash says what it takes, and the database may come from anywhere:
/// more than three times what ours take is a hash that nobody is let in by.
pub(crate) const HASH_MEMORY_MAX_KIB: u32 = 64 * 1024;
/// Passes over that memory that verifying a password may take: five times as many as ours, half a second or so.
pub(crate) const HASH_PASSES_MAX: u32 = 10;
/// Lanes of a stored hash; here they are worked through one after the other.
pub(crate) const HASH_LANES_MAX: u32 = 4;
/// Requests that wait for a hash; past it the answer is `unavailable`.
pub(crate) const HASHES_WAITING: usize = 64;
/// Addresses or users whose rates are remembered; past it newcomers share one allowance.
pub(crate) const BUCKETS_MAX: usize = 16_384;

// --- Stopping ------------------------------------------------------------------------------------------------------

/// How long the server waits for its connections when it stops.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_millis(3_500);
const _: () = assert!(
    STORE_TIMEOUT.as_millis() < DRAIN_TIMEOUT.as_millis(),
    "whoever waits for a disk that hangs is still told that the server stops"
);
/// How often the connections are told meanwhile: a shard that was overrun has missed it.
pub(crate) const DRAIN_RETRY: Duration = Duration::from_millis(100);
/// How long it waits for the database then.
pub(crate) const DATABASE_TIMEOUT: Duration = Duration::from_secs(1);
const _: () =
    assert!(DRAIN_TIMEOUT.as_millis() + DATABASE_TIMEOUT.as_millis() < 5_000, "the contract gives a stop five seconds");

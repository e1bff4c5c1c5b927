//! Every flag, with its unit and its reason. What nobody needs to set is in `limits.rs`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::limits::{CORES_PER_SHARD, NAME_MAX_CHARS, SHARDS_MAX};
pub use crate::net::{Endpoint, Network};
#[cfg(feature = "push")]
pub use crate::push::{Contact, HostPattern};

/// The flags, which are also environment variables.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address and port to listen on (port 0 picks a free one), or unix: and the path of a socket; repeatable
    #[arg(long, env = "CHINWAG_LISTEN", value_name = "ADDR:PORT|unix:PATH", value_delimiter = ',', default_value = DEFAULT_LISTEN)]
    pub listen: Vec<Endpoint>,

    /// A proxy (10.0.0.1, or a network such as 10.0.0.0/8) whose X-Forwarded-For is trusted; repeatable
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

    /// How push services can reach you: mailto:ADDRESS, or an https page [default: --public-url; if that is not https,
    /// nothing is pushed]
    #[cfg(feature = "push")]
    #[arg(long, env = "CHINWAG_PUSH_CONTACT", value_name = "URL")]
    pub push_contact: Option<Contact>,

    /// A push service besides the browsers' own: its host name, or *. and a suffix; repeatable
    #[cfg(feature = "push")]
    #[arg(long, env = "CHINWAG_PUSH_HOST", value_name = "HOST", value_delimiter = ',')]
    pub push_host: Vec<HostPattern>,

    /// Address and port to serve Prometheus metrics on, at /metrics [default: nowhere]
    #[arg(long, env = "CHINWAG_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,

    /// The database file, created if missing
    #[arg(long, env = "CHINWAG_DB", value_name = "PATH", default_value = DEFAULT_DB, global = true)]
    pub db: PathBuf,

    /// Who may create an account
    #[arg(
        long,
        env = "CHINWAG_REGISTRATION",
        value_name = "open|invite|closed",
        hide_possible_values = true,
        help = "Who may create an account [default: open if only this machine can connect, else invite]"
    )]
    pub registration: Option<Registration>,

    /// The server's name for people, up to 60 characters
    #[arg(long, env = "CHINWAG_NAME", value_name = "NAME", default_value = "chinwag", value_parser = parse_name)]
    pub name: String,

    /// The address that people use, such as <https://chat.example/>; invitations point there
    #[arg(
        long,
        env = "CHINWAG_PUBLIC_URL",
        value_name = "URL",
        value_parser = PublicUrl::parse,
        help = "The address that people use, such as https://chat.example/; invitations point there"
    )]
    pub public_url: Option<PublicUrl>,

    /// Another host name of this server, besides addresses, localhost and names of a local network; repeatable
    #[arg(long, env = "CHINWAG_HOST", value_name = "NAME", value_delimiter = ',', value_parser = parse_host)]
    pub host: Vec<String>,

    /// Who may create open rooms
    #[arg(
        long,
        env = "CHINWAG_ROOMS",
        value_name = "everyone|moderators",
        hide_possible_values = true,
        default_value = "everyone"
    )]
    pub rooms: Whose,

    /// Who may invite
    #[arg(
        long,
        env = "CHINWAG_INVITES",
        value_name = "everyone|moderators",
        hide_possible_values = true,
        default_value = "moderators"
    )]
    pub invites: Whose,

    /// Whether people may send pictures
    #[arg(long, env = "CHINWAG_IMAGES", value_name = "on|off", hide_possible_values = true, default_value = "on")]
    pub images: Switch,

    /// Keep pictures for N days; older ones are deleted for good, their messages stay [default: as long as those]
    #[arg(long, env = "CHINWAG_IMAGES_KEEP_DAYS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub images_keep_days: Option<u32>,

    /// What a power failure may lose: nothing acknowledged (full), or the last moments (normal), for fewer writes
    #[arg(
        long,
        env = "CHINWAG_DURABILITY",
        value_name = "full|normal",
        hide_possible_values = true,
        default_value = "full"
    )]
    pub durability: Durability,

    /// Keep at most the newest N messages; older ones are deleted for good [default: all]
    #[arg(long, env = "CHINWAG_KEEP_MESSAGES", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_messages: Option<u32>,

    /// Keep messages for N days; older ones are deleted for good [default: forever]
    #[arg(long, env = "CHINWAG_KEEP_DAYS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub keep_days: Option<u32>,

    /// Space to keep free on the disk, such as 256M: with less, new messages are refused; 0 turns this off [default: 5 %
    /// of the disk, at most 256M]
    #[arg(long, env = "CHINWAG_MIN_FREE", value_name = "SIZE", value_parser = parse_size)]
    pub min_free: Option<u64>,

    /// Maximum size of the database, such as 10G: above it new messages are refused [default: no limit]
    #[arg(long, env = "CHINWAG_MAX_DB_SIZE", value_name = "SIZE", value_parser = parse_size)]
    pub max_db_size: Option<u64>,

    /// Messages per second for each user, in bursts of three times that; 0 for no limit
    #[arg(long, env = "CHINWAG_MESSAGE_RATE", value_name = "N", default_value_t = 10)]
    pub message_rate: u32,

    /// Registrations and logins per minute for one name from one address; 0 for no limit
    #[arg(long, env = "CHINWAG_AUTH_RATE", value_name = "N", default_value_t = 20)]
    pub auth_rate: u32,

    /// Connections in total [default: from the file-descriptor limit]
    #[arg(long, env = "CHINWAG_MAX_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: Option<u32>,

    /// Authenticated connections per user; 0 for no limit
    #[arg(long, env = "CHINWAG_USER_CONNECTIONS", value_name = "N", default_value_t = 64)]
    pub user_connections: u32,

    /// Unauthenticated connections per address; 0 for no limit
    #[arg(long, env = "CHINWAG_ADDRESS_CONNECTIONS", value_name = "N", default_value_t = 64)]
    pub address_connections: u32,

    /// Loops that write to sockets, with a thread for each [default: one for every two cores]
    #[arg(long, env = "CHINWAG_SHARDS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    pub shards: Option<u16>,

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

    /// How this server is a node of a cluster.
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub cluster: crate::cluster::Options,

    /// How the log on standard error is written: for people, or as one JSON object per line
    #[arg(
        long,
        env = "CHINWAG_LOG_FORMAT",
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Who may create an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Registration {
    /// Everyone who can reach the server.
    Open,
    /// Everyone with an invitation.
    Invite,
    /// Nobody.
    Closed,
}

/// Who may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Whose {
    /// Everybody who has an account.
    Everyone,
    /// Only moderators.
    Moderators,
}

/// Whether something is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// The URL by which people reach a server: scheme, host, optionally a port and a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    url: String,
    host_at: usize,
}

impl PublicUrl {
    /// Checks a URL from the operator, which must not have a query or a fragment.
    pub fn parse(url: &str) -> Result<Self, String> {
        const SHAPE: &str = "expected http://HOST or https://HOST, optionally with port and path";
        let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme)).ok_or(SHAPE)?;
        let (uri, host_at) = (url.parse::<hyper::Uri>().map_err(|_| SHAPE)?, scheme.len());
        let authority = uri.authority().ok_or(SHAPE)?.as_str();
        if authority.contains('@') || uri.query().is_some() || url.contains('#') {
            return Err(SHAPE.into());
        }
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host_at })
    }

    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The host and, if there is one, the port.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.url[self.host_at..].split('/').next().unwrap_or_default()
    }
}

/// Names that no public DNS server resolves: of multicast DNS (RFC 6762), of routers, and of RFC 8375.
const LOCAL_NAMES: [&str; 3] = [".local", ".lan", ".home.arpa"];

/// A host without its port, in lower case and without the dot of the root.
fn bare_host(host: &str) -> String {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    without_port.trim_end_matches('.').to_ascii_lowercase()
}

/// Checks a host name from the operator: ASCII, as browsers send it, without a port.
fn parse_host(host: &str) -> Result<String, String> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(is_name) {
        return Err("expected a name such as chat.example, without a port; write one beyond ASCII as xn--…".into());
    }
    Ok(bare_host(host))
}

/// Reads a number of bytes: digits, optionally with K, M, G or T for powers of 1,024.
fn parse_size(size: &str) -> Result<u64, String> {
    const SHAPE: &str = "expected a number of bytes, optionally with K, M, G or T, such as 256M";
    let digits = size.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let power = match &size[digits.len()..].to_ascii_uppercase()[..] {
        "" | "B" => 0,
        "K" | "KB" => 1,
        "M" | "MB" => 2,
        "G" | "GB" => 3,
        "T" | "TB" => 4,
        _ => return Err(SHAPE.into()),
    };
    let number: u64 = digits.parse().map_err(|_| SHAPE)?;
    number.checked_mul(1_024_u64.pow(power)).ok_or_else(|| SHAPE.into())
}

/// Checks a server's name.
fn parse_name(name: &str) -> Result<String, String> {
    let name = name.trim();
    let is_line = !name.is_empty() && name.chars().count() <= NAME_MAX_CHARS && !name.chars().any(char::is_control);
    if is_line { Ok(name.into()) } else { Err(format!("expected one line of 1 to {NAME_MAX_CHARS} characters")) }
}

/// What an acknowledged message survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// A power failure: each commit waits for the disk.
    #[default]
    Full,
    /// The end of the process, but not a power failure, which may lose the last commits. The database stays consistent.
    /// Saves flash wear and time.
    Normal,
}

/// How much of the history is kept; older messages are removed in small steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// At most this many of the newest messages.
    pub messages: Option<u32>,
    /// Only messages not older than this.
    pub age: Option<Duration>,
    /// Only pictures not older than this.
    pub images: Option<Duration>,
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

    /// How many loops write to sockets, and how many threads run them and all other tasks. One shard needs one thread:
    /// the writer thread and the kernel's part of each write keep the other core busy.
    #[must_use]
    pub fn shards(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        self.shards.map_or((cores / CORES_PER_SHARD).clamp(1, SHARDS_MAX.into()), Into::into)
    }

    /// How much of the history is kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        let age = self.keep_days.map(|days| DAY * days);
        let images = self.images_keep_days.map(|days| DAY * days);
        Retention { messages: self.keep_messages, age, images }
    }

    /// Who may create an account: as the operator says, else those who are invited. A server that only its own machine
    /// can reach says so itself, once it knows where it listens.
    #[must_use]
    pub(crate) fn registration(&self) -> Registration {
        self.registration.unwrap_or(Registration::Invite)
    }

    /// Whether something says that a proxy passes on what comes from other machines.
    pub(crate) fn has_proxy(&self) -> bool {
        !self.trusted_proxy.is_empty() || self.public_url.is_some() || !self.host.is_empty()
    }

    /// Whether a request for this host, with or without a port, is for this server: an address, a name that only a
    /// local network knows, or one from the operator.
    pub(crate) fn is_ours(&self, host: &str) -> bool {
        let host = bare_host(host);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        let is_given = |given: &str| given == host;
        host.is_empty()
            || address.parse::<IpAddr>().is_ok()
            || !host.contains('.')
            || LOCAL_NAMES.iter().any(|suffix| host.ends_with(suffix))
            || host.ends_with(".localhost")
            || self.host.iter().map(String::as_str).any(is_given)
            || self.public_url.as_ref().is_some_and(|url| is_given(&bare_host(url.authority())))
            || self
                .allow_origin
                .iter()
                .any(|origin| is_given(&bare_host(origin.split("://").nth(1).unwrap_or_default())))
    }

    /// Whether `address` belongs to a trusted proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxy.iter().any(|network| network.contains(address))
    }
}

/// Checks an origin: a scheme, a host, an optional port, and nothing after it (RFC 6454 6.1).
pub(crate) fn parse_origin(origin: &str) -> Result<String, String> {
    const SHAPE: &str = "expected http://HOST or https://HOST, optionally with :PORT, and no path";
    let origin = origin.to_ascii_lowercase();
    let (scheme, default_port) = match &origin {
        origin if origin.starts_with("https://") => ("https://", ":443"),
        origin if origin.starts_with("http://") => ("http://", ":80"),
        _ => return Err(SHAPE.into()),
    };
    // A browser leaves the scheme's own port out.
    let host = origin[scheme.len()..].strip_suffix(default_port).unwrap_or(&origin[scheme.len()..]);
    let is_authority = host.parse::<hyper::http::uri::Authority>().is_ok_and(|authority| !authority.host().is_empty());
    if !host.is_ascii() {
        return Err("write a host beyond ASCII as xn--…, as browsers do".into());
    }
    if !is_authority || host.contains(['@', '*']) || host.ends_with(':') {
        return Err(SHAPE.into());
    }
    Ok(format!("{scheme}{host}"))
}

//! `health`: asks the server of a database over its own listener whether it is well, as a visitor would.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chinwag::{TOO_MANY_CONNECTIONS, db};

use super::say;

/// Time for each step of asking: more than the server gives its database, and less than a watchdog gives this command.
const PATIENCE: Duration = Duration::from_secs(4);
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

pub(super) fn ask(path: &Path) -> anyhow::Result<()> {
    let addresses = db::server_addresses(path);
    if addresses.is_empty() {
        bail!("no server has the database {} open", path.display());
    }
    // This program speaks TLS only as a server.
    let Some(address) = addresses.iter().find(|address| !address.starts_with("https:")) else {
        bail!("the server speaks only TLS: give it a --listen unix:PATH as well, for this command");
    };
    let answer = ask_at(address).with_context(|| format!("the server at {address} does not answer"))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        say("ok")
    } else if answer.contains(TOO_MANY_CONNECTIONS) {
        // A watchdog may restart a server that is not well, which would disconnect everybody.
        say("full")
    } else {
        bail!("the server at {address} is not healthy: {}", answer.lines().next().unwrap_or_default())
    }
}

/// The answer, from its first line.
fn ask_at(address: &str) -> anyhow::Result<String> {
    if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        return exchange(stream);
    }
    let address = address.trim_start_matches("http://");
    let stream = TcpStream::connect_timeout(&reachable(address.parse()?), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream)
}

fn exchange(mut stream: impl Read + Write) -> anyhow::Result<String> {
    const ANSWER_MAX_BYTES: u64 = 4_096;
    // A server that is full answers without reading, and may have closed already.
    let written = stream.write_all(REQUEST);
    let mut answer = Vec::new();
    match stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(written.err().unwrap_or(error).into()),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// A server that listens on all addresses is asked on the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

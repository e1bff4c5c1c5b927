//! Where a server of NATS listens, as an operator writes it.

use std::fmt;
use std::str::FromStr;

/// The port of a server whose address has none.
const DEFAULT_PORT: u16 = 4222;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Whether the traffic stays on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether the connection uses TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "expected nats://HOST:PORT or tls://HOST:PORT, without user or password";
        let (tls, place) = match text.split_once("://") {
            Some(("nats", place)) => (false, place),
            Some(("tls", place)) => (true, place),
            Some(_) => return Err(SHAPE),
            None => (false, text),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        // A colon inside the brackets of an IPv6 address does not begin a port.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| SHAPE)?),
            _ => (place, DEFAULT_PORT),
        };
        let well_formed = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if !well_formed || (host.contains(':') && !bracketed) {
            return Err(SHAPE);
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, host, port } = self;
        write!(f, "{}://{host}:{port}", if *tls { "tls" } else { "nats" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port_and_no_secret() {
        let shown = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(shown("nats://a.example"), Ok("nats://a.example:4222".into()));
        assert_eq!(shown("tls://10.0.0.1:4333/"), Ok("tls://10.0.0.1:4333".into()));
        assert_eq!(shown("[::1]:1"), Ok("nats://[::1]:1".into()));
        assert_eq!(shown("nats://[::1]"), Ok("nats://[::1]:4222".into()));
        for bad in [
            "",
            "nats://",
            "nats://:1",
            "http://a",
            "nats://user:secret@a",
            "nats://user@a",
            "nats://a:b",
            "nats://a/b",
            "nats://[::1",
            "::1]:4",
            "::1",
            "nats://a:99999",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
        assert!("nats://127.0.0.1".parse::<Address>().unwrap().is_loopback());
        assert!("[::1]:4".parse::<Address>().unwrap().is_loopback() && !"a".parse::<Address>().unwrap().is_loopback());
    }
}

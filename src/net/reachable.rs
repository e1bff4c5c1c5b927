//! An address that others can open, for a server that listens on all of a machine's: an invitation's link must not lead
//! to `0.0.0.0`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// A URL of this server as others can open it: the address that means all (`0.0.0.0`, `[::]`) is replaced with the one
/// by which this machine would reach out, if it is in a network.
#[must_use]
pub fn reachable(url: &str) -> String {
    for all in ["//0.0.0.0:", "//[::]:"] {
        if let Some((scheme, port)) = url.split_once(all) {
            let host = outward_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let host = if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
            return format!("{scheme}//{host}:{port}");
        }
    }
    url.to_owned()
}

/// The address that a packet to another network would leave with. No packet is sent: the kernel only looks up the
/// route, to an address that RFC 5737 reserves for documentation.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).ok()?;
    socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_all_is_replaced_and_no_other() {
        for all in ["http://0.0.0.0:8080", "https://[::]:443"] {
            let url = reachable(all);
            assert!(!url.contains("0.0.0.0") && !url.contains("[::]") && url.contains("://"), "{url}");
        }
        assert_eq!(reachable("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
    }
}

//! An address that others can open, where a server listens at all of a machine's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// A URL of this server as others can open it: in place of the address that stands for all (`0.0.0.0`, `[::]`) stands
/// the one by which this machine would reach out, if it is in a network.
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

/// The address that a packet to another network would leave with. None is sent: the kernel only looks for a way (RFC
/// 5737 keeps the address from being anybody's).
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

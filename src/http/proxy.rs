//! The client behind a proxy.
//!
//! A proxy appends the address of its client to `X-Forwarded-For`; everything to the left of that is the client's
//! claim. So the list is read from the right, past trusted proxies, up to the first address that is not one: only a
//! trusted proxy can have written it. What an untrusted peer sends is ignored.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::HeaderName;

use crate::limits::REQUEST_ID_MAX_CHARS;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Identifies a request in the answer and in the log; a proxy in front may have set it already.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether a peer claims to be a proxy.
pub(crate) fn forwards(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR)
}

/// The client's address in a request that came over a trusted proxy at `peer`.
///
/// An entry that is not an address ends the list: the proxy that wrote it is then the last known address.
pub(crate) fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    // Bytes, converted to text entry by entry: what a client sent need not be text, and a proxy appends to the same
    // line.
    for entry in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        let Some(address) = parse_entry(entry.trim_ascii()) else { break };
        client = address;
        if !trusted(address) {
            break;
        }
    }
    client
}

/// An address, which some proxies write with a port and some in brackets.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?;
    // A link-local address may have its interface behind it (RFC 4007 11), which means nothing here.
    let entry = entry.split_once('%').map_or(entry, |(address, _)| address);
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}

/// The id that a proxy gave a request, if it is fit for a log line.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    let well_formed = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (well_formed && (1..=REQUEST_ID_MAX_CHARS).contains(&id.len())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn client(lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        client_address(&headers, PROXY.parse().unwrap(), trusted).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_a_trusted_proxy() {
        assert_eq!(client(&["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client(&["198.51.100.9, 192.0.2.1"]), "192.0.2.1", "anything to its left is a claim");
        assert_eq!(client(&["198.51.100.9,192.0.2.1 ,10.0.0.2"]), "192.0.2.1");
        assert_eq!(client(&["198.51.100.9", "192.0.2.1", "10.0.0.2"]), "192.0.2.1", "several lines are one list");
        assert_eq!(client(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "a client inside the trusted network");
    }

    #[test]
    fn an_address_may_have_a_port_or_brackets() {
        assert_eq!(client(&["192.0.2.1:4711"]), "192.0.2.1");
        assert_eq!(client(&["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client(&["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client(&["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client(&["::ffff:192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn an_entry_that_is_not_an_address_ends_the_list() {
        assert_eq!(client(&[]), PROXY);
        for bad in ["", "unknown", "192.0.2.1;", "192.0.2.1, ", "192.0.2.1, _hidden", "\"192.0.2.1\""] {
            assert_eq!(client(&[bad]), PROXY, "{bad}");
        }
        assert_eq!(client(&["192.0.2.1, unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn an_entry_that_is_not_text_hides_nothing_to_its_right() {
        assert_eq!(client(&["caf\u{e9}, 192.0.2.1"]), "192.0.2.1", "what the proxy appended counts");
        assert_eq!(client(&["198.51.100.9, \u{e9}, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client(&["192.0.2.1\u{a0}"]), PROXY, "only a plain space is one");
    }

    #[test]
    fn a_request_id_is_short_and_plain() {
        let id = |value: &str| {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, value.parse().unwrap())]);
            request_id(&headers).map(ToOwned::to_owned)
        };
        assert_eq!(id("0f8a-7.B_c").as_deref(), Some("0f8a-7.B_c"));
        for bad in ["", "a b", "a\"b", "a=b", &"x".repeat(65)] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}

//! The URL to push to, which a member's browser gives and the server does not trust.
//!
//! It is read more narrowly than any library reads URLs, so that two parsers cannot read it differently: `https://`, a
//! name in lower case of the push services known, port 443, a path of plain characters. The name is compared once it is
//! cut out, label by label, never as the beginning or end of the text. The addresses of the name are checked when it is
//! dialled ([`super::dial`]).

use std::fmt;
use std::str::FromStr;

use crate::limits::push::PUSH_ENDPOINT_MAX_BYTES;

/// The push services of Chrome and everything made of it, Firefox, Edge on Windows, and Safari.
const KNOWN_HOSTS: [&str; 5] = [
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "push.services.mozilla.com",
    "*.notify.windows.com",
    "*.push.apple.com",
];

/// A host, or `*.` and the end of host names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl FromStr for HostPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pattern = text.to_ascii_lowercase();
        let name = pattern.strip_prefix("*.").unwrap_or(&pattern);
        if is_name(name) {
            Ok(Self(pattern))
        } else {
            Err("expected a host, such as push.example, or *. and the end of one")
        }
    }
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => host == self.0,
        }
    }
}

/// Whether this is a name with at least two labels, and not an address in any notation (RFC 1123 2.1: the last label of
/// a name is not a number).
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.contains('.')
        && host.split('.').all(is_label)
        && last.starts_with(|first: char| first.is_ascii_lowercase())
}

/// The hosts that the server pushes to.
#[derive(Debug)]
pub(crate) struct Hosts(Vec<HostPattern>);

impl Hosts {
    /// The known push services, and `more`.
    pub(crate) fn with(more: &[HostPattern]) -> Self {
        let known = KNOWN_HOSTS.iter().map(|&host| HostPattern(host.to_owned()));
        Self(known.chain(more.iter().cloned()).collect())
    }
}

/// A push service's URL for one browser. Anyone who has it can spend that browser's pushes: its path is not printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    url: String,
    host_end: usize,
}

const SCHEME: &str = "https://";

impl Endpoint {
    /// Reads an endpoint of one of `hosts`, or says what is wrong with it.
    pub(crate) fn parse(url: &str, hosts: &Hosts) -> Result<Self, &'static str> {
        if url.len() > PUSH_ENDPOINT_MAX_BYTES {
            return Err("the endpoint is too long");
        }
        let rest = url.strip_prefix(SCHEME).ok_or("endpoint must be an https URL")?;
        let (authority, path) = rest.split_at(rest.find('/').ok_or("endpoint must have a path")?);
        let host = authority.strip_suffix(":443").unwrap_or(authority);
        if !is_name(host) {
            return Err("endpoint must have the name of a push service, and no user or port");
        }
        if !path.bytes().all(is_path_byte) {
            return Err("endpoint must not have a fragment, a space or another unusual character");
        }
        if !hosts.0.iter().any(|pattern| pattern.matches(host)) {
            return Err("the push service of this endpoint is unknown here");
        }
        Ok(Self { url: format!("{SCHEME}{host}{path}"), host_end: SCHEME.len() + host.len() })
    }

    /// All of it, as it is stored and compared: without `:443`.
    pub(crate) fn as_str(&self) -> &str {
        &self.url
    }

    pub(crate) fn host(&self) -> &str {
        &self.url[SCHEME.len()..self.host_end]
    }

    /// The audience of a token (RFC 8292 2).
    pub(crate) fn origin(&self) -> &str {
        &self.url[..self.host_end]
    }

    /// The path and the query.
    pub(crate) fn path(&self) -> &str {
        &self.url[self.host_end..]
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/..", self.origin())
    }
}

/// What a path and a query are made of (RFC 3986 3.3 and 3.4).
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(url: &str) -> Result<Endpoint, &'static str> {
        Endpoint::parse(url, &Hosts::with(&[]))
    }

    #[test]
    fn the_endpoints_of_the_four_browsers_are_taken() {
        for url in [
            "https://fcm.googleapis.com/fcm/send/dK8_x:APA91bH-d_0",
            "https://updates.push.services.mozilla.com/wpush/v2/gAAAAAB=",
            "https://wns2-par02p.notify.windows.com/w/?token=BQYAAAD%2b",
            "https://web.push.apple.com/QGQ",
        ] {
            assert_eq!(parse(url).unwrap().as_str(), url);
        }
    }

    #[test]
    fn a_url_is_cut_where_every_parser_cuts_it() {
        let endpoint = parse("https://web.push.apple.com:443/a/b?c=d").unwrap();
        assert_eq!(endpoint.host(), "web.push.apple.com");
        assert_eq!(endpoint.origin(), "https://web.push.apple.com");
        assert_eq!(endpoint.path(), "/a/b?c=d");
        assert_eq!(endpoint.as_str(), "https://web.push.apple.com/a/b?c=d");
        assert!(!format!("{endpoint:?}").contains("c=d"), "the path is a secret");
    }

    #[test]
    fn an_endpoint_has_as_many_bytes_as_are_allowed_and_not_one_more() {
        let url = |bytes| format!("{:x<bytes$}", "https://web.push.apple.com/");
        assert!(parse(&url(PUSH_ENDPOINT_MAX_BYTES)).is_ok());
        assert!(parse(&url(PUSH_ENDPOINT_MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn nothing_else_is_an_endpoint() {
        let long = format!("https://web.push.apple.com/{}", "x".repeat(PUSH_ENDPOINT_MAX_BYTES));
        for url in [
            "",
            "https://",
            "https:///",
            "http://web.push.apple.com/x",
            "HTTPS://web.push.apple.com/x",
            "//web.push.apple.com/x",
            "https://web.push.apple.com",
            "https://web.push.apple.com?x",
            "https://web.push.apple.com#/x",
            "https://web.push.apple.com/x#y",
            "https://web.push.apple.com/x y",
            "https://web.push.apple.com/x\r\nHost: y",
            "https://web.push.apple.com/\u{e9}",
            "https://web.push.apple.com\\@evil.example/x",
            "https://evil.example\\.push.apple.com/x",
            "https://me@web.push.apple.com/x",
            "https://me:pw@web.push.apple.com/x",
            "https://web.push.apple.com@evil.example/x",
            "https://web.push.apple.com:8443/x",
            "https://web.push.apple.com:/x",
            "https://web.push.apple.com:443:443/x",
            "https://web.push.apple.com:0443/x",
            "https://web.push.apple.com./x",
            "https://.push.apple.com/x",
            "https://push.apple.com/x",
            "https://xpush.apple.com/x",
            "https://evil.example/x",
            "https://evilfcm.googleapis.com/x",
            "https://fcm.googleapis.com.evil.example/x",
            "https://a..push.apple.com/x",
            "https://-a.push.apple.com/x",
            "https://a%2e.push.apple.com/x",
            "https://WEB.push.apple.com/x",
            "https://127.0.0.1/x",
            "https://0x7f.1/x",
            "https://2130706433/x",
            "https://[::1]/x",
            "https://localhost/x",
            " https://web.push.apple.com/x",
            &long,
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_of_a_known_host_whatever_stands_around_it(
            before in ".{0,12}", host in "(web\\.push\\.apple\\.com|evil\\.example|127\\.0\\.0\\.1)", after in ".{0,12}",
        ) {
            if let Ok(endpoint) = parse(&format!("https://{before}{host}{after}/x")) {
                // Another parser sees the same.
                let uri: hyper::Uri = endpoint.as_str().parse().unwrap();
                assert_eq!(uri.host(), Some(endpoint.host()));
                assert!(uri.port().is_none());
                assert!(endpoint.host().ends_with(".push.apple.com"));
                assert_eq!(parse(endpoint.as_str()), Ok(endpoint));
            }
        }
    }

    #[test]
    fn the_operator_may_add_hosts() {
        let hosts = Hosts::with(&["push.example".parse().unwrap(), "*.Ntfy.example".parse().unwrap()]);
        for (url, taken) in [
            ("https://push.example/x", true),
            ("https://a.push.example/x", false),
            ("https://a.ntfy.example/x", true),
            ("https://ntfy.example/x", false),
            ("https://web.push.apple.com/x", true),
        ] {
            assert_eq!(Endpoint::parse(url, &hosts).is_ok(), taken, "{url}");
        }
        for pattern in [
            "",
            "*",
            "*.",
            "com",
            "*.com",
            "a b.example",
            "10.0.0.1",
            "https://push.example",
            "push.example:443",
            "*.*.a.b",
        ] {
            assert!(pattern.parse::<HostPattern>().is_err(), "{pattern}");
        }
    }
}

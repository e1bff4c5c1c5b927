//! Invariants of every parser of bytes from outside.
//!
//! Each function passes bytes to the parsers of one kind, and panics if an invariant is broken. They are called by the
//! fuzz targets under `fuzz/` with the bytes of libFuzzer, and by the property tests below with those of proptest.
//! Hostile bytes that were found once are added to the corpus.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue};

#[cfg(feature = "cluster")]
use crate::cluster;
use crate::config::parse_origin;
use crate::db::{NewMessage, PageQuery};
use crate::http::percent_decode;
use crate::http::{assets, is_json, messages, override_hyper_error, proxy, rest};
use crate::limits::{PAGE_MAX_MESSAGES, REQUEST_ID_MAX_CHARS};
use crate::model::{CONTENT_MAX_CHARS, Content, Message, MessageId, NONCE_MAX_CHARS, Nonce, UnixMillis, Username};
use crate::protocol::{Auth, ClientFrame, CredentialsBody, InviteBody, ServerFrame, encode, parse_body};
use crate::room::{ALT_MAX_CHARS, REACTIONS};
use crate::ws::{self, FrameTracker};

/// A frame from a client, and the body of a login.
pub fn client_frame(bytes: &[u8]) {
    if let Some(credentials) = parse_body::<CredentialsBody>(bytes)
        && let Some(username) = Username::parse(&credentials.username)
    {
        assert!(username.as_str().is_ascii() && !username.as_str().starts_with(['.', '_', '-']));
    }
    drop(parse_body::<InviteBody>(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(auth) = Auth::parse(text) {
        assert!(auth.last_id.is_none_or(|id| id.get() >= 0));
    }
    match ClientFrame::parse(text) {
        Ok(ClientFrame::Message(NewMessage { content, nonce, image, .. })) => {
            let chars = content.as_str().chars().count();
            assert!((usize::from(image.is_none())..=CONTENT_MAX_CHARS).contains(&chars));
            let description = image.as_ref().map_or("", |(_, alt)| alt.as_str());
            assert!(description.chars().count() <= ALT_MAX_CHARS && !description.contains(char::is_control));
            shows(content, nonce.as_ref());
        }
        Ok(ClientFrame::Edit { content, nonce, .. }) => shows(content, nonce.as_ref()),
        Ok(ClientFrame::React { emoji, .. }) => assert!(REACTIONS.contains(&emoji.as_str())),
        Ok(_) => {}
        Err(refusal) => drop(encode(&ServerFrame::refusal(&refusal))),
    }
}

/// A text that was parsed needs no more parsing, and is sent as it is.
fn shows(content: Content, nonce: Option<&Nonce>) {
    assert!(!content.as_str().contains(|char: char| char.is_control() && char != '\n' && char != '\t'));
    assert!(nonce.is_none_or(|nonce| (1..=NONCE_MAX_CHARS).contains(&nonce.as_str().chars().count())));
    if !content.as_str().is_empty() {
        assert_eq!(Content::parse(content.as_str()).as_ref(), Ok(&content));
    }
    is_sent_unchanged(content);
}

/// The JSON sent to everyone contains the text unchanged.
fn is_sent_unchanged(content: Content) {
    let username = Username::parse("ada").expect("a plain name");
    let message = Message::plain(MessageId::new(1), username, content, UnixMillis(0));
    let frame = encode(&ServerFrame::message(&message));
    let json = frame.windows(2).position(|start| start == b"{\"").expect("an object behind the frame's header");
    let shown: serde_json::Value = serde_json::from_slice(&frame[json..]).expect("frames are JSON");
    assert_eq!(shown["content"], message.content.as_str());
}

/// The query of `GET /messages`, and a path.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(percent_decode(text).is_none_or(|decoded| decoded.len() <= text.len()));
    if let Ok(request) = messages::parse_page(text) {
        assert!((1..=PAGE_MAX_MESSAGES).contains(&request.limit));
        let place = match request.page {
            PageQuery::Newest => String::new(),
            PageQuery::Before(id) => format!("before={}&", id.get()),
            PageQuery::After(id) => format!("after={}&", id.get()),
            PageQuery::Around(id) => format!("around={}&", id.get()),
        };
        let again = format!("{place}room={}&limit={}", request.room.0, request.limit);
        assert_eq!(messages::parse_page(&again), Ok(request));
    }
    if assets::exists(text) {
        assert!(text.starts_with('/') && !text.contains("..") && !text.contains('%'));
        assert!(assets::get(text, &HeaderMap::new()).is_some());
    }
}

/// The values of headers, and hyper's own answers.
pub fn header(bytes: &[u8]) {
    if let Some(answer) = override_hyper_error(bytes, false) {
        assert!(answer.starts_with(b"HTTP/1.1 4"));
    }
    if let Ok(origin) = std::str::from_utf8(bytes).map(parse_origin)
        && let Ok(origin) = origin
    {
        assert_eq!(parse_origin(&origin).as_ref(), Ok(&origin));
    }
    assert!(!ws::is_key(bytes) || bytes.len() == 24);
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let contains = |word: &str| bytes.to_ascii_lowercase().windows(word.len()).any(|window| window == word.as_bytes());
    assert!(!assets::accepts_gzip(&value) || contains("gzip"));
    assert!(!assets::lists(&value, "\"etag\"") || contains("\"etag\"") || contains("*"));
    let headers = HeaderMap::from_iter(
        [ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE].map(|name| (name, value.clone())),
    );
    assert!(!is_json(&headers) || contains("application/json"));
    assert!(!ws::lists(&headers, &CONNECTION, "upgrade") || contains("upgrade"));
    let forwarded =
        HeaderMap::from_iter([(proxy::X_FORWARDED_FOR, value.clone()), (proxy::X_REQUEST_ID, value.clone())]);
    let peer = IpAddr::from([192, 0, 2, 1]);
    let believed = proxy::client_address(&forwarded, peer, |address| address == peer);
    assert!(believed == peer || contains(".") || contains(":"));
    if proxy::client_address(&forwarded, peer, |_| false) != believed {
        assert!(contains("192.0.2.1") || contains("::"), "the list is read only past a trusted proxy");
    }
    let added = HeaderValue::from_bytes(&[bytes, b", 198.51.100.7"].concat()).expect("what is added is plain");
    let added = HeaderMap::from_iter([(proxy::X_FORWARDED_FOR, added)]);
    let client = proxy::client_address(&added, peer, |address| address == peer);
    assert_eq!(
        client,
        IpAddr::from([198, 51, 100, 7]),
        "the address that a proxy appends counts, whatever precedes it"
    );
    assert!(proxy::request_id(&forwarded).is_none_or(|id| id.len() <= REQUEST_ID_MAX_CHARS && !id.contains(' ')));
    if rest::bearer(&headers).is_ok() {
        assert!(contains("bearer ") && bytes.iter().filter(|byte| byte.is_ascii_hexdigit()).count() >= 64);
    }
}

/// The bytes of frames: wherever they are cut, the boundaries between messages are the same.
pub fn frames(bytes: &[u8]) {
    let mut whole = FrameTracker::default();
    whole.pass(bytes);
    let cut = bytes.first().map_or(1, |byte| usize::from(*byte % 16) + 1);
    let mut pieces = FrameTracker::default();
    bytes.chunks(cut).for_each(|piece| pieces.pass(piece));
    assert_eq!(whole.is_idle(), pieces.is_idle());
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
}

/// An entry of a cluster's log, and what a NATS server says.
#[cfg(feature = "cluster")]
pub fn entry(bytes: &[u8]) {
    cluster::read_anything(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Bytes close to valid input: words of the grammar in any order, with anything in between.
    fn near(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            1 => "\\PC{0,8}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    const JSON: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\"type\"",
        "\"message\"",
        "\"content\"",
        "\"nonce\"",
        "\"auth\"",
        "\"token\"",
        "\"last_id\"",
        "\"typing\"",
        "\"ping\"",
        "\"hi\"",
        "null",
        "-1",
        "1e999",
        "\\u0000",
        "\\ud800",
        "{\"type\":\"message\",\"content\":\"",
        "{\"type\":\"auth\",",
        "\"username\"",
        "\"password\"",
    ];
    const ADDRESS: &[&str] = &[
        "limit",
        "before",
        "after",
        "=",
        "&",
        "1",
        "50",
        "200",
        "-",
        "%31",
        "/",
        "..",
        "app.js",
        "?",
        "9223372036854775808",
    ];
    const HEADERS: &[&str] = &[
        "gzip",
        "br",
        ";q=0",
        ";q=",
        "0.5",
        ",",
        ";",
        " ",
        "*",
        "W/",
        "\"",
        "etag",
        "Bearer ",
        "application/json",
        "charset=",
        "utf-8",
        "upgrade",
        "https://",
        "host",
        ":1",
        "HTTP/1.1 400 ",
        "192.0.2.1",
        "[2001:db8::1]:80",
        "\r\ncontent-length: 0\r\n",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "dGhlIHNhbXBsZSBub25jZQ==",
    ];
    const FRAMES: &[&str] =
        &["\u{1}", "\u{0}", "\u{2}", "\u{8}", "\u{9}", "\u{7f}", "~", "}", "\0\0\0\0", "\0\0\0\0\0\0\0\u{1}"];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn client_frames_keep_the_invariants(bytes in near(JSON)) {
            super::client_frame(&bytes);
        }

        #[test]
        fn any_text_is_sent_unchanged_or_refused(content in any::<String>(), nonce in any::<Option<String>>()) {
            let frame = serde_json::json!({"type": "message", "content": content, "nonce": nonce});
            super::client_frame(frame.to_string().as_bytes());
        }

        #[cfg(feature = "cluster")]
        #[test]
        fn entries_of_a_log_are_read_or_refused(bytes in near(JSON)) {
            super::entry(&bytes);
        }

        #[test]
        fn paths_and_queries_keep_the_invariants(bytes in near(ADDRESS)) {
            super::address(&bytes);
        }

        #[test]
        fn headers_keep_the_invariants(bytes in near(HEADERS)) {
            super::header(&bytes);
        }

        #[test]
        fn a_frame_is_the_same_however_it_is_cut(bytes in near(FRAMES)) {
            super::frames(&bytes);
        }

        #[test]
        fn any_bytes_are_frames_or_broken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            super::frames(&bytes);
        }
    }
}

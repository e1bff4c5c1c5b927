//! An entry of the log, as bytes: one line of JSON, so that `nats stream view chinwag` shows what happened.
//!
//! An entry has a version. A node that meets a newer one stops, since it does not know what the others did with it: it
//! is to be upgraded. One of a known version that cannot be read is refused by every node alike, and changes nothing.
//! So a new kind of change, or a new field, needs a higher [`VERSION`].
//!
//! Entries are written in the newest version that all nodes read, so that nodes of this version and of the next run side
//! by side. Meanwhile, what only the next version has is refused.

use serde::Deserialize;

use crate::db::{Body, Changes, Position};
use crate::model::UnixMillis;

/// The newest version of entries that this program reads and writes. From 2 on they have the changes of Web Push,
/// from 3 on the publisher's time.
pub(crate) const VERSION: u32 = 3;
/// The first version with that.
pub(crate) const WITH_CLOCK: u32 = 3;

/// What an entry is written with.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    /// One that all nodes read, and that has all of its changes.
    pub(crate) version: u32,
    pub(crate) by: &'a str,
    pub(crate) number: u64,
    pub(crate) claim: Position,
    pub(crate) session_lifetime: i64,
    /// From [`WITH_CLOCK`] on.
    pub(crate) published_at: Option<UnixMillis>,
    pub(crate) forget_day: Option<i64>,
}

/// Writes an entry of changes that are encoded already.
pub(crate) fn encode(header: &Header<'_>, changes: &[Vec<u8>]) -> Vec<u8> {
    let Header { version, by, number, claim: Position { applied, chain }, session_lifetime, published_at, forget_day } =
        header;
    let clock = published_at.map_or_else(String::new, |UnixMillis(at)| format!("\"t\":{at},"));
    let forget = forget_day.map_or_else(String::new, |day| format!("\"f\":{day},"));
    let head = format!(
        "{{\"v\":{version},\"by\":\"{by}\",\"n\":{number},\"s\":{applied},\"h\":\"{chain:016x}\",\"l\":{session_lifetime},{clock}{forget}\"c\":["
    );
    let mut entry = head.into_bytes();
    for (at, change) in changes.iter().enumerate() {
        if at > 0 {
            entry.push(b',');
        }
        entry.extend_from_slice(change);
    }
    entry.extend_from_slice(b"]}");
    entry
}

/// Bytes of an entry with these changes, about: what surrounds them is less.
pub(crate) const SURROUNDINGS: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u32,
    by: Box<str>,
    n: u64,
    s: u64,
    h: Box<str>,
    l: i64,
    t: Option<i64>,
    f: Option<i64>,
    c: Changes,
}

/// The version of an entry, even if the rest of it cannot be read.
pub(crate) fn version_of(payload: &[u8]) -> Option<u32> {
    serde_json::from_slice(payload).ok().map(|Version { v }| v)
}

/// The number of an entry that `node` published, even if the rest of it cannot be read.
pub(crate) fn number_of(payload: &[u8], node: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Origin {
        by: Box<str>,
        n: u64,
    }
    let origin: Origin = serde_json::from_slice(payload).ok()?;
    (*origin.by == *node).then_some(origin.n)
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// Why an entry is not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// A newer chinwag wrote it: what it does is not known here.
    #[error("the log has entries of version {0}, of a newer chinwag: upgrade this node")]
    Newer(u32),
    /// No node can read it.
    #[error("an entry of the log cannot be read, and is left out by every node")]
    Malformed,
}

/// Reads an entry.
pub(crate) fn decode(payload: &[u8]) -> Result<Body, Unreadable> {
    let wire = match serde_json::from_slice::<Wire>(payload) {
        Ok(wire) if (1..=VERSION).contains(&wire.v) && (wire.t.is_none() || wire.v >= WITH_CLOCK) => wire,
        _ => {
            return Err(match version_of(payload) {
                Some(v) if v > VERSION => Unreadable::Newer(v),
                _ => Unreadable::Malformed,
            });
        }
    };
    let is_name =
        (1..=NAME_MAX_BYTES).contains(&wire.by.len()) && wire.by.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let chain = u64::from_str_radix(&wire.h, 16).ok().filter(|_| is_name).ok_or(Unreadable::Malformed)?;
    Ok(Body {
        version: wire.v,
        by: wire.by,
        number: wire.n,
        claim: Position { applied: wire.s, chain },
        session_lifetime: wire.l,
        published_at: wire.t.map(UnixMillis),
        forget_day: wire.f,
        changes: wire.c,
    })
}

/// Bytes of the name of a process that publishes.
const NAME_MAX_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(by: &str) -> Header<'_> {
        let claim = Position { applied: 7, chain: 0xfeed };
        Header {
            version: 3,
            by,
            number: 3,
            claim,
            session_lifetime: 1_000,
            published_at: Some(UnixMillis(-7)),
            forget_day: Some(19_000),
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let bytes = encode(&header("0190ab"), &[br#""Check""#.to_vec(), br#"{"TouchSession":{"session":4}}"#.to_vec()]);
        let body = decode(&bytes).unwrap();
        assert_eq!(
            (&*body.by, body.number, body.session_lifetime, body.published_at, body.forget_day),
            ("0190ab", 3, 1_000, Some(UnixMillis(-7)), Some(19_000))
        );
        assert_eq!(body.claim, Position { applied: 7, chain: 0xfeed });
        assert!(bytes.len() < SURROUNDINGS + 40);
    }

    #[test]
    fn an_entry_that_cannot_be_read_still_tells_whose_it_is() {
        let good = String::from_utf8(encode(&header("a"), &[br#""Check""#.to_vec()])).unwrap();
        let bad = good.replace("Check", "SomethingNew");
        assert_eq!((number_of(bad.as_bytes(), "a"), number_of(bad.as_bytes(), "b")), (Some(3), None));
    }

    #[test]
    fn messages_of_somebody_whose_account_is_deleted_are_erased_everywhere() {
        let erase = |name| format!(r#"{{"EraseMessages":{{"username":"{name}","after":0,"by":null}}}}"#);
        let command = |name| format!(r#"{{"Administer":{{"command":{},"rows":1}}}}"#, erase(name));
        let reads = |name| decode(&encode(&header("a"), &[command(name).into_bytes()])).is_ok();
        assert!(reads("ada") && reads("(deleted 7)") && !reads("(deleted 07)") && !reads("(deleted x)"));
    }

    #[test]
    fn what_was_written_once_is_read() {
        for entry in [
            &include_bytes!("../../fuzz/corpus/entry/write")[..],
            include_bytes!("../../fuzz/corpus/entry/push"),
            include_bytes!("../../fuzz/corpus/entry/clock"),
        ] {
            assert!(decode(entry).is_ok(), "or VERSION is to be raised");
        }
    }

    #[test]
    fn an_entry_of_a_newer_version_is_told_from_one_that_nobody_can_read() {
        let good = String::from_utf8(encode(&header("a"), &[br#""Check""#.to_vec()])).unwrap();
        assert!(decode(good.as_bytes()).is_ok());
        let newer = good.replace("\"v\":3", "\"v\":4").replace("Check", "SomethingNew");
        assert!(matches!(decode(newer.as_bytes()), Err(Unreadable::Newer(4))));
        for bad in [
            "",
            "null",
            "{",
            &good.replace("Check", "SomethingNew"),
            &good.replace("\"n\":3", "\"n\":-3"),
            &good.replace("\"n\":3", "\"n\":3,\"x\":1"),
            &good.replace("\"by\":\"a\"", "\"by\":\"a b\""),
            &good.replace("feed", "zzzz"),
            &good.replace("\"v\":3", "\"v\":0"),
            &good.replace("\"v\":3", "\"v\":2"),
        ] {
            assert!(matches!(decode(bad.as_bytes()), Err(Unreadable::Malformed)), "{bad}");
        }
    }
}

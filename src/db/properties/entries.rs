//! What holds of entries of a log, whatever changes they carry.

use std::sync::Arc;

use sha2::Digest as _;

use super::*;
use crate::db::follow::{Body, Changes, Entry, Progress, Replicated};
use crate::db::replica::{Position, set};

/// A database that follows a log.
struct Replica {
    fixture: Fixture,
    progress: Arc<Progress>,
    known: Option<Replicated>,
}

impl Replica {
    fn new() -> Self {
        let fixture = Fixture::new(0);
        let connection = open::open_writer(&fixture.path, Durability::Normal).unwrap();
        set(&connection, "log", "log").unwrap();
        let progress = Arc::new(Progress::new(&connection, Position::default()).unwrap());
        Self { fixture, progress, known: None }
    }

    /// Applies entries in one transaction.
    fn apply(&mut self, entries: Vec<Entry>) {
        let mut batch = entries;
        assert!(self.fixture.writer.commit_entries(&mut batch, &mut self.known, &self.progress, 0));
    }
}

/// The encoding of a change, and the change that it is of.
fn encoded(change: &Change) -> Vec<u8> {
    serde_json::to_vec(change).unwrap()
}

/// The entry at `seq`, the `number`th of its publisher, with one change.
fn entry(seq: u64, by: &str, number: u64, at: i64, change: &Change) -> Entry {
    let payload = encoded(change);
    let changes: Changes = serde_json::from_slice(&[b"[", &payload[..], b"]"].concat()).unwrap();
    let body =
        Body { by: by.into(), number, claim: Position::default(), session_lifetime: 1_000, forget_day: None, changes };
    let digest = sha2::Sha256::digest(&payload).into();
    Entry { seq, at: UnixMillis(at), digest, body: Some(body), replies: crate::db::Replies::default() }
}

fn entries(changes: &[Change]) -> Vec<Entry> {
    let numbered = (1..).zip(changes);
    numbered.map(|(seq, change)| entry(seq, "a", seq, i64::try_from(seq).unwrap() * 7_000_000, change)).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_change_survives_its_encoding(change in change()) {
        let once = encoded(&change);
        let read: Change = serde_json::from_slice(&once).unwrap();
        prop_assert_eq!(String::from_utf8(encoded(&read)).unwrap(), String::from_utf8(once).unwrap());
    }

    #[test]
    fn entries_in_any_batching_give_the_same_database_and_chain(
        changes in prop::collection::vec(change(), 0..CHANGES), sizes in prop::collection::vec(1..5_usize, CHANGES)
    ) {
        let (mut whole, mut parts) = (Replica::new(), Replica::new());
        whole.apply(entries(&changes));
        let mut rest = entries(&changes);
        for size in sizes {
            let others = rest.split_off(size.min(rest.len()));
            parts.apply(std::mem::replace(&mut rest, others));
        }
        prop_assert_eq!(whole.progress.position(), parts.progress.position());
        prop_assert_eq!(whole.fixture.rows(), parts.fixture.rows());
    }

    #[test]
    fn an_entry_twice_changes_nothing_more(changes in prop::collection::vec(change(), 1..CHANGES)) {
        let (mut once, mut twice) = (Replica::new(), Replica::new());
        once.apply(entries(&changes));
        twice.apply(entries(&changes));
        // The same entry of its publisher again, later in the log.
        let last = changes.len() as u64;
        twice.apply(vec![entry(last + 1, "a", last, 1 << 40, &changes[changes.len() - 1])]);
        let rows = |replica: &Replica| {
            let mut rows = replica.fixture.rows();
            rows.retain(|(_, row)| ![Value::Text("applied".into()), Value::Text("chain".into())].contains(&row[0]));
            rows
        };
        prop_assert_eq!(rows(&once), rows(&twice));
        prop_assert_eq!(twice.progress.position().applied, last + 1);
    }
}

#[test]
fn positions_are_compared_where_both_databases_were() {
    let mut replica = Replica::new();
    replica.apply(entries(&[Change::Check, Change::Check, Change::Check]));
    let Position { applied, chain } = replica.progress.position();
    assert_eq!(applied, 3);
    assert_eq!(replica.progress.agrees(Position { applied: 0, chain: 0 }), Some(true));
    assert_eq!(replica.progress.agrees(Position { applied, chain }), Some(true));
    assert_eq!(replica.progress.agrees(Position { applied, chain: chain + 1 }), Some(false));
    assert_eq!(replica.progress.agrees(Position { applied: 4, chain }), None, "not there yet");
}

#[test]
fn days_of_nonces_go_by_the_log_and_not_by_a_clock() {
    const DAY: i64 = 86_400_000;
    let mut replica = Replica::new();
    let days = |replica: &Replica| replica.progress.nonce_days();
    let at = |seq, day| entry(seq, "a", seq, day * DAY, &Change::Check);
    replica.apply(vec![at(1, 5)]);
    replica.apply(vec![at(2, 6), at(3, 4)]);
    assert_eq!(days(&replica), [6, 5], "a clock set back changes nothing");
    replica.apply(vec![at(4, 90), at(5, 200)]);
    assert_eq!(days(&replica), [200, 90, 6], "three are remembered");
    let forget = |seq, day| {
        let mut entry = at(seq, 200);
        entry.body.as_mut().unwrap().forget_day = Some(day);
        entry
    };
    replica.apply(vec![forget(6, 6)]);
    assert_eq!(days(&replica), [200, 90]);
    replica.apply(vec![forget(7, 200)]);
    assert_eq!(days(&replica), [200, 90], "today is not over");
}

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
    let body = Body {
        version: crate::cluster::VERSION,
        by: by.into(),
        number,
        claim: Position::default(),
        session_lifetime: 1_000,
        published_at: None,
        forget_day: None,
        changes,
    };
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
    fn an_entry_twice_changes_nothing_more(
        changes in prop::collection::vec(change(), 1..CHANGES), restarts in any::<bool>()
    ) {
        let (mut once, mut twice) = (Replica::new(), Replica::new());
        once.apply(entries(&changes));
        twice.apply(entries(&changes));
        twice.known.take_if(|_| restarts);
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
fn entries_whose_transaction_failed_are_applied_when_one_succeeds_as_if_nothing_had_happened() {
    let (username, digest) = (Username::parse("ada").unwrap(), Digest::from_hex(&"0".repeat(64)).unwrap());
    let sender = Sender { session: SessionId(1), user: UserId(1), username: username.clone(), is_bot: false };
    let say = |text| {
        let message = Write::Message(NewMessage::plain(Content::parse(text).unwrap(), None));
        Change::Write { sender: sender.clone(), writes: vec![message], rules: rules() }
    };
    let login =
        Change::LoginUser { user: UserId(1), password_hash: String::new(), digest, client: String::new(), keep: 1 };
    let changes = [register(username), login, say("one"), say("two")];
    // Soon enough after one another for the session to live.
    let entries = || (1..).zip(&changes).map(|(seq, change)| entry(seq, "a", seq, 1, change)).collect::<Vec<_>>();
    let (mut failing, mut undisturbed) = (Replica::new(), Replica::new());
    undisturbed.apply(entries());
    let disk = open::open_writer(&failing.fixture.path, Durability::Normal).unwrap();
    // After one message of two there is no more room.
    disk.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON messages WHEN new.id = 2 BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    .unwrap();
    let mut batch = entries();
    assert!(!failing.fixture.writer.commit_entries(&mut batch, &mut failing.known, &failing.progress, 0));
    assert_eq!((batch.len(), failing.progress.position()), (changes.len(), Position::default()));
    disk.execute_batch("DROP TRIGGER full").unwrap();
    failing.apply(batch);
    assert_eq!(failing.progress.position(), undisturbed.progress.position());
    let mut rows = failing.fixture.rows();
    // What each node tries its own disk with after a failure.
    rows.retain(|(_, row)| row[0] != Value::Text("proof".into()));
    assert_eq!(rows, undisturbed.fixture.rows());
    assert_eq!(sql::last_id(&failing.fixture.reading).unwrap(), MessageId::new(2));
}

#[test]
fn a_clock_of_the_log_that_jumps_ahead_ends_no_session() {
    let digest = Digest::from_hex(&"0".repeat(64)).unwrap();
    let mut replica = Replica::new();
    let login =
        Change::LoginUser { user: UserId(1), password_hash: String::new(), digest, client: String::new(), keep: 1 };
    let sweep = Sweep {
        rows: 10,
        emptied_until: UnixMillis(0),
        unnamed_until: UnixMillis(0),
        images_until: None,
        images: 0,
        prune: None,
    };
    let mut seq = 0;
    let mut apply = |at, published_at: Option<i64>, change: &Change| {
        seq += 1;
        let mut entry = entry(seq, "a", seq, at, change);
        entry.body.as_mut().unwrap().published_at = published_at.map(UnixMillis);
        replica.apply(vec![entry]);
        sql::session(&replica.fixture.reading, &digest, UnixMillis(0)).unwrap().is_some()
    };
    apply(1_000, Some(1_000), &register(Username::parse("ada").unwrap()));
    assert!(apply(1_000, Some(1_000), &login));
    assert!(apply(9_000, Some(1_999), &Change::Sweep(sweep)), "the publisher's clock did not jump");
    assert!(apply(1_999, Some(9_000), &Change::Sweep(sweep)), "nor does that of one node count alone");
    assert!(!apply(9_000, None, &Change::Sweep(sweep)), "as a node of the version before had it");
}

#[test]
fn what_applying_takes_from_constants_changes_with_the_version_of_entries_only() {
    use crate::limits::{CLEAN_IMAGE_BYTES, NONCE_DAY, OPEN_ROOMS_MAX, REPLAY_MAX_MESSAGES, USER_ROOMS_MAX};
    use crate::room::MENTIONS_MAX;
    let counts = [MENTIONS_MAX, NonceDays::REMEMBERED, crate::db::follow::PUBLISHERS];
    let most = [OPEN_ROOMS_MAX, USER_ROOMS_MAX, REPLAY_MAX_MESSAGES, CLEAN_IMAGE_BYTES];
    assert_eq!(
        (crate::cluster::VERSION, ID_MAX, NONCE_DAY.as_secs(), counts, most),
        (3, (1 << 53) - 1, 86_400, [16, 3, 256], [500, 500, 1_000, 256 * 1024]),
        "nodes of two versions would do different things: let the entry carry it, or raise VERSION and go by the entry's own"
    );
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
    let days = |replica: &Replica| {
        let days = replica.progress.nonce_days();
        let after_a_restart = Progress::new(&replica.fixture.reading, Position::default()).unwrap().nonce_days();
        assert_eq!(days, after_a_restart);
        days
    };
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

#[test]
fn the_last_processes_that_published_are_known() {
    let most = i64::try_from(crate::db::follow::PUBLISHERS).unwrap();
    let mut replica = Replica::new();
    // How many are known once one more has published, and which of them is the first.
    let mut publish = |by: i64| -> (i64, i64) {
        replica.apply(vec![entry(by.cast_unsigned(), &by.to_string(), 1, by, &Change::Check)]);
        let known = "SELECT count(*), min(substr(key, 11) + 0) FROM meta WHERE key LIKE 'publisher %'";
        replica.fixture.reading.query_row(known, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    for by in 1..=most {
        assert_eq!(publish(by), (by, 1));
    }
    assert_eq!(publish(most + 1), (most, 2));
    assert_eq!(publish(most + 2), (most, 3));
}

//! Promises 1 and 5 across the end of the process: what was acknowledged is there, once.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{
    Client, Connection, Dice, Follower, PASSWORD, RawClient, STOP, TestServer, contents, ids, int, text, wait_while,
    within,
};
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What a sender knows when its connection has broken: its messages' texts (which are their nonces), the ids of those
/// that were acknowledged, and the close code, if there was one.
struct Sent {
    client: Client,
    nonces: Vec<String>,
    acknowledged: BTreeMap<String, i64>,
    close_code: Option<u16>,
}

/// Sends as fast as acks come, a few on the way at a time, until the connection breaks. Counts the acks.
async fn send_until_the_end(client: Client, round: usize, acks: Arc<AtomicUsize>, enough: Arc<Notify>) -> Sent {
    let mut connection = client.connect().await;
    let mut sent = Sent { client, nonces: Vec::new(), acknowledged: BTreeMap::new(), close_code: None };
    loop {
        while sent.nonces.len() < sent.acknowledged.len() + 16 {
            let nonce = format!("{} {round} {}", sent.client.username, sent.nonces.len());
            let frame = json!({"type": "message", "content": nonce, "nonce": nonce}).to_string();
            sent.nonces.push(nonce);
            if !connection.try_send(&frame).await {
                break;
            }
        }
        let frame = match connection.receive().await {
            Ok(frame) => frame,
            Err(close_code) => return Sent { close_code, ..sent },
        };
        if frame["type"] == "ack" {
            sent.acknowledged.insert(text(&frame["nonce"]).to_owned(), int(&frame["id"]));
            acks.fetch_add(1, Ordering::Relaxed);
            enough.notify_one();
        }
    }
}

/// All of `people` send; returns once `count` messages in all are acknowledged, while they go on.
async fn begin_burst(people: &[Client], round: usize, count: usize) -> Vec<JoinHandle<Sent>> {
    let acks = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(Notify::new());
    let sending = people
        .iter()
        .map(|person| tokio::spawn(send_until_the_end(person.clone(), round, Arc::clone(&acks), Arc::clone(&enough))))
        .collect();
    within("acks", async {
        while acks.load(Ordering::Relaxed) < count {
            enough.notified().await;
        }
    })
    .await;
    sending
}

/// What the senders of a burst know in the end.
async fn ends(sending: Vec<JoinHandle<Sent>>) -> Vec<Sent> {
    let mut sent = Vec::new();
    for sender in sending {
        sent.push(within("the end of a burst", sender).await.expect("no panic"));
    }
    sent
}

/// A burst of `count` acknowledged messages and more, in the middle of which the server is killed.
async fn burst(server: &mut TestServer, people: &[Client], round: usize, count: usize) -> Vec<Sent> {
    let sending = begin_burst(people, round, count).await;
    server.kill().await;
    ends(sending).await
}

/// Here because no id can be reserved any more, which is done after the commit and before anybody is told.
#[tokio::test]
async fn a_message_that_was_committed_before_something_failed_is_shown_once_all_works_again() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut connection = bob.connect().await;
    let post =
        async |content: &str| server.post("/messages").by(&ada).json(&json!({"content": content})).send().await.status;
    let change = |statement: &str| server.database().execute_batch(statement).expect("it is done");
    change("CREATE TRIGGER no BEFORE INSERT ON meta WHEN new.key = 'reserved' BEGIN SELECT RAISE(ABORT, 'no'); END");
    assert_eq!(post("first").await, 503);
    change("DROP TRIGGER no");
    assert_eq!(post("second").await, 201);
    assert_eq!(contents(&connection.messages(2).await), ["first", "second"]);
}

#[tokio::test]
async fn a_kill_in_a_burst_loses_and_doubles_nothing_that_was_acknowledged() {
    let mut server = TestServer::start();
    let people = server.seed_people(4).await;
    let mut dice = Dice::new(20);
    let mut newest = 0;
    for round in 0..20 {
        let sent = burst(&mut server, &people, round, 20 + dice.below(300)).await;
        server.restart();
        server.logged("skipping ids").await;

        let history = server.history_after(&people[0], newest).await;
        let stored: BTreeMap<&str, i64> =
            history.iter().map(|message| (message.content.as_str(), message.id)).collect();
        assert_eq!(stored.len(), history.len(), "each text was stored once");
        for (nonce, id) in sent.iter().flat_map(|sent| &sent.acknowledged) {
            assert_eq!(stored.get(nonce.as_str()), Some(id), "{nonce} was acknowledged");
        }
        assert!(ids(&history).is_sorted_by(|earlier, later| earlier < later));
        assert!(ids(&history).iter().all(|id| *id > newest), "ids go on rising after a crash");
        let check: String = server
            .database()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("the database can be checked");
        assert_eq!(check, "ok");

        // A client that got no answer sends again under the same nonce.
        for sender in &sent {
            let mut connection = sender.client.connect().await;
            for nonce in &sender.nonces {
                let id = connection.store(nonce, nonce).await;
                if let Some(stored) = stored.get(nonce.as_str()) {
                    assert_eq!(id, *stored, "{nonce} has its id already");
                }
            }
        }
        let history = server.history_after(&people[0], newest).await;
        let texts: BTreeSet<&str> = history.iter().map(|message| message.content.as_str()).collect();
        let all: BTreeSet<&str> = sent.iter().flat_map(|sent| &sent.nonces).map(String::as_str).collect();
        assert_eq!(texts, all, "all that was sent is there in the end");
        assert_eq!(history.len(), all.len(), "once");
        newest = history.last().expect("something was sent").id;
    }
}

#[tokio::test]
async fn what_anyone_saw_before_a_kill_is_there_after_it() {
    let mut server = TestServer::start();
    let people = server.seed_people(4).await;
    let bob = Client::register(&server, "bob").await;
    let mut reader = bob.connect().await;
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Ok(frame) = reader.receive().await {
            if frame["type"] == "message" {
                seen.push(common::Message::parse(&frame));
            }
        }
        seen
    });
    burst(&mut server, &people, 0, 500).await;
    let seen = seen.await.expect("no panic");
    server.restart();
    let history = server.history(&bob).await;
    assert!(!seen.is_empty());
    assert!(history.starts_with(&seen), "{} seen, {} stored", seen.len(), history.len());
}

#[tokio::test]
async fn a_stop_under_load_acknowledges_all_that_it_stores() {
    let mut server = TestServer::start();
    let people = server.seed_people(4).await;
    let sending = begin_burst(&people, 0, 300).await;
    assert_eq!(server.stop().await.code(), Some(0));
    let sent = ends(sending).await;
    server.restart();
    let history = server.history(&people[0]).await;
    let stored: HashSet<&str> = history.iter().map(|message| message.content.as_str()).collect();
    let acknowledged: HashSet<&str> =
        sent.iter().flat_map(|sent| sent.acknowledged.keys()).map(String::as_str).collect();
    let unstored: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(unstored.is_empty(), "acknowledged and not stored: {unstored:?}");
    let silent: Vec<_> = stored.difference(&acknowledged).collect();
    assert!(silent.is_empty(), "stored and not acknowledged: {silent:?}");
}

#[tokio::test]
async fn a_stop_under_load_takes_leave_of_every_sender_and_lets_nobody_in() {
    let mut server = TestServer::start();
    let people = server.seed_people(5).await;
    let (deaf, people) = people.split_last().expect("there are people");
    // Does not answer its close, for which the server waits: long enough to try and come in.
    let mut deaf = RawClient::authenticated(&server, deaf).await;
    let sending = begin_burst(people, 0, 300).await;
    let started = Instant::now();
    server.signal(Signal::TERM);
    for sender in ends(sending).await {
        assert_eq!(sender.close_code, Some(1001), "{}", sender.client.username);
    }
    let refused = TcpStream::connect(server.address()).await.expect_err("nobody comes in any more");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // For two seconds, which may be over on a busy machine.
    let is_running = server.is_running() || started.elapsed() >= Duration::from_secs(2);
    assert!(is_running, "it still waits for the one who does not answer");
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(started.elapsed() < STOP, "{:?}", started.elapsed());
    assert_eq!(deaf.close_code().await, 1001);
}

#[tokio::test]
async fn a_nonce_is_remembered_across_a_kill() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let id = ada.connect().await.store("n", "hello").await;
    server.kill().await;
    server.restart();
    let mut reader = Client::register(&server, "bob").await.connect().await;
    let mut connection = ada.connect().await;
    assert_eq!(connection.store("n", "hello").await, id);
    connection.store("m", "the next").await;
    assert_eq!(reader.message().await.content, "the next", "it is not shown again");
}

#[tokio::test]
async fn readers_resume_across_a_kill() {
    let mut server = TestServer::start();
    let people = server.seed_people(4).await;
    let bob = Client::register(&server, "bob").await;
    let mut follower = Follower::join(&bob).await;
    let first = people[0].connect().await.store("first", "first").await;
    follower.read_to(first).await;
    follower.vanish();
    burst(&mut server, &people, 0, 200).await;
    server.restart();
    follower.resume().await;
    let last = people[0].connect().await.store("last", "last").await;
    follower.read_to(last).await;
    assert_eq!(follower.history, server.history(&bob).await);
}

#[tokio::test]
async fn a_nonce_of_yesterday_is_remembered() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let id = ada.connect().await.store("n", "hello").await;
    server.stop().await;
    assert_eq!(server.database().execute("UPDATE nonces SET day = day - 1", []).expect("an update"), 1);
    server.restart();
    assert_eq!(ada.connect().await.store("n", "hello").await, id, "24 h reach into yesterday");
}

#[tokio::test]
async fn a_nonce_that_was_sent_when_many_wrote_is_remembered_and_moved_to_the_others() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let texts = vec!["hello".to_owned(); 1_200];
    let first = ada.connect().await.store_all("n", &texts).await;
    server.stop().await;
    // As if there had been many others in the same commits.
    let change = "INSERT INTO recent_nonces SELECT user_id, nonce, day, message_id FROM nonces; DELETE FROM nonces";
    server.database().execute_batch(change).expect("the change");
    server.restart();
    let mut connection = ada.connect().await;
    assert_eq!(connection.store_all("n", &texts).await, first);
    connection.store("another", "one more").await;
    server.kill().await;
    server.restart();
    let mut connection = ada.connect().await;
    for _ in 0..3 {
        assert_eq!(connection.store_all("n", &texts).await, first);
    }
    assert_eq!(server.number("SELECT count(*) FROM recent_nonces"), 0);
    assert_eq!(server.number("SELECT count(*) FROM nonces"), 1_201);
}

#[tokio::test]
async fn nonces_of_all_but_the_last_days_are_cleaned_up() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store_all("n", &vec!["hello".to_owned(); 1_200]).await;
    server.stop().await;
    // Two earlier days are remembered however long past they seem: it may be the clock that was wrong.
    let days = "UPDATE nonces SET day = day - 4; \
                INSERT INTO recent_nonces SELECT user_id, 'of many', day, 0 FROM nonces LIMIT 1; \
                INSERT INTO nonces SELECT day + 1, user_id, nonce, 0 FROM nonces LIMIT 1; \
                INSERT INTO nonces SELECT day + 1, user_id, nonce, 0 FROM nonces ORDER BY day DESC LIMIT 1";
    server.database().execute_batch(days).expect("an update");
    server.restart();
    let kept = ada.connect().await.store("n", "hello").await;
    let count = "SELECT (SELECT count(*) FROM nonces) + (SELECT count(*) FROM recent_nonces)";
    wait_while("the cleaning", async || server.number(count) != 3).await;
    assert_eq!(server.number("SELECT max(message_id) FROM nonces"), kept);
}

#[tokio::test]
async fn a_clean_stop_leaves_one_file_and_its_lock() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store("n", "hello").await;
    server.stop().await;
    let names = std::fs::read_dir(server.directory()).expect("the directory of the database");
    let mut names: Vec<_> = names.map(|entry| entry.expect("a file").file_name()).collect();
    names.sort();
    assert_eq!(names, ["chinwag.db", "chinwag.db.lock"], "all is in the one file that an operator copies");
}

#[tokio::test]
async fn while_another_process_holds_the_database_nothing_is_acknowledged_that_is_not_stored() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    connection.store("before", "before").await;

    let blocker = server.database();
    blocker.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    connection.say_once("during", "during").await;
    assert_eq!(server.history(&ada).await.len(), 1, "readers go on, and what is not committed is not shown");
    let refusal = connection.next_of("error").await;
    assert_eq!(refusal["code"], "unavailable");
    assert_eq!(refusal["nonce"], "during");
    let account = json!({"username": "bob", "password": PASSWORD});
    let response = server.post("/register").json(&account).send().await;
    assert_eq!(response.error(), (503, "unavailable".to_owned()));
    assert!(response.header("Retry-After").is_some());
    server.healthy(503).await;

    blocker.execute_batch("ROLLBACK").expect("the end of the lock");
    server.healthy(200).await;
    connection.store("during", "during").await;
    assert_eq!(server.number("SELECT count(*) FROM messages WHERE content = 'during'"), 1);
}

#[tokio::test]
async fn a_lock_that_is_soon_gone_is_only_a_delay() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let blocker = server.database();
    blocker.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let begun = Instant::now();
    connection.say_once("n", "patience").await;
    // The server has the message, and cannot store it yet.
    connection.heard().await;
    blocker.execute_batch("ROLLBACK").expect("the end of the lock");
    let held = begun.elapsed();
    let answer = loop {
        let frame = connection.next().await;
        if frame["nonce"] == "n" {
            break frame;
        }
    };
    // A second is what the store waits for a lock, and a busy machine may take as long to give it up.
    assert!(answer["type"] == "ack" || held > Duration::from_millis(900), "{answer} after {held:?}");
}

#[tokio::test]
async fn a_database_that_fails_is_unavailable_and_recovers_by_itself() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    connection.store("before", "before").await;

    // Tables that are gone fail each query, as a broken disk would.
    let surgeon = server.database();
    surgeon
        .execute_batch("ALTER TABLE messages RENAME TO m; ALTER TABLE sessions RENAME TO s;")
        .expect("the tables are renamed");
    connection.say_once("during", "during").await;
    assert_eq!(connection.next_of("error").await["code"], "unavailable");
    let unavailable = (503, "unavailable".to_owned());
    assert_eq!(server.get("/healthz").send().await.error(), unavailable);
    assert_eq!(server.get("/messages").by(&ada).send().await.error(), unavailable);
    let account = json!({"username": "ada", "password": PASSWORD});
    assert_eq!(server.post("/login").json(&account).send().await.error(), unavailable);
    let mut newcomer = Connection::open(&server).await;
    newcomer.send(&json!({"type": "auth", "token": ada.token})).await;
    assert_eq!(newcomer.expect("auth_failed").await["code"], "unavailable");
    assert_eq!(newcomer.close_code().await, 1008);

    surgeon
        .execute_batch("ALTER TABLE m RENAME TO messages; ALTER TABLE s RENAME TO sessions;")
        .expect("the tables are renamed back");
    server.healthy(200).await;
    connection.store("during", "during").await;
    ada.connect().await;
    assert_eq!(server.history(&ada).await.len(), 2);
    server.logged("ERROR").await;
}

#[tokio::test]
async fn when_the_ids_are_used_up_nothing_more_is_stored() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    server.stop().await;
    let last = (1_i64 << 53) - 1;
    let set = "UPDATE meta SET value = ?1 WHERE key = 'high_water'";
    server.database().execute(set, [last - 1]).expect("done");
    server.restart();
    let say = async || server.post("/messages").by(&ada).json(&json!({"content": "hello"})).send().await;
    assert_eq!(say().await.json()["id"], last);
    assert_eq!(say().await.error(), (503, "unavailable".to_owned()));
    assert_eq!(server.history(&ada).await.len(), 1);
}

#[tokio::test]
async fn a_command_that_fails_by_itself_fails_alone() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let (mut first, mut ada) = (ada.connect().await, ada.connect().await);
    let database = server.database();
    database
        .execute_batch("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'sessions'")
        .expect("done");
    let acknowledged = async {
        for round in 0.. {
            // What comes while the writer waits for this is one batch.
            database.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
            first.say_once(&format!("first {round}"), "what the writer waits with").await;
            let path = server.database_path();
            let bot = tokio::task::spawn_blocking(move || common::chinwag(&path, &["bot", "add", "eve"]));
            // For the command to start; one that comes later fails too, only by itself.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let nonce = format!("n {round}");
            ada.say_once(&nonce, "beside a session that cannot be").await;
            ada.heard().await;
            database.execute_batch("ROLLBACK").expect("it was open");
            let answer = loop {
                let frame = ada.next().await;
                if frame["nonce"] == nonce.as_str() {
                    break frame;
                }
            };
            assert!(bot.await.expect("no panic").failed().contains("unavailable"));
            // The writer waits a second for the lock. On a machine that takes longer than that for this, all are
            // refused.
            if answer["type"] == "ack" {
                return;
            }
            assert_eq!(answer["code"], "unavailable");
        }
    };
    within("an ack", acknowledged).await;
    server.healthy(200).await;
}

#[tokio::test]
async fn after_an_unclean_end_no_id_is_given_that_a_power_failure_may_have_taken_back() {
    for durability in ["full", "normal"] {
        let mut server = TestServer::with(&["--durability", durability]);
        let ada = Client::register(&server, "ada").await;
        let mut connection = ada.connect().await;
        let epoch = connection.welcome["epoch"].clone();
        for number in 0..5 {
            connection.store(&number.to_string(), "is on the disk").await;
        }
        let database = server.database();
        database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("nobody else reads");
        drop(database);
        let known = connection.store("5", "is only in the log").await;
        server.kill().await;
        // As a power failure leaves it: the end of the log never reached the disk.
        std::fs::remove_file(server.directory().join("chinwag.db-wal")).expect("there is a log");
        server.restart();
        let mut connection = ada.connect().await;
        assert_eq!(connection.welcome["epoch"], epoch);
        let next = connection.store("new", "after the cut").await;
        assert!(next > known, "{durability}: {next} was given before");
        server.stop().await;
        server.restart();
        assert_eq!(ada.connect().await.store("newer", "a clean end skips nothing").await, next + 1);
    }
}

/// Adds a session of long ago to the database of a server that has ended.
fn add_expired_session(server: &TestServer) {
    let session = "INSERT OR REPLACE INTO sessions (digest, user_id, created_at, last_used_at) VALUES (x'00', 1, 1, 1)";
    server.database().execute_batch(session).expect("a session");
}

/// Waits until the server that was started again has cleaned up once: what goes then goes together with that session.
async fn cleaned(server: &TestServer) {
    wait_while("the first round of cleaning", async || {
        server.number("SELECT count(*) FROM sessions WHERE last_used_at = 1") > 0
    })
    .await;
}

#[tokio::test]
async fn ids_that_were_skipped_are_not_counted_among_the_messages_that_are_kept() {
    let mut server = TestServer::with(&["--keep-messages", "5"]);
    let ada = Client::register(&server, "ada").await;
    for round in 0..3 {
        ada.connect().await.store(&round.to_string(), "kept").await;
        server.kill().await;
        add_expired_session(&server);
        server.restart();
    }
    let ids = ids(&server.history(&ada).await);
    assert!(ids[2] > 1_000, "{ids:?}");
    cleaned(&server).await;
    assert_eq!(server.history(&ada).await.len(), 3);
}

#[tokio::test]
async fn a_nonce_is_remembered_when_the_clock_was_years_behind() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let id = ada.connect().await.store("n", "hello").await;
    server.stop().await;
    // As if the clock had been 1,500 days behind.
    server.database().execute_batch("UPDATE nonces SET day = day - 1500").expect("the change");
    server.restart();
    assert_eq!(ada.connect().await.store("n", "hello").await, id);
}

#[tokio::test]
async fn nonces_of_days_far_ahead_go_though_no_process_runs_for_a_day() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store("first", "first").await;
    // As if the clock had been 1,500 days ahead.
    let mut change =
        "UPDATE nonces SET day = day + 1500; UPDATE meta SET value = value + 1500 WHERE key = 'nonce_day';".to_owned();
    for nonce in ["second", "third", "fourth"] {
        server.stop().await;
        // As if servers had run for a day in all.
        change += "UPDATE meta SET value = 86400000 WHERE key = 'nonce_day_lasted'";
        server.database().execute_batch(&change).expect("the change");
        change.clear();
        server.restart();
        ada.connect().await.store(nonce, nonce).await;
    }
    wait_while("the first to go", async || server.number("SELECT count(*) FROM nonces WHERE nonce = 'first'") > 0)
        .await;
    let days = server.number("SELECT count(DISTINCT day) FROM nonces WHERE nonce IN ('second', 'third', 'fourth')");
    assert_eq!(days, 3);
}

#[tokio::test]
async fn a_clock_that_is_right_again_ends_no_session_and_removes_no_message() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store("n", "hello").await;
    server.stop().await;
    server.set_back_what_is_stored();
    add_expired_session(&server);
    server.restart_with(&["--keep-days", "30"]);
    server.logged("the clock jumped ahead").await;
    cleaned(&server).await;
    assert_eq!(server.history(&ada).await.len(), 1);
    assert!(server.number("SELECT last_used_at FROM sessions") > 0);
}

#[tokio::test]
async fn the_time_at_which_a_session_was_used_is_not_set_back() {
    const AHEAD: i64 = 4_102_444_800_000;
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    server.stop().await;
    // As if the clock had been years ahead, and were right again.
    server.database().execute("UPDATE sessions SET last_used_at = ?1", [AHEAD]).expect("the change");
    server.restart();
    ada.connect().await.store("n", "hello").await;
    server.stop().await;
    assert_eq!(server.number("SELECT last_used_at FROM sessions"), AHEAD);
}

#[tokio::test]
async fn a_clock_that_is_right_again_makes_no_message_too_old_to_be_edited() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let id = ada.connect().await.store("n", "hello").await;
    server.stop().await;
    server.set_back_what_is_stored();
    server.restart();
    let edit = server.request("PATCH", &format!("/messages/{id}")).by(&ada).json(&json!({"content": "hullo"}));
    assert_eq!(edit.send().await.status, 200);
}

#[tokio::test]
async fn a_clock_that_jumped_is_believed_when_the_server_has_run_for_a_day_and_not_when_it_starts_again() {
    let mut server = TestServer::with(&["--keep-days", "30"]);
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store("n", "hello").await;
    server.stop().await;
    // As if the clock had jumped by 60 days, and ada had been here since.
    let jumped = "UPDATE messages SET created_at = created_at - 5184000000;
        UPDATE meta SET value = value - 5184000000 WHERE key = 'believed'";
    server.database().execute_batch(jumped).expect("the change");
    add_expired_session(&server);
    server.restart();
    server.logged("the clock jumped ahead").await;
    cleaned(&server).await;
    assert_eq!(server.history(&ada).await.len(), 1);
    server.stop().await;
    let day = "UPDATE meta SET value = 86400000 WHERE key = 'doubted'";
    assert_eq!(server.database().execute(day, []).expect("the change"), 1);
    add_expired_session(&server);
    server.restart();
    cleaned(&server).await;
    assert_eq!(server.history(&ada).await.len(), 0);
}

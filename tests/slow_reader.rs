//! Promise 4: a slow reader loses nothing, costs a bounded amount, and nobody else waits for it.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Dice, FIN, Follower, RawClient, STOP, TEXT, TestServer, frame, int, within};
use serde_json::json;

/// For a server that tells how often it had to bring somebody up from the database: that is the way these tests are
/// about, and the kernel's buffers might have been enough.
const METRICS: &[&str] = &["--metrics-listen", "127.0.0.1:0"];

/// Texts of 14 KB each: the kernel takes up to 4 MB for a socket that is not read, so some 300 of them are needed
/// before the server notices that it is not.
fn long_texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number} {}", "\u{1f642}".repeat(3_500))).collect()
}

#[tokio::test]
async fn a_reader_who_pauses_gets_every_message_once() {
    let server = TestServer::with(METRICS);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await.far_away();
    let mut paused = Follower::join(&bob).await;
    // Within the limit of a replay: nobody has to be sent to the history.
    let ids = ada.store_all("n", &long_texts(400)).await;
    paused.read_to(ids[399]).await;
    assert_eq!(paused.resyncs, 0);
    assert!(server.catch_ups().await >= 1.0, "the reader was never behind");
    assert!(paused.history == server.history(&bob).await);
}

#[tokio::test]
async fn a_reader_too_far_behind_is_told_to_resync_and_then_has_everything() {
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await.far_away();
    let mut paused = Follower::join(&bob).await;
    // Past a replay, and soon: who takes nothing for half a minute is given up.
    ada.store_all("long", &long_texts(400)).await;
    ada.store_all("short", &vec!["short".to_owned(); 1_100]).await;
    let live = ada.store("live", "live").await;
    paused.read_to(live).await;
    assert!(paused.resyncs >= 1);
    assert!(paused.history == server.history(&bob).await);
}

#[tokio::test]
async fn nobody_waits_for_a_reader_who_has_stopped() {
    let server = TestServer::with(METRICS);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await;
    let mut stopped = Vec::new();
    for _ in 0..10 {
        stopped.push(Follower::join(&bob.far_away()).await);
    }
    let mut awake = Follower::join(&bob).await;
    // The kernel takes most of them for those who have stopped, which is to be over before they are given up.
    let texts = long_texts(400);
    let (filling, live) = texts.split_at(350);
    let ids = ada.store_all("filling", filling).await;
    awake.read_to(ids[349]).await;
    for (number, text) in live.iter().enumerate() {
        let id = ada.store(&number.to_string(), text).await;
        // Each message gets through before the next is sent, while ten others take nothing.
        awake.read_to(id).await;
    }
    let history = server.history(&bob).await;
    assert!(awake.history == history);
    let last = history[399].id;
    let reading: Vec<_> = stopped
        .into_iter()
        .map(|mut follower| {
            tokio::spawn(async move {
                follower.read_to(last).await;
                follower.history
            })
        })
        .collect();
    for follower in reading {
        assert!(follower.await.expect("no panic") == history);
    }
    assert!(server.catch_ups().await >= 10.0, "each of the ten was behind");
}

#[tokio::test]
async fn memory_for_those_who_have_stopped_is_bounded() {
    const STOPPED: usize = 20;
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await;
    ada.store_all("warm", &long_texts(300)).await;
    let mut stopped = Vec::new();
    for _ in 0..STOPPED {
        stopped.push(bob.far_away().connect().await);
    }
    let before = server.resident_bytes();
    // 21 MB for each of them, were it kept for them.
    ada.store_all("n", &long_texts(1_500)).await;
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes for {STOPPED} readers");
    drop(stopped);
}

#[tokio::test]
async fn what_the_kernel_holds_for_those_who_have_stopped_is_bounded() {
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await.far_away();
    let mut stopped = Vec::new();
    for _ in 0..10 {
        stopped.push(bob.connect().await);
    }
    // 5.6 MB for each, of which the kernel takes 4 MB by itself.
    ada.store_all("n", &long_texts(400)).await;
    let queued = server.queued_bytes();
    assert!(queued.len() > 10 && queued.iter().all(|bytes| *bytes < 512 << 10), "{queued:?}");
    drop(stopped);
}

#[tokio::test]
async fn two_hundred_readers_who_come_back_at_once_cost_little_and_hold_up_nobody() {
    const READERS: u32 = 200;
    let server = TestServer::with(METRICS);
    let people = server.seed_people(READERS as usize + 1).await;
    let (sender, readers) = people.split_last().expect("there are people");
    let mut sender = sender.connect().await;
    let mut whole = sender.store_all("missed", &vec!["x".repeat(4_000); 100]).await;
    let before = server.resident_bytes();
    // 0.4 MB for each of them, 80 MB in all, were it read for all at once.
    let returning: Vec<_> = readers
        .iter()
        .map(Client::far_away)
        .map(|reader| {
            tokio::spawn(async move {
                let mut connection = reader.connect_with(json!({"last_id": 0})).await;
                let mut ids = Vec::new();
                loop {
                    let message = connection.message().await;
                    ids.push(message.id);
                    if message.content == "the last one" {
                        return ids;
                    }
                }
            })
        })
        .collect();
    let mut grown = 0;
    for number in 0..100 {
        whole.push(sender.store(&number.to_string(), "meanwhile").await);
        grown = grown.max(server.resident_bytes().saturating_sub(before));
    }
    whole.push(sender.store("last", "the last one").await);
    for reader in returning {
        assert!(within("a reader to be up to date", reader).await.expect("no panic") == whole);
        grown = grown.max(server.resident_bytes().saturating_sub(before));
    }
    assert!(server.catch_ups().await >= f64::from(READERS), "each caught up from the database");
    assert!(grown < 32 << 20, "{grown} bytes for {READERS} readers");
}

#[tokio::test]
async fn readers_who_pause_at_random_under_load_have_the_whole_sequence() {
    const READERS: usize = 5;
    const MESSAGES: usize = 1_500;
    let server = TestServer::start();
    let people = server.seed_people(READERS + 1).await;
    let (sender, readers) = people.split_last().expect("there are people");
    let mut following = Vec::new();
    for (seed, reader) in (0..).zip(readers) {
        let mut follower = Follower::join(&reader.far_away()).await;
        following.push(tokio::spawn(async move {
            let mut dice = Dice::new(seed);
            while follower.history.len() < MESSAGES {
                let left = MESSAGES - follower.history.len();
                follower.read_more((1 + dice.below(200)).min(left)).await;
                // The pause is the load of this test, not a wait for anything.
                tokio::time::sleep(Duration::from_millis(dice.below(40) as u64)).await;
                if dice.below(10) == 0 {
                    follower.vanish();
                    follower.resume().await;
                }
            }
            (follower.history, follower.resyncs)
        }));
    }
    let mut sender = sender.connect().await;
    sender.store_all("n", &long_texts(MESSAGES)).await;
    let whole = server.history(&people[0]).await;
    assert_eq!(whole.len(), MESSAGES);
    for (seed, follower) in following.into_iter().enumerate() {
        let (history, resyncs) = follower.await.expect("no panic");
        assert!(history == whole, "reader {seed}: {} messages after {resyncs} resyncs", history.len());
    }
}

#[tokio::test]
async fn a_reader_who_was_behind_learns_who_is_there() {
    let server = TestServer::with(METRICS);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await;
    let carol = Client::register(&server, "carol").await;
    let mut paused = bob.far_away().connect().await;
    let ids = ada.store_all("n", &long_texts(400)).await;
    let carols = carol.connect().await;
    while int(&paused.next_of("message").await["id"]) < ids[399] {}
    assert!(server.catch_ups().await >= 1.0, "the reader was never behind");
    // Joins may have been missed on the way, so the list comes anew, or the join itself does.
    loop {
        let frame = paused.next().await;
        if frame["type"] == "user_join" && frame["username"] == "carol" {
            break;
        }
        if frame["type"] == "presence" && frame["users"] == json!(["ada", "bob", "carol"]) {
            assert_eq!(frame["online"], 3);
            break;
        }
    }
    drop(carols);
}

#[tokio::test]
async fn a_reader_who_speaks_but_does_not_listen_holds_up_nobody() {
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await;
    let mut raw = RawClient::authenticated(&server, &bob).await;
    let message = json!({"type": "message", "content": "x".repeat(4_000)}).to_string();
    let frame = frame(FIN | TEXT, message.as_bytes());
    // bob's own messages come back to him and are not read: at some point the server no longer reads him either.
    let shouting = tokio::spawn(async move {
        for _ in 0..2_000 {
            raw.send(&frame).await;
        }
        raw
    });
    for number in 0..200 {
        ada.store(&number.to_string(), "calm").await;
    }
    assert_eq!(server.get("/healthz").send().await.status, 200);
    shouting.abort();
}

#[tokio::test]
async fn a_reader_who_takes_nothing_for_half_a_minute_is_given_up() {
    let server = TestServer::with(&["--ping-interval", "600"]);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await;
    let stuck = bob.far_away().connect().await;
    ada.store_all("n", &long_texts(400)).await;
    // Long before his silence is noticed, which is borne for 25 minutes here.
    ada.told_of_leave("bob").await;
    drop(stuck);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_readers_who_have_stopped() {
    let mut server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await;
    let stuck = [bob.far_away().connect().await, bob.far_away().connect().await];
    ada.store_all("n", &long_texts(600)).await;
    let leaving = tokio::spawn(async move { ada.close_code().await });
    let started = Instant::now();
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(started.elapsed() < STOP, "{:?}", started.elapsed());
    assert_eq!(leaving.await.expect("no panic"), 1001);
    drop(stuck);
}

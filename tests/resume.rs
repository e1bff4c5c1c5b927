//! Promise 3: a client that comes back with `last_id` gets all that it missed, once, and then what is live.

mod common;

use common::{Client, Connection, Dice, Follower, Message, TestServer, contents, ids, int, text};
use serde_json::json;

/// How many messages are replayed before the server sends a client to the history instead.
const REPLAY_LIMIT: usize = 1_000;

fn numbered(count: usize) -> Vec<String> {
    (1..=count).map(|number| number.to_string()).collect()
}

/// A server with ada's messages "1" to `count` and her open connection, and bob.
async fn server_with_messages(count: usize) -> (TestServer, Connection, Client) {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let mut connection = ada.connect().await;
    connection.store_all("n", &numbered(count)).await;
    (server, connection, bob)
}

/// A server that has started after ada said "1" to `count`, and bob: no shard can still have them before it, and give
/// them to a connection as if they were new.
async fn server_with_old_messages(count: usize) -> (TestServer, Client) {
    let (mut server, ada, bob) = server_with_messages(count).await;
    drop(ada);
    server.stop().await;
    server.restart();
    (server, bob)
}

#[tokio::test]
async fn what_was_missed_comes_first_and_then_what_is_live() {
    let (server, mut ada, bob) = server_with_messages(30).await;
    for last_id in [30, 29, 17, 0] {
        let history = server.history(&bob).await;
        let newest = history.last().expect("it is not empty").id;
        let mut connection = bob.connect_with(json!({"last_id": last_id})).await;
        assert_eq!(connection.welcome["last_id"], newest, "the server's newest, whatever is replayed");
        let missed = usize::try_from(newest - last_id).expect("it is not ahead");
        assert_eq!(connection.messages(missed).await, history[history.len() - missed..]);
        ada.store(&format!("live {last_id}"), "live").await;
        assert_eq!(connection.message().await.content, "live");
    }
}

#[tokio::test]
async fn a_replay_is_the_same_frames_as_the_live_ones() {
    let (_server, mut ada, bob) = server_with_messages(0).await;
    let mut live = bob.connect().await;
    ada.store("n", "\u{1f642} \"quoted\"\n</script>").await;
    let seen = live.next_of("message").await;
    let mut replayed = bob.connect_with(json!({"last_id": 0})).await;
    assert_eq!(replayed.next_of("message").await, seen);
}

#[tokio::test]
async fn an_answer_says_what_it_answers_and_whom_it_names_live_in_a_replay_and_in_a_page() {
    let (_server, mut ada, bob) = server_with_messages(1).await;
    let mut live = bob.connect_with(json!({"rooms": true})).await;
    ada.send(&json!({"type": "message", "content": "and 2, @bob", "reply_to": 1})).await;
    let seen = live.next_of("message").await;
    assert_eq!(seen["reply_to"], json!({"id": 1, "username": "ada", "content": "1"}));
    assert_eq!(seen["mentions"], json!(["bob"]));
    let mut replayed = bob.connect_with(json!({"rooms": true, "last_id": 1})).await;
    assert_eq!(replayed.next_of("message").await, seen);
    let page = bob.page("limit=1").await;
    for part in ["id", "reply_to", "mentions"] {
        assert_eq!(page["messages"][0][part], seen[part]);
    }
}

#[tokio::test]
async fn without_last_id_delivery_starts_after_the_newest() {
    let (_server, mut ada, bob) = server_with_messages(5).await;
    let mut connection = bob.connect().await;
    let newest = int(&connection.welcome["last_id"]);
    ada.store("live", "live").await;
    let first = connection.message().await;
    assert_eq!(first.content, "live");
    assert!(first.id > newest);
}

#[tokio::test]
async fn an_epoch_that_is_this_one_changes_nothing() {
    let (_server, _ada, bob) = server_with_messages(5).await;
    let epoch = bob.connect().await.welcome["epoch"].clone();
    let mut connection = bob.connect_with(json!({"last_id": 2, "epoch": epoch})).await;
    assert_eq!(contents(&connection.messages(3).await), ["3", "4", "5"]);
    let mut connection = bob.connect_with(json!({"epoch": epoch})).await;
    assert_eq!(connection.welcome["last_id"], 5);
    connection.say("nothing was replayed").await;
    assert_eq!(connection.message().await.content, "nothing was replayed");
}

#[tokio::test]
async fn a_last_id_of_another_epoch_is_forgotten() {
    let (_server, mut ada, bob) = server_with_messages(5).await;
    let mut connection = bob.connect_with(json!({"last_id": 2, "epoch": "another history"})).await;
    assert_eq!(connection.next_of("resync").await, json!({"type": "resync", "after": 0, "last_id": 5}));
    ada.store("live", "live").await;
    assert_eq!(connection.message().await.content, "live", "live messages go on past the resync");
}

#[tokio::test]
async fn a_last_id_ahead_of_the_server_is_forgotten() {
    let (_server, mut ada, bob) = server_with_messages(5).await;
    for ahead in [6_i64, 1 << 40, (1 << 53) - 1] {
        let mut connection = bob.connect_with(json!({"last_id": ahead})).await;
        assert_eq!(connection.next_of("resync").await, json!({"type": "resync", "after": 0, "last_id": 5}));
    }
    let mut connection = bob.connect_with(json!({"last_id": 6})).await;
    connection.next_of("resync").await;
    ada.store("live", "live").await;
    assert_eq!(connection.message().await.content, "live", "though its id is not past the one claimed");
}

#[tokio::test]
async fn up_to_the_limit_is_replayed_and_past_it_is_a_resync() {
    let (server, mut ada, bob) = server_with_messages(REPLAY_LIMIT + 1).await;
    let history = server.history(&bob).await;
    let last_id = history.last().expect("it is not empty").id;

    let mut within_limit = bob.connect_with(json!({"last_id": history[0].id})).await;
    assert_eq!(within_limit.messages(REPLAY_LIMIT).await, history[1..]);

    // The id before the first one, but not 0, which would mean "start anew".
    server.database().execute("DELETE FROM messages WHERE id = ?1", [history[0].id]).expect("a delete");
    ada.store("one more", "one more").await;
    let last_id = last_id + 1;
    let after = history[0].id;
    let mut past_limit = bob.connect_with(json!({"last_id": after})).await;
    let resync = past_limit.next_of("resync").await;
    assert_eq!(resync, json!({"type": "resync", "after": after, "last_id": last_id}));
    ada.store("live", "live").await;
    assert_eq!(past_limit.message().await.content, "live", "live messages go on past the resync");
}

#[tokio::test]
async fn a_client_that_obeys_a_resync_has_everything() {
    let (server, mut ada, bob) = server_with_messages(1).await;
    let mut follower = Follower::join(&bob).await;
    let first = ada.store("first", "first").await;
    follower.read_to(first).await;
    follower.vanish();
    ada.store_all("missed", &numbered(REPLAY_LIMIT * 2)).await;
    follower.resume().await;
    let live = ada.store("live", "live").await;
    follower.read_to(live).await;
    assert!(follower.resyncs >= 1);
    assert_eq!(follower.history, server.history_after(&bob, 1).await);
}

#[tokio::test]
async fn a_long_replay_of_long_messages_is_whole() {
    let (server, mut ada, bob) = server_with_messages(0).await;
    // Some 5 MB: many times what a socket or a chunk of catching up holds.
    let texts: Vec<String> = (0..400).map(|number| format!("{number} {}", "\u{1f642}".repeat(3_200))).collect();
    ada.store_all("long", &texts).await;
    let mut connection = bob.far_away().connect_with(json!({"last_id": 0})).await;
    let replayed = connection.messages(texts.len()).await;
    assert!(replayed == server.history(&bob).await);
}

#[tokio::test]
async fn holes_in_the_ids_are_no_gap() {
    let (server, bob) = server_with_old_messages(20).await;
    server.database().execute("DELETE FROM messages WHERE id % 3 = 0", []).expect("a delete");
    let mut connection = bob.connect_with(json!({"last_id": 5})).await;
    let replayed = connection.messages(10).await;
    assert_eq!(ids(&replayed), [7, 8, 10, 11, 13, 14, 16, 17, 19, 20]);
}

#[tokio::test]
async fn after_auth_success_a_client_that_resumes_learns_who_is_there() {
    let (_server, _ada, bob) = server_with_messages(3).await;
    let connection = bob.connect_with(json!({"last_id": 0})).await;
    let users: Vec<&str> = connection.welcome["users"].as_array().expect("a list").iter().map(text).collect();
    assert_eq!(users, ["ada", "bob"]);
}

#[tokio::test]
async fn nothing_is_lost_between_the_replay_and_the_live() {
    let (server, ada, bob) = server_with_messages(0).await;
    // One message is always on its way while bob comes and goes as fast as he can.
    let mut talker = keep_talking(ada, 600);
    let mut follower = Follower::join(&bob).await;
    let said = loop {
        tokio::select! {
            said = &mut talker => break said.expect("no panic"),
            () = follower.read_more(1) => {}
        }
        follower.vanish();
        follower.resume().await;
    };
    let last = *said.last().expect("something was said");
    follower.read_to(last).await;
    let whole = server.history(&bob).await;
    assert_suffix(&whole, &follower.history);
    assert_eq!(follower.resyncs, 0);
}

#[tokio::test]
async fn readers_that_vanish_at_random_under_load_have_the_whole_sequence() {
    const READERS: usize = 6;
    const SENDERS: usize = 4;
    const EACH: usize = 400;
    let server = TestServer::start();
    let people = server.seed_people(READERS + SENDERS).await;
    let (readers, senders) = people.split_at(READERS);

    let mut following = Vec::new();
    for (seed, reader) in (0..).zip(readers) {
        // The first connection is there before anything is said, so the whole sequence is what they must have.
        let mut follower = Follower::join(reader).await;
        following.push(tokio::spawn(async move {
            let mut dice = Dice::new(seed);
            while follower.history.len() < SENDERS * EACH {
                let left = SENDERS * EACH - follower.history.len();
                follower.read_more(dice.below(80).min(left)).await;
                if dice.below(2) == 0 {
                    follower.vanish();
                    follower.resume().await;
                }
            }
            follower.history
        }));
    }
    let mut talkers = Vec::new();
    for sender in senders {
        talkers.push(keep_talking(sender.connect().await, EACH));
    }
    for talker in talkers {
        talker.await.expect("no panic");
    }
    let whole = server.history(&people[0]).await;
    assert_eq!(whole.len(), SENDERS * EACH);
    for (seed, follower) in following.into_iter().enumerate() {
        let history = follower.await.expect("no panic");
        assert!(history == whole, "reader {seed} has {} messages, which are not the store's", history.len());
    }
}

#[tokio::test]
async fn a_resume_that_the_database_fails_is_1013_and_the_next_one_is_whole() {
    let (server, bob) = server_with_old_messages(30).await;
    let history = server.history(&bob).await;
    // A table that is gone fails each query, as a broken disk would.
    let surgeon = server.database();
    surgeon.execute_batch("ALTER TABLE messages RENAME TO m").expect("the table is renamed");
    for _ in 0..3 {
        let mut connection = bob.connect_with(json!({"last_id": 10})).await;
        let code = loop {
            match connection.receive().await {
                Ok(frame) => assert_ne!(frame["type"], "message", "and so no gap either"),
                Err(code) => break code,
            }
        };
        assert_eq!(code, Some(1013));
    }
    surgeon.execute_batch("ALTER TABLE m RENAME TO messages").expect("the table is renamed back");
    let mut connection = bob.connect_with(json!({"last_id": 10})).await;
    assert_eq!(connection.messages(20).await, history[10..]);
}

/// Says `count` things on `connection`, a few on the way at a time, and returns their ids.
fn keep_talking(mut connection: Connection, count: usize) -> tokio::task::JoinHandle<Vec<i64>> {
    tokio::spawn(async move { connection.store_all("talk", &numbered(count)).await })
}

/// `part` is the end of `whole`, and is not nothing.
fn assert_suffix(whole: &[Message], part: &[Message]) {
    assert!(!part.is_empty());
    assert!(whole.ends_with(part), "{:?} is not the end of {:?}", ids(part), ids(whole));
}

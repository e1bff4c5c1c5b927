//! Rooms at the wire: who hears what, what is replayed, and that nobody else reads it (promise 8).

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::{Client, Connection, Dice, RawClient, Request, TestServer, chinwag, ids, int, text, wait_while, within};
use serde_json::{Value, json};

/// A client that knows rooms.
async fn join(client: &Client) -> Connection {
    client.connect_with(json!({"rooms": true})).await
}

async fn resume(client: &Client, last_id: i64) -> Connection {
    client.connect_with(json!({"rooms": true, "last_id": last_id})).await
}

async fn three(server: &TestServer) -> (Client, Client, Client) {
    (
        Client::register(server, "ada").await,
        Client::register(server, "bob").await,
        Client::register(server, "carol").await,
    )
}

/// A private room of `by` and `members`.
async fn private_room(server: &TestServer, by: &Client, members: &[&str]) -> i64 {
    let body = json!({"name": "den", "kind": "private", "members": members});
    let response = server.post("/rooms").by(by).json(&body).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    int(&response.json()["id"])
}

async fn say(server: &TestServer, by: &Client, room: i64, content: &str) -> i64 {
    let response = server.post("/messages").by(by).json(&json!({"room": room, "content": content})).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    int(&response.json()["id"])
}

async fn set_member(server: &TestServer, by: &Client, room: i64, name: &str, is_in: bool) {
    let method = if is_in { "PUT" } else { "DELETE" };
    let response = server.request(method, &format!("/rooms/{room}/members/{name}")).by(by).send().await;
    assert_eq!(response.status, 204, "{response:?}");
}

/// What comes up to the event `id`, and with it: all that is due before it, since the events have one order. An answer
/// to a request, or to a ping, says nothing of that: a shard may be a moment behind either.
async fn until(connection: &mut Connection, id: i64) -> Vec<Value> {
    let mut frames = Vec::new();
    loop {
        frames.push(connection.next().await);
        if events(&frames[frames.len() - 1..]).iter().any(|(_, event)| *event >= id) {
            return frames;
        }
    }
}

/// What comes up to a message in the lobby, which everybody hears: all that is due now.
async fn due(server: &TestServer, speaker: &Client, connection: &mut Connection) -> Vec<Value> {
    let id = say(server, speaker, 1, "up to here").await;
    until(connection, id).await
}

/// Those of the frames that are events, by type and id.
fn events(frames: &[Value]) -> Vec<(&str, i64)> {
    let of = |frame| (text(&Value::clone(frame)["type"]).to_owned(), frame);
    let kinds = ["message", "edit", "delete", "react", "room", "room_gone"];
    let named = frames.iter().map(of).filter(|(kind, _)| kinds.contains(&&kind[..]));
    named.map(|(_, frame)| (frame["type"].as_str().expect("a type"), int(&frame["id"]))).collect()
}

#[tokio::test]
async fn a_private_room_is_told_and_shown_to_its_members_alone() {
    let server = TestServer::start();
    let (ada, bob, carol) = three(&server).await;
    let (mut inside, mut outside, mut first_edition) = (join(&bob).await, join(&carol).await, bob.connect().await);
    let room = private_room(&server, &ada, &["bob"]).await;
    let id = say(&server, &ada, room, "psst").await;
    assert_eq!(int(&inside.next_of("room").await["room"]["id"]), room);
    let heard = inside.next_of("message").await;
    assert_eq!((int(&heard["id"]), int(&heard["room"])), (id, room));
    let after = say(&server, &ada, 1, "hello").await;
    assert_eq!(events(&until(&mut outside, after).await), [("message", after)]);
    assert_eq!(events(&until(&mut first_edition, after).await), [("message", after)], "it knows the lobby alone");
    for client in [&ada, &bob] {
        assert_eq!(server.get(&format!("/messages?room={room}")).by(client).send().await.status, 200);
    }
    let page = |room| server.get(&format!("/messages?room={room}")).by(&carol).send();
    assert_eq!(page(room).await.error(), page(room + 1).await.error(), "as if it were not there");
    assert_eq!(events(&until(&mut resume(&carol, 0).await, after).await), [("message", after)]);
}

#[tokio::test]
async fn a_pong_passes_over_what_is_not_for_the_client() {
    let server = TestServer::start();
    let (ada, _bob, carol) = three(&server).await;
    let mut outside = join(&carol).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let id = say(&server, &ada, room, "psst").await;
    // The shard may be a moment behind the answer; the lobby's message is behind both.
    say(&server, &ada, 1, "hello").await;
    outside.next_of("message").await;
    outside.send(&json!({"type": "ping"})).await;
    assert!(int(&outside.next_of("pong").await["last_id"]) > id);
}

#[tokio::test]
async fn once_a_removal_is_answered_nothing_of_the_room_reaches_the_removed() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    for _ in 0..10 {
        let (mut one, mut slow) = (join(&bob).await, join(&bob.far_away()).await);
        let mut speaker = join(&ada).await;
        let said = async {
            for number in 0..60 {
                let content = format!("{number} {}", "x".repeat(500));
                speaker.send(&json!({"type": "message", "room": room, "content": content})).await;
            }
        };
        let removed = set_member(&server, &ada, room, "bob", false);
        tokio::join!(said, removed);
        let last = say(&server, &ada, room, "between us").await;
        for connection in [&mut one, &mut slow] {
            let frames = due(&server, &ada, connection).await;
            let of_room = |frame: &&Value| frame["room"] == room || frame["room"]["id"] == room;
            let ids: Vec<i64> = frames.iter().filter(of_room).map(|frame| int(&frame["id"])).collect();
            let gone = frames.iter().rfind(|frame| frame["type"] == "room_gone").expect("they are told");
            assert!(ids.is_sorted() && ids.last() == Some(&int(&gone["id"])), "nothing comes after it");
            assert!(ids.iter().all(|id| *id < last));
        }
        assert_eq!(server.get(&format!("/messages?room={room}")).by(&bob).send().await.status, 404);
        let rooms = server.get("/rooms").by(&bob).send().await.json();
        assert_eq!(rooms["rooms"].as_array().expect("a list").len(), 1);
        set_member(&server, &ada, room, "bob", true).await;
    }
}

#[tokio::test]
async fn a_member_removed_meanwhile_is_told_that_and_nothing_else() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let seen = say(&server, &ada, room, "before").await;
    say(&server, &ada, room, "meanwhile").await;
    set_member(&server, &ada, room, "bob", false).await;
    let last = say(&server, &ada, 1, "hello").await;
    assert_eq!(
        events(&until(&mut resume(&bob, seen).await, last).await),
        [("room_gone", last - 1), ("message", last)],
        "what was said to them while away is not theirs any more"
    );
}

#[tokio::test]
async fn what_was_stored_before_its_writer_was_removed_is_acknowledged_when_it_is_sent_again() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let mut connection = join(&bob).await;
    let message = |nonce: &str| json!({"type": "message", "room": room, "content": "hello", "nonce": nonce});
    connection.send(&message("before")).await;
    let ack = connection.next_of("ack").await;
    set_member(&server, &ada, room, "bob", false).await;
    connection.send(&message("before")).await;
    assert_eq!(connection.next_of("ack").await, ack);
    connection.send(&message("after")).await;
    assert_eq!(connection.next_of("error").await["code"], "not_found");
    let sent = |nonce: &str| server.post("/messages").by(&bob).json(&message(nonce)).send();
    assert_eq!(sent("before").await.json(), json!({"id": ack["id"]}));
    assert_eq!(sent("after").await.error(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn a_new_member_hears_of_the_room_and_of_what_comes_after() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &[]).await;
    let before = say(&server, &ada, room, "before").await;
    let mut live = join(&bob).await;
    set_member(&server, &ada, room, "bob", true).await;
    let after = say(&server, &ada, room, "after").await;
    let told = [("room", before + 1), ("message", after)];
    assert_eq!(events(&until(&mut live, after).await), told);
    assert_eq!(events(&until(&mut resume(&bob, before - 1).await, after).await), told);
}

#[tokio::test]
async fn a_member_removed_and_added_again_meanwhile_can_tell_by_the_room() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let seen = say(&server, &ada, room, "before").await;
    for is_in in [false, true] {
        say(&server, &ada, room, "meanwhile").await;
        set_member(&server, &ada, room, "bob", is_in).await;
    }
    let after = say(&server, &ada, room, "after").await;
    let frames = until(&mut resume(&bob, seen).await, after).await;
    assert_eq!(events(&frames), [("room", after - 1), ("message", after)], "what is between is not replayed");
    let told = |frames: &[Value]| frames.iter().find(|frame| frame["type"] == "room").expect("it came").clone();
    assert_eq!(told(&frames)["room"]["read"], after - 1, "read up to the event that added them");
    let change = server.request("PATCH", &format!("/rooms/{room}")).by(&ada).json(&json!({"topic": "this and that"}));
    assert_eq!(change.send().await.status, 200);
    let changed = told(&until(&mut resume(&bob, after).await, after + 1).await);
    assert_eq!((int(&changed["id"]), int(&changed["room"]["read"])), (after + 1, after - 1), "no addition");
}

#[tokio::test]
async fn what_was_done_to_messages_meanwhile_is_replayed_as_it_is_now() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let known = say(&server, &ada, 1, "known").await;
    let gone = say(&server, &ada, 1, "gone").await;
    let change = |method, id, body: Value| {
        let request = server.request(method, &format!("/messages/{id}")).by(&ada);
        async move {
            let request = if body.is_null() { request } else { request.json(&body) };
            let response = request.send().await;
            assert_eq!(response.status, 200, "{response:?}");
            int(&response.json()["id"])
        }
    };
    change("PATCH", known, json!({"content": "once"})).await;
    let edit = change("PATCH", known, json!({"content": "twice"})).await;
    let new = say(&server, &ada, 1, "new").await;
    change("PATCH", new, json!({"content": "renewed"})).await;
    let delete = change("DELETE", gone, Value::Null).await;
    let short_lived = say(&server, &ada, 1, "short-lived").await;
    let second_delete = change("DELETE", short_lived, Value::Null).await;
    for edition in [json!({"last_id": gone}), json!({"last_id": gone, "rooms": true})] {
        let frames = until(&mut ada.connect_with(edition).await, second_delete).await;
        assert_eq!(events(&frames), [("edit", edit), ("message", new), ("delete", delete), ("delete", second_delete)]);
        let of = |kind: &str| frames.iter().find(|frame| frame["type"] == kind).expect("it came")["content"].clone();
        assert_eq!((of("edit"), of("message")), (json!("twice"), json!("renewed")));
    }
}

/// Speaks until that is too fast: on a slow machine tokens come back meanwhile.
async fn use_up_the_rate(connection: &mut Connection) {
    const AT_ONCE: usize = 5;
    let refusal = async {
        for round in 0.. {
            for number in 0..AT_ONCE {
                connection.say_once(&format!("{round} {number}"), "too fast").await;
            }
            let (mut answers, mut refusals) = (0, 0);
            while answers < AT_ONCE {
                let frame = connection.next().await;
                answers += usize::from(!frame["nonce"].is_null());
                refusals += usize::from(frame["code"] == "rate_limited");
            }
            if refusals > 0 {
                return;
            }
        }
    };
    within("a refusal", refusal).await;
}

#[tokio::test]
async fn a_nonce_sent_again_costs_no_token_of_the_rate() {
    let server = TestServer::with(&["--message-rate", "1"]);
    let ada = Client::register(&server, "ada").await;
    let mut connection = join(&ada).await;
    let first = connection.store("n1", "hello").await;
    for _ in 0..10 {
        assert_eq!(connection.store("n1", "hello").await, first);
    }
    // Two of the three tokens are left.
    let ids = [connection.store("n2", "b").await, connection.store("n3", "c").await];
    use_up_the_rate(&mut connection).await;
    assert_eq!(connection.store("n3", "c").await, ids[1], "also when there is none left");
    let again = server.post("/messages").by(&ada).header("Idempotency-Key", "n2").json(&json!({"content": "b"}));
    assert_eq!(int(&again.send().await.json()["id"]), ids[0]);
}

#[tokio::test]
async fn who_comes_back_at_the_event_that_let_them_in_hears_what_the_room_became_since() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let mut connection = join(&bob).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let frames = due(&server, &ada, &mut connection).await;
    let let_in = events(&frames).iter().find(|(kind, _)| *kind == "room").expect("he is told of it").1;
    drop(connection);
    let changed = server.request("PATCH", &format!("/rooms/{room}")).by(&ada).json(&json!({"topic": "quieter"}));
    assert!(changed.send().await.status < 300);
    let mut back = resume(&bob, let_in).await;
    let frames = due(&server, &ada, &mut back).await;
    assert!(frames.iter().any(|frame| frame["type"] == "room" && frame.to_string().contains("quieter")), "{frames:?}");
}

#[tokio::test]
async fn a_reaction_that_changes_nothing_is_acknowledged_as_what_made_it_so() {
    let server = TestServer::start();
    let mut connection = join(&Client::register(&server, "ada").await).await;
    let message = connection.store("n", "hello").await;
    let mut react = async |nonce: &str, on: bool| {
        let react = json!({"type": "react", "message": message, "emoji": "👍", "on": on, "nonce": nonce});
        connection.send(&react).await;
        loop {
            let frame = connection.next().await;
            if frame["type"] == "ack" {
                return int(&frame["id"]);
            }
        }
    };
    assert_eq!(react("never", false).await, message);
    let on = react("on", true).await;
    assert_eq!(react("on again", true).await, on);
    let off = react("off", false).await;
    assert_eq!(react("off again", false).await, off);
    assert!(message < on && on < off, "{message} {on} {off}");
}

#[tokio::test]
async fn a_reaction_that_changes_nothing_costs_a_token_like_any_other() {
    let server = TestServer::with(&["--message-rate", "2"]);
    let mut connection = join(&Client::register(&server, "ada").await).await;
    let started = Instant::now();
    let message = connection.store("n1", "hello").await;
    let mut stored = 1;
    for number in 0.. {
        let nonce = number.to_string();
        let react = json!({"type": "react", "message": message, "emoji": "👍", "on": true, "nonce": nonce});
        connection.send(&react).await;
        let answer = loop {
            match connection.next().await {
                frame if frame["nonce"] == *nonce => break frame,
                _ => {}
            }
        };
        if answer["type"] == "error" {
            assert_eq!(answer["code"], "rate_limited");
            break;
        }
        stored += 1;
        // Two a second come free meanwhile.
        let most = 6 + started.elapsed().as_millis() / 500;
        assert!(stored <= most, "{stored} in {:?}", started.elapsed());
    }
}

/// Sends `request` until it is refused as too fast, and returns how often it was not; more often than `at_once` and those
/// that come free `per_second` is a failure.
async fn until_too_fast(request: impl Fn(u64) -> Request, at_once: u64, per_second: u32) -> u64 {
    let started = Instant::now();
    for number in 0.. {
        if request(number).send().await.status == 429 {
            return number;
        }
        let most = at_once + (started.elapsed() * per_second).as_secs();
        assert!(number < most, "{number} in {:?}", started.elapsed());
    }
    unreachable!("there is a limit")
}

/// Otherwise its quote would be shown to people who may not read that room.
#[tokio::test]
async fn an_answer_is_in_the_room_of_what_it_answers() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let room = private_room(&server, &ada, &[]).await;
    let id = say(&server, &ada, room, "between us").await;
    for (room, status) in [(1, 404), (room, 201)] {
        let answer = json!({"room": room, "content": "yes", "reply_to": id});
        assert_eq!(server.post("/messages").by(&ada).json(&answer).send().await.status, status);
    }
}

#[tokio::test]
async fn rooms_are_made_and_changed_at_a_bounded_rate() {
    let server = TestServer::with(&["--message-rate", "1000"]);
    let ada = Client::register(&server, "ada").await;
    let make = |number| server.post("/rooms").by(&ada).json(&json!({"name": format!("{number}"), "kind": "private"}));
    let room = int(&make(0).send().await.json()["id"]);
    assert!(until_too_fast(make, 100, 1).await >= 99);
    let change = |number| {
        let topic = json!({"topic": format!("{number}")});
        server.request("PATCH", &format!("/rooms/{room}")).by(&ada).json(&topic)
    };
    // Each room that was made was a change, some of which came free meanwhile.
    until_too_fast(change, 200, 1).await;
}

#[tokio::test]
async fn what_is_refused_or_not_found_costs_a_token_too() {
    let server = TestServer::with(&["--message-rate", "2"]);
    Client::register(&server, "moderator").await;
    for path in ["/direct", "/users/moderator/ban", "/users/moderator/unban"] {
        let name = format!("member-{}", path.len());
        let member = Client::register(&server, &name).await;
        let ask = |_| server.post(path).by(&member).json(&json!({"username": "nobody"}));
        assert!(until_too_fast(ask, 6, 2).await >= 6, "{path}");
    }
}

#[tokio::test]
async fn read_marks_past_the_rate_are_ignored() {
    let server = TestServer::with(&["--message-rate", "1000"]);
    let ada = Client::register(&server, "ada").await;
    let (mut phone, mut laptop) = (join(&ada).await, join(&ada).await);
    let ids = phone.store_all("n", &vec!["x".to_owned(); 1_000]).await;
    let started = Instant::now();
    for id in &ids {
        phone.send(&json!({"type": "read", "room": 1, "id": id})).await;
    }
    let end = phone.store("end", "end").await;
    let marks = until(&mut laptop, end).await.iter().filter(|frame| frame["type"] == "read").count() as u128;
    assert!((200..=200 + started.elapsed().as_millis() / 50).contains(&marks), "{marks}");
}

#[tokio::test]
async fn how_far_one_has_read_is_ones_own_and_survives_a_clean_stop() {
    let mut server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let (mut phone, mut laptop, mut other) = (join(&bob).await, join(&bob).await, join(&ada).await);
    let first = say(&server, &ada, 1, "one").await;
    say(&server, &ada, 1, "two").await;
    phone.send(&json!({"type": "read", "room": 1, "id": first})).await;
    for connection in [&mut phone, &mut laptop] {
        assert_eq!(connection.next_of("read").await, json!({"type": "read", "room": 1, "id": first}));
    }
    let heard = due(&server, &ada, &mut other).await;
    assert!(heard.iter().all(|frame| frame["type"] != "read"));
    for _ in 0..2 {
        let lobby = server.get("/rooms").by(&bob).send().await.json()["rooms"][0].clone();
        assert_eq!((int(&lobby["read"]), int(&lobby["unread"])), (first, 2), "two, and what he was told last");
        server.stop().await;
        server.restart();
    }
}

#[tokio::test]
async fn how_far_one_has_read_is_stored_though_nothing_else_is_and_survives_a_crash_then() {
    // The contract allows 5 s. After a minute what expires is looked for, and that is a commit too.
    const SOON: Duration = Duration::from_secs(30);
    let mut server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let first = say(&server, &ada, 1, "one").await;
    say(&server, &ada, 1, "two").await;
    // Its end would be a commit.
    let mut connection = join(&bob).await;
    connection.send(&json!({"type": "read", "room": 1, "id": first})).await;
    let stored = tokio::time::timeout(SOON, async {
        while server.number("SELECT coalesce(max(id), 0) FROM reads") < first {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(stored.await.is_ok(), "a crash would lose it");
    server.kill().await;
    server.restart();
    let lobby = server.get("/rooms").by(&bob).send().await.json()["rooms"][0].clone();
    assert_eq!((int(&lobby["read"]), int(&lobby["unread"])), (first, 1));
}

#[tokio::test]
async fn after_a_restart_what_is_said_in_a_private_room_is_heard_at_once() {
    let mut server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    server.stop().await;
    server.restart();
    let mut connection = join(&bob).await;
    let id = say(&server, &ada, room, "hello").await;
    assert_eq!(int(&connection.next_of("message").await["id"]), id);
}

#[tokio::test]
async fn a_room_that_changed_is_told_to_each_with_what_they_have_not_read() {
    let server = TestServer::start();
    let (ada, bob, carol) = three(&server).await;
    let room = private_room(&server, &ada, &["bob", "carol"]).await;
    let first = say(&server, &ada, room, "one").await;
    say(&server, &ada, room, "two, @carol").await;
    let mut connections = [join(&ada).await, join(&bob).await, join(&carol).await];
    connections[1].send(&json!({"type": "read", "room": room, "id": first})).await;
    connections[1].next_of("read").await;
    let change = server.request("PATCH", &format!("/rooms/{room}")).by(&ada).json(&json!({"topic": "numbers"}));
    assert_eq!(change.send().await.status, 200);
    for (connection, expected) in connections.iter_mut().zip([(0, 0), (1, 0), (2, 1)]) {
        let told = connection.next_of("room").await["room"].clone();
        assert_eq!((int(&told["unread"]), int(&told["mentioned"])), expected, "{told}");
    }
}

#[tokio::test]
async fn a_room_that_changed_is_told_to_a_client_that_comes_back_unless_it_knows() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let mut connection = join(&bob).await;
    let change = server.request("PATCH", &format!("/rooms/{room}")).by(&ada).json(&json!({"topic": "numbers"}));
    assert_eq!(change.send().await.status, 200);
    let id = int(&connection.next_of("room").await["id"]);
    connection.close().await;
    for (last_id, expected) in [(id - 1, vec![id]), (id, vec![])] {
        let mut connection = bob.connect_with(json!({"rooms": true, "last_id": last_id})).await;
        connection.send(&json!({"type": "ping"})).await;
        let mut told = Vec::new();
        loop {
            let frame = connection.next().await;
            match text(&frame["type"]) {
                "pong" => break,
                "room" => told.push(int(&frame["id"])),
                _ => {}
            }
        }
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn unread_messages_and_mentions_are_counted_to_a_thousand() {
    let mut server = TestServer::start();
    let (_, bob, _) = three(&server).await;
    server.stop().await;
    let messages = "WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n WHERE id < 1001) \
         INSERT INTO messages (id, user_id, content, created_at, mentions) SELECT id, 1, '@bob', 1000, 'bob' FROM n";
    let mentions = "INSERT INTO mentions (room_id, user_id, message_id) SELECT 1, 2, id FROM messages";
    let database = server.database();
    assert_eq!((database.execute(messages, []), database.execute(mentions, [])), (Ok(1_001), Ok(1_001)));
    server.restart();
    let lobby = server.get("/rooms").by(&bob).send().await.json()["rooms"][0].clone();
    assert_eq!((int(&lobby["unread"]), int(&lobby["mentioned"])), (1_000, 1_000));
}

#[tokio::test]
async fn the_members_of_a_room_and_all_users_are_listed_by_the_first_two_hundred_names() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let room = private_room(&server, &ada, &[]).await;
    server.seed_people(201).await;
    let members = "INSERT INTO members (room_id, user_id, event, is_present) \
         SELECT ?1, id, 1, 1 FROM users WHERE name LIKE 'person-%'";
    assert_eq!(server.database().execute(members, [room]), Ok(201));
    let rooms = server.get("/rooms").by(&ada).send().await.json();
    let shown =
        rooms["rooms"].as_array().expect("a list").iter().find(|shown| shown["id"] == room).expect("it is there");
    let members = shown["members"].as_array().expect("a list");
    let ends = [members.first(), members.last()].map(|name| text(name.expect("there are some")));
    assert_eq!((members.len(), ends, int(&shown["member_count"])), (200, ["ada", "person-00198"], 202));
    let users = server.get("/users").by(&ada).send().await.json();
    let names: Vec<_> = users["users"].as_array().expect("a list").iter().map(|user| text(&user["username"])).collect();
    assert_eq!((names.len(), &names[..3]), (200, &["ada", "pattern", "person-00000"][..]));
}

#[tokio::test]
async fn of_those_who_reacted_the_first_ten_are_named_and_all_are_counted() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let id = say(&server, &ada, 1, "hello").await;
    let people = server.seed_people(12).await;
    for person in &people {
        let mut connection = join(person).await;
        connection.send(&json!({"type": "react", "message": id, "emoji": "👍", "on": true, "nonce": "n"})).await;
        connection.next_of("ack").await;
    }
    let names: Vec<_> = people[..10].iter().map(|person| person.username.clone()).collect();
    for (reader, mine) in [(&ada, false), (&people[11], true)] {
        let shown = reader.page("limit=1").await["messages"][0]["reactions"].clone();
        assert_eq!(shown, json!([{"emoji": "👍", "count": 12, "mine": mine, "names": names}]));
    }
}

#[tokio::test]
async fn those_who_come_back_to_the_same_place_each_get_what_was_said_in_their_own_rooms() {
    let server = TestServer::start();
    let (ada, bob, carol) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let place = say(&server, &ada, 1, "before").await;
    let (hush, hello) = (say(&server, &ada, room, "hush").await, say(&server, &ada, 1, "hello").await);
    for _ in 0..2 {
        for (reader, expected) in [(&ada, vec![hush, hello]), (&carol, vec![hello]), (&bob, vec![hush, hello])] {
            let mut back = reader.connect_with(json!({"rooms": true, "last_id": place})).await;
            let missed = back.messages(expected.len()).await;
            assert_eq!(ids(&missed), expected, "{}", reader.username);
            let one_room = reader.connect_with(json!({"last_id": place})).await.messages(1).await;
            assert_eq!(ids(&one_room), [hello]);
        }
    }
}

#[tokio::test]
async fn a_position_before_all_messages_is_none_and_does_no_harm() {
    let mut server = TestServer::start();
    let (ada, _, _) = three(&server).await;
    let first = say(&server, &ada, 1, "one").await;
    let mut connection = join(&ada).await;
    for id in [i64::MIN, -1, 0] {
        connection.send(&json!({"type": "read", "room": 1, "id": id})).await;
    }
    connection.send(&json!({"type": "read", "room": 1, "id": first})).await;
    assert_eq!(int(&connection.next_of("read").await["id"]), first);
    server.stop().await;
    chinwag(&server.database_path(), &["check"]).ok();
}

#[tokio::test]
async fn typing_in_an_open_room_is_seen_by_all_who_are_there() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let garden = server.post("/rooms").by(&ada).json(&json!({"name": "garden", "kind": "open"})).send().await.json();
    let (mut reader, mut typist) = (join(&bob).await.settled().await, join(&ada).await.settled().await);
    typist.send(&json!({"type": "typing", "room": garden["id"]})).await;
    let seen = reader.next_of("typing").await;
    assert_eq!(seen, json!({"type": "typing", "username": "ada", "room": garden["id"]}));
}

#[tokio::test]
async fn typing_and_reading_in_a_room_that_is_not_ones_own_are_ignored() {
    let server = TestServer::start();
    let (ada, bob, carol) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let (mut inside, outside, mut stranger) =
        (join(&bob).await.settled().await, join(&carol).await, join(&carol).await.settled().await);
    drop(outside);
    stranger.send(&json!({"type": "typing", "room": room})).await;
    stranger.send(&json!({"type": "read", "room": room, "id": 1})).await;
    let heard = due(&server, &ada, &mut stranger).await;
    assert!(heard.iter().all(|frame| frame["type"] != "read"));
    let mut speaker = join(&ada).await.settled().await;
    speaker.send(&json!({"type": "typing", "room": room})).await;
    assert_eq!(inside.next_of("typing").await, json!({"type": "typing", "username": "ada", "room": room}));
    let heard = due(&server, &ada, &mut stranger).await;
    assert!(heard.iter().all(|frame| frame["type"] != "typing"));
}

#[tokio::test]
async fn where_moderators_make_open_rooms_others_make_private_ones_until_they_are_moderators() {
    let server = TestServer::with(&["--rooms", "moderators"]);
    let (ada, bob, _) = three(&server).await;
    let make = |by: &Client, name: &str, kind: &str| {
        let request = server.post("/rooms").by(by).json(&json!({"name": name, "kind": kind}));
        async move { request.send().await.status }
    };
    let role = |role: &str| chinwag(&server.database_path(), &["user", "role", "bob", role]).ok();
    assert_eq!(make(&ada, "kitchen", "open").await, 201, "the first person is a moderator");
    assert_eq!([make(&bob, "garden", "open").await, make(&bob, "garden", "private").await], [403, 201]);
    assert_eq!(join(&bob).await.welcome["moderator"], false);
    role("moderator");
    assert_eq!(make(&bob, "garden", "open").await, 201);
    assert_eq!(join(&bob).await.welcome["moderator"], true);
    role("member");
    assert_eq!(make(&bob, "attic", "open").await, 403);
}

#[tokio::test]
async fn without_a_flag_everybody_makes_open_rooms_and_moderators_alone_change_them() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let body = json!({"name": "garden", "kind": "open"});
    let made = server.post("/rooms").by(&bob).json(&body).send().await;
    assert_eq!(made.status, 201);
    let change = server.request("PATCH", &format!("/rooms/{}", int(&made.json()["id"])));
    let change = |by: &Client| change.clone().by(by).json(&json!({"topic": "what grows"})).send();
    assert_eq!(change(&bob).await.error(), (403, "forbidden".to_owned()));
    assert_eq!(change(&ada).await.json()["topic"], "what grows");
}

#[tokio::test]
async fn a_moderator_renames_the_lobby_and_takes_away_what_others_said_in_any_open_room() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let renamed = server.request("PATCH", "/rooms/1").by(&ada).json(&json!({"name": "Hall"})).send().await;
    assert_eq!((renamed.status, &renamed.json()["name"]), (200, &json!("Hall")));
    let garden = server.post("/rooms").by(&bob).json(&json!({"name": "garden", "kind": "open"})).send().await;
    let id = say(&server, &bob, int(&garden.json()["id"]), "weeds").await;
    let delete = server.request("DELETE", &format!("/messages/{id}")).by(&ada).send().await;
    assert_eq!(delete.status, 200, "{delete:?}");
}

#[tokio::test]
async fn an_open_room_is_not_given_the_name_of_another() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for name in ["kitchen", "garden"] {
        let made = server.post("/rooms").by(&ada).json(&json!({"name": name, "kind": "open"})).send().await;
        assert_eq!(made.status, 201, "{name}");
    }
    let garden = int(&server.get("/rooms").by(&ada).send().await.json()["rooms"][2]["id"]);
    let rename = |name| server.request("PATCH", &format!("/rooms/{garden}")).by(&ada).json(&json!({"name": name}));
    assert_eq!(rename("Kitchen").send().await.error(), (409, "name_taken".to_owned()));
    assert_eq!(rename("Garden").send().await.status, 200, "its own in other letters");
}

#[tokio::test]
async fn what_was_read_is_told_in_the_other_windows_after_one_was_closed() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let id = say(&server, &ada, 1, "hello").await;
    let (mut phone, mut laptop) = (join(&bob).await.settled().await, join(&bob).await.settled().await);
    let before = server.sockets();
    drop(join(&bob).await);
    wait_while("the third to be gone", async || server.sockets() > before).await;
    phone.send(&json!({"type": "read", "room": 1, "id": id})).await;
    assert_eq!(laptop.next_of("read").await, json!({"type": "read", "room": 1, "id": id}));
}

#[tokio::test]
async fn somebody_who_is_disabled_is_neither_added_nor_removed_nor_spoken_to() {
    let server = TestServer::start();
    let (ada, _, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    for name in ["bob", "carol"] {
        chinwag(&server.database_path(), &["user", "disable", name]).ok();
    }
    let member = |method, name| server.request(method, &format!("/rooms/{room}/members/{name}"));
    let with = |name| server.post("/direct").json(&json!({"username": name}));
    for request in [member("DELETE", "bob"), member("PUT", "carol"), with("bob")] {
        assert_eq!(request.by(&ada).send().await.error(), (404, "not_found".to_owned()));
    }
}

#[tokio::test]
async fn a_user_begins_twenty_conversations_an_hour_and_finds_those_there_are_at_any_time() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let ada = Client::register(&server, "ada").await;
    let people = server.seed_people(21).await;
    let open = |with: &Client| server.post("/direct").by(&ada).json(&json!({"username": with.username})).send();
    for person in &people[..20] {
        assert_eq!(open(person).await.status, 201);
    }
    assert_eq!(open(&people[20]).await.error(), (429, "rate_limited".to_owned()));
    assert_eq!(open(&people[0]).await.status, 200);
}

/// Stores so many messages of ada's with 16 KB of text each in a room.
async fn store_long(server: &mut TestServer, room: i64, count: i64) {
    server.stop().await;
    let long = "WITH RECURSIVE n (id) AS (VALUES (101) UNION ALL SELECT id + 1 FROM n WHERE id < 100 + ?2) \
         INSERT INTO messages (id, user_id, content, created_at, room_id) \
         SELECT id, 1, replace(hex(zeroblob(2000)), '0', '🙂'), 1000, ?1 FROM n";
    let stored = server.database().execute(long, [room, count]);
    assert_eq!(stored, Ok(usize::try_from(count).expect("it is small")));
    server.restart();
}

#[tokio::test]
async fn a_long_page_that_is_being_sent_is_cut_short_once_its_reader_is_removed() {
    // So often that the kernel does not hold all of it.
    const TIMES: usize = 5;
    const BYTES: usize = 200 * 16_000;
    let mut server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    store_long(&mut server, room, 200).await;
    let page = server.get(&format!("/messages?room={room}&limit=200")).by(&bob);
    let mut reading = RawClient::far_away(&server).await;
    reading.send(&page.bytes().repeat(TIMES)).await;
    let head = reading.response_head().await;
    assert_eq!((head.status, head.header("Transfer-Encoding")), (200, Some("chunked")));
    set_member(&server, &ada, room, "bob", false).await;
    let rest = reading.end().await;
    assert!(rest.len() < TIMES * BYTES, "{} bytes were on their way", rest.len());
    assert_eq!(page.send().await.status, 404);
}

#[tokio::test]
async fn a_catch_up_that_began_before_a_removal_tells_no_more_of_the_room_after_it() {
    // So many that the kernel does not hold all of them, and not too many to be replayed.
    const MESSAGES: usize = 900;
    let mut server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    store_long(&mut server, room, i64::try_from(MESSAGES).expect("it is small")).await;
    let mut reading = resume(&bob.far_away(), 100).await;
    assert_eq!(reading.next_of("message").await["room"], room, "it has begun");
    set_member(&server, &ada, room, "bob", false).await;
    say(&server, &ada, room, "between us").await;
    let frames = due(&server, &ada, &mut reading).await;
    let gone = frames.iter().position(|frame| frame["type"] == "room_gone").expect("they are told");
    assert!(gone < MESSAGES - 1, "{gone} messages of the room came all the same");
    assert_eq!(frames[gone + 1..].iter().filter(|frame| frame["room"] == room).count(), 0);
}

/// A catch-up reads a bounded part at a time, and what is told of a room comes by nothing else.
#[tokio::test]
async fn a_removal_among_more_than_a_catch_up_reads_at_once_is_told() {
    let server = TestServer::with(&["--message-rate", "0"]);
    let (ada, bob, _) = three(&server).await;
    let room = private_room(&server, &ada, &["bob"]).await;
    let long = "\u{1f642}".repeat(3_500);
    for _ in 0..20 {
        let mut reading = Vec::new();
        for _ in 0..8 {
            reading.push(join(&bob).await);
        }
        let mut speaker = ada.connect().await;
        let said = async {
            for _ in 0..60 {
                speaker.send(&json!({"type": "message", "content": long})).await;
            }
        };
        tokio::join!(said, set_member(&server, &ada, room, "bob", false));
        for connection in &mut reading {
            let frames = due(&server, &ada, connection).await;
            assert!(frames.iter().any(|frame| frame["type"] == "room_gone"), "they are told");
        }
        set_member(&server, &ada, room, "bob", true).await;
    }
}

#[tokio::test]
async fn no_request_makes_a_room_of_another_kind() {
    let server = TestServer::start();
    let (ada, bob, carol) = three(&server).await;
    let private = private_room(&server, &ada, &["bob"]).await;
    let direct = server.post("/direct").by(&ada).json(&json!({"username": "bob"})).send().await.json();
    let change = |room: i64| {
        let body = json!({"kind": "open", "members": ["ada", "bob", "carol"], "topic": "for all"});
        server.request("PATCH", &format!("/rooms/{room}")).by(&ada).json(&body).send()
    };
    let changed = change(private).await.json();
    assert_eq!((&changed["kind"], &changed["topic"]), (&json!("private"), &json!("for all")));
    assert_eq!(changed["members"], json!(["ada", "bob"]));
    assert_eq!(change(int(&direct["id"])).await.error(), (403, "forbidden".to_owned()));
    for room in [private, int(&direct["id"])] {
        assert_eq!(server.get(&format!("/messages?room={room}")).by(&carol).send().await.status, 404);
    }
    let shown = server.get("/rooms").by(&bob).send().await.json();
    let kinds: Vec<&str> = shown["rooms"].as_array().expect("a list").iter().map(|room| text(&room["kind"])).collect();
    assert_eq!(kinds, ["open", "private", "direct"]);
}

#[tokio::test]
async fn there_are_five_hundred_open_rooms_and_as_many_of_a_user_and_no_more() {
    let mut server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    server.stop().await;
    // The lobby is the first open room.
    let rooms = "WITH RECURSIVE n (id) AS (VALUES (2) UNION ALL SELECT id + 1 FROM n WHERE id < 998) \
         INSERT INTO rooms (id, kind, name, folded, created_at, changed) \
         SELECT id, iif(id < 500, 1, 2), 'room ' || id, iif(id < 500, 'room ' || id, NULL), 1000, 1 FROM n";
    let members = "INSERT INTO members (room_id, user_id, event, is_present) \
         SELECT id, 2, 1, 1 FROM rooms WHERE kind = 2";
    let database = server.database();
    assert_eq!((database.execute(rooms, []), database.execute(members, [])), (Ok(997), Ok(499)));
    server.restart();
    let make = |by: &Client, body: &Value| server.post("/rooms").by(by).json(body).send();
    let refusal = (403, "forbidden".to_owned());
    assert_eq!(make(&ada, &json!({"name": "the last", "kind": "open"})).await.status, 201);
    assert_eq!(make(&ada, &json!({"name": "one more", "kind": "open"})).await.error(), refusal);
    let last = private_room(&server, &bob, &[]).await;
    assert_eq!(make(&bob, &json!({"name": "one more", "kind": "private"})).await.error(), refusal);
    let with_bob = json!({"name": "with bob", "kind": "private", "members": ["bob"]});
    assert_eq!(make(&ada, &with_bob).await.error(), refusal, "nor is anybody put into one more");
    let direct = server.post("/direct").by(&ada).json(&json!({"username": "bob"})).send().await;
    assert_eq!(direct.error(), refusal);
    set_member(&server, &bob, last, "bob", false).await;
    assert_eq!(make(&ada, &with_bob).await.status, 201);
}

/// A message as somebody knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    room: i64,
    author: String,
    content: String,
    /// Who reacted, and with what.
    reactions: BTreeSet<(String, String)>,
}

/// What a reader knows, from frames alone.
struct Reader {
    client: Client,
    connection: Option<Connection>,
    cursor: i64,
    /// The rooms that they have been told of.
    rooms: BTreeSet<i64>,
    known: BTreeMap<i64, Known>,
}

impl Reader {
    /// Comes back on a thin line, if they are away.
    async fn come_back(&mut self) {
        if self.connection.is_none() {
            self.connection = Some(resume(&self.client.far_away(), self.cursor).await);
        }
    }

    /// Reads what comes before the answer to a ping.
    async fn read(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        connection.send(&json!({"type": "ping"})).await;
        let mut frames = Vec::new();
        loop {
            let frame = connection.next().await;
            if frame["type"] == "pong" {
                break;
            }
            frames.push(frame);
        }
        for frame in frames.iter().filter(|frame| !events(std::slice::from_ref(*frame)).is_empty()) {
            self.take(frame);
        }
    }

    /// Takes note of an event; panics at what breaks the order, or is of a room that they have not been told of.
    fn take(&mut self, frame: &Value) {
        let id = int(&frame["id"]);
        assert!(id > self.cursor, "in order, and once: {frame} after {}", self.cursor);
        self.cursor = id;
        if frame["type"] == "room" {
            let room = int(&frame["room"]["id"]);
            self.rooms.insert(room);
            if frame["room"]["read"] == id {
                // They were added, perhaps again: what they know of it is of a time before.
                self.known.retain(|_, known| known.room != room);
            }
            return;
        }
        let (room, message) = (int(&frame["room"]), frame["message"].as_i64().unwrap_or(id));
        let is_theirs = self.rooms.contains(&room);
        match text(&frame["type"]) {
            "room_gone" => {
                self.rooms.remove(&room);
                self.known.retain(|_, known| known.room != room);
                return;
            }
            "message" => drop(self.known.insert(id, Known::of(frame))),
            "edit" => {
                if let Some(known) = self.known.get_mut(&message) {
                    text(&frame["content"]).clone_into(&mut known.content);
                }
            }
            "react" => {
                if let Some(known) = self.known.get_mut(&message) {
                    known.react(text(&frame["username"]), text(&frame["emoji"]), frame["on"] == true);
                }
            }
            _ => drop(self.known.remove(&message)),
        }
        assert!(is_theirs, "of a room that {} is not in: {frame}", self.client.username);
    }
}

impl Known {
    /// A MESSAGE.
    fn of(message: &Value) -> Known {
        let list = message["reactions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let reactions = list.iter().flat_map(|reaction| {
            let names = reaction["names"].as_array().expect("a list");
            names.iter().map(|name| (text(&reaction["emoji"]).to_owned(), text(name).to_owned()))
        });
        Known {
            room: int(&message["room"]),
            author: text(&message["username"]).to_owned(),
            content: text(&message["content"]).to_owned(),
            reactions: reactions.collect(),
        }
    }

    fn react(&mut self, name: &str, emoji: &str, on: bool) {
        let reaction = (emoji.to_owned(), name.to_owned());
        if on {
            self.reactions.insert(reaction);
        } else {
            self.reactions.remove(&reaction);
        }
    }
}

/// Rooms and people at random: what is done to the server, and what should have come of it.
struct Walk {
    server: TestServer,
    dice: Dice,
    /// Ada, who is a moderator and in all rooms, and two who come and go.
    people: [Client; 3],
    /// A connection of each that is not looked at.
    speaking: Vec<Connection>,
    /// Two that everybody reads, and then the private ones.
    rooms: Vec<i64>,
    /// From which event on somebody is in a private room.
    since: BTreeMap<(usize, i64), i64>,
    /// All that was said and is still there.
    said: BTreeMap<i64, Known>,
}

const OPEN: usize = 2;

impl Walk {
    async fn begin(seed: u64) -> Walk {
        let server = TestServer::with(&["--metrics-listen", "127.0.0.1:0"]);
        let (ada, bob, carol) = three(&server).await;
        let garden = server.post("/rooms").by(&ada).json(&json!({"name": "garden", "kind": "open"})).send().await;
        let mut rooms = vec![1, int(&garden.json()["id"])];
        for _ in 0..2 {
            rooms.push(private_room(&server, &ada, &[]).await);
        }
        let people = [ada, bob, carol];
        let mut speaking = Vec::new();
        for client in &people {
            speaking.push(client.connect().await);
        }
        let (since, said) = (BTreeMap::new(), BTreeMap::new());
        Walk { server, dice: Dice::new(seed), people, speaking, rooms, since, said }
    }

    /// From which event on somebody has what is said in a room; none if they may not read it.
    fn from(&self, who: usize, room: i64, begin: i64) -> Option<i64> {
        if self.rooms[..OPEN].contains(&room) { Some(begin) } else { self.since.get(&(who, room)).copied() }
    }

    fn may_read(&self, who: usize, room: i64) -> bool {
        who == 0 || self.from(who, room, 0).is_some()
    }

    fn any_room(&mut self) -> i64 {
        self.rooms[self.dice.below(self.rooms.len())]
    }

    /// One of the messages that are there.
    fn any_message(&mut self) -> Option<i64> {
        if self.said.is_empty() { None } else { self.said.keys().nth(self.dice.below(self.said.len())).copied() }
    }

    /// Does something to a message, or says something, and returns the event; none if it is refused as what is not there.
    async fn ask(&mut self, who: usize, frame: Value) -> Result<i64, Value> {
        let connection = &mut self.speaking[who];
        let nonce = self.dice.below(usize::MAX).to_string();
        let mut named = frame;
        named["nonce"] = json!(nonce);
        connection.send(&named).await;
        loop {
            let answer = connection.next().await;
            if answer["nonce"] == nonce {
                return if answer["type"] == "ack" { Ok(int(&answer["id"])) } else { Err(answer["code"].clone()) };
            }
        }
    }

    async fn say(&mut self, who: usize, room: i64, characters: usize) {
        let content = format!("{}{}", self.said.len(), "x".repeat(characters));
        let told = self.ask(who, json!({"type": "message", "room": room, "content": content})).await;
        assert_eq!(told.is_ok(), self.may_read(who, room), "{told:?}");
        if let Ok(id) = told {
            let author = self.people[who].username.clone();
            self.said.insert(id, Known { room, author, content, reactions: BTreeSet::new() });
        }
    }

    async fn edit(&mut self, who: usize, message: i64) {
        let known = &self.said[&message];
        let expected = if !self.may_read(who, known.room) {
            Some("not_found")
        } else if known.author == self.people[who].username {
            None
        } else {
            Some("forbidden")
        };
        let content = format!("edited {}", self.dice.below(1_000));
        let told = self.ask(who, json!({"type": "edit", "message": message, "content": content})).await;
        assert_eq!(told.as_ref().err(), expected.map(Value::from).as_ref());
        if told.is_ok() {
            self.said.get_mut(&message).expect("it is there").content = content;
        }
    }

    async fn delete(&mut self, who: usize, message: i64) {
        let known = &self.said[&message];
        let moderates = who == 0 && self.rooms[..OPEN].contains(&known.room);
        let expected = if !self.may_read(who, known.room) {
            Some("not_found")
        } else if moderates || known.author == self.people[who].username {
            None
        } else {
            Some("forbidden")
        };
        let told = self.ask(who, json!({"type": "delete", "message": message})).await;
        assert_eq!(told.as_ref().err(), expected.map(Value::from).as_ref());
        if told.is_ok() {
            self.said.remove(&message);
        }
    }

    async fn react(&mut self, who: usize, message: i64) {
        let (emoji, on) = (["👍", "🎉"][self.dice.below(2)], self.dice.below(3) > 0);
        let expected = (!self.may_read(who, self.said[&message].room)).then(|| json!("not_found"));
        let told = self.ask(who, json!({"type": "react", "message": message, "emoji": emoji, "on": on})).await;
        assert_eq!(told.as_ref().err(), expected.as_ref());
        if told.is_ok() {
            let name = &self.people[who].username;
            self.said.get_mut(&message).expect("it is there").react(name, emoji, on);
        }
    }

    /// Adds somebody to a private room, or removes them; some leave by themselves.
    async fn come_or_go(&mut self, who: usize, room: i64) {
        let is_in = self.since.remove(&(who, room)).is_none();
        let by = if is_in || self.dice.below(2) == 0 { 0 } else { who };
        set_member(&self.server, &self.people[by], room, &self.people[who].username, is_in).await;
        if is_in {
            let at = self.said.last_key_value().map_or(0, |(id, _)| *id);
            self.since.insert((who, room), at);
        }
    }

    /// More than a thin line holds, at once, in all rooms.
    async fn burst(&mut self) {
        for number in 0..40 {
            self.say(0, self.rooms[number % self.rooms.len()], 3_000).await;
        }
    }

    async fn step(&mut self, readers: &mut [Reader]) {
        let (who, reader) = (self.dice.below(3), self.dice.below(readers.len()));
        match self.dice.below(20) {
            0..5 => {
                let (room, characters) = (self.any_room(), self.dice.below(500));
                self.say(who, room, characters).await;
            }
            kind @ 5..12 => {
                let Some(message) = self.any_message() else { return };
                match kind {
                    5..7 => self.edit(who, message).await,
                    7..9 => self.delete(who, message).await,
                    _ => self.react(who, message).await,
                }
            }
            12..15 => {
                let room = self.any_room();
                if !self.rooms[..OPEN].contains(&room) {
                    self.come_or_go(reader + 1, room).await;
                }
            }
            15 => readers[reader].connection = None,
            16..18 => readers[reader].come_back().await,
            18 if self.dice.below(3) == 0 => self.burst().await,
            _ => readers[reader].read().await,
        }
    }

    /// A page of the history shows what a reader knows of a room.
    async fn assert_shown(&self, reader: &Reader, room: i64, from: i64) {
        let page = self.server.get(&format!("/messages?room={room}&after={from}&limit=200")).by(&reader.client);
        let page = page.send().await.json();
        let shown = page["messages"].as_array().expect("a list").iter();
        let shown = shown.map(|message| (int(&message["id"]), Known::of(message)));
        let known = reader.known.iter().filter(|(_, known)| known.room == room);
        assert!(known.map(|(id, known)| (*id, known.clone())).eq(shown), "{} of room {room}", reader.client.username);
    }
}

/// Rooms, members, messages, edits, deletes, reactions, drops, lags and resumes at random: what comes is of rooms that a
/// reader was told of, in order, and once; and what they then know of a room is what was said there since they came in, as
/// it is now, which is also what the server shows of it.
async fn walk(seed: u64) {
    const STEPS: usize = 200;
    let mut walk = Walk::begin(seed).await;
    let mut readers = Vec::new();
    for client in walk.people[1..].iter().cloned() {
        let connection = join(&client.far_away()).await;
        let cursor = int(&connection.welcome["last_id"]);
        let (rooms, known) = (walk.rooms[..OPEN].iter().copied().collect(), BTreeMap::new());
        readers.push(Reader { client, connection: Some(connection), cursor, rooms, known });
    }
    let begin = readers[0].cursor;
    for _ in 0..STEPS {
        walk.step(&mut readers).await;
    }
    walk.burst().await;
    let last = *walk.said.last_key_value().expect("much was said").0;
    walk.say(0, 1, 0).await;
    for (who, reader) in readers.iter_mut().enumerate() {
        reader.come_back().await;
        while reader.cursor <= last {
            reader.read().await;
        }
        let from = |room| walk.from(who + 1, room, begin);
        let theirs = walk.said.iter().filter(|(id, known)| from(known.room).is_some_and(|from| **id > from));
        let theirs: BTreeMap<_, _> = theirs.map(|(id, known)| (*id, known.clone())).collect();
        assert_eq!(reader.known, theirs, "{}", reader.client.username);
        for (room, from) in walk.rooms.iter().filter_map(|room| Some((*room, from(*room)?))) {
            walk.assert_shown(reader, room, from).await;
        }
    }
    assert!(walk.server.catch_ups().await > 0.0, "they never lagged");
}

/// A walk is a test for each seed: the name of one that fails says which it was.
macro_rules! walks {
    ($($test:ident: $seed:literal;)*) => {
        $(#[tokio::test]
        async fn $test() {
            walk($seed).await;
        })*
    };
}

walks! {
    whatever_happens_each_reader_knows_what_is_theirs_as_it_is_seed_1: 1;
    whatever_happens_each_reader_knows_what_is_theirs_as_it_is_seed_2: 2;
    whatever_happens_each_reader_knows_what_is_theirs_as_it_is_seed_3: 3;
    whatever_happens_each_reader_knows_what_is_theirs_as_it_is_seed_4: 4;
}

#[tokio::test]
async fn a_read_position_does_not_fall_when_the_server_has_been_started_again() {
    let mut server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(say(&server, &ada, 1, text).await);
    }
    let read = |id: i64| json!({"type": "read", "room": 1, "id": id});
    let mut connection = join(&bob).await;
    connection.send(&read(ids[1])).await;
    assert_eq!(connection.next_of("read").await["id"], ids[1]);
    server.stop().await;
    server.restart();
    let bob = bob.at(&server);
    let mut connection = join(&bob).await;
    for id in [ids[0], ids[2]] {
        connection.send(&read(id)).await;
    }
    assert_eq!(connection.next_of("read").await["id"], ids[2], "the one before is no news");
}

#[tokio::test]
async fn a_room_is_made_with_two_hundred_members_and_no_more() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    // Nobody has the name, which is said only of a list that is not too long.
    for (length, error) in [(200, (404, "not_found")), (201, (400, "invalid_request"))] {
        let body = json!({"name": "den", "kind": "private", "members": vec!["nobody"; length]});
        let (status, code) = server.post("/rooms").by(&ada).json(&body).send().await.error();
        assert_eq!((status, &code[..]), error, "{length}");
    }
}

#[tokio::test]
async fn a_message_names_sixteen_people_at_most() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let names: Vec<_> = server.seed_people(17).await.iter().map(|person| format!("@{}", person.username)).collect();
    say(&server, &ada, 1, &names.join(" ")).await;
    let page = ada.page("limit=1").await;
    assert_eq!(page["messages"][0]["mentions"].as_array().map(Vec::len), Some(16), "{page}");
}

#[tokio::test]
async fn after_sixty_four_names_that_nobody_has_no_more_are_looked_up() {
    let server = TestServer::start();
    let (ada, _) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    for (strangers, mentioned) in [(63, 1), (64, 0)] {
        let names = (0..strangers).map(|number| format!("@nobody{number}")).chain(["@bob".to_owned()]);
        say(&server, &ada, 1, &names.collect::<Vec<_>>().join(" ")).await;
        let page = ada.page("limit=1").await;
        let mentions = page["messages"][0]["mentions"].as_array().map_or(0, Vec::len);
        assert_eq!(mentions, mentioned, "after {strangers}: {page}");
    }
}

#[tokio::test]
async fn a_new_room_is_told_to_all_who_may_read_it_and_to_nobody_else() {
    let server = TestServer::start();
    let (ada, bob, carol) = three(&server).await;
    let (mut bobs, mut carols) = (join(&bob).await.settled().await, join(&carol).await.settled().await);
    let den = private_room(&server, &ada, &["bob"]).await;
    let made = server.post("/rooms").by(&ada).json(&json!({"name": "kitchen", "kind": "open"})).send().await;
    let kitchen = int(&made.json()["id"]);
    let told = async |connection: &mut Connection| int(&connection.next_of("room").await["room"]["id"]);
    assert_eq!([told(&mut bobs).await, told(&mut bobs).await], [den, kitchen]);
    assert_eq!(told(&mut carols).await, kitchen);
}

#[tokio::test]
async fn what_is_said_in_a_room_by_a_frame_is_in_that_room() {
    let server = TestServer::start();
    let (ada, bob, _) = three(&server).await;
    let den = private_room(&server, &ada, &["bob"]).await;
    let (mut adas, mut bobs) = (join(&ada).await, join(&bob).await.settled().await);
    adas.send(&json!({"type": "message", "room": den, "content": "hello", "nonce": "n"})).await;
    let heard = bobs.next_of("message").await;
    assert_eq!((int(&heard["room"]), &heard["content"]), (den, &json!("hello")));
}

//! The conversation: what may be said, who hears it, and in which order.

mod common;

use common::{
    Client, Connection, FIN, Message, RawClient, TEXT, TestServer, contents, frame, ids, int, text, unix_millis,
};
use serde_json::{Value, json};

/// A server, ada connected, and bob connected.
async fn conversation() -> (TestServer, Connection, Connection) {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await.connect().await.settled().await;
    let bob = Client::register(&server, "bob").await.connect().await.settled().await;
    (server, ada, bob)
}

/// Sends `frame` and returns the `error` it must be answered by. The connection must live on, with nothing stored.
async fn refused(connection: &mut Connection, frame: &str) -> Value {
    connection.send_text(frame).await;
    let error = connection.next_of("error").await;
    assert!(!text(&error["message"]).is_empty(), "people are told why: {error}");
    error
}

// A message

#[tokio::test]
async fn a_message_reaches_everyone_and_its_sender_in_the_same_words() {
    let (_server, mut ada, mut bob) = conversation().await;
    ada.say("hello").await;
    let heard = bob.next_of("message").await;
    assert_eq!(ada.next_of("message").await, heard);
    let mut fields: Vec<&str> = heard.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["content", "created_at", "id", "room", "type", "username"]);
    let message = Message::parse(&heard);
    assert_eq!((message.username.as_str(), message.content.as_str()), ("ada", "hello"));
}

#[tokio::test]
async fn the_history_is_what_was_heard() {
    let (server, mut ada, mut bob) = conversation().await;
    for number in 0..20 {
        let speaker = if number % 3 == 0 { &mut bob } else { &mut ada };
        speaker.store(&number.to_string(), &format!("number {number}")).await;
    }
    let late = Client::login(&server, "bob").await;
    let history = server.history(&late).await;
    let mut listener = late.connect_with(json!({"last_id": 0})).await;
    assert_eq!(listener.messages(20).await, history);
}

#[tokio::test]
async fn an_ack_names_the_nonce_and_the_id() {
    let (_server, mut ada, mut bob) = conversation().await;
    ada.say_once("a nonce", "hello").await;
    let ack = ada.next_of("ack").await;
    let heard = bob.message().await;
    assert_eq!(ack, json!({"type": "ack", "nonce": "a nonce", "id": heard.id}));
}

#[tokio::test]
async fn only_the_sender_gets_an_ack_and_only_for_a_nonce() {
    let (_server, mut ada, mut bob) = conversation().await;
    ada.say("without").await;
    ada.store("1", "with").await;
    ada.store("2", "the last").await;
    // When the last message is here, acks of the ones before it would be, too.
    loop {
        let frame = bob.next().await;
        assert_ne!(frame["type"], "ack");
        if frame["content"] == "the last" {
            break;
        }
    }
}

#[tokio::test]
async fn a_message_is_on_disk_before_anyone_sees_it() {
    let (server, mut ada, mut bob) = conversation().await;
    let database = server.database();
    let mut query = database.prepare("SELECT content FROM messages WHERE id = ?1").expect("a table of messages");
    for number in 0..200 {
        ada.say(&format!("number {number}")).await;
        let seen = bob.message().await;
        let stored: String = query.query_row([seen.id], |row| row.get(0)).expect("what is seen is stored");
        assert_eq!(stored, seen.content);
    }
}

#[tokio::test]
async fn a_message_is_on_disk_before_its_ack() {
    let (server, mut ada, _bob) = conversation().await;
    let database = server.database();
    let mut query = database.prepare("SELECT content FROM messages WHERE id = ?1").expect("a table of messages");
    for number in 0..200 {
        let content = format!("number {number}");
        let id = ada.store(&content, &content).await;
        let stored: String = query.query_row([id], |row| row.get(0)).expect("what is acknowledged is stored");
        assert_eq!(stored, content);
    }
}

// Content

#[tokio::test]
async fn content_is_trimmed_and_kept_inside() {
    let (_server, mut ada, mut bob) = conversation().await;
    for (sent, kept) in [
        ("  hello  ", "hello"),
        ("\n\t hello\n", "hello"),
        ("\u{a0}\u{2003}hello\u{3000}", "hello"),
        ("two\nlines\tand  gaps", "two\nlines\tand  gaps"),
    ] {
        ada.say(sent).await;
        assert_eq!(bob.message().await.content, kept, "{sent:?}");
    }
}

#[tokio::test]
async fn all_of_unicode_is_kept_as_sent() {
    let (server, mut ada, mut bob) = conversation().await;
    let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
    let sent = [
        "\u{65e5}\u{672c}\u{8a9e}",
        "e\u{301} is not \u{e9}",
        "\u{202e}right to left\u{202c} and \u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        family,
        "\u{feff}a mark inside\u{feff}.",
        "\u{10ffff} \u{fffe} \u{e000}",
        "</script><img src=x onerror=alert(1)> \" ' \\ \\u0000 & %00 ${x}",
        "'; DROP TABLE messages; --",
        "line\u{2028}paragraph\u{2029}end",
    ];
    for content in sent {
        ada.say(content).await;
        assert_eq!(bob.message().await.content, content);
    }
    let reader = Client::login(&server, "ada").await;
    assert_eq!(contents(&server.history(&reader).await), sent);
}

#[tokio::test]
async fn content_is_1_to_4000_characters_however_many_bytes() {
    let (_server, mut ada, mut bob) = conversation().await;
    for content in ["x", "\u{1f642}", &"x".repeat(4000), &"\u{1f642}".repeat(4000), &format!("{:5000}", "padded")] {
        ada.say(content).await;
        assert_eq!(bob.message().await.content, content.trim());
    }
    for content in ["", " ", "\n\t\u{2003}", &"x".repeat(4001), &"\u{1f642}".repeat(4001)] {
        let frame = json!({"type": "message", "content": content}).to_string();
        assert_eq!(refused(&mut ada, &frame).await["code"], "invalid_message", "{} bytes", content.len());
    }
    ada.say("the next").await;
    assert_eq!(bob.message().await.content, "the next", "nothing of the refused was stored");
}

#[tokio::test]
async fn control_characters_other_than_newline_and_tab_are_refused() {
    let (_server, mut ada, mut bob) = conversation().await;
    for control in ["\0", "\u{1}", "\u{8}", "\u{b}", "\u{1b}", "\u{7f}", "\u{9b}"] {
        let frame = json!({"type": "message", "content": format!("a{control}b")}).to_string();
        assert_eq!(refused(&mut ada, &frame).await["code"], "invalid_message", "{control:?}");
    }
    ada.say("a\n\tb").await;
    assert_eq!(bob.message().await.content, "a\n\tb");
}

#[tokio::test]
async fn a_message_says_what_it_is_about_even_when_it_is_refused() {
    let (_server, mut ada, _bob) = conversation().await;
    let error = refused(&mut ada, r#"{"type":"message","content":" ","nonce":"7"}"#).await;
    assert_eq!(error["code"], "invalid_message");
    assert_eq!(error["nonce"], "7", "the page knows which of its messages failed");
    let error = refused(&mut ada, r#"{"type":"message","content":" "}"#).await;
    assert!(error.get("nonce").is_none_or(Value::is_null), "{error}");
    assert_eq!(ada.store("7", "a refused nonce is not used up").await, 1);
}

#[tokio::test]
async fn a_nonce_is_1_to_64_characters() {
    let (_server, mut ada, _bob) = conversation().await;
    for nonce in ["x", &"x".repeat(64), &"\u{1f511}".repeat(64), "with \"quotes\" and \\"] {
        ada.store(nonce, "hello").await;
    }
    for nonce in ["", &"x".repeat(65)] {
        let frame = json!({"type": "message", "content": "hello", "nonce": nonce}).to_string();
        assert_eq!(refused(&mut ada, &frame).await["code"], "invalid_message", "{nonce:?}");
    }
}

// Frames that say nothing

#[tokio::test]
async fn a_frame_that_is_no_object_of_a_known_type_is_invalid_json() {
    let (_server, mut ada, mut bob) = conversation().await;
    let deep = "[".repeat(60_000);
    for frame in [
        "",
        " ",
        "hello",
        "null",
        "7",
        "[]",
        "{",
        "{}",
        "\"message\"",
        &deep,
        r#"["ping"]"#,
        r#"{"type":null}"#,
        r#"{"type":"shout","content":"hello"}"#,
        r#"{"type":"Message","content":"hello"}"#,
        r#"{"content":"hello"}"#,
        r#"{"type":"message","content":"hello"} x"#,
        r#"[{"type":"message","content":"hello"}]"#,
    ] {
        let error = refused(&mut ada, frame).await;
        assert_eq!(error["code"], "invalid_json", "{}", frame.chars().take(80).collect::<String>());
    }
    ada.say("the next").await;
    assert_eq!(bob.message().await.content, "the next");
}

#[tokio::test]
async fn a_message_without_its_fields_is_an_invalid_message() {
    let (_server, mut ada, mut bob) = conversation().await;
    for frame in [
        r#"{"type":"message"}"#,
        r#"{"type":"message","content":7}"#,
        r#"{"type":"message","content":null}"#,
        r#"{"type":"message","content":["hello"]}"#,
        r#"{"type":"message","content":"hello","nonce":7}"#,
        r#"{"type":"message","content":"\ud800"}"#,
    ] {
        assert_eq!(refused(&mut ada, frame).await["code"], "invalid_message", "{frame}");
    }
    ada.say("the next").await;
    assert_eq!(bob.message().await.content, "the next");
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let (_server, mut ada, mut bob) = conversation().await;
    ada.send_text(r#"{"mood":{"a":[1,2]},"content":"hello","type":"message","id":1e999,"username":"eve"}"#).await;
    assert_eq!(bob.message().await.username, "ada");
}

#[tokio::test]
async fn a_ping_is_answered_at_once_by_a_pong() {
    let (_server, mut ada, _bob) = conversation().await;
    ada.send(&json!({"type": "ping"})).await;
    assert_eq!(ada.next_of("pong").await, json!({"type": "pong"}));
}

// Typing

#[tokio::test]
async fn typing_is_told_to_the_others_and_never_stored() {
    let (server, mut ada, mut bob) = conversation().await;
    ada.send(&json!({"type": "typing"})).await;
    assert_eq!(bob.next_of("typing").await, json!({"type": "typing", "username": "ada", "room": 1}));
    ada.say("done").await;
    loop {
        let frame = ada.next().await;
        assert_ne!(frame["type"], "typing", "not to the one who types");
        if frame["type"] == "message" {
            break;
        }
    }
    assert_eq!(server.number("SELECT count(*) FROM messages"), 1);
}

#[tokio::test]
async fn typing_is_passed_on_once_a_second_at_most() {
    let (_server, mut ada, mut bob) = conversation().await;
    let started = std::time::Instant::now();
    for _ in 0..50 {
        ada.send(&json!({"type": "typing"})).await;
    }
    ada.say("done").await;
    let mut heard = 0;
    loop {
        match text(&bob.next().await["type"]) {
            "typing" => heard += 1,
            "message" => break,
            _ => {}
        }
    }
    let allowed = 1 + started.elapsed().as_secs();
    assert!((1..=allowed).contains(&heard), "{heard} in {:?}", started.elapsed());
}

#[tokio::test]
async fn typing_is_told_before_the_message_that_it_became() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    // Who is still being brought up is not told of typing.
    let mut bob = Client::register(&server, "bob").await.connect().await.settled().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    // Both arrive in one read.
    let frames = [json!({"type": "typing"}), json!({"type": "message", "content": "done"})];
    raw.send(&frames.map(|it| frame(FIN | TEXT, it.to_string().as_bytes())).concat()).await;
    // Of her coming, `presence` may tell him.
    let mut told = Vec::new();
    while told.len() < 2 {
        let frame = bob.next().await;
        if frame["type"] == "typing" || frame["type"] == "message" {
            told.push(frame["type"].clone());
        }
    }
    assert_eq!(told, ["typing", "message"]);
}

#[tokio::test]
async fn typing_goes_on_being_passed_on() {
    let (_server, mut ada, mut bob) = conversation().await;
    let started = std::time::Instant::now();
    let hearing = tokio::spawn(async move {
        bob.next_of("typing").await;
        bob.next_of("typing").await;
        started.elapsed()
    });
    let mut sent = 0;
    while !hearing.is_finished() {
        ada.send(&json!({"type": "typing"})).await;
        ada.send(&json!({"type": "ping"})).await;
        ada.next_of("pong").await;
        sent += 1;
    }
    let took = hearing.await.expect("no panic");
    assert!(took.as_secs() >= 1 && sent >= 2, "the second of {sent} after {took:?}");
}

#[tokio::test]
async fn the_tabs_of_a_user_type_as_one_and_are_not_told_of_it() {
    let (server, mut ada, mut bob) = conversation().await;
    let mut other_tab = Client::login(&server, "ada").await.connect().await;
    let started = std::time::Instant::now();
    for _ in 0..20 {
        for tab in [&mut ada, &mut other_tab] {
            tab.send(&json!({"type": "typing"})).await;
        }
    }
    ada.say("done").await;
    other_tab.say("done here too").await;
    // Both messages come after all that was passed on before them.
    let mut typing = [0, 0, 0];
    for (typing, connection) in typing.iter_mut().zip([&mut ada, &mut other_tab, &mut bob]) {
        let mut messages = 0;
        while messages < 2 {
            match text(&connection.next().await["type"]) {
                "typing" => *typing += 1,
                "message" => messages += 1,
                _ => {}
            }
        }
    }
    let [here, there, heard] = typing;
    let allowed = 1 + started.elapsed().as_secs();
    assert!((1..=allowed).contains(&heard), "{heard} in {:?}", started.elapsed());
    assert_eq!((here, there), (0, 0), "one's own tabs know");
}

// One order

#[tokio::test]
async fn many_senders_one_order_for_all_readers() {
    const SENDERS: usize = 8;
    const EACH: usize = 60;
    let server = TestServer::start();
    let people = server.seed_people(SENDERS).await;
    let mut senders = Vec::new();
    let mut listeners = Vec::new();
    for person in &people {
        senders.push(person.connect().await);
        listeners.push(person.connect().await);
    }
    let mut sequences = Vec::new();
    for mut listener in listeners {
        sequences.push(tokio::spawn(async move { listener.messages(SENDERS * EACH).await }));
    }
    for (mut sender, person) in senders.into_iter().zip(&people) {
        let name = person.username.clone();
        sequences.push(tokio::spawn(async move {
            for number in 0..EACH {
                sender.say(&format!("{name} {number}")).await;
            }
            // What the sender itself is shown is the order, too.
            sender.messages(SENDERS * EACH).await
        }));
    }
    let mut shown = Vec::new();
    for sequence in sequences {
        shown.push(sequence.await.expect("no panic"));
    }
    let history = server.history(&people[0]).await;
    assert_eq!(history.len(), SENDERS * EACH, "none skipped");
    assert!(ids(&history).is_sorted_by(|earlier, later| earlier < later), "ids rise");
    for sequence in shown {
        assert!(sequence == history, "{:?} is not {:?}", ids(&sequence), ids(&history));
    }
    for person in &people {
        let own = history.iter().filter(|message| message.username == person.username);
        let expected: Vec<String> = (0..EACH).map(|number| format!("{} {number}", person.username)).collect();
        assert!(own.map(|message| &message.content).eq(&expected), "what one person says keeps its order");
    }
}

#[tokio::test]
async fn ids_are_never_used_again() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let first = connection.store("1", "one").await;
    let second = connection.store("2", "two").await;
    assert!(second > first);

    server.database().execute("DELETE FROM messages WHERE id = ?1", [second]).expect("a delete");
    let third = connection.store("3", "three").await;
    assert!(third > second, "while it runs");

    server.stop().await;
    server.database().execute("DELETE FROM messages", []).expect("a delete");
    server.restart();
    let mut connection = ada.connect().await;
    assert_eq!(int(&connection.welcome["last_id"]), third, "the history goes on where it was");
    let fourth = connection.store("4", "four").await;
    assert!(fourth > third, "after a restart");
}

// Send once

#[tokio::test]
async fn a_nonce_sent_again_gets_the_first_id_and_is_shown_once() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await;
    let mut here = ada.connect().await;
    let mut there = Client::login(&server, "ada").await.connect().await;
    let id = here.store("n", "hello").await;
    assert_eq!(here.store("n", "hello").await, id, "on the same connection");
    assert_eq!(there.store("n", "hello").await, id, "on another of another session");
    assert_eq!(there.store("n", "other words").await, id, "the nonce decides, not the text");
    here.store("m", "the next").await;
    assert_eq!(contents(&bob.messages(2).await), ["hello", "the next"]);
    assert_eq!(server.number("SELECT count(*) FROM messages"), 2);
}

#[tokio::test]
async fn a_nonce_sent_on_many_connections_at_once_is_stored_once() {
    const CONNECTIONS: usize = 6;
    const NONCES: usize = 40;
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await;
    let mut tabs = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut tab = ada.connect().await;
        tabs.push(tokio::spawn(async move {
            for number in 0..NONCES {
                tab.say_once(&number.to_string(), &format!("number {number}")).await;
            }
            let mut ids = vec![0; NONCES];
            for _ in 0..NONCES {
                let ack = tab.next_of("ack").await;
                ids[text(&ack["nonce"]).parse::<usize>().expect("a number")] = int(&ack["id"]);
            }
            ids
        }));
    }
    let mut acknowledged = Vec::new();
    for tab in tabs {
        acknowledged.push(tab.await.expect("no panic"));
    }
    acknowledged.dedup();
    assert_eq!(acknowledged.len(), 1, "every connection was told the same ids");
    let heard = bob.messages(NONCES).await;
    let mut expected = acknowledged.remove(0);
    expected.sort_unstable();
    assert_eq!(ids(&heard), expected);
    assert_eq!(server.history(&ada).await, heard, "stored and shown once");
}

#[tokio::test]
async fn the_same_nonce_of_two_people_is_two_messages() {
    let (_server, mut ada, mut bob) = conversation().await;
    let of_ada = ada.store("n", "ada's").await;
    let of_bob = bob.store("n", "bob's").await;
    assert_ne!(of_ada, of_bob);
}

#[tokio::test]
async fn the_same_nonce_twice_in_one_packet_is_one_message() {
    let (server, mut ada, mut bob) = conversation().await;
    for _ in 0..10 {
        ada.say_once("n", "hello").await;
    }
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(int(&ada.next_of("ack").await["id"]));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    bob.say("the next").await;
    assert_eq!(contents(&bob.messages(2).await), ["hello", "the next"]);
    assert_eq!(server.number("SELECT count(*) FROM messages"), 2);
}

#[tokio::test]
async fn a_nonce_seen_before_is_acknowledged_though_what_comes_with_it_is_invalid() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let first = connection.store("seen", "stored").await;
    let invalid = |nonce: &str| {
        [
            json!({"type": "message", "content": " ", "nonce": nonce}),
            json!({"type": "edit", "message": first, "content": " ", "nonce": nonce}),
            json!({"type": "react", "message": first, "emoji": "?", "on": true, "nonce": nonce}),
        ]
    };
    for frame in invalid("seen") {
        connection.send(&frame).await;
        assert_eq!(connection.next_of("ack").await, json!({"type": "ack", "nonce": "seen", "id": first}), "{frame}");
    }
    for frame in invalid("new") {
        connection.send(&frame).await;
        let error = connection.next_of("error").await;
        assert_eq!((&error["code"], &error["nonce"]), (&json!("invalid_message"), &json!("new")), "{frame}");
    }
    let patch = format!("/messages/{first}");
    for (method, target) in [("POST", "/messages"), ("PATCH", &patch)] {
        let sent =
            |nonce: &str| server.request(method, target).by(&ada).json(&json!({"content": " ", "nonce": nonce})).send();
        assert_eq!(sent("seen").await.json(), json!({"id": first}), "{method}");
        assert_eq!(sent("new").await.error(), (422, "invalid_message".to_owned()), "{method}");
    }
}

// A day later

#[tokio::test]
async fn a_message_is_edited_within_the_time_that_about_tells_and_deleted_at_any_time() {
    let server = TestServer::start();
    let client = Client::register(&server, "ada").await;
    let mut ada = client.connect().await;
    let id = ada.store("n", "helo").await;
    let edit_within = int(&server.get("/about").send().await.json()["limits"]["edit_within"]);
    let make_old = |age: i64| {
        let made = server.database().execute("UPDATE messages SET created_at = ?1", [unix_millis() - age]);
        assert_eq!(made, Ok(1));
    };
    let edit = || server.request("PATCH", &format!("/messages/{id}")).by(&client).json(&json!({"content": "hello"}));
    // Minutes before, since the machine may be slow.
    make_old(edit_within - 600_000);
    assert_eq!(edit().send().await.status, 200);
    make_old(edit_within + 1);
    assert_eq!(edit().send().await.error(), (409, "too_old".to_owned()));
    let frame = json!({"type": "edit", "message": id, "content": "hello"}).to_string();
    assert_eq!(refused(&mut ada, &frame).await["code"], "too_old");
    let delete = server.request("DELETE", &format!("/messages/{id}")).by(&client).send().await;
    assert_eq!(delete.status, 200, "{delete:?}");
}

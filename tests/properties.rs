//! Properties that hold whatever happens: any bytes, any texts, any coming and going.

mod common;

use common::{
    CLOSE, CONTINUATION, Client, FIN, Follower, PING, RawClient, Response, TEXT, TestServer, frame, int, text,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// Tries `property` on `cases` values of `strategy`, and panics with the simplest that breaks it. What a broken one
/// teaches becomes a test with a name, so no seeds are kept.
fn always<S: Strategy>(cases: u32, strategy: &S, property: &impl AsyncFn(S::Value)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 100,
        // Milliseconds: what hangs takes its whole patience each time.
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(strategy, |value| {
        runtime.block_on(property(value));
        Ok(())
    });
    outcome.unwrap_or_else(|broken| panic!("{broken}"));
}

/// The same for properties that leave nothing behind: all cases meet one server, and ada who is known there.
fn always_on_one_server<S: Strategy>(
    cases: u32,
    strategy: &S,
    property: &impl AsyncFn(&TestServer, &Client, S::Value),
) {
    let server = TestServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ada = runtime.block_on(Client::register(&server, "ada"));
    always(cases, strategy, &async |value| property(&server, &ada, value).await);
}

/// What can happen to a conversation.
#[derive(Clone, Debug)]
enum Event {
    /// A sender stores this many messages of this many characters.
    Send { sender: usize, messages: usize, length: usize },
    /// A reader reads this many of the messages that wait for it.
    Read { reader: usize, messages: usize },
    /// A reader is gone.
    Vanish { reader: usize },
    /// A reader comes back.
    Resume { reader: usize },
    /// The server is killed and started again, and everybody comes back.
    Crash,
}

const SENDERS: usize = 2;
const READERS: usize = 3;

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..SENDERS, 1..120_usize, 1..3_000_usize)
            .prop_map(|(sender, messages, length)| Event::Send { sender, messages, length }),
        4 => (0..READERS, 1..100_usize).prop_map(|(reader, messages)| Event::Read { reader, messages }),
        2 => (0..READERS).prop_map(|reader| Event::Vanish { reader }),
        3 => (0..READERS).prop_map(|reader| Event::Resume { reader }),
        1 => Just(Event::Crash),
    ]
}

/// Readers on thin lines lag whenever they do not read; they vanish, resume and see crashes. In the end each has the
/// store's whole sequence.
#[test]
fn any_interleaving_gives_every_reader_the_stores_order() {
    always(12, &prop::collection::vec(event(), 1..30), &async |events| {
        let mut server = TestServer::start();
        let people = server.seed_people(SENDERS + READERS).await;
        let mut senders = Vec::new();
        for person in &people[..SENDERS] {
            senders.push(person.connect().await);
        }
        let mut readers = Vec::new();
        for person in &people[SENDERS..] {
            readers.push(Follower::join(&person.far_away()).await);
        }
        let mut sent = 0;
        for event in events {
            match event {
                Event::Send { sender, messages, length } => {
                    let texts: Vec<String> =
                        (0..messages).map(|n| format!("{}{}", sent + n, "x".repeat(length))).collect();
                    senders[sender].store_all(&sent.to_string(), &texts).await;
                    sent += messages;
                }
                Event::Read { reader, messages } => {
                    let reader = &mut readers[reader];
                    if reader.is_connected() {
                        reader.read_more(messages.min(sent - reader.history.len())).await;
                    }
                }
                Event::Vanish { reader } => readers[reader].vanish(),
                Event::Resume { reader } => {
                    readers[reader].vanish();
                    readers[reader].resume().await;
                }
                Event::Crash => {
                    server.kill().await;
                    server.restart();
                    for (sender, person) in senders.iter_mut().zip(&people) {
                        *sender = person.connect().await;
                    }
                    for reader in &mut readers {
                        reader.vanish();
                        reader.resume().await;
                    }
                }
            }
        }
        let last = senders[0].store("the end", "the end").await;
        let whole = server.history(&people[0]).await;
        assert_eq!(whole.len(), sent + 1);
        for reader in &mut readers {
            if !reader.is_connected() {
                reader.resume().await;
            }
            reader.read_to(last).await;
            assert!(reader.history == whole, "{} of {}", reader.history.len(), whole.len());
        }
    });
}

/// What the contract makes of a text: what is stored, or none if it is refused.
fn stored_as(content: &str) -> Option<&str> {
    let trimmed = content.trim();
    let length = trimmed.chars().count();
    let is_clean = trimmed.chars().all(|c| !c.is_control() || c == '\n' || c == '\t');
    ((1..=4_000).contains(&length) && is_clean).then_some(trimmed)
}

#[test]
fn any_text_is_stored_as_it_is_or_refused() {
    let texts = prop_oneof![
        any::<String>(),
        "\\PC{0,40}",
        "[ \t\n\u{a0}]{0,3}[a-z\u{1f642}\u{0}\u{85}]{0,3}[ \t\n\u{2003}]{0,3}",
        (3_990..4_010_usize).prop_map(|length| "\u{1f642}".repeat(length)),
    ];
    always_on_one_server(200, &texts, &async |_, ada, content| {
        let mut connection = ada.connect().await;
        connection.say(&content).await;
        loop {
            let frame = connection.next().await;
            match text(&frame["type"]) {
                "message" => {
                    assert_eq!(Some(text(&frame["content"])), stored_as(&content));
                    let page = ada.page(&format!("after={}", int(&frame["id"]) - 1)).await;
                    assert_eq!(page["messages"][0]["content"], frame["content"], "on disk, too");
                    return;
                }
                "error" => {
                    assert_eq!(frame["code"], "invalid_message");
                    assert_eq!(stored_as(&content), None, "refused");
                    return;
                }
                _ => {}
            }
        }
    });
}

/// Whatever a member sends, the connection either answers on or is closed with a code that says why.
#[test]
fn any_frames_are_answered_or_closed_with_a_code() {
    let frames = prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 1..8);
    always_on_one_server(200, &frames, &async |server, ada, frames| {
        let mut raw = RawClient::authenticated(server, ada).await;
        for (first, payload) in &frames {
            raw.try_send(&frame(*first, payload)).await;
        }
        raw.try_send(&frame(FIN | TEXT, br#"{"type":"ping"}"#)).await;
        loop {
            let received = raw.try_frame().await.expect("a close frame before the end");
            if received.first == FIN | TEXT {
                if received.payload == br#"{"type":"pong"}"# {
                    return;
                }
            } else if received.first == FIN | CLOSE {
                let code = received.payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                let sent_close = frames.iter().any(|(first, _)| first & 0xf == CLOSE);
                assert!(sent_close || matches!(code, Some(1002 | 1003 | 1007)), "{code:?}");
                return;
            }
        }
    });
}

/// Nonsense in whole text frames is refused and never ends a connection.
#[test]
fn any_json_is_answered_and_the_connection_lives() {
    let nonsense = (r#"[\[\]{}",:0-9a-z\\ ]{0,60}"#, "[a-z_]{0,12}");
    always_on_one_server(100, &nonsense, &async |server, ada, (nonsense, kind)| {
        let mut raw = RawClient::authenticated(server, ada).await;
        raw.send_text(&nonsense).await;
        raw.send_text(&json!({"type": kind, "content": [kind], "nonce": {}}).to_string()).await;
        raw.send_text(r#"{"type":"ping"}"#).await;
        raw.next_of("pong").await;
    });
}

/// A message cut into any fragments, and those into any packets, is the message.
#[test]
fn any_cut_of_a_message_is_the_message() {
    let cut = ("[a-z\u{e9}\u{1f642}]{1,40}", prop::collection::vec(0..200_usize, 0..6), 1..50_usize);
    always_on_one_server(100, &cut, &async |server, ada, (content, mut cuts, packet)| {
        let mut raw = RawClient::authenticated(server, ada).await;
        let whole = json!({"type": "message", "content": content}).to_string();
        cuts.retain(|cut| *cut < whole.len());
        cuts.sort_unstable();
        let mut bytes = Vec::new();
        let mut start = 0;
        for end in cuts {
            let opcode = if bytes.is_empty() { TEXT } else { CONTINUATION };
            bytes.extend(frame(opcode, &whole.as_bytes()[start..end]));
            bytes.extend(frame(FIN | PING, b""));
            start = end;
        }
        let opcode = if bytes.is_empty() { TEXT } else { CONTINUATION };
        bytes.extend(frame(FIN | opcode, &whole.as_bytes()[start..]));
        for part in bytes.chunks(packet) {
            raw.send(part).await;
        }
        let message: Value = raw.next_of("message").await;
        assert_eq!(message["content"], content.as_str());
    });
}

/// Bytes that may or may not be HTTP never take the server down, and get an answer or an end; a refusal says why, as
/// any other does.
#[test]
fn any_bytes_on_the_port_are_survived() {
    let request = "(GET|POST|HEAD|PUT) /[a-z/%.?&=0-9]{0,30} HTTP/1.[01]\r\n(Host: a\r\n)?([A-Za-z-]{1,20}: [ -~]{0,40}\r\n){0,5}\r\n";
    let bytes = prop_oneof![prop::collection::vec(any::<u8>(), 0..300), request.prop_map(String::into_bytes),];
    always_on_one_server(200, &bytes, &async |server, _, bytes| {
        let mut raw = RawClient::connect(server).await;
        raw.try_send(&bytes).await;
        raw.finish_sending().await;
        let answer = raw.end().await;
        let is_http = answer.is_empty() || answer.starts_with(b"HTTP/1.");
        assert!(is_http, "{:?}", String::from_utf8_lossy(&answer));
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let mut response = Response::parse(std::str::from_utf8(&answer[..end]).expect("a head is text"));
            if response.status >= 400 && !bytes.starts_with(b"HEAD ") {
                let length: usize = response.header("Content-Length").expect("a length").parse().expect("a number");
                response.body = answer[end + 4..][..length].to_vec();
                response.error();
            }
        }
        assert_eq!(server.get("/healthz").send().await.status, 200);
    });
}

/// Any query gets a page or a refusal, and a page is in order and within its bounds.
#[test]
fn any_query_is_a_page_or_an_invalid_request() {
    let queries = "((limit|before|after|x)=[0-9a-z%+-]{0,20}&?){0,3}";
    always_on_one_server(200, &queries, &async |server, ada, query| {
        let response = server.get(&format!("/messages?{query}")).by(ada).send().await;
        match response.status {
            200 => {
                let page = response.json();
                let ids: Vec<i64> =
                    page["messages"].as_array().expect("a list").iter().map(|message| int(&message["id"])).collect();
                assert!(ids.len() <= 200 && ids.is_sorted());
            }
            400 => assert_eq!(response.error().1, "invalid_request"),
            other => panic!("{other}"),
        }
    });
}

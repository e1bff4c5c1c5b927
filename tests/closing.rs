//! How connections end: every close code of promise 7, and the frames of RFC 6455 that do and do not cause one.

mod common;

use std::time::{Duration, Instant};

use common::{
    BINARY, CLOSE, CONTINUATION, Client, Connection, FIN, HANDSHAKE, PING, PONG, RawClient, RawFrame, STOP, TEXT,
    TestServer, frame, header, unmasked, within,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The largest frame a client may send.
const LIMIT: usize = 64 << 10;

async fn server_with_ada() -> (TestServer, Client) {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    (server, ada)
}

/// The code that the server closes an authenticated connection with when it is sent `bytes`, upon which it hangs up.
async fn code_for(server: &TestServer, ada: &Client, bytes: &[u8]) -> u16 {
    let mut raw = RawClient::authenticated(server, ada).await;
    // Some of what is sent here is more than the server will read.
    raw.try_send(bytes).await;
    let code = raw.close_code().await;
    raw.end().await;
    code
}

/// A `message` frame's text, `length` bytes long through a field that nobody reads.
fn message_of(length: usize) -> String {
    let empty = json!({"content": "padded", "nonce": "n", "padding": "", "type": "message"}).to_string();
    let padding = "x".repeat(length - empty.len());
    json!({"content": "padded", "nonce": "n", "padding": padding, "type": "message"}).to_string()
}

// Frames that are fine

#[tokio::test]
async fn frames_of_every_length_field_are_read() {
    let (server, ada) = server_with_ada().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    raw.send(&frame(FIN | TEXT, b"")).await;
    assert_eq!(raw.next_of("error").await["code"], "invalid_json", "no bytes are no JSON");
    for length in [125, 126, 127, 65_535, LIMIT] {
        let text = message_of(length);
        assert_eq!(text.len(), length);
        raw.send_text(&text).await;
        assert_eq!(raw.next_of("ack").await["nonce"], "n", "{length} bytes");
    }
}

#[tokio::test]
async fn frames_of_every_length_field_are_written() {
    let (server, ada) = server_with_ada().await;
    let mut bob = Client::register(&server, "bob").await.connect().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    // A message's frame is some 80 bytes and its text: these cross 125 and 126 one byte at a time.
    for length in (1..80).chain([3_999, 4_000]) {
        let content = "x".repeat(length);
        raw.send_text(&json!({"type": "message", "content": content}).to_string()).await;
        assert_eq!(raw.next_of("message").await["content"], content.as_str());
        assert_eq!(bob.message().await.content, content, "as the library decodes it");
    }
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let (server, ada) = server_with_ada().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    for byte in frame(FIN | TEXT, message_of(130).as_bytes()) {
        raw.send(&[byte]).await;
    }
    raw.next_of("ack").await;
}

#[tokio::test]
async fn many_frames_may_come_in_one_packet() {
    let (server, ada) = server_with_ada().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    let packet: Vec<u8> = (0..100)
        .flat_map(|number| {
            let message = json!({"type": "message", "content": "hello", "nonce": number.to_string()});
            frame(FIN | TEXT, message.to_string().as_bytes())
        })
        .collect();
    raw.send(&packet).await;
    for number in 0..100 {
        assert_eq!(raw.next_of("ack").await["nonce"], number.to_string());
    }
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_pings_between_them() {
    let (server, ada) = server_with_ada().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    let text = json!({"type": "message", "content": "\u{1f642}", "nonce": "n"}).to_string();
    // The first cut goes through the middle of the emoji, which is no fault: only the whole is text.
    let cut = text.find('\u{1f642}').expect("it is there") + 2;
    let (front, back) = text.as_bytes().split_at(cut);
    raw.send(&frame(TEXT, front)).await;
    raw.send(&frame(FIN | PING, b"still there?")).await;
    raw.send(&frame(CONTINUATION, b"")).await;
    raw.send(&frame(FIN | CONTINUATION, back)).await;
    // Pong, ack and message come in any order.
    let (mut is_answered, mut heard) = (false, None);
    while !is_answered || heard.is_none() {
        let RawFrame { first, payload } = raw.frame().await;
        if first == FIN | PONG {
            assert_eq!(payload, b"still there?");
            is_answered = true;
        } else {
            let frame: Value = serde_json::from_slice(&payload).expect("text frames are JSON");
            heard = heard.or_else(|| (frame["type"] == "message").then(|| frame["content"].clone()));
        }
    }
    assert_eq!(heard, Some("\u{1f642}".into()));
}

#[tokio::test]
async fn a_protocol_ping_gets_its_own_payload_back() {
    let (server, ada) = server_with_ada().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        raw.send(&frame(FIN | PING, payload)).await;
        while raw.frame().await != (RawFrame { first: FIN | PONG, payload: payload.to_vec() }) {}
    }
    raw.send(&frame(FIN | PONG, b"nobody asked")).await;
    raw.send_text(r#"{"type":"ping"}"#).await;
    raw.next_of("pong").await;
}

// Close codes

#[tokio::test]
async fn a_frame_over_64_kib_is_1009_before_its_payload_comes() {
    let (server, ada) = server_with_ada().await;
    let over = LIMIT as u64 + 1;
    assert_eq!(code_for(&server, &ada, &header(FIN | TEXT, over)).await, 1009);
    assert_eq!(code_for(&server, &ada, &header(FIN | TEXT, 1 << 30)).await, 1009);
    assert_eq!(code_for(&server, &ada, &header(FIN | TEXT, i64::MAX as u64)).await, 1009);
    assert_eq!(code_for(&server, &ada, &frame(FIN | TEXT, &vec![b' '; LIMIT + 1])).await, 1009, "with all of it sent");
}

#[tokio::test]
async fn fragments_that_add_up_to_over_64_kib_are_1009() {
    let (server, ada) = server_with_ada().await;
    let mut bytes = frame(TEXT, &[b' '; 1024]);
    for _ in 0..64 {
        bytes.extend(frame(CONTINUATION, &[b' '; 1024]));
    }
    assert_eq!(code_for(&server, &ada, &bytes).await, 1009);
}

#[tokio::test]
async fn the_memory_of_a_large_frame_is_given_back() {
    const CLIENTS: usize = 200;
    let (server, ada) = server_with_ada().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(RawClient::authenticated(&server, &ada).await);
    }
    let large = frame(FIN | TEXT, &vec![b' '; LIMIT]);
    let before = server.resident_bytes();
    for raw in &mut clients {
        raw.send(&large).await;
        assert_eq!(raw.next_of("error").await["code"], "invalid_json");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < (CLIENTS * LIMIT / 4) as u64, "{grown} bytes for {CLIENTS} frames of {LIMIT}");
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_1007() {
    let (server, ada) = server_with_ada().await;
    assert_eq!(code_for(&server, &ada, &frame(FIN | TEXT, b"\xff")).await, 1007);
    assert_eq!(code_for(&server, &ada, &frame(FIN | TEXT, b"\"\xed\xa0\x80\"")).await, 1007, "a surrogate");
    assert_eq!(code_for(&server, &ada, &frame(FIN | TEXT, b"\"\xc0\xaf\"")).await, 1007, "a long way to write a slash");
    assert_eq!(code_for(&server, &ada, &frame(FIN | TEXT, b"\xf0\x9f\x99")).await, 1007, "cut short");
    let fragments = [frame(TEXT, b"\xf0\x9f"), frame(FIN | CONTINUATION, b"\x99")].concat();
    assert_eq!(code_for(&server, &ada, &fragments).await, 1007, "cut short after fragments");
}

#[tokio::test]
async fn a_binary_frame_is_1003() {
    let (server, ada) = server_with_ada().await;
    assert_eq!(code_for(&server, &ada, &frame(FIN | BINARY, b"{}")).await, 1003);
    assert_eq!(code_for(&server, &ada, &frame(FIN | BINARY, b"")).await, 1003);
    let fragments = [frame(BINARY, b"{"), frame(FIN | CONTINUATION, b"}")].concat();
    assert_eq!(code_for(&server, &ada, &fragments).await, 1003);
}

#[tokio::test]
async fn a_protocol_violation_is_1002() {
    const RESERVED_BITS: [u8; 3] = [0x40, 0x20, 0x10];
    let (server, ada) = server_with_ada().await;
    for bit in RESERVED_BITS {
        assert_eq!(code_for(&server, &ada, &frame(FIN | bit | TEXT, b"{}")).await, 1002, "reserved bit {bit:#x}");
        assert_eq!(code_for(&server, &ada, &frame(FIN | bit | PING, b"")).await, 1002, "reserved bit {bit:#x}");
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        assert_eq!(code_for(&server, &ada, &frame(FIN | opcode, b"")).await, 1002, "reserved opcode {opcode:#x}");
    }
    assert_eq!(code_for(&server, &ada, &unmasked(FIN | TEXT, b"{}")).await, 1002, "no mask");
    assert_eq!(code_for(&server, &ada, &frame(PING, b"half a")).await, 1002, "a fragmented control frame");
    assert_eq!(code_for(&server, &ada, &frame(FIN | PING, &[0; 126])).await, 1002, "a long control frame");
    assert_eq!(code_for(&server, &ada, &frame(FIN | CONTINUATION, b"{}")).await, 1002, "the continuation of nothing");
    let interrupted = [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat();
    assert_eq!(code_for(&server, &ada, &interrupted).await, 1002, "a new message inside another");
}

#[tokio::test]
async fn a_close_that_breaks_the_rules_is_1002_or_1007() {
    let (server, ada) = server_with_ada().await;
    for (payload, what) in [
        (&[3][..], "half a code"),
        (&999u16.to_be_bytes(), "a code below 1000"),
        (&1005u16.to_be_bytes(), "a code that is never sent"),
        (&1006u16.to_be_bytes(), "another"),
        (&2000u16.to_be_bytes(), "a code nobody registered"),
    ] {
        assert_eq!(code_for(&server, &ada, &frame(FIN | CLOSE, payload)).await, 1002, "{what}");
    }
    let crooked_reason = [&1000u16.to_be_bytes()[..], b"\xff"].concat();
    let code = code_for(&server, &ada, &frame(FIN | CLOSE, &crooked_reason)).await;
    assert!(matches!(code, 1002 | 1007), "a reason that is not text: {code}");
}

#[tokio::test]
async fn a_close_is_answered_in_kind_and_the_server_hangs_up() {
    let (server, ada) = server_with_ada().await;
    for payload in [
        &b""[..],
        &1000u16.to_be_bytes(),
        &[&1001u16.to_be_bytes()[..], b"off to bed"].concat(),
        &4000u16.to_be_bytes(),
    ] {
        let mut raw = RawClient::authenticated(&server, &ada).await;
        raw.send(&frame(FIN | CLOSE, payload)).await;
        let answer = loop {
            let answer = raw.frame().await;
            if answer.first == FIN | CLOSE {
                break answer;
            }
        };
        let echoed = payload.len().min(2);
        assert_eq!(answer.payload.get(..echoed), Some(&payload[..echoed]), "RFC 6455, 5.5.1");
        assert!(raw.end().await.is_empty(), "nothing after a close");
    }
}

#[tokio::test]
async fn nothing_said_after_a_close_is_heard() {
    let (server, ada) = server_with_ada().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    let after = frame(FIN | TEXT, br#"{"type":"message","content":"one more thing"}"#);
    raw.send(&[frame(FIN | CLOSE, &1000u16.to_be_bytes()), after].concat()).await;
    assert_eq!(raw.close_code().await, 1000);
    raw.end().await;
    assert_eq!(server.history(&ada).await, []);
}

#[tokio::test]
async fn a_client_that_hangs_up_without_a_close_leaves() {
    let (server, ada) = server_with_ada().await;
    let mut bob = Client::register(&server, "bob").await.connect().await.settled().await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    bob.told_of_join("ada").await;
    raw.finish_sending().await;
    // Half-open is gone,
    bob.told_of_leave("ada").await;
    raw.end().await;
    let again = RawClient::authenticated(&server, &ada).await;
    bob.told_of_join("ada").await;
    again.reset();
    // and so is a reset.
    bob.told_of_leave("ada").await;
}

#[tokio::test]
async fn crooked_frames_end_a_connection_before_auth_too() {
    let server = TestServer::start();
    for (bytes, code) in [
        (frame(FIN | BINARY, b"{}"), 1003),
        (frame(FIN | TEXT, b"\xff"), 1007),
        (header(FIN | TEXT, LIMIT as u64 + 1), 1009),
        (unmasked(FIN | TEXT, b"{}"), 1002),
    ] {
        let mut raw = RawClient::connect(&server).await;
        raw.upgrade().await;
        raw.send(&bytes).await;
        assert_eq!(raw.close_code().await, code);
        raw.end().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_a_close_gives_up_its_place_all_the_same() {
    let server = TestServer::with(&["--max-connections", "2"]);
    let mut rude = [RawClient::connect(&server).await, RawClient::connect(&server).await];
    let begun = Instant::now();
    for raw in &mut rude {
        raw.upgrade().await;
        raw.send(&unmasked(FIN | TEXT, b"{}")).await;
        assert_eq!(raw.close_code().await, 1002);
    }
    let is_full = Connection::try_open(&server).await.is_none();
    // For two seconds, which may be over on a busy machine.
    assert!(is_full || begun.elapsed() >= Duration::from_secs(2), "for a moment an answer is waited for");
    within("a free place", async { while Connection::try_open(&server).await.is_none() {} }).await;
    drop(rude);
}

// Shutdown

#[tokio::test]
async fn a_stop_closes_every_socket_with_1001_and_exits_0() {
    let (mut server, ada) = server_with_ada().await;
    let mut authenticated = Vec::new();
    for _ in 0..20 {
        authenticated.push(ada.connect().await);
    }
    let mut waiting = Connection::open(&server).await;
    let codes = tokio::spawn(async move {
        let mut codes = vec![waiting.close_code().await];
        for connection in &mut authenticated {
            codes.push(connection.close_code().await);
        }
        codes
    });
    let started = Instant::now();
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(started.elapsed() < STOP, "{:?}", started.elapsed());
    assert_eq!(codes.await.expect("no panic"), [1001; 21]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_those_who_do_not_answer() {
    let (mut server, ada) = server_with_ada().await;
    let mut deaf = RawClient::authenticated(&server, &ada).await;
    let mut half_sent = RawClient::connect(&server).await;
    half_sent.send(b"GET /messages HTTP/1.1\r\nHost: ").await;
    let mut idle = RawClient::connect(&server).await;
    idle.send(&server.get("/healthz").bytes()).await;
    idle.response().await;
    let started = Instant::now();
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(started.elapsed() < STOP, "{:?}", started.elapsed());
    assert_eq!(deaf.close_code().await, 1001);
    within("the ends", async { (idle.end().await, half_sent.end().await) }).await;
}

#[tokio::test]
async fn a_request_that_was_half_sent_when_the_server_stops_is_unavailable() {
    let (mut server, ada) = server_with_ada().await;
    let health = server.get("/healthz").bytes();
    let upgrade = format!("{HANDSHAKE}Host: {}\r\n\r\n", server.address()).into_bytes();
    let mut connection = ada.connect().await;
    let mut begun = Vec::new();
    for request in [health, upgrade] {
        let (most, rest) = request.split_at(request.len() - 2);
        let mut raw = RawClient::connect(&server).await;
        raw.send(most).await;
        raw.heard().await;
        begun.push((raw, rest.to_vec()));
    }
    server.signal(Signal::TERM);
    assert_eq!(connection.close_code().await, 1001);
    for (mut raw, rest) in begun {
        raw.send(&rest).await;
        let response = raw.response().await;
        assert_eq!(response.error(), (503, "unavailable".to_owned()));
        assert!(response.header("Retry-After").is_some(), "{response:?}");
        assert!(raw.end().await.is_empty());
    }
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_while_it_still_waits() {
    let (mut server, ada) = server_with_ada().await;
    let mut half_sent = RawClient::connect(&server).await;
    half_sent.send(b"GET /messages HTTP/1.1\r\nHost: ").await;
    half_sent.heard().await;
    let mut deaf = RawClient::authenticated(&server, &ada).await;
    let begun = Instant::now();
    server.signal(Signal::TERM);
    // From here on the server waits, for seconds, for an answer to its close and for a request: neither comes.
    assert_eq!(deaf.close_code().await, 1001);
    server.signal(Signal::TERM);
    let waited = begun.elapsed();
    // Of the 3.5 seconds that it waits, little may be left on a busy machine.
    let code = server.ended().await.code();
    assert!(code == Some(1) || waited > Duration::from_secs(3), "{code:?}: a stop that waits it out ends with 0");
    assert!(deaf.end().await.is_empty());
}

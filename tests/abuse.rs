//! What a hostile client gets, and that nobody else notices.

mod common;

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    CLOSE, CONTINUATION, Client, Connection, FIN, HANDSHAKE, PING, PONG, RawClient, Request, TEXT, TestServer, frame,
    text, wait_while, within,
};
use serde_json::json;

/// A client that says `first` and then nothing but `again`, without ever reading, as fast as it can, until the server
/// hangs up or the value is dropped.
struct Flood {
    stream: TcpStream,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    fn start(server: &TestServer, client: Option<&Client>, first: Vec<u8>, again: &[u8]) -> Flood {
        let stream = TcpStream::connect(server.address()).expect("the server accepts");
        let mut sender = stream.try_clone().expect("a second handle");
        let mut opening = format!("{HANDSHAKE}Host: {}\r\n\r\n", server.address()).into_bytes();
        if let Some(client) = client {
            let auth = json!({"type": "auth", "token": client.token}).to_string();
            opening.extend(frame(FIN | TEXT, auth.as_bytes()));
        }
        opening.extend(first);
        let many = again.repeat(10_000);
        let thread = thread::spawn(move || {
            let mut sent = sender.write_all(&opening);
            while sent.is_ok() {
                sent = sender.write_all(&many);
            }
        });
        Flood { stream, thread: Some(thread) }
    }

    /// Resolves when the server has hung up.
    async fn refused(mut self) {
        let thread = self.thread.take().expect("it is taken once");
        let ended = tokio::task::spawn_blocking(move || thread.join());
        within("the flood to be cut off", ended).await.expect("no panic").expect("no panic");
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // Fails if the server has hung up, which is as good.
        self.stream.shutdown(Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Endless frames of which none is ever a message: pings, and one message in ever more fragments.
fn endless() -> [(Vec<u8>, Vec<u8>); 2] {
    [(Vec::new(), frame(FIN | PING, b"")), (frame(TEXT, b""), frame(CONTINUATION, b""))]
}

#[tokio::test]
async fn a_stranger_who_floods_is_cut_off() {
    let server = TestServer::start();
    for (first, again) in endless() {
        Flood::start(&server, None, first.clone(), &again).refused().await;

        let mut raw = RawClient::connect(&server).await;
        raw.upgrade().await;
        raw.try_send(&[first, again.repeat(30_000)].concat()).await;
        assert_eq!(raw.close_code().await, 1008);
    }
}

#[tokio::test]
async fn of_a_stranger_no_more_than_an_auth_frame_is_held() {
    let server = TestServer::start();
    for (first, length) in [(FIN | TEXT, 5_000), (TEXT, 3_000)] {
        let mut raw = RawClient::connect(&server).await;
        raw.upgrade().await;
        raw.send(&frame(first, &vec![b'x'; length])).await;
        raw.try_send(&frame(CONTINUATION, &vec![b'x'; length])).await;
        assert_eq!(raw.close_code().await, 1009, "{length} bytes");
    }
    let ada = Client::register(&server, "ada").await;
    let mut member = RawClient::connect(&server).await;
    member.upgrade().await;
    let auth = json!({"type": "auth", "token": ada.token}).to_string();
    let message = json!({"type": "message", "nonce": "n", "content": "x", "ignored": "x".repeat(60_000)}).to_string();
    member.send(&[frame(FIN | TEXT, auth.as_bytes()), frame(FIN | TEXT, message.as_bytes())].concat()).await;
    member.next_of("ack").await;
}

#[tokio::test]
async fn a_member_who_floods_is_cut_off() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let ada = Client::register(&server, "ada").await;
    for (first, again) in endless() {
        Flood::start(&server, Some(&ada), first, &again).refused().await;
    }
}

#[tokio::test]
async fn a_flood_that_is_allowed_holds_up_nobody() {
    let server = TestServer::with(&["--message-rate", "0"]);
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await;
    let floods = endless().map(|(first, again)| Flood::start(&server, Some(&ada), first, &again));
    for number in 0..20 {
        bob.store(&number.to_string(), "still here").await;
        assert_eq!(server.get("/healthz").send().await.status, 200);
    }
    drop(floods);
}

#[tokio::test]
async fn a_user_who_comes_and_goes_over_and_over_is_told_to_wait() {
    let server = TestServer::with(&["--user-connections", "64"]);
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await;
    let auth = json!({"type": "auth", "token": ada.token});
    // One may come five times a second without end: only a machine that takes longer for each would never refuse.
    let mut entered = 0;
    let refused = loop {
        let mut connection = Connection::open(&server).await;
        connection.send(&auth).await;
        match connection.receive().await {
            Ok(welcome) => assert_eq!(text(&welcome["type"]), "auth_success"),
            Err(code) => break code,
        }
        entered += 1;
        assert!(entered < 2_000, "nobody is refused");
        connection.reset();
    };
    assert!(entered >= 64, "all of a user's tabs may come back at once, not only {entered}");
    assert_eq!(refused, Some(1013));
    bob.store("n", "others come and go").await;
}

#[tokio::test]
async fn who_comes_and_goes_without_end_does_not_fill_the_log() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let begun = Instant::now();
    for _ in 0..500 {
        ada.connect().await.reset();
    }
    server.stop().await;
    // 200 lines at once, and five more a second.
    let most = 200 + 5 * (begun.elapsed().as_secs() + 1);
    let lines = server.log().lines().filter(|line| line.contains("connected")).count() as u64;
    assert!((200..=most).contains(&lines), "{lines} lines for 1,000 comings and goings");
}

// HTTP

#[tokio::test]
async fn what_no_router_sees_is_answered_as_the_contract_says_too() {
    let server = TestServer::start();
    let many_headers = "X-Many: x\r\n".repeat(500);
    let large_header = format!("X-Large: {}\r\n", "x".repeat(32 << 10));
    for (status, head) in [
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{many_headers}\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{large_header}\r\n")),
        (431, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000))),
        (400, "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX-Long: one\r\n two\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n".to_owned()),
    ] {
        let mut raw = RawClient::connect(&server).await;
        raw.try_send(head.as_bytes()).await;
        let response = raw.response().await;
        assert_eq!(response.error(), (status, "invalid_request".to_owned()), "{head}");
        assert_eq!(response.header("Connection"), Some("close"));
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
        raw.end().await;
    }
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let server = TestServer::start();
    for (status, head) in [
        (400, "GET /healthz HTTP/1.1\r\n\r\n"),
        (400, "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET /healthz HTTP/1.1\r\nHost: ada@a\r\n\r\n"),
        (200, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, "GET /healthz HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"),
        (200, "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n"),
        (200, "GET /healthz HTTP/1.0\r\n\r\n"),
    ] {
        let mut raw = RawClient::connect(&server).await;
        raw.send(head.as_bytes()).await;
        assert_eq!(raw.response().await.status, status, "{head}");
    }
}

#[tokio::test]
async fn a_client_that_is_turned_away_is_told_so_with_every_header() {
    let server = TestServer::with(&["--address-connections", "1"]);
    let mut first = RawClient::connect(&server).await;
    first.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.response().await;
    let response = Request::new(server.address(), "GET", "/healthz").send().await;
    assert_eq!(response.error(), (503, "unavailable".to_owned()));
    assert!(response.header("Retry-After").is_some());
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
}

/// Answers that are never read fill the socket's buffers and then wait, which ends after ten seconds.
#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_dropped() {
    let server = TestServer::start();
    let stream = TcpStream::connect(server.address()).expect("the server accepts");
    let mut sender = stream.try_clone().expect("a second handle");
    let many = server.get("/app.js").bytes().repeat(1_000);
    let ended = tokio::task::spawn_blocking(move || while sender.write_all(&many).is_ok() {});
    within("the connection to be dropped", ended).await.expect("no panic");
    drop(stream);
    assert_eq!(server.get("/healthz").send().await.status, 200);
}

#[tokio::test]
async fn what_only_looks_like_an_upgrade_is_none() {
    let server = TestServer::start();
    let good = format!("{HANDSHAKE}Host: a\r\n");
    let rest = good.split_once("GET /ws HTTP/1.1\r\n").expect("it begins so").1;
    for (status, bytes) in [
        (426, format!("HEAD /ws HTTP/1.1\r\n{rest}\r\n")),
        (426, format!("GET /ws HTTP/1.0\r\n{rest}\r\n")),
        (426, format!("{good}Sec-WebSocket-Version: 8\r\n\r\n")),
        (400, format!("{good}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")),
        (400, format!("{good}Content-Length: 5\r\n\r\nhello")),
        (400, format!("{good}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        (403, format!("{good}Origin: http://a\r\nOrigin: http://other.example\r\n\r\n")),
        (403, format!("{good}Origin: null\r\n\r\n")),
        (403, format!("{HANDSHAKE}Host:\r\nOrigin: file://\r\n\r\n")),
    ] {
        let mut raw = RawClient::connect(&server).await;
        raw.send(bytes.as_bytes()).await;
        assert_eq!(raw.response_head().await.status, status, "{bytes}");
    }
}

#[tokio::test]
async fn a_message_that_is_not_whole_ten_seconds_after_its_first_byte_is_1008_however_it_dribbles() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    raw.send(&frame(TEXT, &vec![b'x'; 60_000])).await;
    let dribble = async {
        // Never silent for long, and never whole.
        while raw.try_send(&frame(FIN | PING, b"")).await {
            match tokio::time::timeout(Duration::from_secs(1), raw.close_code()).await {
                Ok(code) => return code,
                Err(_) => raw.try_send(&frame(CONTINUATION, b"x")).await,
            };
        }
        raw.close_code().await
    };
    assert_eq!(within("the server to close", dribble).await, 1008);
    let mut again = ada.connect().await;
    again.store("n", "a message in time").await;
}

#[tokio::test]
async fn a_message_must_be_whole_in_time_while_its_sender_reads_nothing_too() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    bob.connect().await.store_all("n", &vec!["\u{1f642}".repeat(3_500); 100]).await;
    let mut raw = RawClient::far_away(&server).await;
    raw.upgrade().await;
    let auth = json!({"type": "auth", "token": ada.token, "last_id": 0}).to_string();
    // What was missed is 1.4 MB, which is not taken: the server waits to write, and reads no further.
    raw.send(&[frame(FIN | TEXT, auth.as_bytes()), frame(TEXT, b"begun")].concat()).await;
    let line = server.logged("disconnected user=ada").await;
    assert!(line.contains("a message took too long to arrive") && line.contains("code=1008"), "{line}");
}

#[tokio::test]
async fn unfinished_messages_of_one_user_take_a_bounded_number_of_bytes() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let begun = frame(TEXT, &vec![b'x'; 60_000]);
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut raw = RawClient::authenticated(&server, &ada).await;
        raw.send(&begun).await;
        // Its pong says that all before it was read.
        raw.send(&frame(FIN | PING, b"read")).await;
        while raw.frame().await.payload != b"read" {}
        held.push(raw);
    }
    let mut over = RawClient::authenticated(&server, &ada).await;
    over.send(&begun).await;
    assert_eq!(over.close_code().await, 1013);
    bob.connect().await.store("n", "somebody else has room").await;
    let first = held.pop().expect("four are held");
    drop(first);
    let mut one_more = held.pop().expect("three are held");
    let end = b"";
    one_more.send(&frame(FIN | CONTINUATION, end)).await;
    let refused = one_more.next_of("error").await;
    assert_eq!(refused["code"], "invalid_json", "the others go on: {refused}");
}

/// 20 MB were they all kept, and twice that in the parser.
#[tokio::test]
async fn unfinished_messages_of_many_users_take_little_memory_and_give_it_back() {
    const USERS: usize = 75;
    const MEMORY: u64 = 16 << 20;
    let server = TestServer::start();
    let people = server.seed_people(USERS).await;
    let mut sockets = Vec::new();
    for person in &people {
        for _ in 0..4 {
            sockets.push(RawClient::authenticated(&server, person).await);
        }
    }
    let before = server.resident_bytes();
    let begun = [frame(TEXT, &vec![b'x'; 64_000]), frame(FIN | PING, b"")].concat();
    let mut over = 0;
    for socket in &mut sockets {
        socket.send(&begun).await;
        // A second pong says that it is held, a close that there is no room for it.
        let mut pongs = 0;
        while pongs < 2 {
            match socket.frame().await.first & !FIN {
                CLOSE => break,
                PONG => {
                    pongs += 1;
                    socket.try_send(&frame(FIN | PING, b"")).await;
                }
                _ => {}
            }
        }
        over += usize::from(pongs < 2);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(over > 0 && grown < MEMORY, "{grown} bytes, {over} closed");
    drop(sockets);
    wait_while("its memory to come back", async || server.resident_bytes().saturating_sub(before) > MEMORY).await;
    people[0].connect().await.store("n", "and goes on").await;
}

#[tokio::test]
async fn five_seconds_after_a_burst_of_unfinished_messages_its_memory_is_back() {
    const MEMORY: u64 = 16 << 20;
    let server = TestServer::with(&["--user-connections", "64"]);
    let people = server.seed_people(10).await;
    let before = server.resident_bytes();
    let mut sockets = Vec::new();
    for person in &people {
        for _ in 0..64 {
            sockets.push(RawClient::authenticated(&server, person).await);
        }
    }
    let mut begun = frame(TEXT, &vec![b'x'; 65_000]);
    begun.extend(&frame(CONTINUATION, &vec![b'x'; 65_000])[..32_000]);
    for socket in &mut sockets {
        socket.try_send(&begun).await;
    }
    for socket in &mut sockets {
        let code = socket.close_code().await;
        assert!([1008, 1013].contains(&code), "{code}: it took too long, or too much");
    }
    let grown = || server.resident_bytes().saturating_sub(before);
    let back = wait_while("its memory to come back", async || grown() > MEMORY);
    let is_back = tokio::time::timeout(Duration::from_secs(5), back).await;
    assert!(is_back.is_ok(), "{} bytes are not back", grown());
}

#[tokio::test]
async fn a_name_of_the_internet_that_leads_here_reaches_nothing_unless_the_operator_gave_it() {
    let server = TestServer::with(&["--host", "chat.example", "--public-url", "https://talk.example:8443/chat/"]);
    let port = server.address().port();
    let ask = async |host: String| {
        let mut raw = RawClient::connect(&server).await;
        raw.send(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        raw.response().await.status
    };
    for ours in [
        "192.168.1.9",
        "[fe80::1]",
        "localhost",
        "raspberry",
        "pi.local",
        "pi.lan",
        "pi.home.arpa",
        "CHAT.example.",
        "talk.example",
    ] {
        assert_eq!(ask(format!("{ours}:{port}")).await, 200, "{ours}");
    }
    for other in ["evil.example", "chat.example.evil.example", "192.168.1.9.evil.example", "evil.local.example"] {
        assert_eq!(ask(format!("{other}:{port}")).await, 421, "{other}");
    }
    assert_eq!(ask("192.168.1.9:port".into()).await, 421, "no port, so no address");
    let mut page = RawClient::connect(&server).await;
    page.send(format!("{HANDSHAKE}Host: evil.example\r\nOrigin: http://evil.example\r\n\r\n").as_bytes()).await;
    assert_eq!(page.response().await.status, 421);
    assert!(server.logged("evil.example").await.contains("--host"), "the operator is told which flag");
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_and_the_log_says_what_may_be_the_matter() {
    let server = TestServer::start();
    let mut page = RawClient::connect(&server).await;
    page.send(format!("{HANDSHAKE}Host: 127.0.0.1:8080\r\nOrigin: https://chat.example\r\n\r\n").as_bytes()).await;
    assert_eq!(page.response().await.error(), (403, "forbidden_origin".to_owned()));
    let line = server.logged("https://chat.example").await;
    assert!(line.contains("host=127.0.0.1:8080") && line.contains("--allow-origin"), "{line}");
}

#[tokio::test]
async fn a_trusted_proxy_answers_for_the_hosts_that_it_forwards() {
    for (trusted, status) in [("127.0.0.1", 200), ("192.0.2.1", 421)] {
        let server = TestServer::with(&["--trusted-proxy", trusted]);
        let mut proxy = RawClient::connect(&server).await;
        proxy.send(b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n").await;
        assert_eq!(proxy.response().await.status, status, "{trusted}");
    }
}

//! Sessions: how a socket proves whose it is, how a session ends, and what is kept of secrets.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::{
    CLOSE, Client, Connection, FIN, HANDSHAKE, PASSWORD, PING, PONG, RawClient, TEXT, TestServer, chinwag, frame, int,
    text, unix_millis, within,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Sends `first` as the first frame and returns the code of the `auth_failed`, after which the server closes with 1008.
async fn refusal(server: &TestServer, first: &str) -> String {
    let mut connection = Connection::open(server).await;
    connection.send_text(first).await;
    let failed = connection.expect("auth_failed").await;
    assert!(!text(&failed["message"]).is_empty(), "people are told why: {failed}");
    assert_eq!(connection.close_code().await, 1008, "{first}");
    text(&failed["code"]).to_owned()
}

// The first frame

#[tokio::test]
async fn auth_success_tells_who_where_and_with_whom() {
    let server = TestServer::start();
    let ada = Client::register(&server, "Ada").await;
    let id = ada.connect().await.store("n", "hello").await;
    let zoe = Client::register(&server, "zoe").await;
    let bob = Client::register(&server, "bob").await;
    let _zoe = zoe.connect().await;
    let _bob = bob.connect().await;
    let connection = ada.connect().await;
    let welcome = &connection.welcome;
    assert_eq!(welcome["username"], "Ada");
    assert_eq!(welcome["last_id"], id);
    assert!(!text(&welcome["epoch"]).is_empty());
    assert!(int(&welcome["online"]) >= 3, "a user who joins is counted: {welcome}");
    let users: Vec<&str> = welcome["users"].as_array().expect("a list").iter().map(text).collect();
    for name in ["Ada", "bob", "zoe"] {
        assert!(users.contains(&name), "{users:?}");
    }
    assert!(users.is_sorted_by_key(|name| name.to_lowercase()) || users.is_sorted(), "{users:?}");
}

#[tokio::test]
async fn the_history_of_an_empty_room_ends_at_0() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    assert_eq!(ada.connect().await.welcome["last_id"], 0);
}

#[tokio::test]
async fn the_epoch_is_everyones_and_outlives_a_restart() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let epoch = ada.connect().await.welcome["epoch"].clone();
    assert_eq!(bob.connect().await.welcome["epoch"], epoch);
    server.stop().await;
    server.restart();
    assert_eq!(ada.connect().await.welcome["epoch"], epoch);
    let other = TestServer::start();
    let eve = Client::register(&other, "eve").await;
    assert_ne!(eve.connect().await.welcome["epoch"], epoch, "another database is another history");
}

#[tokio::test]
async fn a_token_that_is_none_is_unauthorized() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    ada.logout().await;
    let reversed: String = ada.token.chars().rev().collect();
    for token in ["", "nonsense", &ada.token, &reversed, &"x".repeat(1000), "\u{1f511}"] {
        let auth = json!({"type": "auth", "token": token}).to_string();
        assert_eq!(refusal(&server, &auth).await, "unauthorized", "{token:?}");
    }
}

#[tokio::test]
async fn a_first_frame_that_is_no_auth_object_is_invalid_json() {
    let server = TestServer::start();
    let bodies = [
        "",
        "null",
        "[]",
        "{",
        "{}",
        "auth",
        r#"{"type":"auth"}"#,
        r#"{"type":"auth","token":7}"#,
        r#"{"type":"auth","token":null}"#,
        r#"{"type":"auth","token":"x","last_id":"7"}"#,
        r#"{"type":"auth","token":"x","last_id":-1}"#,
        r#"{"type":"auth","token":"x","epoch":7}"#,
        r#"{"type":7,"token":"x"}"#,
        r#"{"token":"x"}"#,
        r#"["auth","x"]"#,
    ];
    for body in bodies {
        assert_eq!(refusal(&server, body).await, "invalid_json", "{body}");
    }
}

#[tokio::test]
async fn a_first_frame_of_another_type_is_unauthorized_and_not_heard() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for early in [r#"{"type":"message","content":"let me in"}"#, r#"{"type":"typing"}"#, r#"{"type":"ping"}"#] {
        assert_eq!(refusal(&server, early).await, "unauthorized", "{early}");
    }
    assert_eq!(server.history(&ada).await, []);
}

#[tokio::test]
async fn a_client_that_does_not_authenticate_within_10_s_is_sent_away() {
    let server = TestServer::start();
    let started = Instant::now();
    let mut silent = Connection::open(&server).await;
    let mut pinging = RawClient::connect(&server).await;
    pinging.upgrade().await;
    // Protocol pings are answered, and buy no time.
    let pinging = tokio::spawn(async move {
        loop {
            pinging.send(&frame(FIN | PING, b"")).await;
            let answer = pinging.frame().await;
            if answer.first != FIN | PONG {
                assert_eq!(pinging.close_code().await, 1008);
                let failed: Value = serde_json::from_slice(&answer.payload).expect("text frames are JSON");
                return (failed, started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let failed = (silent.expect("auth_failed").await, started.elapsed());
    assert_eq!(silent.close_code().await, 1008);
    for (failed, took) in [failed, pinging.await.expect("no panic")] {
        assert_eq!(failed["code"], "auth_timeout");
        assert!((10..20).contains(&took.as_secs()), "{took:?}");
    }
}

#[tokio::test]
async fn before_auth_64_pings_are_answered_and_no_more() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    raw.upgrade().await;
    for _ in 0..64 {
        raw.send(&frame(FIN | PING, b"")).await;
        assert_eq!(raw.frame().await.first, FIN | PONG);
    }
    raw.send(&frame(FIN | PING, b"")).await;
    let end = raw.frame().await;
    assert_eq!((end.first, &end.payload[..2]), (FIN | CLOSE, &1008_u16.to_be_bytes()[..]));
}

#[tokio::test]
async fn auth_may_come_in_the_packet_of_the_upgrade() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut raw = RawClient::connect(&server).await;
    let mut packet = format!("{HANDSHAKE}Host: chinwag\r\n\r\n").into_bytes();
    packet.extend(frame(FIN | TEXT, json!({"type": "auth", "token": ada.token}).to_string().as_bytes()));
    packet.extend(frame(FIN | TEXT, br#"{"type":"message","content":"in a hurry","nonce":"1"}"#));
    raw.send(&packet).await;
    assert_eq!(raw.response_head().await.status, 101);
    assert_eq!(raw.json().await["type"], "auth_success");
    assert_eq!(raw.next_of("ack").await["nonce"], "1");
}

#[tokio::test]
async fn unknown_fields_of_auth_are_ignored() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    ada.connect_with(json!({"client": "telnet", "version": [1, 2]})).await;
}

#[tokio::test]
async fn a_second_auth_is_refused_and_changes_nothing() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let mut connection = ada.connect().await;
    connection.send(&json!({"type": "auth", "token": bob.token})).await;
    let error = connection.next_of("error").await;
    assert!(["invalid_json", "invalid_message"].contains(&text(&error["code"])), "{error}");
    connection.say("still me").await;
    assert_eq!(connection.message().await.username, "ada");
}

// The upgrade

#[tokio::test]
async fn the_upgrade_proves_that_the_key_was_read() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    raw.send(format!("{HANDSHAKE}Host: chinwag\r\n\r\n").as_bytes()).await;
    let response = raw.response_head().await;
    assert_eq!(response.status, 101);
    // The example of RFC 6455, section 1.3.
    assert_eq!(response.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(response.header("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
    assert!(response.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
}

#[tokio::test]
async fn extensions_and_subprotocols_are_not_taken_up() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    raw.send(
        format!(
            "{HANDSHAKE}Host: chinwag\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        )
        .as_bytes(),
    )
    .await;
    let response = raw.response_head().await;
    assert_eq!(response.status, 101);
    assert_eq!(response.header("Sec-WebSocket-Extensions"), None);
    assert_eq!(response.header("Sec-WebSocket-Protocol"), None);
}

#[tokio::test]
async fn an_upgrade_is_known_by_tokens_in_any_case() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    let handshake = HANDSHAKE
        .replace("Connection: Upgrade", "Connection: keep-alive, UPGRADE")
        .replace("Upgrade: websocket", "Upgrade: WebSocket");
    raw.send(format!("{handshake}Host: chinwag\r\n\r\n").as_bytes()).await;
    assert_eq!(raw.response_head().await.status, 101);
}

#[tokio::test]
async fn a_crooked_upgrade_is_refused() {
    let server = TestServer::start();
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (status, what, handshake) in [
        (400, "no key", HANDSHAKE.replace(key, "")),
        (400, "a short key", HANDSHAKE.replace(key, "Sec-WebSocket-Key: c2hvcnQ=\r\n")),
        (400, "two keys", HANDSHAKE.replace(key, &format!("{key}{key}"))),
        (426, "another version", HANDSHAKE.replace("Version: 13", "Version: 8")),
        (426, "no version", HANDSHAKE.replace("Sec-WebSocket-Version: 13\r\n", "")),
        (426, "another protocol", HANDSHAKE.replace("Upgrade: websocket", "Upgrade: h2c")),
        (426, "no connection header", HANDSHAKE.replace("Connection: Upgrade\r\n", "")),
        (405, "a POST", HANDSHAKE.replace("GET", "POST")),
    ] {
        let mut raw = RawClient::connect(&server).await;
        raw.send(format!("{handshake}Host: chinwag\r\n\r\n").as_bytes()).await;
        let response = raw.response().await;
        assert_eq!(response.error().0, status, "{what}");
        if what == "another version" {
            assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"), "RFC 6455, 4.2.2");
        }
    }
}

#[tokio::test]
async fn another_sites_page_may_not_open_a_socket() {
    let server = TestServer::with(&["--allow-origin", "https://friend.example"]);
    let host = server.address();
    for (origin, status) in [
        ("https://evil.example".to_owned(), 403),
        ("null".to_owned(), 403),
        (format!("http://{host}.evil.example"), 403),
        (format!("http://{host}"), 101),
        (format!("https://{host}"), 101),
        ("https://friend.example".to_owned(), 101),
    ] {
        let mut raw = RawClient::connect(&server).await;
        raw.send(format!("{HANDSHAKE}Host: {host}\r\nOrigin: {origin}\r\n\r\n").as_bytes()).await;
        let mut response = raw.response_head().await;
        assert_eq!(response.status, status, "{origin}");
        if status == 403 {
            raw = RawClient::connect(&server).await;
            raw.send(format!("{HANDSHAKE}Host: {host}\r\nOrigin: {origin}\r\n\r\n").as_bytes()).await;
            response = raw.response().await;
            assert_eq!(response.error(), (403, "forbidden_origin".to_owned()));
        }
    }
}

// The end of a session

#[tokio::test]
async fn logout_closes_the_sessions_sockets_and_no_others() {
    let server = TestServer::start();
    let here = Client::register(&server, "ada").await;
    let there = Client::login(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let mut tabs = [here.connect().await, here.connect().await];
    let mut elsewhere = there.connect().await;
    let mut other = bob.connect().await;
    here.logout().await;
    for tab in &mut tabs {
        assert_eq!(tab.close_code().await, 1008, "a revoked session");
    }
    elsewhere.say("I am still here").await;
    assert_eq!(other.message().await.username, "ada");
    assert_eq!(elsewhere.message().await.content, "I am still here");
}

#[tokio::test]
async fn logout_closes_a_socket_that_is_not_read() {
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let bob = Client::register(&server, "bob").await;
    let stopped = bob.far_away().connect().await;
    // Far more than the kernel takes for him: his task waits for the socket by now.
    ada.store_all("n", &vec!["\u{1f642}".repeat(3_500); 400]).await;
    bob.logout().await;
    // A socket that takes nothing is given up after half a minute: this is sooner.
    let left = tokio::time::timeout(Duration::from_secs(25), ada.told_of_leave("bob")).await;
    left.expect("bob leaves at once");
    drop(stopped);
}

#[tokio::test]
async fn a_logout_whose_client_hangs_up_at_once_closes_the_sockets_all_the_same() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    for _ in 0..10 {
        let session = Client::login(&server, "ada").await;
        let mut connection = session.connect().await;
        let mut hasty = RawClient::connect(&server).await;
        hasty.send(&server.post("/logout").by(&session).bytes()).await;
        drop(hasty);
        // Whether the request was still heard is open: what must not be is a dead token with a live socket.
        let page = server.get("/messages").by(&session).send().await;
        if page.status == 200 {
            server.post("/logout").by(&session).send().await;
        }
        assert_eq!(connection.close_code().await, 1008);
    }
}

#[tokio::test]
async fn what_a_socket_sent_after_its_logout_is_not_stored() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    for _ in 0..10 {
        let session = Client::login(&server, "ada").await;
        let mut connection = session.connect().await;
        session.logout().await;
        // It may be gone already, which is the point.
        connection.try_send(r#"{"type":"message","content":"too late"}"#).await;
        assert_eq!(connection.close_code().await, 1008);
    }
    assert_eq!(server.history(&bob).await, []);
    ada.page("limit=1").await;
}

#[tokio::test]
async fn a_session_dies_after_30_days_without_use() {
    let server = TestServer::start();
    let people = server.seed_people(2).await;
    let used = |client: &Client, days: i64| {
        let changed = server
            .database()
            .execute(
                "UPDATE sessions SET last_used_at = ?1, created_at = ?1 WHERE digest = ?2",
                (unix_millis() - days * DAY_MS, &Sha256::digest(&client.token)[..]),
            )
            .expect("an update");
        assert_eq!(changed, 1);
    };
    used(&people[0], 31);
    used(&people[1], 29);
    let dead = server.get("/messages").by(&people[0]).send().await;
    assert_eq!(dead.error(), (401, "unauthorized".to_owned()));
    let auth = json!({"type": "auth", "token": people[0].token}).to_string();
    assert_eq!(refusal(&server, &auth).await, "unauthorized");
    people[1].connect().await;
}

#[tokio::test]
async fn using_a_session_keeps_it_alive() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for by_request in [false, true] {
        let long_ago = unix_millis() - 29 * DAY_MS;
        let changed = server.database().execute("UPDATE sessions SET last_used_at = ?1", [long_ago]);
        assert_eq!(changed.expect("an update"), 1);
        if by_request {
            ada.page("limit=1").await;
        } else {
            ada.connect().await.close().await;
        }
        // What a server still means to write, it has written when it has stopped.
        server.stop().await;
        assert!(server.number("SELECT last_used_at FROM sessions") > long_ago + 28 * DAY_MS, "{by_request}");
        server.restart();
    }
}

#[tokio::test]
async fn sessions_outlive_a_restart() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    server.kill().await;
    server.restart();
    ada.page("limit=1").await;
    ada.connect().await;
}

// Secrets

#[tokio::test]
async fn a_login_that_cannot_succeed_costs_the_same_work_as_a_wrong_password() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    Client::register(&server, "dora").await;
    chinwag(&server.database_path(), &["user", "disable", "dora"]).ok();
    let names = ["ada", "eve", "no name at all!", "dora"];
    // The least that each took: what else a machine does at the time only adds to it.
    let mut cost = [Duration::MAX; 4];
    for round in 0..6 {
        for (name, cost) in names.iter().zip(&mut cost) {
            let before = server.cpu_time();
            for attempt in 0..3 {
                let account = json!({"username": name, "password": format!("guess {round} {attempt}")});
                assert_eq!(server.post("/login").json(&account).send().await.status, 401);
            }
            *cost = (*cost).min(server.cpu_time().saturating_sub(before));
        }
    }
    // The work is almost all argon2's; without it, a login costs a hundredth.
    let [known, others @ ..] = cost.map(|cost| cost.as_secs_f64());
    for (name, other) in names[1..].iter().zip(others) {
        assert!((0.6..1.7).contains(&(other / known)), "{known} s for a wrong password, {other} s for {name:?}");
    }
}

#[tokio::test]
async fn a_hundred_logins_at_once_are_answered_and_leave_no_memory_behind() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    let before = server.resident_bytes();
    let account = json!({"username": "ada", "password": PASSWORD});
    let logins: Vec<_> = (0..100).map(|_| tokio::spawn(server.post("/login").json(&account).send())).collect();
    let mut let_in = 0;
    for login in logins {
        let response = within("an answer to a login", login).await.expect("no panic");
        match response.status {
            200 => let_in += 1,
            503 => assert_eq!(response.error().1, "unavailable", "more than can wait are told to come again"),
            other => panic!("{other}"),
        }
    }
    assert!(let_in >= 50, "{let_in} of 100");
    // Each login takes 19 MiB while it is checked.
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
}

#[tokio::test]
async fn passwords_are_argon2id_at_the_recommended_cost_or_above() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    Client::register(&server, "bob").await;
    let database = server.database();
    let mut query = database.prepare("SELECT password_hash FROM users").expect("a table of users");
    let hashes = query.query_map([], |row| row.get::<_, String>(0)).expect("a query");
    let hashes: Vec<String> = hashes.collect::<Result<_, _>>().expect("text");
    assert_ne!(hashes[0], hashes[1], "the same password under two salts");
    for hash in hashes {
        let parameters = hash.strip_prefix("$argon2id$v=19$").expect("argon2id");
        let value = |name: &str| -> u32 {
            let list = parameters.split('$').next().expect("a split yields at least one part");
            let found = list.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            found.expect("a parameter").parse().expect("a number")
        };
        assert!(value("m") >= 19 * 1024 && value("t") >= 2 && value("p") >= 1, "{hash}");
    }
}

#[tokio::test]
async fn the_database_holds_a_digest_and_not_the_token() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store("n", "something to be found").await;
    server.stop().await;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(server.directory()).expect("the directory of the database") {
        files.extend(std::fs::read(entry.expect("a file").path()).expect("its content"));
    }
    let holds = |needle: &[u8]| files.windows(needle.len()).any(|bytes| bytes == needle);
    assert!(holds(b"something to be found"), "the search itself works");
    assert!(holds(&Sha256::digest(&ada.token)));
    assert!(!holds(ada.token.as_bytes()));
    assert!(!holds(PASSWORD.as_bytes()));
}

#[tokio::test]
async fn the_database_is_its_owners_alone() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    for entry in std::fs::read_dir(server.directory()).expect("the directory of the database") {
        let entry = entry.expect("a file");
        let mode = entry.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn the_log_holds_no_secret_and_no_word_of_the_conversation() {
    let mut server = TestServer::with_environment(&[], &[("RUST_LOG", "trace")]);
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    connection.store("n", "nobody else's business").await;
    connection.send_text("{broken: nobody else's business").await;
    assert_eq!(connection.next_of("error").await["code"], "invalid_json");
    let account = json!({"username": "ada", "password": "not her password"});
    server.post("/login").json(&account).send().await;
    let wrong = "f00dfeed".repeat(8);
    refusal(&server, &json!({"type": "auth", "token": wrong}).to_string()).await;
    ada.logout().await;
    assert_eq!(connection.close_code().await, 1008);
    server.stop().await;
    let log = server.log();
    assert!(!log.is_empty(), "an operator is told something");
    for secret in [PASSWORD, "not her password", &ada.token, &wrong, "nobody else's business"] {
        assert!(!log.contains(secret), "{secret:?} is in the log:\n{log}");
    }
}

#[tokio::test]
async fn tokens_are_not_guessable_from_one_another() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(Client::login(&server, "ada").await.token);
    }
    for (index, token) in tokens.iter().enumerate() {
        for other in &tokens[..index] {
            let same = token.bytes().zip(other.bytes()).filter(|(a, b)| a == b).count();
            assert!(same < token.len() / 2, "{token} and {other} share {same} places");
        }
    }
}

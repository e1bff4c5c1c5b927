//! Every rate, every bound on connections, and every deadline of what is only half there.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::{
    CONTINUATION, Client, Connection, PASSWORD, RawClient, Request, Response, TEXT, TestServer, chinwag, frame, int,
    text, wait_while, within,
};
use serde_json::json;

/// Upgrades and authenticates as `client`: the connection if it is let in, none if there is no place.
async fn enter(server: &TestServer, client: &Client) -> Option<Connection> {
    let mut connection = Connection::try_open(server).await?;
    if !connection.try_send(&json!({"type": "auth", "token": client.token}).to_string()).await {
        return None;
    }
    match connection.receive().await {
        Ok(welcome) => {
            assert_eq!(welcome["type"], "auth_success");
            Some(connection)
        }
        Err(code) => {
            assert_eq!(code, Some(1013), "who finds no place is told so");
            None
        }
    }
}

/// The same, once there is a place: one that was left is free a moment later.
async fn enter_soon(server: &TestServer, client: &Client) -> Connection {
    within("a free place", async {
        loop {
            if let Some(connection) = enter(server, client).await {
                return connection;
            }
        }
    })
    .await
}

// Rates

/// Sends `count` messages at once, with nonces that begin with `prefix`, and returns how many were stored, after
/// checking the refusals of the others, who may come again after `wait_ms` at most.
async fn stored_of(connection: &mut Connection, prefix: &str, count: u64, wait_ms: i64) -> u64 {
    for number in 0..count {
        connection.say_once(&format!("{prefix} {number}"), "hello").await;
    }
    let (mut stored, mut refused) = (0, 0);
    while stored + refused < count {
        let frame = connection.next().await;
        match text(&frame["type"]) {
            "ack" => stored += 1,
            "error" => {
                assert_eq!(frame["code"], "rate_limited");
                assert!((1..=wait_ms).contains(&int(&frame["retry_after"])), "{frame}");
                assert!(frame["nonce"].is_string(), "the page knows which one to send again: {frame}");
                refused += 1;
            }
            _ => {}
        }
    }
    stored
}

#[tokio::test]
async fn a_user_may_burst_three_seconds_worth_and_is_then_rate_limited() {
    let server = TestServer::with(&["--message-rate", "2"]);
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await;
    let started = Instant::now();
    let mut stored = stored_of(&mut ada.connect().await, "here", 20, 500).await;
    let mut other_tab = Client::login(&server, "ada").await.connect().await;
    stored += stored_of(&mut other_tab, "there", 20, 500).await;
    // Two a second came free meanwhile: the rate is the user's, not the connection's.
    let most = 6 + started.elapsed().as_millis() / 500;
    assert!((6..=most).contains(&u128::from(stored)), "{stored} in {:?}", started.elapsed());

    bob.say("I said nothing yet").await;
    while bob.message().await.username == "ada" {}
    assert_eq!(
        server.number("SELECT count(*) FROM messages WHERE content = 'hello'"),
        i64::try_from(stored).expect("few")
    );
}

#[tokio::test]
async fn waiting_as_long_as_told_is_enough() {
    let server = TestServer::with(&["--message-rate", "2"]);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let mut refused = 0;
    for number in 0..10 {
        let nonce = number.to_string();
        ada.say_once(&nonce, "hello").await;
        loop {
            let frame = ada.next().await;
            match text(&frame["type"]) {
                "ack" => break,
                "error" => {
                    refused += 1;
                    let wait = u64::try_from(int(&frame["retry_after"])).expect("a time to wait");
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    ada.say_once(&nonce, "hello").await;
                }
                _ => {}
            }
        }
    }
    assert!(refused <= 4, "each of the last four waits once at most, not {refused} times");
}

#[tokio::test]
async fn a_message_past_the_rate_of_frames_is_named_in_its_refusal() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    // Past the thousand frames that a connection may send at once, so that the messages behind them are too.
    for _ in 0..1_150 {
        ada.send_text(r#"{"type":"ping"}"#).await;
    }
    let mut unsettled: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for nonce in &unsettled {
        ada.say_once(nonce, "hello").await;
    }
    while !unsettled.is_empty() {
        let frame = ada.next().await;
        unsettled.retain(|nonce| frame["nonce"] != nonce.as_str());
    }
}

#[tokio::test]
async fn a_message_rate_of_0_is_no_limit() {
    let server = TestServer::with(&["--message-rate", "0"]);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let texts: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(ada.store_all("n", &texts).await.len(), 500);
}

#[tokio::test]
async fn a_message_rate_of_0_lifts_the_rates_of_all_that_is_written_and_of_searches_too() {
    let server = TestServer::with(&["--message-rate", "0"]);
    let client = Client::register(&server, "ada").await;
    let mut ada = client.connect().await;
    let long = vec!["\u{1f642}".repeat(4_000); 20];
    assert_eq!(ada.store_all("long", &long).await.len(), 20);
    for _ in 0..1_500 {
        ada.send(&json!({"type": "typing"})).await;
    }
    ada.store("last", "still here").await;
    for _ in 0..120 {
        assert_eq!(server.get("/search?q=here").by(&client).send().await.status, 200);
    }
    for person in &server.seed_people(21).await {
        let with = json!({"username": person.username});
        assert_eq!(server.post("/direct").by(&client).json(&with).send().await.status, 201);
    }
    let mut pictures = Vec::new();
    for _ in 0..31 {
        // Too many that no message names yet are refused as that, and not as too fast.
        let picture = server.post("/images").by(&client).header("Content-Type", "image/png").body(*b"no picture");
        pictures.push(picture.send().await.status);
    }
    assert!(!pictures.contains(&429), "{pictures:?}");
}

#[tokio::test]
async fn a_message_rate_of_0_lifts_the_rates_of_rooms_of_exports_and_of_what_is_read_too() {
    let server = TestServer::with(&["--message-rate", "0"]);
    let client = Client::register(&server, "ada").await;
    // A hundred rooms may be made at once, and two hundred changes.
    for number in 0..250 {
        let room = json!({"name": number.to_string(), "kind": "private"});
        assert_eq!(server.post("/rooms").by(&client).json(&room).send().await.status, 201, "room {number}");
    }
    for number in 0..11 {
        assert_eq!(server.get("/export").by(&client).send().await.status, 200, "export {number}");
    }
    let mut ada = client.connect().await;
    let ids = ada.store_all("n", &vec!["hello".to_owned(); 1_000]).await;
    for id in &ids {
        ada.send(&json!({"type": "read", "room": 1, "id": id})).await;
    }
    ada.send(&json!({"type": "ping"})).await;
    ada.next_of("pong").await;
    let rooms = server.get("/rooms").by(&client).send().await.json();
    let lobby = rooms["rooms"].as_array().expect("a list").iter().find(|room| room["id"] == 1);
    assert_eq!(lobby.expect("the lobby")["read"].as_i64(), ids.last().copied(), "no mark is passed over");
}

#[tokio::test]
async fn without_flags_the_limits_are_the_contracts() {
    let server = TestServer::with_defaults();
    let started = Instant::now();
    let ada = Client::register(&server, "ada").await;

    // 10 messages a second, in bursts of 30.
    let mut connection = ada.connect().await;
    let first_message = Instant::now();
    let stored = stored_of(&mut connection, "n", 60, 100).await;
    let most = 30 + first_message.elapsed().as_millis() / 100;
    assert!((30..=most).contains(&u128::from(stored)), "{stored} in {:?}", first_message.elapsed());

    // 64 connections of a user, 64 strangers of an address.
    let mut inside = vec![connection];
    while let Some(connection) = enter(&server, &ada).await {
        inside.push(connection);
        assert!(inside.len() <= 64);
    }
    assert_eq!(inside.len(), 64);
    let mut strangers = Vec::new();
    while let Some(stranger) = Connection::try_open(&server).await {
        strangers.push(stranger);
        assert!(strangers.len() <= 64);
    }
    assert!(strangers.len() >= 63, "{} strangers", strangers.len());
    drop(strangers);

    // 20 registrations and logins a minute, of which two are used.
    let guess = json!({"username": "ada", "password": "a wild guess"});
    let mut tried = 2;
    within("a refusal", async {
        loop {
            match server.post("/login").json(&guess).send().await.status {
                401 => tried += 1,
                // A stranger's place may take a moment to be free again.
                503 => {}
                429 => break,
                other => panic!("{other}"),
            }
        }
    })
    .await;
    let most = 20 + started.elapsed().as_secs() / 3;
    assert!((20..=most).contains(&tried), "{tried} in {:?}", started.elapsed());
}

#[tokio::test]
async fn persistent_abuse_is_closed_with_1008() {
    let server = TestServer::with(&["--message-rate", "1"]);
    let ada = Client::register(&server, "ada").await;
    let mut bob = Client::register(&server, "bob").await.connect().await;
    let mut abuser = ada.connect().await;
    let code = within("the server to lose patience", async {
        loop {
            abuser.try_send(r#"{"type":"message","content":"buy now"}"#).await;
            match abuser.receive().await {
                Ok(_) => {}
                Err(code) => break code,
            }
        }
    })
    .await;
    assert_eq!(code, Some(1008));
    bob.say("peace").await;
    while bob.message().await.username != "bob" {}
}

#[tokio::test]
async fn a_flood_of_any_frames_is_closed_with_1008() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let ada = Client::register(&server, "ada").await;
    for kind in ["nonsense", r#"{"type":"typing"}"#, r#"{"type":"ping"}"#] {
        let mut flood = ada.connect().await;
        let code = within("the server to lose patience", async {
            loop {
                for _ in 0..100 {
                    flood.try_send(kind).await;
                }
                flood.try_send(r#"{"type":"ping"}"#).await;
                // The answer to the last of them, or a refusal, shows that the server reads what it is sent.
                loop {
                    match flood.receive().await {
                        Ok(frame) if frame["type"] == "pong" || frame["code"] == "rate_limited" => break,
                        Ok(_) => {}
                        Err(code) => return code,
                    }
                }
            }
        })
        .await;
        assert_eq!(code, Some(1008), "{kind}");
    }
}

#[tokio::test]
async fn fragments_without_end_hold_up_nobody_and_are_closed_with_1008() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let ada = Client::register(&server, "ada").await;
    let mut raw = RawClient::authenticated(&server, &ada).await;
    let mut bob = Client::register(&server, "bob").await.connect().await;
    raw.send(&frame(TEXT, b"")).await;
    // Empty fragments never add up to the limit of a message.
    let fragments = frame(CONTINUATION, b"").repeat(10_000);
    let flood = tokio::spawn(async move {
        while raw.try_send(&fragments).await {}
        raw.close().await
    });
    for number in 0..10 {
        bob.store(&number.to_string(), "calm").await;
    }
    // And not because the message takes too long.
    let expected = (1008, "too many frames were refused".to_owned());
    assert_eq!(within("the end of the flood", flood).await.expect("no panic"), expected);
}

#[tokio::test]
async fn logins_and_registrations_of_an_address_share_a_rate() {
    let server = TestServer::with(&["--auth-rate", "4"]);
    let account = json!({"username": "ada", "password": PASSWORD});
    let mut statuses = Vec::new();
    for route in ["/register", "/login", "/login", "/login", "/login", "/register"] {
        let response = server.post(route).json(&account).send().await;
        if response.status == 429 {
            assert_eq!(response.error().1, "rate_limited");
            let seconds: u64 = response.header("Retry-After").expect("when").parse().expect("seconds");
            assert!((1..=15).contains(&seconds), "four a minute are one in 15 s, not in {seconds}");
        }
        statuses.push(response.status);
    }
    assert_eq!(statuses, [201, 200, 200, 200, 429, 429]);
    assert_eq!(server.get("/healthz").send().await.status, 200, "nothing else is rated");
}

#[tokio::test]
async fn wrong_passwords_count_against_the_rate() {
    let server = TestServer::with(&["--auth-rate", "3"]);
    let guess = json!({"username": "ada", "password": "a wild guess"});
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(server.post("/login").json(&guess).send().await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
}

#[tokio::test]
async fn a_user_at_the_address_of_somebody_who_guesses_gets_in() {
    let server = TestServer::with(&["--auth-rate", "3"]);
    let neighbour = Client::register(&server, "bob").await;
    let guess = json!({"username": "ada", "password": "a wild guess"});
    for _ in 0..20 {
        server.post("/login").json(&guess).send().await;
    }
    assert_eq!(server.post("/login").json(&guess).send().await.status, 429);
    Client::login(&server, &neighbour.username).await;
    Client::register(&server, "eve").await;
}

#[tokio::test]
async fn from_a_new_address_an_owner_gets_in_though_others_guess_at_the_name_without_end() {
    let server = TestServer::with(&["--auth-rate", "20", "--trusted-proxy", "127.0.0.1"]);
    Client::register(&server, "ada").await;
    let log_in = |address: String, password: &str| {
        let account = json!({"username": "ada", "password": password});
        server.post("/login").header("X-Forwarded-For", &address).json(&account)
    };
    // Fifty guesses may come at once, and fifty in a minute.
    let mut guessers = tokio::task::JoinSet::new();
    for host in 1..=6 {
        let guess = log_in(format!("198.51.100.{host}"), "a wild guess");
        guessers.spawn(async move {
            loop {
                guess.clone().send().await;
            }
        });
    }
    within("guesses to be refused", async {
        for host in 1.. {
            if log_in(format!("192.0.2.{host}"), "a wild guess").send().await.status == 429 {
                return;
            }
        }
    })
    .await;
    let owner = log_in("203.0.113.1".into(), PASSWORD);
    within("the owner to get in", async { while owner.clone().send().await.status != 200 {} }).await;
}

#[tokio::test]
async fn an_address_creates_no_more_accounts_by_hurrying() {
    let server = TestServer::with(&["--auth-rate", "30"]);
    let mut hurrying = tokio::task::JoinSet::new();
    for number in 0..30 {
        let account = json!({"username": format!("person-{number}"), "password": PASSWORD});
        let request = server.post("/register").json(&account);
        hurrying.spawn(async move { request.send().await.status });
    }
    let statuses = hurrying.join_all().await;
    let count = |expected| statuses.iter().filter(|status| **status == expected).count();
    assert_eq!((count(201), count(429)), (10, 20), "{statuses:?}");
}

#[tokio::test]
async fn an_account_that_is_not_created_takes_none_of_an_address_s_new_ones() {
    let server = TestServer::with(&["--auth-rate", "1000"]);
    let register = async |name: &str| {
        let account = json!({"username": name, "password": PASSWORD});
        server.post("/register").json(&account).send().await.status
    };
    assert_eq!(register("ada").await, 201);
    for _ in 0..12 {
        assert_eq!(register("ada").await, 409);
    }
    assert_eq!(register("bob").await, 201);
}

#[tokio::test]
async fn an_auth_rate_of_0_is_no_limit() {
    let server = TestServer::with(&["--auth-rate", "0"]);
    let guess = json!({"username": "ada", "password": "a wild guess"});
    for _ in 0..25 {
        assert_eq!(server.post("/login").json(&guess).send().await.status, 401);
    }
}

#[tokio::test]
async fn an_auth_rate_of_0_lifts_the_rates_of_new_accounts_and_of_guesses_of_ones_own_password_too() {
    let server = TestServer::with(&["--auth-rate", "0", "--registration", "open"]);
    for number in 0..12 {
        Client::register(&server, &format!("person-{number}")).await;
    }
    let ada = Client::register(&server, "ada").await;
    let guess = json!({"password": "a wild guess", "new_password": PASSWORD});
    for _ in 0..12 {
        assert_eq!(server.post("/password").by(&ada).json(&guess).send().await.status, 401);
    }
}

/// Guesses somebody's own password by both routes in turn, until one guess is refused: how many were not.
async fn own_guesses(server: &TestServer, by: &Client) -> u64 {
    let body = json!({"password": "a wild guess", "new_password": PASSWORD});
    within("a refusal", async {
        for (guesses, (method, path)) in (0..).zip([("POST", "/password"), ("DELETE", "/account")].iter().cycle()) {
            let response = server.request(method, path).by(by).json(&body).send().await;
            if response.status == 429 {
                assert!(response.header("Retry-After").is_some(), "{response:?}");
                return guesses;
            }
            assert_eq!(response.error(), (401, "invalid_credentials".to_owned()), "{method} {path}");
        }
        unreachable!("it goes on until a refusal")
    })
    .await
}

#[tokio::test]
async fn guesses_of_ones_own_password_are_limited_by_user() {
    let server = TestServer::with(&["--auth-rate", "100"]);
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    for client in [&ada, &bob] {
        let started = Instant::now();
        let guesses = own_guesses(&server, client).await;
        // Ten a minute.
        let most = 10 + started.elapsed().as_secs() / 6;
        assert!((10..=most).contains(&guesses), "{guesses} in {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn guesses_of_ones_own_password_count_as_tries_to_log_in() {
    let server = TestServer::with(&["--auth-rate", "5"]);
    let started = Instant::now();
    let ada = Client::register(&server, "ada").await;
    let guesses = own_guesses(&server, &ada).await;
    // Two were used to register and to log in, and one comes free in twelve seconds.
    let most = 3 + started.elapsed().as_secs() / 12;
    assert!((3..=most).contains(&guesses), "{guesses} in {:?}", started.elapsed());
}

// Connections

#[tokio::test]
async fn limits_on_connections_of_0_lift_the_rate_at_which_a_user_comes_too() {
    let server = TestServer::with(&["--user-connections", "0", "--address-connections", "0"]);
    let ada = Client::register(&server, "ada").await;
    let mut inside = Vec::new();
    for _ in 0..300 {
        inside.push(ada.connect().await);
    }
    let (mut strangers, mut kept_open) = (Vec::new(), Vec::new());
    for _ in 0..70 {
        strangers.push(Connection::try_open(&server).await.expect("no limit"));
    }
    for _ in 0..40 {
        let mut browser = RawClient::connect(&server).await;
        browser.send(b"GET /version.js HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(browser.response().await.header("Connection"), None, "no address has too many to keep one open");
        kept_open.push(browser);
    }
}

#[tokio::test]
async fn a_users_connections_are_bounded_and_those_inside_stay() {
    let server = TestServer::with(&["--user-connections", "3"]);
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let mut inside = [ada.connect().await, ada.connect().await, ada.connect().await];
    let other_session = Client::login(&server, "ada").await;
    for client in [&ada, &other_session] {
        assert!(enter(&server, client).await.is_none(), "a fourth");
    }
    let mut visitor = bob.connect().await;
    visitor.say("hello").await;
    for connection in &mut inside {
        assert_eq!(connection.message().await.content, "hello");
    }
    let [first, ..] = inside;
    first.close().await;
    enter_soon(&server, &ada).await;
}

#[tokio::test]
async fn the_strangers_of_an_address_are_bounded_and_members_do_not_count() {
    let server = TestServer::with(&["--address-connections", "4"]);
    let ada = Client::register(&server, "ada").await;
    let mut members = Vec::new();
    for _ in 0..10 {
        members.push(enter_soon(&server, &ada).await);
    }
    let mut strangers = Vec::new();
    while let Some(stranger) = Connection::try_open(&server).await {
        strangers.push(stranger);
        assert!(strangers.len() <= 4, "more strangers than places");
    }
    assert!(!strangers.is_empty());
    members[0].say("hello").await;
    for member in &mut members {
        assert_eq!(member.message().await.content, "hello");
    }
    for stranger in &mut strangers {
        stranger.authenticate(&ada, json!({})).await;
    }
    // In a stranger's place, left by proving to be a member.
    enter_soon(&server, &ada).await;
}

#[tokio::test]
async fn browsers_that_keep_connections_open_do_not_keep_others_of_their_address_out() {
    let server = TestServer::with_defaults();
    let mut browsers = Vec::new();
    // More than the 64 there are places for, and soon: those that are kept end after ten seconds.
    for number in 0..80 {
        let mut connection = RawClient::connect(&server).await;
        connection.send(b"GET /version.js HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let response = connection.response().await;
        assert_eq!(response.status, 200, "connection {number}");
        let closed = response.header("Connection") == Some("close");
        assert_eq!(closed, number >= 32, "connection {number}");
        browsers.push(connection);
        if closed {
            // The page of a real browser would end it too.
            browsers.pop().expect("it was pushed").end().await;
        }
    }
    let mut kept = browsers.swap_remove(0);
    kept.send(b"GET /app.css HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(kept.response().await.status, 200);
}

#[tokio::test]
async fn an_address_has_exactly_as_many_strangers_as_it_may() {
    let server = TestServer::with(&["--address-connections", "4"]);
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(Connection::try_open(&server).await.expect("one of the first four"));
    }
    for _ in 0..3 {
        assert!(Connection::try_open(&server).await.is_none(), "a fifth");
    }
    strangers.pop().expect("a stranger").close().await;
    let place = within("the free place", async {
        loop {
            if let Some(stranger) = Connection::try_open(&server).await {
                return stranger;
            }
        }
    });
    strangers.push(place.await);
    assert!(Connection::try_open(&server).await.is_none(), "a fifth again");
}

#[tokio::test]
async fn all_who_find_no_place_are_told_so_however_many_they_are() {
    let server = TestServer::with(&["--address-connections", "1"]);
    let _stranger = Connection::try_open(&server).await.expect("the only place");
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(RawClient::connect(&server).await);
    }
    for mut raw in crowd {
        assert_eq!(raw.response().await.error(), (503, "unavailable".to_owned()));
    }
}

#[tokio::test]
async fn past_the_most_connections_new_ones_are_refused_and_those_inside_stay() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    // No request before the first of them, whose place would be free only a moment after its answer.
    server.stop().await;
    server.restart_with(&["--max-connections", "5"]);
    let mut inside = Vec::new();
    while let Some(connection) = enter(&server, &ada).await {
        inside.push(connection);
        assert!(inside.len() <= 5, "six are in where five fit");
    }
    assert_eq!(inside.len(), 5);
    inside[0].say("hello").await;
    for connection in &mut inside {
        assert_eq!(connection.message().await.content, "hello");
    }
    inside.pop().expect("someone is in").reset();
    enter_soon(&server, &ada).await;
}

#[tokio::test]
async fn the_log_says_when_there_are_fewer_descriptors_than_connections_are_asked_for() {
    const LIMIT: &str = "the file-descriptor limit allows";
    for (asked, said) in [("", "few connections"), ("100000", "fewer connections than requested"), ("20", "")] {
        let mut server = TestServer::after(&format!("export CHINWAG_MAX_CONNECTIONS={asked}; ulimit -n 96"));
        // The log is whole once the process has ended.
        server.stop().await;
        let log = server.log();
        let found = log.lines().find_map(|line| line.split_once(LIMIT)).map_or("", |(_, rest)| rest.trim_start());
        assert!(found.starts_with(said) && said.is_empty() == found.is_empty(), "{asked:?}: {log}");
    }
}

#[tokio::test]
async fn with_fewer_descriptors_than_callers_those_inside_go_on_and_it_recovers() {
    let server = TestServer::after("ulimit -n 96");
    let ada = Client::register(&server, "ada").await;
    let mut inside = ada.connect().await;
    let mut crowd = Vec::new();
    for _ in 0..120 {
        // The kernel accepts for the server, whether the server can or not.
        let mut raw = RawClient::connect(&server).await;
        raw.try_send(&server.get("/healthz").bytes()).await;
        crowd.push(raw);
    }
    for number in 0..50 {
        inside.store(&number.to_string(), "still here").await;
    }
    let (mut let_in, mut refused) = (0, 0);
    for raw in &mut crowd {
        match raw.try_response().await {
            Some(response) if response.status == 200 => let_in += 1,
            Some(response) => {
                assert_eq!(response.error(), (503, "unavailable".to_owned()));
                refused += 1;
            }
            None => refused += 1,
        }
    }
    assert!(let_in > 0 && refused > 0, "{let_in} were served and {refused} were not");
    drop(crowd);
    enter_soon(&server, &ada).await;
}

// Deadlines

/// Sends `begun` on a connection of its own, and then `drip` five times a second, until an answer begins or the
/// connection ends: the answer, if there is one, and how long it took.
async fn outlasted(address: SocketAddr, begun: Vec<u8>, drip: &[u8]) -> (Option<Response>, Duration) {
    let started = Instant::now();
    let mut raw = RawClient::connect_to(address).await;
    raw.send(&begun).await;
    let answer = loop {
        tokio::select! {
            head = raw.try_response_head() => break head,
            // The pace of the drip is what this is about, and not a wait for anything.
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        raw.try_send(drip).await;
    };
    let took = started.elapsed();
    let Some(mut answer) = answer else { return (None, took) };
    answer.body = raw.end().await;
    (Some(answer), took)
}

#[tokio::test]
async fn nothing_half_sent_and_nobody_idle_is_waited_for_longer_than_10_s() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let post = "POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let kept_alive = async |address| {
        let started = Instant::now();
        let mut raw = RawClient::connect_to(address).await;
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(raw.response().await.status, 200);
        assert!(raw.end().await.is_empty());
        (None, started.elapsed())
    };
    let waits = [
        ("nothing at all", None, String::new(), ""),
        ("half a head", None, "GET /messages HTTP/1.1\r\nHost: ".into(), ""),
        ("a head that drips", None, "GET /messages HTTP/1.1\r\nHost: a\r\nX-Slow: ".into(), "x"),
        ("half a body", Some(408), format!("{post}Content-Length: 50\r\n\r\n{{"), ""),
        ("a body that drips", Some(408), format!("{post}Content-Length: 500\r\n\r\n{{"), " "),
        ("half a chunk", Some(408), format!("{post}Transfer-Encoding: chunked\r\n\r\nff\r\n{{"), ""),
        ("chunks that drip", Some(408), format!("{post}Transfer-Encoding: chunked\r\n\r\n"), "1\r\n \r\n"),
    ]
    .map(|(what, status, begun, drip)| {
        let wait = outlasted(server.address(), begun.into_bytes(), drip.as_bytes());
        (what, status, tokio::spawn(wait))
    });
    let idle = ("a connection kept alive", None, tokio::spawn(kept_alive(server.address())));
    ada.connect().await.store("n", "others do not notice").await;
    for (what, status, wait) in waits.into_iter().chain([idle]) {
        let (answer, took) = within(what, wait).await.expect("no panic");
        assert!((10..20).contains(&took.as_secs()), "{what}: {took:?}");
        let error = answer.map(|answer| answer.error());
        assert_eq!(error, status.map(|status| (status, "invalid_request".to_owned())), "{what}");
    }
}

// Shapes of requests

#[tokio::test]
async fn a_client_that_asks_before_sending_too_much_is_told_not_to() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    raw.send(
        b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\
          Expect: 100-continue\r\n\r\n",
    )
    .await;
    assert_eq!(raw.response().await.error(), (413, "payload_too_large".to_owned()));
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let server = TestServer::start();
    let long_target = format!("/messages?after={}", "1".repeat(100_000));
    let many_headers = "X-Many: x\r\n".repeat(500);
    let large_header = format!("X-Large: {}\r\n", "x".repeat(1 << 20));
    for head in [
        format!("GET {long_target} HTTP/1.1\r\nHost: chinwag\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: chinwag\r\n{many_headers}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: chinwag\r\n{large_header}\r\n"),
    ] {
        let mut raw = RawClient::connect(&server).await;
        raw.try_send(head.as_bytes()).await;
        // The server stops reading what is far too much: a reset may take the answer.
        if let Some(mut response) = raw.try_response_head().await {
            response.body = raw.end().await;
            assert_eq!(response.error(), (431, "invalid_request".to_owned()));
        }
    }
    assert_eq!(server.get("/healthz").send().await.status, 200);
}

#[tokio::test]
async fn shapes_that_smuggle_requests_are_refused() {
    let server = TestServer::start();
    for (what, head) in [
        ("two lengths", "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("a list of lengths", "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello"),
        ("a signed length", "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
        ("a folded header", "GET / HTTP/1.1\r\nHost: a\r\nX-Long: one\r\n two\r\n\r\n"),
        ("a space before the colon", "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
        ("an unknown coding", "POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("no HTTP", "hello there\r\n\r\n"),
        ("another version", "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    ] {
        let mut raw = RawClient::connect(&server).await;
        raw.send(head.as_bytes()).await;
        let response = raw.response().await;
        assert_eq!(response.error(), (400, "invalid_request".to_owned()), "{what}");
        assert!(raw.end().await.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_length_beside_a_coding_ends_the_connection() {
    let server = TestServer::start();
    let body = json!({"username": "ada", "password": PASSWORD}).to_string();
    let next = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut raw = RawClient::connect(&server).await;
    // What a proxy that goes by the length would take for the end of the body is somewhere else.
    raw.send(
        format!(
            "POST /register HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n{next}",
            body.len()
        )
        .as_bytes(),
    )
    .await;
    let response = raw.response().await;
    assert_eq!(response.status, 201, "the chunks are the body: {response:?}");
    assert_eq!(response.header("Connection"), Some("close"));
    assert!(raw.end().await.is_empty(), "what follows is not taken for a request");
}

#[tokio::test]
async fn only_the_compiled_in_files_can_be_read() {
    let server = TestServer::start();
    for path in [
        "/../Cargo.toml",
        "/../../etc/passwd",
        "/%2e%2e/Cargo.toml",
        "/..%2fCargo.toml",
        "/%2e%2e%2f%2e%2e%2fetc/passwd",
        "//etc/passwd",
        "/./Cargo.toml",
        "/icons/../../Cargo.toml",
        "/app.js/../../Cargo.toml",
        "/..\\Cargo.toml",
        "/app.js%00.html",
        "/chinwag.db",
        "/schema.sql",
        "/.git/config",
        "/%252e%252e/Cargo.toml",
        "file:///etc/passwd",
        "http://other.example/etc/passwd",
        "*",
    ] {
        let response = Request::new(server.address(), "GET", path).send().await;
        assert!(matches!(response.status, 400 | 404), "{path}: {response:?}");
    }
}

#[tokio::test]
async fn a_user_writes_a_bounded_number_of_bytes_however_few_messages_they_are() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let long = "\u{1f642}".repeat(4_000);
    // Without waiting for an answer, since more may be written with each second. As many messages are within their
    // rate.
    for number in 0..24 {
        connection.say_once(&format!("n-{number}"), &long).await;
    }
    // Eight of 16 KB may come at once, and one a second.
    let refused = connection.next_of("error").await;
    assert_eq!(refused["code"], "rate_limited");
    assert!(int(&refused["retry_after"]) > 0);
}

#[tokio::test]
async fn what_is_refused_for_its_bytes_does_not_count_as_a_message() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    // Eight of them are all the bytes there are at once, and there are thirty messages.
    let long = "\u{1f642}".repeat(4_000);
    for number in 0..90 {
        ada.say_once(&format!("long-{number}"), &long).await;
    }
    ada.say_once("short", "hello").await;
    loop {
        let frame = ada.next().await;
        if frame["nonce"] == "short" {
            assert_eq!(frame["type"], "ack", "{frame}");
            return;
        }
    }
}

#[tokio::test]
async fn what_was_written_before_takes_no_bytes() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let long = "\u{1f642}".repeat(4_000);
    // Eight of them are all the bytes there are at once.
    for _ in 0..8 {
        connection.store("once", &long).await;
    }
    let again = || server.post("/messages").by(&ada).header("Idempotency-Key", "once").json(&json!({"content": long}));
    for _ in 0..8 {
        assert_eq!(again().send().await.status, 201);
    }
    connection.store("another", &long).await;
}

#[tokio::test]
async fn without_room_new_text_is_refused_and_all_else_goes_on() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let id = ada.connect().await.store("before", "there is room").await;
    server.stop().await;
    server.restart_with(&["--max-db-size", "1"]);
    let mut connection = ada.connect().await;
    connection.say_once("new", "no room").await;
    let refused = connection.next_of("error").await;
    assert_eq!((&refused["code"], &refused["nonce"]), (&json!("no_space"), &json!("new")));
    connection.say_once("before", "there is room").await;
    assert_eq!(connection.next_of("ack").await["id"], id, "what was stored before is acknowledged");
    let text = json!({"content": "no room"});
    let edit = server.request("PATCH", &format!("/messages/{id}")).json(&text);
    for request in [server.post("/messages").json(&text), edit, server.post("/images").body(*b"any picture")] {
        assert_eq!(request.by(&ada).send().await.error(), (507, "no_space".into()));
    }
    let delete = Request::new(server.address(), "DELETE", &format!("/messages/{id}")).by(&ada).send().await;
    assert_eq!(delete.status, 200, "what makes room is not refused");
    Client::login(&server, "ada").await.logout().await;
}

#[tokio::test]
async fn what_is_to_stay_free_on_the_disk_is_not_written_to() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    server.stop().await;
    for (free, status) in [("1000000G", 507), ("1000TB", 507), ("1M", 201), ("1kb", 201), ("1", 201)] {
        server.restart_with(&["--min-free", free]);
        let post = server.post("/messages").by(&ada).json(&json!({"content": "hello"}));
        assert_eq!(post.send().await.status, status, "{free}");
        server.stop().await;
    }
}

#[tokio::test]
async fn what_is_removed_makes_room_for_new_text() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    // 10 MB, all of it in the file once the server has stopped.
    ada.connect().await.store_all("n", &vec!["\u{1f642}".repeat(3_500); 700]).await;
    server.stop().await;
    server.restart_with(&["--max-db-size", "7M"]);
    let post = async || server.post("/messages").by(&ada).json(&json!({"content": "hello"})).send().await.status;
    assert_eq!(post().await, 507);
    chinwag(&server.database_path(), &["prune", "--older-than", "0m"]).ok();
    wait_while("room", async || post().await != 201).await;
}

#[tokio::test]
async fn a_client_is_not_to_blame_for_a_lack_of_room() {
    let server = TestServer::with(&["--max-db-size", "1"]);
    let mut ada = Client::register(&server, "ada").await.connect().await;
    // More than the refused frames for which a connection is closed.
    for number in 0..400 {
        ada.say_once(&number.to_string(), "no room").await;
    }
    for _ in 0..400 {
        assert_eq!(ada.next_of("error").await["code"], "no_space");
    }
}

//! The HTTP half of the contract: every route, every field, every error code.

mod common;

use common::{
    Client, Message, PASSWORD, RawClient, Request, TestServer, chinwag, contents, ids, int, text, unix_millis,
    wait_while,
};
use serde_json::{Value, json};

/// The status and the code of the answer to `body` as JSON.
async fn refused(server: &TestServer, route: &str, body: &Value) -> (u16, String) {
    server.post(route).json(body).send().await.error()
}

fn outcome(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A server with `count` messages of ada's, "1" and up, and her session.
async fn server_with_messages(count: usize) -> (TestServer, Client) {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let texts: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    ada.connect().await.store_all("n", &texts).await;
    (server, ada)
}

fn messages(page: &Value) -> Vec<Message> {
    page["messages"].as_array().expect("a list").iter().map(Message::parse).collect()
}

// POST /register

#[tokio::test]
async fn register_answers_201_with_the_name() {
    let server = TestServer::start();
    let account = json!({"username": "Ada.L-1_x", "password": PASSWORD, "favourite_colour": "green"});
    let response = server.post("/register").json(&account).send().await;
    assert_eq!(response.status, 201);
    assert_eq!(response.json(), json!({"username": "Ada.L-1_x"}));
}

#[tokio::test]
async fn a_username_is_1_to_32_of_the_plain_characters_and_starts_with_a_letter_or_digit() {
    let server = TestServer::start();
    let too_long = "a".repeat(33);
    for bad in
        ["", ".ada", "_ada", "-ada", "a b", " ada", "ada\n", "ad\u{e4}", "a@b", "a/b", "ada\0", "\u{430}da", &too_long]
    {
        let account = json!({"username": bad, "password": PASSWORD});
        assert_eq!(refused(&server, "/register", &account).await, outcome(422, "invalid_username"), "{bad:?}");
    }
    let longest = "b".repeat(32);
    for good in ["7", "a._-", "constructor", &longest] {
        let account = json!({"username": good, "password": PASSWORD});
        assert_eq!(server.post("/register").json(&account).send().await.status, 201, "{good:?}");
    }
}

#[tokio::test]
async fn a_password_is_8_to_256_characters_whatever_they_are() {
    let server = TestServer::start();
    for bad in ["", "1234567", "\u{1f511}\u{1f511}\u{1f511}", &"x".repeat(257), &"\u{1f511}".repeat(257)] {
        let account = json!({"username": "ada", "password": bad});
        assert_eq!(refused(&server, "/register", &account).await, outcome(422, "invalid_password"), "{bad:?}");
    }
    for (name, good) in [("a", "12345678"), ("b", "  spaces"), ("c", &"x".repeat(256)), ("d", &"\u{1f511}".repeat(256))]
    {
        let account = json!({"username": name, "password": good});
        assert_eq!(server.post("/register").json(&account).send().await.status, 201, "{good:?}");
        assert_eq!(server.post("/login").json(&account).send().await.status, 200, "{good:?}");
    }
}

#[tokio::test]
async fn a_username_is_taken_in_every_case_of_its_letters() {
    let server = TestServer::start();
    Client::register(&server, "Ada").await;
    for name in ["Ada", "ada", "ADA", "aDa"] {
        let account = json!({"username": name, "password": PASSWORD});
        assert_eq!(refused(&server, "/register", &account).await, outcome(409, "username_taken"), "{name}");
    }
}

#[tokio::test]
async fn of_many_who_register_a_name_at_once_one_gets_it() {
    let server = TestServer::start();
    let attempts: Vec<_> = (0..6)
        .map(|number| {
            let name = if number % 2 == 0 { "ada" } else { "ADA" };
            tokio::spawn(server.post("/register").json(&json!({"username": name, "password": PASSWORD})).send())
        })
        .collect();
    let mut statuses = Vec::new();
    for attempt in attempts {
        statuses.push(attempt.await.expect("no panic").status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn closed_registration_refuses_new_people_and_lets_known_ones_in() {
    let mut server = TestServer::start();
    Client::register(&server, "ada").await;
    server.stop().await;
    server.restart_with(&["--registration", "closed"]);
    let account = json!({"username": "bob", "password": PASSWORD});
    assert_eq!(refused(&server, "/register", &account).await, outcome(403, "registration_closed"));
    Client::login(&server, "ada").await;
}

// POST /login, POST /logout

#[tokio::test]
async fn login_answers_with_a_token_the_name_and_when_the_session_ends() {
    const THIRTY_DAYS: i64 = 30 * 24 * 60 * 60 * 1000;
    let server = TestServer::start();
    Client::register(&server, "Ada").await;
    let account = json!({"username": "Ada", "password": PASSWORD});
    let before = unix_millis();
    let response = server.post("/login").json(&account).send().await;
    assert_eq!(response.status, 200);
    let login = response.json();
    assert_eq!(login["username"], "Ada");
    assert!(text(&login["token"]).len() >= 43, "256 bits take 43 characters at least");
    let lifetime = int(&login["expires_at"]) - before;
    assert!((THIRTY_DAYS..THIRTY_DAYS + 60_000).contains(&lifetime), "{lifetime}");
}

#[tokio::test]
async fn a_login_in_other_case_is_the_same_person() {
    let server = TestServer::start();
    Client::register(&server, "Ada").await;
    let account = json!({"username": "aDA", "password": PASSWORD});
    let response = server.post("/login").json(&account).send().await;
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["username"], "Ada", "the name as it was registered");
}

#[tokio::test]
async fn a_login_knows_no_invitation() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    let account = json!({"username": "ada", "password": PASSWORD, "invite": 5, "password_hash": null});
    assert_eq!(server.post("/login").json(&account).send().await.status, 200);
}

#[tokio::test]
async fn each_login_is_a_session_of_its_own() {
    let server = TestServer::start();
    let first = Client::register(&server, "ada").await;
    let second = Client::login(&server, "ada").await;
    assert_ne!(first.token, second.token);
    first.logout().await;
    second.page("limit=1").await;
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_get_the_same_answer() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    let mut answers = Vec::new();
    for (name, password) in [("ada", "not her password"), ("eve", PASSWORD), ("", PASSWORD), ("no such name!", "short")]
    {
        let account = json!({"username": name, "password": password});
        let response = server.post("/login").json(&account).send().await;
        assert_eq!(response.error(), outcome(401, "invalid_credentials"), "{name:?}");
        answers.push(response.body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "the answers differ");
}

#[tokio::test]
async fn logout_answers_204_and_the_token_is_dead_at_once() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let response = server.post("/logout").by(&ada).send().await;
    assert_eq!(response.status, 204);
    assert!(response.body.is_empty());
    assert_eq!(server.get("/messages").by(&ada).send().await.error(), outcome(401, "unauthorized"));
    assert_eq!(server.post("/logout").by(&ada).send().await.error(), outcome(401, "unauthorized"));
}

// Sessions

#[tokio::test]
async fn without_a_live_session_the_answer_is_unauthorized() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let foreign = format!("Bearer {}", ada.token.chars().rev().collect::<String>());
    let basic = format!("Basic {}", ada.token);
    let bare = ada.token.clone();
    for value in
        [&foreign, &basic, &bare, "Bearer", "Bearer ", "", "Bearer \u{e4}", &format!("Bearer {}", "x".repeat(3000))]
    {
        let response = server.get("/messages").header("Authorization", value).send().await;
        assert_eq!(response.error(), outcome(401, "unauthorized"), "{value:?}");
        let response = server.post("/logout").header("Authorization", value).send().await;
        assert_eq!(response.error(), outcome(401, "unauthorized"), "{value:?}");
    }
    assert_eq!(server.get("/messages").send().await.error(), outcome(401, "unauthorized"));
    assert_eq!(server.post("/logout").send().await.error(), outcome(401, "unauthorized"));
}

#[tokio::test]
async fn the_bearer_scheme_is_read_in_any_case() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let response = server.get("/messages").header("Authorization", &format!("bearer {}", ada.token)).send().await;
    assert_eq!(response.status, 200, "RFC 9110, 11.1");
}

// Bodies

#[tokio::test]
async fn a_body_that_is_not_the_json_object_asked_for_is_invalid_json() {
    let server = TestServer::start();
    let deep = "[".repeat(5_000);
    let bodies: [&[u8]; 14] = [
        b"",
        b"null",
        b"[]",
        b"[\"ada\",\"correct horse\"]",
        b"\"ada\"",
        b"{",
        b"{}",
        b"{\"username\":\"ada\"}",
        b"{\"password\":\"correct horse\"}",
        b"{\"username\":1,\"password\":\"correct horse\"}",
        b"{\"username\":\"ada\",\"password\":null}",
        b"{\"username\":\"ada\",\"password\":\"correct horse\"} {}",
        b"{\"username\":\"ada\",\"password\":\"correct \xff horse\"}",
        deep.as_bytes(),
    ];
    for route in ["/register", "/login"] {
        for body in bodies {
            let request = server.post(route).header("Content-Type", "application/json").body(body);
            let answer = request.send().await.error();
            assert_eq!(answer, outcome(400, "invalid_json"), "{route} {}", String::from_utf8_lossy(body));
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_json_object_asked_for_is_answered_with_what_is() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for (method, path, fields) in [
        ("POST", "/login", "the strings \"username\" and \"password\""),
        ("POST", "/password", "the strings \"password\" and \"new_password\""),
        ("DELETE", "/account", "the string \"password\", and the boolean \"messages\" if any"),
        ("POST", "/invites", "the numbers \"uses\" and \"expires_in\" if any"),
        ("POST", "/users/bob/ban", "the boolean \"messages\" if any"),
    ] {
        let answer = Request::new(server.address(), method, path).by(&ada).json(&json!([])).send().await;
        assert_eq!(answer.error(), outcome(400, "invalid_json"), "{path}");
        let message = format!("the body must be a JSON object with {fields}");
        assert_eq!(answer.json()["error"]["message"], message, "{path}");
    }
}

#[tokio::test]
async fn a_body_whose_transfer_is_broken_is_an_invalid_request() {
    let server = TestServer::start();
    let head = "POST /login HTTP/1.1\r\nHost: chinwag\r\nContent-Type: application/json\r\n";
    let mut chunked = RawClient::connect(&server).await;
    chunked.send(format!("{head}Transfer-Encoding: chunked\r\n\r\nno number\r\n").as_bytes()).await;
    assert_eq!(chunked.response().await.error(), outcome(400, "invalid_request"));
    let mut short = RawClient::connect(&server).await;
    short.send(format!("{head}Content-Length: 100\r\n\r\n{{\"username\":").as_bytes()).await;
    short.finish_sending().await;
    assert_eq!(short.response().await.error(), outcome(400, "invalid_request"));
}

#[tokio::test]
async fn a_body_of_another_type_is_unsupported() {
    let server = TestServer::start();
    let body = json!({"username": "ada", "password": PASSWORD}).to_string();
    for route in ["/register", "/login"] {
        let untyped = server.post(route).body(body.clone()).send().await;
        assert_eq!(untyped.error(), outcome(415, "unsupported_media_type"));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data", ""]
        {
            let response = server.post(route).header("Content-Type", kind).body(body.clone()).send().await;
            assert_eq!(response.error(), outcome(415, "unsupported_media_type"), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn the_type_json_is_known_in_any_case_and_with_parameters() {
    let server = TestServer::start();
    for (name, kind) in
        [("a", "Application/JSON"), ("b", "application/json; charset=utf-8"), ("c", "application/json;charset=UTF-8")]
    {
        let body = json!({"username": name, "password": PASSWORD}).to_string();
        let response = server.post("/register").header("Content-Type", kind).body(body).send().await;
        assert_eq!(response.status, 201, "{kind}");
    }
}

#[tokio::test]
async fn a_body_over_16_kib_is_too_large() {
    let server = TestServer::start();
    let account = json!({"username": "ada", "password": PASSWORD, "padding": "x".repeat(16 << 10)});
    assert_eq!(refused(&server, "/register", &account).await, outcome(413, "payload_too_large"));

    let padding = (16 << 10) - json!({"username": "ada", "password": PASSWORD, "padding": ""}).to_string().len();
    let account = json!({"username": "ada", "password": PASSWORD, "padding": "x".repeat(padding)});
    assert_eq!(account.to_string().len(), 16 << 10);
    assert_eq!(server.post("/register").json(&account).send().await.status, 201, "16 KiB is not over 16 KiB");
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_the_body_comes() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    raw.send(
        b"POST /register HTTP/1.1\r\nHost: chinwag\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n",
    )
    .await;
    assert_eq!(raw.response().await.error(), outcome(413, "payload_too_large"));
}

#[tokio::test]
async fn an_endless_body_ends_with_413() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    raw.send(
        b"POST /login HTTP/1.1\r\nHost: chinwag\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    for _ in 0..5 {
        raw.send(chunk.as_bytes()).await;
    }
    assert_eq!(raw.response().await.error(), outcome(413, "payload_too_large"));
    raw.end().await;
}

#[tokio::test]
async fn a_chunked_body_is_as_good_as_one_with_a_length() {
    let server = TestServer::start();
    let body = json!({"username": "ada", "password": PASSWORD}).to_string();
    let (front, back) = body.split_at(7);
    let mut raw = RawClient::connect(&server).await;
    raw.send(
        b"POST /register HTTP/1.1\r\nHost: chinwag\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    raw.send(format!("{:x}\r\n{front}\r\n", front.len()).as_bytes()).await;
    raw.send(format!("{:x}\r\n{back}\r\n0\r\n\r\n", back.len()).as_bytes()).await;
    assert_eq!(raw.response().await.status, 201);
}

// GET /messages

#[tokio::test]
async fn an_empty_room_has_an_empty_history() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for query in ["limit=50", "before=1", "after=0", "after=9007199254740991"] {
        assert_eq!(ada.page(query).await, json!({"messages": [], "has_more": false}), "{query}");
    }
}

#[tokio::test]
async fn a_plain_message_has_exactly_its_five_fields() {
    let before = unix_millis();
    let (_server, ada) = server_with_messages(1).await;
    let page = ada.page("limit=1").await;
    let message = page["messages"][0].as_object().expect("an object");
    let mut fields: Vec<&str> = message.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["content", "created_at", "id", "room", "username"]);
    assert_eq!(message["room"], 1);
    assert_eq!(message["username"], "ada");
    assert_eq!(message["content"], "1");
    assert!((before..=unix_millis()).contains(&int(&message["created_at"])), "Unix milliseconds");
    assert!((1..1 << 53).contains(&int(&message["id"])));
}

#[tokio::test]
async fn without_a_place_the_page_is_the_newest_50_ascending() {
    let (server, ada) = server_with_messages(60).await;
    let response = server.get("/messages").by(&ada).send().await;
    assert_eq!(response.status, 200);
    let page = response.json();
    assert_eq!(page["has_more"], true);
    let newest = messages(&page);
    assert!(ids(&newest).is_sorted());
    let expected: Vec<String> = (11..=60).map(|number| number.to_string()).collect();
    assert_eq!(contents(&newest), expected);
}

#[tokio::test]
async fn pages_before_an_id_lead_to_the_beginning() {
    let (_server, ada) = server_with_messages(25).await;
    let mut page = ada.page("limit=10").await;
    let mut seen = messages(&page);
    while page["has_more"] == true {
        page = ada.page(&format!("limit=10&before={}", seen[0].id)).await;
        seen.splice(0..0, messages(&page));
    }
    let expected: Vec<String> = (1..=25).map(|number| number.to_string()).collect();
    assert_eq!(contents(&seen), expected);
}

#[tokio::test]
async fn pages_after_an_id_lead_to_the_end() {
    let (_server, ada) = server_with_messages(25).await;
    let mut page = ada.page("limit=10&after=0").await;
    let mut seen = messages(&page);
    while page["has_more"] == true {
        page = ada.page(&format!("limit=10&after={}", seen.last().expect("a page with more is not empty").id)).await;
        seen.extend(messages(&page));
    }
    let expected: Vec<String> = (1..=25).map(|number| number.to_string()).collect();
    assert_eq!(contents(&seen), expected);
}

#[tokio::test]
async fn a_page_around_a_place_is_half_before_it_and_half_from_it_on() {
    let (_server, ada) = server_with_messages(20).await;
    let all = ids(&messages(&ada.page("limit=20").await));
    for (place, limit, expected, has_more, has_newer) in [
        (9, 8, 5..13, true, true),
        (9, 7, 6..13, true, true),
        (9, 1, 9..10, true, true),
        (2, 8, 0..6, false, true),
        (18, 8, 14..20, true, false),
    ] {
        let page = ada.page(&format!("around={}&limit={limit}", all[place])).await;
        assert_eq!(ids(&messages(&page)), all[expected], "{limit} around {place}");
        assert_eq!(page["has_more"], has_more, "{limit} around {place}");
        assert_eq!(page["has_newer"], has_newer, "{limit} around {place}");
    }
}

#[tokio::test]
async fn what_a_request_says_in_two_places_it_has_to_say_alike() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let say = |query: &str, key: &str, body: Value| {
        let request = server.post(&format!("/messages{query}")).by(&ada).header("Idempotency-Key", key).json(&body);
        async move { request.send().await }
    };
    let first = say("?room=1", "one", json!({"content": "a", "nonce": "one", "room": 1})).await;
    assert_eq!(first.status, 201);
    for (query, key, room) in [("?room=1", "two", 1), ("?room=2", "one", 1)] {
        let refused = say(query, key, json!({"content": "a", "nonce": "one", "room": room})).await;
        assert_eq!(refused.error(), (400, "invalid_request".to_owned()), "{query} {key}");
    }
    assert_eq!(contents(&server.history(&ada).await), ["a"]);
}

#[tokio::test]
async fn has_more_is_false_when_the_page_just_holds_all() {
    let (_server, ada) = server_with_messages(10).await;
    for query in ["limit=10", "limit=10&after=0", "limit=10&before=9007199254740991"] {
        let page = ada.page(query).await;
        assert_eq!(messages(&page).len(), 10, "{query}");
        assert_eq!(page["has_more"], false, "{query}");
    }
}

/// A server with ada's `count` messages of 14 KB each, and her.
async fn server_with_long_messages(count: usize) -> (TestServer, Client) {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let long = |number| format!("{number} {}", "\u{1f642}".repeat(3_500));
    ada.connect().await.store_all("n", &(1..=count).map(long).collect::<Vec<_>>()).await;
    (server, ada)
}

#[tokio::test]
async fn a_page_that_somebody_has_just_read_shows_to_the_next_what_has_changed_since() {
    let (server, ada) = server_with_messages(2).await;
    let bob = Client::register(&server, "bob").await;
    let page = async |reader: &Client| reader.page("").await["messages"].clone();
    let texts = |page: &Value| page.as_array().expect("a list").iter().map(|it| it["content"].clone()).collect();
    let same_for_both = async || {
        let (first, second) = (page(&ada).await, page(&bob).await);
        assert_eq!(first, second);
        first
    };
    let before = same_for_both().await;
    let [one, two] = [0, 1].map(|at: usize| int(&before[at]["id"]));
    let (edit, delete) = (format!("/messages/{one}"), format!("/messages/{two}"));
    assert_eq!(server.request("PATCH", &edit).by(&ada).json(&json!({"content": "edited"})).send().await.status, 200);
    let edited: Value = texts(&same_for_both().await);
    assert_eq!(edited, json!(["edited", "2"]));
    assert_eq!(server.request("DELETE", &delete).by(&ada).send().await.status, 200);
    let deleted: Value = texts(&same_for_both().await);
    assert_eq!(deleted, json!(["edited"]));
    let mut connection = bob.connect_with(json!({"rooms": true})).await;
    connection.send(&json!({"type": "react", "message": one, "emoji": "👍", "on": true, "nonce": "n"})).await;
    connection.next_of("ack").await;
    for (reader, mine) in [(&ada, false), (&bob, true), (&ada, false)] {
        assert_eq!(page(reader).await[0]["reactions"][0]["mine"], mine);
    }
    chinwag(&server.database_path(), &["user", "delete", "ada", "--messages"]).ok();
    wait_while("ada's messages are there", async || page(&bob).await != json!([])).await;
}

#[tokio::test]
async fn a_page_that_somebody_has_just_read_is_shown_to_nobody_who_may_not_read_the_room() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let room = server.post("/rooms").by(&ada).json(&json!({"name": "secret", "kind": "private"})).send().await;
    let target = format!("/messages?room={}", room.json()["id"]);
    assert_eq!(server.post(&target).by(&ada).json(&json!({"content": "hush"})).send().await.status, 201);
    let pages = async || [server.get(&target).by(&ada).send().await, server.get(&target).by(&bob).send().await];
    for _ in 0..2 {
        let [inside, outside] = pages().await;
        assert_eq!((inside.status, outside.status), (200, 404));
    }
    let members = format!("/rooms/{}/members/bob", room.json()["id"]);
    assert_eq!(server.request("PUT", &members).by(&ada).send().await.status, 204);
    let [inside, outside] = pages().await;
    assert_eq!((inside.status, outside.status), (200, 200));
    assert_eq!(server.request("DELETE", &members).by(&ada).send().await.status, 204);
    let [inside, outside] = pages().await;
    assert_eq!((inside.status, outside.status), (200, 404));
}

#[tokio::test]
async fn a_page_of_long_messages_is_as_good_as_any() {
    let (server, ada) = server_with_long_messages(90).await;
    let all = messages(&ada.page("limit=90").await);
    assert_eq!(ids(&all), (1..=90).collect::<Vec<_>>());
    let cases = [
        ("limit=200", 1..=90, false),
        ("limit=90", 1..=90, false),
        ("limit=89", 2..=90, true),
        ("before=90&limit=89", 1..=89, false),
        ("before=60&limit=40", 20..=59, true),
        ("after=0&limit=90", 1..=90, false),
        ("after=0&limit=89", 1..=89, true),
        ("after=30&limit=40", 31..=70, true),
        ("after=30", 31..=80, true),
        ("after=50&limit=200", 51..=90, false),
    ];
    for (query, expected, has_more) in cases {
        let page = ada.page(query).await;
        assert!(messages(&page) == all[expected.start() - 1..*expected.end()], "{query}");
        assert_eq!(page["has_more"], has_more, "{query}");
    }
    // Pieces end like any answer: the connection goes on.
    let mut raw = RawClient::connect(&server).await;
    for _ in 0..2 {
        raw.send(&server.get("/messages?limit=200").by(&ada).bytes()).await;
        assert!(messages(&raw.response().await.json()) == all);
    }
}

#[tokio::test]
async fn pages_that_are_read_late_arrive_whole() {
    let (server, ada) = server_with_long_messages(200).await;
    let mut raw = RawClient::far_away(&server).await;
    raw.send(&server.get("/messages?limit=200").by(&ada).bytes().repeat(4)).await;
    let mut before = 0;
    wait_while("the kernel to take no more", async || {
        let queued = server.queued_bytes().iter().sum();
        std::mem::replace(&mut before, queued) != queued || queued == 0
    })
    .await;
    for _ in 0..4 {
        assert_eq!(messages(&raw.response().await.json()).len(), 200);
    }
}

#[tokio::test]
async fn a_page_that_nobody_reads_is_not_held() {
    let (server, ada) = server_with_long_messages(200).await;
    let before = server.resident_bytes();
    let request = server.get("/messages?limit=200").by(&ada).bytes();
    let mut deaf = Vec::new();
    for _ in 0..60 {
        let mut raw = RawClient::far_away(&server).await;
        raw.send(&request).await;
        // The answer has begun, so all that is ever held of it is.
        assert_eq!(raw.response_head().await.status, 200);
        deaf.push(raw);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    // 2.8 MB for each, were it held.
    assert!(grown < 60 * (512 << 10), "{grown} bytes for {} answers", deaf.len());
}

#[tokio::test]
async fn a_page_of_short_messages_with_many_reactions_is_not_held_either() {
    let (server, ada) = server_with_messages(200).await;
    let people = server.seed_people(10).await;
    let about = server.get("/about").send().await.json();
    let set = about["reactions"].as_array().expect("a list");
    let mut database = server.database();
    let transaction = database.transaction().expect("a transaction");
    for (number, emoji) in (1_000..).step_by(10_000).zip(set) {
        let react = "INSERT INTO reactions (message_id, user_id, emoji, id, room_id, is_on)
            SELECT m.id, u.id, ?1, ?2 + m.id * 40 + u.id, 1, 1 FROM messages m, users u WHERE u.name LIKE 'person-%'";
        transaction.execute(react, (text(emoji), number)).expect("reactions");
    }
    transaction.execute("UPDATE messages SET reacted = 1", ()).expect("marks");
    transaction.commit().expect("the commit");
    let mut raw = RawClient::connect(&server).await;
    raw.send(&server.get("/messages?limit=200").by(&ada).bytes()).await;
    let page = raw.response().await;
    assert_eq!(page.header("Transfer-Encoding"), Some("chunked"), "{} bytes at once", page.body.len());
    let page = page.json();
    let messages = page["messages"].as_array().expect("a list");
    let of_each = |message: &Value| message["reactions"].as_array().map_or(0, Vec::len);
    assert_eq!(messages.iter().map(of_each).sum::<usize>(), 200 * set.len());
    assert_eq!(messages[0]["reactions"][0]["count"], people.len());
}

#[tokio::test]
async fn limit_is_1_to_200() {
    let (_server, ada) = server_with_messages(201).await;
    for (limit, length) in [(1, 1), (199, 199), (200, 200)] {
        let page = ada.page(&format!("limit={limit}")).await;
        assert_eq!(messages(&page).len(), length);
        assert_eq!(page["has_more"], true);
    }
}

#[tokio::test]
async fn a_malformed_query_is_an_invalid_request() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for query in [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=1.5",
        "limit=ten",
        "limit=",
        "limit",
        "limit=99999999999999999999",
        "before=x",
        "before=-1",
        "before=",
        "after=x",
        "after=-1",
        "after=99999999999999999999",
        "before=5&after=1",
    ] {
        let response = server.get(&format!("/messages?{query}")).by(&ada).send().await;
        assert_eq!(response.error(), outcome(400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn an_address_over_2_kib_is_too_long() {
    let (server, ada) = server_with_messages(1).await;
    let longest = format!("/messages?x={}", "x".repeat((2 << 10) - "/messages?x=".len()));
    assert_eq!(server.get(&longest).by(&ada).send().await.status, 200, "2 KiB are not over 2 KiB");
    for path in [format!("{longest}x"), format!("/{}", "x".repeat(2 << 10))] {
        let response = server.get(&path).by(&ada).send().await;
        assert_eq!(response.error(), outcome(414, "invalid_request"), "{} bytes", path.len());
    }
}

// The other routes

#[tokio::test]
async fn healthz_is_ok_without_a_session() {
    let server = TestServer::start();
    let response = server.get("/healthz").send().await;
    assert_eq!(response.status, 200);
    assert_eq!(response.json(), json!({"status": "ok"}));
}

#[tokio::test]
async fn the_websocket_without_an_upgrade_is_426() {
    let server = TestServer::start();
    let response = server.get("/ws").send().await;
    assert_eq!(response.status, 426);
    assert_eq!(response.header("Upgrade"), Some("websocket"), "RFC 9110, 15.5.22");
    assert_eq!(response.header("Connection"), Some("upgrade"), "RFC 9110, 7.8");
    assert_eq!(response.error().0, 426);
}

#[tokio::test]
async fn a_401_says_what_would_be_let_in() {
    let server = TestServer::start();
    let wrong = server.post("/login").json(&json!({"username": "ada", "password": PASSWORD})).send().await;
    let nobody = server.get("/messages").send().await;
    for answer in [wrong, nobody] {
        assert_eq!((answer.status, answer.header("WWW-Authenticate")), (401, Some("Bearer")), "RFC 9110, 15.5.2");
    }
}

#[tokio::test]
async fn what_is_no_http_is_answered_with_a_date_too() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    raw.send(b"nonsense\r\n\r\n").await;
    let answer = raw.response().await;
    assert_eq!(answer.status, 400);
    let date = answer.header("Date").expect("RFC 9110, 6.6.1");
    assert_eq!(date, httpdate::fmt_http_date(httpdate::parse_http_date(date).expect("a date")));
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let server = TestServer::start();
    for path in ["/nothing", "/messages/", "/messages/1/2", "/Register", "/ws/", "/app.js/", "/metrics", "//", "/%00"] {
        assert_eq!(server.get(path).send().await.error(), outcome(404, "not_found"), "{path}");
    }
    assert_eq!(server.post("/nothing").send().await.error(), outcome(404, "not_found"));
}

#[tokio::test]
async fn a_known_path_with_another_method_is_405_with_what_is_allowed() {
    let server = TestServer::start();
    for (path, method, allowed) in [
        ("/register", "GET", "POST"),
        ("/login", "GET", "POST"),
        ("/login", "PUT", "POST"),
        ("/logout", "DELETE", "POST"),
        ("/messages", "PUT", "GET"),
        ("/messages?limit=1", "DELETE", "POST"),
        ("/messages/1", "GET", "PATCH"),
        ("/rooms/1/members/ada", "POST", "PUT"),
        ("/ws", "POST", "GET"),
        ("/healthz", "POST", "GET"),
        ("/", "POST", "GET"),
        ("/app.js", "PATCH", "GET"),
        ("/", "BREW", "GET"),
    ] {
        let response = server.request(method, path).send().await;
        assert_eq!(response.error(), outcome(405, "method_not_allowed"), "{method} {path}");
        let allow = response.header("Allow").expect("a 405 says what is allowed");
        assert!(allow.split(", ").any(|method| method == allowed), "{method} {path}: {allow}");
        assert!(allow.split(", ").all(|other| other != method), "{method} {path}: {allow}");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (server, ada) = server_with_messages(3).await;
    for path in ["/", "/app.js", "/healthz", "/messages", "/nothing"] {
        let whole = server.get(path).by(&ada).send().await;
        let head = server.request("HEAD", path).by(&ada).send().await;
        assert_eq!(head.status, whole.status, "{path}");
        assert_eq!(head.header("Content-Type"), whole.header("Content-Type"), "{path}");
        assert_eq!(head.header("Content-Length"), whole.header("Content-Length"), "{path}");
        assert_eq!(head.header("ETag"), whole.header("ETag"), "{path}");
    }
    // Were there a body, the second answer would begin with it.
    let mut raw = RawClient::connect(&server).await;
    raw.send(&server.request("HEAD", "/").bytes()).await;
    raw.response_head().await;
    raw.send(&server.get("/healthz").bytes()).await;
    assert_eq!(raw.response().await.json(), json!({"status": "ok"}));
}

#[tokio::test]
async fn options_tells_what_is_allowed() {
    let server = TestServer::start();
    for (path, allowed) in [("/messages", "GET"), ("/login", "POST"), ("/", "GET")] {
        let response = server.request("OPTIONS", path).send().await;
        assert!(matches!(response.status, 204 | 405), "{response:?}");
        let allow = response.header("Allow").expect("it says what is allowed");
        assert!(allow.split(", ").any(|method| method == allowed), "{path}: {allow}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), None, "no other site is invited");
    }
}

#[tokio::test]
async fn metrics_are_on_their_own_listener_and_in_the_format_of_prometheus() {
    let server = TestServer::with(&["--metrics-listen", "127.0.0.1:0"]);
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store("n", "hello").await;
    let line = server.logged("serving metrics").await;
    let (_, address) = line.rsplit_once("address=").expect("the log tells the address");
    let address = address.trim().parse().expect("an address");

    let response = Request::new(address, "GET", "/metrics").send().await;
    assert_eq!(response.status, 200);
    assert!(response.header("Content-Type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    for line in response.text().lines().filter(|line| !line.starts_with("# ") && !line.is_empty()) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("chinwag_") || name.starts_with("process_"), "{line}");
        value.parse::<f64>().unwrap_or_else(|_| panic!("no number: {line}"));
    }
    assert!(!response.text().contains("ada"), "people are counted, not named");
    assert_eq!(Request::new(address, "GET", "/").send().await.error(), outcome(404, "not_found"));
    assert_eq!(server.get("/metrics").send().await.error(), outcome(404, "not_found"));
}

#[tokio::test]
async fn a_server_says_what_it_is_called() {
    for (flags, name) in [(&[][..], "chinwag"), (&["--name", " Família Sørensen "], "Família Sørensen")] {
        let server = TestServer::with(flags);
        let about = server.get("/about").send().await.json();
        assert_eq!((&about["name"], &about["new"]), (&json!(name), &json!(true)));
        assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
        let ada = Client::register(&server, "ada").await;
        assert_eq!(ada.connect().await.welcome["server"], name);
        assert_eq!(server.get("/about").send().await.json()["new"], false);
    }
}

#[tokio::test]
async fn a_message_is_exported_as_it_is_now_also_from_a_room_that_its_author_has_left() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let body = json!({"name": "den", "kind": "private", "members": ["bob"]});
    let den = int(&server.post("/rooms").by(&ada).json(&body).send().await.json()["id"]);
    let mut said = Vec::new();
    for (by, room, content) in [(&bob, den, "hello"), (&ada, den, "not bob's"), (&bob, 1, "good bye")] {
        let message = json!({"room": room, "content": content});
        said.push(int(&server.post("/messages").by(by).json(&message).send().await.json()["id"]));
    }
    let edit = server.request("PATCH", &format!("/messages/{}", said[0])).by(&bob).json(&json!({"content": "hi"}));
    assert_eq!(edit.send().await.status, 200);
    let shown = bob.page(&format!("room={den}")).await["messages"][0].clone();
    let left = server.request("DELETE", &format!("/rooms/{den}/members/bob")).by(&bob).send().await;
    assert_eq!(left.status, 204);
    let exported = server.get("/export").by(&bob).send().await;
    let exported: Vec<Value> =
        exported.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let last = &exported[1];
    let (created_at, edited_at) = (&shown["created_at"], int(&shown["edited_at"]));
    let first = json!({"id": said[0], "room": den, "content": "hi", "created_at": created_at, "edited_at": edited_at});
    let second = json!({"id": said[2], "room": 1, "content": "good bye", "created_at": last["created_at"]});
    assert_eq!(exported, [first, second]);
}

#[tokio::test]
async fn one_more_than_a_list_an_invitation_or_a_search_may_have_is_an_invalid_request() {
    const NINETY_DAYS: i64 = 90 * 24 * 3_600_000;
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let invite =
        |uses: i64, expires_in: i64| server.post("/invites").json(&json!({"uses": uses, "expires_in": expires_in}));
    let search = |chars: usize, limit: u32| server.get(&format!("/search?q={}&limit={limit}", "x".repeat(chars)));
    let members = vec!["ada"; 201];
    let room = server.post("/rooms").json(&json!({"name": "den", "kind": "private", "members": members}));
    for taken in [invite(1_000, NINETY_DAYS), search(100, 100)] {
        let status = taken.by(&ada).send().await.status;
        assert!([200, 201].contains(&status), "{status}");
    }
    let too_much = [invite(1_001, 1), invite(0, 1), invite(1, NINETY_DAYS + 1), invite(1, 0), search(101, 1)];
    for refused in too_much.into_iter().chain([search(0, 1), search(1, 101), search(1, 0), room]) {
        assert_eq!(refused.by(&ada).send().await.error(), (400, "invalid_request".into()));
    }
}

#[tokio::test]
async fn an_export_is_begun_ten_times_an_hour() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let ada = Client::register(&server, "ada").await;
    for _ in 0..10 {
        assert_eq!(server.get("/export").by(&ada).send().await.status, 200);
    }
    assert_eq!(server.get("/export").by(&ada).send().await.status, 429);
}

#[tokio::test]
async fn a_token_in_a_header_of_its_own_leaves_authorization_to_a_proxy() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let get = |token: &str| server.get("/rooms").header("Authorization", "Basic YTpi").header("Chinwag-Token", token);
    assert_eq!(get(&ada.token).send().await.status, 200);
    assert_eq!(get("made up").send().await.status, 401);
}

/// A square picture as far as anybody looks who does not decode it.
fn png(pixels: usize, bytes: usize) -> Vec<u8> {
    const WITHOUT_DATA: usize = 57;
    let big_endian = |number: usize| u32::try_from(number).expect("it is small").to_be_bytes();
    let chunk = |kind: &[u8], data: &[u8]| [&big_endian(data.len()), kind, data, b"\0\0\0\0"].concat();
    let header = [&big_endian(pixels)[..], &big_endian(pixels), b"\x08\x06\0\0\0"].concat();
    let data = vec![7; bytes - WITHOUT_DATA];
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..], &chunk(b"IDAT", &data), &chunk(b"IEND", b"")].concat()
}

#[tokio::test]
async fn as_much_as_about_tells_is_taken_and_one_more_is_not() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let limits = server.get("/about").send().await.json()["limits"].clone();
    let limit = |name: &str| usize::try_from(int(&limits[name])).expect("it is small");
    let send_picture = async |pixels, bytes| server.post("/images").by(&ada).body(png(pixels, bytes)).send().await;
    let image = int(&send_picture(1, 100).await.json()["id"]);
    for (more, statuses) in [(1, [422, 400, 400, 422, 400, 413, 413]), (0, [201, 201, 200, 201, 200, 201, 201])] {
        // Each has two bytes: it is characters that are counted.
        let long = |name| "\u{e4}".repeat(limit(name) + more);
        let ask = async |method, path, body| server.request(method, path).by(&ada).json(&body).send().await.status;
        let page = server.get(&format!("/messages?limit={}", limit("page") + more)).by(&ada);
        let answered = [
            ask("POST", "/messages", json!({"content": long("content")})).await,
            ask("POST", "/rooms", json!({"name": long("room_name"), "kind": "open"})).await,
            ask("PATCH", "/rooms/1", json!({"topic": long("topic")})).await,
            ask("POST", "/messages", json!({"image": image, "alt": long("alt")})).await,
            page.send().await.status,
            send_picture(limit("image_pixels") + more, 100).await.status,
            send_picture(1, limit("image_bytes") + more).await.status,
        ];
        assert_eq!(answered, statuses);
    }
}

// Origins

#[tokio::test]
async fn another_sites_page_may_not_post() {
    let server =
        TestServer::with(&["--allow-origin", "https://friend.example:443", "--allow-origin", "http://10.0.0.7:3000"]);
    let ada = Client::register(&server, "ada").await;
    let account = json!({"username": "ada", "password": PASSWORD});
    let address = server.address();
    let own_host_other_port = format!("http://{}:1", address.ip());
    for foreign in [
        "https://evil.example",
        "null",
        "",
        "https://friend.example.evil.example",
        "https://friend.example:8443",
        "http://friend.example",
        "http://10.0.0.7",
        &format!("http://{address}.evil.example"),
        &own_host_other_port,
    ] {
        let login = server.post("/login").header("Origin", foreign).json(&account).send().await;
        assert_eq!(login.error(), outcome(403, "forbidden_origin"), "{foreign:?}");
        let register = server.post("/register").header("Origin", foreign).json(&account).send().await;
        assert_eq!(register.error(), outcome(403, "forbidden_origin"), "{foreign:?}");
        let logout = server.post("/logout").header("Origin", foreign).by(&ada).send().await;
        assert_eq!(logout.error(), outcome(403, "forbidden_origin"), "{foreign:?}");
    }
    ada.page("limit=1").await;
}

#[tokio::test]
async fn this_hosts_page_and_allowed_ones_may_post() {
    let server =
        TestServer::with(&["--allow-origin", "https://friend.example:443", "--allow-origin", "http://10.0.0.7:3000"]);
    Client::register(&server, "ada").await;
    let account = json!({"username": "ada", "password": PASSWORD});
    for origin in [
        &format!("http://{}", server.address()),
        // Behind a proxy that ends TLS, the page's scheme is not ours.
        &format!("https://{}", server.address()),
        "https://friend.example",
        "http://10.0.0.7:3000",
    ] {
        let response = server.post("/login").header("Origin", origin).json(&account).send().await;
        assert_eq!(response.status, 200, "{origin}");
    }
}

#[tokio::test]
async fn the_port_that_a_scheme_has_anyway_makes_no_other_host() {
    let server = TestServer::with(&["--host", "chat.example"]);
    for (host, origin, status) in [
        ("chat.example:443", "https://chat.example", 400),
        ("chat.example:80", "http://chat.example", 400),
        ("chat.example", "https://CHAT.example:443", 400),
        ("chat.example:80", "https://chat.example", 403),
        ("chat.example", "https://chat.example:8443", 403),
    ] {
        let mut raw = RawClient::connect(&server).await;
        let request = format!(
            "POST /login HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\n\r\n{{}}"
        );
        raw.send(request.as_bytes()).await;
        assert_eq!(raw.response().await.status, status, "{host} {origin}");
    }
}

#[tokio::test]
async fn an_allowed_sites_page_may_read_the_answers_and_other_pages_may_not() {
    let server = TestServer::with(&["--allow-origin", "https://friend.example"]);
    let ada = Client::register(&server, "ada").await;
    let account = |password| json!({"username": "ada", "password": password});
    for (origin, allowed) in [
        ("https://friend.example", Some("https://friend.example")),
        ("https://evil.example", None),
        (&format!("http://{}", server.address()), None),
    ] {
        for (method, path) in [("POST", "/register"), ("POST", "/login"), ("POST", "/logout"), ("GET", "/messages")] {
            // What a browser asks before it sends such a request for a page of another site.
            let asked = server
                .request("OPTIONS", path)
                .header("Origin", origin)
                .header("Access-Control-Request-Method", method)
                .header("Access-Control-Request-Headers", "authorization,content-type")
                .send()
                .await;
            assert_eq!(asked.status, 204, "{origin} {path}");
            assert_eq!(asked.header("Access-Control-Allow-Origin"), allowed, "{origin} {path}");
            if allowed.is_some() {
                let lists = |name: &str, item: &str| {
                    let list = asked.header(name).unwrap_or_else(|| panic!("no {name}: {asked:?}"));
                    list.split(',').any(|listed| listed.trim().eq_ignore_ascii_case(item))
                };
                assert!(lists("Access-Control-Allow-Methods", method), "{path}: {asked:?}");
                assert!(lists("Access-Control-Allow-Headers", "authorization"), "{path}: {asked:?}");
                assert!(lists("Access-Control-Allow-Headers", "content-type"), "{path}: {asked:?}");
                assert!(lists("Vary", "origin"), "{path}: {asked:?}");
            }
        }
        let login = server.post("/login").header("Origin", origin).json(&account(PASSWORD)).send().await;
        let refusal = server.post("/login").header("Origin", origin).json(&account("a guess")).send().await;
        let page = server.get("/messages").header("Origin", origin).by(&ada).send().await;
        for answer in [login, refusal, page] {
            assert_eq!(answer.header("Access-Control-Allow-Origin"), allowed, "{origin}: {answer:?}");
            assert_eq!(answer.header("Access-Control-Allow-Credentials"), None, "there are no cookies: {answer:?}");
            if allowed.is_some() {
                assert_eq!(answer.header("Vary"), Some("Origin"), "{answer:?}");
            }
        }
    }
    let without = server.post("/login").json(&account(PASSWORD)).send().await;
    assert_eq!(without.header("Access-Control-Allow-Origin"), None, "a client that is not a browser is told nothing");
}

// The connection

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    for _ in 0..3 {
        raw.send(&server.get("/healthz").bytes()).await;
        assert_eq!(raw.response().await.status, 200);
    }
    let two_at_once = [server.get("/healthz").bytes(), server.get("/nothing").bytes()].concat();
    raw.send(&two_at_once).await;
    assert_eq!(raw.response().await.status, 200);
    assert_eq!(raw.response().await.status, 404, "answers come in the order of the requests");
}

#[tokio::test]
async fn a_target_may_be_a_whole_address() {
    let server = TestServer::start();
    let target = format!("http://{}/healthz", server.address());
    assert_eq!(server.get(&target).send().await.status, 200, "RFC 9112, 3.2.2");
}

#[tokio::test]
async fn old_clients_are_answered_too() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    raw.send(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(raw.response().await.json(), json!({"status": "ok"}));
    raw.end().await;
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let server = TestServer::start();
    let mut raw = RawClient::connect(&server).await;
    for byte in server.post("/register").json(&json!({"username": "ada", "password": PASSWORD})).bytes() {
        raw.send(&[byte]).await;
    }
    assert_eq!(raw.response().await.status, 201);
}

#[tokio::test]
async fn every_answer_forbids_sniffing_framing_and_referrers() {
    let server = TestServer::with(&["--auth-rate", "2"]);
    let ada = Client::register(&server, "ada").await;
    let account = json!({"username": "ada", "password": PASSWORD});
    let too_large = json!({"padding": "x".repeat(16 << 10)});
    let mut requests = vec![
        (405, server.post("/healthz")),
        (413, server.post("/login").json(&too_large)),
        (429, server.post("/login").json(&account)),
        (204, server.request("OPTIONS", "/login")),
        (204, server.post("/logout").by(&ada)),
    ];
    for (status, path) in
        [(200, "/"), (200, "/app.js"), (200, "/healthz"), (401, "/messages"), (404, "/nothing"), (426, "/ws")]
    {
        requests.push((status, server.get(path)));
    }
    let elsewhere = TestServer::start();
    requests.push((201, elsewhere.post("/register").json(&account)));
    for (status, request) in requests {
        let response = request.send().await;
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"), "{response:?}");
        assert_eq!(response.header("X-Frame-Options"), Some("DENY"), "{response:?}");
        assert_eq!(response.header("Referrer-Policy"), Some("no-referrer"), "{response:?}");
        let policy = response.header("Content-Security-Policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    }
}

#[tokio::test]
async fn what_people_said_is_not_kept_in_caches() {
    let (server, ada) = server_with_messages(1).await;
    let response = server.get("/messages").by(&ada).send().await;
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
}

#[tokio::test]
async fn a_picture_that_would_be_stored_larger_than_the_limit_is_refused() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    // The shortest EXIF that turns a picture: what says so in the stored one is six bytes longer.
    let mut jpeg = b"\xFF\xD8\xFF\xE1\x00\x1CExif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06".to_vec();
    jpeg.extend(b"\xFF\xC0\0\x0B\x08\0\x02\0\x03\x01\x01\x11\0\xFF\xDA\0\x08\x01\x01\0\0\x3F\0");
    let send = |length: usize| {
        let mut file = jpeg.clone();
        file.resize(length - 2, 0);
        file.extend(b"\xFF\xD9");
        server.post("/images").by(&ada).header("Content-Type", "image/jpeg").body(file)
    };
    assert_eq!(send(512 * 1024).send().await.error(), (413, "payload_too_large".into()));
    assert_eq!(send(512 * 1024 - 6).send().await.status, 201);
}

#[tokio::test]
async fn a_body_that_is_not_utf_8_is_an_invalid_request() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for kind in ["application/json", "text/plain"] {
        let request =
            server.post("/messages").by(&ada).header("Content-Type", kind).body(&b"{\"content\":\"\xff\"}"[..]);
        assert_eq!(request.send().await.error(), (400, "invalid_request".to_owned()), "{kind}");
    }
}

//! Search at the wire: what is found, by whom, how much of it is looked at at a time, and how often.

mod common;

use common::{Client, Request, TestServer, int, within};
use serde_json::{Value, json};

async fn say(server: &TestServer, by: &Client, room: i64, content: &str) -> i64 {
    let response = server.post("/messages").by(by).json(&json!({"room": room, "content": content})).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    int(&response.json()["id"])
}

/// The target of a search for `wanted`, whatever characters it has.
fn target(wanted: &str, more: &str) -> String {
    let encoded = wanted.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02X}"));
    format!("/search?q={encoded}{more}")
}

async fn found(server: &TestServer, by: &Client, wanted: &str, more: &str) -> Value {
    let response = server.get(&target(wanted, more)).by(by).send().await;
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// Nothing found.
const NONE: [i64; 0] = [];

fn ids(found: &Value) -> Vec<i64> {
    found["messages"].as_array().expect("a list").iter().map(|message| int(&message["id"])).collect()
}

async fn ids_of(server: &TestServer, by: &Client, wanted: &str) -> Vec<i64> {
    ids(&found(server, by, wanted, "").await)
}

/// A private room of ada and bob with a message in it.
async fn room_of_two(server: &TestServer, ada: &Client) -> i64 {
    let body = json!({"name": "den", "kind": "private", "members": ["bob"]});
    let response = server.post("/rooms").by(ada).json(&body).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    let room = int(&response.json()["id"]);
    say(server, ada, room, "a needle between us").await;
    room
}

#[tokio::test]
async fn a_text_is_found_in_any_case_and_anywhere_in_a_word_in_every_language() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let texts = ["Die Straße nach KÖLN", "今天天气很好", "東京タワーに行った", "한국어로 말해요", "Σίσυφος", "🙂🙃"];
    let mut stored = Vec::new();
    for content in texts {
        stored.push(say(&server, &ada, 1, content).await);
    }
    for (wanted, number) in [
        ("straß", 0),
        ("köln", 0),
        ("AßE n", 0),
        ("天气", 1),
        ("好", 1),
        ("タワー", 2),
        ("京タ", 2),
        ("국어", 3),
        ("ΣΊΣΥΦΟΣ", 4),
        ("🙃", 5),
    ] {
        assert_eq!(ids_of(&server, &ada, wanted).await, [stored[number]], "{wanted}");
    }
    assert_eq!(ids_of(&server, &ada, "气天").await, NONE, "what is found stands there as it was asked for");
}

#[tokio::test]
async fn a_search_for_what_one_person_said_finds_nothing_of_others() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let of_ada = say(&server, &ada, 1, "a needle").await;
    let of_bob = say(&server, &bob, 1, "another needle").await;
    for (name, expected) in [("ada", vec![of_ada]), ("bob", vec![of_bob]), ("nobody", vec![])] {
        assert_eq!(ids(&found(&server, &ada, "needle", &format!("&from={name}")).await), expected, "{name}");
    }
}

#[tokio::test]
async fn every_character_of_a_search_means_itself() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let texts = ["50% off", "500 off", "a_b", "aXb", "a*b", "\"quoted\" OR not", "back\\slash"];
    let mut stored = Vec::new();
    for content in texts {
        stored.push(say(&server, &ada, 1, content).await);
    }
    for (wanted, number) in [("50%", 0), ("a_b", 2), ("a*b", 4), ("\"quoted\" OR", 5), ("k\\s", 6)] {
        assert_eq!(ids_of(&server, &ada, wanted).await, [stored[number]], "{wanted}");
    }
}

#[tokio::test]
async fn only_what_one_may_read_is_found_and_a_room_that_one_may_not_read_is_as_none() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let carol = Client::register(&server, "carol").await;
    let room = room_of_two(&server, &ada).await;
    let open = say(&server, &ada, 1, "a needle for all").await;
    assert_eq!(ids_of(&server, &bob, "needle").await.len(), 2);
    assert_eq!(ids_of(&server, &carol, "needle").await, [open]);
    let in_room = |room: i64| server.get(&target("needle", &format!("&room={room}"))).by(&carol).send();
    let (hidden, absent) = (in_room(room).await, in_room(room + 1).await);
    assert_eq!(hidden.error(), (404, "not_found".to_owned()));
    assert_eq!(hidden.body, absent.body);
}

#[tokio::test]
async fn once_a_removal_is_answered_no_search_finds_anything_of_the_room() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let room = room_of_two(&server, &ada).await;
    let member = format!("/rooms/{room}/members/bob");
    for _ in 0..5 {
        let mut searching = tokio::task::JoinSet::new();
        for _ in 0..8 {
            searching.spawn(server.get(&target("needle", "")).by(&bob).send());
        }
        assert_eq!(server.request("DELETE", &member).by(&ada).send().await.status, 204);
        assert_eq!(ids_of(&server, &bob, "needle").await, NONE);
        let named = server.get(&target("needle", &format!("&room={room}"))).by(&bob).send().await;
        assert_eq!(named.error(), (404, "not_found".to_owned()));
        for response in searching.join_all().await {
            assert_eq!(response.status, 200, "those that were on their way have an answer: {response:?}");
        }
        assert_eq!(server.request("PUT", &member).by(&ada).send().await.status, 204);
    }
}

/// A server with so many messages of ada's, the first of which is worth finding.
async fn server_with_a_needle_below(count: i64) -> (TestServer, Client) {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    server.stop().await;
    let hay = "WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n WHERE id < ?1) \
         INSERT INTO messages (id, user_id, content, created_at) \
         SELECT id, 1, CASE id WHEN 1 THEN 'a needle' ELSE 'hay ' || id END, 1000 FROM n";
    server.database().execute(hay, [count]).expect("they are stored");
    server.restart();
    (server, ada)
}

#[tokio::test]
async fn a_search_looks_at_a_bounded_number_of_messages_and_goes_on_from_there() {
    const MESSAGES: i64 = 25_000;
    const LOOKED_AT: i64 = 10_000;
    let (server, ada) = server_with_a_needle_below(MESSAGES).await;
    let (mut before, mut steps) = (MESSAGES + 1, 0);
    loop {
        let page = found(&server, &ada, "needle", &format!("&before={before}")).await;
        steps += 1;
        if page["before"].is_null() {
            assert_eq!(ids(&page), [1]);
            break;
        }
        assert_eq!(ids(&page), NONE);
        let next = int(&page["before"]);
        assert!(next < before && before - next <= LOOKED_AT, "from {before} to {next}");
        before = next;
    }
    assert!(steps >= MESSAGES / LOOKED_AT);
}

#[tokio::test]
async fn messages_are_stored_while_others_search_and_while_somebody_reads_for_a_long_time() {
    let (server, ada) = server_with_a_needle_below(25_000).await;
    let mut connection = ada.connect().await;
    // What a search is to SQLite, and without end.
    let reading = server.database();
    reading.execute_batch("BEGIN; SELECT count(*) FROM messages").expect("a read transaction");
    let mut searching = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (address, ada) = (server.address(), ada.clone());
        searching.spawn(async move {
            loop {
                let search = Request::new(address, "GET", &target("not there", "")).by(&ada);
                assert_eq!(search.send().await.status, 200);
            }
        });
    }
    for number in 0..50 {
        connection.store(&format!("n{number}"), "hay").await;
    }
    assert_eq!(searching.try_join_next().map(|ended| ended.is_ok()), None, "they go on all the while");
    reading.execute_batch("COMMIT").expect("it was open all the while");
}

#[tokio::test]
async fn too_many_searches_of_a_user_are_refused_and_others_search_on() {
    let server = TestServer::with(&["--message-rate", "10"]);
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let refused = within("a refusal", async {
        loop {
            let response = server.get(&target("x", "")).by(&ada).send().await;
            if response.status != 200 {
                return response;
            }
        }
    })
    .await;
    assert_eq!(refused.error(), (429, "rate_limited".to_owned()));
    assert!(refused.header("Retry-After").is_some_and(|wait| wait.parse::<u32>().is_ok()), "{refused:?}");
    assert_eq!(ids_of(&server, &bob, "x").await, NONE);
    ada.page("limit=1").await;
}

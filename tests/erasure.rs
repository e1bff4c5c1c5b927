//! Promise 9 at the bytes: what is taken back is in no file of the database after the time that the contract allows,
//! and a crash brings none of it back.

mod common;

use std::time::Duration;

use common::{Client, PASSWORD, TestServer, contents, int, wait_while};
use serde_json::{Value, json};

/// How long the contract allows.
const ALLOWED: Duration = Duration::from_mins(5);

/// Is in every text that will be taken back, and in nothing else.
const SECRET: &str = "xyzzy";

/// The names of the files beside the database, and its own, that have the secret in them.
fn files_with_it(server: &TestServer) -> Vec<String> {
    let mut names = Vec::new();
    for file in std::fs::read_dir(server.directory()).expect("the directory is read").map_while(Result::ok) {
        // A socket is no file, and what is gone by now has nothing in it.
        let Ok(bytes) = std::fs::read(file.path()) else { continue };
        if bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()) {
            names.push(file.file_name().to_string_lossy().into_owned());
        }
    }
    names
}

/// Says something that will be taken back; its id.
async fn say_secretly(server: &TestServer, by: &Client, more: Value) -> i64 {
    let mut message = json!({"content": SECRET});
    message.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let response = server.post("/messages").by(by).json(&message).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    int(&response.json()["id"])
}

async fn delete(server: &TestServer, by: &Client, message: i64) {
    let response = server.request("DELETE", &format!("/messages/{message}")).by(by).send().await;
    assert_eq!(response.status, 200, "{response:?}");
}

async fn edit(server: &TestServer, by: &Client, message: i64, content: &str) {
    let request = server.request("PATCH", &format!("/messages/{message}")).by(by);
    let response = request.json(&json!({"content": content})).send().await;
    assert_eq!(response.status, 200, "{response:?}");
}

/// A picture whose pixels are the secret, over and over.
async fn store_picture(server: &TestServer, by: &Client) -> i64 {
    let chunk = |kind: &[u8], data: &[u8]| {
        let length = u32::try_from(data.len()).expect("it is small").to_be_bytes();
        [&length, kind, data, b"\0\0\0\0"].concat()
    };
    let header = chunk(b"IHDR", b"\0\0\0\x02\0\0\0\x03\x08\x06\0\0\0");
    let pixels = chunk(b"IDAT", SECRET.repeat(10_000).as_bytes());
    let file = [b"\x89PNG\r\n\x1a\n", &header[..], &pixels, &chunk(b"IEND", b"")].concat();
    let response = server.post("/images").by(by).body(file).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    int(&response.json()["id"])
}

#[tokio::test]
async fn what_was_taken_back_is_in_no_file_after_the_time_that_is_allowed() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let long = format!("{SECRET} ").repeat(600);
    let mut taken_back = Vec::new();
    for content in [SECRET, &long, SECRET, &long] {
        taken_back.push(say_secretly(&server, &ada, json!({"content": content})).await);
        // Some share a page with what stays.
        ada.connect().await.store(&format!("n{}", taken_back.len()), "this stays").await;
    }
    taken_back
        .push(say_secretly(&server, &ada, json!({"content": "", "image": store_picture(&server, &ada).await})).await);
    for _ in 0..20 {
        say_secretly(&server, &bob, json!({})).await;
    }
    assert_ne!(files_with_it(&server), [""; 0]);
    edit(&server, &ada, taken_back[2], "a short one").await;
    edit(&server, &ada, taken_back[3], &"a long one ".repeat(300)).await;
    for number in [0, 1, 4] {
        delete(&server, &ada, taken_back[number]).await;
    }
    let ban = server.post("/users/bob/ban").by(&ada).json(&json!({"messages": true})).send().await;
    assert_eq!(ban.status, 204);
    let gone = tokio::time::timeout(ALLOWED, async {
        while !files_with_it(&server).is_empty() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    assert!(gone.await.is_ok(), "it is still in {:?}", files_with_it(&server));
    let left = server.history(&ada).await;
    assert_eq!(left.len(), 6, "{:?}", contents(&left));
}

#[tokio::test]
async fn a_crash_brings_nothing_back_that_was_taken_back() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let deleted = say_secretly(&server, &ada, json!({"nonce": "once"})).await;
    let edited = say_secretly(&server, &ada, json!({})).await;
    let quoting = say_secretly(&server, &ada, json!({"content": "yes", "reply_to": deleted})).await;
    delete(&server, &ada, deleted).await;
    edit(&server, &ada, edited, "never mind").await;
    server.kill().await;
    server.restart();
    assert_eq!(say_secretly(&server, &ada, json!({"nonce": "once"})).await, deleted, "its nonce is known");
    let history = server.history(&ada).await;
    assert_eq!(contents(&history), ["never mind", "yes"]);
    let page = ada.page(&format!("after={edited}")).await;
    assert_eq!(
        (&page["messages"][0]["id"], &page["messages"][0]["reply_to"]),
        (&json!(quoting), &json!({"id": deleted}))
    );
    let found = server.get(&format!("/search?q={SECRET}")).by(&ada).send().await;
    assert_eq!(found.json(), json!({"messages": [], "before": null}));
    let mut back = ada.connect_with(json!({"last_id": 0})).await;
    for content in ["never mind", "yes"] {
        assert_eq!(back.message().await.content, content);
    }
    server.stop().await;
    assert_eq!(files_with_it(&server), [""; 0]);
}

#[tokio::test]
async fn what_a_deleted_user_wrote_is_erased_to_the_end_though_the_server_ends_in_between() {
    const MESSAGES: i64 = 5_000;
    let mut server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    server.stop().await;
    let wrote = "WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n WHERE id < ?1) \
         INSERT INTO messages (id, user_id, content, created_at) SELECT id, 2, 'of bob', 1000 FROM n";
    server.database().execute(wrote, [MESSAGES]).expect("they are stored");
    server.restart();
    let left = |server: &TestServer| server.number("SELECT count(*) FROM messages");
    // However fast it is, it comes no further than half.
    let halfway = "CREATE TRIGGER halfway BEFORE DELETE ON messages WHEN old.id > 2500 \
         BEGIN SELECT raise(ABORT, 'not yet'); END";
    server.database().execute_batch(halfway).expect("a trigger is made");
    let body = json!({"password": PASSWORD, "messages": true});
    let asked = server.request("DELETE", "/account").by(&bob).json(&body);
    let erasing = tokio::spawn(async move { asked.send().await });
    wait_while("the first of them to go", async || left(&server) == MESSAGES).await;
    server.kill().await;
    erasing.abort();
    assert!(left(&server) > 0, "it was interrupted");
    server.database().execute_batch("DROP TRIGGER halfway").expect("it is there");
    server.restart();
    wait_while("the others to go", async || left(&server) > 0).await;
    assert_eq!(server.history(&ada).await, []);
    wait_while("nothing to be left to do", async || {
        server.number("SELECT count(*) FROM meta WHERE key LIKE 'erase %'") > 0
    })
    .await;
}

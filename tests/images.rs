//! Pictures at the wire: who is sent them, for how long, and what a server does that takes none.

mod common;

use std::time::{Duration, Instant};

use common::{Client, PASSWORD, RawClient, TestServer, int, unix_millis, wait_while, within};
use serde_json::{Value, json};

/// A picture as far as anybody looks who does not decode it, of about so many bytes.
fn png(bytes: usize) -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let length = u32::try_from(data.len()).expect("it is small").to_be_bytes();
        [&length, kind, data, b"\0\0\0\0"].concat()
    };
    let header = chunk(b"IHDR", b"\0\0\0\x02\0\0\0\x03\x08\x06\0\0\0");
    [b"\x89PNG\r\n\x1a\n", &header[..], &chunk(b"IDAT", &vec![7; bytes]), &chunk(b"IEND", b"")].concat()
}

async fn store(server: &TestServer, by: &Client, bytes: usize) -> i64 {
    let response = server.post("/images").by(by).body(png(bytes)).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    int(&response.json()["id"])
}

/// Shows a picture in a room; the message's id.
async fn show(server: &TestServer, by: &Client, room: i64, image: i64) -> i64 {
    let message = json!({"room": room, "content": "look", "image": image});
    let response = server.post("/messages").by(by).json(&message).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    int(&response.json()["id"])
}

/// None if the picture goes while it is sent: the answer is cut short then, perhaps before its head.
async fn status_of(server: &TestServer, by: &Client, image: i64) -> Option<u16> {
    let mut connection = RawClient::connect(server).await;
    connection.send(&server.get(&format!("/images/{image}")).by(by).bytes()).await;
    connection.try_response_head().await.map(|head| head.status)
}

/// A private room of ada's with bob.
async fn room_of_two(server: &TestServer, ada: &Client) -> i64 {
    let body = json!({"name": "den", "kind": "private", "members": ["bob"]});
    let response = server.post("/rooms").by(ada).json(&body).send().await;
    assert_eq!(response.status, 201, "{response:?}");
    int(&response.json()["id"])
}

async fn remove_bob(server: &TestServer, ada: &Client, room: i64) {
    let removed = server.request("DELETE", &format!("/rooms/{room}/members/bob")).by(ada).send().await;
    assert_eq!(removed.status, 204, "{removed:?}");
}

#[tokio::test]
async fn a_picture_is_sent_as_it_is_to_those_who_may_read_its_message_and_goes_with_it() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let carol = Client::register(&server, "carol").await;
    let room = room_of_two(&server, &ada).await;
    let image = store(&server, &ada, 200_000).await;
    assert_eq!(status_of(&server, &bob, image).await, Some(404), "no message names it yet");
    let message = show(&server, &ada, room, image).await;
    let sent = server.get(&format!("/images/{image}")).by(&bob).send().await;
    assert_eq!((sent.status, sent.header("Content-Type")), (200, Some("image/png")));
    assert!(sent.body == png(200_000));
    assert_eq!(status_of(&server, &carol, image).await, Some(404));
    let delete = server.request("DELETE", &format!("/messages/{message}")).by(&ada).send().await;
    assert_eq!(delete.status, 200);
    assert_eq!(status_of(&server, &bob, image).await, Some(404));
}

#[tokio::test]
async fn what_is_no_picture_or_too_large_is_refused() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let too_wide = [&png(10)[..16], &4_097_u32.to_be_bytes()[..], &png(10)[20..]].concat();
    let image = || server.post("/images").by(&ada);
    for (request, refusal) in [
        (image().body("<svg xmlns='http://www.w3.org/2000/svg'/>"), (415, "unsupported_media_type")),
        (image().body(too_wide), (413, "payload_too_large")),
        // Before any of it comes.
        (image().header("Content-Length", "524289"), (413, "payload_too_large")),
    ] {
        let (status, code) = request.send().await.error();
        assert_eq!((status, &code[..]), refusal);
    }
    assert_eq!(server.number("SELECT count(*) FROM images"), 0);
}

#[tokio::test]
async fn a_user_has_sixteen_pictures_at_most_that_no_message_names() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let first = store(&server, &ada, 10).await;
    for _ in 1..16 {
        store(&server, &ada, 10).await;
    }
    let refused = server.post("/images").by(&ada).body(png(10)).send().await;
    assert_eq!(refused.error(), (429, "rate_limited".to_owned()));
    store(&server, &bob, 10).await;
    show(&server, &ada, 1, first).await;
    store(&server, &ada, 10).await;
}

#[tokio::test]
async fn a_clock_that_is_right_again_takes_no_picture_from_the_message_that_is_written() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let image = store(&server, &ada, 10).await;
    server.stop().await;
    server.set_back_what_is_stored();
    server.restart();
    show(&server, &ada, 1, image).await;
}

#[tokio::test]
async fn a_user_who_sends_too_many_pictures_is_told_to_wait() {
    let server = TestServer::with(&["--message-rate", "100"]);
    let ada = Client::register(&server, "ada").await;
    let (began, mut taken) = (Instant::now(), 0);
    let refused = within("a refusal", async {
        loop {
            let response = server.post("/images").by(&ada).body(png(10)).send().await;
            if response.status != 201 {
                return response;
            }
            taken += 1;
            show(&server, &ada, 1, int(&response.json()["id"])).await;
        }
    })
    .await;
    assert_eq!(refused.error(), (429, "rate_limited".to_owned()));
    // 30 at once, and then one a minute.
    let wait = refused.header("Retry-After").and_then(|wait| wait.parse().ok()).map(Duration::from_secs);
    let regained = began.elapsed() + wait.expect("a number of seconds");
    assert!(
        taken >= 30 && regained >= Duration::from_mins(1) * (taken - 29),
        "{taken}, and the next after {regained:?}"
    );
}

#[tokio::test]
async fn eight_pictures_are_received_at_once_two_of_a_user_and_one_more_is_refused_until_one_is_there() {
    let server = TestServer::start();
    let picture = png(100);
    let mut senders = Vec::new();
    let mut people = Vec::new();
    for name in ["ada", "bob", "carol", "dan", "eve"] {
        people.push(Client::register(&server, name).await);
    }
    let one_more = |by: &Client| server.post("/images").by(by).body(picture.clone()).send();
    let (eve, four) = people.split_last().expect("five");
    for person in four {
        let request = server.post("/images").by(person).header("Expect", "100-continue").body(picture.clone()).bytes();
        let (head, rest) = request.split_at(request.len() - picture.len());
        for _ in 0..2 {
            let mut sender = RawClient::connect(&server).await;
            sender.send(head).await;
            // It has its place.
            assert_eq!(sender.response_head().await.status, 100);
            senders.push((sender, rest.to_vec()));
        }
        assert_eq!(one_more(person).await.error(), (503, "unavailable".to_owned()), "a third of one user's");
        if senders.len() < 8 {
            assert_eq!(one_more(eve).await.status, 201, "another's");
        }
    }
    assert_eq!(one_more(eve).await.error(), (503, "unavailable".to_owned()));
    eve.connect().await.store("n", "text goes on").await;
    let (mut first, rest) = senders.remove(0);
    first.send(&rest).await;
    assert_eq!(first.response().await.status, 201);
    assert_eq!(one_more(eve).await.status, 201);
}

#[tokio::test]
async fn a_server_that_takes_no_pictures_refuses_new_ones_and_sends_those_it_has() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let image = store(&server, &ada, 10).await;
    show(&server, &ada, 1, image).await;
    server.stop().await;
    server.restart_with(&["--images", "off"]);
    let refused = server.post("/images").by(&ada).body(png(10)).send().await;
    assert_eq!(refused.error(), (403, "forbidden".to_owned()));
    assert_eq!(status_of(&server, &ada, image).await, Some(200));
    ada.connect().await.store("n", "text goes on").await;
}

#[tokio::test]
async fn a_picture_that_is_older_than_pictures_are_kept_goes_and_its_message_stays() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let (old, young) = (store(&server, &ada, 10).await, store(&server, &ada, 10).await);
    let (first, second) = (show(&server, &ada, 1, old).await, show(&server, &ada, 1, young).await);
    server.stop().await;
    for (image, days) in [(old, 8), (young, 2)] {
        let made = "UPDATE images SET created_at = ?2 WHERE id = ?1";
        assert_eq!(server.database().execute(made, [image, unix_millis() - days * 86_400_000]), Ok(1));
    }
    server.restart_with(&["--images-keep-days", "7"]);
    wait_while("the old picture to go", async || status_of(&server, &ada, old).await != Some(404)).await;
    assert_eq!(status_of(&server, &ada, young).await, Some(200));
    let page = ada.page("limit=10").await;
    let shown = |index: usize| (int(&page["messages"][index]["id"]), page["messages"][index]["image"]["id"].clone());
    assert_eq!([shown(0), shown(1)], [(first, Value::Null), (second, json!(young))]);
}

#[tokio::test]
async fn a_picture_waits_an_hour_for_a_message_that_names_it_and_then_goes() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let (late, in_time) = (store(&server, &ada, 10).await, store(&server, &ada, 10).await);
    // Minutes before, since the machine may be slow.
    for (image, age) in [(late, 3_600_001), (in_time, 3_000_000)] {
        let made = "UPDATE images SET created_at = ?2 WHERE id = ?1";
        assert_eq!(server.database().execute(made, [image, unix_millis() - age]), Ok(1));
    }
    let message = json!({"content": "look", "image": late});
    let refused = server.post("/messages").by(&ada).json(&message).send().await;
    assert_eq!(refused.error(), (404, "not_found".to_owned()));
    server.stop().await;
    server.restart();
    wait_while("the late one to go", async || server.number("SELECT count(*) FROM images") > 1).await;
    show(&server, &ada, 1, in_time).await;
}

#[tokio::test]
async fn a_picture_that_is_being_sent_is_cut_short_once_its_reader_is_removed() {
    const TIMES: usize = 40;
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let room = room_of_two(&server, &ada).await;
    let image = store(&server, &ada, 500_000).await;
    show(&server, &ada, room, image).await;
    // So often that the kernel does not hold all of it.
    let requests = server.get(&format!("/images/{image}")).by(&bob).bytes().repeat(TIMES);
    let mut reading = RawClient::far_away(&server).await;
    reading.send(&requests).await;
    let head = reading.response_head().await;
    assert_eq!((head.status, head.header("Content-Length")), (200, Some(&png(500_000).len().to_string()[..])));
    remove_bob(&server, &ada, room).await;
    let rest = reading.end().await;
    assert!(rest.len() < TIMES * png(500_000).len(), "{} bytes were on their way", rest.len());
    assert_eq!(status_of(&server, &bob, image).await, Some(404));
}

#[tokio::test]
async fn a_room_that_everybody_left_goes_with_its_messages_and_pictures() {
    let mut server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let room = room_of_two(&server, &ada).await;
    for _ in 0..2 {
        let image = store(&server, &ada, 10).await;
        show(&server, &ada, room, image).await;
    }
    show(&server, &ada, 1, store(&server, &ada, 10).await).await;
    remove_bob(&server, &ada, room).await;
    let left = server.request("DELETE", &format!("/rooms/{room}/members/ada")).by(&ada).send().await;
    assert_eq!(left.status, 204);
    server.stop().await;
    let emptied = server.database().execute("UPDATE rooms SET emptied_at = 1000 WHERE emptied_at IS NOT NULL", []);
    assert_eq!(emptied, Ok(1));
    server.restart();
    wait_while("the room to go", async || server.number("SELECT count(*) FROM rooms") > 1).await;
    for table in ["messages", "images"] {
        assert_eq!(server.number(&format!("SELECT count(*) FROM {table}")), 1, "{table}");
    }
    for client in [&ada, &bob] {
        assert_eq!(server.get(&format!("/messages?room={room}")).by(client).send().await.status, 404);
    }
}

#[tokio::test]
async fn once_a_removal_is_answered_no_picture_of_the_room_is_begun() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let room = room_of_two(&server, &ada).await;
    let image = store(&server, &ada, 100_000).await;
    show(&server, &ada, room, image).await;
    for _ in 0..5 {
        let mut reading = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let request = server.get(&format!("/images/{image}")).by(&bob).bytes();
            let mut connection = RawClient::connect(&server).await;
            reading.spawn(async move {
                connection.send(&request).await;
                connection.try_response_head().await.map(|head| head.status)
            });
        }
        remove_bob(&server, &ada, room).await;
        assert_eq!(status_of(&server, &bob, image).await, Some(404));
        for status in reading.join_all().await {
            assert!(matches!(status, Some(200 | 404)), "{status:?}");
        }
        let added = server.request("PUT", &format!("/rooms/{room}/members/bob")).by(&ada).send().await;
        assert_eq!(added.status, 204);
        assert_eq!(status_of(&server, &bob, image).await, Some(200));
    }
}

#[tokio::test]
async fn a_conversation_of_accounts_that_are_all_deleted_goes_with_what_is_in_it() {
    let mut server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let carol = Client::register(&server, "carol").await;
    let direct = async |by: &Client, with: &str| {
        let room = server.post("/direct").by(by).json(&json!({"username": with})).send().await.json();
        let room = int(&room["id"]);
        let said = server.post("/messages").by(by).json(&json!({"room": room, "content": "between us"})).send().await;
        assert_eq!(said.status, 201);
        room
    };
    let (_alone, _gone, stays) = (direct(&bob, "bob").await, direct(&bob, "carol").await, direct(&bob, "ada").await);
    for client in [&bob, &carol] {
        let body = json!({"password": PASSWORD});
        assert_eq!(server.request("DELETE", "/account").by(client).json(&body).send().await.status, 204);
    }
    server.stop().await;
    let emptied = server.database().execute("UPDATE rooms SET emptied_at = 1000 WHERE emptied_at IS NOT NULL", []);
    assert_eq!(emptied, Ok(2), "the one that ada reads stays");
    server.restart();
    wait_while("the rooms to go", async || server.number("SELECT count(*) FROM rooms") > 2).await;
    let read = server.get(&format!("/messages?room={stays}")).by(&ada.at(&server)).send().await;
    assert_eq!(read.status, 200);
    assert_eq!(server.number("SELECT count(*) FROM messages"), 1);
    let rooms = server.get("/rooms").by(&ada.at(&server)).send().await.json();
    let shown = rooms["rooms"].as_array().expect("a list").iter().find(|room| room["id"] == stays);
    assert_eq!(shown.expect("it is listed")["archived"], true, "there is nobody to be answered by");
}

#[tokio::test]
async fn a_picture_needs_no_words() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let image = store(&server, &ada, 10).await;
    connection.send(&json!({"type": "message", "image": image})).await;
    let message = connection.next_of("message").await;
    assert_eq!((&message["content"], int(&message["image"]["id"])), (&json!(""), image));
    let posted = server.post("/messages").by(&ada).json(&json!({"image": store(&server, &ada, 10).await})).send().await;
    assert_eq!(posted.status, 201);
    connection.send(&json!({"type": "message", "nonce": "n"})).await;
    assert_eq!(connection.next_of("error").await["code"], "invalid_message");
}

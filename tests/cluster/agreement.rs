//! What must be the same on every node, whichever was asked.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::Engine;
use crate::common::{
    Client, Connection, Follower, Message, PASSWORD, Request, TestServer, chinwag, contents, int, metric, text,
    wait_while, within,
};
use crate::nodes::Cluster;

/// What came of registrations, by status, and whether one was tried again: its first try may then have been the one that
/// was stored.
#[derive(Debug)]
struct Outcomes {
    statuses: Vec<u16>,
    again: bool,
}

impl Outcomes {
    /// Whether so many were let in, and so many refused with this status.
    fn are(&self, let_in: usize, status: u16, refused: usize) -> bool {
        let count = |status| self.statuses.iter().filter(|other| **other == status).count();
        if self.again { count(201) <= let_in } else { (count(201), count(status)) == (let_in, refused) }
    }
}

/// Registers all at once, each again as long as the log takes longer than a node waits for it.
async fn outcomes(requests: impl Iterator<Item = Request>) -> Outcomes {
    let settled = requests.map(async |request| {
        let mut again = false;
        loop {
            let status = request.clone().send().await.status;
            if status != 503 {
                return (status, again);
            }
            again = true;
        }
    });
    let settled = within("the log", futures_util::future::join_all(settled)).await;
    let again = settled.iter().any(|(_, again)| *again);
    Outcomes { statuses: settled.into_iter().map(|(status, _)| status).collect(), again }
}

#[tokio::test]
async fn same_name_on_every_node_is_registered_once() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    for number in 0..10 {
        let register = cluster.nodes.iter().enumerate().map(|(at, node)| {
            // However it is written.
            let name = format!("{}{number}", ["ada", "ADA", "Ada"][at]);
            node.post("/register").json(&json!({"username": name, "password": PASSWORD}))
        });
        let outcomes = outcomes(register).await;
        assert!(outcomes.are(1, 409, 2), "{outcomes:?}");
    }
    cluster.are_equal().await;
    assert_eq!(cluster.nodes[0].number("SELECT count(*) FROM users"), 10);
}

#[tokio::test]
async fn an_invitation_lets_in_as_many_as_it_says_on_all_nodes_together() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::with(engine, 3, &["--registration", "invite"]).await;
    let link = chinwag(&cluster.nodes[0].database_path(), &["invite", "--uses", "3"]).ok();
    let code = link.trim().rsplit('=').next().expect("a code").to_owned();
    let register = (0..9).map(|number| {
        let node = &cluster.nodes[number % 3];
        let account = json!({"username": format!("guest{number}"), "password": PASSWORD, "invite": code});
        node.post("/register").json(&account)
    });
    let outcomes = outcomes(register).await;
    assert!(outcomes.are(3, 403, 6), "{outcomes:?}");
    cluster.are_equal().await;
    assert_eq!(cluster.nodes[0].number("SELECT count(*) FROM users"), 3);
}

#[tokio::test]
async fn a_nonce_sent_to_two_nodes_is_stored_once() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut sockets = Vec::new();
    for node in &cluster.nodes {
        sockets.push(ada.at(node).connect().await);
    }
    for number in 0..20 {
        let frame = json!({"type": "message", "content": format!("{number}"), "nonce": format!("n{number}")});
        for socket in &mut sockets {
            socket.send(&frame).await;
        }
        let mut ids = HashSet::new();
        for socket in &mut sockets {
            ids.insert(int(&socket.next_of("ack").await["id"]));
        }
        assert_eq!(ids.len(), 1, "every node gives the id that the first gave");
    }
    assert_eq!(cluster.nodes[1].history(&ada.at(&cluster.nodes[1])).await.len(), 20);
    cluster.are_equal().await;
}

#[tokio::test]
async fn every_node_shows_the_same_messages_in_the_same_order() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let mut people = Vec::new();
    let mut followers = Vec::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        people.push(Client::register(node, &format!("person{number}")).await);
        followers.push(Follower::join(&people[number]).await);
    }
    let senders = people.iter().map(|person| async move {
        let mut socket = person.connect().await;
        let mut ids = Vec::new();
        for number in 0..50 {
            ids.push(socket.store(&format!("n{number}"), &format!("{} {number}", person.username)).await);
        }
        ids
    });
    let ids: Vec<_> = futures_util::future::join_all(senders).await.into_iter().flatten().collect();
    let last = *ids.iter().max().expect("messages");
    let mut seen: Vec<Vec<Message>> = Vec::new();
    for mut follower in followers {
        follower.read_to(last).await;
        seen.push(follower.history);
    }
    assert_eq!(seen[0].len(), 150);
    assert!(seen.iter().all(|history| *history == seen[0]), "one order for all");
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_login_is_known_at_once_on_another_node() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    Client::register(&cluster.nodes[0], "ada").await;
    for number in 0..20 {
        let ada = Client::login(&cluster.nodes[number % 3], "ada").await;
        let elsewhere = &cluster.nodes[(number + 1) % 3];
        // Both the socket and the page, without a moment to spare.
        ada.at(elsewhere).connect().await;
        ada.at(elsewhere).page("limit=1").await;
    }
}

#[tokio::test]
async fn a_client_ahead_of_its_node_waits_and_forgets_nothing() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    let epoch = text(&socket.welcome["epoch"]).to_owned();
    for number in 0..20 {
        let id = socket.store(&format!("n{number}"), "hello").await;
        let elsewhere = ada.at(&cluster.nodes[1 + number % 2]);
        let mut moved: Connection = elsewhere.connect_with(json!({"last_id": id, "epoch": epoch})).await;
        assert!(int(&moved.welcome["last_id"]) >= id);
        moved.send(&json!({"type": "ping"})).await;
        loop {
            let frame = moved.next().await;
            assert_ne!(frame["type"], "resync", "it has all of this history");
            if frame["type"] == "pong" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_page_on_another_node_has_no_hole() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    for number in 0..20 {
        let id = socket.store(&format!("n{number}"), "hello").await;
        let elsewhere = ada.at(&cluster.nodes[1 + number % 2]);
        for query in ["limit=200".to_owned(), format!("after={}", id - 1), format!("before={}", id + 1)] {
            let page = elsewhere.page(&query).await;
            let messages = page["messages"].as_array().expect("a list");
            assert!(messages.iter().any(|message| int(&message["id"]) == id), "{query}: {page}");
        }
    }
}

#[tokio::test]
async fn a_logout_closes_the_sockets_of_every_node() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut sockets = Vec::new();
    for node in &cluster.nodes {
        sockets.push(ada.at(node).connect().await);
    }
    ada.at(&cluster.nodes[2]).logout().await;
    for mut socket in sockets {
        assert_eq!(socket.close_code().await, 1008);
    }
}

#[tokio::test]
async fn nothing_is_stored_in_a_session_that_was_ended_at_another_node() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let bob = Client::register(&cluster.nodes[0], "bob").await;
    Client::register(&cluster.nodes[0], "ada").await;
    for _ in 0..10 {
        let ada = Client::login(&cluster.nodes[1], "ada").await;
        let mut socket = ada.at(&cluster.nodes[0]).connect().await;
        ada.at(&cluster.nodes[2]).logout().await;
        // This node may not know it yet, and the socket may be closed already.
        socket.try_send(&json!({"type": "message", "content": "too late", "nonce": "n"}).to_string()).await;
        let closed = loop {
            match socket.receive().await {
                Ok(frame) => assert_ne!(frame["type"], "ack"),
                Err(closed) => break closed,
            }
        };
        assert!(closed.is_none_or(|code| code == 1008), "{closed:?}");
    }
    bob.connect().await.store("n", "the only one").await;
    assert_eq!(contents(&cluster.nodes[0].history(&bob).await), ["the only one"]);
}

#[tokio::test]
async fn a_disabled_user_is_out_everywhere() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut sockets = Vec::new();
    for node in &cluster.nodes {
        sockets.push(ada.at(node).connect().await);
    }
    chinwag(&cluster.nodes[1].database_path(), &["user", "disable", "ada"]).ok();
    for mut socket in sockets {
        assert_eq!(socket.close_code().await, 1008);
    }
    let account = json!({"username": "ada", "password": PASSWORD});
    for node in &cluster.nodes {
        assert_eq!(node.post("/login").json(&account).send().await.status, 401);
    }
    cluster.are_equal().await;
}

#[tokio::test]
async fn rooms_and_what_is_done_in_them_are_the_same_everywhere() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let bob = Client::register(&cluster.nodes[1], "bob").await;
    let eve = Client::register(&cluster.nodes[2], "eve").await;
    let attic = json!({"name": "Attic", "kind": "private", "members": ["bob"]});
    let made = cluster.nodes[0].post("/rooms").by(&ada).json(&attic).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    let room = int(&made.json()["id"]);
    // Known at once on another node, and to nobody whom it does not concern.
    let shown = cluster.nodes[1].get(&format!("/messages?room={room}")).by(&bob).send().await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let hidden = cluster.nodes[2].get(&format!("/messages?room={room}")).by(&eve).send().await;
    assert_eq!(hidden.status, 404, "{hidden:?}");
    let mut there = bob.at(&cluster.nodes[1]).connect_with(json!({"rooms": true})).await;
    let mut here = ada.connect_with(json!({"rooms": true})).await;
    here.send(&json!({"type": "message", "content": "up here", "nonce": "n", "room": room})).await;
    let id = int(&here.next_of("ack").await["id"]);
    let message = there.next_of("message").await;
    assert_eq!((int(&message["id"]), int(&message["room"])), (id, room));
    there.send(&json!({"type": "react", "message": id, "emoji": "👍", "on": true, "nonce": "r"})).await;
    assert_eq!(int(&here.next_of("react").await["message"]), id);
    here.send(&json!({"type": "edit", "message": id, "content": "up there", "nonce": "e"})).await;
    assert_eq!(there.next_of("edit").await["content"], "up there");
    here.send(&json!({"type": "delete", "message": id, "nonce": "d"})).await;
    assert_eq!(int(&there.next_of("delete").await["message"]), id);
    cluster.are_equal().await;
}

#[tokio::test]
async fn how_far_one_has_read_is_known_on_every_node() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let bob = Client::register(&cluster.nodes[1], "bob").await;
    let mut speaker = ada.connect().await;
    let mut phone = bob.connect_with(json!({"rooms": true})).await;
    let mut laptop = bob.at(&cluster.nodes[0]).connect_with(json!({"rooms": true})).await;
    // The nodes know of each other.
    speaker.told_of_join("bob").await;
    let first = speaker.store("one", "one").await;
    let second = speaker.store("two", "two").await;
    while int(&phone.next_of("message").await["id"]) < second {}
    phone.send(&json!({"type": "read", "room": 1, "id": first})).await;
    assert_eq!(laptop.next_of("read").await, json!({"type": "read", "room": 1, "id": first}));
    // It stays where it was told when the node is gone at which it was said.
    cluster.nodes[1].kill().await;
    let lobby = async |node: &TestServer| node.get("/rooms").by(&bob).send().await.json()["rooms"][0].clone();
    wait_while("the position", async || int(&lobby(&cluster.nodes[0]).await["read"]) != first).await;
    let shown = lobby(&cluster.nodes[0]).await;
    assert_eq!(int(&shown["unread"]), 1);
}

#[tokio::test]
async fn a_picture_is_one_entry_and_the_same_on_every_node() {
    let Some(engine) = Engine::one().await else { return };
    let cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let bob = Client::register(&cluster.nodes[1], "bob").await;
    let mut nats = cluster.engine.nats().await;
    nats.subscribe("chinwag.log").await;
    let picture = largest_picture();
    let kept = cluster.nodes[0].post("/images").by(&ada).body(picture.clone()).send().await;
    assert_eq!(kept.status, 201, "{kept:?}");
    let image = int(&kept.json()["id"]);
    let mut socket = ada.connect().await;
    socket.send(&json!({"type": "message", "content": "look", "image": image, "nonce": "n"})).await;
    socket.next_of("ack").await;
    for node in &cluster.nodes {
        let shown = node.get(&format!("/images/{image}")).by(&bob).send().await;
        assert_eq!(shown.status, 200);
        assert!(shown.body == picture, "byte by byte");
    }
    let mut entries = Vec::new();
    while entries.last().is_none_or(|entry: &Vec<u8>| !String::from_utf8_lossy(entry).contains("look")) {
        entries.push(nats.next().await);
    }
    assert_eq!(entries.iter().filter(|entry| entry.len() > picture.len()).count(), 1);
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_node_with_other_rules_or_of_another_version_is_warned_of() {
    let Some(engine) = Engine::one().await else { return };
    let cluster = Cluster::start(engine, 1).await;
    let beat = json!({
        "users": 0, "applied": 0, "chain": "0000000000000000", "version": 999, "rules": "registration closed",
    });
    let mut nats = cluster.engine.nats().await;
    let say = |what: serde_json::Value| {
        let mut word = json!({"node": "another", "seq": 1});
        word.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
        word.to_string().into_bytes()
    };
    wait_while("both warnings", async || {
        // What is said before the node listens is lost.
        nats.publish("chinwag.presence", &say(json!({"came": "ada"}))).await;
        nats.publish("chinwag.presence", &say(json!({"beat": beat}))).await;
        !cluster.nodes[0].log().contains("it reads other entries: what the older nodes do not know is refused")
    })
    .await;
    assert!(cluster.nodes[0].log().contains("its flags are not as ours"));
    cluster.nodes[0].healthy(200).await;
}

#[tokio::test]
async fn a_node_of_another_log_is_not_listened_to() {
    let Some(engine) = Engine::one().await else { return };
    let cluster = Cluster::with(engine, 1, &["--metrics-listen", "127.0.0.1:0"]).await;
    let address = cluster.nodes[0].metrics_address().await;
    let figure = async |name| metric(Request::new(address, "GET", "/metrics").send().await.text(), name);
    let mut nats = cluster.engine.nats().await;
    let mut say = async |log: &str| {
        let beat = json!({"users": 0, "applied": 1_000_000, "chain": "0", "version": 2, "rules": "", "pushes": false});
        let word = json!({"node": "zzz", "log": log, "seq": 0, "beat": beat});
        nats.publish("chinwag.presence", word.to_string().as_bytes()).await;
    };
    let log = cluster.nodes[0].database().query_row("SELECT value FROM meta WHERE key = 'log'", [], |row| row.get(0));
    let log: String = log.expect("the log's id");
    wait_while("it to be listened to", async || {
        say(&log).await;
        figure("chinwag_log_nodes").await < 1.5
    })
    .await;
    assert!(figure("chinwag_log_behind").await > 1.0, "what it has applied is in the log");
    wait_while("it to be left out", async || {
        say("another").await;
        figure("chinwag_log_nodes").await > 1.5
    })
    .await;
    assert!(figure("chinwag_log_behind").await < 1.0);
    cluster.nodes[0].healthy(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_among_older_ones_writes_what_they_read() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 0).await;
    let entry = r#"{"v":1,"by":"old","n":1,"s":0,"h":"0000000000000000","l":1,"c":["Check"]}"#;
    cluster.engine.nats().await.ask("chinwag.log", entry.as_bytes()).await;
    let word = |what: &str, said| json!({"node": "zzz", "seq": 0, what: said}).to_string().into_bytes();
    let beat = json!({"users": 0, "applied": 0, "chain": "0", "version": 2, "rules": "", "pushes": false});
    let beat = word("beat", beat);
    let (mut asked, mut says) = (cluster.engine.nats().await, cluster.engine.nats().await);
    asked.subscribe("chinwag.status").await;
    let old = tokio::spawn(async move {
        let mut beats = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                (reply, _) = asked.next_question() => {
                    says.publish(&reply.expect("a question"), &beat).await;
                }
                _ = beats.tick() => says.publish("chinwag.presence", &beat).await,
            }
        }
    });
    let mut entries = cluster.engine.nats().await;
    entries.subscribe("chinwag.log").await;
    let base = cluster.copy_of_the_base();
    cluster.join(base, &[]);
    let mut next = async || {
        cluster.nodes[0].get("/healthz").send().await;
        String::from_utf8(entries.next().await).expect("text")
    };
    for _ in 0..10 {
        let entry = next().await;
        assert!(entry.starts_with("{\"v\":2,") && !entry.contains("\"t\":"), "{entry}");
    }
    old.abort();
    within("the next version, when the old node is gone", async { while !next().await.starts_with("{\"v\":3,") {} })
        .await;
    cluster.nodes[0].healthy(200).await;
}

/// A picture of 512 KiB as far as anybody looks who does not decode it.
fn largest_picture() -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let length = u32::try_from(data.len()).expect("it is small").to_be_bytes();
        [&length, kind, data, b"\0\0\0\0"].concat()
    };
    let header = chunk(b"IHDR", b"\0\0\0\x02\0\0\0\x03\x08\x06\0\0\0");
    let rest = [&chunk(b"IEND", b"")[..]].concat();
    let room = (512 << 10) - 8 - header.len() - rest.len() - chunk(b"IDAT", b"").len();
    let pixels: Vec<u8> = (0..251).cycle().take(room).collect();
    [b"\x89PNG\r\n\x1a\n", &header[..], &chunk(b"IDAT", &pixels), &rest].concat()
}

//! A node that is there and cannot be spoken to, and nodes that do not agree on what time it is.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::json;
use tempfile::TempDir;

use crate::Engine;
use crate::common::{Client, contents, int, skip, unix_millis, wait_while};
use crate::nodes::Cluster;

/// The line between a node and a server of the log, which can be cut as a network is: nothing arrives, and nobody is
/// told. Threads of its own carry what is said, since a test may wait for a process without giving way to tasks.
pub(crate) struct Relay {
    pub(crate) port: u16,
    opened: Arc<AtomicUsize>,
    to_the_log: Arc<Gate>,
    to_the_node: Arc<Gate>,
}

#[derive(Default)]
pub(crate) struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn set(&self, is_shut: bool) {
        *self.is_shut.lock().expect("no panic") = is_shut;
        self.changed.notify_all();
    }

    /// Carries bytes for as long as both ends live. `look` sees them first.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            look(&buffer[..length]);
            let is_shut = self.is_shut.lock().expect("no panic");
            drop(self.changed.wait_while(is_shut, |is_shut| *is_shut).expect("no panic"));
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // Fails if the other end is gone, too.
        to.shutdown(std::net::Shutdown::Both).ok();
    }
}

impl Relay {
    fn to(server: u16) -> Relay {
        Self::watched(server, |_, _| {})
    }

    /// `look` sees what is said to the log before it arrives there. The gate is that of the answers.
    pub(crate) fn watched(server: u16, look: impl Fn(&[u8], &Gate) + Clone + Send + 'static) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let relay = Relay { port, opened: Arc::default(), to_the_log: Arc::default(), to_the_node: Arc::default() };
        let opened = Arc::clone(&relay.opened);
        let (there, back) = (Arc::clone(&relay.to_the_log), Arc::clone(&relay.to_the_node));
        std::thread::spawn(move || {
            for node in listener.incoming().flatten() {
                opened.fetch_add(1, Ordering::Relaxed);
                let Ok(log) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let (there, back, gate, look) =
                    (Arc::clone(&there), Arc::clone(&back), Arc::clone(&back), look.clone());
                let (node_too, log_too) = (node.try_clone().expect("a socket"), log.try_clone().expect("a socket"));
                std::thread::spawn(move || there.carry(node, log, |bytes| look(bytes, &gate)));
                std::thread::spawn(move || back.carry(log_too, node_too, |_| {}));
            }
        });
        relay
    }

    /// How many connections there have been.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    fn cut(&self) {
        self.to_the_log.set(true);
        self.to_the_node.set(true);
    }

    pub(crate) fn heal(&self) {
        self.to_the_log.set(false);
        self.to_the_node.set(false);
    }
}

/// Two nodes, of which the second is connected to the log by a line that can be cut.
async fn two_nodes() -> Option<(Cluster, Relay)> {
    let engine = Engine::one().await?;
    let relay = Relay::to(engine.port(0));
    let mut cluster = Cluster::start(engine, 1).await;
    let base = cluster.copy_of_the_base();
    cluster.join_by(base, &["--log".to_owned(), format!("nats://127.0.0.1:{}", relay.port)], &[], &[]);
    Some((cluster, relay))
}

#[tokio::test]
async fn a_node_that_is_cut_off_shows_what_it_has_writes_nothing_and_catches_up() {
    let Some((cluster, relay)) = two_nodes().await else { return };
    let [one, island] = &cluster.nodes[..] else { panic!("two nodes") };
    let (ada, bob, eve) =
        (Client::register(one, "ada").await, Client::register(one, "bob").await, Client::register(one, "eve").await);
    let (mut here, mut there) = (ada.connect().await, bob.at(island).connect().await);
    let mut ended = eve.at(island).connect().await;
    here.told_of_join("bob").await;
    wait_while("the island to know who is elsewhere", async || {
        !bob.at(island).connect().await.welcome["users"].as_array().expect("a list").contains(&json!("ada"))
    })
    .await;
    let id = here.store("before", "before").await;
    there.message().await;
    relay.cut();
    here.told_of_leave("bob").await;
    there.told_of_leave("ada").await;
    island.healthy(503).await;
    there.say_once("there", "from the island").await;
    let refused = there.next_of("error").await;
    assert_eq!((refused["code"].as_str(), refused["nonce"].as_str()), (Some("unavailable"), Some("there")));
    // A node that cannot know does not say no: neither to a newcomer, nor to a request for what comes next.
    Client::register(one, "fay").await;
    let account = json!({"username": "fay", "password": crate::common::PASSWORD});
    assert_eq!(island.post("/login").json(&account).send().await.status, 503);
    assert_eq!(island.get(&format!("/messages?after={id}")).by(&bob).send().await.status, 503);
    // What it has is shown, even to somebody whose session was ended meanwhile: it cannot know that either.
    eve.logout().await;
    assert_eq!(int(&eve.at(island).page("limit=1").await["messages"][0]["id"]), id);
    assert_eq!(here.store("here", "meanwhile").await, id + 1);
    relay.heal();
    assert_eq!(there.message().await.content, "meanwhile");
    assert_eq!(ended.close_code().await, 1008);
    island.healthy(200).await;
    assert_eq!(there.store("there", "from the island").await, id + 2, "what was refused had not been written");
    cluster.are_equal().await;
}

#[tokio::test]
async fn what_a_node_did_not_live_to_acknowledge_has_its_id_at_another() {
    let Some((mut cluster, relay)) = two_nodes().await else { return };
    let (ada, bob) =
        (Client::register(&cluster.nodes[0], "ada").await, Client::register(&cluster.nodes[0], "bob").await);
    let (mut here, mut there) = (ada.connect().await, bob.at(&cluster.nodes[1]).connect().await);
    relay.to_the_node.set(true);
    there.say_once("n", "hello").await;
    let id = here.message().await.id;
    cluster.nodes[1].kill().await;
    let mut elsewhere = bob.connect().await;
    assert_eq!(elsewhere.store("n", "hello").await, id);
    relay.heal();
    cluster.nodes[1].restart();
    cluster.are_equal().await;
}

/// A clock for one node, which can be set.
struct Clock {
    directory: TempDir,
    library: String,
}

impl Clock {
    fn new() -> Option<Clock> {
        // Where Debian has it.
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
        if !Path::new(&library).exists() {
            skip("this needs libfaketime");
            return None;
        }
        Some(Clock { directory: tempfile::tempdir().expect("a temporary directory"), library })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }

    fn set(&self, offset: &str) {
        std::fs::write(self.file(), format!("{offset}\n")).expect("the file is written");
    }

    /// Stops a node and starts it with this clock.
    async fn give_to(&self, cluster: &mut Cluster, node: usize) {
        cluster.nodes[node].stop().await;
        let file = self.file();
        cluster.nodes[node].restart_with_environment(&self.variables(&file));
    }

    fn variables<'a>(&'a self, file: &'a Path) -> [(&'a str, &'a str); 4] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a plain path")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}

#[tokio::test]
async fn a_clock_that_differs_or_jumps_changes_neither_order_nor_times_nor_sessions() {
    let Some(clock) = Clock::new() else { return };
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    clock.set("-3d");
    clock.give_to(&mut cluster, 1).await;
    let [right, wrong] = &cluster.nodes[..] else { panic!("two nodes") };
    let ada = Client::register(right, "ada").await;
    let (mut here, mut there) = (ada.connect().await, ada.at(wrong).connect().await);
    let first = here.store("first", "first").await;
    let mut last = first;
    for offset in ["-3d", "+400d", "-1h", "+0"] {
        clock.set(offset);
        let id = there.store(offset, offset).await;
        assert_eq!(id, last + 1, "{offset}");
        last = id;
        assert_eq!(here.store(offset, offset).await, id, "{offset}: the nonce is known everywhere");
        assert_eq!(there.store("first", "first").await, first, "{offset}: so is one from before");
        let shown = cluster.nodes[0].history(&ada).await.last().expect("a message").created_at;
        assert!((unix_millis() - shown).abs() < 3_600_000, "{offset}: the time of a message is the log's");
        // Sessions of before and of now, at both nodes.
        let again = Client::login(wrong, "ada").await;
        again.at(right).connect().await;
        ada.at(wrong).connect().await;
    }
    cluster.are_equal().await;
}

#[tokio::test]
async fn the_same_entries_a_day_later_give_the_same_database() {
    let Some(clock) = Clock::new() else { return };
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 1).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    let id = socket.store("one", "one").await;
    socket.send(&json!({"type": "edit", "message": id, "content": "two", "nonce": "two"})).await;
    socket.next_of("ack").await;
    socket.send(&json!({"type": "react", "message": id, "emoji": "👍", "on": true, "nonce": "three"})).await;
    socket.next_of("ack").await;
    let room = json!({"name": "Kitchen", "kind": "private"});
    assert_eq!(cluster.nodes[0].post("/rooms").by(&ada).json(&room).send().await.status, 201);
    clock.set("+1d");
    let base = cluster.copy_of_the_base();
    let file = clock.file();
    let variables = clock.variables(&file);
    cluster.join_with(base, &[], &variables);
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_server_that_does_not_reach_the_log_is_left_for_the_next() {
    // Like one that is cut off from the others: it accepts connections, and does nothing for the log.
    let elsewhere = "accounts { A { users: [{ user: u, password: p }] } }\nno_auth_user: u";
    let (Some(lost), Some(engine)) = (Engine::configured(elsewhere).await, Engine::one().await) else { return };
    let mut cluster = Cluster::start(engine, 1).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let base = cluster.copy_of_the_base();
    let log = [lost.flags_from(0), cluster.engine.flags_from(0)].concat();
    cluster.join_by(base, &log, &[], &[]);
    assert!(cluster.nodes[1].log().contains("this NATS server does not reach the log, trying the next"));
    ada.at(&cluster.nodes[1]).connect().await.store("n", "hello").await;
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_node_whose_clock_is_far_off_removes_nothing_that_has_expired() {
    let Some(clock) = Clock::new() else { return };
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::with(engine, 1, &["--keep-days", "30"]).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    ada.connect().await.store("n", "to be kept").await;
    clock.set("+400d");
    clock.give_to(&mut cluster, 0).await;
    let node = &cluster.nodes[0];
    node.logged("this clock and that of NATS differ: nothing that has expired is removed").await;
    assert_eq!(contents(&node.history(&ada).await), ["to be kept"]);
}

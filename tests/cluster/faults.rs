//! What may fail, and what a client sees of it: the table of the cluster's failures, a test a row.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::Engine;
use crate::apart::Relay;
use crate::common::{
    Client, Dice, Follower, PASSWORD, TestServer, gather, int, metric, raise_descriptor_limit, wait_while, within,
};
use crate::load::{Account, Load};
use crate::log::start_again;
use crate::nodes::{Cluster, position};

/// How long each walk of failures takes.
const WALK: Duration = Duration::from_secs(20);

/// The seed of a walk, said so that it can be walked again with `CHINWAG_SEED`.
#[expect(clippy::print_stderr, reason = "the seed belongs to the panic of the test that it explains")]
pub(crate) fn seed() -> u64 {
    let given = std::env::var("CHINWAG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("CHINWAG_SEED={seed}");
    seed
}

#[expect(clippy::print_stderr, reason = "what a walk came to is of interest whether it passes or not")]
fn tell(what: &str, Account { acked, longest }: &Account) {
    eprintln!("{what}: {acked} acknowledged, nobody waited longer than {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nodes_under_load() {
    let Some(engine) = Engine::three().await else { return };
    let mut cluster = Cluster::start(engine, 3).await;
    let load = Load::start(&cluster, 4).await;
    let mut dice = Dice::new(seed());
    let started = Instant::now();
    while started.elapsed() < WALK {
        tokio::time::sleep(Duration::from_millis(500 + dice.below(1_000) as u64)).await;
        let node = dice.below(3);
        cluster.nodes[node].kill().await;
        tokio::time::sleep(Duration::from_millis(dice.below(1_500) as u64)).await;
        restart(&mut cluster.nodes[node]).await;
    }
    tell("nodes were killed", &load.settle(&cluster).await);
}

/// A node starts once it has all that the log has, so that others must not wait for it meanwhile.
async fn restart(node: &mut TestServer) {
    tokio::task::block_in_place(|| node.restart());
    node.healthy(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_servers_under_load() {
    let Some(engine) = Engine::three().await else { return };
    let mut cluster = Cluster::start(engine, 3).await;
    let load = Load::start(&cluster, 4).await;
    let mut dice = Dice::new(seed());
    let started = Instant::now();
    while started.elapsed() < WALK {
        tokio::time::sleep(Duration::from_millis(1_000 + dice.below(2_000) as u64)).await;
        let server = dice.below(3);
        cluster.engine.end(server, if dice.below(2) == 0 { Signal::KILL } else { Signal::TERM });
        tokio::time::sleep(Duration::from_millis(500 + dice.below(2_000) as u64)).await;
        cluster.engine.restart(server);
        cluster.engine.ready().await;
    }
    tell("servers were killed", &load.settle(&cluster).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_all_servers_under_load() {
    let Some(engine) = Engine::three().await else { return };
    let mut cluster = Cluster::start(engine, 3).await;
    let load = Load::start(&cluster, 4).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        for server in 0..3 {
            cluster.engine.end(server, Signal::KILL);
        }
        for server in 0..3 {
            cluster.engine.restart(server);
        }
        cluster.engine.ready().await;
    }
    tell("all servers were killed", &load.settle(&cluster).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_servers_and_nodes_under_load() {
    let Some(engine) = Engine::three().await else { return };
    let cluster = Cluster::start(engine, 3).await;
    let load = Load::start(&cluster, 4).await;
    let mut dice = Dice::new(seed());
    let started = Instant::now();
    while started.elapsed() < WALK {
        tokio::time::sleep(Duration::from_millis(500 + dice.below(1_500) as u64)).await;
        let (paused, pause) = (dice.below(3), Duration::from_millis(200 + dice.below(4_000) as u64));
        if dice.below(2) == 0 {
            cluster.engine.signal(paused, Signal::STOP);
            tokio::time::sleep(pause).await;
            cluster.engine.signal(paused, Signal::CONT);
        } else {
            cluster.nodes[paused].signal(Signal::STOP);
            tokio::time::sleep(pause).await;
            cluster.nodes[paused].signal(Signal::CONT);
        }
    }
    tell("servers and nodes were paused", &load.settle(&cluster).await);
}

/// Load while the server that leads the log fails and another takes its place. What was sent meanwhile is acknowledged
/// in the end.
async fn lose_the_leader(what: &str, fail: impl FnOnce(&mut Engine, usize), mend: impl FnOnce(&mut Engine, usize)) {
    let Some(engine) = Engine::three().await else { return };
    let mut cluster = Cluster::start(engine, 3).await;
    let load = Load::start(&cluster, 2).await;
    let leader = cluster.engine.leader().await.expect("somebody leads");
    fail(&mut cluster.engine, leader);
    cluster.engine.leader_other_than(leader).await;
    mend(&mut cluster.engine, leader);
    tell(what, &load.settle(&cluster).await);
}

#[tokio::test]
async fn the_leader_of_the_log_is_killed() {
    lose_the_leader("the leader was killed", |engine, leader| engine.end(leader, Signal::KILL), |_, _| {}).await;
}

#[tokio::test]
async fn the_leader_of_the_log_is_stopped_in_peace() {
    lose_the_leader("the leader was stopped", |engine, leader| engine.end(leader, Signal::TERM), |_, _| {}).await;
}

#[tokio::test]
async fn the_leader_of_the_log_is_paused() {
    lose_the_leader(
        "the leader was paused",
        |engine, leader| engine.signal(leader, Signal::STOP),
        |engine, leader| engine.signal(leader, Signal::CONT),
    )
    .await;
}

#[tokio::test]
async fn where_two_of_three_servers_are_away_reads_go_on_and_writes_are_unavailable() {
    let Some(engine) = Engine::three().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    let id = socket.store("first", "before").await;
    cluster.are_equal().await;
    cluster.engine.end(1, Signal::KILL);
    cluster.engine.end(2, Signal::KILL);
    socket.say_once("second", "while they are away").await;
    let refused = socket.next_of("error").await;
    assert_eq!((refused["code"].as_str(), refused["nonce"].as_str()), (Some("unavailable"), Some("second")));
    for node in &cluster.nodes {
        assert_eq!(int(&ada.at(node).page("limit=1").await["messages"][0]["id"]), id);
        assert_eq!(node.get("/healthz").send().await.status, 503);
    }
    // Two are enough.
    cluster.engine.restart(1);
    cluster.nodes[0].healthy(200).await;
    socket.say_once("second", "while they are away").await;
    assert_eq!(int(&socket.next_of("ack").await["id"]), id + 1);
    cluster.are_equal().await;
}

#[tokio::test]
async fn without_the_log_reads_go_on_and_writes_are_unavailable() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::with(engine, 2, &["--metrics-listen", "127.0.0.1:0"]).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    let id = socket.store("first", "before").await;
    cluster.engine.end(0, Signal::KILL);
    socket.say_once("second", "while it is away").await;
    let refused = socket.next_of("error").await;
    assert_eq!((refused["code"].as_str(), refused["nonce"].as_str()), (Some("unavailable"), Some("second")));
    // The newest page is shown as it is here; what a client would append is not, and nobody is told no.
    assert_eq!(int(&ada.page("limit=1").await["messages"][0]["id"]), id);
    let after = cluster.nodes[0].get(&format!("/messages?after={id}")).by(&ada).send().await;
    assert_eq!(after.status, 503);
    let stranger = Client::known(&cluster.nodes[0], "eve", &"0".repeat(64));
    assert_eq!(cluster.nodes[0].get("/messages").by(&stranger).send().await.status, 503);
    assert_eq!(cluster.nodes[0].get("/healthz").send().await.status, 503);
    let metrics = crate::common::Request::new(cluster.nodes[0].metrics_address().await, "GET", "/metrics").send().await;
    assert!(metric(metrics.text(), "chinwag_log_up") < 0.5);
    // The socket stays, and goes on when the log is back, which is seen though nobody asks.
    cluster.engine.restart(0);
    cluster.engine.ready().await;
    let address = cluster.nodes[0].metrics_address().await;
    wait_while("the log to be up", async || {
        let metrics = crate::common::Request::new(address, "GET", "/metrics").send().await;
        metric(metrics.text(), "chinwag_log_up") < 0.5
    })
    .await;
    cluster.nodes[0].healthy(200).await;
    let again = socket.store("second", "while it is away").await;
    assert!(again > id);
    cluster.are_equal().await;
}

#[tokio::test]
async fn what_timed_out_is_not_published_later() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 1).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    let id = socket.store("first", "before").await;
    cluster.engine.end(0, Signal::KILL);
    for number in 0..5 {
        socket.say(&format!("without a log {number}")).await;
        assert_eq!(socket.next_of("error").await["code"], "unavailable");
    }
    cluster.engine.restart(0);
    cluster.engine.ready().await;
    cluster.nodes[0].healthy(200).await;
    let next = socket.store("second", "after").await;
    assert_eq!(next, id + 1, "nothing of what was refused came in between");
}

#[tokio::test]
async fn a_follower_of_the_log_is_killed_and_nobody_waits_for_long() {
    let Some(engine) = Engine::three().await else { return };
    let mut cluster = Cluster::start(engine, 3).await;
    let load = Load::start(&cluster, 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leader = cluster.engine.leader().await.expect("somebody leads");
    // Rather the one that leads the servers themselves: until they have another, no consumer can be made.
    let first = cluster.engine.meta_leader().await.filter(|first| *first != leader);
    cluster.engine.end(first.unwrap_or((leader + 1) % 3), Signal::KILL);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let account = load.settle(&cluster).await;
    tell("a follower was killed", &account);
}

#[tokio::test]
async fn where_no_consumer_can_be_made_entries_are_asked_for_one_by_one() {
    let accounts = "accounts { A { jetstream: enabled, users: [{
        user: u, password: p, permissions: { publish: { deny: \"$JS.API.CONSUMER.CREATE.>\" } }
    }] } }
    no_auth_user: u";
    let Some(engine) = Engine::configured(accounts).await else { return };
    let cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut follower = Follower::join(&ada.at(&cluster.nodes[1])).await;
    let contents: Vec<_> = (0..30).map(|number| format!("number {number}")).collect();
    let ids = ada.connect().await.store_all("n", &contents).await;
    follower.read_to(*ids.last().expect("ids")).await;
    assert_eq!(crate::common::contents(&follower.history), contents);
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_node_joins_from_a_backup_under_load() {
    let Some(engine) = Engine::three().await else { return };
    let mut cluster = Cluster::start(engine, 3).await;
    let load = Load::start(&cluster, 4).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let directory = cluster.backup_of(1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let started = Instant::now();
    cluster.join(directory, &[]);
    cluster.nodes[3].healthy(200).await;
    let took = started.elapsed();
    tell(&format!("a node joined in {took:?}"), &load.settle(&cluster).await);
}

#[tokio::test]
async fn an_empty_node_replays_to_the_same_database() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let load = Load::start(&cluster, 4).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.settle(&cluster).await;
    let directory = cluster.copy_of_the_base();
    assert_eq!(position(&directory.path().join("chinwag.db")).0, 0);
    cluster.join(directory, &[]);
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_node_that_was_away_is_brought_up_before_it_listens() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    cluster.nodes[1].kill().await;
    let mut socket = ada.connect().await;
    let mut last = 0;
    for number in 0..50 {
        last = socket.store(&format!("n{number}"), "hello").await;
    }
    cluster.nodes[1].restart();
    let returned = ada.at(&cluster.nodes[1]).connect().await;
    assert_eq!(int(&returned.welcome["last_id"]), last);
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_log_that_was_replaced_is_refused() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    cluster.nodes[1].stop().await;
    // Somebody makes another log, with another database.
    let other = tempfile::tempdir().expect("a directory");
    cluster.engine.init(&other.path().join("chinwag.db"), &["--anew"]).await;
    cluster.nodes[0].logged("the log was replaced").await;
    let mut socket = ada.connect().await;
    socket.say("to whom").await;
    assert_eq!(socket.next_of("error").await["code"], "unavailable");
    // Nor does a node start on it.
    let refused = start_again(&cluster, 1);
    assert!(refused.stderr.contains("cannot join the cluster: the log was replaced"), "{refused:?}");
}

#[tokio::test]
async fn a_log_that_is_shorter_is_refused() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 1).await;
    Client::register(&cluster.nodes[0], "ada").await;
    cluster.nodes[0].stop().await;
    // As it is where the servers lost what they had acknowledged: the database is ahead of its log.
    cluster.nodes[0]
        .database()
        .execute("UPDATE meta SET value = value + 1000 WHERE key = 'applied'", [])
        .expect("a row");
    let refused = start_again(&cluster, 0);
    assert!(refused.stderr.contains("the log has lost entries"), "{refused:?}");
}

#[tokio::test]
async fn a_changed_row_stops_the_node() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 3).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    // On one node the session is gone, which no entry says: there her messages are refused.
    cluster.nodes[2].database().execute("DELETE FROM sessions", []).expect("rows");
    let mut socket = ada.connect().await;
    let id = socket.store("n", "hello").await;
    cluster.nodes[2].logged("databases of nodes differ").await;
    let status = cluster.nodes[2].ended().await;
    assert_eq!(status.code(), Some(1));
    // The others agree, and go on.
    assert_eq!(socket.store("m", "still here").await, id + 1);
    cluster.nodes.truncate(2);
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_node_tells_how_far_it_is() {
    let Some(engine) = Engine::one().await else { return };
    let cluster = Cluster::with(engine, 2, &["--metrics-listen", "127.0.0.1:0"]).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    ada.connect().await.store("n", "hello").await;
    let mut told = Vec::new();
    for node in &cluster.nodes {
        node.healthy(200).await;
        let address = node.metrics_address().await;
        let metrics = within("the other node", async {
            loop {
                let answer = crate::common::Request::new(address, "GET", "/metrics").send().await;
                if metric(answer.text(), "chinwag_log_nodes") > 1.5 {
                    return answer.text().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let alerts = include_str!("../../packaging/examples/cluster/alerts.yaml");
        for name in alerts.split(|byte: char| byte != '_' && !byte.is_ascii_alphanumeric()) {
            assert!(!name.starts_with("chinwag_") || metrics.contains(&format!("\n{name}")), "{name}");
        }
        assert!(metric(&metrics, "chinwag_log_up") > 0.5);
        assert!(metric(&metrics, "chinwag_log_applied") > 2.5);
        told.push(metrics);
    }
    let flags = cluster.engine.flags_from(0);
    let arguments = ["cluster", "status"].into_iter().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>();
    let status = crate::common::chinwag(&cluster.nodes[0].database_path(), &arguments).ok();
    assert_eq!(status.lines().filter(|line| line.starts_with("node ")).count(), 2, "{status}");
}

#[tokio::test]
async fn what_a_node_that_died_was_erasing_another_erases_to_the_end() {
    const MESSAGES: i64 = 3_000;
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 1).await;
    // The other node hears nothing any more once it has published the first step.
    let relay = Relay::watched(cluster.engine.port(0), |said, answers| {
        if said.windows(13).any(|part| part == b"EraseMessages") {
            answers.set(true);
        }
    });
    let base = cluster.copy_of_the_base();
    cluster.join_by(base, &["--log".to_owned(), format!("nats://127.0.0.1:{}", relay.port)], &[], &[]);
    // The first is a moderator, and the last of those cannot go.
    Client::register(&cluster.nodes[0], "ada").await;
    let bob = Client::register(&cluster.nodes[0], "bob").await;
    let mut socket = bob.connect().await;
    let contents: Vec<_> = (0..MESSAGES).map(|number| format!("number {number}")).collect();
    for some in contents.chunks(100) {
        socket.store_all(&some[0], some).await;
    }
    cluster.are_equal().await;
    let left = |node: &TestServer| node.number("SELECT count(*) FROM messages");
    let body = json!({"password": PASSWORD, "messages": true});
    let asked = cluster.nodes[1].request("DELETE", "/account").by(&bob).json(&body);
    let erasing = tokio::spawn(async move { asked.send().await });
    wait_while("the first of them to go", async || left(&cluster.nodes[0]) == MESSAGES).await;
    cluster.nodes[1].kill().await;
    erasing.abort();
    assert!(left(&cluster.nodes[0]) > 0, "it was interrupted");
    cluster.nodes[0].logged("erased the rest of what a deleted user wrote").await;
    assert_eq!(left(&cluster.nodes[0]), 0);
}

#[tokio::test]
async fn people_on_two_nodes_see_each_other_come_and_go() {
    let Some(engine) = Engine::one().await else { return };
    let cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let bob = Client::register(&cluster.nodes[1], "bob").await;
    let mut here = ada.connect().await;
    let there = bob.connect().await;
    here.told_of_join("bob").await;
    let mut there = there.settled().await;
    there.send(&json!({"type": "typing"})).await;
    assert_eq!(here.next_of("typing").await["username"], "bob");
    there.close().await;
    here.told_of_leave("bob").await;
    // A node that comes later learns who is there.
    let mut cluster = cluster;
    let directory = cluster.backup_of(0);
    cluster.join(directory, &[]);
    let eve = Client::register(&cluster.nodes[2], "eve").await;
    within("a list with both", async {
        loop {
            let mut listed = eve.connect().await.welcome["users"].as_array().expect("a list").clone();
            listed.sort_by_key(ToString::to_string);
            if listed == [json!("ada"), json!("eve")] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn more_people_than_fit_into_one_answer_are_known_at_a_node_that_comes_later() {
    const CROWD: usize = 1_100;
    raise_descriptor_limit();
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 1).await;
    let people = cluster.nodes[0].seed_people(CROWD + 1).await;
    let (watcher, people) = people.split_last().expect("there are people");
    let crowd = gather(people).await;
    let directory = cluster.backup_of(0);
    cluster.join(directory, &[]);
    let watcher = watcher.at(&cluster.nodes[1]);
    wait_while("all of them", async || watcher.connect().await.welcome["online"] != CROWD + 1).await;
    drop(crowd);
    wait_while("the last of them to leave", async || watcher.connect().await.welcome["online"] != 1).await;
}

#[tokio::test]
async fn a_dead_nodes_people_leave() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let bob = Client::register(&cluster.nodes[1], "bob").await;
    let mut here = ada.connect().await;
    let _there = bob.connect().await;
    here.told_of_join("bob").await;
    cluster.nodes[1].kill().await;
    here.told_of_leave("bob").await;
}

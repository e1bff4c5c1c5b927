//! What may befall the log itself: entries that no node wrote, entries that are missing, and a log that is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::Engine;
use crate::common::{Client, Dice, Ended, chinwag, contents, int, text, wait_while, within};
use crate::faults::seed;
use crate::load::Load;
use crate::nodes::{Cluster, position};

const LOG: &str = "chinwag.log";

#[tokio::test]
async fn an_entry_that_comes_twice_is_applied_once() {
    let Some(engine) = Engine::one().await else { return };
    let cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    let mut nats = cluster.engine.nats().await;
    nats.subscribe(LOG).await;
    // Without a nonce, which would hide it.
    socket.say("only once").await;
    let id = int(&socket.next_of("message").await["id"]);
    let entry = loop {
        let entry = nats.next().await;
        if String::from_utf8_lossy(&entry).contains("only once") {
            break entry;
        }
    };
    let again = cluster.engine.nats().await.ask(LOG, &entry).await;
    assert!(int(&again["seq"]) > 0, "the log has it twice");
    assert_eq!(socket.store("next", "and on").await, id + 1);
    cluster.are_equal().await;
    for node in &cluster.nodes {
        assert_eq!(contents(&node.history(&ada.at(node)).await), ["only once", "and on"]);
    }
}

#[tokio::test]
async fn an_entry_that_nobody_can_read_is_left_out_by_every_node() {
    let Some(engine) = Engine::one().await else { return };
    let cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    let id = socket.store("before", "before").await;
    let unknown = r#"{"v":1,"by":"a","n":1,"s":0,"h":"0000000000000000","l":1,"c":["SomethingElse"]}"#;
    for bad in ["", "nonsense", "[]", unknown] {
        cluster.engine.nats().await.ask(LOG, bad.as_bytes()).await;
    }
    assert_eq!(socket.store("after", "after").await, id + 1);
    cluster.are_equal().await;
    for node in &cluster.nodes {
        node.logged("cannot be read, and is left out by every node").await;
        node.healthy(200).await;
    }
}

#[tokio::test]
async fn an_entry_of_a_newer_version_ends_a_node_that_does_not_know_it() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let entry = cluster.engine.nats().await.ask(LOG, br#"{"v":999,"what":"is not known yet"}"#).await;
    for node in &mut cluster.nodes {
        assert_eq!(node.ended().await.code(), Some(1));
        assert!(node.log().contains("of a newer chinwag: upgrade this node"), "{}", node.log());
        assert!(position(&node.database_path()).0 < int(&entry["seq"]), "it applied nothing that it does not know");
    }
    let refused = start_again(&cluster, 0);
    assert!(refused.stderr.contains("upgrade this node"), "{refused:?}");
}

/// How a server ends that is started on the database of a node that has stopped.
pub(crate) fn start_again(cluster: &Cluster, node: usize) -> Ended {
    let flags = cluster.engine.flags_from(0);
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
    arguments.extend(flags.iter().map(String::as_str));
    chinwag(&cluster.nodes[node].database_path(), &arguments)
}

#[tokio::test]
async fn a_log_that_lacks_what_another_node_has_applied_is_written_to_no_more() {
    let Some(engine) = Engine::one().await else { return };
    let cluster = Cluster::start(engine, 1).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    // As said by a node that applied what the servers then lost.
    let beat = json!({"users": 0, "applied": 1_000_000, "chain": "0", "version": 3, "rules": "", "pushes": false});
    let word = json!({"node": "zzz", "seq": 0, "beat": beat}).to_string().into_bytes();
    let mut nats = cluster.engine.nats().await;
    wait_while("the node to notice", async || {
        nats.publish("chinwag.presence", &word).await;
        !cluster.nodes[0].log().contains("the log has lost entries")
    })
    .await;
    // Also when that node is gone, and the log was looked at again: what it had is not there.
    nats.publish("chinwag.presence", json!({"node": "zzz", "seq": 0, "bye": null}).to_string().as_bytes()).await;
    let mut looks = cluster.engine.nats().await;
    looks.subscribe("$JS.API.STREAM.INFO.>").await;
    for _ in 0..3 {
        looks.next().await;
    }
    socket.say("to whom").await;
    assert_eq!(socket.next_of("error").await["code"], "unavailable");
}

#[tokio::test]
async fn a_database_of_another_history_than_the_logs_is_refused() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 1).await;
    cluster.nodes[0].stop().await;
    cluster.nodes[0].database().execute("UPDATE meta SET value = 'another' WHERE key = 'epoch'", []).expect("a row");
    let refused = start_again(&cluster, 0);
    assert!(refused.stderr.contains("cannot join the cluster: the log continues the history"), "{refused:?}");
}

#[tokio::test]
async fn a_node_too_far_behind_says_so_and_starts_from_a_backup() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    cluster.nodes[1].stop().await;
    let mut socket = ada.connect().await;
    for number in 0..20 {
        socket.store(&format!("n{number}"), "while it is away").await;
    }
    // As after a week: the log keeps the last entries only.
    let mut nats = cluster.engine.nats().await;
    let mut config = nats.ask("$JS.API.STREAM.INFO.chinwag", b"").await["config"].clone();
    config["max_msgs"] = json!(5);
    let updated = nats.ask("$JS.API.STREAM.UPDATE.chinwag", config.to_string().as_bytes()).await;
    assert!(int(&updated["state"]["first_seq"]) > 10, "{updated}");
    let refused = start_again(&cluster, 1);
    assert!(refused.stderr.contains("this node is too far behind"), "{refused:?}");
    cluster.nodes.truncate(1);
    let backup = cluster.backup_of(0);
    cluster.join(backup, &[]);
    socket.store("last", "while it is here").await;
    cluster.are_equal().await;
}

#[tokio::test]
async fn a_log_that_is_lost_is_begun_anew_with_all_that_was_acknowledged() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut socket = ada.connect().await;
    let id = socket.store("before", "before").await;
    cluster.are_equal().await;
    cluster.engine.nats().await.ask("$JS.API.STREAM.DELETE.chinwag", b"").await;
    for node in &cluster.nodes {
        node.logged("the log is gone").await;
        assert_eq!(node.get("/healthz").send().await.status, 503);
        assert_eq!(int(&ada.at(node).page("limit=1").await["messages"][0]["id"]), id, "reading goes on");
    }
    socket.say_once("meanwhile", "meanwhile").await;
    assert_eq!(socket.next_of("error").await["code"], "unavailable");
    let epoch = text(&socket.welcome["epoch"]).to_owned();
    for node in &mut cluster.nodes {
        node.stop().await;
    }
    cluster.engine.init(&cluster.nodes[0].database_path(), &["--anew"]).await;
    let refused = start_again(&cluster, 1);
    assert!(refused.stderr.contains("the log was replaced"), "{refused:?}");
    cluster.nodes.truncate(1);
    cluster.nodes[0].restart();
    let backup = cluster.backup_of(0);
    cluster.join(backup, &[]);
    // The ids of what that database may have lacked are given again: a client discards the history that it has.
    let mut moved = ada.at(&cluster.nodes[1]).connect_with(json!({"last_id": id, "epoch": epoch})).await;
    assert_ne!(text(&moved.welcome["epoch"]), epoch);
    assert_eq!(moved.next_of("resync").await, json!({"type": "resync", "after": 0, "last_id": id}));
    assert_eq!(moved.store("meanwhile", "meanwhile").await, id + 1);
    cluster.are_equal().await;
}

/// The files in which a server keeps the entries.
fn blocks(store: &Path) -> Vec<PathBuf> {
    let messages = store.join("jetstream/$G/streams/chinwag/msgs");
    let files = std::fs::read_dir(messages).expect("the server has a store").map(|file| file.expect("a file").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "blk")).collect()
}

/// Flips some bits of what a server keeps, as a disk may do.
fn flip_bits(store: &Path, dice: &mut Dice) {
    for block in blocks(store) {
        let mut bytes = std::fs::read(&block).expect("a block");
        for _ in 0..3 {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        }
        std::fs::write(&block, bytes).expect("a block");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_of_one_replica_are_read_around() {
    let Some(engine) = Engine::three().await else { return };
    let mut cluster = Cluster::start(engine, 3).await;
    let mut dice = Dice::new(seed());
    let load = Load::start(&cluster, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let damaged = cluster.engine.leader().await.expect("somebody leads");
    // Ended in peace it has no reason to look at all that it keeps when it starts.
    cluster.engine.end(damaged, Signal::TERM);
    flip_bits(cluster.engine.store(damaged), &mut dice);
    // It starts, or finds what it cannot start with: two are left that are whole.
    cluster.engine.restart(damaged);
    // Nodes that read the whole log, until one has read what is damaged: JetStream chooses by lot the server that a node
    // reads from.
    within("a node to meet the damage", async {
        loop {
            let base = cluster.copy_of_the_base();
            cluster.join(base, &[]);
            if cluster.nodes.last().expect("a node").log().contains("the log's server leaves out an entry") {
                break;
            }
            cluster.nodes.pop();
        }
    })
    .await;
    // Its store is emptied: it fetches everything from the others.
    cluster.engine.end(damaged, Signal::KILL);
    std::fs::remove_dir_all(cluster.engine.store(damaged)).expect("a store");
    cluster.engine.restart(damaged);
    wait_while("the server to have everything again", async || !cluster.engine.is_in_step().await).await;
    let base = cluster.copy_of_the_base();
    cluster.join(base, &[]);
    load.settle(&cluster).await;
}

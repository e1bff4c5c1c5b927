//! The commands that make a cluster, look at it, and take a database out of it.

use crate::Engine;
use crate::apart::Relay;
use crate::common::{Client, chinwag, wait_while};
use crate::nodes::Cluster;

#[tokio::test]
async fn init_makes_a_log_once_and_says_what_there_is() {
    let Some(engine) = Engine::one().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chinwag.db");
    let flags = engine.flags_from(0);
    let with = |words: &[&'static str]| {
        let arguments = words.iter().copied().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>();
        chinwag(&path, &arguments)
    };
    assert!(with(&["cluster", "status"]).failed().contains("stream not found"));
    engine.init(&path, &[]).await;
    assert!(with(&["cluster", "init", "--replicas", "1"]).failed().contains("follows the log"));
    let other = directory.path().join("other.db");
    let arguments: Vec<_> = ["cluster", "init"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    assert!(chinwag(&other, &arguments).failed().contains("keep a log already"));
    let status = with(&["cluster", "status"]).ok();
    assert!(status.contains("entries    1 to 0") || status.contains("entries    0 to 0"), "{status}");
    assert!(chinwag(&path, &["cluster", "leave"]).failed().contains("give --log"));
    assert!(with(&["cluster", "leave"]).ok().contains("no longer follows the log"));
    assert!(with(&["cluster", "leave"]).failed().contains("follows no log"));
}

#[tokio::test]
async fn a_database_that_lacks_what_the_log_has_does_not_leave() {
    let Some(engine) = Engine::one().await else { return };
    let mut cluster = Cluster::start(engine, 2).await;
    cluster.nodes[1].stop().await;
    Client::register(&cluster.nodes[0], "ada").await;
    let flags = cluster.engine.flags_from(0);
    let leave = |cluster: &Cluster, node: usize| {
        let arguments: Vec<_> = ["cluster", "leave"].into_iter().chain(flags.iter().map(String::as_str)).collect();
        chinwag(&cluster.nodes[node].database_path(), &arguments)
    };
    let refused = leave(&cluster, 1).failed();
    assert!(refused.contains("1 of the other nodes still run"), "{refused}");
    cluster.nodes[0].stop().await;
    let refused = leave(&cluster, 1).failed();
    assert!(refused.contains("what is missing would be lost"), "{refused}");
    assert!(leave(&cluster, 0).ok().contains("no longer follows the log"));
    // Another log has begun: nobody can say what the old one had.
    let other = tempfile::tempdir().unwrap();
    cluster.engine.init(&other.path().join("chinwag.db"), &["--anew"]).await;
    let refused = leave(&cluster, 1).failed();
    assert!(refused.contains("and the servers have another"), "{refused}");
    chinwag(&cluster.nodes[1].database_path(), &["cluster", "leave", "--unchecked"]).ok();
}

#[tokio::test]
async fn init_finds_the_log_that_it_made_when_the_answer_is_late() {
    let Some(engine) = Engine::one().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chinwag.db");
    let relay = Relay::watched(engine.port(0), |said, answers| {
        if said.windows(13).any(|part| part == b"STREAM.CREATE") {
            answers.set(true);
        }
    });
    let log = format!("nats://127.0.0.1:{}", relay.port);
    let init = tokio::task::spawn_blocking({
        let path = path.clone();
        move || chinwag(&path, &["cluster", "init", "--replicas", "1", "--log", &log])
    });
    wait_while("it to look for the log", async || relay.opened() < 2).await;
    relay.heal();
    init.await.unwrap().ok();
    assert!(chinwag(&path, &["cluster", "leave", "--unchecked"]).ok().contains("no longer follows the log"));
}

#[tokio::test]
async fn check_finds_a_server_that_does_not_wait_for_its_disk() {
    for (sync_interval, waits) in [("always", true), ("\"2m\"", false)] {
        let Some(engine) = Engine::of(3, None, sync_interval).await else { return };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chinwag.db");
        engine.init(&path, &[]).await;
        let (flags, monitor) = (engine.flags_from(0), engine.monitor(1));
        let arguments = ["cluster", "check", "--monitor", &monitor].into_iter().chain(flags.iter().map(String::as_str));
        let ended = chinwag(&path, &arguments.collect::<Vec<_>>());
        if waits {
            assert_eq!(ended.ok(), "ok\n");
        } else {
            assert!(ended.stdout.contains("set sync_interval: always"), "{ended:?}");
            assert_eq!(ended.code, 1);
        }
    }
}

#[tokio::test]
async fn check_names_a_log_that_one_server_keeps_and_too_small_a_payload() {
    let Some(engine) = Engine::configured("max_payload: 512KB").await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chinwag.db");
    engine.init(&path, &[]).await;
    let flags = engine.flags_from(0);
    let arguments: Vec<_> = ["cluster", "check"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let ended = chinwag(&path, &arguments);
    assert!(ended.stdout.contains("kept by 1 of the servers"), "{ended:?}");
    assert!(ended.stdout.contains("max_payload is 524288, and must be 1048576"), "{ended:?}");
    assert_eq!(ended.code, 1);
}

#[tokio::test]
async fn offline_commands_are_refused() {
    let Some(engine) = Engine::one().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chinwag.db");
    engine.init(&path, &[]).await;
    assert!(chinwag(&path, &["prune", "--older-than", "1d"]).failed().contains("belongs to a cluster"));
    let export = directory.path().join("export.jsonl");
    chinwag(&path, &["export", export.to_str().unwrap()]).ok();
    assert!(chinwag(&path, &["import", export.to_str().unwrap()]).failed().contains("belongs to a cluster"));
    // A server that does not know of the log must not write to it either.
    assert!(chinwag(&path, &["serve", "--listen", "127.0.0.1:0"]).stderr.contains("belongs to a cluster"));
}

#[tokio::test]
async fn a_backup_that_is_restored_has_left_the_cluster() {
    let Some(engine) = Engine::one().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let (path, backup) = (directory.path().join("chinwag.db"), directory.path().join("backup.db"));
    engine.init(&path, &[]).await;
    chinwag(&path, &["backup", backup.to_str().unwrap()]).ok();
    assert!(
        chinwag(&backup, &["cluster", "leave", "--unchecked"]).ok().contains("no longer follows the log"),
        "a backup is in the cluster"
    );
    chinwag(&path, &["restore", backup.to_str().unwrap()]).ok();
    chinwag(&path, &["prune", "--older-than", "1d"]).ok();
}

#[test]
fn the_servers_of_the_compose_file_have_a_configuration_that_nats_takes() {
    let Some(nats) = crate::engine::program() else { return };
    let compose = include_str!("../../packaging/examples/cluster/compose.yaml");
    let (_, content) = compose.split_once("{content: &conf \"").expect("the file has a configuration");
    let (content, _) = content.split_once("\"}").expect("which ends");
    // As Compose writes it into the file.
    let content = content.replace("\\n", "\n").replace("$$", "$");
    assert!(content.contains("sync_interval: always"), "{content}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nats.conf");
    std::fs::write(&path, content).unwrap();
    let checked =
        std::process::Command::new(nats).arg("-t").arg("--config").arg(&path).env("HOSTNAME", "nats-a").output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

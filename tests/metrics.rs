//! What an operator's Prometheus reads.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Client, Connection, RawClient, Request, TestServer, metric, wait_while, within};
use serde_json::json;

const FLAGS: &[&str] = &["--metrics-listen", "127.0.0.1:0"];

async fn read(address: SocketAddr) -> String {
    let answer = Request::new(address, "GET", "/metrics").send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    assert!(answer.header("Content-Security-Policy").is_some(), "{answer:?}");
    answer.text().to_owned()
}

#[tokio::test]
async fn what_happened_is_counted() {
    let server = TestServer::with(FLAGS);
    let address = server.metrics_address().await;
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut here = ada.connect().await.settled().await;
    let mut there = bob.connect().await.settled().await;
    let contents: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    here.store_all("n", &contents).await;
    there.messages(20).await;
    bob.connect_with(json!({"last_id": 0})).await.messages(20).await;
    server.get("/nowhere").send().await;
    server.get("/messages").send().await;
    let mut stranger = Connection::open(&server).await;
    stranger.send_text("hello").await;
    assert_eq!(stranger.close_code().await, 1008);

    // A round of deliveries is counted when the last one is done.
    let text = within("the deliveries to be counted", async {
        loop {
            let text = read(address).await;
            if metric(&text, "chinwag_deliveries_total") >= 40.0 {
                return text;
            }
        }
    })
    .await;
    let value = |series: &str| metric(&text, series);
    let near = |series: &str, expected: f64| {
        assert!((value(series) - expected).abs() < 0.5, "{series} is {} and not {expected}", value(series));
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.split(['{', ' ']).next().expect("a name");
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series);
        for what in ["HELP", "TYPE"] {
            assert!(text.contains(&format!("# {what} {name} ")), "{what} of {line}");
        }
    }
    near("chinwag_messages_total", 20.0);
    near("chinwag_users_online", 2.0);
    near("chinwag_connections_total", 3.0);
    near("chinwag_refusals_total{reason=\"invalid\"}", 2.0);
    near("chinwag_refusals_total{reason=\"unauthorized\"}", 1.0);
    near("chinwag_batch_messages_sum", 20.0);
    assert!(value("chinwag_commit_seconds_count") >= 1.0 && value("chinwag_commit_seconds_sum") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_open_fds") >= 5.0 && value("process_start_time_seconds") > 1.7e9);
}

#[tokio::test]
async fn a_catch_up_of_several_chunks_is_counted_once() {
    let server = TestServer::with(FLAGS);
    let ada = Client::register(&server, "ada").await;
    // So many that no shard is still to begin with them when the next connection comes.
    let contents: Vec<String> = (0..900).map(|number| number.to_string()).collect();
    ada.connect().await.store_all("n", &contents).await;
    ada.connect_with(json!({"last_id": 0})).await.messages(900).await;
    let text = read(server.metrics_address().await).await;
    assert!((metric(&text, "chinwag_catch_ups_total") - 1.0).abs() < 0.5, "{text}");
}

#[tokio::test]
async fn the_buckets_of_a_histogram_rise_to_its_count() {
    let server = TestServer::with(FLAGS);
    Client::register(&server, "ada").await.connect().await.store("1", "hello").await;
    let text = read(server.metrics_address().await).await;
    let alone = metric(&text, "chinwag_batch_messages_bucket{le=\"1\"}");
    assert!((alone - metric(&text, "chinwag_batch_messages_count")).abs() < 0.5, "no batch had two: {text}");
    for name in ["chinwag_batch_messages", "chinwag_commit_seconds", "chinwag_queue_commands"] {
        let bucket = format!("{name}_bucket{{le=\"");
        let buckets: Vec<(f64, f64)> = text
            .lines()
            .filter_map(|line| line.strip_prefix(&bucket)?.split_once("\"} "))
            .map(|(bound, count)| (bound.replace("+Inf", "inf").parse().unwrap(), count.parse().unwrap()))
            .collect();
        assert!(buckets.is_sorted_by(|lower, upper| lower.0 < upper.0 && lower.1 <= upper.1), "{buckets:?}");
        let (bound, count) = *buckets.last().expect("buckets");
        assert!(bound.is_infinite() && (count - metric(&text, &format!("{name}_count"))).abs() < 0.5, "{buckets:?}");
    }
}

#[tokio::test]
async fn what_is_too_fast_is_counted_as_that() {
    let server = TestServer::with(&["--metrics-listen", "127.0.0.1:0", "--message-rate", "1"]);
    let ada = Client::register(&server, "ada").await;
    let post = async || server.post("/messages").by(&ada).json(&json!({"content": "hello"})).send().await.status;
    wait_while("a refusal", async || post().await != 429).await;
    let mut connection = ada.connect().await;
    within("another, of a frame", async {
        connection.say("hello").await;
        while connection.next().await["code"] != "rate_limited" {
            connection.say("hello").await;
        }
    })
    .await;
    let text = read(server.metrics_address().await).await;
    let counted = |reason: &str| metric(&text, &format!("chinwag_refusals_total{{reason=\"{reason}\"}}"));
    assert!(counted("rate") > 1.5, "one of each: {text}");
    assert!(counted("invalid") + counted("unavailable") < 0.5, "{text}");
}

#[tokio::test]
async fn what_there_is_no_room_for_is_counted_as_that_and_what_is_no_message_in_no_batch() {
    let server = TestServer::with(&["--metrics-listen", "127.0.0.1:0", "--min-free", "1000000G"]);
    let ada = Client::register(&server, "ada").await;
    let post = server.post("/messages").by(&ada).json(&json!({"content": "hello"}));
    assert_eq!(post.send().await.status, 507);
    let text = read(server.metrics_address().await).await;
    let value = |series: &str| metric(&text, series);
    assert!(value("chinwag_refusals_total{reason=\"unavailable\"}") > 0.5, "{text}");
    assert!(value("chinwag_refusals_total{reason=\"invalid\"}") < 0.5, "{text}");
    assert!(value("chinwag_batch_messages_count") < 0.5 && value("chinwag_commit_seconds_count") > 0.5, "{text}");
}

#[tokio::test]
async fn nothing_there_grows_with_the_users() {
    let server = TestServer::with(FLAGS);
    let address = server.metrics_address().await;
    let names = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.rsplit_once(' ').map_or(line, |(series, _)| series).to_owned()).collect()
    };
    let before = names(&read(address).await);
    let mut connections = Vec::new();
    for person in server.seed_people(40).await {
        connections.push(person.connect().await);
    }
    assert_eq!(names(&read(address).await), before);
}

#[tokio::test]
async fn metrics_are_for_their_own_listener_only() {
    let server = TestServer::with(FLAGS);
    assert_eq!(server.get("/metrics").send().await.status, 404);
    let address = server.metrics_address().await;
    for (method, path, status) in [("GET", "/", 404), ("GET", "/messages", 404), ("POST", "/metrics", 405)] {
        let answer = Request::new(address, method, path).send().await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
    }
}

#[tokio::test]
async fn a_few_connections_for_metrics_are_served_at_once_and_the_others_wait() {
    const AT_ONCE: usize = 4;
    let server = TestServer::with(FLAGS);
    let address = server.metrics_address().await;
    let before = server.sockets();
    let mut idle = tokio::task::JoinSet::new();
    for _ in 0..2 * AT_ONCE {
        idle.spawn(RawClient::connect_to(address).await.end());
    }
    wait_while("those who ask nothing to be accepted", async || server.sockets() < before + AT_ONCE).await;
    // One that asks comes in when one of them has been let go.
    let reading = tokio::spawn(read(address));
    while !reading.is_finished() {
        let held = server.sockets().saturating_sub(before);
        assert!(held <= AT_ONCE, "{held} at once");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reading.await.expect("an answer");
}

#[tokio::test]
async fn a_page_whose_name_was_made_to_point_here_reads_no_metrics() {
    let server = TestServer::with(FLAGS);
    let address = server.metrics_address().await;
    for (host, status) in [("prometheus", 200), ("192.0.2.1:9100", 200), ("evil.example", 421)] {
        let mut raw = RawClient::connect_to(address).await;
        raw.send(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        assert_eq!(raw.response().await.status, status, "{host}");
    }
}

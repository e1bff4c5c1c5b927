//! What a message costs the disk: bytes that the kernel was made to write, by `/proc/PID/io`, alone and under load.
//!
//! Flash wears out by bytes written. `cargo test --release --test disk_writes -- --nocapture` prints the figures; the
//! bounds here are loose, and catch only a change of kind, such as a write for each message of a batch.

mod common;

use std::io::Write;

use common::{Client, Connection, TestServer};

/// Bytes written to storage by the server so far. A file system in memory writes none.
fn bytes_written(server: &TestServer) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", server.pid().as_raw_nonzero())).expect("it is in /proc");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).expect("there is such a line");
    line.trim().parse().expect("a number")
}

/// Bytes a message, when each is sent after the one before was acknowledged.
async fn alone(server: &TestServer, sender: &mut Connection, messages: u64) -> u64 {
    let before = bytes_written(server);
    for number in 0..messages {
        sender.store(&format!("alone {number}"), "a message of common length, which is not long").await;
    }
    (bytes_written(server) - before) / messages
}

/// Bytes a message, when dozens are on their way at any time.
async fn under_load(server: &TestServer, sender: &mut Connection, messages: usize) -> u64 {
    let before = bytes_written(server);
    let texts = vec!["a message of common length, which is not long".to_owned(); messages];
    sender.store_all("load", &texts).await;
    (bytes_written(server) - before) / messages as u64
}

#[tokio::test]
async fn a_message_alone_costs_a_few_pages_and_under_load_far_less() {
    for durability in ["full", "normal"] {
        let server = TestServer::with(&["--durability", durability]);
        let mut sender = Client::register(&server, "ada").await.connect().await;
        let alone = alone(&server, &mut sender, 1_000).await;
        let under_load = under_load(&server, &mut sender, 20_000).await;
        let line = format!("--durability {durability}: {alone} bytes a message alone, {under_load} under load\n");
        std::io::stdout().write_all(line.as_bytes()).expect("it is printed");
        assert!(alone < 40_000, "{line}");
        assert!(under_load <= alone / 2, "{line}");
    }
}

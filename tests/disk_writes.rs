//! What a message costs the disk: bytes that the kernel was made to write, by `/proc/PID/io`, alone and under load.
//!
//! Flash wears out by bytes written. `cargo test --release --test disk_writes -- --nocapture` prints the figures; the
//! bounds here are loose, and catch only a change of kind, such as a write for each message of a batch.

mod common;

use std::io::Write;

use common::{Client, FIN, RawClient, TEXT, TestServer, frame, skip};
use serde_json::json;

/// Bytes written to storage by the server so far. A file system in memory writes none.
fn bytes_written(server: &TestServer) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", server.pid().as_raw_nonzero())).expect("it is in /proc");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).expect("there is such a line");
    line.trim().parse().expect("a number")
}

/// Bytes a message, when `at_once` of them come in one packet, and the next packet when all are acknowledged. So it
/// does not depend on how fast the sender is, how many of them share a commit.
async fn cost(server: &TestServer, sender: &mut RawClient, rounds: u64, at_once: u64) -> u64 {
    let before = bytes_written(server);
    for round in 0..rounds {
        let packet: Vec<u8> = (0..at_once)
            .flat_map(|number| {
                let content = "a message of common length, which is not long";
                let nonce = format!("{at_once} {round} {number}");
                let message = json!({"type": "message", "content": content, "nonce": nonce});
                frame(FIN | TEXT, message.to_string().as_bytes())
            })
            .collect();
        sender.send(&packet).await;
        for _ in 0..at_once {
            sender.next_of("ack").await;
        }
    }
    (bytes_written(server) - before) / (rounds * at_once)
}

#[tokio::test]
async fn a_message_alone_costs_a_few_pages_and_under_load_far_less() {
    for durability in ["full", "normal"] {
        let server = TestServer::with(&["--durability", durability]);
        let ada = Client::register(&server, "ada").await;
        let mut sender = RawClient::authenticated(&server, &ada).await;
        let alone = cost(&server, &mut sender, 1_000, 1).await;
        if alone == 0 {
            return skip("this needs a disk to write to");
        }
        let under_load = cost(&server, &mut sender, 400, 48).await;
        let line = format!("--durability {durability}: {alone} bytes a message alone, {under_load} under load\n");
        std::io::stdout().write_all(line.as_bytes()).expect("it is printed");
        assert!(alone < 40_000, "{line}");
        assert!(under_load <= alone / 2, "{line}");
    }
}

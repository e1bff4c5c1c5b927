//! Where it listens, and what it tells the system that started it.

mod common;

use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use common::{Client, RawClient, Request, TestServer, run_to_end, text, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, UnixDatagram, UnixListener, UnixStream};

/// A TCP address that leads to the Unix socket at `path`, for clients who know TCP only.
async fn bridge(path: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, path) = (listener.local_addr().expect("it is bound"), path.to_owned());
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let mut there = UnixStream::connect(&path).await.expect("the server listens");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
        }
    });
    address
}

/// Holds a port that is free, of IPv4 and IPv6, without listening: the server can. `None`: the machine has no IPv6.
fn free_port() -> Option<TcpSocket> {
    let socket = TcpSocket::new_v6().ok()?;
    socket.set_reuseaddr(true).expect("an option of every socket");
    socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).ok()?;
    Some(socket)
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[tokio::test]
async fn a_unix_socket_serves_what_a_port_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chinwag.sock");
    let server = TestServer::with(&["--registration", "open", "--listen", &unix(&path)]);
    let ada = Client::register(&server, "ada").await;
    let mut by_port = ada.connect().await;
    let mut by_path = RawClient::connect_to(bridge(&path).await).await;
    by_path.authenticate(&ada).await;
    by_path.send_text(&json!({"type": "message", "content": "from below"}).to_string()).await;
    assert_eq!(by_port.message().await.content, "from below");
    by_port.say("from above").await;
    assert_eq!(by_path.next_of("message").await["content"], "from below");
    assert_eq!(by_path.next_of("message").await["content"], "from above");
}

#[tokio::test]
async fn a_proxys_connection_is_kept_for_longer_than_a_browsers() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chinwag.sock");
    let server = TestServer::with(&["--listen", &unix(&path)]);
    let request = server.get("/healthz").bytes();
    let mut proxys = RawClient::connect_to(bridge(&path).await).await;
    let mut browsers = RawClient::connect(&server).await;
    for connection in [&mut proxys, &mut browsers] {
        connection.send(&request).await;
        assert_eq!(connection.response().await.status, 200);
    }
    browsers.end().await;
    proxys.send(&request).await;
    assert_eq!(proxys.try_response().await.map(|response| response.status), Some(200));
}

#[tokio::test]
async fn a_slow_reader_on_a_unix_socket_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chinwag.sock");
    let server = TestServer::with(&["--registration", "open", "--listen", &unix(&path)]);
    let ada = Client::register(&server, "ada").await;
    let mut slow = RawClient::connect_to(bridge(&path).await).await;
    slow.authenticate(&ada).await;
    let contents: Vec<String> = (0..600).map(|number| format!("{number}{}", "🦀".repeat(3_900))).collect();
    ada.connect().await.store_all("n", &contents).await;
    for content in &contents {
        assert_eq!(text(&slow.next_of("message").await["content"]), content);
    }
}

#[tokio::test]
async fn every_place_is_listened_at_and_announced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chinwag.sock");
    let mut server = TestServer::with(&["--registration", "open", "--listen", &format!("{},127.0.0.1:0", unix(&path))]);
    server.stop().await;
    let lines = server.stdout();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[..2].iter().all(|line| line.contains("http://127.0.0.1:") && !line.ends_with(":0")), "{lines:?}");
    assert_eq!(lines[2], format!("chinwag is listening on {}", unix(&path)));
}

#[tokio::test]
async fn all_addresses_of_ipv6_go_with_those_of_ipv4_on_one_port() {
    for ipv4 in ["0.0.0.0", "127.0.0.1"] {
        let Some(held) = free_port() else { return };
        let port = held.local_addr().expect("it is bound").port();
        let server = TestServer::with(&["--listen", &format!("{ipv4}:{port},[::]:{port}")]);
        for loopback in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(loopback.parse().expect("an address"), port);
            let health = Request::new(address, "GET", "/healthz").send().await;
            assert_eq!(health.status, 200, "{address}: {}", server.log());
        }
    }
}

#[tokio::test]
async fn all_addresses_of_ipv6_alone_are_those_of_ipv4_too() {
    let Some(held) = free_port() else { return };
    let port = held.local_addr().expect("it is bound").port();
    let _server = TestServer::with(&["--listen", &format!("[::]:{port}")]);
    let health = Request::new(SocketAddr::from(([127, 0, 0, 1], port)), "GET", "/healthz").send().await;
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn a_unix_socket_is_for_its_owner_and_group_and_goes_with_the_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chinwag.sock");
    let mut server = TestServer::with(&["--registration", "open", "--listen", &unix(&path)]);
    let mode = std::fs::metadata(&path).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "its peers are trusted proxies");
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_left_behind_by_a_crash_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chinwag.sock");
    let mut server = TestServer::with(&["--registration", "open", "--listen", &unix(&path)]);
    server.kill().await;
    assert!(is_socket(&path), "nobody could clean up");
    server.restart();
    let health = Request::new(bridge(&path).await, "GET", "/healthz").send().await;
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn a_socket_in_use_and_a_file_that_is_none_are_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (used, file) = (directory.path().join("used.sock"), directory.path().join("letter.txt"));
    let _listener = UnixListener::bind(&used).expect("a socket");
    std::fs::write(&file, "dear reader").expect("a file");
    for path in [&used, &file] {
        let output = run_to_end(&["--listen", &unix(path)], &[]);
        assert_eq!(output.status.code(), Some(1));
        let line = String::from_utf8(output.stderr).expect("text");
        assert!(line.trim_end().lines().count() == 1 && line.contains(&unix(path)), "{line}");
    }
    assert!(is_socket(&used));
    assert_eq!(std::fs::read_to_string(&file).expect("the file is there"), "dear reader");
}

#[tokio::test]
async fn a_socket_that_systemd_passes_takes_the_place_of_the_flag() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    let server = TestServer::with_socket(&["--listen", "192.0.2.1:1"], socket);
    assert_eq!(server.address(), address);
    assert_eq!(server.get("/healthz").send().await.status, 200);
}

#[tokio::test]
async fn systemd_is_told_of_the_start_of_life_and_of_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let notifications = UnixDatagram::bind(&path).expect("a socket");
    let path = path.to_str().expect("text");
    let mut server = TestServer::with_environment(&[], &[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "1000000")]);
    let next = async || {
        let mut buffer = [0; 64];
        let length = within("a notification", notifications.recv(&mut buffer)).await.expect("a datagram");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    };
    assert_eq!(next().await, "READY=1");
    for _ in 0..3 {
        assert_eq!(next().await, "WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    // Read while it stops: a socket full of signs of life has no room for what is waited for.
    let last = within("the end", async {
        loop {
            let state = next().await;
            if state != "WATCHDOG=1" {
                return state;
            }
        }
    });
    assert_eq!(last.await, "STOPPING=1");
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_watchdog_of_no_time_or_of_another_process_is_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let notifications = UnixDatagram::bind(&path).expect("a socket");
    let path = path.to_str().expect("text");
    // The second of them would be told every millisecond.
    for (time, of) in [("0", ""), ("1000", "1")] {
        let mut variables = vec![("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", time)];
        variables.extend((!of.is_empty()).then_some(("WATCHDOG_PID", of)));
        let mut server = TestServer::with_environment(&[], &variables);
        assert_eq!(server.get("/healthz").send().await.status, 200);
        assert_eq!(server.stop().await.code(), Some(0));
        for expected in ["READY=1", "STOPPING=1"] {
            let mut buffer = [0; 64];
            let length = within("a notification", notifications.recv(&mut buffer)).await.expect("a datagram");
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

#[tokio::test]
async fn a_log_for_programs_is_a_json_object_a_line() {
    let mut server = TestServer::with(&["--log-format", "json"]);
    Client::register(&server, "ada").await;
    server.logged("registered").await;
    server.stop().await;
    let log = server.log();
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        assert!(!text(&entry["timestamp"]).is_empty() && entry["level"] == "INFO", "{line}");
    }
    let registered = log.lines().find(|line| line.contains("registered")).expect("a line about it");
    assert_eq!(serde_json::from_str::<Value>(registered).expect("JSON")["user"], "ada");
}

#[tokio::test]
async fn rust_log_sets_the_level_and_a_bad_one_is_said_to_be_bad() {
    let mut quiet = TestServer::with_environment(&[], &[("RUST_LOG", "error")]);
    quiet.stop().await;
    assert_eq!(quiet.log(), "");
    let talkative = TestServer::with_environment(&[], &[("RUST_LOG", "chinwag::router=debug")]);
    talkative.get("/nowhere").send().await;
    talkative.logged("request refused").await;
    let odd = TestServer::with_environment(&[], &[("RUST_LOG", "chinwag=loud")]);
    odd.logged("RUST_LOG is not understood").await;
    odd.logged("listening").await;
}

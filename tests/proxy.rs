//! Behind a proxy: whose address counts, and the id that joins an answer to the log.

mod common;

use common::{Client, PASSWORD, RawClient, Request, Response, TestServer};
use serde_json::json;

/// Tries to log in as somebody who does not exist, forwarded for `addresses`.
async fn login_for(server: &TestServer, addresses: &[&str]) -> Response {
    let account = json!({"username": "nobody", "password": PASSWORD});
    let request = server.post("/login").json(&account);
    addresses.iter().fold(request, |request, address| request.header("X-Forwarded-For", address)).send().await
}

/// Asks for a WebSocket, forwarded for `address`: the connection and the status of the answer.
async fn upgrade_for(server: &TestServer, address: &str) -> (RawClient, u16) {
    let mut client = RawClient::connect(server).await;
    let head = format!("{}Host: chat\r\nX-Forwarded-For: {address}\r\n\r\n", common::HANDSHAKE);
    client.send(head.as_bytes()).await;
    let status = client.response_head().await.status;
    (client, status)
}

#[tokio::test]
async fn what_an_untrusted_peer_forwards_counts_for_nothing_and_is_warned_about_once() {
    let mut server = TestServer::with(&["--auth-rate", "2", "--trusted-proxy", "192.0.2.1"]);
    for last in 1..=2 {
        assert_eq!(login_for(&server, &[&format!("198.51.100.{last}")]).await.status, 401);
    }
    assert_eq!(login_for(&server, &["198.51.100.3"]).await.status, 429, "it is one address all the same");
    let line = server.logged("X-Forwarded-For").await;
    assert!(line.contains("WARN") && line.contains("--trusted-proxy 127.0.0.1"), "{line}");
    server.stop().await;
    assert_eq!(server.log().matches("X-Forwarded-For").count(), 1);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_rate() {
    let mut server = TestServer::with(&["--auth-rate", "1", "--trusted-proxy", "127.0.0.0/8,10.0.0.0/8"]);
    assert_eq!(login_for(&server, &["198.51.100.1"]).await.status, 401);
    assert_eq!(login_for(&server, &["198.51.100.2"]).await.status, 401);
    assert_eq!(login_for(&server, &["198.51.100.1"]).await.status, 429);
    assert_eq!(login_for(&server, &["203.0.113.9, 198.51.100.1"]).await.status, 429, "a claim does not help");
    assert_eq!(login_for(&server, &["203.0.113.9", "198.51.100.1"]).await.status, 429, "nor in a line of its own");
    assert_eq!(login_for(&server, &["198.51.100.1, 10.0.0.7"]).await.status, 429, "nor another trusted proxy");
    assert_eq!(login_for(&server, &["caf\u{e9}, 198.51.100.1"]).await.status, 429, "nor bytes that are no address");
    assert_eq!(login_for(&server, &["2001:db8::1"]).await.status, 401);
    assert_eq!(login_for(&server, &["2001:db8::2"]).await.status, 429, "one /64 is one address");
    server.stop().await;
    assert!(!server.log().contains("is ignored"), "there is nothing to warn about");
}

#[tokio::test]
async fn behind_a_trusted_proxy_unauthenticated_sockets_are_counted_by_client() {
    let server = TestServer::with(&["--address-connections", "1", "--trusted-proxy", "127.0.0.1"]);
    let (first, status) = upgrade_for(&server, "198.51.100.1").await;
    assert_eq!(status, 101);
    let (_second, status) = upgrade_for(&server, "198.51.100.2").await;
    assert_eq!(status, 101);
    let (_, status) = upgrade_for(&server, "198.51.100.1").await;
    assert_eq!(status, 503);
    assert_eq!(server.get("/healthz").send().await.status, 200, "the proxy's own connections are not counted");
    first.reset();
    common::within("the place to be free again", async {
        while upgrade_for(&server, "198.51.100.1").await.1 != 101 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_answer_and_its_log_line_have_one_id() {
    let mut server = TestServer::with_environment(&[], &[("RUST_LOG", "debug")]);
    let answer = server.get("/nowhere?secret=1").send().await;
    let id = answer.header("X-Request-Id").expect("an id").to_owned();
    let line = server.logged(&id).await;
    for part in ["request refused", "path=\"/nowhere\"", "method=GET", "status=404", "code=\"not_found\"", "127.0.0.1"]
    {
        assert!(line.contains(part), "{part} is missing: {line}");
    }
    let other = server.get("/nowhere").send().await;
    assert_ne!(other.header("X-Request-Id"), Some(&*id));
    assert_eq!(server.get("/healthz").send().await.header("X-Request-Id"), None, "there is nothing to join");
    server.stop().await;
    assert!(!server.log().contains("secret"), "a query is nobody's business");
}

#[tokio::test]
async fn an_upgrade_that_is_refused_has_an_id_too() {
    let server = TestServer::start();
    let answer = server.get("/ws").header("Sec-WebSocket-Version", "7").send().await;
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    assert!(answer.header("X-Request-Id").is_some());
}

#[tokio::test]
async fn the_id_that_a_trusted_proxy_gave_is_kept() {
    let ask = |server: &TestServer| server.get("/nowhere").header("X-Request-Id", "from-the-proxy");
    let trusting = TestServer::with(&["--trusted-proxy", "127.0.0.1"]);
    assert_eq!(ask(&trusting).send().await.header("X-Request-Id"), Some("from-the-proxy"));
    let odd = trusting.get("/nowhere").header("X-Request-Id", "a\"b").send().await;
    assert_ne!(odd.header("X-Request-Id"), Some("a\"b"));
    let distrustful = TestServer::start();
    assert_ne!(ask(&distrustful).send().await.header("X-Request-Id"), Some("from-the-proxy"));
}

#[tokio::test]
async fn a_wrong_password_is_logged_with_the_clients_address_but_not_without_bound() {
    let server = TestServer::with(&["--trusted-proxy", "127.0.0.1"]);
    Client::register(&server, "ada").await;
    login_for(&server, &["198.51.100.1"]).await;
    let line = server.logged("invalid_credentials").await;
    assert!(line.contains("INFO") && line.contains("address=198.51.100.1"), "{line}");

    let mut server = TestServer::with(&["--registration", "closed"]);
    let mut connection = RawClient::connect(&server).await;
    let request = Request::new(server.address(), "POST", "/register").json(&json!({})).bytes();
    for _ in 0..1_000 {
        connection.send(&request).await;
        assert_eq!(connection.response().await.status, 403);
        if connection.try_send(&[]).await {
            connection = RawClient::connect(&server).await;
        }
    }
    server.stop().await;
    let lines = server.log().matches("registration_closed").count();
    assert!((1..500).contains(&lines), "{lines} lines for 1,000 refusals");
}

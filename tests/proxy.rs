//! Behind a proxy: whose address counts, and the id that joins an answer to the log.

mod common;

use common::{CLOSE, Client, FIN, PASSWORD, RawClient, Request, Response, TestServer, wait_while, within};
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
    assert_eq!(login_for(&server, &["fe80::1%eth0"]).await.status, 401, "an address with its interface is no proxy's");
    assert_eq!(login_for(&server, &["fe80::1"]).await.status, 429, "and it is one with and without");
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
    wait_while("the place to be free again", async || upgrade_for(&server, "198.51.100.1").await.1 != 101).await;
}

/// Enters as `client`, forwarded for `address`: the connection, or the status or the close code that it was refused
/// with.
async fn enter_for(server: &TestServer, client: &Client, address: &str) -> Result<RawClient, u16> {
    let (mut raw, status) = upgrade_for(server, address).await;
    if status != 101 {
        return Err(status);
    }
    raw.send_text(&json!({"type": "auth", "token": client.token}).to_string()).await;
    let answer = raw.frame().await;
    if answer.first == FIN | CLOSE {
        return Err(u16::from_be_bytes([answer.payload[0], answer.payload[1]]));
    }
    assert!(String::from_utf8_lossy(&answer.payload).contains("auth_success"), "{answer:?}");
    Ok(raw)
}

#[tokio::test]
async fn no_address_takes_more_than_three_quarters_of_all_places_with_accounts_either() {
    let flags = ["--max-connections", "16", "--address-connections", "64", "--trusted-proxy", "127.0.0.1"];
    let server = TestServer::with(&flags);
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut inside = Vec::new();
    for _ in 0..6 {
        for client in [&ada, &bob] {
            inside.push(enter_for(&server, client, "198.51.100.1").await.expect("one of three quarters"));
        }
    }
    assert_eq!(enter_for(&server, &ada, "198.51.100.1").await.err(), Some(1013));
    let mut elsewhere = enter_for(&server, &ada, "198.51.100.2").await.expect("a place that was kept");
    elsewhere.send_text(&json!({"type": "message", "content": "hello"}).to_string()).await;
    assert_eq!(inside[0].next_of("message").await["content"], "hello", "those inside stay");
    inside.pop().expect("the last").reset();
    within("its place", async { while enter_for(&server, &ada, "198.51.100.1").await.is_err() {} }).await;
}

#[tokio::test]
async fn strangers_of_however_many_addresses_leave_places_to_those_who_came_in_before() {
    let flags = ["--max-connections", "16", "--address-connections", "64", "--trusted-proxy", "127.0.0.1"];
    let server = TestServer::with(&flags);
    let ada = Client::register(&server, "ada").await;
    enter_for(&server, &ada, "198.51.100.1").await.expect("there is room").reset();
    let mut strangers = Vec::new();
    let refused = within("no place to be left for strangers", async {
        for address in 0.. {
            match upgrade_for(&server, &format!("203.0.113.{address}")).await {
                (stranger, 101) => strangers.push(stranger),
                (_, status) => return status,
            }
        }
        unreachable!("addresses never end")
    });
    assert_eq!(refused.await, 503);
    assert_eq!(enter_for(&server, &ada, "192.0.2.1").await.err(), Some(503), "who comes from elsewhere waits");
    let mut ada = enter_for(&server, &ada, "198.51.100.1").await.expect("a place that was kept");
    ada.send_text(&json!({"type": "message", "content": "inside"}).to_string()).await;
    assert_eq!(ada.next_of("message").await["content"], "inside");
}

#[tokio::test]
async fn an_address_connections_of_0_lifts_all_that_an_address_and_strangers_leave_to_others() {
    let flags = ["--max-connections", "16", "--address-connections", "0", "--trusted-proxy", "127.0.0.1"];
    let mut server = TestServer::with(&flags);
    let ada = Client::register(&server, "ada").await;
    let mut inside = Vec::new();
    // Past the three quarters that are for one address; those that ada came by to log in may not be free yet.
    for number in 0..14 {
        inside.push(enter_for(&server, &ada, "198.51.100.1").await.unwrap_or_else(|code| panic!("{number}: {code}")));
    }
    server.stop().await;
    server.restart();
    let mut strangers = Vec::new();
    for number in 0..16 {
        // Half is for one network of IPv6, and the last eighth for addresses that are known.
        let (stranger, status) = upgrade_for(&server, "2001:db8::1").await;
        assert_eq!(status, 101, "{number}");
        strangers.push(stranger);
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_what_a_client_may_not_have_read_yet_counts() {
    let server = TestServer::with(&["--address-connections", "2", "--trusted-proxy", "127.0.0.1"]);
    let ask = async |proxy: &mut RawClient, client: &str| {
        let head = format!("GET /about HTTP/1.1\r\nHost: chat\r\nX-Forwarded-For: {client}\r\n\r\n");
        proxy.send(head.as_bytes()).await;
        proxy.response().await.status
    };
    let mut proxy = Vec::new();
    for _ in 0..4 {
        proxy.push(RawClient::connect(&server).await);
    }
    assert_eq!(ask(&mut proxy[0], "198.51.100.1").await, 200);
    assert_eq!(ask(&mut proxy[1], "198.51.100.1").await, 200);
    assert_eq!(ask(&mut proxy[2], "198.51.100.1").await, 503, "two answers may be on their way to it");
    assert_eq!(ask(&mut proxy[3], "198.51.100.2").await, 200, "another client");
    assert_eq!(ask(&mut proxy[0], "198.51.100.1").await, 200, "in place of the one before");
    assert_eq!(ask(&mut proxy[1], "198.51.100.2").await, 200);
    assert_eq!(ask(&mut proxy[2], "198.51.100.1").await, 200, "the other connection has gone on to another client");
}

#[tokio::test]
async fn sockets_of_many_networks_of_one_ipv6_customer_are_counted_together() {
    let server = TestServer::with(&["--address-connections", "1", "--trusted-proxy", "127.0.0.1"]);
    let mut inside = Vec::new();
    for network in 0..4 {
        let (socket, status) = upgrade_for(&server, &format!("2001:db8:0:{network:x}::1")).await;
        assert_eq!(status, 101);
        inside.push(socket);
    }
    assert_eq!(upgrade_for(&server, "2001:db8:0:4::1").await.1, 503, "a fifth /64 of one /56");
    for network in 1..4 {
        for inner in 0..4 {
            let (socket, status) = upgrade_for(&server, &format!("2001:db8:0:{network:x}0{inner:x}::1")).await;
            assert_eq!(status, 101);
            inside.push(socket);
        }
    }
    assert_eq!(upgrade_for(&server, "2001:db8:0:400::1").await.1, 503, "a fifth /56 of one /48");
    assert_eq!(upgrade_for(&server, "2001:db8:1::1").await.1, 101, "another customer");
    inside.pop().expect("the last").reset();
    wait_while("a place in the /48", async || upgrade_for(&server, "2001:db8:0:400::1").await.1 != 101).await;
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

//! The example `packaging/examples/nginx.conf`, behind the real nginx: `cargo test --test nginx -- --ignored` on a machine that
//! has one.

mod common;

use std::process::{Child, Command, Stdio};

use common::{Client, HANDSHAKE, PASSWORD, RawClient, Request, TestServer, within};
use serde_json::json;

/// An nginx with the example's configuration in front of a server; it ends with the value.
struct Nginx {
    process: Child,
    address: std::net::SocketAddr,
    _directory: tempfile::TempDir,
}

impl Nginx {
    /// Starts it in front of `upstream`, in nginx's notation.
    async fn start(upstream: &str) -> Nginx {
        let directory = tempfile::tempdir().expect("a directory");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let example = include_str!("../packaging/examples/nginx.conf");
        let example = example
            .replace("server 127.0.0.1:8080;", &format!("server {upstream};"))
            .replace("listen 80;", &format!("listen {address};"));
        assert!(example.contains(upstream) && example.contains(&address.to_string()), "the example names both");
        let config = format!(
            "daemon off; pid {0}/pid; error_log stderr; worker_processes 1; user root;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log {0}/access.log; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n\
             fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n{example}\n}}\n",
            directory.path().display()
        );
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, config).expect("a file");
        let process = Command::new("nginx")
            .args(["-e", "stderr", "-p"])
            .arg(directory.path())
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        // It owns the process before anything can fail.
        let nginx = Nginx { process, address, _directory: directory };
        within("nginx to listen", async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        nginx
    }

    /// Logs in over nginx as somebody who does not exist, claiming to be forwarded for `claim`.
    async fn login(&self, claim: &str) -> u16 {
        let account = json!({"username": "nobody", "password": PASSWORD});
        let request = Request::new(self.address, "POST", "/login").header("X-Forwarded-For", claim);
        request.json(&account).send().await.status
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it only if it is asked to end, and not if it is killed.
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.process.wait().ok();
    }
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn people_talk_through_nginx() {
    let server = TestServer::with(&["--trusted-proxy", "127.0.0.1"]);
    let nginx = Nginx::start(&server.address().to_string()).await;
    let page = Request::new(nginx.address, "GET", "/").send().await;
    assert_eq!(page.status, 200);

    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut here = RawClient::connect_to(nginx.address).await;
    here.authenticate(&ada).await;
    let mut there = RawClient::connect_to(nginx.address).await;
    there.authenticate(&bob).await;
    for number in 0..50 {
        here.send_text(&json!({"type": "message", "content": number.to_string()}).to_string()).await;
    }
    for number in 0..50 {
        assert_eq!(there.next_of("message").await["content"], number.to_string());
    }

    let refused = Request::new(nginx.address, "GET", "/nowhere").send().await;
    let id = refused.header("X-Request-Id").expect("an id");
    assert_eq!(id.len(), 32, "it is nginx's");
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn a_page_opens_a_socket_to_the_host_it_came_from_and_no_other_does() {
    let server = TestServer::with(&["--trusted-proxy", "127.0.0.1"]);
    let nginx = Nginx::start(&server.address().to_string()).await;
    for (origin, status) in [("https://chat.example", 101), ("https://elsewhere.example", 403)] {
        let mut client = RawClient::connect_to(nginx.address).await;
        client.send(format!("{HANDSHAKE}Host: chat.example\r\nOrigin: {origin}\r\n\r\n").as_bytes()).await;
        assert_eq!(client.response_head().await.status, status, "{origin}");
    }
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_tells_the_clients_address_and_a_client_cannot() {
    let trusting = TestServer::with(&["--auth-rate", "2", "--trusted-proxy", "127.0.0.1"]);
    let nginx = Nginx::start(&trusting.address().to_string()).await;
    assert_eq!(nginx.login("198.51.100.1").await, 401);
    assert_eq!(nginx.login("198.51.100.2").await, 401);
    assert_eq!(nginx.login("198.51.100.3").await, 429, "the address is nginx's word, not the client's");
    let direct = trusting.post("/login").header("X-Forwarded-For", "198.51.100.4");
    let direct = direct.json(&json!({"username": "nobody", "password": PASSWORD})).send().await;
    assert_eq!(direct.status, 401, "a trusted peer's word is taken, so the port must not be open to others");
    drop(nginx);

    let distrustful = TestServer::start();
    let nginx = Nginx::start(&distrustful.address().to_string()).await;
    nginx.login("198.51.100.1").await;
    distrustful.logged("X-Forwarded-For from this machine is ignored").await;
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_over_a_unix_socket_is_trusted_unasked() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chinwag.sock");
    let server = TestServer::with(&["--auth-rate", "1", "--listen", &format!("unix:{}", path.display())]);
    let nginx = Nginx::start(&format!("unix:{}", path.display())).await;
    assert_eq!(nginx.login("198.51.100.1").await, 401);
    assert_eq!(nginx.login("198.51.100.1").await, 429);
    let line = server.logged("rate_limited").await;
    assert!(line.contains("address=127.0.0.1"), "nginx's client is this test: {line}");
}

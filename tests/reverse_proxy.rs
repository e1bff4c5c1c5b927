//! The examples of `packaging/examples`, behind the real nginx and the real Caddy: `cargo test --test reverse_proxy --
//! --ignored` on a machine that has both.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Client, HANDSHAKE, PASSWORD, RawClient, Request, TestServer, reserved_port, wait_while, within};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

/// The proxies that have an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    Caddy,
}

const KINDS: [Kind; 2] = [Kind::Nginx, Kind::Caddy];

/// A proxy with its example's configuration in front of a server; it ends with the value.
struct Proxy {
    process: Child,
    address: std::net::SocketAddr,
    _port: tokio::net::TcpSocket,
    _directory: tempfile::TempDir,
}

impl Kind {
    fn example(self) -> &'static str {
        match self {
            Kind::Nginx => include_str!("../packaging/examples/nginx.conf"),
            Kind::Caddy => include_str!("../packaging/examples/Caddyfile"),
        }
    }

    /// Starts it in front of `upstream`, in its notation.
    async fn start(self, upstream: &str) -> Proxy {
        self.start_with(upstream, self.example()).await
    }

    /// The same, where the chat is at `/chat/`.
    async fn start_under_a_path(self, upstream: &str) -> Proxy {
        let moved = match self {
            Kind::Nginx => self
                .example()
                .replace("location / {", "location /chat/ {")
                .replace("proxy_pass http://chinwag;", "proxy_pass http://chinwag/;"),
            // What closed the site closes the path's part of it.
            Kind::Caddy => {
                self.example()
                    .replace("\treverse_proxy", "\tredir /chat /chat/ 301\n\thandle_path /chat/* {\n\treverse_proxy")
                    + "}\n"
            }
        };
        self.start_with(upstream, &moved).await
    }

    async fn start_with(self, upstream: &str, example: &str) -> Proxy {
        let directory = tempfile::tempdir().expect("a directory");
        let port = reserved_port();
        let address = port.local_addr().expect("it is bound");
        let (site, here) = match self {
            Kind::Nginx => ("listen 80;", format!("listen {address};")),
            // Any name, and no certificate: there is nobody here who would give one.
            Kind::Caddy => ("chat.example {", format!("http://:{} {{\n\tbind 127.0.0.1", address.port())),
        };
        let example = example.replace("127.0.0.1:8080", upstream).replace(site, &here);
        assert!(example.contains(upstream) && example.contains(&here), "the example names both");
        let path = directory.path().join("configuration");
        std::fs::write(&path, self.configuration(directory.path(), &example)).expect("a file");
        let mut command = match self {
            Kind::Nginx => Command::new("nginx"),
            Kind::Caddy => Command::new("caddy"),
        };
        match self {
            Kind::Nginx => command.args(["-e", "stderr", "-p"]).arg(directory.path()).arg("-c").arg(&path),
            Kind::Caddy => command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&path),
        };
        // Where Caddy keeps its own things.
        command.env("HOME", directory.path()).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        let process = command.stdin(Stdio::null()).spawn().expect("nginx and Caddy are installed");
        // It owns the process before anything can fail.
        let proxy = Proxy { process, address, _port: port, _directory: directory };
        wait_while("the proxy to listen", async || TcpStream::connect(address).await.is_err()).await;
        proxy
    }

    /// What stands around the example in a configuration that needs no root.
    fn configuration(self, directory: &Path, example: &str) -> String {
        match self {
            Kind::Nginx => format!(
                "daemon off; pid {0}/pid; error_log stderr; worker_processes 1; user root;\n\
                 events {{ worker_connections 64; }}\n\
                 http {{ access_log {0}/access.log; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n\
                 fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n{example}\n}}\n",
                directory.display()
            ),
            Kind::Caddy => format!("{{\n\tadmin off\n}}\n{example}\n"),
        }
    }
}

impl Proxy {
    /// Logs in over the proxy as somebody who does not exist, claiming to be forwarded for `claim`.
    async fn login(&self, claim: &str) -> u16 {
        let account = json!({"username": "nobody", "password": PASSWORD});
        let request = Request::new(self.address, "POST", "/login").header("X-Forwarded-For", claim);
        request.json(&account).send().await.status
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's worker ends with it only if it is asked to end, and not if it is killed.
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.process.wait().ok();
    }
}

#[tokio::test]
#[ignore = "needs nginx and Caddy"]
async fn people_talk_through_a_proxy() {
    for kind in KINDS {
        talk_through(kind).await;
    }
}

async fn talk_through(kind: Kind) {
    let server = TestServer::with(&["--trusted-proxy", "127.0.0.1"]);
    let proxy = kind.start(&server.address().to_string()).await;
    let page = Request::new(proxy.address, "GET", "/").send().await;
    assert_eq!(page.status, 200);

    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut here = RawClient::connect_to(proxy.address).await;
    here.authenticate(&ada).await;
    let mut there = RawClient::connect_to(proxy.address).await;
    there.authenticate(&bob).await;
    for number in 0..50 {
        here.send_text(&json!({"type": "message", "content": number.to_string()}).to_string()).await;
    }
    for number in 0..50 {
        assert_eq!(there.next_of("message").await["content"], number.to_string());
    }

    let refused = Request::new(proxy.address, "GET", "/nowhere").send().await;
    let id = refused.header("X-Request-Id").expect("an id");
    assert!(kind != Kind::Nginx || id.len() == 32, "it is nginx's");
}

/// The addresses that a file names: of a page those of links and sources, of a script those of what it imports.
fn addresses_in(path: &str, content: &str) -> Vec<String> {
    let is_script = Path::new(path).extension().is_some_and(|kind| kind == "js");
    let before: &[&str] =
        if is_script { &["from \"", "import \"", "import(\""] } else { &["href=\"", "src=\"", "\"src\": \""] };
    let named = before.iter().flat_map(|before| content.split(before).skip(1));
    let named = named.filter_map(|rest| rest.split_once('"')).map(|(address, _)| address);
    named.filter(|address| !address.is_empty() && !address.starts_with('#')).map(str::to_owned).collect()
}

/// The paths, below that of the page, of the modules that a script loads when they are first wanted.
fn loaded_by(content: &str) -> impl Iterator<Item = String> {
    ["view/", "store/"].into_iter().flat_map(move |folder| {
        let named = content.split(&format!("\"{folder}")).skip(1).map(str::to_owned).collect::<Vec<_>>();
        named.into_iter().filter_map(move |rest| Some(format!("{folder}{}", rest.split_once('"')?.0)))
    })
}

/// The path of an address that the file at `path` names.
fn resolved(path: &str, address: &str) -> String {
    let mut segments: Vec<&str> = path.split('/').collect();
    segments.pop();
    for segment in address.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.join("/")
}

#[tokio::test]
#[ignore = "needs nginx and Caddy"]
async fn under_a_path_each_file_of_the_page_is_found_and_people_talk() {
    for kind in KINDS {
        talk_under_a_path(kind).await;
    }
}

async fn talk_under_a_path(kind: Kind) {
    let server = TestServer::with(&["--trusted-proxy", "127.0.0.1", "--public-url", "http://chat.example/chat/"]);
    let proxy = kind.start_under_a_path(&server.address().to_string()).await;
    let get = async |path: &str| Request::new(proxy.address, "GET", path).send().await;
    assert_eq!(get("/chat").await.status, 301);
    let (mut found, mut next) = (BTreeSet::new(), vec!["/chat/".to_owned(), "/chat/sw.js".to_owned()]);
    while let Some(path) = next.pop() {
        if !found.insert(path.clone()) {
            continue;
        }
        let file = get(&path).await;
        assert_eq!(file.status, 200, "{path}");
        let content = String::from_utf8_lossy(&file.body);
        next.extend(loaded_by(&content).map(|module| format!("/chat/{module}")));
        for address in addresses_in(&path, &content) {
            assert!(!address.starts_with('/') && !address.contains(':'), "{path} names {address}");
            next.push(resolved(&path, &address));
        }
    }
    for file in ["/chat/app.css", "/chat/manifest.webmanifest", "/chat/icons/icon-512.png", "/chat/view/chat.js"] {
        assert!(found.contains(file), "{file} is not among {found:?}");
    }

    let account = json!({"username": "ada", "password": PASSWORD});
    assert_eq!(Request::new(proxy.address, "POST", "/chat/register").json(&account).send().await.status, 201);
    let ada = Client::login(&server, "ada").await;
    let mut socket = RawClient::connect_to(proxy.address).await;
    let head = HANDSHAKE.replace("GET /ws", "GET /chat/ws");
    socket.send(format!("{head}Host: chat.example\r\nOrigin: http://chat.example\r\n\r\n").as_bytes()).await;
    assert_eq!(socket.response_head().await.status, 101);
    socket.send_text(&json!({"type": "auth", "token": ada.token}).to_string()).await;
    assert_eq!(socket.json().await["type"], "auth_success");
    socket.send_text(&json!({"type": "message", "content": "under a path"}).to_string()).await;
    assert_eq!(socket.next_of("message").await["content"], "under a path");
}

#[tokio::test]
#[ignore = "needs nginx and Caddy"]
async fn a_connection_that_is_kept_for_more_requests_is_ended_by_the_proxy_and_not_under_its_hands() {
    for kind in KINDS {
        assert_eq!(first_to_end_an_idle_connection(kind).await, "the proxy", "{kind:?}");
    }
}

async fn first_to_end_an_idle_connection(kind: Kind) -> &'static str {
    let server = TestServer::with(&["--trusted-proxy", "127.0.0.1"]);
    let between = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = kind.start(&between.local_addr().expect("it is bound").to_string()).await;
    let request = tokio::spawn(Request::new(proxy.address, "GET", "/healthz").send());
    let (mut of_proxy, _) = within("the proxy", between.accept()).await.expect("a connection");
    let mut of_server = TcpStream::connect(server.address()).await.expect("the server listens");
    let ((mut from_proxy, mut to_proxy), (mut from_server, mut to_server)) = (of_proxy.split(), of_server.split());
    let first = within("the end of an idle connection", async {
        tokio::select! {
            _ = tokio::io::copy(&mut from_proxy, &mut to_server) => "the proxy",
            _ = tokio::io::copy(&mut from_server, &mut to_proxy) => "the server",
        }
    });
    let first = first.await;
    assert_eq!(request.await.expect("no panic").status, 200);
    first
}

#[tokio::test]
#[ignore = "needs nginx and Caddy"]
async fn a_page_opens_a_socket_to_the_host_it_came_from_and_no_other_does() {
    let server = TestServer::with(&["--trusted-proxy", "127.0.0.1"]);
    for kind in KINDS {
        let proxy = kind.start(&server.address().to_string()).await;
        for (origin, status) in [("https://chat.example", 101), ("https://elsewhere.example", 403)] {
            let mut client = RawClient::connect_to(proxy.address).await;
            client.send(format!("{HANDSHAKE}Host: chat.example\r\nOrigin: {origin}\r\n\r\n").as_bytes()).await;
            assert_eq!(client.response_head().await.status, status, "{kind:?}, {origin}");
        }
    }
}

#[tokio::test]
#[ignore = "needs nginx and Caddy"]
async fn a_proxy_tells_the_clients_address_and_a_client_cannot() {
    for kind in KINDS {
        tell_the_clients_address(kind).await;
    }
}

async fn tell_the_clients_address(kind: Kind) {
    let trusting = TestServer::with(&["--auth-rate", "2", "--trusted-proxy", "127.0.0.1"]);
    let proxy = kind.start(&trusting.address().to_string()).await;
    assert_eq!(proxy.login("198.51.100.1").await, 401);
    assert_eq!(proxy.login("198.51.100.2").await, 401);
    assert_eq!(proxy.login("198.51.100.3").await, 429, "the address is the proxy's word, not the client's");
    let direct = trusting.post("/login").header("X-Forwarded-For", "198.51.100.4");
    let direct = direct.json(&json!({"username": "nobody", "password": PASSWORD})).send().await;
    assert_eq!(direct.status, 401, "a trusted peer's word is taken, so the port must not be open to others");
    drop(proxy);

    let distrustful = TestServer::start();
    let proxy = kind.start(&distrustful.address().to_string()).await;
    proxy.login("198.51.100.1").await;
    distrustful.logged("X-Forwarded-For from this machine is ignored").await;
}

#[tokio::test]
#[ignore = "needs nginx and Caddy"]
async fn behind_a_proxy_that_asks_for_a_password_of_its_own_a_session_has_its_own_header() {
    let server = TestServer::with(&["--trusted-proxy", "127.0.0.1"]);
    let ada = Client::register(&server, "ada").await;
    let directory = tempfile::tempdir().expect("a directory");
    let users = directory.path().join("users");
    std::fs::write(&users, "somebody:{PLAIN}secret\n").expect("a file");
    let asking = format!("location / {{\nauth_basic here; auth_basic_user_file {};", users.display());
    let example = Kind::Nginx.example().replace("location / {", &asking);
    let proxy = Kind::Nginx.start_with(&server.address().to_string(), &example).await;
    for (account, status) in [("c29tZWJvZHk6c2VjcmV0", 200), ("c29tZWJvZHk6d3Jvbmc=", 401)] {
        let rooms = Request::new(proxy.address, "GET", "/rooms").header("Authorization", &format!("Basic {account}"));
        assert_eq!(rooms.header("Chinwag-Token", &ada.token).send().await.status, status);
    }
}

#[tokio::test]
#[ignore = "needs nginx and Caddy"]
async fn a_proxy_over_a_unix_socket_is_trusted_unasked() {
    for (kind, prefix) in [(Kind::Nginx, "unix:"), (Kind::Caddy, "unix/")] {
        trust_over_a_unix_socket(kind, prefix).await;
    }
}

async fn trust_over_a_unix_socket(kind: Kind, prefix: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chinwag.sock");
    let server = TestServer::with(&["--auth-rate", "1", "--listen", &format!("unix:{}", path.display())]);
    let proxy = kind.start(&format!("{prefix}{}", path.display())).await;
    assert_eq!(proxy.login("198.51.100.1").await, 401);
    assert_eq!(proxy.login("198.51.100.1").await, 429);
    let line = server.logged("rate_limited").await;
    assert!(line.contains("address=127.0.0.1"), "the proxy's client is this test: {line}");
}

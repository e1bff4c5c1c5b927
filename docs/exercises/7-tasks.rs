//! The exercise: a server of one's own, `cargo run --example mine -- PORT DATABASE`. `CHINWAG_EXERCISE` names another
//! example.

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command};

use common::{FIN, RawClient, TEXT, int, reserved_port, text, within};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

/// The server in a process of its own, which ends with the value.
struct Mine {
    process: Child,
    address: SocketAddr,
    _port: TcpSocket,
    _directory: tempfile::TempDir,
}

impl Drop for Mine {
    fn drop(&mut self) {
        // Both fail only if the process has ended by itself, which is as good.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Mine {
    async fn start() -> Mine {
        let name = std::env::var("CHINWAG_EXERCISE").unwrap_or_else(|_| "mine".into());
        let cargo = |command: &str| {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args([command, "--locked", "--quiet", "--example", &name]).current_dir(env!("CARGO_MANIFEST_DIR"));
            cargo
        };
        let built = cargo("build").status().expect("cargo runs");
        assert!(built.success(), "there is no examples/{name}.rs, or it is wrong");
        let (port, directory) = (reserved_port(), tempfile::tempdir().expect("a temporary directory"));
        let address = port.local_addr().expect("it is bound");
        let database = directory.path().join("mine.db");
        let process = cargo("run").arg("--").arg(address.port().to_string()).arg(database).spawn().expect("it runs");
        within("the server to listen", async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        Mine { process, address, _port: port, _directory: directory }
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let (body, address) = (body.to_string(), self.address);
        let mut connection = RawClient::connect_to(address).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n");
        connection.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        let answer = connection.response().await;
        assert!(answer.status < 300, "{path}: {answer:?}");
        answer.json()
    }

    /// Somebody's token.
    async fn register(&self, username: &str) -> String {
        let account = json!({"username": username, "password": "correct horse"});
        self.post("/register", &account).await;
        text(&self.post("/login", &account).await["token"]).to_owned()
    }

    async fn connect(&self, token: &str, more: Value) -> RawClient {
        let mut connection = RawClient::connect_to(self.address).await;
        connection.upgrade().await;
        let mut auth = json!({"type": "auth", "token": token});
        auth.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        connection.send_text(&auth.to_string()).await;
        next_of(&mut connection, "auth_success").await;
        connection
    }
}

/// The next frame of this type.
async fn next_of(connection: &mut RawClient, kind: &str) -> Value {
    loop {
        let frame = connection.frame().await;
        let value: Value = if frame.first == FIN | TEXT {
            serde_json::from_slice(&frame.payload).expect("text frames are JSON")
        } else {
            Value::Null
        };
        if value["type"] == kind {
            return value;
        }
    }
}

#[tokio::test]
async fn everybody_gets_every_message_once_and_in_one_order_and_who_was_away_too() {
    const EACH: usize = 100;
    let server = Mine::start().await;
    let tokens = [server.register("ada").await, server.register("bob").await];
    let mut ada = server.connect(&tokens[0], json!({})).await;
    let mut bob = server.connect(&tokens[1], json!({})).await;
    for number in 0..EACH {
        for (name, connection) in [("ada", &mut ada), ("bob", &mut bob)] {
            let (content, nonce) = (format!("{name} {number}"), number.to_string());
            connection.send_text(&json!({"type": "message", "content": content, "nonce": nonce}).to_string()).await;
        }
    }
    let mut orders = Vec::new();
    for connection in [&mut ada, &mut bob] {
        let mut order = Vec::new();
        while order.len() < 2 * EACH {
            let message = next_of(connection, "message").await;
            order.push((int(&message["id"]), text(&message["content"]).to_owned()));
        }
        assert!(order.is_sorted_by(|one, next| one.0 < next.0), "ids rise: {order:?}");
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1]);
    let mut back = server.connect(&tokens[1], json!({"last_id": orders[0][EACH].0})).await;
    for (id, content) in &orders[0][EACH + 1..] {
        let message = next_of(&mut back, "message").await;
        assert_eq!((int(&message["id"]), text(&message["content"])), (*id, content.as_str()));
    }
}

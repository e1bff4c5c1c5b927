//! A person with a session, and the connections they open.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

use super::http::Request;
use super::raw::{all_read, tcp_connect};
use super::schema::check_frame;
use super::{Message, TestServer, int, text, within};

/// Everybody's password.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A person who has logged in.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    pub(crate) username: String,
    pub(crate) token: String,
    /// The size of their sockets' receive buffers, if it is not the kernel's choice.
    receive_buffer: Option<u32>,
}

impl Client {
    /// Creates an account and logs in to it.
    pub(crate) async fn register(server: &TestServer, username: &str) -> Client {
        let account = json!({"username": username, "password": PASSWORD});
        let response = server.post("/register").json(&account).send().await;
        assert_eq!(response.status, 201, "{response:?}");
        Client::login(server, username).await
    }

    /// Logs in to an account that is there: one more session.
    pub(crate) async fn login(server: &TestServer, username: &str) -> Client {
        let account = json!({"username": username, "password": PASSWORD});
        let response = server.post("/login").json(&account).send().await;
        assert_eq!(response.status, 200, "{response:?}");
        Client::known(server, username, text(&response.json()["token"]))
    }

    /// Somebody whose token is known already.
    pub(crate) fn known(server: &TestServer, username: &str, token: &str) -> Client {
        Client {
            address: server.address(),
            username: username.to_owned(),
            token: token.to_owned(),
            receive_buffer: None,
        }
    }

    /// The same person on a thin line: what they do not read soon fills their socket and waits in the server.
    pub(crate) fn far_away(&self) -> Client {
        Client { receive_buffer: Some(4 << 10), ..self.clone() }
    }

    /// The same session, to be used at another server of the same chat.
    pub(crate) fn at(&self, server: &TestServer) -> Client {
        Client { address: server.address(), ..self.clone() }
    }

    /// A page of the history: `query` without the question mark.
    pub(crate) async fn page(&self, query: &str) -> Value {
        let request = Request::new(self.address, "GET", &format!("/messages?{query}"));
        let response = request.by(self).send().await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    /// Ends the session.
    pub(crate) async fn logout(&self) {
        let response = Request::new(self.address, "POST", "/logout").by(self).send().await;
        assert_eq!(response.status, 204, "{response:?}");
    }

    /// Opens a connection and authenticates it; delivery starts with what comes next.
    pub(crate) async fn connect(&self) -> Connection {
        self.connect_with(json!({})).await
    }

    /// The same with more fields in the `auth`: `last_id`, `epoch`.
    pub(crate) async fn connect_with(&self, more: Value) -> Connection {
        let mut connection = Connection::open_to(self.address, self.receive_buffer).await;
        connection.authenticate(self, more).await;
        connection
    }

    /// The same at a server that may not be there, or may let nobody in at the moment: then none, before long.
    pub(crate) async fn try_connect(&self, more: Value) -> Option<Connection> {
        let tried = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            let stream = TcpStream::connect(self.address).await.ok()?;
            let upgrade = tokio_tungstenite::client_async(format!("ws://{}/ws", self.address), stream);
            let (socket, _) = upgrade.await.ok()?;
            let mut connection = Connection { socket, welcome: Value::Null, read: VecDeque::new() };
            let mut auth = json!({"type": "auth", "token": self.token});
            auth.as_object_mut()?.extend(more.as_object()?.clone());
            connection.try_send(&auth.to_string()).await;
            connection.welcome = connection.receive().await.ok()?;
            (connection.welcome["type"] == "auth_success").then_some(connection)
        });
        tried.await.ok().flatten()
    }

    /// A page of the history from such a server.
    pub(crate) async fn try_page(&self, query: &str) -> Option<Value> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let tried = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            let mut stream = TcpStream::connect(self.address).await.ok()?;
            let request = format!(
                "GET /messages?{query} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
                self.address, self.token
            );
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            head.contains(" 200 ").then(|| serde_json::from_str(body).ok()).flatten()
        });
        tried.await.ok().flatten()
    }
}

/// A WebSocket that keeps the rules: it masks, and answers pings and closes while it is read.
pub(crate) struct Connection {
    socket: WebSocketStream<TcpStream>,
    /// The `auth_success`, null until then.
    pub(crate) welcome: Value,
    /// What [`settled`](Self::settled) has read.
    read: VecDeque<Value>,
}

impl Connection {
    /// Upgrades and says nothing yet.
    pub(crate) async fn open(server: &TestServer) -> Connection {
        Connection::open_to(server.address(), None).await
    }

    /// The same; none if the server has no place: it answers with 503, or hangs up.
    pub(crate) async fn try_open(server: &TestServer) -> Option<Connection> {
        match Connection::upgrade(server.address(), None).await {
            Ok(connection) => Some(connection),
            Err(WsError::Http(response)) => {
                assert_eq!(response.status(), 503);
                None
            }
            Err(_) => None,
        }
    }

    async fn open_to(address: SocketAddr, receive_buffer: Option<u32>) -> Connection {
        Connection::upgrade(address, receive_buffer).await.expect("the server upgrades")
    }

    async fn upgrade(address: SocketAddr, receive_buffer: Option<u32>) -> Result<Connection, WsError> {
        let stream = tcp_connect(address, receive_buffer).await;
        // A thousand of these are to fit beside the server.
        let config = WebSocketConfig::default().read_buffer_size(4 << 10);
        let upgrade = tokio_tungstenite::client_async_with_config(format!("ws://{address}/ws"), stream, Some(config));
        let (socket, _) = within("the upgrade", upgrade).await?;
        Ok(Connection { socket, welcome: Value::Null, read: VecDeque::new() })
    }

    /// Sends `auth` and reads the `auth_success`, which must be the first frame.
    pub(crate) async fn authenticate(&mut self, client: &Client, more: Value) {
        let mut auth = json!({"type": "auth", "token": client.token});
        auth.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.send(&auth).await;
        self.welcome = self.expect("auth_success").await;
    }

    /// Waits until the server has brought the connection up to what is live, which it does before it reads on. From
    /// then on somebody who keeps up is told of each join, leave and typing as it happens. A change that comes between
    /// `auth_success` and that moment may be told by a list of names instead, and typing not at all.
    pub(crate) async fn settled(mut self) -> Connection {
        self.send(&json!({"type": "ping"})).await;
        loop {
            let frame = self.read_frame().await.unwrap_or_else(|code| panic!("closed with {code:?}"));
            if frame["type"] == "pong" {
                return self;
            }
            self.read.push_back(frame);
        }
    }

    /// Waits until the server has read all that was sent.
    pub(crate) async fn heard(&self) {
        all_read(self.socket.get_ref()).await;
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, value: &Value) {
        self.send_text(&value.to_string()).await;
    }

    /// Sends one text frame, whatever it says.
    pub(crate) async fn send_text(&mut self, text: &str) {
        assert!(self.try_send(text).await, "the server hung up");
    }

    /// Sends one text frame; false if the connection is gone.
    pub(crate) async fn try_send(&mut self, text: &str) -> bool {
        within("the server to read", self.socket.send(WsMessage::text(text))).await.is_ok()
    }

    /// Sends a message without a nonce.
    pub(crate) async fn say(&mut self, content: &str) {
        self.send(&json!({"type": "message", "content": content})).await;
    }

    /// Sends a message with a nonce.
    pub(crate) async fn say_once(&mut self, nonce: &str, content: &str) {
        self.send(&json!({"type": "message", "content": content, "nonce": nonce})).await;
    }

    /// Sends a message, waits for its `ack` and returns the id it got. Other frames are passed over.
    pub(crate) async fn store(&mut self, nonce: &str, content: &str) -> i64 {
        self.say_once(nonce, content).await;
        let ack = self.next_of("ack").await;
        assert_eq!(ack["nonce"], nonce);
        int(&ack["id"])
    }

    /// Stores all of `contents`, a few dozen on the way at a time, and returns the ids in the order of the acks.
    pub(crate) async fn store_all(&mut self, prefix: &str, contents: &[String]) -> Vec<i64> {
        const ON_THE_WAY: usize = 48;
        let mut ids = Vec::with_capacity(contents.len());
        for (number, content) in contents.iter().enumerate() {
            if number >= ids.len() + ON_THE_WAY {
                ids.push(int(&self.next_of("ack").await["id"]));
            }
            self.say_once(&format!("{prefix}-{number}"), content).await;
        }
        while ids.len() < contents.len() {
            ids.push(int(&self.next_of("ack").await["id"]));
        }
        ids
    }

    /// The next text frame, or how the connection ended: its close code, or none if it just broke.
    pub(crate) async fn receive(&mut self) -> Result<Value, Option<u16>> {
        match self.read.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read_frame().await,
        }
    }

    async fn read_frame(&mut self) -> Result<Value, Option<u16>> {
        loop {
            match within("a frame", self.socket.next()).await {
                Some(Ok(WsMessage::Text(text))) => {
                    let frame = serde_json::from_str(&text).expect("text frames are JSON");
                    check_frame(&frame);
                    return Ok(frame);
                }
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => {}
                Some(Ok(WsMessage::Close(close))) => {
                    // Reading on sends the answer and waits for the server to hang up, as it must.
                    within("the server to hang up", async { while let Some(Ok(_)) = self.socket.next().await {} })
                        .await;
                    return Err(close.map(|close| close.code.into()));
                }
                Some(Ok(other)) => panic!("the contract has no such frame: {other:?}"),
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next text frame.
    pub(crate) async fn next(&mut self) -> Value {
        match self.receive().await {
            Ok(value) => value,
            Err(code) => panic!("the connection ended, close code {code:?}"),
        }
    }

    /// The next text frame, which must be of type `kind`.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let value = self.next().await;
        assert_eq!(value["type"], kind, "{value}");
        value
    }

    /// The next text frame of type `kind`; others are passed over.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let value = self.next().await;
            if value["type"] == kind {
                return value;
            }
        }
    }

    /// Reads on until told that `username` is there: by name, or, as somebody is told who was behind, by a list with the
    /// name.
    pub(crate) async fn told_of_join(&mut self, username: &str) {
        loop {
            let frame = self.next().await;
            let listed = frame["users"].as_array();
            if (frame["type"] == "user_join" && frame["username"] == username)
                || listed.is_some_and(|users| users.iter().any(|name| name == username))
            {
                return;
            }
        }
    }

    /// Reads on until told that `username` is gone: by name, or, as somebody is told who was behind, by a list without
    /// the name.
    pub(crate) async fn told_of_leave(&mut self, username: &str) {
        loop {
            let frame = self.next().await;
            let listed = frame["users"].as_array();
            if (frame["type"] == "user_leave" && frame["username"] == username)
                || listed.is_some_and(|users| users.iter().all(|name| name != username))
            {
                return;
            }
        }
    }

    /// The next `message`; other frames are passed over.
    pub(crate) async fn message(&mut self) -> Message {
        Message::parse(&self.next_of("message").await)
    }

    /// The next `count` messages.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            messages.push(self.message().await);
        }
        messages
    }

    /// The code the server closes with, after whatever comes before it.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            match self.receive().await {
                Ok(_) => {}
                Err(code) => return code.expect("the server says why it closes"),
            }
        }
    }

    /// Closes as the RFC asks, and waits for the server to have done so too.
    pub(crate) async fn close(mut self) {
        within("the close to leave", self.socket.close(None)).await.expect("the connection is open");
        within("the server to hang up", async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }

    /// Ends as a crash would: with a reset and no word.
    pub(crate) fn reset(self) {
        self.socket.get_ref().set_zero_linger().expect("no lingering");
    }
}

/// Connects all of `people`, some of them at a time.
pub(crate) async fn gather(people: &[Client]) -> Vec<Connection> {
    let mut crowd = Vec::with_capacity(people.len());
    for chunk in people.chunks(50) {
        let arriving: Vec<_> =
            chunk.iter().cloned().map(|person| tokio::spawn(async move { person.connect().await })).collect();
        for person in arriving {
            crowd.push(person.await.expect("no panic"));
        }
    }
    crowd
}

//! A chat client in one file: it logs in, sends each line of standard input to the lobby, and shows what is said there.
//! It sends once, resumes after a break, and reads from the history what is too much to be replayed.
//!
//! `PASSWORD=… cargo run --example client -- 127.0.0.1:8080 ada`. The contract is `docs/PROTOCOL.md`. To keep it short
//! it shows no edits and no pictures, and connects without TLS.

#![expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]

use std::collections::VecDeque;
use std::io::BufRead as _;
use std::ops::RangeBounds;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// The server pings every 30 s: a connection that is silent for longer than two pings is dead.
const SILENCE: Duration = Duration::from_secs(75);
/// For an answer to a request, or to a handshake.
const ANSWER: Duration = Duration::from_secs(20);
/// Before the first try to come back; each further try waits twice as long.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// At so many the input waits: the server is no faster than its disk.
const UNACKNOWLEDGED_MAX: usize = 32;
const CONTENT_MAX_CHARS: usize = 4_000;
/// Only these move the cursor: the `id` of an `ack` or a `read` may be ahead of what has been shown.
const EVENTS: [&str; 6] = ["message", "edit", "delete", "react", "room", "room_gone"];

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Somebody who is logged in, and how far they have read.
pub(crate) struct Client {
    address: String,
    token: String,
    epoch: Value,
    cursor: Option<i64>,
    /// Nonce and text, the oldest first: sent again on the next connection. The server stores each nonce once.
    unacknowledged: VecDeque<(String, String)>,
    retry: Duration,
}

impl Client {
    pub(crate) async fn log_in(address: &str, user: &str, password: &str) -> Result<Self> {
        let body = json!({ "username": user, "password": password }).to_string();
        let head = format!("POST /login HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        let answer = request(address, &head, &body).await?;
        let (address, token) = (address.to_owned(), answer["token"].as_str().context("no token")?.to_owned());
        let unacknowledged = VecDeque::new();
        Ok(Self { address, token, epoch: Value::Null, cursor: None, unacknowledged, retry: RETRY })
    }

    /// Sends `lines` and shows what comes, on one connection after another, until all lines are stored.
    pub(crate) async fn run(&mut self, mut lines: mpsc::Receiver<String>, show: &mut impl FnMut(String)) -> Result<()> {
        while let Err(lost) = self.talk(&mut lines, show).await {
            if lost.is::<Refused>() {
                return Err(lost);
            }
            show(format!("* {lost}; trying again"));
            sleep(self.retry).await;
            self.retry = (self.retry * 2).min(RETRY_MAX);
        }
        Ok(())
    }

    /// One connection to its end, which is an error unless all lines are stored.
    async fn talk(&mut self, lines: &mut mpsc::Receiver<String>, show: &mut impl FnMut(String)) -> Result<()> {
        let (mut socket, welcome) = timeout(ANSWER, self.connect()).await.context("the server does not answer")??;
        self.receive(&mut socket, &welcome, show).await?;
        let (mut has_input, mut silence) = (true, Instant::now() + SILENCE);
        while has_input || !self.unacknowledged.is_empty() {
            tokio::select! {
                line = lines.recv(), if has_input && self.unacknowledged.len() < UNACKNOWLEDGED_MAX => {
                    let Some(content) = line else { has_input = false; continue };
                    if content.chars().count() > CONTENT_MAX_CHARS {
                        show(format!("* refused: over {CONTENT_MAX_CHARS} characters"));
                        continue;
                    }
                    // Remembered first: what breaks while it is sent is sent again.
                    self.unacknowledged.push_back((format!("{:032x}", rand::random::<u128>()), content));
                    self.send(&mut socket, self.unacknowledged.len() - 1..).await?;
                }
                received = timeout_at(silence, socket.next()) => {
                    silence = Instant::now() + SILENCE;
                    match received.context("the server has fallen silent")?.context("the connection ended")?? {
                        WsMessage::Text(text) => self.receive(&mut socket, &serde_json::from_str(&text)?, show).await?,
                        WsMessage::Close(Some(close)) => bail!("the server closed the connection: {}", close.code),
                        // The library answers pings.
                        _ => {}
                    }
                }
            }
        }
        // Everything is stored: nothing is lost with a close frame that does not arrive.
        socket.close(None).await.ok();
        Ok(())
    }

    /// Opens a connection, and says who this is and how far they have read; with the first frame of the answer.
    async fn connect(&self) -> Result<(Socket, Value)> {
        let (mut socket, _) = connect_async(format!("ws://{}/ws", self.address)).await?;
        let mut auth = json!({ "type": "auth", "token": self.token });
        if let Some(cursor) = self.cursor {
            (auth["last_id"], auth["epoch"]) = (json!(cursor), self.epoch.clone());
        }
        socket.send(WsMessage::text(auth.to_string())).await?;
        let welcome = socket.next().await.context("the connection ended")??;
        Ok((socket, serde_json::from_str(welcome.to_text()?)?))
    }

    /// Frames of other types, and fields that are not read here, are ignored, so that the contract can grow.
    async fn receive(&mut self, socket: &mut Socket, frame: &Value, show: &mut impl FnMut(String)) -> Result<()> {
        let kind = frame["type"].as_str().unwrap_or_default();
        match (kind, frame["code"].as_str().unwrap_or_default()) {
            ("auth_success", _) => {
                show(format!("* {} online", frame["online"]));
                // The first time there is nothing to resume: the story begins here.
                self.cursor = self.cursor.or(frame["last_id"].as_i64());
                self.epoch = frame["epoch"].clone();
                self.retry = RETRY;
                self.send(socket, 0..).await?;
            }
            ("auth_failed", "unauthorized") => bail!(Refused),
            ("auth_failed", _) => bail!("the server lets nobody in at the moment"),
            ("message", _) => show(line(frame)),
            ("resync", _) => self.read_history(frame, show).await?,
            ("error", "rate_limited") => {
                sleep(Duration::from_millis(frame["retry_after"].as_u64().unwrap_or(1_000)).min(RETRY_MAX)).await;
                if let Some(at) = self.unacknowledged.iter().position(|(nonce, _)| frame["nonce"] == **nonce) {
                    self.send(socket, at..=at).await?;
                }
            }
            // It may be stored or not: the same nonce, sent again on the next connection, settles it.
            ("error", "unavailable") => bail!("the server cannot store anything at the moment"),
            ("ack" | "error", _) => {
                if kind == "error" {
                    show(format!("* refused: {}", frame["message"].as_str().unwrap_or_default()));
                }
                self.unacknowledged.retain(|(nonce, _)| frame["nonce"] != **nonce);
            }
            _ => {}
        }
        if EVENTS.contains(&kind) {
            self.cursor = self.cursor.max(frame["id"].as_i64());
        }
        Ok(())
    }

    /// Sends some of what has no answer yet.
    async fn send(&self, socket: &mut Socket, which: impl RangeBounds<usize>) -> Result<()> {
        for (nonce, content) in self.unacknowledged.range(which) {
            let frame = json!({ "type": "message", "content": content, "nonce": nonce });
            socket.send(WsMessage::text(frame.to_string())).await?;
        }
        Ok(())
    }

    /// Shows what is too much to be replayed, page by page; the connection goes on after `last_id` by itself.
    async fn read_history(&mut self, resync: &Value, show: &mut impl FnMut(String)) -> Result<()> {
        let mut after = resync["after"].as_i64().context("a resync without its beginning")?;
        let end = resync["last_id"].as_i64().context("a resync without its end")?;
        // Zero: the history is another one than the client knows, and its newest page is enough.
        let is_new = after == 0;
        show(if is_new { "* another history begins" } else { "* reading what was missed" }.to_owned());
        loop {
            let place = if is_new { String::new() } else { format!("&after={after}") };
            let head = format!("GET /messages?limit=50{place} HTTP/1.0\r\nAuthorization: Bearer {}", self.token);
            let page = request(&self.address, &head, "").await?;
            let messages = page["messages"].as_array().context("a page without messages")?;
            messages
                .iter()
                .filter(|message| message["id"].as_i64() <= Some(end))
                .for_each(|message| show(line(message)));
            after = messages.last().and_then(|message| message["id"].as_i64()).unwrap_or(end);
            if is_new || page["has_more"] != true || after >= end {
                self.cursor = Some(end);
                return Ok(());
            }
            self.cursor = Some(after);
        }
    }
}

/// The session is over: trying again would not help.
#[derive(Debug, thiserror::Error)]
#[error("the server does not accept the session any more")]
struct Refused;

fn line(message: &Value) -> String {
    let [user, content] = ["username", "content"].map(|field| message[field].as_str().unwrap_or_default());
    format!("{user}: {content}")
}

/// One request by HTTP/1.0, whose answer ends with the connection: no chunks to put together.
async fn request(address: &str, head: &str, body: &str) -> Result<Value> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("{head}\r\nHost: {address}\r\n\r\n{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(ANSWER, exchange).await.context("the server does not answer")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    let body: Value = serde_json::from_str(body).context("the answer is not JSON")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{}", body["error"]["message"].as_str().unwrap_or("the server refused the request"));
    }
    Ok(body)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, user] = &arguments[..] else { bail!("usage: PASSWORD=… client ADDRESS:PORT USERNAME") };
    let password = std::env::var("PASSWORD").context("the password is read from the variable PASSWORD")?;
    let mut client = Client::log_in(address, user, &password).await?;
    // A thread, since reading a terminal blocks; the channel makes it wait while the server is behind.
    let (typed, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok).filter(|line| !line.trim().is_empty());
        lines.map(|line| typed.blocking_send(line)).take_while(Result::is_ok).for_each(drop);
    });
    client.run(lines, &mut |line| println!("{line}")).await
}

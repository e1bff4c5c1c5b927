//! A chat client in one file, for people who write their own: it logs in, sends, shows what comes, and resumes.
//!
//! `PASSWORD=… cargo run --example client -- 127.0.0.1:8080 ada` shows what is said in the lobby and sends each line of
//! standard input there; it ends when its input does and all of it is stored. The contract is `docs/PROTOCOL.md`. Three
//! things in it make a client lose nothing: a cursor, a nonce for each message, and pages of history after a long
//! absence. To keep it short it shows no edits and no pictures, and speaks to an address without TLS.

#![expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]

use std::collections::VecDeque;
use std::future::Future;
use std::io::BufRead as _;
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

/// The server pings every 30 s, so that silence for longer than two pings is a connection that is gone.
const SILENCE: Duration = Duration::from_secs(75);
/// For an answer to a request, or to a handshake.
const ANSWER: Duration = Duration::from_secs(20);
/// Before the first try to come back; each further try waits twice as long, up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Sent and not acknowledged. At that many the input is not read: the server is no faster than its disk.
const UNACKNOWLEDGED_MAX: usize = 32;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Somebody who is logged in, and how far they have read.
pub(crate) struct Client {
    address: String,
    token: String,
    /// Everything of this history up to the cursor has been shown. Whoever comes back with both gets the rest.
    epoch: Option<String>,
    cursor: Option<i64>,
    /// Nonce and text, the oldest first. They are sent again after a break; the server knows a nonce that it has
    /// stored.
    unacknowledged: VecDeque<(String, String)>,
}

impl Client {
    pub(crate) async fn log_in(address: &str, user: &str, password: &str) -> Result<Self> {
        let body = json!({ "username": user, "password": password }).to_string();
        let head = format!("POST /login HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        let answer = request(address, &head, &body).await?;
        let token = answer["token"].as_str().context("no token in the answer")?.to_owned();
        Ok(Self { address: address.to_owned(), token, epoch: None, cursor: None, unacknowledged: VecDeque::new() })
    }

    /// Sends `lines` and shows what comes, on one connection after another, until all lines are stored.
    pub(crate) async fn run(&mut self, mut lines: mpsc::Receiver<String>, show: &mut impl FnMut(String)) -> Result<()> {
        let mut retry = RETRY;
        loop {
            let lost = match self.connect(show).await {
                Ok(mut socket) => {
                    retry = RETRY;
                    match self.talk(&mut socket, &mut lines, show).await {
                        Ok(()) => return Ok(()),
                        Err(lost) => lost,
                    }
                }
                Err(lost) => lost,
            };
            if lost.is::<Refused>() {
                return Err(lost);
            }
            show(format!("* {lost}; trying again"));
            sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    /// Opens a connection, says who this is and how far they have read, and sends again what has no answer.
    async fn connect(&mut self, show: &mut impl FnMut(String)) -> Result<Socket> {
        let (mut socket, _) = in_time(connect_async(format!("ws://{}/ws", self.address))).await??;
        let mut auth = json!({ "type": "auth", "token": self.token });
        if let (Some(cursor), Some(epoch)) = (self.cursor, &self.epoch) {
            auth["last_id"] = json!(cursor);
            auth["epoch"] = json!(epoch);
        }
        socket.send(WsMessage::text(auth.to_string())).await?;
        let first = in_time(socket.next()).await?.context("the connection ended")??;
        let welcome: Value = serde_json::from_str(first.to_text()?)?;
        match welcome["type"].as_str() {
            Some("auth_success") => {}
            Some("auth_failed") if welcome["code"] == "unauthorized" => bail!(Refused),
            _ => bail!("the server lets nobody in at the moment"),
        }
        show(format!("* {} online", welcome["online"]));
        // The first time there is nothing to resume: the story begins here.
        self.cursor = self.cursor.or(welcome["last_id"].as_i64());
        self.epoch = welcome["epoch"].as_str().map(str::to_owned);
        for (nonce, text) in &self.unacknowledged {
            send(&mut socket, nonce, text).await?;
        }
        Ok(socket)
    }

    /// One connection to its end, which is an error unless all lines are stored.
    async fn talk(
        &mut self,
        socket: &mut Socket,
        lines: &mut mpsc::Receiver<String>,
        show: &mut impl FnMut(String),
    ) -> Result<()> {
        let (mut has_input, mut silence) = (true, Instant::now() + SILENCE);
        while has_input || !self.unacknowledged.is_empty() {
            tokio::select! {
                line = lines.recv(), if has_input && self.unacknowledged.len() < UNACKNOWLEDGED_MAX => {
                    let Some(text) = line else { has_input = false; continue };
                    let nonce = format!("{:032x}", rand::random::<u128>());
                    // Remembered first: what breaks while it is sent is sent again.
                    self.unacknowledged.push_back((nonce.clone(), text.clone()));
                    send(socket, &nonce, &text).await?;
                }
                received = timeout_at(silence, socket.next()) => {
                    silence = Instant::now() + SILENCE;
                    match received.context("the server has fallen silent")?.context("the connection ended")?? {
                        WsMessage::Text(text) => self.receive(socket, &serde_json::from_str(&text)?, show).await?,
                        WsMessage::Close(Some(close)) => bail!("the server closed the connection: {}", close.code),
                        // Pings are answered by the library.
                        _ => {}
                    }
                }
            }
        }
        // Everything is stored: nothing is lost with a close frame that does not arrive.
        socket.close(None).await.ok();
        Ok(())
    }

    /// Frames of other types, and fields that are not read here, are ignored: so the contract can grow.
    async fn receive(&mut self, socket: &mut Socket, frame: &Value, show: &mut impl FnMut(String)) -> Result<()> {
        match frame["type"].as_str().unwrap_or_default() {
            "message" => show(line(frame)),
            "resync" => self.read_history(frame, show).await?,
            "ack" => self.settle(frame),
            "error" if frame["code"] == "rate_limited" => {
                let wait = Duration::from_millis(frame["retry_after"].as_u64().unwrap_or(1_000)).min(RETRY_MAX);
                sleep(wait).await;
                if let Some((nonce, text)) = self.unacknowledged.iter().find(|(nonce, _)| frame["nonce"] == **nonce) {
                    send(socket, nonce, text).await?;
                }
            }
            // It may be stored or not: the same nonce, sent again on the next connection, settles it.
            "error" if frame["code"] == "unavailable" => bail!("the server cannot store anything at the moment"),
            "error" => {
                self.settle(frame);
                show(format!("* refused: {}", frame["message"].as_str().unwrap_or_default()));
            }
            _ => {}
        }
        // Of what an id moves the cursor. `ack` and `read` have one too, and may be ahead of what was shown.
        if matches!(frame["type"].as_str(), Some("message" | "edit" | "delete" | "react" | "room" | "room_gone")) {
            self.cursor = self.cursor.max(frame["id"].as_i64());
        }
        Ok(())
    }

    /// The server has answered for good: it is not sent again.
    fn settle(&mut self, frame: &Value) {
        self.unacknowledged.retain(|(nonce, _)| frame["nonce"] != **nonce);
    }

    /// Shows what is too much to be replayed, page by page; the connection goes on after `last_id` by itself.
    async fn read_history(&mut self, resync: &Value, show: &mut impl FnMut(String)) -> Result<()> {
        let mut after = resync["after"].as_i64().context("a resync without its beginning")?;
        let end = resync["last_id"].as_i64().context("a resync without its end")?;
        // Zero: this is another history than the one that was read, and its newest page is enough.
        let is_new = after == 0;
        show(if is_new { "* another history begins" } else { "* reading what was missed" }.to_owned());
        loop {
            let place = if is_new { String::new() } else { format!("&after={after}") };
            let head = format!("GET /messages?limit=50{place} HTTP/1.0\r\nAuthorization: Bearer {}", self.token);
            let page = request(&self.address, &head, "").await?;
            let messages = page["messages"].as_array().context("a page without messages")?;
            for message in messages.iter().filter(|message| message["id"].as_i64() <= Some(end)) {
                show(line(message));
            }
            after = messages.last().and_then(|message| message["id"].as_i64()).unwrap_or(end);
            if is_new || page["has_more"] != true || after >= end {
                self.cursor = Some(end);
                return Ok(());
            }
            self.cursor = Some(after);
        }
    }
}

/// The session is over: to try again would be no use.
#[derive(Debug, thiserror::Error)]
#[error("the server does not accept the session any more")]
struct Refused;

fn line(message: &Value) -> String {
    let (user, text) = (message["username"].as_str(), message["content"].as_str());
    format!("{}: {}", user.unwrap_or_default(), text.unwrap_or_default())
}

async fn send(socket: &mut Socket, nonce: &str, content: &str) -> Result<()> {
    let frame = json!({ "type": "message", "content": content, "nonce": nonce });
    Ok(socket.send(WsMessage::text(frame.to_string())).await?)
}

/// One request by HTTP/1.0, whose answer ends with the connection: no chunks to be put together.
async fn request(address: &str, head: &str, body: &str) -> Result<Value> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("{head}\r\nHost: {address}\r\n\r\n{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = in_time(exchange).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    let body: Value = serde_json::from_str(body).context("the answer is not JSON")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{}", body["error"]["message"].as_str().unwrap_or("the server refused the request"));
    }
    Ok(body)
}

async fn in_time<T>(wait: impl Future<Output = T>) -> Result<T> {
    timeout(ANSWER, wait).await.context("the server does not answer")
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
        for line in std::io::stdin().lock().lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
    });
    client.run(lines, &mut |line| println!("{line}")).await
}

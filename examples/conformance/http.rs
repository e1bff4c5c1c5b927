//! HTTP/1.1 from first principles: what a polite client says, and what none would.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::check::{Check, broken, expect, shown, text};
use super::world::Person;

/// A larger answer is no answer of the contract.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// A connection and what was read from it ahead. Both HTTP and WebSocket stand on it.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    pub(crate) ahead: Vec<u8>,
    patience: Duration,
}

impl Wire {
    /// Connects; a small `receive_buffer` makes a reader who soon is behind.
    pub(crate) async fn connect(address: SocketAddr, patience: Duration, receive_buffer: Option<u32>) -> Check<Wire> {
        let failed = |error: std::io::Error| broken("a connection", error);
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).map_err(failed)?;
        }
        let stream = socket.connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Wire { stream, ahead: Vec::new(), patience })
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Check {
        match tokio::time::timeout(self.patience, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken("the server to read", error)),
            Err(_) => Err(broken("the server to read", "nothing read in time")),
        }
    }

    /// Reads more; false at the end of the stream.
    pub(crate) async fn read(&mut self, patience: Duration) -> Check<bool> {
        match tokio::time::timeout(patience, self.stream.read_buf(&mut self.ahead)).await {
            Ok(Ok(count)) => {
                expect(self.ahead.len() < ANSWER_MAX_BYTES, "an answer of some size", "16 MiB")?;
                Ok(count > 0)
            }
            // A reset after the last word is an end, too.
            Ok(Err(_)) => Ok(false),
            Err(_) => Err(broken("something to read", format!("nothing for {patience:?}"))),
        }
    }

    /// The first `count` bytes that come.
    async fn take(&mut self, count: usize) -> Check<Vec<u8>> {
        while self.ahead.len() < count {
            expect(self.read(self.patience).await?, "a whole answer", "the end of the connection")?;
        }
        Ok(self.ahead.drain(..count).collect())
    }

    /// The bytes up to and with `end`.
    async fn take_to(&mut self, end: &[u8]) -> Check<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len()).await;
            }
            expect(self.read(self.patience).await?, "a whole answer", "the end of the connection")?;
        }
    }

    /// The next answer, body and all.
    pub(crate) async fn answer(&mut self) -> Check<Answer> {
        let head = self.take_to(b"\r\n\r\n").await?;
        let mut answer = Answer::parse(&String::from_utf8_lossy(&head))?;
        answer.body = if answer.status < 200 || answer.status == 204 || answer.status == 304 {
            Vec::new()
        } else if answer.header("transfer-encoding").is_some() {
            self.chunks().await?
        } else {
            match answer.header("content-length").and_then(|length| length.parse().ok()) {
                Some(length) => self.take(length).await?,
                None => self.rest().await?,
            }
        };
        Ok(answer)
    }

    /// A body that ends with the connection (RFC 9112 6.3).
    async fn rest(&mut self) -> Check<Vec<u8>> {
        while self.read(self.patience).await? {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// A chunked body (RFC 9112 7.1).
    async fn chunks(&mut self) -> Check<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_to(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let length = usize::from_str_radix(&line, 16).map_err(|_| broken("the length of a chunk", &line))?;
            body.extend(self.take(length).await?);
            self.take(2).await?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads to the end of the connection; true if it ends in time.
    pub(crate) async fn ends(&mut self) -> bool {
        loop {
            match self.read(self.patience).await {
                Ok(true) => self.ahead.clear(),
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    headers: String,
    body: Option<Vec<u8>>,
    /// Whether a `429` is what is asked for, and not something to wait out.
    pub(crate) once: bool,
}

impl Call {
    pub(crate) fn new(method: &'static str, target: impl Into<String>) -> Call {
        Call { method, target: target.into(), headers: String::new(), body: None, once: false }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Call {
        write!(self.headers, "{name}: {value}\r\n").expect("a string takes all");
        self
    }

    /// With the session of `person`.
    pub(crate) fn by(self, person: &Person) -> Call {
        self.header("Authorization", &format!("Bearer {}", person.token))
    }

    pub(crate) fn json(self, body: &Value) -> Call {
        self.body("application/json", body.to_string())
    }

    pub(crate) fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Call {
        self.body = Some(body.into());
        self.header("Content-Type", media_type)
    }

    /// Without waiting out a rate.
    pub(crate) fn once(mut self) -> Call {
        self.once = true;
        self
    }

    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n{}", self.method, self.target, self.headers);
        if self.body.is_some() || matches!(self.method, "POST" | "PUT" | "PATCH") {
            let length = self.body.as_ref().map_or(0, Vec::len);
            write!(head, "Content-Length: {length}\r\n").expect("a string takes all");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

impl std::fmt::Display for Call {
    /// For people, and so without what is secret: tokens are in headers, passwords in the bodies of these routes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, shown(&self.target))?;
        let is_secret = ["/login", "/register", "/password", "/account"].contains(&self.target.as_str());
        match &self.body {
            Some(body) if !is_secret => write!(f, " {}", shown(&String::from_utf8_lossy(body))),
            _ => Ok(()),
        }
    }
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(head: &str) -> Check<Answer> {
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let status = status.ok_or_else(|| broken("a status line", status_line))?;
        let header =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        Ok(Answer { status, headers: lines.filter_map(header).collect(), body: Vec::new() })
    }

    /// The first value of a header, whose name is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The JSON of a success with this status.
    pub(crate) fn ok(&self, status: u16) -> Check<Value> {
        expect(self.status == status, format!("status {status}"), self)?;
        if status == 204 {
            return expect(self.body.is_empty(), "no body", self).map(|()| Value::Null);
        }
        self.json()
    }

    pub(crate) fn json(&self) -> Check<Value> {
        let media_type = self.header("content-type").unwrap_or_default();
        expect(media_type.starts_with("application/json"), "Content-Type: application/json", media_type)?;
        serde_json::from_slice(&self.body).map_err(|error| broken("JSON", format!("{self}: {error}")))
    }

    /// Holds if this is one of these error answers.
    pub(crate) fn is_error(&self, either: &[(u16, &str)]) -> Check {
        let refusals = either.iter().map(|(status, code)| self.refused(*status, code));
        refusals.reduce(Check::or).unwrap_or(Ok(()))
    }

    /// Holds if this is the contract's error answer with this status and code.
    pub(crate) fn refused(&self, status: u16, code: &str) -> Check {
        expect(self.status == status, format!("{status} {code}"), self)?;
        let error = self.json()?;
        expect(text(&error["error"], "code")? == code, format!("{status} {code}"), self)?;
        expect(!text(&error["error"], "message")?.is_empty(), "a message for people", self)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{}", self.status)?;
        match body.split_once("\"token\":\"") {
            Some((before, rest)) => {
                let after = rest.split_once('"').map_or("", |(_, after)| after);
                write!(f, " {before}\"token\":\"…\"{after}")
            }
            None if body.is_empty() => Ok(()),
            None => write!(f, " {}", shown(&body)),
        }
    }
}

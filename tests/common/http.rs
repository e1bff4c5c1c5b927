//! Just enough HTTP/1.1 to ask one thing and read the answer.

use std::fmt::Write;
use std::net::SocketAddr;

use serde_json::Value;

use super::raw::RawClient;
use super::schema::check_answer;
use super::{Client, text};

/// A request under construction. It is sent on a connection of its own.
#[derive(Clone)]
pub(crate) struct Request {
    address: SocketAddr,
    head: String,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(address: SocketAddr, method: &str, target: &str) -> Request {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n");
        Request { address, head, body: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Request {
        write!(self.head, "{name}: {value}\r\n").expect("a String takes everything");
        self
    }

    /// With the session of `client`.
    pub(crate) fn by(self, client: &Client) -> Request {
        self.header("Authorization", &format!("Bearer {}", client.token))
    }

    /// With a body and its length, but no type.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    /// With a body of JSON.
    pub(crate) fn json(self, body: &Value) -> Request {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    /// The bytes that would be sent, for tests that send them in another way.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.head).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    pub(crate) async fn send(self) -> Response {
        let has_body = !self.head.starts_with("HEAD ");
        let bytes = self.bytes();
        let mut connection = RawClient::connect_to(self.address).await;
        connection.send(&bytes).await;
        if !has_body {
            return connection.response_head().await;
        }
        let response = connection.response().await;
        let mut words = self.head.split(' ');
        if let (Some(method), Some(target)) = (words.next(), words.next()) {
            check_answer(method, target, &self.body, &response);
        }
        response
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Parses a head without its empty line; `body` comes later.
    pub(crate) fn parse(head: &str) -> Response {
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("a split yields at least one part");
        let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        let status = status.and_then(|digits| digits.parse().ok());
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Response {
            status: status.unwrap_or_else(|| panic!("no status line: {status_line:?}")),
            headers: headers.collect(),
            body: Vec::new(),
        }
    }

    /// The value of the header `name`, which may come once at most.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        let mut values = self.headers.iter().filter(|(known, _)| *known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} comes twice: {self:?}");
        value
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("Content-Type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Status and code of an error answer, whose shape is the contract's.
    pub(crate) fn error(&self) -> (u16, String) {
        let body = self.json();
        let error = &body["error"];
        assert!(!text(&error["message"]).is_empty(), "an error tells people what happened: {body}");
        (self.status, text(&error["code"]).to_owned())
    }
}

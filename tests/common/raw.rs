//! A client of raw bytes, for everything that a polite one cannot send.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::http::Response;
use super::schema::{check_error, check_frame};
use super::{Client, TestServer, within};

/// First byte of a frame, RFC 6455 section 5.2: the final fragment, and the opcodes.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// A good upgrade, except for its `Host` and the empty line; the key is the RFC's example.
pub(crate) const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Any key does; a fixed one makes failures repeatable.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame whose first byte (`FIN | TEXT`, say) is `first`.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The header of a masked frame that promises `length` bytes, with the shortest length field, and the key.
pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = length_field(first, 0x80, length);
    bytes.extend(MASK);
    bytes
}

/// A frame without a mask, which no client may send.
pub(crate) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = length_field(first, 0, payload.len() as u64);
    bytes.extend(payload);
    bytes
}

fn length_field(first: u8, mask: u8, length: u64) -> Vec<u8> {
    // Seven bits hold a length up to 125; the two above say that 16 or 64 bits follow.
    const MEDIUM: u8 = 0x7E;
    const LONG: u8 = 0x7F;
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < MEDIUM => bytes.push(mask | short),
        (_, Ok(medium)) => {
            bytes.push(mask | MEDIUM);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(mask | LONG);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// A frame as the server sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// Connects to `address`. A small `receive_buffer` (the kernel doubles it) makes a reader who takes little at a time.
pub(super) async fn tcp_connect(address: SocketAddr, receive_buffer: Option<u32>) -> TcpStream {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).expect("a small buffer");
    }
    // Split writes are to arrive split.
    socket.set_nodelay(true).expect("no delay");
    within("a TCP connection", socket.connect(address)).await.expect("the server accepts")
}

/// Waits until the other process has read all that was sent on `stream`, as the kernel tells.
pub(super) async fn all_read(stream: &TcpStream) {
    let near = in_table(stream.local_addr().expect("it is connected"));
    let far = in_table(stream.peer_addr().expect("it is connected"));
    within("the server to read", async {
        loop {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
            let queues = |from: &str, to: &str| {
                let mut ends = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                let end = ends.find(|end| end[1] == from && end[2] == to).expect("both ends are on this machine");
                end[4]
                    .split_once(':')
                    .map(|(unsent, unread)| (unsent.to_owned(), unread.to_owned()))
                    .expect("two queues")
            };
            let ((unsent, _), (_, unread)) = (queues(&near, &far), queues(&far, &near));
            if [unsent, unread].iter().all(|bytes| bytes.trim_start_matches('0').is_empty()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// An IPv4 address and port as `/proc/net/tcp` has it.
fn in_table(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("the tests speak IPv4") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

/// A bare TCP connection.
pub(crate) struct RawClient {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl RawClient {
    pub(crate) async fn connect(server: &TestServer) -> RawClient {
        RawClient::connect_to(server.address()).await
    }

    pub(crate) async fn connect_to(address: SocketAddr) -> RawClient {
        RawClient { stream: tcp_connect(address, None).await, unread: Vec::new() }
    }

    /// The same over a thin line: what is not read soon fills the socket and waits in the server.
    pub(crate) async fn far_away(server: &TestServer) -> RawClient {
        RawClient { stream: tcp_connect(server.address(), Some(4 << 10)).await, unread: Vec::new() }
    }

    /// Sends all of `bytes`.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes).await, "the server hung up");
    }

    /// Sends `bytes`; false if the server has hung up.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        within("the server to read", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Sends a masked, final text frame.
    pub(crate) async fn send_text(&mut self, text: &str) {
        self.send(&frame(FIN | TEXT, text.as_bytes())).await;
    }

    /// Waits until the server has read all that was sent.
    pub(crate) async fn heard(&self) {
        all_read(&self.stream).await;
    }

    /// Says that nothing more will come, and goes on reading.
    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.expect("a half-close");
    }

    /// Ends the connection as a crash would: with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("no lingering");
    }

    /// Reads an answer with its body.
    pub(crate) async fn response(&mut self) -> Response {
        self.try_response().await.expect("an answer before the end of the connection")
    }

    /// The same; none if the server hangs up instead.
    pub(crate) async fn try_response(&mut self) -> Option<Response> {
        let mut response = self.try_response_head().await?;
        match (response.header("Content-Length"), response.header("Transfer-Encoding")) {
            (Some(length), None) => response.body = self.take(length.parse().expect("a length")).await,
            (None, Some("chunked")) => response.body = self.chunks().await.expect("all chunks"),
            (None, None) => {}
            other => panic!("a length or chunks, and one of them: {other:?}"),
        }
        check_error(&response);
        Some(response)
    }

    /// Reads a chunked body to its end (RFC 9112 7.1); none if the server hangs up before.
    pub(crate) async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = self.unread.windows(2).position(|bytes| bytes == b"\r\n") {
                    break self.take(end + 2).await;
                }
                if !self.try_fill(self.unread.len() + 1).await {
                    return None;
                }
            };
            let digits = std::str::from_utf8(&line).expect("a chunk's length is text").trim_end();
            let length = usize::from_str_radix(digits, 16).expect("a chunk has a length");
            if !self.try_fill(length + 2).await {
                return None;
            }
            body.extend(self.unread.drain(..length));
            assert_eq!(self.take(2).await, b"\r\n");
            if length == 0 {
                return Some(body);
            }
        }
    }

    /// Reads and takes `length` bytes.
    async fn take(&mut self, length: usize) -> Vec<u8> {
        self.fill(length).await;
        self.unread.drain(..length).collect()
    }

    /// Reads an answer's head and leaves what follows.
    pub(crate) async fn response_head(&mut self) -> Response {
        self.try_response_head().await.expect("an answer before the end of the connection")
    }

    /// The same; none if the server hangs up instead.
    pub(crate) async fn try_response_head(&mut self) -> Option<Response> {
        let end = loop {
            let end = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                break end;
            }
            if !self.try_fill(self.unread.len() + 1).await {
                return None;
            }
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        Some(Response::parse(std::str::from_utf8(&head[..end]).expect("a head is text")))
    }

    /// Upgrades to WebSocket and leaves it unauthenticated.
    pub(crate) async fn upgrade(&mut self) {
        let host = self.stream.peer_addr().expect("it is connected");
        self.send(format!("{HANDSHAKE}Host: {host}\r\n\r\n").as_bytes()).await;
        assert_eq!(self.response_head().await.status, 101);
    }

    /// A connection upgraded and authenticated as `client`, past its `auth_success`.
    pub(crate) async fn authenticated(server: &TestServer, client: &Client) -> RawClient {
        let mut raw = RawClient::connect(server).await;
        raw.authenticate(client).await;
        raw
    }

    /// Upgrades, authenticates as `client` and reads the `auth_success`.
    pub(crate) async fn authenticate(&mut self, client: &Client) {
        self.upgrade().await;
        self.send_text(&json!({"type": "auth", "token": client.token}).to_string()).await;
        assert_eq!(self.json().await["type"], "auth_success");
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> RawFrame {
        self.try_frame().await.expect("a frame before the end of the connection")
    }

    /// The next frame; none if the connection ends before one begins.
    pub(crate) async fn try_frame(&mut self) -> Option<RawFrame> {
        if !self.try_fill(2).await {
            return None;
        }
        assert_eq!(self.unread[1] & 0x80, 0, "a server does not mask");
        let (header, length) = match self.unread[1] {
            126 => {
                self.fill(4).await;
                (4, usize::from(u16::from_be_bytes([self.unread[2], self.unread[3]])))
            }
            127 => panic!("the contract has no frame this long"),
            short => (2, usize::from(short)),
        };
        self.fill(header + length).await;
        let first = self.unread[0];
        let payload = self.unread.drain(..header + length).skip(header).collect();
        Some(RawFrame { first, payload })
    }

    /// The next text frame, parsed; the protocol's own pings and pongs are passed over.
    pub(crate) async fn json(&mut self) -> Value {
        loop {
            let RawFrame { first, payload } = self.frame().await;
            match first {
                0x89 | 0x8A => {}
                0x81 => {
                    let frame = serde_json::from_slice(&payload).expect("text frames are JSON");
                    check_frame(&frame);
                    return frame;
                }
                other => panic!("no text frame: {other:#x}, {payload:?}"),
            }
        }
    }

    /// The next text frame of type `kind`; others are passed over.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let value = self.json().await;
            if value["type"] == kind {
                return value;
            }
        }
    }

    /// The code of the close frame, after whatever comes before it.
    pub(crate) async fn close_code(&mut self) -> u16 {
        self.close().await.0
    }

    /// The same with the reason.
    pub(crate) async fn close(&mut self) -> (u16, String) {
        loop {
            let RawFrame { first, payload } = self.frame().await;
            if first == FIN | CLOSE {
                assert!(payload.len() >= 2, "the server says why it closes");
                let reason = std::str::from_utf8(&payload[2..]).expect("the reason is text");
                return (u16::from_be_bytes([payload[0], payload[1]]), reason.to_owned());
            }
        }
    }

    /// Reads until the server ends the connection, and returns what was left.
    pub(crate) async fn end(mut self) -> Vec<u8> {
        within("the end of the connection", async {
            while let Ok(1..) = self.stream.read_buf(&mut self.unread).await {}
        })
        .await;
        self.unread
    }

    /// Reads until `length` bytes wait.
    async fn fill(&mut self, length: usize) {
        let filled = self.try_fill(length).await;
        assert!(filled, "the connection ended after {:?}", String::from_utf8_lossy(&self.unread));
    }

    /// The same; false if the connection ends before.
    async fn try_fill(&mut self, length: usize) -> bool {
        while self.unread.len() < length {
            let read = within("bytes from the server", self.stream.read_buf(&mut self.unread)).await;
            if !matches!(read, Ok(1..)) {
                return false;
            }
        }
        true
    }
}

//! The bytes of the contract, read as cheaply as they can be: frames, the few JSON fields that count, plain HTTP.
//!
//! Nothing here is a general parser. A fan-out repeats the same hundred bytes a thousand times, so what matters is to
//! find an id and a time in them in a few dozen nanoseconds, and to fall back to a real JSON parser for all the rest.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// RFC 6455 asks for an unpredictable key, to protect proxies; to loopback any key costs the server the same.
pub(crate) const MASK: [u8; 4] = [0x5A, 0xC3, 0x96, 0x3C];

/// The example key of RFC 6455 section 1.3, and its accept value, so that nobody here needs SHA-1.
pub(crate) const UPGRADE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const UPGRADE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// No server waits longer than this for an answer without being called dead.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// One frame inside a buffer (RFC 6455 section 5.2).
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Range<usize>,
    pub(crate) mask: Option<[u8; 4]>,
}

/// The frame that begins at `at`, if all of it has arrived. It ends where its payload does.
pub(crate) fn next_frame(bytes: &[u8], at: usize) -> Option<Frame> {
    let head = bytes.get(at..at + 2)?;
    let (length, mut start) = match head[1] & 0x7F {
        126 => (usize::from(u16::from_be_bytes(bytes.get(at + 2..at + 4)?.try_into().ok()?)), at + 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(at + 2..at + 10)?.try_into().ok()?)).ok()?, at + 10),
        short => (usize::from(short), at + 2),
    };
    let mut mask = None;
    if head[1] & 0x80 != 0 {
        mask = Some(bytes.get(start..start + 4)?.try_into().ok()?);
        start += 4;
    }
    let payload = start..start.checked_add(length)?;
    (payload.end <= bytes.len()).then_some(Frame { opcode: head[0] & 0x0F, payload, mask })
}

/// Appends one final frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(masked | length as u8),
        length @ 126..=0xFFFF => {
            out.push(masked | 0x7E);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 0x7F);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let start = out.len() + if mask.is_some() { 4 } else { 0 };
    out.extend(mask.iter().flatten());
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        unmask(&mut out[start..], mask);
    }
}

/// Masks and unmasks: the same operation (RFC 6455 section 5.3).
pub(crate) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for chunk in payload.chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

/// Finds a field's value in compact JSON, trying first where the last frame had it: servers do not move their fields.
#[derive(Default)]
pub(crate) struct FieldFinder {
    hint: usize,
}

impl FieldFinder {
    /// What follows `key`, which is written with its quotes and its colon: `"id":`.
    pub(crate) fn find<'a>(&mut self, payload: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
        let at_hint = payload.get(self.hint..self.hint + key.len());
        if at_hint != Some(key) {
            self.hint = payload.windows(key.len()).position(|window| window == key)?;
        }
        Some(&payload[self.hint + key.len()..])
    }
}

/// The decimal number `bytes` begin with; 0 when they do not.
pub(crate) fn leading_number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

/// What `auth_success` said.
pub(crate) struct Welcome {
    /// What comes is after this id.
    pub(crate) after: u64,
    pub(crate) epoch: String,
}

/// An HTTP connection that is kept open, for one request at a time.
pub(crate) struct Http {
    reader: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { reader: BufReader::new(stream), address })
    }

    /// Sends one request, with JSON if there is a body, and reads the whole answer: its status and its body.
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(u16, Vec<u8>)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, target, token, "application/json", body.as_bytes())
    }

    /// The same with a body of any type.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        token: Option<&str>,
        content_type: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        let authorization = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let content = match body.len() {
            0 => String::new(),
            length => format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n"),
        };
        let host = self.address;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{authorization}{content}\r\n");
        self.reader.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status line")?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().context("bad Content-Length")?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        if !chunked {
            body.resize(length, 0);
            self.reader.read_exact(&mut body)?;
            return Ok((status, body));
        }
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).context("bad chunk size")?;
            let start = body.len();
            body.resize(start + size, 0);
            self.reader.read_exact(&mut body[start..])?;
            self.line()?;
            if size == 0 {
                return Ok((status, body));
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.reader.read_line(&mut line)? > 0, "the server closed the connection instead of answering");
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    pub(crate) fn register(&mut self, username: &str, password: &str) -> Result<()> {
        let body = json!({ "username": username, "password": password });
        match self.request("POST", "/register", None, Some(&body))? {
            (201, _) => Ok(()),
            (status, answer) => bail!("POST /register: {status} {}", String::from_utf8_lossy(&answer)),
        }
    }

    /// Returns the session's token.
    pub(crate) fn login(&mut self, username: &str, password: &str) -> Result<String> {
        let body = json!({ "username": username, "password": password });
        let (status, answer) = self.request("POST", "/login", None, Some(&body))?;
        ensure!(status == 200, "POST /login: {status} {}", String::from_utf8_lossy(&answer));
        let answer: Value = serde_json::from_slice(&answer).context("POST /login did not answer with JSON")?;
        Ok(answer["token"].as_str().context("POST /login answered without a token")?.to_owned())
    }

    /// Returns the room's id.
    pub(crate) fn make_room(&mut self, token: &str, room: &Value) -> Result<u64> {
        let (status, answer) = self.request("POST", "/rooms", Some(token), Some(room))?;
        ensure!(status == 201, "POST /rooms: {status} {}", String::from_utf8_lossy(&answer));
        let answer: Value = serde_json::from_slice(&answer).context("POST /rooms did not answer with JSON")?;
        answer["id"].as_u64().context("POST /rooms answered without an id")
    }

    /// Stores a picture, and shows it in a room.
    pub(crate) fn show_picture(&mut self, token: &str, room: u64, picture: &[u8]) -> Result<()> {
        let (status, answer) = self.send("POST", "/images", Some(token), "image/png", picture)?;
        ensure!(status == 201, "POST /images: {status} {}", String::from_utf8_lossy(&answer));
        let image: Value = serde_json::from_slice(&answer).context("POST /images did not answer with JSON")?;
        let message = json!({ "room": room, "content": "look", "image": image["id"] });
        let (status, answer) = self.request("POST", "/messages", Some(token), Some(&message))?;
        ensure!(status == 201, "POST /messages: {status} {}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// One step of a search in everything that the user may read. Returns where the next one begins; none at the end.
    pub(crate) fn search(&mut self, token: &str, text: &str, before: Option<u64>) -> Result<Option<u64>> {
        let before = before.map_or(String::new(), |before| format!("&before={before}"));
        let (status, answer) = self.request("GET", &format!("/search?q={text}{before}"), Some(token), None)?;
        ensure!(status == 200, "GET /search: {status} {}", String::from_utf8_lossy(&answer));
        let answer: Value = serde_json::from_slice(&answer).context("GET /search did not answer with JSON")?;
        Ok(answer["before"].as_u64())
    }

    /// The ids in a room, the lobby if none is named, after `after` up to `until`, a page at a time: what a client told to
    /// `resync` reads.
    pub(crate) fn ids_between(&mut self, token: &str, room: Option<u64>, after: u64, until: u64) -> Result<Vec<u64>> {
        let room = room.map_or(String::new(), |room| format!("&room={room}"));
        let mut ids = Vec::new();
        let mut after = after;
        while after < until {
            let (status, page) =
                self.request("GET", &format!("/messages?limit=200&after={after}{room}"), Some(token), None)?;
            ensure!(status == 200, "GET /messages: {status} {}", String::from_utf8_lossy(&page));
            let page: Value = serde_json::from_slice(&page)?;
            let messages = page["messages"].as_array().context("GET /messages answered without messages")?;
            ids.extend(messages.iter().filter_map(|message| message["id"].as_u64()).filter(|id| *id <= until));
            match messages.last().and_then(|message| message["id"].as_u64()) {
                Some(last) if page["has_more"] == true => after = last,
                _ => break,
            }
        }
        Ok(ids)
    }
}

/// Connects, upgrades and authenticates, blocking. Returns the socket, what `auth_success` said, and the bytes that
/// came after it. With `rooms` all rooms of the user come, and not the lobby alone; `resume` is the last id seen and its
/// epoch.
pub(crate) fn enter(
    address: SocketAddr,
    token: &str,
    rooms: bool,
    resume: Option<(u64, &str)>,
) -> Result<(TcpStream, Welcome, Vec<u8>)> {
    let (mut stream, mut entering) = Entering::start(address, token, rooms, resume)?;
    loop {
        if let Some((welcome, rest)) = entering.advance(&mut stream)? {
            return Ok((stream, welcome, rest));
        }
    }
}

/// A client on its way in: upgraded, then authenticated.
pub(crate) struct Entering {
    auth: Vec<u8>,
    resume: Option<u64>,
    received: Vec<u8>,
    /// Where the upgrade's answer ends, once it has come.
    head: Option<usize>,
}

impl Entering {
    /// Connects, and asks for the upgrade.
    pub(crate) fn start(
        address: SocketAddr,
        token: &str,
        rooms: bool,
        resume: Option<(u64, &str)>,
    ) -> Result<(TcpStream, Self)> {
        let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(
            format!(
                "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {UPGRADE_KEY}\r\n\r\n"
            )
            .as_bytes(),
        )?;
        let continued = resume
            .map_or(String::new(), |(last_id, epoch)| format!(r#","last_id":{last_id},"epoch":{}"#, json!(epoch)));
        let rooms = if rooms { r#","rooms":true"# } else { "" };
        let frame = format!(r#"{{"type":"auth","token":{}{rooms}{continued}}}"#, json!(token));
        let mut auth = Vec::new();
        put_frame(&mut auth, TEXT, frame.as_bytes(), Some(MASK));
        let resume = resume.map(|(last_id, _)| last_id);
        Ok((stream, Self { auth, resume, received: Vec::new(), head: None }))
    }

    /// Reads once, and answers. Once the client is in: what `auth_success` said, and the bytes that came after it.
    pub(crate) fn advance(&mut self, stream: &mut TcpStream) -> Result<Option<(Welcome, Vec<u8>)>> {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context("the server closed while letting us in");
        }
        let received = &mut self.received;
        received.extend_from_slice(&buffer[..count]);
        if self.head.is_none() {
            let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
            ensure!(
                received.starts_with(b"HTTP/1.1 101"),
                "the upgrade was refused: {}",
                String::from_utf8_lossy(&received[..end]).lines().next().unwrap_or_default()
            );
            self.head = Some(end + 4);
            stream.write_all(&self.auth)?;
        }
        let Some(answer) = self.head.and_then(|head| next_frame(received, head)).map(|frame| frame.payload) else {
            return Ok(None);
        };
        let welcome: Value = serde_json::from_slice(&received[answer.clone()]).context("the first frame is no JSON")?;
        ensure!(welcome["type"] == "auth_success", "not let in: {welcome}");
        let welcome = Welcome {
            after: self.resume.or(welcome["last_id"].as_u64()).context("auth_success without last_id")?,
            epoch: welcome["epoch"].as_str().unwrap_or_default().to_owned(),
        };
        Ok(Some((welcome, received.split_off(answer.end))))
    }
}

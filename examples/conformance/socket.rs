//! A WebSocket, frame by frame (RFC 6455), with the contract's ways of waiting.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::check::{Check, broken, expect, int, is_like, shown};
use super::http::{Call, Wire};
use super::world::{Person, World};

/// First byte of a frame, RFC 6455 5.2: the final fragment, and the opcodes.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// A client that comes back at the first moment allowed, again and again, counts as persistent abuse.
const BACK_OFF: Duration = Duration::from_millis(500);

/// Any key does; a fixed one makes failures repeatable.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The upgrade; the key is the RFC's example.
pub(crate) fn upgrade() -> Call {
    Call::new("GET", "/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// A masked frame whose first byte (`FIN | TEXT`, say) is `first`.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ ..126) => bytes.push(0x80 | u8::try_from(length).expect("it is below 126")),
        Ok(length) => {
            bytes.push(0xfe);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0xff);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The outcome of `wait`, or that `expected` did not come: whatever else comes meanwhile does not make it longer.
async fn within<T>(patience: Duration, expected: &str, wait: impl Future<Output = Check<T>>) -> Check<T> {
    let waited = tokio::time::timeout(patience, wait).await;
    waited.unwrap_or_else(|_| Err(broken(expected, format!("not that for {patience:?}"))))
}

/// What came over a socket.
#[derive(Debug)]
pub(crate) enum Incoming {
    Frame(Value),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The close code, if the server said one.
    End(Option<u16>),
}

/// One connection of one person.
#[derive(Debug)]
pub(crate) struct Socket {
    wire: Wire,
    world: World,
    who: String,
    /// The `auth_success`, null until then.
    pub(crate) welcome: Value,
    /// Whether the protocol's pings are answered.
    pub(crate) is_alive: bool,
    /// What came while it settled, and is read before what comes next.
    earlier: VecDeque<Value>,
}

impl Socket {
    /// Upgrades and says nothing yet.
    pub(crate) async fn open(world: &World, receive_buffer: Option<u32>) -> Check<Socket> {
        let mut wire = Wire::connect(world.options().address, world.options().patience, receive_buffer).await?;
        wire.write(&upgrade().bytes(&world.host())).await?;
        let answer = wire.answer().await?;
        expect(answer.status == 101, "101 Switching Protocols", &answer)?;
        // RFC 6455 1.3: the answer to the key above.
        expect(
            answer.header("sec-websocket-accept") == Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "the accept key of RFC 6455",
            format!("{answer:?}"),
        )?;
        Ok(Socket {
            wire,
            world: world.clone(),
            who: "somebody".into(),
            welcome: Value::Null,
            is_alive: true,
            earlier: VecDeque::new(),
        })
    }

    /// Sends `auth` with `more` fields and reads the `auth_success`, which must be the first frame.
    pub(crate) async fn authenticate(&mut self, person: &Person, more: &Value) -> Check {
        let mut auth = json!({"type": "auth", "token": person.token});
        for (field, value) in more.as_object().into_iter().flatten() {
            auth[field] = value.clone();
        }
        self.who.clone_from(&person.name);
        self.world.step(format!("{} sends auth {more}", self.who));
        self.wire.write(&frame(FIN | TEXT, auth.to_string().as_bytes())).await?;
        let first = self.next().await?;
        expect(first["type"] == "auth_success", "auth_success as the first frame", &first)?;
        self.welcome = first;
        Ok(())
    }

    pub(crate) async fn send(&mut self, value: &Value) -> Check {
        self.send_text(&value.to_string()).await
    }

    /// Sends one text frame, whatever it says.
    pub(crate) async fn send_text(&mut self, text: &str) -> Check {
        self.world.step(format!("{} sends {}", self.who, shown(text)));
        self.wire.write(&frame(FIN | TEXT, text.as_bytes())).await
    }

    /// Sends bytes that may be no frame at all.
    pub(crate) async fn send_bytes(&mut self, what: &str, bytes: &[u8]) -> Check {
        self.world.step(format!("{} sends {what}", self.who));
        self.wire.write(bytes).await
    }

    /// Whatever comes next.
    pub(crate) async fn incoming(&mut self, patience: Duration) -> Check<Incoming> {
        if let Some(frame) = self.earlier.pop_front() {
            return Ok(Incoming::Frame(frame));
        }
        let incoming = loop {
            if let Some(incoming) = self.parse()? {
                break incoming;
            }
            if !self.wire.read(patience).await? {
                break Incoming::End(None);
            }
        };
        match &incoming {
            Incoming::Ping(payload) if self.is_alive => self.wire.write(&frame(FIN | PONG, payload)).await?,
            Incoming::Frame(value) => self.world.step(format!("{} gets {}", self.who, shown(&value.to_string()))),
            Incoming::End(code) => self.world.step(format!("{}'s connection ends, code {code:?}", self.who)),
            _ => {}
        }
        Ok(incoming)
    }

    /// A whole frame of what was read ahead. A server's frames are not masked, and it need not fragment: these do not.
    fn parse(&mut self) -> Check<Option<Incoming>> {
        let ahead = &self.wire.ahead;
        let (Some(first), Some(second)) = (ahead.first().copied(), ahead.get(1).copied()) else { return Ok(None) };
        expect(second & 0x80 == 0, "a frame without a mask (RFC 6455 5.1)", format!("{second:#04x}"))?;
        let (header, length) = match second {
            126 => (4, ahead.get(2..4).map(|bytes| u64::from(u16::from_be_bytes([bytes[0], bytes[1]])))),
            127 => (10, ahead.get(2..10).map(|bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes")))),
            length => (2, Some(u64::from(length))),
        };
        let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else { return Ok(None) };
        if ahead.len() < header + length {
            return Ok(None);
        }
        let payload = self.wire.ahead.drain(..header + length).skip(header).collect::<Vec<u8>>();
        let incoming = match first {
            first if first == FIN | TEXT => {
                let value = serde_json::from_slice(&payload);
                Incoming::Frame(value.map_err(|_| broken("JSON", String::from_utf8_lossy(&payload)))?)
            }
            first if first == FIN | PING => Incoming::Ping(payload),
            first if first == FIN | PONG => Incoming::Pong(payload),
            first if first == FIN | CLOSE => {
                Incoming::End(payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]])))
            }
            other => return Err(broken("a text frame in one piece", format!("first byte {other:#04x}"))),
        };
        Ok(Some(incoming))
    }

    /// The next frame of text.
    pub(crate) async fn next(&mut self) -> Check<Value> {
        self.next_within(self.world.options().patience).await
    }

    /// The next frame of text, where a deadline of the contract says when.
    pub(crate) async fn next_within(&mut self, patience: Duration) -> Check<Value> {
        let waited = async {
            loop {
                match self.incoming(patience).await? {
                    Incoming::Frame(value) => return Ok(value),
                    Incoming::End(code) => return Err(broken("a frame", format!("the end, close code {code:?}"))),
                    Incoming::Ping(_) | Incoming::Pong(_) => {}
                }
            }
        };
        within(patience, "a frame", waited).await
    }

    /// The next frame like `expected`; others are passed over.
    pub(crate) async fn wait(&mut self, expected: &Value) -> Check<Value> {
        let patience = self.world.options().patience;
        let waited = async {
            loop {
                let value = self.next().await?;
                if is_like(&value, expected) {
                    return Ok(value);
                }
            }
        };
        within(patience, &format!("a frame like {expected}"), waited).await
    }

    /// Every frame up to and with the first like `expected`, for a connection whose `pong` does not count events.
    pub(crate) async fn through(&mut self, expected: &Value) -> Check<Vec<Value>> {
        let mut frames = Vec::new();
        let patience = self.world.options().patience;
        let waited = async {
            loop {
                let value = self.next().await?;
                let is_last = is_like(&value, expected);
                frames.push(value);
                if is_last {
                    return Ok(frames);
                }
            }
        };
        within(patience, &format!("a frame like {expected}"), waited).await
    }

    /// Waits until it is in its place, so that what is no event reaches it as it happens: until then a `presence` may
    /// stand for who came and went, and a `typing` or `read` may have passed. What came meanwhile is read later.
    pub(crate) async fn take_place(&mut self) -> Check {
        self.earlier = self.settle().await?.into();
        Ok(())
    }

    /// Everything that comes before the answer to a `ping`.
    pub(crate) async fn settle(&mut self) -> Check<Vec<Value>> {
        self.until(0).await
    }

    /// Every frame up to event `id`: once a `pong` says that the connection is there, what did not come is not for it.
    pub(crate) async fn until(&mut self, id: i64) -> Check<Vec<Value>> {
        let patience = self.world.options().patience;
        within(patience, &format!("a pong past event {id}"), self.read_until(id)).await
    }

    async fn read_until(&mut self, id: i64) -> Check<Vec<Value>> {
        let mut frames = Vec::new();
        loop {
            self.send(&json!({"type": "ping"})).await?;
            loop {
                let value = self.next().await?;
                if value["type"] != "pong" {
                    frames.push(value);
                    continue;
                }
                // A server of the first edition has no `last_id`; its pong comes after what came before the ping.
                if value["last_id"].as_i64().is_none_or(|last| last >= id) {
                    return Ok(frames);
                }
                break;
            }
        }
    }

    /// Sends a frame that stores something, with a nonce, and waits for its `ack`; a rate is waited out as it asks.
    pub(crate) async fn store(&mut self, value: &Value) -> Check<i64> {
        let mut value = value.clone();
        if value.get("nonce").is_none() {
            value["nonce"] = json!(self.world.unique("nonce"));
        }
        loop {
            self.send(&value).await?;
            let answer = self.answer_to(&value["nonce"]).await?;
            if answer["type"] == "ack" {
                return int(&answer, "id");
            }
            expect(answer["code"] == "rate_limited", format!("an ack for {value}"), &answer)?;
            let wait = u64::try_from(int(&answer, "retry_after")?).unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(wait).max(BACK_OFF)).await;
        }
    }

    /// The `ack` or `error` that carries `nonce`.
    pub(crate) async fn answer_to(&mut self, nonce: &Value) -> Check<Value> {
        let patience = self.world.options().patience;
        let waited = async {
            loop {
                let frame = self.next().await?;
                if (frame["type"] == "ack" || frame["type"] == "error") && frame["nonce"] == *nonce {
                    return Ok(frame);
                }
            }
        };
        within(patience, &format!("an ack or an error with the nonce {nonce}"), waited).await
    }

    /// Sends a frame with a nonce that must be refused with `code`.
    pub(crate) async fn refused(&mut self, value: &Value, code: &str) -> Check {
        let mut value = value.clone();
        value["nonce"] = json!(self.world.unique("nonce"));
        self.send(&value).await?;
        let answer = self.answer_to(&value["nonce"]).await?;
        let is_refused = answer["type"] == "error" && answer["code"] == code && answer["message"].is_string();
        expect(is_refused, format!("an error {code} for {value}"), &answer)
    }

    /// How the server closes, after whatever comes before it.
    pub(crate) async fn end(&mut self, patience: Duration) -> Check<Option<u16>> {
        let waited = async {
            loop {
                if let Incoming::End(code) = self.incoming(patience).await? {
                    return Ok(code);
                }
            }
        };
        within(patience, "a close", waited).await
    }

    /// Holds if the server closes with `code` after whatever comes before it.
    pub(crate) async fn closes_with(&mut self, code: u16) -> Check {
        let end = match self.end(self.world.options().patience).await {
            Ok(end) => format!("{end:?}"),
            Err(_) => "no close".into(),
        };
        expect(end == format!("Some({code})"), format!("a close with {code}"), end)
    }

    /// Closes as the RFC asks, and waits for the server's own close and the end.
    pub(crate) async fn close(mut self, code: u16) -> Check<Option<u16>> {
        self.send_bytes("a close", &frame(FIN | CLOSE, &code.to_be_bytes())).await?;
        let end = self.end(self.world.options().patience).await?;
        expect(self.wire.ends().await, "the server to hang up after the close", "an open connection")?;
        Ok(end)
    }
}

//! The limit: what the kernel charges for the fan-out alone.
//!
//! One loop that takes messages off the senders' sockets and writes the finished frame to every socket, with one
//! `writev` each. Messages that arrived together go out together ("joined sends"). It stores nothing, checks nothing
//! and keeps any backlog in memory, so it is no chat server; it answers just enough of the contract to be driven by the
//! same generator. Whatever a real server costs more than this is the price of its promises.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;

use crate::wire::{FieldFinder, TEXT, UPGRADE_ACCEPT, next_frame, put_frame, unmask};

const LISTENER: u64 = u64::MAX;
const BUFFER: usize = 256 * 1024;

#[derive(Default)]
struct Peer {
    upgraded: bool,
    receives: bool,
    /// The beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
    /// Answers to this peer alone, written in front of the next batch.
    answers: Vec<u8>,
    /// What the socket would not take.
    backlog: Vec<u8>,
}

/// Serves until it is killed.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;

    let mut peers: Vec<Option<(TcpStream, Peer)>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    let mut finders = Finders::default();
    let mut last_id = 0;
    loop {
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        let mut batch = Vec::new();
        let mut answered = Vec::new();
        for event in events.drain(..) {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(&epoll, &stream, EventData::new_u64(peers.len() as u64), EventFlags::IN)?;
                    peers.push(Some((stream, Peer::default())));
                }
                continue;
            }
            let slot = &mut peers[token as usize];
            let Some((stream, peer)) = slot else { continue };
            if flags.contains(EventFlags::OUT) && peer.drain(stream) {
                epoll::modify(&epoll, &*stream, event.data, EventFlags::IN)?;
            }
            let start = peer.partial.len();
            buffer[..start].copy_from_slice(&peer.partial);
            match stream.read(&mut buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) if count > 0 => {
                    peer.receive(&mut buffer[..start + count], &mut finders, &mut last_id, &mut batch);
                    if !peer.answers.is_empty() {
                        answered.push(token as usize);
                    }
                }
                // Closing the socket takes it out of the epoll set as well.
                _ => *slot = None,
            }
        }

        if batch.is_empty() {
            for index in answered {
                write_to(&epoll, &mut peers[index], index, &batch)?;
            }
        } else {
            for (index, slot) in peers.iter_mut().enumerate() {
                write_to(&epoll, slot, index, &batch)?;
            }
        }
    }
}

/// Writes a peer's answers and the batch in one call, and keeps what the socket did not take.
fn write_to(epoll: &OwnedFd, slot: &mut Option<(TcpStream, Peer)>, index: usize, batch: &[u8]) -> Result<()> {
    let Some((stream, peer)) = slot else { return Ok(()) };
    let batch = if peer.receives { batch } else { &[] };
    if batch.is_empty() && peer.answers.is_empty() {
        return Ok(());
    }
    let mut written = 0;
    if peer.backlog.is_empty() {
        let parts = [IoSlice::new(&peer.answers), IoSlice::new(batch)];
        match if peer.answers.is_empty() { stream.write(batch) } else { stream.write_vectored(&parts) } {
            Ok(count) => written = count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                *slot = None;
                return Ok(());
            }
        }
    }
    if written < peer.answers.len() + batch.len() {
        if peer.backlog.is_empty() {
            let token = EventData::new_u64(index as u64);
            epoll::modify(epoll, &*stream, token, EventFlags::IN | EventFlags::OUT)?;
        }
        let answers_left = peer.answers.get(written..).unwrap_or_default();
        peer.backlog.extend_from_slice(answers_left);
        peer.backlog.extend_from_slice(&batch[written.saturating_sub(peer.answers.len())..]);
    }
    peer.answers.clear();
    Ok(())
}

#[derive(Default)]
struct Finders {
    content: FieldFinder,
    nonce: FieldFinder,
}

impl Peer {
    fn receive(&mut self, bytes: &mut [u8], finders: &mut Finders, last_id: &mut u64, batch: &mut Vec<u8>) {
        if !self.upgraded {
            self.answer_http(bytes);
            return;
        }
        let mut at = 0;
        while let Some(frame) = next_frame(bytes, at) {
            at = frame.payload.end;
            let payload = &mut bytes[frame.payload];
            if let Some(mask) = frame.mask {
                unmask(payload, mask);
            }
            let string = |finder: &mut FieldFinder, key: &[u8]| {
                let rest = finder.find(payload, key).unwrap_or_default();
                String::from_utf8_lossy(rest.split(|byte| *byte == b'"').next().unwrap_or_default()).into_owned()
            };
            if payload.starts_with(b"{\"type\":\"message\"") {
                *last_id += 1;
                let content = string(&mut finders.content, b"\"content\":\"");
                let nonce = string(&mut finders.nonce, b"\"nonce\":\"");
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let message = format!(
                    r#"{{"type":"message","id":{last_id},"username":"load-00000000-0","content":"{content}","created_at":{now}}}"#
                );
                put_frame(batch, TEXT, message.as_bytes(), None);
                let ack = format!(r#"{{"type":"ack","nonce":"{nonce}","id":{last_id}}}"#);
                put_frame(&mut self.answers, TEXT, ack.as_bytes(), None);
            } else if payload.starts_with(b"{\"type\":\"auth\"") {
                self.receives = true;
                let welcome = format!(
                    r#"{{"type":"auth_success","username":"bare","last_id":{last_id},"epoch":"bare","online":1,"users":["bare"]}}"#
                );
                put_frame(&mut self.answers, TEXT, welcome.as_bytes(), None);
            } else if payload.starts_with(b"{\"type\":\"ping\"") {
                put_frame(&mut self.answers, TEXT, br#"{"type":"pong"}"#, None);
            }
        }
        self.partial.clear();
        self.partial.extend_from_slice(&bytes[at..]);
    }

    /// The generator writes a request in one piece, and on loopback it arrives so.
    fn answer_http(&mut self, request: &[u8]) {
        let (status, body) = match request {
            request if request.starts_with(b"GET /ws") => {
                self.upgraded = true;
                self.answers = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {UPGRADE_ACCEPT}\r\n\r\n"
                )
                .into_bytes();
                return;
            }
            request if request.starts_with(b"POST /register") => ("201 Created", r#"{"username":"bare"}"#),
            request if request.starts_with(b"POST /login") => ("200 OK", r#"{"token":"bare","username":"bare"}"#),
            _ => ("200 OK", r#"{"status":"ok"}"#),
        };
        self.answers = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    }

    /// Writes what waits; true when nothing waits any more.
    fn drain(&mut self, stream: &mut TcpStream) -> bool {
        if let Ok(count) = stream.write(&self.backlog) {
            self.backlog.drain(..count);
        }
        self.backlog.is_empty()
    }
}

//! All clients in one loop: one `epoll_wait`, one `read` a ready socket into one buffer, one pass over the bytes.
//!
//! A generator that costs more than the server measures itself. So a delivery costs this one a `read`, and the search
//! for an id; a clock is looked at once a read, and a delivery's latency is taken from those whose id the sample hits.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use serde_json::{Value, json};

use crate::report::Histogram;
use crate::seen::{Arrival, Seen};
use crate::server::{Server, machine_cpu, own_cpu};
use crate::wire::{
    CLOSE, Entering, FieldFinder, Http, MASK, PING, PONG, TEXT, Welcome, enter, leading_number, next_frame, put_frame,
};

const BUFFER: usize = 256 * 1024;
const EVENTS: usize = 512;
/// While connecting, those inside are read this often, so that nobody is taken for a slow reader.
const CONNECTS_A_TURN: usize = 64;
/// A run is over when nothing has come for this long although something is missing.
const SILENCE: Duration = Duration::from_secs(5);
/// Clients that will stall get a receive buffer of a phone's size, or the kernel alone would bridge their pause.
const STALLING_RECEIVE_BUFFER: usize = 32 * 1024;

/// When a message was sent, and which it was: its nonce, and the first word of its content.
#[derive(Clone, Copy)]
struct Stamp {
    sent_us: u64,
    number: u64,
}

struct Client {
    stream: TcpStream,
    /// While it is on its way in.
    entering: Option<Box<Entering>>,
    user: usize,
    /// Where it talks: an index of the fleet's rooms.
    room: usize,
    /// The beginning of a frame whose end has not arrived; empty but for a moment.
    partial: Vec<u8>,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
    waits_to_send: bool,
    /// Sent and not acknowledged: sent again, under the same nonce, when the connection breaks.
    unacknowledged: Vec<Stamp>,
    epoch: String,
    seen: Seen,
    /// Whether its latencies count.
    counted: bool,
}

/// What happened since the fleet connected.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) sent: u64,
    pub(crate) acks: u64,
    pub(crate) refused: u64,
    pub(crate) deliveries: u64,
    pub(crate) repeats: u64,
    pub(crate) disorder: u64,
    pub(crate) resyncs: u64,
    pub(crate) caught_up: u64,
    pub(crate) reconnects: u64,
    pub(crate) pongs: u64,
    /// Who came, who left, how many are there.
    pub(crate) notices: u64,
}

/// What happened in a stretch of time, and what the server used meanwhile.
pub(crate) struct Window {
    pub(crate) elapsed: Duration,
    pub(crate) stored: u64,
    pub(crate) deliveries: u64,
    pub(crate) latency: Histogram,
    pub(crate) acks: Histogram,
    pub(crate) cpu: Option<Duration>,
    pub(crate) own_cpu: Option<Duration>,
    /// What neither the server nor this process used: while others work, figures are worse than the server is.
    pub(crate) others_cpu: Option<Duration>,
    pub(crate) rss: Option<u64>,
    pub(crate) peak_rss: Option<u64>,
}

/// Who sends when.
#[derive(Clone, Copy)]
enum Load {
    Quiet,
    Paced { interval_us: u64, next_us: u64, next_sender: usize },
    Flood,
}

/// What to connect.
#[derive(Clone, Copy)]
pub(crate) struct Crew {
    pub(crate) clients: usize,
    pub(crate) senders: usize,
    /// The last so many will stop reading for a while.
    pub(crate) stalling: usize,
    /// In so many private rooms; 0: in the lobby.
    pub(crate) rooms: usize,
    /// Characters of a message.
    pub(crate) size: usize,
    /// Every how many messages the latency of the deliveries is taken.
    pub(crate) sample: u64,
}

/// All connections of a run.
pub(crate) struct Fleet<'server> {
    server: &'server Server,
    crew: Crew,
    /// How many clients are on their way in.
    entering: usize,
    epoll: OwnedFd,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    load: Load,
    counters: Counters,
    first_refusal: Option<String>,
    /// The ids of the private rooms; none: all talk in the lobby.
    rooms: Vec<u64>,
    /// What was stored in each room.
    stored: Vec<Vec<u64>>,
    /// What this run's nonces begin with.
    run: String,
    started: Instant,
    latency: Histogram,
    acks: Histogram,
    finders: Finders,
    catch_up: CatchUp,
}

#[derive(Default)]
struct Finders {
    id: FieldFinder,
    content: FieldFinder,
    ack_id: FieldFinder,
    ack_nonce: FieldFinder,
}

impl<'server> Fleet<'server> {
    /// Connects and authenticates all of the crew, sharing out the server's users among them.
    pub(crate) fn connect(server: &'server Server, crew: Crew) -> Result<Self> {
        let mut fleet = Self::nobody(server, crew)?;
        for index in 0..crew.clients {
            fleet.connect_one(index)?;
            if index % CONNECTS_A_TURN == 0 {
                fleet.turn(Duration::ZERO)?;
            }
        }
        Ok(fleet)
    }

    /// Connects the crew, so many of them at once, and waits until the last is in and has read up to `last_id`. `resume`
    /// is what each has read before: up to which id, in which history.
    pub(crate) fn storm(
        server: &'server Server,
        crew: Crew,
        at_once: usize,
        resume: Option<(u64, &str)>,
        last_id: u64,
    ) -> Result<Self> {
        let mut fleet = Self::nobody(server, crew)?;
        let is_there = |client: &Client| client.entering.is_none() && client.seen.last_id() >= last_id;
        // All before this one are in: they are looked at once.
        let mut there = 0;
        while there < crew.clients {
            while fleet.clients.len() < crew.clients && fleet.entering < at_once {
                let user = fleet.clients.len() % server.tokens.len();
                let (stream, entering) = Entering::start(server.address, &server.tokens[user], crew.rooms > 0, resume)?;
                fleet.add(stream, user, Some(Box::new(entering)))?;
            }
            fleet.turn(Duration::from_millis(1))?;
            there += fleet.clients[there..].iter().take_while(|client| is_there(client)).count();
        }
        Ok(fleet)
    }

    /// Up to where a client has read, and in which history.
    pub(crate) fn last_read(&self) -> Result<(u64, String)> {
        let client = self.clients.first().context("there are no clients")?;
        Ok((client.seen.last_id(), client.epoch.clone()))
    }

    fn nobody(server: &'server Server, crew: Crew) -> Result<Self> {
        let readers = crew.clients.saturating_sub(crew.stalling);
        ensure!(readers > 0 && crew.senders <= readers, "more senders or stalling than clients");
        Ok(Self {
            server,
            crew,
            entering: 0,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            clients: Vec::with_capacity(crew.clients),
            buffer: vec![0; BUFFER],
            load: Load::Quiet,
            counters: Counters::default(),
            first_refusal: None,
            rooms: server.make_rooms(crew.rooms)?,
            stored: vec![Vec::new(); crew.rooms.max(1)],
            run: format!("{:08x}-", rand::random::<u32>()),
            started: Instant::now(),
            latency: Histogram::default(),
            acks: Histogram::default(),
            finders: Finders::default(),
            catch_up: CatchUp::start(server.address),
        })
    }

    fn connect_one(&mut self, index: usize) -> Result<()> {
        let user = index % self.server.tokens.len();
        let (stream, welcome, rest) = enter(self.server.address, &self.server.tokens[user], self.crew.rooms > 0, None)
            .with_context(|| format!("connection {} of {}", index + 1, self.crew.clients))?;
        let stalls = index >= self.crew.clients - self.crew.stalling;
        if stalls {
            rustix::net::sockopt::set_socket_recv_buffer_size(&stream, STALLING_RECEIVE_BUFFER)?;
        }
        self.add(stream, user, None)?;
        self.let_in(index, welcome, &rest)
    }

    fn add(&mut self, stream: TcpStream, user: usize, entering: Option<Box<Entering>>) -> Result<()> {
        let index = self.clients.len();
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        self.entering += usize::from(entering.is_some());
        self.clients.push(Client {
            stream,
            entering,
            user,
            room: user % self.stored.len(),
            partial: Vec::new(),
            unsent: Vec::new(),
            waits_to_send: false,
            unacknowledged: Vec::new(),
            epoch: String::new(),
            seen: Seen::after(0),
            counted: index < self.crew.clients - self.crew.stalling,
        });
        Ok(())
    }

    fn let_in(&mut self, index: usize, welcome: Welcome, rest: &[u8]) -> Result<()> {
        let client = &mut self.clients[index];
        (client.epoch, client.seen) = (welcome.epoch, Seen::after(welcome.after));
        self.consume(index, rest)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn first_refusal(&self) -> Option<&str> {
        self.first_refusal.as_deref()
    }

    /// From now on the senders take turns, so many messages a second together.
    pub(crate) fn send_paced(&mut self, messages_per_second: f64) {
        let interval_us = (1e6 / messages_per_second) as u64;
        self.load = Load::Paced { interval_us, next_us: self.now_us(), next_sender: 0 };
    }

    /// From now on each sender has `outstanding` messages on their way, and sends another for each that is settled.
    pub(crate) fn send_flood(&mut self, outstanding: usize) -> Result<()> {
        self.load = Load::Flood;
        for sender in 0..self.crew.senders {
            for _ in 0..outstanding {
                self.queue_message(sender);
            }
            self.flush(sender)?;
        }
        Ok(())
    }

    /// Nothing new is sent; what is under way still arrives in the turns to come.
    pub(crate) fn stop_sending(&mut self) {
        self.load = Load::Quiet;
    }

    /// Sends one frame on the first `clients` connections.
    pub(crate) fn send_from(&mut self, clients: usize, payload: &[u8]) -> Result<()> {
        for index in 0..clients {
            put_frame(&mut self.clients[index].unsent, TEXT, payload, Some(MASK));
            self.flush(index)?;
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// The crew's stalling clients stop reading.
    pub(crate) fn stall(&mut self) -> Result<()> {
        for client in self.clients.iter().filter(|client| !client.counted) {
            epoll::delete(&self.epoll, &client.stream)?;
        }
        Ok(())
    }

    /// They go on reading.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        for (index, client) in self.clients.iter().enumerate().filter(|(_, client)| !client.counted) {
            epoll::add(&self.epoll, &client.stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        }
        Ok(())
    }

    /// Runs the load for `duration` and says what happened in it.
    pub(crate) fn measure(&mut self, duration: Duration) -> Result<Window> {
        self.latency = Histogram::default();
        self.acks = Histogram::default();
        self.server.forget_peak();
        let (before, begun) = (self.counters, Instant::now());
        let cpu_before = [self.server.cpu(), own_cpu(), machine_cpu()];
        self.run_for(duration)?;
        let memory = self.server.memory();
        let spent = |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
        let cpu = spent(self.server.cpu(), cpu_before[0]);
        let own_cpu = spent(own_cpu(), cpu_before[1]);
        let machine = spent(machine_cpu(), cpu_before[2]);
        Ok(Window {
            elapsed: begun.elapsed(),
            stored: self.counters.acks - before.acks,
            deliveries: self.counters.deliveries - before.deliveries,
            latency: self.latency.clone(),
            acks: self.acks.clone(),
            cpu,
            own_cpu,
            others_cpu: spent(spent(machine, cpu), own_cpu),
            rss: memory.map(|memory| memory.now),
            peak_rss: memory.map(|memory| memory.peak),
        })
    }

    /// Runs the load without measuring.
    pub(crate) fn run_for(&mut self, duration: Duration) -> Result<()> {
        let deadline = Instant::now() + duration;
        loop {
            self.send_due()?;
            let mut left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if let Load::Paced { next_us, .. } = self.load {
                left = left.min(Duration::from_micros(next_us.saturating_sub(self.now_us())));
            }
            self.turn(left)?;
        }
    }

    /// Stops sending and reads until everything acknowledged has arrived everywhere, or nothing comes any more. Returns
    /// how many deliveries are missing.
    pub(crate) fn settle(&mut self) -> Result<u64> {
        self.stop_sending();
        let mut progress = (self.counters.deliveries, self.counters.acks, self.counters.caught_up);
        let mut last_progress = Instant::now();
        loop {
            self.turn(Duration::from_millis(20))?;
            let now = (self.counters.deliveries, self.counters.acks, self.counters.caught_up);
            if now != progress {
                (progress, last_progress) = (now, Instant::now());
            }
            let newest: Vec<u64> = self.stored.iter().map(|ids| ids.iter().copied().max().unwrap_or(0)).collect();
            let reached = self.clients.iter().all(|client| client.seen.last_id() >= newest[client.room]);
            let silent = last_progress.elapsed() > SILENCE;
            if silent || (reached && self.catch_up.pending == 0 && self.unsettled() == 0) {
                self.stored.iter_mut().for_each(|ids| ids.sort_unstable());
                let lost = self.clients.iter().map(|client| client.seen.lost(&self.stored[client.room])).sum();
                if silent || lost == 0 {
                    return Ok(lost);
                }
            }
        }
    }

    /// Messages that were neither acknowledged nor refused.
    pub(crate) fn unsettled(&self) -> u64 {
        self.clients.iter().map(|client| client.unacknowledged.len() as u64).sum()
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn send_due(&mut self) -> Result<()> {
        while let Load::Paced { interval_us, next_us, next_sender } = self.load {
            if next_us > self.now_us() {
                break;
            }
            let following = (next_sender + 1) % self.crew.senders;
            self.load = Load::Paced { interval_us, next_us: next_us + interval_us, next_sender: following };
            self.queue_message(next_sender);
            self.flush(next_sender)?;
        }
        Ok(())
    }

    fn queue_message(&mut self, index: usize) {
        let stamp = Stamp { sent_us: self.now_us(), number: self.counters.sent };
        self.counters.sent += 1;
        self.clients[index].unacknowledged.push(stamp);
        self.queue_stamped(index, stamp);
    }

    fn queue_stamped(&mut self, index: usize, stamp: Stamp) {
        let nonce = format!("{}{}-{}", self.run, stamp.sent_us, stamp.number);
        let filling = "x".repeat(self.crew.size.saturating_sub(nonce.len() + 1).max(1));
        let client = &mut self.clients[index];
        let room = self.rooms.get(client.room).map_or(String::new(), |room| format!(r#""room":{room},"#));
        let message = format!(r#"{{"type":"message",{room}"content":"{nonce} {filling}","nonce":"{nonce}"}}"#);
        put_frame(&mut client.unsent, TEXT, message.as_bytes(), Some(MASK));
    }

    /// Waits at most `timeout` for sockets, and serves each that is ready once.
    fn turn(&mut self, timeout: Duration) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let timeout = Timespec::try_from(timeout).context("no such timeout")?;
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            result => result.context("epoll_wait")?,
        };
        for event in events {
            let (index, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(EventFlags::OUT) {
                self.flush(index)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(index)?;
            }
        }
        self.collect_caught_up()
    }

    fn read(&mut self, index: usize) -> Result<()> {
        if self.clients[index].entering.is_some() {
            return self.advance(index);
        }
        let mut buffer = mem::take(&mut self.buffer);
        let client = &mut self.clients[index];
        let start = client.partial.len();
        buffer[..start].copy_from_slice(&client.partial);
        client.partial.clear();
        let outcome = match client.stream.read(&mut buffer[start..]) {
            Ok(count) if count > 0 => self.consume(index, &buffer[..start + count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Ok(_) | Err(_) => self.reconnect(index),
        };
        self.buffer = buffer;
        outcome
    }

    fn advance(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let Some(entering) = &mut client.entering else { return Ok(()) };
        let Some((welcome, rest)) = entering.advance(&mut client.stream)? else { return Ok(()) };
        client.entering = None;
        self.entering -= 1;
        self.let_in(index, welcome, &rest)
    }

    fn consume(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let now_us = self.now_us();
        let mut at = 0;
        while let Some(frame) = next_frame(bytes, at) {
            at = frame.payload.end;
            let payload = &bytes[frame.payload];
            match frame.opcode {
                TEXT if payload.starts_with(br#"{"type":"message""#) => self.message(index, payload, now_us),
                TEXT if payload.starts_with(br#"{"type":"ack""#) => self.ack(index, payload, now_us)?,
                TEXT => self.other(index, payload)?,
                PING => put_frame(&mut self.clients[index].unsent, PONG, payload, Some(MASK)),
                CLOSE => return self.reconnect(index),
                _ => {}
            }
        }
        let client = &mut self.clients[index];
        client.partial.extend_from_slice(&bytes[at..]);
        if client.unsent.is_empty() { Ok(()) } else { self.flush(index) }
    }

    fn message(&mut self, index: usize, payload: &[u8], now_us: u64) {
        let Some(id) = self.finders.id.find(payload, br#""id":"#).map(leading_number) else { return };
        let client = &mut self.clients[index];
        self.counters.deliveries += 1;
        match client.seen.take(id) {
            Arrival::InOrder => {}
            Arrival::Late => self.counters.disorder += 1,
            Arrival::Repeated => self.counters.repeats += 1,
        }
        if client.counted && id % self.crew.sample == 0 {
            let content = self.finders.content.find(payload, br#""content":""#).unwrap_or_default();
            if let Some(stamp) = content.strip_prefix(self.run.as_bytes()) {
                self.latency.record(now_us.saturating_sub(leading_number(stamp)));
            }
        }
    }

    fn ack(&mut self, index: usize, payload: &[u8], now_us: u64) -> Result<()> {
        let nonce = self.finders.ack_nonce.find(payload, br#""nonce":""#).context("an ack without a nonce")?;
        let id = self.finders.ack_id.find(payload, br#""id":"#).map(leading_number).context("an ack without an id")?;
        if let Some(sent_us) = self.settle_nonce(index, nonce) {
            self.counters.acks += 1;
            self.acks.record(now_us.saturating_sub(sent_us));
            self.stored[self.clients[index].room].push(id);
        }
        Ok(())
    }

    /// Strikes off a message that was answered, and in a flood queues the next. Returns when it was sent.
    fn settle_nonce(&mut self, index: usize, nonce: &[u8]) -> Option<u64> {
        let stamp = nonce.strip_prefix(self.run.as_bytes())?;
        let dash = stamp.iter().position(|byte| *byte == b'-')?;
        let number = leading_number(&stamp[dash + 1..]);
        let unacknowledged = &mut self.clients[index].unacknowledged;
        let at = unacknowledged.iter().position(|stamp| stamp.number == number)?;
        let sent_us = unacknowledged.swap_remove(at).sent_us;
        if matches!(self.load, Load::Flood) {
            self.queue_message(index);
        }
        Some(sent_us)
    }

    /// Everything rare, and messages of servers that put the type elsewhere than first.
    fn other(&mut self, index: usize, payload: &[u8]) -> Result<()> {
        let frame: Value = serde_json::from_slice(payload).context("a frame is not JSON")?;
        match frame["type"].as_str() {
            Some("message") => self.message(index, payload, self.now_us()),
            Some("ack") => self.ack(index, payload, self.now_us())?,
            Some("pong") => self.counters.pongs += 1,
            Some("error") => {
                if self.settle_nonce(index, frame["nonce"].as_str().unwrap_or_default().as_bytes()).is_some() {
                    self.counters.refused += 1;
                }
                self.first_refusal.get_or_insert_with(|| frame.to_string());
            }
            Some("resync") => {
                let until = frame["last_id"].as_u64().context("a resync without last_id")?;
                let client = &mut self.clients[index];
                let after = client.seen.last_id();
                if until > after {
                    client.seen.pass_over(until);
                    let token = self.server.tokens[client.user].clone();
                    let room = self.rooms.get(client.room).copied();
                    self.catch_up.ask(Gap { index, token, room, after, until });
                }
                self.counters.resyncs += 1;
            }
            Some("user_join" | "user_leave" | "presence") => self.counters.notices += 1,
            Some("auth_failed") => bail!("a connection lost its session: {frame}"),
            _ => {}
        }
        Ok(())
    }

    /// Sends what waits, and asks to be told when the socket takes more if it does not take all.
    fn flush(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        match client.stream.write(&client.unsent) {
            Ok(count) if count == client.unsent.len() => client.unsent.clear(),
            Ok(count) => drop(client.unsent.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The socket is broken; reading will tell, and connect again.
            Err(_) => client.unsent.clear(),
        }
        if client.waits_to_send == client.unsent.is_empty() {
            client.waits_to_send = !client.waits_to_send;
            let also = if client.waits_to_send { EventFlags::OUT } else { EventFlags::empty() };
            epoll::modify(&self.epoll, &client.stream, EventData::new_u64(index as u64), EventFlags::IN | also)?;
        }
        Ok(())
    }

    /// What a client does whose connection was closed: comes back with its last id, and sends again what is open.
    fn reconnect(&mut self, index: usize) -> Result<()> {
        self.counters.reconnects += 1;
        let client = &mut self.clients[index];
        let token = &self.server.tokens[client.user];
        let (stream, _, rest) =
            enter(self.server.address, token, self.crew.rooms > 0, Some((client.seen.last_id(), &client.epoch)))
                .context("coming back after the server closed a connection")?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        // The old socket leaves the epoll set when it is dropped.
        client.stream = stream;
        client.partial.clear();
        client.unsent.clear();
        client.waits_to_send = false;
        for stamp in client.unacknowledged.clone() {
            self.queue_stamped(index, stamp);
        }
        self.consume(index, &rest)
    }

    fn collect_caught_up(&mut self) -> Result<()> {
        while let Some((index, ids)) = self.catch_up.take()? {
            for id in ids {
                if self.clients[index].seen.take(id) == Arrival::Late {
                    self.counters.caught_up += 1;
                }
            }
        }
        Ok(())
    }
}

/// What a client that was told to `resync` has to read.
struct Gap {
    index: usize,
    token: String,
    room: Option<u64>,
    after: u64,
    until: u64,
}

type CaughtUp = Result<(usize, Vec<u64>)>;

/// Reads history on a thread of its own, so that the others' latencies do not wait for it.
struct CatchUp {
    asks: Sender<Gap>,
    answers: Receiver<CaughtUp>,
    pending: usize,
}

impl CatchUp {
    fn start(address: SocketAddr) -> Self {
        let (asks, gaps) = mpsc::channel::<Gap>();
        let (results, answers) = mpsc::channel();
        thread::spawn(move || {
            for gap in gaps {
                let ids = Http::connect(address)
                    .and_then(|mut http| http.ids_between(&gap.token, gap.room, gap.after, gap.until));
                if results.send(ids.map(|ids| (gap.index, ids))).is_err() {
                    break;
                }
            }
        });
        Self { asks, answers, pending: 0 }
    }

    fn ask(&mut self, gap: Gap) {
        // The thread lives as long as this end does; if it panicked, nothing is caught up and the report shows a loss.
        if self.asks.send(gap).is_ok() {
            self.pending += 1;
        }
    }

    fn take(&mut self) -> Result<Option<(usize, Vec<u64>)>> {
        let Ok(answer) = self.answers.try_recv() else { return Ok(None) };
        self.pending -= 1;
        answer.map(Some)
    }
}

/// A `ping` frame of about `size` bytes, its weight in a field that no server knows.
pub(crate) fn heavy_ping(size: usize) -> Vec<u8> {
    json!({ "type": "ping", "weight": "x".repeat(size) }).to_string().into_bytes()
}

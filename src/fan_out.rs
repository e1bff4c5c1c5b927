//! The fan-out: a shard takes what is published and writes it to every socket that keeps up.
//!
//! A shard is one loop: one receiver of the broadcast channel, and for each of its sockets one non-blocking write of
//! all that is pending, encoded already. Nothing is copied or queued for a connection and no task is woken, so a
//! connection that keeps up costs one `send` a delivery and nothing else.
//!
//! A socket that would block is left alone from then on: its own task writes. It finishes the frame that was cut, reads
//! from the database what was missed meanwhile, and [joins](Shard::join) again. So a slow reader costs nobody else
//! anything, and needs no queue: the database is the queue.
//!
//! [`Seat`] is where the two meet. Its turn says who may write, so that a frame is never split by another writer; its
//! position says what the connection has been given, so that nothing is skipped or repeated whoever writes next.

mod seat;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::config::{HEARTBEAT_CHECKS, SOCKETS_PER_TURN, WRITE_MAX_BYTES};
use crate::hub::{Event, Hub, Position, Slice};
use crate::metrics::Metrics;
pub(crate) use seat::{Behind, Clock, Ending, Seat, Summons};

/// A loop that writes events to its sockets.
#[derive(Debug)]
pub(crate) struct Shard {
    clock: Clock,
    ping_interval: Duration,
    metrics: Arc<Metrics>,
    door: Mutex<Door>,
}

/// Where new seats wait to be listed, and what a connection must have been given for the shard to write to it.
#[derive(Debug, Default)]
struct Door {
    /// What the shard has begun to write.
    position: Position,
    new: Vec<Weak<Seat>>,
    shut: bool,
}

impl Shard {
    /// A shard that goes on from `position`.
    pub(crate) fn new(clock: Clock, ping_interval: Duration, metrics: Arc<Metrics>, position: Position) -> Self {
        Self { clock, ping_interval, metrics, door: Mutex::new(Door { position, ..Door::default() }) }
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the shard has begun to write: a connection that starts here misses nothing that comes later.
    pub(crate) fn position(&self) -> Position {
        self.door().position
    }

    /// Puts a seat on the shard's list: it can be ended from now on, and written to once it has joined.
    pub(crate) fn enlist(&self, seat: &Arc<Seat>) -> Result<(), Ending> {
        let mut door = self.door();
        if door.shut {
            return Err(Ending::Shutdown);
        }
        door.new.push(Arc::downgrade(seat));
        Ok(())
    }

    /// Gives the shard its turn, if the connection has been given all that the shard has begun to write: it goes on
    /// with the next event.
    pub(crate) fn join(&self, seat: &Seat) -> Result<(), Behind> {
        let door = self.door();
        seat.join(door.position)
    }

    /// Serves the shard's sockets for good.
    pub(crate) async fn run(&self, hub: Hub, mut events: broadcast::Receiver<Event>) -> Infallible {
        // Weak, so that a connection that ends closes its socket at once and not at the next event.
        let mut seats: Vec<Weak<Seat>> = Vec::new();
        let mut heartbeat = tokio::time::interval(self.ping_interval / HEARTBEAT_CHECKS);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = heartbeat.tick() => {
                    self.heartbeat(&mut seats).await;
                    continue;
                }
            };
            let mut next = match event {
                Ok(event) => Some(event),
                Err(RecvError::Lagged(missed)) => {
                    self.lagged(&hub, &mut seats, missed);
                    None
                }
                Err(RecvError::Closed) => unreachable!("this task holds a sender"),
            };
            while let Some(event) = next.take() {
                hub.progressed();
                match event {
                    Event::Frames(first) => {
                        let (slice, after) = self.gather(first, &hub, &mut events, &mut seats);
                        hub.progressed();
                        self.deliver(&slice, &mut seats).await;
                        next = after;
                    }
                    Event::Revoked(sessions) => {
                        // Who was found valid before this, and is not listed yet, is to look again.
                        self.door().position.revocation += 1;
                        self.list_new(&mut seats);
                        let revoked = |seat: &Arc<Seat>| sessions.contains(&seat.session());
                        seats
                            .iter()
                            .filter_map(Weak::upgrade)
                            .filter(revoked)
                            .for_each(|seat| seat.end(Ending::Revoked));
                    }
                    Event::Shutdown => {
                        self.door().shut = true;
                        self.list_new(&mut seats);
                        seats.iter().filter_map(Weak::upgrade).for_each(|seat| seat.end(Ending::Shutdown));
                    }
                }
            }
        }
    }

    fn list_new(&self, seats: &mut Vec<Weak<Seat>>) {
        seats.append(&mut self.door().new);
    }

    /// Joins what else is pending to `first`, up to [`WRITE_MAX_BYTES`], so that it costs each socket one write; and
    /// answers the event behind it, if that is of another kind.
    fn gather(
        &self,
        first: Arc<Slice>,
        hub: &Hub,
        events: &mut broadcast::Receiver<Event>,
        seats: &mut Vec<Weak<Seat>>,
    ) -> (Arc<Slice>, Option<Event>) {
        let mut bytes = first.bytes().len();
        let mut slices = vec![first];
        let mut after = None;
        while bytes < WRITE_MAX_BYTES {
            match events.try_recv() {
                Ok(Event::Frames(slice)) => {
                    bytes += slice.bytes().len();
                    slices.push(slice);
                }
                Ok(other) => {
                    after = Some(other);
                    break;
                }
                Err(TryRecvError::Lagged(missed)) => {
                    self.lagged(hub, seats, missed);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let slice = if slices.len() == 1 { slices.remove(0) } else { Arc::new(Slice::join(&slices)) };
        (slice, after)
    }

    /// Writes a slice to every socket that keeps up, giving way to the connections' tasks every few dozen.
    async fn deliver(&self, slice: &Slice, seats: &mut Vec<Weak<Seat>>) {
        {
            // From here on a seat passes the door only if its connection has been given this slice.
            let mut door = self.door();
            seats.append(&mut door.new);
            door.position = slice.advance(door.position);
        }
        let mut deliveries = 0;
        for_each(seats, |seat| deliveries += seat.deliver(slice)).await;
        self.metrics.deliveries.add(deliveries as u64);
    }

    /// The channel overran the shard: every connection catches up from the database, with all that was published.
    fn lagged(&self, hub: &Hub, seats: &mut Vec<Weak<Seat>>, missed: u64) {
        let mut door = self.door();
        let (message, presence) = hub.published();
        door.position.message = door.position.message.max(message);
        door.position.presence = door.position.presence.max(presence);
        // Sessions may have been revoked by what was missed.
        door.position.revocation += 1;
        seats.append(&mut door.new);
        drop(door);
        let connections = seats.len();
        tracing::warn!(missed, connections, "a shard fell behind: its connections catch up from the database");
        seats.iter().filter_map(Weak::upgrade).for_each(|seat| seat.fall_behind());
    }

    /// One round of pings and of looking for the dead: one timer for all connections.
    async fn heartbeat(&self, seats: &mut Vec<Weak<Seat>>) {
        self.list_new(seats);
        let now_ms = self.clock.now_ms();
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let (ping_every_ms, silent_after_ms) = (millis(self.ping_interval), millis(self.ping_interval * 5 / 2));
        for_each(seats, |seat| seat.heartbeat(now_ms, ping_every_ms, silent_after_ms)).await;
    }
}

/// Visits every seat whose connection is still there, forgets the others, and gives way to other tasks every
/// [`SOCKETS_PER_TURN`].
async fn for_each(seats: &mut Vec<Weak<Seat>>, mut visit: impl FnMut(&Seat)) {
    let (mut at, mut visited) = (0, 0);
    while at < seats.len() {
        if let Some(seat) = seats[at].upgrade() {
            visit(&seat);
            at += 1;
        } else {
            seats.swap_remove(at);
        }
        visited += 1;
        if visited % SOCKETS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::task::{Context, Waker};

    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::seat::Turn;
    use super::*;
    use crate::config::HUB_CAPACITY;
    use crate::hub::{SliceBuilder, Told};
    use crate::model::{SessionId, UserId};
    use crate::protocol::ServerFrame;
    use crate::stream::Stream;

    const PING_INTERVAL: Duration = Duration::from_secs(30);

    /// A shard that nobody runs, and seats that have joined it; the peers' ends keep the sockets open.
    fn shard_with_seats(clock: Clock, count: usize) -> (Shard, Vec<Arc<Seat>>, Vec<UnixStream>) {
        let shard = Shard::new(clock, PING_INTERVAL, Arc::new(Metrics::new()), Position::default());
        let (mut seats, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let seat = Seat::new(Stream::from_unix(ours), UserId(1), SessionId(1), clock, Position::default());
            shard.enlist(&seat).unwrap();
            shard.join(&seat).unwrap();
            seats.push(seat);
            peers.push(theirs);
        }
        (shard, seats, peers)
    }

    fn turns(seats: &[Arc<Seat>]) -> Vec<Turn> {
        seats.iter().map(|seat| seat.lock().turn).collect()
    }

    #[tokio::test]
    async fn who_is_heard_during_a_round_of_heartbeats_is_not_silent() {
        let clock = Clock::start();
        // One more than are visited before other tasks have their turn, all of them silent for long.
        let (shard, seats, _peers) = shard_with_seats(clock, SOCKETS_PER_TURN + 1);
        let long_ago_ms = clock.now_ms().wrapping_sub(100_000);
        for seat in &seats {
            seat.heard_ms.store(long_ago_ms, Ordering::Relaxed);
        }
        let mut listed = Vec::new();
        let mut round = std::pin::pin!(shard.heartbeat(&mut listed));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(round.as_mut().poll(&mut cx).is_pending(), "the last seat is still to be visited");
        let begun_ms = clock.now_ms();
        while clock.now_ms() == begun_ms {
            std::hint::spin_loop();
        }
        seats[SOCKETS_PER_TURN].heard(clock);
        round.await;
        let mut expected = vec![Turn::Closing(Ending::DeadPeer); SOCKETS_PER_TURN];
        expected.push(Turn::Shard);
        assert_eq!(turns(&seats), expected);
    }

    #[tokio::test]
    async fn nothing_is_written_to_a_connection_that_has_taken_its_leave() {
        let (shard, seats, mut peers) = shard_with_seats(Clock::start(), 2);
        assert!(seats[0].take_leave().is_empty());
        let mut slice = SliceBuilder::default();
        slice.push(&ServerFrame::Typing { username: "ada" }, Told::Typing(UserId(2)));
        let slice = slice.build((None, None));
        shard.deliver(&slice, &mut Vec::new()).await;
        drop(seats);
        // To its end, which comes with the seat's: what is not there by then was never written.
        let mut read = Vec::new();
        peers[0].read_to_end(&mut read).await.unwrap();
        assert!(read.is_empty(), "{read:?}");
        peers[1].read_to_end(&mut read).await.unwrap();
        assert_eq!(read, slice.bytes()[..], "the other one is told");
    }

    #[tokio::test]
    async fn a_shard_that_is_overrun_while_it_gathers_has_its_connections_brought_up() {
        let (shard, seats, _peers) = shard_with_seats(Clock::start(), 3);
        let hub = Hub::new();
        let mut events = hub.subscribe();
        let typing = |_| hub.publish_frame(&ServerFrame::Typing { username: "ada" }, Told::Typing(UserId(2)));
        typing(0);
        let Event::Frames(first) = events.recv().await.unwrap() else { panic!("frames were published") };
        hub.publish_frame(&ServerFrame::UserJoin { username: "ada" }, Told::Presence(1));
        (0..HUB_CAPACITY).for_each(typing);
        let mut listed = Vec::new();
        shard.gather(first, &hub, &mut events, &mut listed);
        assert_eq!(turns(&seats), [Turn::Task; 3]);
        assert_eq!(shard.position().presence, 1, "they cannot come back without what was missed");
    }
}

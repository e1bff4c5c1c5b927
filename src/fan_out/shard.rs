//! A shard: the loop that takes what is published and writes it to its sockets.
//!
//! Connections join it while it writes. Its [`JoinGate`] says up to where it has begun to write, and how often sessions
//! were revoked and rooms changed: a connection that has been sent less, or looked before the last change, may not join
//! yet. So between the database and the shard no event is lost or sent twice.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::batch::{Delivery, FrameBatch, Position};
use super::hub::{Broadcast, Concerned, Hub};
use super::subscriber::{Behind, Clock, CloseReason, Subscriber};
use crate::limits::{HEARTBEAT_CHECKS, JOINED_MAX_BYTES, SOCKETS_PER_YIELD, WRITE_MAX_BYTES};
use crate::metrics::Metrics;
use crate::model::{MessageId, SessionId};
use crate::room::RoomId;

/// A loop that writes events to its sockets.
#[derive(Debug)]
pub(crate) struct Shard {
    clock: Clock,
    ping_interval: Duration,
    metrics: Arc<Metrics>,
    gate: Mutex<JoinGate>,
}

/// Where new subscribers wait until the shard adopts them, and the position that a connection must have reached to
/// join. Under one lock, so that a connection joins either before a batch is begun or when it has been sent that batch.
#[derive(Debug, Default)]
struct JoinGate {
    /// The position up to which the shard has started to write.
    position: Position,
    new: Vec<Weak<Subscriber>>,
    /// Subscribers by the private and direct rooms they read, so that a few people's talk does not visit everybody.
    by_room: HashMap<RoomId, Vec<Weak<Subscriber>>>,
    /// All subscribers that keep up have received everything addressed to them up to this event.
    delivered: MessageId,
    shut: bool,
}

impl JoinGate {
    /// Lists a subscriber under the rooms it reads now. Stale listings are dropped in `members_of`.
    fn list_rooms(&mut self, subscriber: &Arc<Subscriber>) {
        let Some(rooms) = subscriber.take_rooms_changed() else { return };
        for room in rooms.iter() {
            let listed = self.by_room.entry(*room).or_default();
            if !listed.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(subscriber))) {
                listed.push(Arc::downgrade(subscriber));
            }
        }
    }

    /// The subscribers that read any of these rooms, each once.
    fn members_of(&mut self, rooms: &[RoomId]) -> Vec<Weak<Subscriber>> {
        let mut members = Vec::new();
        for room in rooms {
            let Some(listed) = self.by_room.get_mut(room) else { continue };
            listed.retain(|member| member.upgrade().is_some_and(|member| member.is_in(*room)));
            members.extend_from_slice(listed);
        }
        members.sort_unstable_by_key(Weak::as_ptr);
        members.dedup_by_key(|member| member.as_ptr());
        members
    }

    fn forget_ended(&mut self) {
        self.by_room.retain(|_, listed| {
            listed.retain(|member| member.strong_count() > 0);
            !listed.is_empty()
        });
    }
}

impl Shard {
    /// A shard that continues from `position`.
    pub(crate) fn new(clock: Clock, ping_interval: Duration, metrics: Arc<Metrics>, position: Position) -> Self {
        Self { clock, ping_interval, metrics, gate: Mutex::new(JoinGate { position, ..JoinGate::default() }) }
    }

    fn gate(&self) -> MutexGuard<'_, JoinGate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The position up to which the shard has started to write. A connection that starts here misses nothing that comes
    /// later.
    pub(crate) fn position(&self) -> Position {
        self.gate().position
    }

    /// Adds a subscriber to the shard: it can be closed from now on, and written to once it has joined.
    pub(crate) fn register(&self, subscriber: &Arc<Subscriber>) -> Result<(), CloseReason> {
        let mut gate = self.gate();
        if gate.shut {
            return Err(CloseReason::Shutdown);
        }
        gate.new.push(Arc::downgrade(subscriber));
        Ok(())
    }

    /// Makes the shard the write owner, if the connection has been sent everything that the shard has started to write:
    /// it continues with the next event.
    pub(crate) fn join(&self, subscriber: &Arc<Subscriber>) -> Result<(), Behind> {
        let mut gate = self.gate();
        subscriber.join(gate.position)?;
        gate.list_rooms(subscriber);
        Ok(())
    }

    /// Up to which event a subscriber has received everything addressed to it.
    pub(crate) fn told(&self, subscriber: &Subscriber) -> MessageId {
        let delivered = self.gate().delivered;
        subscriber.told(delivered)
    }

    /// Serves the shard's sockets forever.
    pub(crate) async fn run(&self, hub: Hub, mut channel: broadcast::Receiver<Broadcast>) -> Infallible {
        // Weak, so that a connection that ends closes its socket at once and not at the next event.
        let mut subscribers: Vec<Weak<Subscriber>> = Vec::new();
        let mut join_bytes = WRITE_MAX_BYTES;
        let mut heartbeat = tokio::time::interval(self.ping_interval / HEARTBEAT_CHECKS);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let received = tokio::select! {
                received = channel.recv() => received,
                _ = heartbeat.tick() => {
                    self.heartbeat(&mut subscribers).await;
                    continue;
                }
            };
            let mut next = match received {
                Ok(broadcast) => Some(broadcast),
                Err(RecvError::Lagged(missed)) => {
                    self.lagged(&hub, &mut subscribers, missed);
                    None
                }
                Err(RecvError::Closed) => unreachable!("this task holds a sender"),
            };
            while let Some(broadcast) = next.take() {
                hub.progressed();
                next = self.handle(broadcast, &hub, &mut channel, &mut subscribers, &mut join_bytes).await;
            }
        }
    }

    /// Handles one entry of the channel. Returns the next one, if it was taken already.
    ///
    /// Batches are joined until there are [`WRITE_MAX_BYTES`] for the readers of one room, or `join_bytes` in all. These are
    /// chosen so that somebody who reads several rooms gets about as much: if twenty rooms talk, the readers of each get a
    /// twentieth. Who reads several rooms changes seldom, so it is taken from the deliveries before. When that is wrong,
    /// a write is too large for such a reader's socket once, and the connection catches up.
    async fn handle(
        &self,
        broadcast: Broadcast,
        hub: &Hub,
        channel: &mut broadcast::Receiver<Broadcast>,
        subscribers: &mut Vec<Weak<Subscriber>>,
        join_bytes: &mut usize,
    ) -> Option<Broadcast> {
        match broadcast {
            Broadcast::Frames(first) => {
                let (batch, after) = self.gather(first, hub, channel, subscribers, *join_bytes);
                hub.progressed();
                let largest_part = self.deliver(&batch, subscribers).await;
                // A small batch says nothing of how what fills a write is shared out.
                if batch.bytes().len() >= WRITE_MAX_BYTES
                    && let Some(parts) = batch.bytes().len().checked_div(largest_part)
                {
                    let wanted = WRITE_MAX_BYTES.saturating_mul(parts).min(JOINED_MAX_BYTES);
                    *join_bytes = wanted.min(2 * *join_bytes);
                }
                return after;
            }
            Broadcast::Revoked(sessions) => self.revoke(&sessions, subscribers),
            Broadcast::RoomsChanged(concerned) => {
                *join_bytes = WRITE_MAX_BYTES;
                self.change_rooms(&concerned, subscribers);
            }
            Broadcast::TurnedUp => self.catch_all_up(hub, subscribers),
            Broadcast::Shutdown => self.shut_down(subscribers),
        }
        None
    }

    /// Closes the connections of these sessions. A session that was checked before this, and whose subscriber is not in
    /// the list yet, must be checked again: hence the count.
    fn revoke(&self, sessions: &[SessionId], subscribers: &mut Vec<Weak<Subscriber>>) {
        self.gate().position.revocation += 1;
        self.adopt_new(subscribers);
        let revoked = live(subscribers).filter(|subscriber| sessions.contains(&subscriber.session()));
        revoked.for_each(|subscriber| subscriber.close(CloseReason::Revoked));
    }

    /// Has the connections concerned look up their rooms. A connection that looked before this, and is not in the list
    /// yet, may join only with the rooms that it reads now: hence the count.
    fn change_rooms(&self, changes: &[Concerned], subscribers: &mut Vec<Weak<Subscriber>>) {
        self.gate().position.membership += 1;
        self.adopt_new(subscribers);
        let concerned = live(subscribers).filter(|subscriber| subscriber.is_concerned(changes));
        concerned.for_each(|subscriber| subscriber.start_catch_up());
    }

    /// Closes every connection, and lets none register any more.
    fn shut_down(&self, subscribers: &mut Vec<Weak<Subscriber>>) {
        self.gate().shut = true;
        self.adopt_new(subscribers);
        live(subscribers).for_each(|subscriber| subscriber.close(CloseReason::Shutdown));
    }

    fn adopt_new(&self, subscribers: &mut Vec<Weak<Subscriber>>) {
        subscribers.append(&mut self.gate().new);
    }

    /// Joins what else is pending to `first`, so that it costs each socket one write, and stops once there is
    /// enough for a room or in all. Also returns the next entry, if it is of another kind.
    fn gather(
        &self,
        first: Arc<FrameBatch>,
        hub: &Hub,
        channel: &mut broadcast::Receiver<Broadcast>,
        subscribers: &mut Vec<Weak<Subscriber>>,
        join_bytes: usize,
    ) -> (Arc<FrameBatch>, Option<Broadcast>) {
        let (mut bytes, mut reaches) = (first.bytes().len(), Vec::new());
        first.can_join(&mut reaches);
        let mut batches = vec![first];
        let mut after = None;
        while bytes < join_bytes && reaches.iter().all(|(_, bytes)| *bytes < WRITE_MAX_BYTES) {
            match channel.try_recv() {
                Ok(Broadcast::Frames(batch)) if batch.can_join(&mut reaches) => {
                    bytes += batch.bytes().len();
                    batches.push(batch);
                }
                Ok(other) => {
                    after = Some(other);
                    break;
                }
                Err(TryRecvError::Lagged(missed)) => {
                    self.lagged(hub, subscribers, missed);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let batch = if batches.len() == 1 { batches.remove(0) } else { Arc::new(FrameBatch::join(&batches)) };
        (batch, after)
    }

    /// Writes a batch to every socket that keeps up, yielding to the connections' tasks every few dozen. Returns the
    /// bytes of the largest part that anybody gets, now or when they catch up.
    async fn deliver(&self, batch: &FrameBatch, subscribers: &mut Vec<Weak<Subscriber>>) -> usize {
        let (from, members) = {
            // From here on a subscriber can join only if its connection has been sent this batch.
            let mut gate = self.gate();
            subscribers.append(&mut gate.new);
            let from = gate.position;
            gate.position = batch.advance(from);
            (from, batch.rooms().map(|rooms| gate.members_of(&rooms)))
        };
        let mut deliveries = 0;
        let mut delivery = Delivery::new(batch, from);
        let visit = |subscriber: &Subscriber| deliveries += subscriber.deliver(&mut delivery);
        match members {
            Some(mut members) => for_each(&mut members, visit).await,
            None => for_each(subscribers, visit).await,
        }
        let mut gate = self.gate();
        gate.delivered = gate.position.event;
        drop(gate);
        self.metrics.deliveries.add(deliveries as u64);
        delivery.largest_part()
    }

    /// The channel overran the shard: every connection catches up from the database with everything that was published.
    fn lagged(&self, hub: &Hub, subscribers: &mut Vec<Weak<Subscriber>>, missed: u64) {
        self.catch_all_up(hub, subscribers);
        let connections = subscribers.len();
        tracing::warn!(missed, connections, "a shard fell behind: its connections catch up from the database");
    }

    fn catch_all_up(&self, hub: &Hub, subscribers: &mut Vec<Weak<Subscriber>>) {
        let mut gate = self.gate();
        let (event, presence) = hub.published();
        gate.position.event = gate.position.event.max(event);
        gate.position.presence = gate.position.presence.max(presence);
        // What was missed may have revoked sessions and removed members.
        gate.position.revocation += 1;
        gate.position.membership += 1;
        subscribers.append(&mut gate.new);
        drop(gate);
        live(subscribers).for_each(|subscriber| subscriber.start_catch_up());
    }

    /// One round of pings and of closing silent connections: one timer for all of them.
    async fn heartbeat(&self, subscribers: &mut Vec<Weak<Subscriber>>) {
        self.adopt_new(subscribers);
        self.gate().forget_ended();
        let now_ms = self.clock.now_ms();
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let (ping_every_ms, silent_after_ms) = (millis(self.ping_interval), millis(self.ping_interval * 5 / 2));
        for_each(subscribers, |subscriber| subscriber.heartbeat(now_ms, ping_every_ms, silent_after_ms)).await;
    }
}

/// The subscribers whose connections still exist.
fn live(subscribers: &[Weak<Subscriber>]) -> impl Iterator<Item = Arc<Subscriber>> {
    subscribers.iter().filter_map(Weak::upgrade)
}

/// Visits every subscriber whose connection still exists, removes the others, and yields to other tasks every
/// [`SOCKETS_PER_YIELD`].
async fn for_each(subscribers: &mut Vec<Weak<Subscriber>>, mut visit: impl FnMut(&Subscriber)) {
    let (mut at, mut visited) = (0, 0);
    while at < subscribers.len() {
        if let Some(subscriber) = subscribers[at].upgrade() {
            visit(&subscriber);
            at += 1;
        } else {
            subscribers.swap_remove(at);
        }
        visited += 1;
        if visited % SOCKETS_PER_YIELD == 0 {
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

    use super::super::batch::{FrameBatchBuilder, FrameKind, Reach, Span};
    use super::super::subscriber::WriteOwner;
    use super::*;
    use crate::limits::HUB_CAPACITY;
    use crate::model::{SessionId, UserId};
    use crate::net::Stream;
    use crate::protocol::ServerFrame;
    use crate::room::Audience;

    const PING_INTERVAL: Duration = Duration::from_secs(30);

    /// A shard that is not running, and subscribers that have joined it. The peers' ends keep the sockets open.
    fn shard_with_subscribers(clock: Clock, count: usize) -> (Shard, Vec<Arc<Subscriber>>, Vec<UnixStream>) {
        let shard = Shard::new(clock, PING_INTERVAL, Arc::new(Metrics::new()), Position::default());
        let (mut subscribers, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let subscriber =
                Subscriber::new(Stream::from_unix(ours), (UserId(1), SessionId(1)), false, clock, Position::default());
            shard.register(&subscriber).unwrap();
            shard.join(&subscriber).unwrap();
            subscribers.push(subscriber);
            peers.push(theirs);
        }
        (shard, subscribers, peers)
    }

    fn owners(subscribers: &[Arc<Subscriber>]) -> Vec<WriteOwner> {
        subscribers.iter().map(|subscriber| subscriber.lock().owner).collect()
    }

    #[tokio::test]
    async fn a_peer_heard_during_a_round_of_heartbeats_is_not_silent() {
        let clock = Clock::start();
        // One more than are visited before other tasks run, all of them silent for long.
        let (shard, subscribers, _peers) = shard_with_subscribers(clock, SOCKETS_PER_YIELD + 1);
        let long_ago_ms = clock.now_ms().wrapping_sub(100_000);
        for subscriber in &subscribers {
            subscriber.heard_ms.store(long_ago_ms, Ordering::Relaxed);
        }
        let mut listed = Vec::new();
        let mut round = std::pin::pin!(shard.heartbeat(&mut listed));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(round.as_mut().poll(&mut cx).is_pending(), "the last subscriber is still to be visited");
        let begun_ms = clock.now_ms();
        while clock.now_ms() == begun_ms {
            std::hint::spin_loop();
        }
        subscribers[SOCKETS_PER_YIELD].heard(clock);
        round.await;
        let mut expected = vec![WriteOwner::Closing(CloseReason::DeadPeer); SOCKETS_PER_YIELD];
        expected.push(WriteOwner::Shard);
        assert_eq!(owners(&subscribers), expected);
    }

    #[tokio::test]
    async fn nothing_is_written_to_a_connection_that_has_started_closing() {
        let (shard, subscribers, mut peers) = shard_with_subscribers(Clock::start(), 2);
        assert!(subscribers[0].start_closing().is_empty());
        let mut batch = FrameBatchBuilder::default();
        batch.push(&ServerFrame::Typing { username: "ada", room: 1 }, FrameKind::Unordered, Reach::ALL);
        let batch = batch.build(Span::default());
        shard.deliver(&batch, &mut Vec::new()).await;
        drop(subscribers);
        // Read to the end, which comes when the subscriber is dropped: anything not there by then was never written.
        let mut read = Vec::new();
        peers[0].read_to_end(&mut read).await.unwrap();
        assert!(read.is_empty(), "{read:?}");
        peers[1].read_to_end(&mut read).await.unwrap();
        assert_eq!(read, batch.bytes()[..], "the other one gets the frame");
    }

    #[tokio::test]
    async fn what_is_said_in_a_room_passes_by_those_who_do_not_read_it_and_they_miss_nothing() {
        let (shard, subscribers, mut peers) = shard_with_subscribers(Clock::start(), 2);
        let room = RoomId(7);
        subscribers[0].claim_writes().unwrap();
        subscribers[0].set_rooms([room].into());
        shard.join(&subscribers[0]).unwrap();
        let event = |id, reach| {
            let mut batch = FrameBatchBuilder::default();
            let id = MessageId::new(id);
            batch.push(&ServerFrame::UserJoin { username: "ada" }, FrameKind::Event(id), reach);
            batch.build(Span::of_events(MessageId::new(id.get() - 1), id))
        };
        let inside = event(1, Reach::of_room(RoomId::LOBBY, Audience::Members(room)));
        let (after, mut listed) = (event(2, Reach::ALL), Vec::new());
        for batch in [&inside, &after] {
            shard.deliver(batch, &mut listed).await;
        }
        assert_eq!(owners(&subscribers), [WriteOwner::Shard; 2]);
        assert!(subscribers.iter().all(|subscriber| shard.told(subscriber) == MessageId::new(2)));
        drop(subscribers);
        let expected = [[&inside.bytes()[..], &after.bytes()[..]].concat(), after.bytes().to_vec()];
        for (peer, expected) in peers.iter_mut().zip(expected) {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, expected);
        }
    }

    #[tokio::test]
    async fn batches_are_joined_until_whoever_gets_the_most_of_them_has_enough_for_one_write() {
        let (shard, subscribers, _peers) = shard_with_subscribers(Clock::start(), 4);
        let read = |subscriber: &Arc<Subscriber>, rooms: &[RoomId]| {
            subscriber.claim_writes().unwrap();
            subscriber.set_position(shard.position());
            subscriber.set_rooms(rooms.into());
            shard.join(subscriber).unwrap();
        };
        let rooms = [RoomId(7), RoomId(8), RoomId(9), RoomId(10)];
        subscribers.iter().zip(rooms).for_each(|(subscriber, room)| read(subscriber, &[room]));
        // In each room as much as in any other.
        let batch = |bytes: usize| {
            let (mut batch, name) = (FrameBatchBuilder::default(), "x".repeat(bytes / rooms.len()));
            for room in rooms {
                let reach = Reach::of_room(RoomId::LOBBY, Audience::Members(room));
                batch.push(&ServerFrame::UserJoin { username: &name }, FrameKind::Unordered, reach);
            }
            Broadcast::Frames(Arc::new(batch.build(Span::default())))
        };
        let hub = Hub::new();
        let (mut events, mut listed, mut join_bytes) = (hub.subscribe(), Vec::new(), WRITE_MAX_BYTES);
        let mut after = async |published| {
            shard.handle(published, &hub, &mut events, &mut listed, &mut join_bytes).await;
            join_bytes / WRITE_MAX_BYTES
        };
        assert_eq!(after(batch(WRITE_MAX_BYTES)).await, 2, "each of four gets a quarter; it grows step by step");
        assert_eq!(after(batch(WRITE_MAX_BYTES)).await, 4);
        read(&subscribers[0], &rooms[..2]);
        assert_eq!(after(batch(WRITE_MAX_BYTES)).await, 2, "one of them gets half");
        read(&subscribers[0], &rooms);
        assert_eq!(after(batch(WRITE_MAX_BYTES / 2)).await, 2, "a small batch says nothing");
        subscribers[0].claim_writes().unwrap();
        assert_eq!(after(batch(WRITE_MAX_BYTES)).await, 1, "one that catches up will get all");
        read(&subscribers[0], &rooms[..1]);
        assert_eq!(after(batch(WRITE_MAX_BYTES)).await, 2);
        assert_eq!(after(Broadcast::RoomsChanged(Arc::new([]))).await, 1, "who knows who reads what now");
    }

    #[tokio::test]
    async fn of_connections_that_ended_nothing_is_kept_under_their_rooms() {
        let (shard, mut subscribers, _peers) = shard_with_subscribers(Clock::start(), 2);
        for (subscriber, rooms) in subscribers.iter().zip([vec![RoomId(7)], vec![RoomId(7), RoomId(8)]]) {
            subscriber.claim_writes().unwrap();
            subscriber.set_rooms(rooms.into());
            shard.join(subscriber).unwrap();
        }
        subscribers.pop();
        shard.heartbeat(&mut Vec::new()).await;
        let listed = |room| shard.gate().by_room.get(&RoomId(room)).map(Vec::len);
        assert_eq!([listed(7), listed(8)], [Some(1), None]);
    }

    #[tokio::test]
    async fn a_shard_overrun_while_it_gathers_makes_its_connections_catch_up() {
        let (shard, subscribers, _peers) = shard_with_subscribers(Clock::start(), 3);
        let hub = Hub::new();
        let mut events = hub.subscribe();
        let typing = |_| {
            let frame = ServerFrame::Typing { username: "ada", room: 1 };
            hub.publish_frame(&frame, FrameKind::Unordered, Reach::ALL);
        };
        typing(0);
        let Broadcast::Frames(first) = events.recv().await.unwrap() else { panic!("frames were published") };
        hub.publish_frame(&ServerFrame::UserJoin { username: "ada" }, FrameKind::Presence(1), Reach::ALL);
        (0..HUB_CAPACITY).for_each(typing);
        let (mut listed, before) = (Vec::new(), shard.position());
        shard.gather(first, &hub, &mut events, &mut listed, WRITE_MAX_BYTES);
        assert_eq!(owners(&subscribers), [WriteOwner::Task; 3]);
        let after = shard.position();
        assert_eq!(after.presence, 1, "they cannot join without what was missed");
        // Which may have ended a session, or removed somebody from a room.
        assert!(after.revocation > before.revocation && after.membership > before.membership);
    }
}

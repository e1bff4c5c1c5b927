//! The broadcast channel: events, encoded once, on their way to every shard.
//!
//! Everything that connections are told travels here: the events of a commit, comings and goings, typing, ended
//! sessions, changed rooms, the server's end. (Only how far a user has read goes to that user's connections directly.)
//! The writer thread alone publishes what a commit leads to, so that the order on the wire is the order of commits;
//! comings and goings are published under the lock of [`Presence`](super::Presence). The hub knows nothing of sockets;
//! the [shards](crate::fan_out) are its receivers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::batch::{FrameBatch, FrameBatchBuilder, FrameKind, Reach, Span};
use crate::limits::{HUB_CAPACITY, RUN_AHEAD_ENTRIES, RUN_AHEAD_PATIENCE};
use crate::model::{MessageId, SessionId, UserId};
use crate::protocol::ServerFrame;
use crate::room::{self, Audience};

/// An entry of the broadcast channel.
#[derive(Debug, Clone)]
pub(crate) enum Broadcast {
    /// Encoded frames, each with its reach.
    Frames(Arc<FrameBatch>),
    /// Rooms or their members changed: the connections concerned read it from the database.
    RoomsChanged(Arc<[Concerned]>),
    /// These sessions have ended: their sockets close.
    Revoked(Arc<[SessionId]>),
    /// A failed commit reached the disk after all: connections must read its events from the database.
    TurnedUp,
    /// The server is stopping: every socket closes.
    Shutdown,
}

/// Whom a change of a room concerns.
#[derive(Debug, Clone)]
pub(crate) struct Concerned {
    /// Who reads the room.
    pub(crate) audience: Audience,
    /// The users who joined it or left it.
    pub(crate) members: Vec<UserId>,
}

/// The sending side of the broadcast channel. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    channel: broadcast::Sender<Broadcast>,
    published: Arc<Published>,
    pace: Arc<Pace>,
}

/// The last frames that were published. The connections of an overrun shard catch up to here.
#[derive(Debug, Default)]
struct Published {
    event: AtomicI64,
    presence: AtomicU64,
}

/// How the writer thread waits for the shards.
#[derive(Debug, Default)]
struct Pace {
    writer_waits: Mutex<bool>,
    progress: Condvar,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { channel: broadcast::Sender::new(HUB_CAPACITY), published: Arc::default(), pace: Arc::default() }
    }

    /// Receives what is published from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Broadcast> {
        self.channel.subscribe()
    }

    /// The last event and the last presence frame that were published.
    pub(crate) fn published(&self) -> (MessageId, u64) {
        let Published { event, presence } = &*self.published;
        (MessageId::new(event.load(Ordering::Acquire)), presence.load(Ordering::Acquire))
    }

    /// Publishes to every shard. Without a receiver it is dropped.
    pub(crate) fn publish(&self, broadcast: Broadcast) {
        drop(self.channel.send(broadcast));
    }

    /// Publishes one frame.
    pub(crate) fn publish_frame(&self, frame: &ServerFrame<'_>, kind: FrameKind, reach: Reach) {
        let mut batch = FrameBatchBuilder::default();
        batch.push(frame, kind, reach);
        let span = if let FrameKind::Presence(seq) = kind {
            self.published.presence.store(seq, Ordering::Release);
            Span::of_presence(seq)
        } else {
            Span::default()
        };
        self.publish(Broadcast::Frames(Arc::new(batch.build(span))));
    }

    /// Publishes the room changes among these events.
    pub(crate) fn publish_rooms(&self, events: &[room::Event]) {
        let concerned = events.iter().filter_map(|event| match event {
            room::Event::Room { audience, members, .. } => {
                Some(Concerned { audience: *audience, members: members.clone() })
            }
            _ => None,
        });
        self.publish(Broadcast::RoomsChanged(concerned.collect()));
    }

    /// Publishes the events of one commit, which begin after `after`, in few batches; then waits until the shards are
    /// at most a few entries behind, so that under load the batches grow and not the channel.
    ///
    /// Blocks, for a bounded time: for the writer thread only.
    pub(crate) fn publish_batch(&self, after: MessageId, events: &[room::Event]) {
        let Some(last) = events.last() else { return };
        self.published.event.store(last.id().get(), Ordering::Release);
        let (mut batch, mut begun) = (FrameBatchBuilder::default(), after);
        for event in events {
            push(&mut batch, event);
            if batch.is_full() || event.id() == last.id() {
                let full = std::mem::take(&mut batch).build(Span::of_events(begun, event.id()));
                self.publish(Broadcast::Frames(Arc::new(full)));
                begun = event.id();
            }
        }
        self.wait_for_shards();
    }

    /// Makes every connection catch up to `last_id`, since a failed commit reached the disk after all.
    pub(crate) fn publish_turned_up(&self, last_id: MessageId) {
        self.published.event.store(last_id.get(), Ordering::Release);
        self.publish(Broadcast::TurnedUp);
    }

    fn wait_for_shards(&self) {
        if self.channel.len() <= RUN_AHEAD_ENTRIES {
            return;
        }
        let deadline = Instant::now() + RUN_AHEAD_PATIENCE;
        let mut waits = self.pace.writer_waits.lock().unwrap_or_else(PoisonError::into_inner);
        *waits = true;
        while self.channel.len() > RUN_AHEAD_ENTRIES {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| *left > Duration::ZERO)
            else {
                break;
            };
            waits = self.pace.progress.wait_timeout(waits, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *waits = false;
    }

    /// Called by a shard when it has taken entries from the channel.
    pub(crate) fn progressed(&self) {
        if *self.pace.writer_waits.lock().unwrap_or_else(PoisonError::into_inner) {
            self.pace.progress.notify_one();
        }
    }
}

/// Encodes an event. A change of a room looks different to each reader, so each of those concerned reads it from the
/// database.
fn push(batch: &mut FrameBatchBuilder, event: &room::Event) {
    let (frame, reach) = match event {
        room::Event::Message(it, audience) => (ServerFrame::message(it), Reach::of_room(it.room, *audience)),
        room::Event::Edit(it, audience) => (ServerFrame::edit(it), Reach::of_room(it.room, *audience)),
        room::Event::Delete(it, audience) => (ServerFrame::delete(it), Reach::of_room(it.room, *audience)),
        room::Event::React(it, audience) => (ServerFrame::react(it), Reach::second_edition(*audience)),
        room::Event::Room { .. } => return,
    };
    batch.push(&frame, FrameKind::Event(event.id()), reach);
}

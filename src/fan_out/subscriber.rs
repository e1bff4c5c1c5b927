//! A subscriber: what a connection's task and its shard share.
//!
//! `WriteOwner` says who writes next, and `position` what has been sent. One lock covers both, and is held for one write
//! at most. As long as the shard is the owner, no frame is half-written, so anyone who holds the lock may write a whole
//! one: the task an answer, presence a read mark. Once the task is the owner, nobody else writes.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::batch::{Continuity, Delivery, Position, ReaderScope};
use super::hub::Concerned;
use crate::model::{MessageId, SessionId, UserId};
use crate::net::Stream;
use crate::room::{Audience, PrivateRooms, RoomId};

/// An empty ping (RFC 6455 5.5.2).
static PING_FRAME: [u8; 2] = [0x89, 0];

/// Why the server closes a connection whose client did nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The session was logged out, expired, or its user was disabled.
    Revoked,
    /// The peer was silent for too long.
    DeadPeer,
    /// The server is stopping.
    Shutdown,
    /// The socket failed.
    Gone,
}

/// Who writes next to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOwner {
    /// The shard, which writes batches.
    Shard,
    /// The connection's own task, which answers or catches up.
    Task,
    /// The connection's own task, which is to close.
    Closing(CloseReason),
}

/// What a connection's task and its shard share.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) stream: Stream,
    user: UserId,
    session: SessionId,
    /// Whether it reads all rooms that its user may read; a client of the first edition reads the lobby alone.
    all_rooms: bool,
    /// When the peer was last heard, in milliseconds of the server's [`Clock`].
    pub(super) heard_ms: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) owner: WriteOwner,
    position: Position,
    /// Whether the shard is to list the rooms below.
    rooms_changed: bool,
    /// The user's private and direct rooms when the task last looked; empty for a client of the first edition.
    rooms: PrivateRooms,
    /// The rest of a frame that the shard has written in part.
    frame_tail: Bytes,
    pinged_ms: u32,
    task: Option<Waker>,
}

/// Why the connection's task is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeReason {
    /// The shard could not write everything: catch up.
    Behind,
    /// Close.
    Close(CloseReason),
}

/// The connection has not been sent everything that the shard has started to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behind;

/// Milliseconds since the server started, small enough to store one for each connection. It wraps after 49 days; only
/// differences are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    #[expect(clippy::cast_possible_truncation, reason = "wraps on purpose, as the type says")]
    pub(super) fn now_ms(self) -> u32 {
        self.0.elapsed().as_millis() as u32
    }
}

/// Milliseconds from `then` to `now`; 0 if `then` is later, as for a peer that was heard after a round of heartbeats
/// began.
fn since(then: u32, now: u32) -> u32 {
    now.wrapping_sub(then).cast_signed().max(0).cast_unsigned()
}

impl Subscriber {
    /// A subscriber whose write owner is its task, until it [joins](super::shard::Shard::join) a shard.
    pub(crate) fn new(
        stream: Stream,
        (user, session): (UserId, SessionId),
        all_rooms: bool,
        clock: Clock,
        position: Position,
    ) -> Arc<Self> {
        let now_ms = clock.now_ms();
        let state = State {
            owner: WriteOwner::Task,
            position,
            rooms_changed: false,
            rooms: PrivateRooms::default(),
            frame_tail: Bytes::new(),
            pinged_ms: now_ms,
            task: None,
        };
        let heard_ms = AtomicU32::new(now_ms);
        Arc::new(Self { stream, user, session, all_rooms, heard_ms, state: Mutex::new(state) })
    }

    pub(crate) fn user(&self) -> UserId {
        self.user
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn all_rooms(&self) -> bool {
        self.all_rooms
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the peer is alive.
    pub(crate) fn heard(&self, clock: Clock) {
        self.heard_ms.store(clock.now_ms(), Ordering::Relaxed);
    }

    /// Resolves when the task has something to do. Cancel safe. Only for the connection's own task.
    pub(crate) async fn woken(&self) -> WakeReason {
        poll_fn(|cx| self.poll_woken(cx)).await
    }

    fn poll_woken(&self, cx: &Context<'_>) -> Poll<WakeReason> {
        let mut state = self.lock();
        match state.owner {
            WriteOwner::Task => Poll::Ready(WakeReason::Behind),
            WriteOwner::Closing(reason) => Poll::Ready(WakeReason::Close(reason)),
            WriteOwner::Shard => state.wait(cx),
        }
    }

    /// Resolves when the connection is to be closed, whichever side is its write owner. Cancel safe. Only for the
    /// connection's own task.
    pub(crate) async fn closing(&self) -> CloseReason {
        poll_fn(|cx| {
            let mut state = self.lock();
            if let WriteOwner::Closing(reason) = state.owner { Poll::Ready(reason) } else { state.wait(cx) }
        })
        .await
    }

    /// Makes the task the write owner, unless the connection is to be closed.
    pub(crate) fn claim_writes(&self) -> Result<(), CloseReason> {
        let mut state = self.lock();
        if let WriteOwner::Closing(reason) = state.owner {
            return Err(reason);
        }
        state.owner = WriteOwner::Task;
        Ok(())
    }

    /// Takes the rest of a frame that the shard has written in part. It must be written before anything else.
    pub(crate) fn take_frame_tail(&self) -> Bytes {
        std::mem::take(&mut self.lock().frame_tail)
    }

    /// Makes the shard write no more, and takes the rest of a frame that it has written in part. The last call of the
    /// connection's task, which joins no shard after it: what is left to write is pending output and the close frame.
    pub(crate) fn start_closing(&self) -> Bytes {
        let mut state = self.lock();
        if state.owner == WriteOwner::Shard {
            state.owner = WriteOwner::Task;
        }
        std::mem::take(&mut state.frame_tail)
    }

    /// What the connection has been sent.
    pub(crate) fn position(&self) -> Position {
        self.lock().position
    }

    /// Records what the task has sent.
    pub(crate) fn set_position(&self, position: Position) {
        self.lock().position = position;
    }

    /// Sets the user's private and direct rooms. Called by the task as write owner, after it read their events from the
    /// database.
    pub(crate) fn set_rooms(&self, rooms: PrivateRooms) {
        let mut state = self.lock();
        state.rooms_changed |= state.rooms != rooms;
        state.rooms = rooms;
    }

    /// Whether the user was in a private or direct room when the task last looked.
    pub(crate) fn is_in(&self, room: RoomId) -> bool {
        self.lock().rooms.binary_search(&room).is_ok()
    }

    /// The rooms, if the shard has not listed this subscriber under them yet.
    pub(super) fn take_rooms_changed(&self) -> Option<PrivateRooms> {
        let mut state = self.lock();
        std::mem::take(&mut state.rooms_changed).then(|| Arc::clone(&state.rooms))
    }

    /// Up to which event the connection has received everything addressed to it, if those that keep up have up to
    /// `delivered`.
    pub(super) fn told(&self, delivered: MessageId) -> MessageId {
        let state = self.lock();
        if state.owner == WriteOwner::Shard { state.position.event.max(delivered) } else { state.position.event }
    }

    /// Whether one of the changes concerns a room that the user reads or read until now, so that the task must look
    /// again.
    pub(super) fn is_concerned(&self, changes: &[Concerned]) -> bool {
        self.all_rooms
            && changes.iter().any(|Concerned { audience, members }| {
                members.contains(&self.user)
                    || match audience {
                        Audience::Everyone => true,
                        Audience::Members(room) => self.is_in(*room),
                        Audience::User(user) => *user == self.user,
                    }
            })
    }

    /// Writes an answer while the shard is the write owner, if all of it can be written at once. Otherwise makes the
    /// task the write owner and returns what is still to be written.
    pub(crate) fn try_answer(&self, answer: Bytes) -> Result<(), Bytes> {
        let mut state = self.lock();
        if state.owner == WriteOwner::Shard {
            match self.stream.try_write(&answer) {
                Ok(written) if written == answer.len() => return Ok(()),
                Ok(written) => {
                    state.owner = WriteOwner::Task;
                    return Err(answer.slice(written..));
                }
                Err(_) => state.owner = WriteOwner::Task,
            }
        }
        Err(answer)
    }

    /// Makes the shard the write owner, if the connection has been sent everything up to `begun`. A connection that is
    /// to be closed stays so.
    pub(super) fn join(&self, begun: Position) -> Result<(), Behind> {
        let mut state = self.lock();
        if !state.position.covers(begun) {
            return Err(Behind);
        }
        if state.owner == WriteOwner::Task {
            state.owner = WriteOwner::Shard;
        }
        Ok(())
    }

    /// Writes the part of a batch that is for this connection, if the shard is the write owner; returns the number of
    /// frames.
    pub(super) fn deliver(&self, delivery: &mut Delivery<'_>) -> usize {
        let mut state = self.lock();
        let reader = ReaderScope { user: self.user, all_rooms: self.all_rooms, rooms: &state.rooms };
        match state.owner {
            WriteOwner::Shard => {}
            WriteOwner::Task => {
                delivery.note_reader(reader);
                return 0;
            }
            WriteOwner::Closing(_) => return 0,
        }
        let position = delivery.position_of(state.position);
        let rest;
        let batch = match delivery.batch().continuity(position) {
            Continuity::InSequence => delivery.part_for(reader),
            Continuity::Overlaps => {
                delivery.note_reader(reader);
                rest = delivery.rest_for(reader, position);
                &rest
            }
            Continuity::Gap => {
                delivery.note_reader(reader);
                state.pass_to(WriteOwner::Task);
                return 0;
            }
        };
        if batch.len() == 0 {
            state.position = batch.advance(position);
            return 0;
        }
        match self.stream.try_write(batch.bytes()) {
            Ok(written) if written == batch.bytes().len() => {
                state.position = batch.advance(position);
                return batch.len();
            }
            Ok(written) => {
                (state.position, state.frame_tail) = batch.after_partial_write(written, position);
                state.pass_to(WriteOwner::Task);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.pass_to(WriteOwner::Task),
            Err(_) => state.pass_to(WriteOwner::Closing(CloseReason::Gone)),
        }
        0
    }

    /// Closes the connection, whichever side is its write owner.
    pub(super) fn close(&self, reason: CloseReason) {
        self.lock().pass_to(WriteOwner::Closing(reason));
    }

    /// Makes the connection catch up.
    pub(super) fn start_catch_up(&self) {
        let mut state = self.lock();
        if state.owner == WriteOwner::Shard {
            state.pass_to(WriteOwner::Task);
        }
    }

    /// If the shard is the write owner, closes a silent connection, and pings one that was not pinged for an interval.
    /// A connection that is catching up is closed by its own task when its socket accepts nothing for long.
    pub(super) fn heartbeat(&self, now_ms: u32, ping_every_ms: u32, silent_after_ms: u32) {
        let mut state = self.lock();
        if state.owner != WriteOwner::Shard {
            return;
        }
        if since(self.heard_ms.load(Ordering::Relaxed), now_ms) >= silent_after_ms {
            state.pass_to(WriteOwner::Closing(CloseReason::DeadPeer));
        } else if since(state.pinged_ms, now_ms) >= ping_every_ms {
            state.pinged_ms = now_ms;
            match self.stream.try_write(&PING_FRAME) {
                Ok(written) if written < PING_FRAME.len() => {
                    state.frame_tail = Bytes::from_static(&PING_FRAME[written..]);
                    state.pass_to(WriteOwner::Task);
                }
                // A full buffer needs no ping: its content will be acknowledged by the peer's TCP, or time out.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => state.pass_to(WriteOwner::Closing(CloseReason::Gone)),
            }
        }
    }
}

impl State {
    /// Makes `owner` the write owner, and wakes the task.
    fn pass_to(&mut self, owner: WriteOwner) {
        self.owner = owner;
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Arranges for the task to be woken when it becomes the write owner.
    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_a_later_moment_is_zero_and_right_where_the_clock_wraps() {
        assert_eq!(since(1_000, 76_000), 75_000);
        assert_eq!(since(76_001, 76_000), 0);
        assert_eq!(since(u32::MAX - 9, 90), 100);
    }
}

//! A connection's place in a shard: where the task that reads it and the loop that writes to it meet.
//!
//! Whose turn it is says who may write; the position, what the connection has been given. All of it is under one lock,
//! which is held for one write at most. The methods are `pub(crate)` for the connection's task and `pub(super)` for its
//! shard (and the state for the shard's tests).

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use crate::hub::{Fit, Position, Slice};
use crate::model::{SessionId, UserId};
use crate::stream::Stream;

/// An empty ping (RFC 6455 5.5.2).
static PING_FRAME: [u8; 2] = [0x89, 0];

/// Why the server ends a connection that did nothing wrong by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The session was logged out, expired, or its user was disabled.
    Revoked,
    /// Nothing was heard for too long.
    DeadPeer,
    /// The server stops.
    Shutdown,
    /// The socket failed.
    Gone,
}

/// Who may write to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The shard, whole slices.
    Shard,
    /// The connection's own task: it answers, or brings the connection up again.
    Task,
    /// The connection's own task, which is to close.
    Closing(Ending),
}

/// A connection's place in a shard.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) stream: Stream,
    user: UserId,
    session: SessionId,
    /// When something was last heard, in the milliseconds of the server's [`Clock`].
    pub(super) heard_ms: AtomicU32,
    state: Mutex<SeatState>,
}

#[derive(Debug)]
pub(super) struct SeatState {
    pub(super) turn: Turn,
    position: Position,
    /// What is left of a frame that was cut.
    rest: Bytes,
    pinged_ms: u32,
    task: Option<Waker>,
}

/// What the connection's task is told when it has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summons {
    /// The shard could not write all: bring the connection up again.
    Behind,
    /// Close.
    Close(Ending),
}

/// The shard has begun to write more than the connection has been given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behind;

/// Milliseconds since the server started, small enough to keep one for each connection; it wraps after 49 days, and
/// only differences are taken.
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

/// Milliseconds from `then` to `now`; 0 if `then` is the later one, as for a connection that was heard after a round
/// of heartbeats had begun.
fn since(then: u32, now: u32) -> u32 {
    now.wrapping_sub(then).cast_signed().max(0).cast_unsigned()
}

impl Seat {
    /// A seat whose turn is its task's, until it [joins](super::Shard::join) a shard.
    pub(crate) fn new(stream: Stream, user: UserId, session: SessionId, clock: Clock, position: Position) -> Arc<Self> {
        let now_ms = clock.now_ms();
        let state = SeatState { turn: Turn::Task, position, rest: Bytes::new(), pinged_ms: now_ms, task: None };
        Arc::new(Self { stream, user, session, heard_ms: AtomicU32::new(now_ms), state: Mutex::new(state) })
    }

    pub(crate) fn user(&self) -> UserId {
        self.user
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SeatState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the peer is alive.
    pub(crate) fn heard(&self, clock: Clock) {
        self.heard_ms.store(clock.now_ms(), Ordering::Relaxed);
    }

    /// Resolves when the task has to act. Cancel safe. For the connection's own task only.
    pub(crate) async fn summons(&self) -> Summons {
        poll_fn(|cx| self.poll_summons(cx)).await
    }

    fn poll_summons(&self, cx: &Context<'_>) -> Poll<Summons> {
        let mut state = self.lock();
        match state.turn {
            Turn::Task => Poll::Ready(Summons::Behind),
            Turn::Closing(ending) => Poll::Ready(Summons::Close(ending)),
            Turn::Shard => state.wait(cx),
        }
    }

    /// Resolves when the connection is to be closed, whoever's turn it is. Cancel safe. For the connection's own task
    /// only.
    pub(crate) async fn ended(&self) -> Ending {
        poll_fn(|cx| {
            let mut state = self.lock();
            if let Turn::Closing(ending) = state.turn { Poll::Ready(ending) } else { state.wait(cx) }
        })
        .await
    }

    /// Takes the turn from the shard, unless the connection is to be closed.
    pub(crate) fn take_turn(&self) -> Result<(), Ending> {
        let mut state = self.lock();
        if let Turn::Closing(ending) = state.turn {
            return Err(ending);
        }
        state.turn = Turn::Task;
        Ok(())
    }

    /// Takes what is left of a frame that the shard cut, which must be written before anything else.
    pub(crate) fn take_rest(&self) -> Bytes {
        std::mem::take(&mut self.lock().rest)
    }

    /// Takes the turn for good, and what is left of a frame that the shard cut: from here on only the last words and
    /// the close frame are written.
    pub(crate) fn take_leave(&self) -> Bytes {
        let mut state = self.lock();
        if state.turn == Turn::Shard {
            state.turn = Turn::Task;
        }
        std::mem::take(&mut state.rest)
    }

    /// What the connection has been given.
    pub(crate) fn position(&self) -> Position {
        self.lock().position
    }

    /// Notes what the task has given the connection.
    pub(crate) fn set_position(&self, position: Position) {
        self.lock().position = position;
    }

    /// Writes an answer of the task's own in the shard's turn, if all of it can be written at once; else takes the
    /// turn and answers what is still to be written.
    pub(crate) fn try_answer(&self, answer: Bytes) -> Result<(), Bytes> {
        let mut state = self.lock();
        if state.turn == Turn::Shard {
            match self.stream.try_write(&answer) {
                Ok(written) if written == answer.len() => return Ok(()),
                Ok(written) => {
                    state.turn = Turn::Task;
                    return Err(answer.slice(written..));
                }
                Err(_) => state.turn = Turn::Task,
            }
        }
        Err(answer)
    }

    /// The shard gets the turn, if the connection has been given all that the shard has `begun` to write. A connection
    /// that is to be closed keeps that.
    pub(super) fn join(&self, begun: Position) -> Result<(), Behind> {
        let mut state = self.lock();
        if !state.position.covers(begun) {
            return Err(Behind);
        }
        if state.turn == Turn::Task {
            state.turn = Turn::Shard;
        }
        Ok(())
    }

    /// The shard writes a slice, if it is its turn; how many frames.
    pub(super) fn deliver(&self, slice: &Slice) -> usize {
        let mut state = self.lock();
        if state.turn != Turn::Shard {
            return 0;
        }
        let part;
        let slice = match slice.fit(state.position, self.user) {
            Fit::Whole => slice,
            Fit::Part(fitting) if fitting.len() == 0 => return 0,
            Fit::Part(fitting) => {
                part = fitting;
                &part
            }
            Fit::Gap => {
                state.give_turn(Turn::Task);
                return 0;
            }
        };
        match self.stream.try_write(slice.bytes()) {
            Ok(written) if written == slice.bytes().len() => {
                state.position = slice.advance(state.position);
                return slice.len();
            }
            Ok(written) => {
                (state.position, state.rest) = slice.cut(written, state.position);
                state.give_turn(Turn::Task);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.give_turn(Turn::Task),
            Err(_) => state.give_turn(Turn::Closing(Ending::Gone)),
        }
        0
    }

    /// The shard ends the connection, whoever's turn it is.
    pub(super) fn end(&self, ending: Ending) {
        self.lock().give_turn(Turn::Closing(ending));
    }

    /// The shard has the connection brought up by its task.
    pub(super) fn fall_behind(&self) {
        let mut state = self.lock();
        if state.turn == Turn::Shard {
            state.give_turn(Turn::Task);
        }
    }

    /// The shard closes a silent connection, and pings one that was not pinged for an interval, if it is its turn: a
    /// connection that is being brought up is closed by its own task, when its socket takes nothing for long.
    pub(super) fn heartbeat(&self, now_ms: u32, ping_every_ms: u32, silent_after_ms: u32) {
        let mut state = self.lock();
        if state.turn != Turn::Shard {
            return;
        }
        if since(self.heard_ms.load(Ordering::Relaxed), now_ms) >= silent_after_ms {
            state.give_turn(Turn::Closing(Ending::DeadPeer));
        } else if since(state.pinged_ms, now_ms) >= ping_every_ms {
            state.pinged_ms = now_ms;
            match self.stream.try_write(&PING_FRAME) {
                Ok(written) if written < PING_FRAME.len() => {
                    state.rest = Bytes::from_static(&PING_FRAME[written..]);
                    state.give_turn(Turn::Task);
                }
                // A full buffer needs no ping: what fills it will be acknowledged by the peer's TCP, or time out.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => state.give_turn(Turn::Closing(Ending::Gone)),
            }
        }
    }
}

impl SeatState {
    /// Passes the turn to the task, and wakes it.
    fn give_turn(&mut self, turn: Turn) {
        self.turn = turn;
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Has the task woken when it is given the turn.
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
    fn time_since_is_none_for_what_is_later_and_right_where_the_clock_wraps() {
        assert_eq!(since(1_000, 76_000), 75_000);
        assert_eq!(since(76_001, 76_000), 0);
        assert_eq!(since(u32::MAX - 9, 90), 100);
    }
}

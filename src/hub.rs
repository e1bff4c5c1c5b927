//! The broadcast channel: what happened, encoded once, on its way to every shard.
//!
//! All that a connection may be told travels here in one order: the messages of a commit, who came and went, who
//! types, which sessions ended, that the server stops. Messages are published from one place, the writer thread, so
//! the order on the wire is the order of commits. The hub knows nothing of sockets; the [shards](crate::fan_out) are
//! its receivers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::config::{HUB_CAPACITY, RUN_AHEAD_EVENTS, RUN_AHEAD_PATIENCE, SLICE_MAX_BYTES, SLICE_MAX_MESSAGES};
use crate::model::{Message, MessageId, SessionId, UserId};
use crate::protocol::{Encoder, ServerFrame};

/// What travels the broadcast channel.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Finished frames for every connection.
    Frames(Arc<Slice>),
    /// These logins are over: their sockets close.
    Revoked(Arc<[SessionId]>),
    /// The server stops: every socket closes.
    Shutdown,
}

/// How far a connection has been told: the last message, the last change of who is online, the last revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) message: MessageId,
    /// Counts the presence frames ever published.
    pub(crate) presence: u64,
    /// Counts the times that sessions were revoked, as its shard saw them.
    pub(crate) revocation: u64,
}

impl Position {
    /// Whether nothing up to `other` is missing here.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.message >= other.message && self.presence >= other.presence && self.revocation >= other.revocation
    }

    fn advance(&mut self, told: Told) {
        match told {
            Told::Message(id) => self.message = self.message.max(id),
            Told::Presence(seq) => self.presence = self.presence.max(seq),
            Told::Typing(_) => {}
        }
    }
}

/// What one frame tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    Message(MessageId),
    Presence(u64),
    /// That this user types, which is not told to themselves.
    Typing(UserId),
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Where the frame ends in the slice's bytes.
    end: usize,
    told: Told,
}

/// A run of finished frames in the order in which every connection gets them: the bytes of one write.
#[derive(Debug)]
pub(crate) struct Slice {
    bytes: Bytes,
    frames: Vec<Frame>,
    /// Who has been told all that came before this slice, and so may be given it whole. A kind of frame that does not
    /// occur has no say.
    after: (Option<MessageId>, Option<u64>),
    /// Where it leads to, worked out once: to each of a thousand seats it would be a walk over the frames.
    up_to: Position,
    /// Who must not have all of it: one is not told of one's own typing.
    typists: Vec<UserId>,
}

/// How a slice fits what a connection has been told.
#[derive(Debug)]
pub(crate) enum Fit {
    /// It goes on exactly where the connection is.
    Whole,
    /// The connection has some of it already, or must not have all of it.
    Part(Slice),
    /// Something between the connection and the slice is missing.
    Gap,
}

impl Slice {
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Frames in the slice.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Where a connection stands that has been given all of this slice.
    pub(crate) fn advance(&self, mut position: Position) -> Position {
        position.message = position.message.max(self.up_to.message);
        position.presence = position.presence.max(self.up_to.presence);
        position
    }

    /// How this slice fits a connection of `user` that stands at `position`.
    pub(crate) fn fit(&self, position: Position, user: UserId) -> Fit {
        let (message, presence) = self.after;
        if message.is_some_and(|after| after > position.message)
            || presence.is_some_and(|after| after > position.presence)
        {
            return Fit::Gap;
        }
        let in_sequence = message.is_none_or(|after| after == position.message)
            && presence.is_none_or(|after| after == position.presence);
        if in_sequence && !self.typists.contains(&user) {
            return Fit::Whole;
        }
        let mut part = SliceBuilder::default();
        let mut start = 0;
        for frame in &self.frames {
            let wanted = match frame.told {
                Told::Message(id) => id > position.message,
                Told::Presence(seq) => seq > position.presence,
                Told::Typing(by) => by != user,
            };
            if wanted {
                part.push_encoded(&self.bytes[start..frame.end], frame.told);
            }
            start = frame.end;
        }
        Fit::Part(part.build(self.after))
    }

    /// Where a connection stands that was given the first `written` bytes, and the rest of the frame that was cut:
    /// once that is written too, the connection stands between two frames again.
    ///
    /// The rest is a copy, so that a slow reader keeps one frame alive and not the whole slice.
    pub(crate) fn cut(&self, written: usize, mut position: Position) -> (Position, Bytes) {
        let whole = self.frames.partition_point(|frame| frame.end <= written);
        let boundary = whole.checked_sub(1).map_or(0, |last| self.frames[last].end);
        let begun = usize::from(boundary < written);
        self.frames[..whole + begun].iter().for_each(|frame| position.advance(frame.told));
        let rest = if begun == 1 {
            Bytes::copy_from_slice(&self.bytes[written..self.frames[whole].end])
        } else {
            Bytes::new()
        };
        (position, rest)
    }

    /// Joins slices that were published one behind the other, so that they cost one write.
    pub(crate) fn join(slices: &[Arc<Self>]) -> Self {
        let mut joined = SliceBuilder::default();
        let mut after = (None, None);
        for slice in slices {
            after = (after.0.or(slice.after.0), after.1.or(slice.after.1));
            let mut start = 0;
            for frame in &slice.frames {
                joined.push_encoded(&slice.bytes[start..frame.end], frame.told);
                start = frame.end;
            }
        }
        joined.build(after)
    }
}

/// Encodes frames into a [`Slice`].
#[derive(Debug, Default)]
pub(crate) struct SliceBuilder {
    encoder: Encoder,
    frames: Vec<Frame>,
}

impl SliceBuilder {
    pub(crate) fn push(&mut self, frame: &ServerFrame<'_>, told: Told) {
        self.encoder.push(frame);
        self.frames.push(Frame { end: self.encoder.len(), told });
    }

    fn push_encoded(&mut self, frame: &[u8], told: Told) {
        self.encoder.push_encoded(frame);
        self.frames.push(Frame { end: self.encoder.len(), told });
    }

    /// Bytes encoded so far.
    pub(crate) fn bytes(&self) -> usize {
        self.encoder.len()
    }

    /// Finishes a slice for connections that have been told all up to `after`.
    pub(crate) fn build(mut self, after: (Option<MessageId>, Option<u64>)) -> Slice {
        let typist = |frame: &Frame| if let Told::Typing(by) = frame.told { Some(by) } else { None };
        let typists = self.frames.iter().filter_map(typist).collect();
        let mut up_to = Position::default();
        self.frames.iter().for_each(|frame| up_to.advance(frame.told));
        Slice { bytes: self.encoder.take().freeze(), frames: self.frames, after, up_to, typists }
    }
}

/// The sending side of the broadcast channel. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    events: broadcast::Sender<Event>,
    published: Arc<Published>,
    pace: Arc<Pace>,
}

/// How far has been published: what a shard that was overrun must have its connections catch up to.
#[derive(Debug, Default)]
struct Published {
    message: AtomicI64,
    presence: AtomicU64,
}

/// Where the writer thread waits for the shards.
#[derive(Debug, Default)]
struct Pace {
    writer_waits: Mutex<bool>,
    progress: Condvar,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { events: broadcast::Sender::new(HUB_CAPACITY), published: Arc::default(), pace: Arc::default() }
    }

    /// Receives what is published from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The last message and the last presence frame that were published.
    pub(crate) fn published(&self) -> (MessageId, u64) {
        let Published { message, presence } = &*self.published;
        (MessageId::new(message.load(Ordering::Acquire)), presence.load(Ordering::Acquire))
    }

    /// Publishes one event; without a receiver there is nobody to tell.
    pub(crate) fn publish(&self, event: Event) {
        drop(self.events.send(event));
    }

    /// Publishes one frame.
    pub(crate) fn publish_frame(&self, frame: &ServerFrame<'_>, told: Told) {
        let mut slice = SliceBuilder::default();
        slice.push(frame, told);
        let presence = if let Told::Presence(seq) = told {
            self.published.presence.store(seq, Ordering::Release);
            Some(seq - 1)
        } else {
            None
        };
        self.publish(Event::Frames(Arc::new(slice.build((None, presence)))));
    }

    /// Publishes the messages of one commit, all of which come after `after`, as few slices; then waits until the
    /// shards are at most a few events behind, so that under load batches grow and not the channel.
    ///
    /// Blocks, for a bounded time: for the writer thread only.
    pub(crate) fn publish_batch(&self, mut after: MessageId, messages: &[Message]) {
        if let Some(last) = messages.last() {
            self.published.message.store(last.id.get(), Ordering::Release);
        }
        for chunk in messages.chunks(SLICE_MAX_MESSAGES) {
            let mut slice = SliceBuilder::default();
            let mut first = after;
            for message in chunk {
                slice.push(&ServerFrame::message(message), Told::Message(message.id));
                after = message.id;
                if slice.bytes() >= SLICE_MAX_BYTES {
                    let full = std::mem::take(&mut slice).build((Some(first), None));
                    self.publish(Event::Frames(Arc::new(full)));
                    first = after;
                }
            }
            if slice.bytes() > 0 {
                self.publish(Event::Frames(Arc::new(slice.build((Some(first), None)))));
            }
        }
        if !messages.is_empty() {
            self.wait_for_shards();
        }
    }

    fn wait_for_shards(&self) {
        if self.events.len() <= RUN_AHEAD_EVENTS {
            return;
        }
        let deadline = Instant::now() + RUN_AHEAD_PATIENCE;
        let mut waits = self.pace.writer_waits.lock().unwrap_or_else(PoisonError::into_inner);
        *waits = true;
        while self.events.len() > RUN_AHEAD_EVENTS {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| *left > Duration::ZERO)
            else {
                break;
            };
            waits = self.pace.progress.wait_timeout(waits, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *waits = false;
    }

    /// A shard says that it took events from the channel.
    pub(crate) fn progressed(&self) {
        if *self.pace.writer_waits.lock().unwrap_or_else(PoisonError::into_inner) {
            self.pace.progress.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(ids: std::ops::RangeInclusive<i64>) -> Slice {
        let mut slice = SliceBuilder::default();
        let after = MessageId::new(ids.start() - 1);
        for id in ids {
            slice.push(
                &ServerFrame::UserJoin { username: &"x".repeat(usize::try_from(id).unwrap()) },
                Told::Message(MessageId::new(id)),
            );
        }
        slice.build((Some(after), None))
    }

    fn at(message: i64) -> Position {
        Position { message: MessageId::new(message), ..Position::default() }
    }

    const USER: UserId = UserId(1);

    #[test]
    fn a_slice_fits_whole_only_where_it_goes_on() {
        let slice = messages(5..=8);
        assert!(matches!(slice.fit(at(4), USER), Fit::Whole));
        assert!(matches!(slice.fit(at(3), USER), Fit::Gap));
        let Fit::Part(part) = slice.fit(at(6), USER) else { panic!("two of the four are new") };
        assert_eq!(part.len(), 2);
        assert_eq!(part.bytes(), &slice.bytes()[slice.frames[1].end..]);
        let Fit::Part(part) = slice.fit(at(9), USER) else { panic!("none is new") };
        assert_eq!(part.len(), 0);
    }

    #[test]
    fn a_cut_slice_says_what_was_told_and_what_is_left_of_the_frame() {
        let slice = messages(1..=3);
        for written in 0..=slice.bytes().len() {
            let (position, rest) = slice.cut(written, at(0));
            let told = slice.frames.iter().take_while(|frame| frame.end <= written + rest.len()).count();
            assert_eq!(position.message.get(), i64::try_from(told).unwrap());
            let end = told.checked_sub(1).map_or(0, |last| slice.frames[last].end);
            assert_eq!(written + rest.len(), end, "a connection stands between two frames");
        }
    }

    #[test]
    fn joined_slices_are_the_bytes_of_each_in_order() {
        let (one, two) = (Arc::new(messages(1..=2)), Arc::new(messages(3..=4)));
        let joined = Slice::join(&[Arc::clone(&one), Arc::clone(&two)]);
        assert_eq!(joined.bytes(), &[&one.bytes()[..], &two.bytes()[..]].concat());
        assert!(matches!(joined.fit(at(0), USER), Fit::Whole));
        assert_eq!(joined.advance(at(0)), at(4));
    }

    #[test]
    fn typing_is_not_told_to_who_types() {
        let mut slice = SliceBuilder::default();
        slice.push(&ServerFrame::Typing { username: "ada" }, Told::Typing(USER));
        let slice = slice.build((None, None));
        assert!(matches!(slice.fit(at(0), UserId(2)), Fit::Whole));
        assert!(matches!(slice.fit(at(0), USER), Fit::Part(part) if part.len() == 0));
    }
}

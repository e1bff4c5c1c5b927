//! Batches of encoded frames, whom each frame reaches, and how far each connection is along them.
//!
//! Most batches are for everybody, whichever edition of the contract they know: these are written as they are, and
//! nothing is looked at for each subscriber. Of any other batch a subscriber gets what is for it: nothing, all of it,
//! or a part, which is gathered once for all subscribers that get the same.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{BATCH_MAX_BYTES, BATCH_MAX_MESSAGES, PART_MAX_BYTES, PARTS_KEPT, PARTS_MAX_BYTES};
use crate::model::{MessageId, UserId};
use crate::protocol::{Encoder, ServerFrame};
use crate::room::{Audience, RoomId};

/// What a connection has been sent: up to which event, which change of who is online, which revocation and which change
/// of rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) event: MessageId,
    /// Counts the presence frames ever published.
    pub(crate) presence: u64,
    /// How often sessions were revoked, as counted by its shard.
    pub(crate) revocation: u64,
    /// How often somebody's rooms changed, as counted by its shard.
    pub(crate) membership: u64,
}

impl Position {
    /// Whether nothing up to `other` is missing here.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.event >= other.event
            && self.presence >= other.presence
            && self.revocation >= other.revocation
            && self.membership >= other.membership
    }

    fn advance(&mut self, kind: FrameKind) {
        match kind {
            FrameKind::Event(id) => self.event = self.event.max(id),
            FrameKind::Presence(seq) => self.presence = self.presence.max(seq),
            FrameKind::Unordered => {}
        }
    }
}

/// The cursor that a frame advances.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FrameKind {
    /// The event with this id.
    Event(MessageId),
    Presence(u64),
    /// Advances none: typing, and how far somebody has read.
    Unordered,
}

/// Whom a frame reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    audience: Audience,
    /// Whether clients of the first edition, which know one room, get it.
    first_edition: bool,
    except: Option<UserId>,
}

impl Reach {
    /// Everybody, with either edition of the contract.
    pub(crate) const ALL: Self = Self { audience: Audience::Everyone, first_edition: true, except: None };

    /// The readers of a room.
    pub(crate) fn of_room(room: RoomId, audience: Audience) -> Self {
        Self { audience, first_edition: room == RoomId::LOBBY, except: None }
    }

    /// The part of an audience that has clients of the second edition.
    pub(crate) fn second_edition(audience: Audience) -> Self {
        Self { audience, first_edition: false, except: None }
    }

    /// Leaves out this user: nobody is told of their own typing.
    pub(crate) fn except(self, user: UserId) -> Self {
        Self { except: Some(user), ..self }
    }

    fn includes(&self, reader: ReaderScope<'_>) -> bool {
        let is_reached = match self.audience {
            Audience::Everyone => true,
            Audience::Members(room) => reader.rooms.binary_search(&room).is_ok(),
            Audience::User(user) => user == reader.user,
        };
        is_reached && (self.first_edition || reader.all_rooms) && self.except != Some(reader.user)
    }
}

/// What decides which frames a subscriber gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderScope<'a> {
    pub(crate) user: UserId,
    /// Whether it reads all rooms that its user may read; a client of the first edition reads the lobby alone.
    pub(crate) all_rooms: bool,
    /// Its user's private and direct rooms, sorted.
    pub(crate) rooms: &'a [RoomId],
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Where the frame ends in the batch's bytes.
    end: usize,
    kind: FrameKind,
    /// Which of the batch's reaches it has.
    reach: u8,
}

/// What a batch covers, as pairs of after and up to. `None`: it covers nothing of that kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    events: Option<(MessageId, MessageId)>,
    presence: Option<(u64, u64)>,
}

impl Span {
    /// The events after `after` up to `up_to`, also those that have no frame.
    pub(crate) fn of_events(after: MessageId, up_to: MessageId) -> Self {
        Self { events: Some((after, up_to)), presence: None }
    }

    /// One presence frame.
    pub(crate) fn of_presence(seq: u64) -> Self {
        Self { events: None, presence: Some((seq - 1, seq)) }
    }

    fn join(self, next: Self) -> Self {
        fn joined<T: Copy>(one: Option<(T, T)>, next: Option<(T, T)>) -> Option<(T, T)> {
            let ((after, _), (_, up_to)) = (one.or(next)?, next.or(one)?);
            Some((after, up_to))
        }
        Self { events: joined(self.events, next.events), presence: joined(self.presence, next.presence) }
    }
}

/// Distinct reaches of one batch: few enough that a set of them fits in a `u64`.
const REACHES_MAX: usize = u64::BITS as usize;

/// A run of finished frames in the order in which every connection gets them: the bytes of one write.
#[derive(Debug)]
pub(crate) struct FrameBatch {
    bytes: Bytes,
    frames: Vec<Frame>,
    span: Span,
    /// The distinct reaches of the frames.
    reaches: Vec<Reach>,
    /// The bytes of each reach.
    sizes: Vec<usize>,
}

/// How a batch fits what a connection has been told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// It begins exactly where the connection is.
    InSequence,
    /// The connection has some of it already.
    Overlaps,
    /// Something between the connection and the batch is missing.
    Gap,
}

impl FrameBatch {
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Frames in the batch.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Where a connection at `position` stands once it has its part of this batch.
    pub(crate) fn advance(&self, mut position: Position) -> Position {
        if let Some((_, up_to)) = self.span.events {
            position.event = position.event.max(up_to);
        }
        if let Some((_, up_to)) = self.span.presence {
            position.presence = position.presence.max(up_to);
        }
        position
    }

    /// How this batch fits a connection that stands at `position`.
    pub(crate) fn continuity(&self, position: Position) -> Continuity {
        let Span { events, presence } = self.span;
        if events.is_some_and(|(after, _)| after > position.event)
            || presence.is_some_and(|(after, _)| after > position.presence)
        {
            return Continuity::Gap;
        }
        let in_sequence = events.is_none_or(|(after, _)| after == position.event)
            && presence.is_none_or(|(after, _)| after == position.presence);
        if in_sequence { Continuity::InSequence } else { Continuity::Overlaps }
    }

    /// The rooms of a batch that is for members of rooms only; `None` if it is for others, too.
    pub(super) fn rooms(&self) -> Option<Vec<RoomId>> {
        let room = |reach: &Reach| if let Audience::Members(room) = reach.audience { Some(room) } else { None };
        self.reaches.iter().map(room).collect::<Option<Vec<_>>>().filter(|rooms| !rooms.is_empty())
    }

    /// Which of the reaches include this reader, as a set of bits.
    fn reaches_of(&self, reader: ReaderScope<'_>) -> u64 {
        let included = self.reaches.iter().enumerate().filter(|(_, reach)| reach.includes(reader));
        included.fold(0, |set, (at, _)| set | 1 << at)
    }

    fn is_for_all(&self) -> bool {
        matches!(self.reaches[..], [] | [Reach::ALL])
    }

    /// The frames of these reaches that come after `position`, or have no order.
    fn select(&self, reaches: u64, position: Position) -> Self {
        let mut part = FrameBatchBuilder::default();
        let mut start = 0;
        for frame in &self.frames {
            let is_new = match frame.kind {
                FrameKind::Event(id) => id > position.event,
                FrameKind::Presence(seq) => seq > position.presence,
                FrameKind::Unordered => true,
            };
            if is_new && reaches & (1 << frame.reach) != 0 {
                let reach = self.reaches[usize::from(frame.reach)];
                part.push_encoded(&self.bytes[start..frame.end], frame.kind, reach);
            }
            start = frame.end;
        }
        part.build(self.span)
    }

    /// Where a connection stands after the first `written` bytes, and the rest of the frame that was cut. The position
    /// counts that frame: it is true once the rest is written, which has to be before anything else.
    ///
    /// The rest is a copy, so that a slow reader keeps one frame alive and not the whole batch.
    pub(crate) fn after_partial_write(&self, written: usize, mut position: Position) -> (Position, Bytes) {
        let whole = self.frames.partition_point(|frame| frame.end <= written);
        let boundary = whole.checked_sub(1).map_or(0, |last| self.frames[last].end);
        let begun = usize::from(boundary < written);
        self.frames[..whole + begun].iter().for_each(|frame| position.advance(frame.kind));
        let rest = if begun == 1 {
            Bytes::copy_from_slice(&self.bytes[written..self.frames[whole].end])
        } else {
            Bytes::new()
        };
        (position, rest)
    }

    /// Whether this can be joined to batches with these reaches, of so many bytes each, without exceeding the number that
    /// a batch may have. Adds its own in any case.
    pub(crate) fn can_join(&self, reaches: &mut Vec<(Reach, usize)>) -> bool {
        for (reach, size) in self.reaches.iter().zip(&self.sizes) {
            match reaches.iter_mut().find(|(known, _)| known == reach) {
                Some((_, bytes)) => *bytes += size,
                None => reaches.push((*reach, *size)),
            }
        }
        reaches.len() <= REACHES_MAX
    }

    /// Joins batches that were published one after the other, so that they cost one write.
    pub(crate) fn join(batches: &[Arc<Self>]) -> Self {
        let mut joined = FrameBatchBuilder::default();
        let mut span = Span::default();
        for batch in batches {
            span = span.join(batch.span);
            let mut start = 0;
            for frame in &batch.frames {
                let reach = batch.reaches[usize::from(frame.reach)];
                joined.push_encoded(&batch.bytes[start..frame.end], frame.kind, reach);
                start = frame.end;
            }
        }
        joined.build(span)
    }
}

/// A batch on its way to the subscribers of a shard, and the parts that some of them get.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    batch: &'a FrameBatch,
    /// Where every subscriber that keeps up stands, even if earlier batches skipped it.
    from: Position,
    /// The parts gathered so far, by their set of reaches.
    parts: HashMap<u64, FrameBatch>,
    parts_bytes: usize,
    largest_part: usize,
}

impl<'a> Delivery<'a> {
    pub(crate) fn new(batch: &'a FrameBatch, from: Position) -> Self {
        Self { batch, from, parts: HashMap::new(), parts_bytes: 0, largest_part: 0 }
    }

    /// Where a subscriber that keeps up stands: at `position`, or further on if later batches skipped it.
    pub(crate) fn position_of(&self, position: Position) -> Position {
        let (event, presence) = (position.event.max(self.from.event), position.presence.max(self.from.presence));
        Position { event, presence, ..position }
    }

    pub(crate) fn batch(&self) -> &'a FrameBatch {
        self.batch
    }

    /// Bytes of the largest part so far.
    pub(crate) fn largest_part(&self) -> usize {
        self.largest_part
    }

    /// Notes how large a part a reader would get who is not keeping up at the moment.
    pub(crate) fn note_reader(&mut self, reader: ReaderScope<'_>) {
        if !self.batch.is_for_all() {
            self.note_part(self.batch.reaches_of(reader));
        }
    }

    fn note_part(&mut self, reaches: u64) {
        let sizes = self.batch.sizes.iter().enumerate().filter(|(at, _)| reaches & (1 << at) != 0);
        self.largest_part = self.largest_part.max(sizes.map(|(_, size)| size).sum());
    }

    /// The part of the batch for a reader that has everything before it.
    pub(crate) fn part_for(&mut self, reader: ReaderScope<'_>) -> &FrameBatch {
        if self.batch.is_for_all() {
            self.largest_part = self.batch.bytes.len();
            return self.batch;
        }
        let reaches = self.batch.reaches_of(reader);
        self.note_part(reaches);
        if reaches.count_ones() as usize == self.batch.reaches.len() {
            return self.batch;
        }
        if (self.parts.len() >= PARTS_KEPT || self.parts_bytes >= PARTS_MAX_BYTES) && !self.parts.contains_key(&reaches)
        {
            self.parts.clear();
            self.parts_bytes = 0;
        }
        self.parts.entry(reaches).or_insert_with(|| {
            let part = self.batch.select(reaches, Position::default());
            self.parts_bytes += part.bytes.len();
            part
        })
    }

    /// The part of the batch for a reader that has some of it already.
    pub(crate) fn rest_for(&self, reader: ReaderScope<'_>, position: Position) -> FrameBatch {
        self.batch.select(self.batch.reaches_of(reader), position)
    }
}

/// Encodes frames into a [`FrameBatch`].
#[derive(Debug, Default)]
pub(crate) struct FrameBatchBuilder {
    encoder: Encoder,
    frames: Vec<Frame>,
    reaches: Vec<Reach>,
    /// The bytes of each reach.
    sizes: Vec<usize>,
    /// The largest of them.
    largest: usize,
}

impl FrameBatchBuilder {
    pub(crate) fn push(&mut self, frame: &ServerFrame<'_>, kind: FrameKind, reach: Reach) {
        self.encoder.push(frame);
        self.note(kind, reach);
    }

    fn push_encoded(&mut self, frame: &[u8], kind: FrameKind, reach: Reach) {
        self.encoder.push_encoded(frame);
        self.note(kind, reach);
    }

    fn note(&mut self, kind: FrameKind, reach: Reach) {
        let at = self.reaches.iter().rposition(|known| *known == reach).unwrap_or_else(|| {
            self.reaches.push(reach);
            self.sizes.push(0);
            self.reaches.len() - 1
        });
        let end = self.encoder.len();
        self.sizes[at] += end - self.frames.last().map_or(0, |frame| frame.end);
        self.largest = self.largest.max(self.sizes[at]);
        let reach = u8::try_from(at).expect("a batch has at most 64 reaches");
        self.frames.push(Frame { end, kind, reach });
    }

    /// Whether a limit is reached, and the next frame belongs in another batch.
    pub(crate) fn is_full(&self) -> bool {
        self.largest >= PART_MAX_BYTES
            || self.encoder.len() >= BATCH_MAX_BYTES
            || self.frames.len() >= BATCH_MAX_MESSAGES
            || self.reaches.len() >= REACHES_MAX
    }

    /// Finishes a batch that covers `span`.
    pub(crate) fn build(mut self, span: Span) -> FrameBatch {
        FrameBatch {
            bytes: self.encoder.take().freeze(),
            frames: self.frames,
            span,
            reaches: self.reaches,
            sizes: self.sizes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batch: &mut FrameBatchBuilder, id: i64, reach: Reach) {
        let name = "x".repeat(usize::try_from(id).unwrap());
        batch.push(&ServerFrame::UserJoin { username: &name }, FrameKind::Event(MessageId::new(id)), reach);
    }

    fn messages(ids: std::ops::RangeInclusive<i64>) -> FrameBatch {
        let mut batch = FrameBatchBuilder::default();
        let span = Span::of_events(MessageId::new(ids.start() - 1), MessageId::new(*ids.end()));
        ids.for_each(|id| push(&mut batch, id, Reach::ALL));
        batch.build(span)
    }

    fn at(event: i64) -> Position {
        Position { event: MessageId::new(event), ..Position::default() }
    }

    const USER: UserId = UserId(1);

    fn reader(user: UserId, rooms: &[RoomId]) -> ReaderScope<'_> {
        ReaderScope { user, all_rooms: true, rooms }
    }

    /// Bytes of a batch that frames of these reaches in turn fill.
    fn bytes_when_full(reaches: &[Reach]) -> usize {
        let (mut batch, mut turns) = (FrameBatchBuilder::default(), reaches.iter().cycle());
        while !batch.is_full() {
            push(&mut batch, 500, *turns.next().unwrap());
        }
        batch.encoder.len()
    }

    #[test]
    fn the_talk_of_several_rooms_fills_more_than_one_part_of_a_batch_but_not_any_number() {
        let rooms = |count| (1..=count).map(|room| Reach::of_room(RoomId(room), Audience::Members(RoomId(room))));
        let frame_bytes = 600;
        for (count, most) in [(1, PART_MAX_BYTES), (2, 2 * PART_MAX_BYTES), (20, BATCH_MAX_BYTES)] {
            let bytes = bytes_when_full(&rooms(count).collect::<Vec<_>>());
            assert!((most - 2 * frame_bytes..most + frame_bytes).contains(&bytes), "{count} rooms: {bytes}");
        }
    }

    #[test]
    fn a_batch_is_full_with_as_many_reaches_as_a_set_of_them_can_hold() {
        let mut batch = FrameBatchBuilder::default();
        for room in (1..).map(RoomId).take(REACHES_MAX) {
            assert!(!batch.is_full());
            push(&mut batch, 1, Reach::of_room(room, Audience::Members(room)));
        }
        assert!(batch.is_full());
    }

    #[test]
    fn batches_are_joined_while_a_set_can_hold_their_reaches() {
        let of_rooms = |rooms: std::ops::Range<i64>| {
            let mut batch = FrameBatchBuilder::default();
            rooms.for_each(|room| push(&mut batch, 1, Reach::of_room(RoomId(room), Audience::Members(RoomId(room)))));
            batch.build(Span::default())
        };
        let most = i64::try_from(REACHES_MAX).unwrap();
        let mut reaches = Vec::new();
        let batch = of_rooms(0..most - 2);
        assert!(batch.can_join(&mut reaches) && batch.can_join(&mut reaches), "the same rooms again");
        assert!(reaches.iter().all(|(_, bytes)| *bytes == 2 * batch.bytes().len() / batch.reaches.len()));
        assert!(of_rooms(most - 2..most).can_join(&mut reaches));
        assert!(!of_rooms(most..most + 1).can_join(&mut reaches));
    }

    #[test]
    fn of_a_batch_a_reader_gets_what_comes_after_their_position() {
        let mut batch = FrameBatchBuilder::default();
        push(&mut batch, 5, Reach::ALL);
        for seq in [3, 4] {
            batch.push(&ServerFrame::UserJoin { username: "ada" }, FrameKind::Presence(seq), Reach::ALL);
        }
        let batch = batch.build(Span::default());
        let frames = |event, presence| batch.select(1, Position { presence, ..at(event) }).frames.len();
        assert_eq!([frames(4, 2), frames(5, 2), frames(4, 3), frames(5, 3), frames(5, 4)], [3, 2, 2, 1, 0]);
    }

    #[test]
    fn a_batch_goes_on_only_where_it_begins() {
        let batch = messages(5..=8);
        assert_eq!(batch.continuity(at(4)), Continuity::InSequence);
        assert_eq!(batch.continuity(at(3)), Continuity::Gap);
        assert_eq!(batch.continuity(at(6)), Continuity::Overlaps);
        let rest = Delivery::new(&batch, Position::default()).rest_for(reader(USER, &[]), at(6));
        assert_eq!(rest.len(), 2);
        assert_eq!(rest.bytes(), &batch.bytes()[batch.frames[1].end..]);
        assert_eq!(Delivery::new(&batch, Position::default()).rest_for(reader(USER, &[]), at(9)).len(), 0);
    }

    #[test]
    fn a_cut_batch_says_what_was_told_and_what_is_left_of_the_frame() {
        let batch = messages(1..=3);
        for written in 0..=batch.bytes().len() {
            let (position, rest) = batch.after_partial_write(written, at(0));
            let told = batch.frames.iter().take_while(|frame| frame.end <= written + rest.len()).count();
            assert_eq!(position.event.get(), i64::try_from(told).unwrap());
            let end = told.checked_sub(1).map_or(0, |last| batch.frames[last].end);
            assert_eq!(written + rest.len(), end, "a connection stands between two frames");
        }
    }

    #[test]
    fn joined_batches_are_the_bytes_of_each_in_order() {
        let (one, two) = (Arc::new(messages(1..=2)), Arc::new(messages(3..=4)));
        let joined = FrameBatch::join(&[Arc::clone(&one), Arc::clone(&two)]);
        assert_eq!(joined.bytes(), &[&one.bytes()[..], &two.bytes()[..]].concat());
        assert_eq!(joined.continuity(at(0)), Continuity::InSequence);
        assert_eq!(joined.advance(at(0)), at(4));
        assert!(joined.is_for_all());
    }

    #[test]
    fn each_reader_gets_the_frames_of_their_rooms_and_stands_behind_all_of_them() {
        let mut batch = FrameBatchBuilder::default();
        let (den, attic) = (RoomId(7), RoomId(9));
        push(&mut batch, 1, Reach::ALL);
        push(&mut batch, 2, Reach::of_room(den, Audience::Members(den)));
        push(&mut batch, 3, Reach::of_room(RoomId(3), Audience::Everyone));
        push(&mut batch, 4, Reach::second_edition(Audience::User(USER)));
        // The fifth event is told to nobody by a frame.
        let batch = batch.build(Span::of_events(MessageId::new(0), MessageId::new(5)));
        let told = |user: UserId, all_rooms: bool, rooms: &[RoomId]| {
            let mut delivery = Delivery::new(&batch, Position::default());
            let part = delivery.part_for(ReaderScope { user, all_rooms, rooms });
            assert_eq!(part.advance(at(0)), at(5));
            let id = |frame: &Frame| if let FrameKind::Event(id) = frame.kind { id.get() } else { 0 };
            part.frames.iter().map(id).collect::<Vec<_>>()
        };
        assert_eq!(told(USER, true, &[den]), [1, 2, 3, 4]);
        assert_eq!(told(UserId(2), true, &[den, attic]), [1, 2, 3]);
        assert_eq!(told(UserId(2), true, &[attic]), [1, 3]);
        assert_eq!(told(USER, false, &[den]), [1]);
    }

    #[test]
    fn parts_that_differ_more_than_are_kept_are_still_right() {
        let mut batch = FrameBatchBuilder::default();
        let rooms: Vec<_> = (2..20).map(RoomId).collect();
        for (id, room) in (1..).zip(&rooms) {
            push(&mut batch, id, Reach::of_room(*room, Audience::Members(*room)));
        }
        let batch = batch.build(Span::of_events(MessageId::new(0), MessageId::new(18)));
        let mut delivery = Delivery::new(&batch, Position::default());
        for subset in 0..4 * PARTS_KEPT {
            let mine: Vec<_> = rooms.iter().enumerate().filter(|(at, _)| subset & (1 << at) != 0).collect();
            let mine: Vec<_> = mine.into_iter().map(|(_, room)| *room).collect();
            assert_eq!(delivery.part_for(reader(USER, &mine)).len(), mine.len());
            assert!(delivery.parts.len() <= PARTS_KEPT);
        }
    }

    #[test]
    fn the_bytes_of_parts_that_are_kept_are_bounded() {
        let rooms: Vec<_> = (2..22).map(RoomId).collect();
        let (mut batch, mut turns) = (FrameBatchBuilder::default(), rooms.iter().cycle());
        let mut last = 0;
        while !batch.is_full() {
            let room = *turns.next().unwrap();
            last += 1;
            push(&mut batch, last, Reach::of_room(room, Audience::Members(room)));
        }
        let batch = batch.build(Span::of_events(MessageId::new(0), MessageId::new(last)));
        let mut delivery = Delivery::new(&batch, Position::default());
        let mut gathered = 0;
        // Everybody lacks two of the rooms, and no two readers the same.
        for (at, one) in rooms.iter().enumerate() {
            for other in &rooms[..at] {
                let mine: Vec<_> = rooms.iter().filter(|room| ![one, other].contains(room)).copied().collect();
                gathered += delivery.part_for(reader(USER, &mine)).bytes.len();
                let kept: usize = delivery.parts.values().map(|part| part.bytes.len()).sum();
                assert!(kept < PARTS_MAX_BYTES + BATCH_MAX_BYTES, "{kept}");
            }
        }
        assert!(gathered > 2 * PARTS_MAX_BYTES, "{gathered}");
    }

    #[test]
    fn typing_is_not_told_to_the_person_who_types() {
        let mut batch = FrameBatchBuilder::default();
        let typing = ServerFrame::Typing { username: "ada", room: 1 };
        batch.push(&typing, FrameKind::Unordered, Reach::ALL.except(USER));
        let batch = batch.build(Span::default());
        let mut delivery = Delivery::new(&batch, Position::default());
        assert_eq!(delivery.part_for(reader(UserId(2), &[])).len(), 1);
        assert_eq!(delivery.part_for(reader(USER, &[])).len(), 0);
    }
}

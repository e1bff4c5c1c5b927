//! When many open the page or come back at the same moment, the reader thread reads what they ask for once and gives it
//! to all. This is what it has read since the last commit that changed messages.
//!
//! Only answers that are the same for everybody are kept, and who may have one is asked of the database each time. They
//! are exactly what the database would say: [`Generation`] tells whether a read transaction sees the same messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::data::{FoundPage, Page, PageQuery};
use super::sql::Access;
use crate::limits::{MEMO_ENTRIES, MEMO_ENTRY_BYTES};
use crate::model::{Message, MessageId};
use crate::room::{Extras, Missed, RoomId};

/// Counts the commits that change messages. Odd while one of them is on its way to the disk, or has failed but may have
/// reached it.
#[derive(Debug, Default)]
pub(super) struct Generation(AtomicU64);

impl Generation {
    pub(super) fn current(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Called before such a commit.
    pub(super) fn begin(&self) {
        self.0.fetch_or(1, Ordering::SeqCst);
    }

    /// Called once it has succeeded.
    pub(super) fn end(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Everything that a page depends on, except who may read it.
pub(super) type PageKey = (RoomId, PageQuery, u32);

/// Everything that a user's missed events depend on, except who the user is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MissedKey {
    pub(super) after: MessageId,
    pub(super) origin: MessageId,
    pub(super) seen: MessageId,
    pub(super) last_id: MessageId,
    pub(super) at_most: u32,
    pub(super) all_rooms: bool,
    /// The rooms that the client reads, and those that its user may not read any more.
    pub(super) readable: Vec<Access>,
    pub(super) gone: Vec<(MessageId, RoomId)>,
}

impl MissedKey {
    fn bytes(&self) -> usize {
        size_of_val(&self.readable[..]) + size_of_val(&self.gone[..])
    }
}

/// Some of what was missed.
#[derive(Debug, Clone)]
pub(super) struct MissedChunk {
    /// The oldest of the missed events, ascending; `None` if there are more than may be replayed.
    pub(super) missed: Option<Arc<Vec<Missed>>>,
    /// The event up to which these are all.
    pub(super) up_to: MessageId,
}

/// The last [`MEMO_ENTRIES`] answers of a kind, the oldest first.
#[derive(Debug)]
struct Kept<K, V>(Vec<(K, V)>);

impl<K: PartialEq, V: Clone> Kept<K, V> {
    fn find(&self, key: &K) -> Option<V> {
        self.0.iter().find(|(kept, _)| kept == key).map(|(_, value)| value.clone())
    }

    /// Keeps an answer of about so many bytes, unless that is more than [`MEMO_ENTRY_BYTES`].
    fn keep(&mut self, key: K, value: &V, bytes: usize) {
        if bytes <= MEMO_ENTRY_BYTES {
            if self.0.len() >= MEMO_ENTRIES {
                self.0.remove(0);
            }
            self.0.push((key, value.clone()));
        }
    }
}

/// Answers of one [`Generation`].
#[derive(Debug)]
pub(super) struct Memo {
    generation: u64,
    pages: Kept<PageKey, Arc<FoundPage>>,
    chunks: Kept<MissedKey, MissedChunk>,
}

impl Memo {
    pub(super) fn of(generation: u64) -> Self {
        Self { generation, pages: Kept(Vec::new()), chunks: Kept(Vec::new()) }
    }
}

/// Whether a message looks the same to all who may read it.
fn is_for_all(message: &Message) -> bool {
    message.extras.as_ref().is_none_or(|extras| extras.reactions.is_empty())
}

/// A generous estimate of the bytes that it takes to keep a message, both as it is and encoded.
fn bytes_of(message: &Message) -> usize {
    let extras = if message.extras.is_some() { size_of::<Extras>() } else { 0 };
    3 * (size_of::<Message>() + extras + message.bytes())
}

/// The memo within one read transaction, of which the first read has been made.
pub(super) struct Recall<'a> {
    /// `None` if a commit was under way.
    memo: Option<&'a mut Memo>,
}

impl<'a> Recall<'a> {
    /// `before` is the generation that was current before the transaction began. If it still is, the transaction sees
    /// it.
    pub(super) fn new(memo: &'a mut Memo, generation: &Generation, before: u64) -> Self {
        let is_exact = before.is_multiple_of(2) && generation.current() == before;
        if memo.generation != before {
            *memo = Memo::of(before);
        }
        Self { memo: is_exact.then_some(memo) }
    }

    /// A page: what was kept, or what `read` returns.
    pub(super) fn page(
        &mut self,
        key: PageKey,
        read: impl FnOnce() -> rusqlite::Result<FoundPage>,
    ) -> rusqlite::Result<Arc<FoundPage>> {
        let Some(memo) = &mut self.memo else { return read().map(Arc::new) };
        if let Some(found) = memo.pages.find(&key) {
            return Ok(found);
        }
        let found = Arc::new(read()?);
        if let Page::Messages(messages) = &found.page
            && messages.iter().all(is_for_all)
        {
            memo.pages.keep(key, &found, messages.iter().map(bytes_of).sum());
        }
        Ok(found)
    }

    /// A chunk of missed events: what was kept, or what `read` returns.
    pub(super) fn chunk(
        &mut self,
        key: MissedKey,
        read: impl FnOnce(&MissedKey) -> rusqlite::Result<MissedChunk>,
    ) -> rusqlite::Result<MissedChunk> {
        let Some(memo) = &mut self.memo else { return read(&key) };
        if let Some(chunk) = memo.chunks.find(&key) {
            return Ok(chunk);
        }
        let chunk = read(&key)?;
        let events = || chunk.missed.iter().flat_map(|missed| missed.iter());
        let is_for_all = events().all(|event| match event {
            Missed::Message(message) => is_for_all(message),
            Missed::Edit(_) | Missed::Delete(_) | Missed::React(_) => true,
            Missed::Room(..) | Missed::RoomGone(..) => false,
        });
        if is_for_all {
            let bytes = key.bytes() + events().map(|event| 2 * (size_of::<Missed>() + event.bytes())).sum::<usize>();
            memo.chunks.keep(key, &chunk, bytes);
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Content, UnixMillis, Username};
    use crate::room::{Emoji, Reaction, RoomKind};

    const KEY: PageKey = (RoomId::LOBBY, PageQuery::Newest, 50);

    fn message(extras: Option<Extras>) -> Message {
        let content = Content::parse("hello").unwrap();
        let plain = Message::plain(MessageId::new(1), Username::parse("ada").unwrap(), content, UnixMillis(1));
        Message { extras: extras.map(Box::new), ..plain }
    }

    /// Whether a transaction that begins now has to read a page of these messages from the database.
    fn reads(memo: &mut Memo, generation: &Generation, key: PageKey, messages: &[Message]) -> bool {
        let mut has_read = false;
        let read = || {
            has_read = true;
            Ok(FoundPage::new(Page::Messages(messages.to_vec()), false, None))
        };
        Recall::new(memo, generation, generation.current()).page(key, read).unwrap();
        has_read
    }

    #[test]
    fn a_page_is_read_once_for_all_until_messages_change() {
        let (mut memo, generation) = (Memo::of(0), Generation::default());
        let mut reads = || reads(&mut memo, &generation, KEY, &[message(None)]);
        assert!(reads() && !reads() && !reads());
        generation.begin();
        generation.end();
        assert!(reads() && !reads());
    }

    #[test]
    fn what_is_read_while_a_commit_is_under_way_or_has_failed_is_given_to_nobody_else() {
        let (mut memo, generation) = (Memo::of(0), Generation::default());
        let mut reads = || reads(&mut memo, &generation, KEY, &[message(None)]);
        assert!(reads());
        generation.begin();
        assert!(reads() && reads());
        // The first has failed: only when the next one has succeeded is it known what the file contains.
        generation.begin();
        assert!(reads() && reads());
        generation.end();
        assert!(reads() && !reads());
    }

    #[test]
    fn a_transaction_that_may_see_a_commit_which_came_as_it_began_uses_nothing_older() {
        let (mut memo, generation) = (Memo::of(0), Generation::default());
        let before = generation.current();
        assert!(reads(&mut memo, &generation, KEY, &[message(None)]));
        generation.begin();
        generation.end();
        let fresh = || Ok(FoundPage::new(Page::Messages(Vec::new()), false, None));
        let found = Recall::new(&mut memo, &generation, before).page(KEY, fresh).unwrap();
        assert!(matches!(&found.page, Page::Messages(messages) if messages.is_empty()));
        assert!(reads(&mut memo, &generation, KEY, &[message(None)]), "nor is it kept, since it may be older");
    }

    #[test]
    fn a_page_with_reactions_is_read_for_each_reader() {
        let (mut memo, generation) = (Memo::of(0), Generation::default());
        let reaction = Reaction { emoji: Emoji::parse("👍").unwrap(), count: 1, mine: true, names: Vec::new() };
        let reacted = Extras { reactions: vec![reaction], ..Extras::default() };
        for _ in 0..2 {
            assert!(reads(&mut memo, &generation, KEY, &[message(None), message(Some(reacted.clone()))]));
        }
    }

    #[test]
    fn the_oldest_answer_makes_room_and_a_long_one_is_not_kept() {
        let (mut memo, generation) = (Memo::of(0), Generation::default());
        let key = |limit: usize| (RoomId::LOBBY, PageQuery::Newest, u32::try_from(limit).unwrap());
        let mut reads = |limit, messages: &[Message]| reads(&mut memo, &generation, key(limit), messages);
        assert!((0..=MEMO_ENTRIES).all(|limit| reads(limit, &[message(None)])));
        assert!(!(1..=MEMO_ENTRIES).any(|limit| reads(limit, &[message(None)])));
        assert!(reads(0, &[message(None)]));
        let messages = vec![message(None); MEMO_ENTRY_BYTES / bytes_of(&message(None)) + 1];
        assert!(reads(999, &messages) && reads(999, &messages));
        assert!(reads(999, &messages[1..]) && !reads(999, &messages[1..]));
    }

    fn key() -> MissedKey {
        let [after, origin, seen, last_id] = [MessageId::default(); 4];
        let kind = RoomKind::Private;
        let room = Access { room: RoomId(2), kind, is_archived: false, since: after, changed: after };
        MissedKey { after, origin, seen, last_id, at_most: 1, all_rooms: true, readable: vec![room], gone: Vec::new() }
    }

    /// Whether a transaction that begins now has to read these events from the database.
    fn reads_missed(memo: &mut Memo, key: MissedKey, missed: &[Missed]) -> bool {
        let mut has_read = false;
        let read = |_: &MissedKey| {
            has_read = true;
            Ok(MissedChunk { missed: Some(Arc::new(missed.to_vec())), up_to: MessageId::default() })
        };
        Recall::new(memo, &Generation::default(), 0).chunk(key, read).unwrap();
        has_read
    }

    #[test]
    fn what_was_missed_is_shared_by_those_who_missed_the_same_in_the_same_rooms() {
        let mut memo = Memo::of(0);
        let missed = [Missed::Message(message(None))];
        assert!(reads_missed(&mut memo, key(), &missed) && !reads_missed(&mut memo, key(), &missed));
        let (one, room) = (MessageId::new(1), key().readable[0]);
        let others = [
            MissedKey { after: one, ..key() },
            MissedKey { origin: one, ..key() },
            MissedKey { seen: one, ..key() },
            MissedKey { last_id: one, ..key() },
            MissedKey { at_most: 2, ..key() },
            MissedKey { all_rooms: false, ..key() },
            MissedKey { readable: Vec::new(), ..key() },
            MissedKey { readable: vec![Access { room: RoomId(3), ..room }], ..key() },
            MissedKey { readable: vec![Access { since: one, ..room }], ..key() },
            MissedKey { gone: vec![(one, RoomId(3))], ..key() },
        ];
        for other in others {
            let said = format!("{other:?}");
            assert!(reads_missed(&mut memo, other, &missed), "{said}");
        }
    }

    #[test]
    fn what_was_missed_is_read_for_each_if_it_looks_different_to_each() {
        let reaction = Reaction { emoji: Emoji::parse("👍").unwrap(), count: 1, mine: true, names: Vec::new() };
        let reacted = Extras { reactions: vec![reaction], ..Extras::default() };
        for own in [Missed::Message(message(Some(reacted))), Missed::RoomGone(MessageId::new(1), RoomId(2))] {
            let mut memo = Memo::of(0);
            let missed = [Missed::Message(message(None)), own];
            assert!((0..2).all(|_| reads_missed(&mut memo, key(), &missed)));
        }
    }
}

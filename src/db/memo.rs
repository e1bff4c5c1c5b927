//! What the reader thread has read since the last commit that changed messages: when many open the page or come back at
//! the same time, it is read from SQLite for the first of them and given to all.
//!
//! Only answers that are the same for everybody are kept, and who may have one is asked of the database each time. They
//! are exactly what the database would say: [`Generation`] tells whether a read transaction sees what they were read from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::data::{FoundPage, Page, PageQuery};
use super::sql::Access;
use crate::limits::{MEMO_BYTES, MEMO_ENTRIES};
use crate::model::{Message, MessageId};
use crate::room::{Missed, RoomId};

/// Counts the commits that change messages. Odd while one of them is on its way to the disk, or has failed and may have
/// got there.
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

/// All that a page depends on, but for who may read it.
pub(super) type PageKey = (RoomId, PageQuery, u32);

/// All that the missed events of a user depend on, but for who it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MissedKey {
    pub(super) all_rooms: bool,
    /// The rooms the user may read, and those they may not read any more.
    pub(super) readable: Vec<Access>,
    pub(super) gone: Vec<(MessageId, RoomId)>,
    pub(super) after: MessageId,
    pub(super) origin: MessageId,
    pub(super) seen: MessageId,
    pub(super) last_id: MessageId,
    pub(super) at_most: u32,
}

/// Some of what was missed.
#[derive(Debug, Clone)]
pub(super) struct MissedChunk {
    /// The oldest of the missed events, ascending; `None` if there are more than may be replayed.
    pub(super) missed: Option<Arc<Vec<Missed>>>,
    /// The event up to which these are all.
    pub(super) up_to: MessageId,
}

/// Answers of one [`Generation`].
#[derive(Debug, Default)]
pub(super) struct Memo {
    generation: u64,
    pages: Vec<(PageKey, Arc<FoundPage>)>,
    chunks: Vec<(MissedKey, MissedChunk)>,
    /// Of all answers, about.
    bytes: usize,
}

impl Memo {
    /// Forgets what is not of this generation.
    fn turn_to(&mut self, generation: u64) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
    }

    /// Whether there is room for one more answer of so many bytes, which then takes it.
    fn has_room(&mut self, bytes: usize) -> bool {
        let has_room = self.pages.len() + self.chunks.len() < MEMO_ENTRIES && self.bytes + bytes <= MEMO_BYTES;
        self.bytes += if has_room { bytes } else { 0 };
        has_room
    }
}

/// Whether a message looks the same to all who may read it.
fn is_for_all(message: &Message) -> bool {
    message.extras.as_ref().is_none_or(|extras| extras.reactions.is_empty())
}

/// What keeping a message takes, as it is and encoded.
fn bytes_of(message: &Message) -> usize {
    2 * (size_of::<Message>() + message.bytes())
}

/// The memo within one read transaction, of which the first read has been made.
pub(super) struct Recall<'a> {
    /// `None` if a commit was under way.
    memo: Option<&'a mut Memo>,
}

impl<'a> Recall<'a> {
    /// `before` is the generation that was current before the transaction began. If it still is, the transaction sees it.
    pub(super) fn new(memo: &'a mut Memo, generation: &Generation, before: u64) -> Self {
        let is_exact = before.is_multiple_of(2) && generation.current() == before;
        memo.turn_to(before);
        Self { memo: is_exact.then_some(memo) }
    }

    /// A page: what was kept, or what `read` returns.
    pub(super) fn page(
        &mut self,
        key: PageKey,
        read: impl FnOnce() -> rusqlite::Result<FoundPage>,
    ) -> rusqlite::Result<Arc<FoundPage>> {
        let Some(memo) = &mut self.memo else { return read().map(Arc::new) };
        if let Some((_, page)) = memo.pages.iter().find(|(kept, _)| *kept == key) {
            return Ok(Arc::clone(page));
        }
        let found = Arc::new(read()?);
        if let Page::Messages(messages) = &found.page
            && messages.iter().all(is_for_all)
            && memo.has_room(messages.iter().map(bytes_of).sum())
        {
            memo.pages.push((key, Arc::clone(&found)));
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
        if let Some((_, chunk)) = memo.chunks.iter().find(|(kept, _)| *kept == key) {
            return Ok(chunk.clone());
        }
        let chunk = read(&key)?;
        let events = || chunk.missed.iter().flat_map(|missed| missed.iter());
        let is_for_all = events().all(|event| match event {
            Missed::Message(message) => is_for_all(message),
            Missed::Edit(_) | Missed::Delete(_) | Missed::React(_) => true,
            Missed::Room(..) | Missed::RoomGone(..) => false,
        });
        if is_for_all && memo.has_room(events().map(|event| size_of::<Missed>() + event.bytes()).sum()) {
            memo.chunks.push((key, chunk.clone()));
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Content, UnixMillis, Username};
    use crate::room::{Emoji, Extras, Reaction};

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
        let (mut memo, generation) = (Memo::default(), Generation::default());
        let mut reads = || reads(&mut memo, &generation, KEY, &[message(None)]);
        assert!(reads() && !reads() && !reads());
        generation.begin();
        generation.end();
        assert!(reads() && !reads());
    }

    #[test]
    fn what_is_read_while_a_commit_is_under_way_or_has_failed_is_given_to_nobody_else() {
        let (mut memo, generation) = (Memo::default(), Generation::default());
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
        let (mut memo, generation) = (Memo::default(), Generation::default());
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
        let (mut memo, generation) = (Memo::default(), Generation::default());
        let reaction = Reaction { emoji: Emoji::parse("👍").unwrap(), count: 1, mine: true, names: Vec::new() };
        let reacted = Extras { reactions: vec![reaction], ..Extras::default() };
        for _ in 0..2 {
            assert!(reads(&mut memo, &generation, KEY, &[message(None), message(Some(reacted.clone()))]));
        }
    }

    #[test]
    fn past_the_bounds_no_more_is_kept() {
        let (mut memo, generation) = (Memo::default(), Generation::default());
        let key = |limit: usize| (RoomId::LOBBY, PageQuery::Newest, u32::try_from(limit).unwrap());
        for limit in 0..=MEMO_ENTRIES {
            assert!(reads(&mut memo, &generation, key(limit), &[message(None)]));
        }
        assert!(!reads(&mut memo, &generation, key(0), &[message(None)]));
        assert!(reads(&mut memo, &generation, key(MEMO_ENTRIES), &[message(None)]), "one entry too many");
        let mut memo = Memo::default();
        let messages = vec![message(None); MEMO_BYTES / bytes_of(&message(None)) + 1];
        assert!((0..2).all(|_| reads(&mut memo, &generation, KEY, &messages)), "one message too many");
        assert!(
            reads(&mut memo, &generation, KEY, &messages[1..]) && !reads(&mut memo, &generation, KEY, &messages[1..])
        );
    }
}

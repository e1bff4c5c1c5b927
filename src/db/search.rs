//! Search: a bounded look backwards through the messages, by a connection of its own that lives only as long as the
//! look.
//!
//! There is no index of words. It would write several times the bytes of a lone message, keep the words of what was
//! erased, and find neither parts of words nor languages that put no space between them. A look at ten thousand
//! messages takes some milliseconds; a client that wants older ones continues where the last look ended.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rusqlite::Connection;

use super::error::Error;
use super::sql;
use crate::limits::SEARCH_TIME;
use crate::model::{Message, MessageId, UserId, Username};
use crate::room::{RoomId, fold_char};

/// What to look for.
#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// The user who searches.
    pub user: UserId,
    /// The text, folded.
    pub text: String,
    /// Only in this room.
    pub room: Option<RoomId>,
    /// Only messages of this user.
    pub from: Option<Username>,
    /// Only messages older than this one.
    pub before: MessageId,
    /// At most this many messages.
    pub limit: u32,
}

/// What was found.
#[derive(Debug)]
pub struct SearchPage {
    /// Newest first.
    pub messages: Vec<Message>,
    /// Where to continue; `None` if there is nothing older.
    pub before: Option<MessageId>,
}

/// Looks through some of the messages. `None` if the user may not read the room in the query.
pub(super) fn search(path: &Path, query: &SearchQuery, stop: &AtomicBool) -> Result<Option<SearchPage>, Error> {
    let found = sql::open_reader(path).and_then(|connection| {
        let Some(found) = look(&connection, query, stop)? else { return Ok(None) };
        let messages = show(&connection, query, &found.ids)?;
        Ok(messages.map(|messages| SearchPage { messages, before: found.before }))
    });
    found.map_err(|error| {
        tracing::error!(%error, "searching the database fails");
        Error::Unavailable
    })
}

/// What a look has found.
#[derive(Debug, Default)]
struct Found {
    /// Newest first.
    ids: Vec<MessageId>,
    /// Where to continue; `None` if there is nothing older.
    before: Option<MessageId>,
}

/// Finds messages. `None` if the user may not read the room in the query.
fn look(connection: &Connection, query: &SearchQuery, stop: &AtomicBool) -> rusqlite::Result<Option<Found>> {
    let transaction = connection.unchecked_transaction()?;
    let Some(readable) = readable(&transaction, query)? else { return Ok(None) };
    let mut found = Found::default();
    let author = match &query.from {
        Some(name) => match sql::find_user(&transaction, name)? {
            Some(user) => Some(user),
            None => return Ok(Some(found)),
        },
        None => None,
    };
    let started = Instant::now();
    let mut folded = String::new();
    found.before = sql::scan_back(&transaction, query.room, query.before, |id, room, user, text| {
        let may_be = readable.contains(&room) && author.is_none_or(|author| author == user);
        if may_be && contains(text, query, &mut folded) {
            found.ids.push(id);
        }
        let is_over =
            found.ids.len() >= query.limit as usize || started.elapsed() > SEARCH_TIME || stop.load(Ordering::Relaxed);
        Ok(!is_over)
    })?;
    Ok(Some(found))
}

/// Reads what was found as it is now, in a transaction of its own: the look took time, and a message that was deleted
/// or edited meanwhile, or whose room the user was removed from, must not be shown (promises 8 and 9).
fn show(connection: &Connection, query: &SearchQuery, ids: &[MessageId]) -> rusqlite::Result<Option<Vec<Message>>> {
    let transaction = connection.unchecked_transaction()?;
    let Some(readable) = readable(&transaction, query)? else { return Ok(None) };
    let mut reader = sql::MessageReader::new(&transaction, Some(query.user))?;
    let (mut messages, mut folded) = (Vec::with_capacity(ids.len()), String::new());
    for id in ids {
        let message = reader.message(*id)?;
        messages.extend(message.filter(|message| {
            readable.contains(&message.room) && contains(message.content.as_str(), query, &mut folded)
        }));
    }
    Ok(Some(messages))
}

/// The rooms that the user may read; `None` if the one in the query is not among them.
fn readable(connection: &Connection, query: &SearchQuery) -> rusqlite::Result<Option<HashSet<RoomId>>> {
    let readable: HashSet<RoomId> =
        sql::readable(connection, query.user)?.into_iter().map(|access| access.room).collect();
    Ok(query.room.is_none_or(|room| readable.contains(&room)).then_some(readable))
}

/// Whether the query's text is in `text`. `folded` is a buffer, reused between calls.
fn contains(text: &str, query: &SearchQuery, folded: &mut String) -> bool {
    folded.clear();
    folded.extend(text.chars().map(fold_char));
    folded.contains(&query.text)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::db::{Db, NewMessage, Options, RoomCommand, Sender, Threads, Write};
    use crate::limits::SEARCHES_AT_ONCE;
    use crate::model::Content;
    use crate::room::{RoomName, Topic};
    use crate::secret::Token;

    /// A database with ada and bob, who are in a private room.
    struct Two {
        db: Db,
        ada: Sender,
        bob: Sender,
        room: RoomId,
        reading: Connection,
        _threads: Threads,
        _directory: TempDir,
    }

    impl Two {
        async fn open() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("chinwag.db");
            let (db, threads) = Db::open(&path, Options::default(), Box::new(|_| {})).unwrap();
            let (ada, bob) = (register(&db, "ada").await, register(&db, "bob").await);
            let create = RoomCommand::Create {
                name: RoomName::parse("den").unwrap(),
                is_open: false,
                emoji: None,
                topic: Topic::default(),
                members: vec![bob.username.clone()],
                by_moderators: false,
            };
            let room = db.change_room(ada.session, ada.user, create).await.unwrap().room;
            let reading = sql::open_reader(&path).unwrap();
            Self { db, ada, bob, room, reading, _threads: threads, _directory: directory }
        }

        async fn write(&self, write: Write) -> MessageId {
            self.db.write(self.ada.clone(), vec![write]).await.unwrap()[0].unwrap().event
        }

        async fn say(&self, room: RoomId, content: &str) -> MessageId {
            let message = NewMessage { room, ..NewMessage::plain(Content::parse(content).unwrap(), None) };
            self.write(Write::Message(message)).await
        }

        async fn edit(&self, message: MessageId, content: &str) {
            let content = Content::parse(content).unwrap();
            self.write(Write::Edit { message, content, nonce: None }).await;
        }

        /// What bob looks for.
        fn query(&self, room: Option<RoomId>) -> SearchQuery {
            let (user, text) = (self.bob.user, "needle".to_owned());
            SearchQuery { user, text, room, from: None, before: MessageId::new(i64::MAX), limit: 20 }
        }

        fn look(&self, query: &SearchQuery) -> Vec<MessageId> {
            look(&self.reading, query, &AtomicBool::new(false)).unwrap().unwrap().ids
        }

        fn show(&self, query: &SearchQuery, ids: &[MessageId]) -> Option<Vec<String>> {
            let messages = show(&self.reading, query, ids).unwrap()?;
            Some(messages.iter().map(|message| message.content.as_str().to_owned()).collect())
        }
    }

    async fn register(db: &Db, name: &str) -> Sender {
        let username = Username::parse(name).unwrap();
        db.register_user(username.clone(), String::new(), None).await.unwrap();
        let user = db.credentials(username.clone()).await.unwrap().unwrap().user;
        let session = db.login_user(user, String::new(), Token::random().digest(), String::new()).await;
        Sender { session: session.unwrap().unwrap(), user, username, is_bot: false }
    }

    #[tokio::test]
    async fn what_is_deleted_or_replaced_while_it_is_looked_for_is_not_shown() {
        let two = Two::open().await;
        let mut ids = Vec::new();
        for content in ["a needle", "a needle to delete", "a needle to replace", "a needle to move"] {
            ids.push(two.say(two.room, content).await);
        }
        let query = two.query(None);
        let found = two.look(&query);
        assert_eq!(found, ids.iter().rev().copied().collect::<Vec<_>>());
        two.write(Write::Delete { message: ids[1], nonce: None }).await;
        two.edit(ids[2], "a pin").await;
        two.edit(ids[3], "a needle in the hay").await;
        assert_eq!(two.show(&query, &found), Some(vec!["a needle in the hay".to_owned(), "a needle".to_owned()]));
    }

    #[tokio::test]
    async fn what_is_in_a_room_that_one_is_removed_from_while_it_is_looked_for_is_not_shown() {
        let two = Two::open().await;
        two.say(RoomId::LOBBY, "a needle in the open").await;
        two.say(two.room, "a needle between us").await;
        let (everywhere, here) = (two.query(None), two.query(Some(two.room)));
        let found = [two.look(&everywhere), two.look(&here)];
        assert_eq!([found[0].len(), found[1].len()], [2, 1]);
        let remove = RoomCommand::RemoveMember { room: two.room, username: two.bob.username.clone() };
        two.db.change_room(two.ada.session, two.ada.user, remove).await.unwrap();
        assert_eq!(two.show(&everywhere, &found[0]), Some(vec!["a needle in the open".to_owned()]));
        assert_eq!(two.show(&here, &found[1]), None, "as if the room were not there");
    }

    #[tokio::test]
    async fn so_many_look_at_once_and_the_next_waits_for_its_turn_but_not_for_ever() {
        let two = Two::open().await;
        let id = two.say(two.room, "a needle").await;
        let places = u32::try_from(SEARCHES_AT_ONCE).unwrap();
        let others = two.db.shared.searches.acquire_many(places).await.unwrap();
        assert_eq!(two.db.search(two.query(None)).await.unwrap_err(), Error::Unavailable);
        drop(others);
        let found = two.db.search(two.query(None)).await.unwrap().unwrap();
        assert_eq!(found.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [id]);
    }

    #[tokio::test]
    async fn a_look_that_nobody_waits_for_ends_at_the_next_message() {
        let two = Two::open().await;
        let mut ids = Vec::new();
        for content in ["a needle", "hay", "more hay"] {
            ids.push(two.say(two.room, content).await);
        }
        let found = look(&two.reading, &two.query(None), &AtomicBool::new(true)).unwrap().unwrap();
        assert_eq!((found.ids.len(), found.before), (0, Some(ids[2])));
    }
}

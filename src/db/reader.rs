//! The reader thread: a connection that only reads, so that a page of history never delays a commit.
//!
//! Pages come last: a client that requests them over and over must not keep others from logging in, connecting or
//! catching up. Requests whose client has gone are skipped, so that sending requests and hanging up causes no work.

use std::collections::VecDeque;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::data::{
    Credentials, History, IdRange, ImageInfo, InviteRow, LoginRow, MessagesBy, PageQuery, Person, Session,
};
use super::memo::{Generation, Memo, PageKey, Recall};
#[cfg(any(feature = "push", feature = "cluster"))]
use super::push::PushRequest;
use super::reads::ReadPositions;
use super::shared::Shared;
use super::sql::{self, Backlog, BacklogQuery};
use crate::limits::{
    CHUNK_MAX_BYTES, CHUNK_MAX_MESSAGES, EXPORT_ROWS, FAULT_SAID_AGAIN, IMAGE_PIECE_BYTES, INVITES_LISTED_MAX,
    PAGE_HELD_BYTES, PAGES_WAITING, USERS_LISTED_MAX,
};
use crate::model::{Message, MessageId, Nonce, SessionId, UnixMillis, UserId, Username};
use crate::room::{ImageId, RoomId, RoomView};
use crate::secret::Digest;

/// A request to the thread. Dropping a reply says that the database is unavailable.
#[derive(Debug)]
pub(super) enum Request {
    Credentials {
        username: Username,
        reply: oneshot::Sender<Option<Credentials>>,
    },
    Session {
        digest: Digest,
        used_after: UnixMillis,
        reply: oneshot::Sender<Option<Session>>,
    },
    SessionLives {
        session: SessionId,
        used_after: UnixMillis,
        reply: oneshot::Sender<bool>,
    },
    /// The session and the page in one request: the way to this thread and back costs more than the page.
    History {
        digest: Digest,
        used_after: UnixMillis,
        room: RoomId,
        page: PageQuery,
        limit: u32,
        reply: oneshot::Sender<Option<History>>,
    },
    MessagesIn {
        user: UserId,
        room: RoomId,
        range: IdRange,
        reply: oneshot::Sender<Vec<Message>>,
    },
    Backlog {
        query: BacklogQuery,
        at_most: u32,
        reply: oneshot::Sender<Backlog>,
    },
    Rooms {
        user: UserId,
        reply: oneshot::Sender<Vec<RoomView>>,
    },
    Room {
        user: UserId,
        room: RoomId,
        reply: oneshot::Sender<Option<RoomView>>,
    },
    #[cfg(any(feature = "push", feature = "cluster"))]
    Push(PushRequest),
    Image {
        user: UserId,
        image: ImageId,
        reply: oneshot::Sender<Option<ImageInfo>>,
    },
    ImagePiece {
        user: UserId,
        image: ImageId,
        from: u32,
        reply: oneshot::Sender<Option<Vec<u8>>>,
    },
    SessionsOf {
        user: UserId,
        used_after: UnixMillis,
        reply: oneshot::Sender<Vec<LoginRow>>,
    },
    Invites {
        of: Option<UserId>,
        now: UnixMillis,
        reply: oneshot::Sender<Vec<InviteRow>>,
    },
    MessagesBy {
        user: UserId,
        after: MessageId,
        reply: oneshot::Sender<MessagesBy>,
    },
    Seen {
        user: UserId,
        nonces: Vec<Nonce>,
        reply: oneshot::Sender<Vec<Option<MessageId>>>,
    },
    People {
        prefix: String,
        reply: oneshot::Sender<Vec<Person>>,
    },
    HasUsers {
        reply: oneshot::Sender<bool>,
    },
    Erasures {
        reply: oneshot::Sender<Vec<UserId>>,
    },
    Check {
        reply: oneshot::Sender<()>,
    },
    Stop,
}

impl Request {
    /// Whether it can wait until there is nothing else to do.
    fn is_page(&self) -> bool {
        matches!(
            self,
            Self::History { .. }
                | Self::MessagesIn { .. }
                | Self::Rooms { .. }
                | Self::Room { .. }
                | Self::MessagesBy { .. }
                | Self::ImagePiece { .. }
                | Self::People { .. }
                | Self::Invites { .. }
        )
    }

    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Credentials { reply, .. } => reply.is_closed(),
            Self::Session { reply, .. } => reply.is_closed(),
            Self::SessionLives { reply, .. } => reply.is_closed(),
            Self::History { reply, .. } => reply.is_closed(),
            Self::MessagesIn { reply, .. } => reply.is_closed(),
            Self::Backlog { reply, .. } => reply.is_closed(),
            Self::Rooms { reply, .. } => reply.is_closed(),
            Self::Room { reply, .. } => reply.is_closed(),
            #[cfg(any(feature = "push", feature = "cluster"))]
            Self::Push(request) => request.is_abandoned(),
            Self::Image { reply, .. } => reply.is_closed(),
            Self::ImagePiece { reply, .. } => reply.is_closed(),
            Self::SessionsOf { reply, .. } => reply.is_closed(),
            Self::Invites { reply, .. } => reply.is_closed(),
            Self::MessagesBy { reply, .. } => reply.is_closed(),
            Self::Seen { reply, .. } => reply.is_closed(),
            Self::People { reply, .. } => reply.is_closed(),
            Self::HasUsers { reply } => reply.is_closed(),
            Self::Erasures { reply } => reply.is_closed(),
            Self::Check { reply } => reply.is_closed(),
            Self::Stop => false,
        }
    }
}

/// Answers requests, pages last, until told to stop or every handle is gone.
pub(super) fn run(connection: Connection, shared: &Shared, mut requests: mpsc::Receiver<Request>) {
    let mut said: Option<Instant> = None;
    let mut pages = VecDeque::new();
    let (reads, generation) = (&shared.reads, &shared.generation);
    let mut memo = Memo::of(generation.current());
    while let Some(request) = next(&mut requests, &mut pages) {
        if request.is_abandoned() {
            continue;
        }
        let connection = &connection;
        let read = match request {
            Request::Credentials { username, reply } => answer(reply, sql::credentials(connection, &username)),
            Request::Session { digest, used_after, reply } => {
                answer(reply, sql::session(connection, &digest, used_after))
            }
            Request::SessionLives { session, used_after, reply } => {
                answer(reply, sql::session_lives(connection, session, used_after))
            }
            Request::History { digest, used_after, room, page, limit, reply } => {
                answer(reply, history(connection, (&mut memo, generation), &digest, used_after, (room, page, limit)))
            }
            Request::MessagesIn { user, room, range, reply } => {
                answer(reply, messages_in(connection, user, room, range))
            }
            Request::Backlog { query, at_most, reply } => {
                answer(reply, backlog(connection, (&mut memo, generation), reads, &query, at_most))
            }
            Request::Rooms { user, reply } => answer(reply, rooms(connection, reads, user)),
            Request::Room { user, room: id, reply } => answer(reply, room(connection, reads, user, id)),
            #[cfg(any(feature = "push", feature = "cluster"))]
            Request::Push(request) => request.run(connection, reads),
            Request::Image { user, image, reply } => answer(reply, sql::readable_image(connection, user, image)),
            Request::ImagePiece { user, image, from, reply } => {
                answer(reply, sql::image_piece(connection, user, image, from, IMAGE_PIECE_BYTES))
            }
            Request::SessionsOf { user, used_after, reply } => {
                answer(reply, sql::sessions_of(connection, user, used_after))
            }
            Request::Invites { of, now, reply } => answer(reply, sql::invites(connection, of, now, INVITES_LISTED_MAX)),
            Request::MessagesBy { user, after, reply } => {
                answer(reply, sql::messages_by(connection, user, after, EXPORT_ROWS))
            }
            Request::Seen { user, nonces, reply } => answer(reply, sql::seen(connection, user, &nonces)),
            Request::People { prefix, reply } => answer(reply, sql::people(connection, &prefix, USERS_LISTED_MAX)),
            Request::HasUsers { reply } => answer(reply, sql::has_users(connection)),
            Request::Erasures { reply } => answer(reply, sql::erasures(connection)),
            Request::Check { reply } => answer(reply, sql::prove_readable(connection)),
            Request::Stop => break,
        };
        // A client that requests unreadable data over and over must not fill the log.
        if let Err(error) = read
            && said.is_none_or(|at| at.elapsed() > FAULT_SAID_AGAIN)
        {
            tracing::error!(%error, "reading from the database fails");
            said = Some(Instant::now());
        }
    }
    // Before the queue is closed, which tells others that the connection is closed.
    drop(connection);
}

/// The next request to answer: the oldest that is not a page, or else the oldest page. A page beyond [`PAGES_WAITING`]
/// is dropped, which says `unavailable`.
fn next(requests: &mut mpsc::Receiver<Request>, pages: &mut VecDeque<Request>) -> Option<Request> {
    loop {
        let request = match pages.front() {
            None => requests.blocking_recv()?,
            Some(_) => match requests.try_recv() {
                Ok(request) => request,
                Err(_) => return pages.pop_front(),
            },
        };
        if !request.is_page() {
            return Some(request);
        }
        if pages.len() >= PAGES_WAITING {
            pages.retain(|page| !page.is_abandoned());
        }
        if pages.len() < PAGES_WAITING {
            pages.push_back(request);
        }
    }
}

fn history(
    connection: &Connection,
    (memo, generation): (&mut Memo, &Generation),
    digest: &Digest,
    used_after: UnixMillis,
    key: PageKey,
) -> rusqlite::Result<Option<History>> {
    let before = generation.current();
    // One moment of the database: a user who may no longer read the room is shown nothing of it.
    let transaction = connection.unchecked_transaction()?;
    let Some(session) = sql::session(&transaction, digest, used_after)? else { return Ok(None) };
    let (user, (room, query, limit)) = (session.user, key);
    if sql::access(&transaction, user, room)?.is_none() {
        return Ok(Some(History { session, page: None }));
    }
    let read = || sql::page(&transaction, user, room, query, limit, PAGE_HELD_BYTES);
    let page = Some(Recall::new(memo, generation, before).page(key, read)?);
    Ok(Some(History { session, page }))
}

/// One moment of the database, and one lock of it instead of one for each of some ten statements a room.
fn rooms(connection: &Connection, reads: &ReadPositions, user: UserId) -> rusqlite::Result<Vec<RoomView>> {
    let transaction = connection.unchecked_transaction()?;
    sql::room_views(&transaction, reads, user)
}

fn room(
    connection: &Connection,
    reads: &ReadPositions,
    user: UserId,
    room: RoomId,
) -> rusqlite::Result<Option<RoomView>> {
    let transaction = connection.unchecked_transaction()?;
    let mut messages = sql::MessageReader::new(&transaction, Some(user))?;
    sql::room_view(&transaction, reads, &mut messages, user, room)
}

fn messages_in(connection: &Connection, user: UserId, room: RoomId, range: IdRange) -> rusqlite::Result<Vec<Message>> {
    let transaction = connection.unchecked_transaction()?;
    if sql::access(&transaction, user, room)?.is_none() {
        return Ok(Vec::new());
    }
    sql::messages_in(&transaction, user, room, range, CHUNK_MAX_MESSAGES, CHUNK_MAX_BYTES)
}

fn backlog(
    connection: &Connection,
    (memo, generation): (&mut Memo, &Generation),
    reads: &ReadPositions,
    query: &BacklogQuery,
    at_most: u32,
) -> rusqlite::Result<Backlog> {
    let before = generation.current();
    let transaction = connection.unchecked_transaction()?;
    let last_id = sql::last_id(&transaction)?;
    let mut recall = Recall::new(memo, generation, before);
    sql::backlog(&transaction, reads, &mut recall, query, last_id, at_most, (CHUNK_MAX_MESSAGES, CHUNK_MAX_BYTES))
}

pub(super) fn answer<T>(reply: oneshot::Sender<T>, result: rusqlite::Result<T>) -> rusqlite::Result<()> {
    // Fails if nobody waits any more.
    result.map(|value| drop(reply.send(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(first: i64) -> (Request, oneshot::Receiver<Vec<Message>>) {
        let (reply, answer) = oneshot::channel();
        let range = IdRange { first: MessageId::new(first), last: MessageId::new(first) };
        (Request::MessagesIn { user: UserId(1), room: RoomId::LOBBY, range, reply }, answer)
    }

    /// The first message of the page that is next.
    fn next_page(requests: &mut mpsc::Receiver<Request>, pages: &mut VecDeque<Request>) -> Option<i64> {
        match next(requests, pages) {
            Some(Request::MessagesIn { range, .. }) => Some(range.first.get()),
            _ => None,
        }
    }

    #[test]
    fn pages_are_read_in_order_when_nothing_else_waits() {
        let (sender, mut requests) = mpsc::channel(10);
        let mut pages = VecDeque::new();
        let (reply, _answer) = oneshot::channel();
        let (first, _first) = page(1);
        let (second, _second) = page(2);
        for request in [first, second, Request::Check { reply }] {
            sender.try_send(request).unwrap();
        }
        assert!(matches!(next(&mut requests, &mut pages), Some(Request::Check { .. })));
        assert_eq!(next_page(&mut requests, &mut pages), Some(1));
        assert_eq!(next_page(&mut requests, &mut pages), Some(2));
        drop(sender);
        assert!(next(&mut requests, &mut pages).is_none());
    }

    #[test]
    fn one_page_more_than_may_wait_is_refused() {
        let (sender, mut requests) = mpsc::channel(PAGES_WAITING + 1);
        let (asked, mut waiting): (Vec<_>, Vec<_>) = (0..=PAGES_WAITING).map(|_| page(1)).unzip();
        for request in asked {
            sender.try_send(request).unwrap();
        }
        assert_eq!(next_page(&mut requests, &mut VecDeque::new()), Some(1));
        assert!(waiting.pop().unwrap().blocking_recv().is_err());
    }

    #[test]
    fn pages_that_nobody_waits_for_any_more_take_nobodys_place() {
        let (sender, mut requests) = mpsc::channel(1);
        let mut pages = (0..PAGES_WAITING).map(|_| page(1).0).collect();
        let (wanted, _answer) = page(2);
        sender.try_send(wanted).unwrap();
        assert_eq!(next_page(&mut requests, &mut pages), Some(2));
    }
}

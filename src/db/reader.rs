//! The reader thread: a connection that only reads, so that a page of history never delays a commit.

use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Credentials, Found, Missed, Page, Run, Session, sql};
use crate::config::{CHUNK_MAX_BYTES, CHUNK_MAX_MESSAGES, FAULT_SAID_AGAIN, PAGE_HELD_BYTES};
use crate::model::{Digest, Message, MessageId, SessionId, UnixMillis, Username};

/// All that the thread can do. A reply that is dropped says that it could not.
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
    /// One request and not two, with the session's: the way to this thread and back costs more than the page.
    History {
        digest: Digest,
        used_after: UnixMillis,
        page: Page,
        limit: u32,
        reply: oneshot::Sender<Option<History>>,
    },
    MessagesIn {
        run: Run,
        reply: oneshot::Sender<Vec<Message>>,
    },
    MessagesAfter {
        id: MessageId,
        at_most: u32,
        reply: oneshot::Sender<Missed>,
    },
    Stop,
}

/// A page of history, and the session it was asked for in.
#[derive(Debug)]
pub(super) struct History {
    pub(super) session: Session,
    pub(super) found: Found,
    pub(super) has_more: bool,
}

/// Answers requests in order, until told to stop or every handle is gone.
pub(super) fn run(connection: Connection, mut requests: mpsc::Receiver<Request>) {
    let mut said: Option<Instant> = None;
    while let Some(request) = requests.blocking_recv() {
        let connection = &connection;
        let read = match request {
            Request::Credentials { username, reply } => answer(reply, sql::credentials(connection, &username)),
            Request::Session { digest, used_after, reply } => {
                answer(reply, sql::session(connection, &digest, used_after))
            }
            Request::SessionLives { session, used_after, reply } => {
                answer(reply, sql::session_lives(connection, session, used_after))
            }
            Request::History { digest, used_after, page, limit, reply } => {
                answer(reply, history(connection, &digest, used_after, page, limit))
            }
            Request::MessagesIn { run, reply } => {
                answer(reply, sql::messages_in(connection, run, CHUNK_MAX_MESSAGES, CHUNK_MAX_BYTES))
            }
            Request::MessagesAfter { id, at_most, reply } => answer(reply, missed(connection, id, at_most)),
            Request::Stop => break,
        };
        // Who asks for what cannot be read, again and again, must not fill the log too.
        if let Err(error) = read
            && said.is_none_or(|at| at.elapsed() > FAULT_SAID_AGAIN)
        {
            tracing::error!(%error, "reading from the database fails");
            said = Some(Instant::now());
        }
    }
    // Before the queue, whose end says that the connection is closed.
    drop(connection);
}

fn history(
    connection: &Connection,
    digest: &Digest,
    used_after: UnixMillis,
    page: Page,
    limit: u32,
) -> rusqlite::Result<Option<History>> {
    let Some(session) = sql::session(connection, digest, used_after)? else { return Ok(None) };
    let (found, has_more) = sql::page(connection, page, limit, PAGE_HELD_BYTES)?;
    Ok(Some(History { session, found, has_more }))
}

fn missed(connection: &Connection, id: MessageId, at_most: u32) -> rusqlite::Result<Missed> {
    if sql::has_more_after(connection, id, at_most)? {
        return Ok(Missed::TooMany);
    }
    sql::messages_after(connection, id, CHUNK_MAX_MESSAGES, CHUNK_MAX_BYTES).map(Missed::Messages)
}

fn answer<T>(reply: oneshot::Sender<T>, result: rusqlite::Result<T>) -> rusqlite::Result<()> {
    // Who asked may have gone.
    result.map(|value| drop(reply.send(value)))
}

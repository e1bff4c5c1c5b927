//! The reader thread: a connection that only reads, so that a page of history never delays a commit.
//!
//! Pages come last: whoever asks for them over and over must not keep others from logging in, connecting, or being
//! caught up. And what nobody waits for any more is not read: hanging up must not be cheaper than what it costs.

use std::collections::VecDeque;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Credentials, Found, Missed, Page, Run, Session, sql};
use crate::config::{CHUNK_MAX_BYTES, CHUNK_MAX_MESSAGES, FAULT_SAID_AGAIN, PAGE_HELD_BYTES, PAGES_WAITING};
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
    Check {
        reply: oneshot::Sender<()>,
    },
    Stop,
}

impl Request {
    /// Whether it can wait until nothing else does.
    fn is_page(&self) -> bool {
        matches!(self, Self::History { .. } | Self::MessagesIn { .. })
    }

    /// Whether who asked has gone.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Credentials { reply, .. } => reply.is_closed(),
            Self::Session { reply, .. } => reply.is_closed(),
            Self::SessionLives { reply, .. } => reply.is_closed(),
            Self::History { reply, .. } => reply.is_closed(),
            Self::MessagesIn { reply, .. } => reply.is_closed(),
            Self::MessagesAfter { reply, .. } => reply.is_closed(),
            Self::Check { reply } => reply.is_closed(),
            Self::Stop => false,
        }
    }
}

/// A page of history, and the session it was asked for in.
#[derive(Debug)]
pub(super) struct History {
    pub(super) session: Session,
    pub(super) found: Found,
    pub(super) has_more: bool,
}

/// Answers requests, pages last, until told to stop or every handle is gone.
pub(super) fn run(connection: Connection, mut requests: mpsc::Receiver<Request>) {
    let mut said: Option<Instant> = None;
    let mut pages = VecDeque::new();
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
            Request::History { digest, used_after, page, limit, reply } => {
                answer(reply, history(connection, &digest, used_after, page, limit))
            }
            Request::MessagesIn { run, reply } => {
                answer(reply, sql::messages_in(connection, run, CHUNK_MAX_MESSAGES, CHUNK_MAX_BYTES))
            }
            Request::MessagesAfter { id, at_most, reply } => answer(reply, missed(connection, id, at_most)),
            Request::Check { reply } => answer(reply, sql::prove_readable(connection)),
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

/// What to do next: the oldest request that is no page, or the oldest page that waits. A page past [`PAGES_WAITING`] is
/// dropped, which says `unavailable`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(first: i64) -> (Request, oneshot::Receiver<Vec<Message>>) {
        let (reply, answer) = oneshot::channel();
        let run = Run { first: MessageId::new(first), last: MessageId::new(first) };
        (Request::MessagesIn { run, reply }, answer)
    }

    /// The first message of the page that is next.
    fn next_page(requests: &mut mpsc::Receiver<Request>, pages: &mut VecDeque<Request>) -> Option<i64> {
        match next(requests, pages) {
            Some(Request::MessagesIn { run, .. }) => Some(run.first.get()),
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

//! The routes of messages: pages of a room's history, and what a member writes without a WebSocket.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, StatusCode};

use super::body::{BodyKind, read_body, utf8};
use super::error::ApiError;
use super::response::{Body, Response, as_json, body, json};
use super::rest::bearer;
use super::session::{number, sender, session_of};
use crate::app::{App, WriteHeld};
use crate::db::{self, History, IdRange, Page, PageQuery, Session, Write, WriteOutcome};
use crate::limits::{FRAME_MAX_BYTES, PAGE_DEFAULT_MESSAGES, PAGE_MAX_MESSAGES};
use crate::model::{Content, MessageId, Nonce, UserId};
use crate::protocol::{self, Attachments, EditBody, HistoryBody, MessageBody};
use crate::room::RoomId;

/// A request for a page of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRequest {
    pub(crate) room: RoomId,
    pub(crate) page: PageQuery,
    pub(crate) limit: u32,
}

/// `GET /messages`: a page of history.
pub(crate) async fn message_history(
    app: &Arc<App>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let digest = bearer(headers)?;
    let PageRequest { room, page, limit } = match parse_page(query.unwrap_or_default()) {
        Ok(request) => request,
        // Only those who may make the request are told what is wrong with it.
        Err(error) => return session_of(app, headers).await.and(Err(error)),
    };
    let found = app.db.message_history(digest, room, page, limit).await?;
    let History { session, page } = found.ok_or(ApiError::Unauthorized)?;
    let found = page.ok_or(ApiError::NotFound)?;
    let mut history = HistoryBody::new(found.has_more, found.has_newer);
    Ok(match &found.page {
        Page::Messages(messages) => {
            let encode = || {
                let mut body = Vec::new();
                history.push(messages, &mut body);
                history.end(&mut body);
                body.shrink_to_fit();
                body.into()
            };
            as_json(body(StatusCode::OK, found.encoded.get_or_init(encode).clone()))
        }
        Page::Range(range) => {
            let (sender, pieces) = Channel::new(1);
            tokio::spawn(send_range(Arc::clone(app), (session.user, room), *range, history, sender));
            as_json(Response::new(Body::Right(pieces)))
        }
    })
}

/// Sends a long page at the client's pace, one piece in memory at a time: the texts of 200 messages can take three
/// megabytes, and a client that does not read must not make the server hold them.
async fn send_range(
    app: Arc<App>,
    (reader, room): (UserId, RoomId),
    mut range: IdRange,
    mut history: HistoryBody,
    mut sender: Sender<Bytes, db::Error>,
) {
    loop {
        let mut piece = Vec::new();
        match app.db.messages_in(reader, room, range).await {
            Ok(messages) => {
                history.push(&messages, &mut piece);
                let Some(last) = messages.last().map(|message| message.id) else { break };
                range.first = last.next();
            }
            // The answer has begun: the only way to report the error is to cut it short.
            Err(error) => return sender.abort(error),
        }
        // Fails when the client has gone.
        if sender.send_data(piece.into()).await.is_err() {
            return;
        }
    }
    let mut piece = Vec::new();
    history.end(&mut piece);
    // Fails when the client has gone.
    drop(sender.send_data(piece.into()).await);
}

/// Reads the query of `GET /messages`. Unknown parameters are ignored.
pub(crate) fn parse_page(query: &str) -> Result<PageRequest, ApiError> {
    let id = |name| Ok::<_, ApiError>(number(query, name)?.map(MessageId::new));
    let Ok(limit @ 1..=PAGE_MAX_MESSAGES) = number(query, "limit")?.map_or(Ok(PAGE_DEFAULT_MESSAGES), u32::try_from)
    else {
        return Err(ApiError::InvalidRequest("limit must be a number from 1 to 200"));
    };
    let room = number(query, "room")?.map_or(RoomId::LOBBY, RoomId);
    let page = match (id("before")?, id("after")?, id("around")?) {
        (None, None, None) => PageQuery::Newest,
        (Some(id), None, None) => PageQuery::Before(id),
        (None, Some(id), None) => PageQuery::After(id),
        (None, None, Some(id)) => PageQuery::Around(id),
        _ => return Err(ApiError::InvalidRequest("use only one of before, after and around")),
    };
    Ok(PageRequest { room, page, limit })
}

/// `POST /messages`: a message, as JSON or as its bare text.
pub(crate) async fn send_message(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    let session = session_of(app, request.headers()).await?;
    let header = idempotency_key(request.headers())?;
    let room = number(request.uri().query().unwrap_or_default(), "room")?;
    let (kind, body) = read_body(request, FRAME_MAX_BYTES).await?;
    let (content, mut attached, nonce) = match kind {
        BodyKind::Json => {
            let MessageBody { content, attached, nonce } =
                protocol::parse_body(&utf8(body)?).ok_or(ApiError::InvalidBody(MESSAGE_FORM))?;
            (content, attached, parse_nonce(nonce)?)
        }
        BodyKind::Text => {
            let text = String::from_utf8(body).map_err(|_| ApiError::InvalidRequest("the text is not UTF-8"))?;
            (text, Attachments::default(), None)
        }
    };
    attached.room = one_of(attached.room, room, "the room in the query and the one in the body differ")?;
    let nonce = one_of(nonce, header, NONCES_DIFFER)?;
    let id = match attached.to_message(&content, nonce) {
        Ok(message) => write(app, session, Write::Message(message)).await?,
        Err((error, nonce)) => seen_or(app, session.user, nonce, ApiError::InvalidMessage(error)).await?,
    };
    Ok(json(StatusCode::CREATED, protocol::event_body(id)))
}

const MESSAGE_FORM: &str = "the body must be a JSON object with the string \"content\", and \"room\", \"reply_to\", \
     \"image\", \"alt\" and \"nonce\" if any";
const NONCES_DIFFER: &str = "the nonce in the body and the Idempotency-Key differ";

/// `PATCH /messages/ID`: replaces the text of one's own message.
pub(crate) async fn edit_message(
    app: &Arc<App>,
    request: Request<Incoming>,
    message: MessageId,
) -> Result<Response, ApiError> {
    let session = session_of(app, request.headers()).await?;
    let header = idempotency_key(request.headers())?;
    let (BodyKind::Json, body) = read_body(request, FRAME_MAX_BYTES).await? else {
        return Err(ApiError::UnsupportedMediaType);
    };
    let EditBody { content, nonce } = protocol::parse_body(&utf8(body)?).ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with the string \"content\", and \"nonce\" if any",
    ))?;
    let nonce = one_of(parse_nonce(nonce)?, header, NONCES_DIFFER)?;
    let id = match Content::parse(&content) {
        Ok(content) => write(app, session, Write::Edit { message, content, nonce }).await?,
        Err(error) => seen_or(app, session.user, nonce, ApiError::InvalidMessage(error.to_string().into())).await?,
    };
    Ok(json(StatusCode::OK, protocol::event_body(id)))
}

/// `DELETE /messages/ID`: deletes a message.
pub(crate) async fn delete_message(
    app: &Arc<App>,
    headers: &HeaderMap,
    message: MessageId,
) -> Result<Response, ApiError> {
    let session = session_of(app, headers).await?;
    let nonce = idempotency_key(headers)?;
    let id = write(app, session, Write::Delete { message, nonce }).await?;
    Ok(json(StatusCode::OK, protocol::event_body(id)))
}

/// Stores one write, if its user is not too fast. A repeat of a stored one, by its nonce, costs nothing.
async fn write(app: &App, session: Session, write: Write) -> Result<MessageId, ApiError> {
    let (user, now, nonce, bytes) = (session.user, Instant::now(), write.nonce().cloned(), write.text_bytes());
    if let Err(held) = app.may_write(user, &write, now) {
        let error = match held {
            WriteHeld::TooFast(wait) => ApiError::RateLimited(wait),
            WriteHeld::NoSpace => ApiError::NoSpace,
        };
        return seen_or(app, user, nonce, error).await;
    }
    let written = app.db.write(sender(session), vec![write]).await?;
    let WriteOutcome { event, is_repeat } = written.into_iter().next().ok_or(ApiError::Unavailable)??;
    app.forgive_repeats(user, is_repeat.then_some(bytes).into_iter(), now);
    Ok(event)
}

/// The event stored before under this nonce, whatever comes with it now; else the error.
async fn seen_or(app: &App, user: UserId, nonce: Option<Nonce>, error: ApiError) -> Result<MessageId, ApiError> {
    let seen = match nonce {
        Some(nonce) => app.db.seen(user, vec![nonce]).await?.into_iter().next().flatten(),
        None => None,
    };
    seen.ok_or(error)
}

/// The nonce in a request's header.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<Nonce>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let nonce = value.to_str().ok().and_then(Nonce::parse).filter(|_| values.next().is_none());
    nonce
        .map(Some)
        .ok_or(ApiError::InvalidRequest("Idempotency-Key must have 1 to 64 ASCII characters and appear once"))
}

fn parse_nonce(nonce: Option<String>) -> Result<Option<Nonce>, ApiError> {
    let parsed = nonce.map(|nonce| Nonce::parse(&nonce));
    parsed.map(|nonce| nonce.ok_or(ApiError::InvalidMessage("nonce must have 1 to 64 characters".into()))).transpose()
}

/// A value that is given in one of two places, or in both alike.
fn one_of<T: PartialEq>(one: Option<T>, other: Option<T>, differ: &'static str) -> Result<Option<T>, ApiError> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Err(ApiError::InvalidRequest(differ)),
        (one, other) => Ok(one.or(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_newest_or_before_after_or_around_a_message_of_a_room() {
        let page = |query| parse_page(query).ok().map(|request| (request.room.0, request.page, request.limit));
        let id = |id| MessageId::new(id);
        assert_eq!(page(""), Some((1, PageQuery::Newest, 50)));
        assert_eq!(page("limit=200&x=1&room=7"), Some((7, PageQuery::Newest, 200)));
        assert_eq!(page("before=7&limit=1"), Some((1, PageQuery::Before(id(7)), 1)));
        assert_eq!(page("after=0"), Some((1, PageQuery::After(id(0)), 50)));
        assert_eq!(page("around=9"), Some((1, PageQuery::Around(id(9)), 50)));
        let bad = [
            "limit=0",
            "limit=201",
            "limit=-1",
            "limit=+1",
            "limit=",
            "limit=1&limit=1",
            "room=",
            "room=x",
            "before=x",
            "after=1e3",
            "before=1&after=1",
            "after=1&around=1",
            "before=9223372036854775808",
            "limit=%31",
        ];
        for query in bad {
            assert_eq!(page(query), None, "{query}");
        }
    }
}

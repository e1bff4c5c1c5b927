//! The REST routes: register, login, logout, history, health.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, Request, StatusCode};

use super::{App, Peer};
use crate::config::{
    BODY_MAX_BYTES, BODY_TIMEOUT, PAGE_DEFAULT_MESSAGES, PAGE_MAX_MESSAGES, Registration, SESSION_LIFETIME,
};
use crate::db::{self, Found, Page, Run};
use crate::error::ApiError;
use crate::model::{Digest, InviteCode, MessageId, Token, UnixMillis, Username};
use crate::protocol::{self, Credentials, History, Invite};
use crate::rate_limit::address_key;
use crate::response::{Body, Response, as_json, empty, json};

/// `POST /register`: creates an account.
pub(crate) async fn register(app: &Arc<App>, peer: &Peer, request: Request<Incoming>) -> Result<Response, ApiError> {
    if app.config.registration == Registration::Closed {
        return Err(ApiError::RegistrationClosed);
    }
    let body = read_json(request).await?;
    let credentials = Credentials::parse(&body).ok_or(ApiError::InvalidJson)?;
    let invite = Invite::parse(&body).ok_or(ApiError::InvalidJson)?;
    let invite = match (app.config.registration, &invite.code) {
        // Where everybody may register, an invitation is neither needed nor used up.
        (Registration::Open, _) => None,
        (_, None) => return Err(ApiError::InviteNeeded),
        (_, Some(code)) => Some(InviteCode::parse(code).ok_or(ApiError::InvalidInvite)?.digest()),
    };
    let username = Username::parse(&credentials.username).ok_or(ApiError::InvalidUsername)?;
    let password = credentials.new_password().ok_or(ApiError::InvalidPassword)?;
    app.auth_rate.take(address_key(peer.address), Instant::now()).map_err(ApiError::RateLimited)?;
    let hash = app.hasher.hash(password).await?;
    app.db.register_user(username.clone(), hash, invite).await?;
    tracing::info!(user = %username, "registered");
    Ok(json(StatusCode::CREATED, protocol::registered_body(&username)))
}

/// `POST /login`: exchanges a name and a password for a token. A wrong name takes as long as a wrong password, and
/// gets the same answer.
pub(crate) async fn login(app: &Arc<App>, peer: &Peer, request: Request<Incoming>) -> Result<Response, ApiError> {
    let body = read_json(request).await?;
    let credentials = Credentials::parse(&body).ok_or(ApiError::InvalidJson)?;
    app.auth_rate.take(address_key(peer.address), Instant::now()).map_err(ApiError::RateLimited)?;
    let known = match Username::parse(&credentials.username) {
        Some(username) => app.db.credentials(username).await?,
        None => None,
    };
    let stored = known.as_ref().map(|known| known.password_hash.clone());
    let verified = app.hasher.verify(credentials.claimed_password(), stored).await?;
    let known = known.filter(|_| verified).ok_or(ApiError::InvalidCredentials)?;
    let (token, username) = (Token::random(), known.username);
    let session = app.db.login_user(known.user, known.password_hash, token.digest()).await?;
    session.ok_or(ApiError::InvalidCredentials)?;
    let lifetime = i64::try_from(SESSION_LIFETIME.as_millis()).expect("a month is a small number of milliseconds");
    tracing::info!(user = %username, "logged in");
    Ok(json(StatusCode::OK, protocol::login_body(&token, &username, UnixMillis::now().plus(lifetime))))
}

/// `POST /logout`: ends the session, and its sockets.
pub(crate) async fn logout(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let ended = app.db.end_session(bearer(headers)?).await?;
    if ended { Ok(empty(StatusCode::NO_CONTENT)) } else { Err(ApiError::Unauthorized) }
}

/// `GET /messages`: a page of history.
pub(crate) async fn message_history(
    app: &Arc<App>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let digest = bearer(headers)?;
    let (page, limit) = match parse_page(query.unwrap_or_default()) {
        Ok(asked) => asked,
        // What is wrong with the request is told to those who may make it.
        Err(error) => {
            let session = app.db.validate_session(digest).await?;
            return Err(session.map_or(ApiError::Unauthorized, |_| error));
        }
    };
    let (found, has_more) = app.db.message_history(digest, page, limit).await?.ok_or(ApiError::Unauthorized)?;
    Ok(match found {
        Found::Messages(messages) => {
            let (mut history, mut body) = (History::new(has_more), Vec::new());
            history.push(&messages, &mut body);
            history.end(&mut body);
            json(StatusCode::OK, body)
        }
        Found::Run(run) => {
            let (sender, pieces) = Channel::new(1);
            tokio::spawn(send_run(Arc::clone(app), run, has_more, sender));
            as_json(Response::new(Body::Right(pieces)))
        }
    })
}

/// Sends a long page as fast as the client takes it, a piece in memory at a time: the texts of 200 messages may be
/// three megabytes, and a client that does not read them must not have the server hold them.
async fn send_run(app: Arc<App>, mut run: Run, has_more: bool, mut sender: Sender<Bytes, db::Error>) {
    let mut history = History::new(has_more);
    loop {
        let mut piece = Vec::new();
        match app.db.messages_in(run).await {
            Ok(messages) => {
                history.push(&messages, &mut piece);
                let Some(last) = messages.last().map(|message| message.id) else { break };
                run.first = last.next();
            }
            // The answer has begun: that it is cut short is all that can still be said.
            Err(error) => return sender.abort(error),
        }
        // Fails when the client has gone.
        if sender.send_data(piece.into()).await.is_err() {
            return;
        }
    }
    let mut piece = Vec::new();
    history.end(&mut piece);
    // As above.
    drop(sender.send_data(piece.into()).await);
}

/// `GET /healthz`: whether the server can read and store.
pub(crate) async fn healthz(app: &Arc<App>) -> Result<Response, ApiError> {
    if app.is_stopping() {
        return Err(ApiError::Unavailable);
    }
    app.db.check().await?;
    Ok(json(StatusCode::OK, br#"{"status":"ok"}"#.to_vec()))
}

/// The digest of the request's bearer token (RFC 6750 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Digest, ApiError> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(ApiError::Unauthorized)?;
    let (scheme, token) = value.split_once(' ').ok_or(ApiError::Unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::Unauthorized);
    }
    Token::parse(token.trim()).map(|token| token.digest()).ok_or(ApiError::Unauthorized)
}

/// Reads a JSON body, up to its limit and its deadline. A length that is declared over the limit is refused before a
/// byte of the body is read.
async fn read_json(request: Request<Incoming>) -> Result<Vec<u8>, ApiError> {
    if !is_json(request.headers()) {
        return Err(ApiError::UnsupportedMediaType);
    }
    let body = request.into_body();
    if body.size_hint().lower() > BODY_MAX_BYTES as u64 {
        return Err(ApiError::PayloadTooLarge);
    }
    tokio::time::timeout(BODY_TIMEOUT, collect(body)).await.unwrap_or(Err(ApiError::RequestTimeout))
}

/// Reads a body into one buffer: kept as they came, chunks of a byte would take thirty times their length.
async fn collect(mut body: Incoming) -> Result<Vec<u8>, ApiError> {
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::InvalidJson)?;
        let Some(data) = frame.data_ref() else { continue };
        if collected.len() + data.len() > BODY_MAX_BYTES {
            return Err(ApiError::PayloadTooLarge);
        }
        collected.extend_from_slice(data);
    }
    Ok(collected)
}

/// Whether the body is declared as JSON. JSON is UTF-8, and parameters mean nothing to it (RFC 8259 11): a body in
/// another charset is no JSON that can be read.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let media_type = value.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// Reads the query of `GET /messages`. Unknown parameters are ignored.
pub(crate) fn parse_page(query: &str) -> Result<(Page, u32), ApiError> {
    let (mut limit, mut before, mut after) = (None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match name {
            "limit" => &mut limit,
            "before" => &mut before,
            "after" => &mut after,
            _ => continue,
        };
        if slot.is_some() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ApiError::InvalidRequest(
                "limit, before and after are numbers in decimal digits, each given once at most",
            ));
        }
        let number: i64 =
            value.parse().map_err(|_| ApiError::InvalidRequest("limit, before and after are numbers below 2^63"))?;
        *slot = Some(number);
    }
    let Ok(limit @ 1..=PAGE_MAX_MESSAGES) = limit.map_or(Ok(PAGE_DEFAULT_MESSAGES), u32::try_from) else {
        return Err(ApiError::InvalidRequest("limit is a number from 1 to 200"));
    };
    match (before.map(MessageId::new), after.map(MessageId::new)) {
        (None, None) => Ok((Page::Newest, limit)),
        (Some(id), None) => Ok((Page::Before(id), limit)),
        (None, Some(id)) => Ok((Page::After(id), limit)),
        (Some(_), Some(_)) => Err(ApiError::InvalidRequest("a page is before or after a message, not both")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_newest_or_before_or_after_a_message() {
        let page = |query| parse_page(query).ok();
        let id = |id| MessageId::new(id);
        assert_eq!(page(""), Some((Page::Newest, 50)));
        assert_eq!(page("limit=200&x=1"), Some((Page::Newest, 200)));
        assert_eq!(page("before=7&limit=1"), Some((Page::Before(id(7)), 1)));
        assert_eq!(page("after=0"), Some((Page::After(id(0)), 50)));
        let bad = [
            "limit=0",
            "limit=201",
            "limit=-1",
            "limit=+1",
            "limit=",
            "limit=1&limit=1",
            "before=x",
            "after=1e3",
            "before=1&after=1",
            "before=9223372036854775808",
            "limit=%31",
        ];
        for query in bad {
            assert_eq!(page(query), None, "{query}");
        }
    }

    #[test]
    fn a_json_body_is_declared_as_such() {
        let is = |value: &str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        assert!(is("application/json") && is("Application/JSON; charset=UTF-8") && is("application/json;x=y"));
        assert!(!is("text/plain") && !is("application/jsonx") && !is("; application/json"));
        assert!(!is_json(&HeaderMap::new()));
    }
}

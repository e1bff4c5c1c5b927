//! The routes about one's own account, and a moderator's about those of others.
//!
//! A route that requires the password verifies it off the database's threads, and hands the writer the hash that it
//! verified against: the writer does nothing if the user has another by then.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Request, StatusCode};

use super::body::read_json;
use super::error::ApiError;
use super::response::{Body, Response, empty, json};
use super::session::session_of;
use crate::app::App;
use crate::config::Whose;
use crate::db::{self, AccountCommand, AccountError, AccountOutcome, AdminCommand, AdminError, Session};
use crate::limits::{ERASE_RETRY, INVITE_LIFETIME, INVITE_LIFETIME_MAX, INVITE_USES_MAX, USER_INVITES_MAX};
use crate::model::{MessageId, SessionId, UnixMillis, UserId, Username};
use crate::net::Peer;
use crate::protocol::{self, BanBody, DeleteAccountBody, NewInviteBody, PasswordBody};
use crate::secret::{InviteCode, Password};

/// The live session of a request; of a person, since bots have none of these routes.
pub(super) async fn person(app: &App, headers: &HeaderMap) -> Result<Session, ApiError> {
    let session = session_of(app, headers).await?;
    if session.is_bot { Err(ApiError::Forbidden) } else { Ok(session) }
}

/// The hash that a person's password was verified against. Guesses are limited by address and by user.
async fn verified(app: &App, peer: &Peer, session: &Session, claimed: Password) -> Result<String, ApiError> {
    let now = Instant::now();
    app.rates.auth.log_in(peer.address, Some(&session.username)).await.map_err(ApiError::RateLimited)?;
    app.rates.passwords.take(session.user, now).map_err(ApiError::RateLimited)?;
    let known = app.db.credentials(session.username.clone()).await?.ok_or(ApiError::Unauthorized)?;
    let hash = known.password_hash.clone();
    let matches = app.hasher.verify(claimed, Some(known.password_hash)).await?;
    if matches { Ok(hash) } else { Err(ApiError::InvalidCredentials) }
}

/// The live session of a person who changes something of an account, which counts as something written.
async fn writer(app: &App, headers: &HeaderMap) -> Result<Session, ApiError> {
    let session = person(app, headers).await?;
    app.rates.writes.take(session.user, Instant::now()).map_err(ApiError::RateLimited)?;
    Ok(session)
}

async fn change(app: &App, session: &Session, command: AccountCommand) -> Result<AccountOutcome, ApiError> {
    Ok(app.db.change_account(session.id, session.user, command).await?)
}

/// `POST /password`: another password; every other session ends.
pub(crate) async fn set_password(
    app: &Arc<App>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let session = person(app, request.headers()).await?;
    let body = read_json(request).await?;
    let body: PasswordBody = protocol::parse_body(&body).ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with the strings \"password\" and \"new_password\"",
    ))?;
    let (claimed, new) = body.passwords();
    let new = new.ok_or(ApiError::InvalidPassword)?;
    let verified = verified(app, peer, &session, claimed).await?;
    let password_hash = app.hasher.hash(new).await?;
    change(app, &session, AccountCommand::SetPassword { verified, password_hash }).await?;
    tracing::info!(user = %session.username, "changed the password");
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `GET /sessions`: where one is logged in.
pub(crate) async fn sessions(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let session = person(app, headers).await?;
    let sessions = app.db.sessions_of(session.user).await?;
    Ok(json(StatusCode::OK, protocol::sessions_body(&sessions, session.id)))
}

/// `DELETE /sessions/ID`: ends one of them.
pub(crate) async fn end_session(app: &Arc<App>, headers: &HeaderMap, ended: SessionId) -> Result<Response, ApiError> {
    let session = writer(app, headers).await?;
    change(app, &session, AccountCommand::EndSession { ended }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `DELETE /sessions`: ends all but this one.
pub(crate) async fn end_other_sessions(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let session = writer(app, headers).await?;
    change(app, &session, AccountCommand::EndOtherSessions).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `DELETE /account`: deletes one's own account, and one's messages on request.
pub(crate) async fn delete_account(
    app: &Arc<App>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let session = person(app, request.headers()).await?;
    let body = read_json(request).await?;
    let body: DeleteAccountBody = protocol::parse_body(&body).ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with the string \"password\", and the boolean \"messages\" if any",
    ))?;
    let messages = body.messages;
    let verified = verified(app, peer, &session, body.claimed_password()).await?;
    let command = AccountCommand::Delete { verified, messages };
    let app = Arc::clone(app);
    to_the_end(async move {
        change(&app, &session, command).await?;
        tracing::info!(user = %session.username, messages, "deleted their account");
        if messages { erase(&app, Username::deleted(session.user), None).await } else { Ok(()) }
    })
    .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Does work of several steps in a task of its own, so that it is finished even if the client hangs up.
async fn to_the_end(work: impl Future<Output = Result<(), ApiError>> + Send + 'static) -> Result<(), ApiError> {
    tokio::spawn(work).await.unwrap_or(Err(ApiError::Unavailable))
}

/// Deletes everything that a user wrote, in steps between which everybody else is served. A step that the database has
/// no time for is tried again: a user whose account is gone cannot ask again.
async fn erase(app: &App, username: Username, by: Option<(UserId, Username)>) -> Result<(), ApiError> {
    let mut after = Some(MessageId::default());
    while let Some(from) = after {
        let step = AdminCommand::EraseMessages { username: username.clone(), after: from, by: by.clone() };
        match app.db.administer(step).await {
            Ok(done) => after = done.next,
            Err(AdminError::Unavailable) if !app.is_stopping() => tokio::time::sleep(ERASE_RETRY).await,
            Err(_) => return Err(ApiError::Unavailable),
        }
    }
    Ok(())
}

/// Continues erasures that a stop or a crash interrupted.
pub(crate) async fn finish_erasures(app: Arc<App>) {
    let unfinished = loop {
        match app.db.erasures().await {
            Ok(users) => break users,
            Err(_) if app.is_stopping() => return,
            Err(_) => tokio::time::sleep(ERASE_RETRY).await,
        }
    };
    for user in unfinished {
        match erase(&app, Username::deleted(user), None).await {
            Ok(()) => tracing::info!(user = user.0, "erased the rest of what a deleted user wrote"),
            Err(_) => return,
        }
    }
}

/// `GET /export`: everything that one has written, in all rooms, as JSON Lines.
pub(crate) async fn export(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let session = person(app, headers).await?;
    app.rates.exports.take(session.user, Instant::now()).map_err(ApiError::RateLimited)?;
    let (sender, pieces) = Channel::new(1);
    tokio::spawn(send_export(Arc::clone(app), session.user, sender));
    let mut response = Response::new(Body::Right(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl; charset=utf-8"));
    Ok(response)
}

/// Sends an export as fast as the client takes it, a piece in memory at a time.
async fn send_export(app: Arc<App>, user: UserId, mut sender: Sender<Bytes, db::Error>) {
    let mut after = MessageId::default();
    loop {
        let found = match app.db.messages_by(user, after).await {
            Ok(found) => found,
            // The answer has begun: the only way to report the error is to cut it short.
            Err(error) => return sender.abort(error),
        };
        let mut piece = Vec::new();
        found.messages.iter().for_each(|message| protocol::push_export_line(message, &mut piece));
        // Fails when the client has gone. An empty piece is not sent, and tells that too.
        if sender.send_data(piece.into()).await.is_err() {
            return;
        }
        let Some(next) = found.next else { return };
        after = next;
    }
}

/// `POST /invites`: a link that lets somebody register.
pub(crate) async fn invite(app: &Arc<App>, peer: &Peer, request: Request<Incoming>) -> Result<Response, ApiError> {
    let session = writer(app, request.headers()).await?;
    let base = base_url(app, peer, request.headers());
    let body = read_json(request).await?;
    let NewInviteBody { uses, expires_in } = protocol::parse_body(&body).ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with the numbers \"uses\" and \"expires_in\" if any",
    ))?;
    let uses = NonZeroU32::new(uses.unwrap_or(1)).filter(|uses| uses.get() <= INVITE_USES_MAX);
    let uses = uses.ok_or(ApiError::InvalidRequest("uses must be a number from 1 to 1,000"))?;
    let max = i64::try_from(INVITE_LIFETIME_MAX.as_millis()).unwrap_or(i64::MAX);
    let default = i64::try_from(INVITE_LIFETIME.as_millis()).unwrap_or(max);
    let expires_in = Some(expires_in.unwrap_or(default)).filter(|millis| (1..=max).contains(millis));
    let expires_in =
        expires_in.ok_or(ApiError::InvalidRequest("expires_in must be a number of milliseconds, at most 90 days"))?;
    let (code, expires_at) = (InviteCode::random(), UnixMillis::now().plus(expires_in));
    let (digest, at_most) = (code.digest(), USER_INVITES_MAX);
    let by_moderators = app.config.invites == Whose::Moderators;
    let command = AccountCommand::CreateInvite { digest, uses, expires_at, at_most, by_moderators };
    let AccountOutcome::Invited(id) = change(app, &session, command).await? else {
        return Err(ApiError::Unavailable);
    };
    tracing::info!(user = %session.username, invite = id, "invited");
    let url = format!("{base}/#invite={}", code.reveal());
    Ok(json(StatusCode::CREATED, protocol::invited_body(id, code.reveal(), &url)))
}

/// The URL by which people reach this server: as the operator says, otherwise as this request did. An `Origin` is that
/// of our own page or of an allowed one: other pages' requests are refused.
fn base_url(app: &App, peer: &Peer, headers: &HeaderMap) -> String {
    if let Some(url) = &app.config.public_url {
        return url.as_str().to_owned();
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(ORIGIN), text(HOST)) {
        (Some(origin), _) if origin.starts_with("http") => origin.to_owned(),
        (_, Some(host)) if peer.is_tls => format!("https://{host}"),
        (_, Some(host)) => format!("http://{host}"),
        _ => String::new(),
    }
}

/// Whether a user may invite.
fn may_invite(app: &App, session: &Session) -> Result<(), ApiError> {
    let may = session.is_moderator || app.config.invites == Whose::Everyone;
    if may { Ok(()) } else { Err(ApiError::Forbidden) }
}

/// `GET /invites`: the invitations that have not expired: one's own; for a moderator, all.
pub(crate) async fn invites(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let session = person(app, headers).await?;
    may_invite(app, &session)?;
    let invites = app.db.invites((!session.is_moderator).then_some(session.user)).await?;
    Ok(json(StatusCode::OK, protocol::invites_body(&invites)))
}

/// `DELETE /invites/ID`: takes one back.
pub(crate) async fn delete_invite(app: &Arc<App>, headers: &HeaderMap, invite: i64) -> Result<Response, ApiError> {
    let session = writer(app, headers).await?;
    may_invite(app, &session)?;
    change(app, &session, AccountCommand::DeleteInvite { invite }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /users/NAME/ban`: keeps somebody out, and deletes their messages on request.
pub(crate) async fn ban(app: &Arc<App>, request: Request<Incoming>, username: Username) -> Result<Response, ApiError> {
    let session = writer(app, request.headers()).await?;
    let body = read_json(request).await?;
    let BanBody { messages } = protocol::parse_body(&body)
        .ok_or(ApiError::InvalidBody("the body must be a JSON object with the boolean \"messages\" if any"))?;
    let app = Arc::clone(app);
    to_the_end(async move {
        change(&app, &session, AccountCommand::Ban { username: username.clone() }).await?;
        tracing::info!(user = %session.username, banned = %username, messages, "banned");
        if messages { erase(&app, username, Some((session.user, session.username))).await } else { Ok(()) }
    })
    .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /users/NAME/unban`: lets somebody in again.
pub(crate) async fn unban(app: &Arc<App>, headers: &HeaderMap, username: Username) -> Result<Response, ApiError> {
    let session = writer(app, headers).await?;
    change(app, &session, AccountCommand::Unban { username: username.clone() }).await?;
    tracing::info!(user = %session.username, unbanned = %username, "unbanned");
    Ok(empty(StatusCode::NO_CONTENT))
}

/// A short form of a `User-Agent`, for people to tell their devices apart: a browser and a system, as far as they are
/// known, else the first word.
pub(crate) fn short_client(agent: &str) -> String {
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let known =
        |names: &[(&str, &'static str)]| names.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name);
    match (known(&BROWSERS), known(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.into(),
        (None, None) => {
            let word = agent.split(['/', ' ']).next().unwrap_or_default();
            word.chars().filter(char::is_ascii_graphic).take(CLIENT_MAX_CHARS).collect()
        }
    }
}

/// Most characters of the name of an unknown client.
const CLIENT_MAX_CHARS: usize = 32;

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::NotFound => Self::NotFound,
            AccountError::Forbidden => Self::Forbidden,
            AccountError::WrongPassword => Self::InvalidCredentials,
            AccountError::TooMany => Self::RateLimited(Duration::from_hours(1)),
            AccountError::SessionEnded => Self::Unauthorized,
            AccountError::Unavailable => Self::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_shown_by_its_browser_and_system() {
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0";
        let edge =
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140 Safari/537.36 Edg/140";
        assert_eq!(short_client(firefox), "Firefox on Linux");
        assert_eq!(short_client(edge), "Edge on Windows");
        assert_eq!(short_client("curl/8.5.0"), "curl");
        assert_eq!(short_client("\u{1b}[2J"), "[2J");
        assert_eq!(short_client(""), "");
    }
}

//! The routes that let people in and out, and the health check.
//!
//! A login must not tell which names exist: a wrong name is compared with a dummy hash, so that it takes as long as a
//! wrong password, and gets the same answer.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode};

use super::account::short_client;
use super::body::read_json_bytes;
use super::error::ApiError;
use super::response::{Response, empty, json};
use crate::app::App;
use crate::config::Registration;
use crate::limits::SESSION_LIFETIME;
use crate::model::{UnixMillis, Username};
use crate::net::Peer;
use crate::protocol::{self, CredentialsBody, InviteBody};
use crate::secret::{Digest, InviteCode, Password, Token};

/// `POST /register`: creates an account.
pub(crate) async fn register(app: &Arc<App>, peer: &Peer, request: Request<Incoming>) -> Result<Response, ApiError> {
    if app.config.registration() == Registration::Closed {
        return Err(ApiError::RegistrationClosed);
    }
    let body = read_json_bytes(request).await?;
    let parsed = protocol::parse_body(&body).zip(protocol::parse_body(&body));
    let (credentials, invite): (CredentialsBody, InviteBody) = parsed.ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with the strings \"username\" and \"password\", and \"invite\" if any",
    ))?;
    let invite = match (app.config.registration(), &invite.code) {
        // With open registration an invitation is neither needed nor used up.
        (Registration::Open, _) => None,
        (_, None) => return Err(ApiError::InviteNeeded),
        (_, Some(code)) => Some(InviteCode::parse(trim_sentence(code)).ok_or(ApiError::InvalidInvite)?.digest()),
    };
    let username = Username::parse(&credentials.username).filter(|username| !username.is_reserved());
    let username = username.ok_or(ApiError::InvalidUsername)?;
    let password = credentials.new_password().ok_or(ApiError::InvalidPassword)?;
    app.rates.auth.register(peer.address, &username).map_err(ApiError::RateLimited)?;
    let is_invited = invite.is_some();
    if !is_invited {
        app.rates.auth.create(peer.address).map_err(ApiError::RateLimited)?;
    }
    let created = create(app, &username, password, invite).await;
    if created.is_err() && !is_invited {
        app.rates.auth.not_created(peer.address);
    }
    created?;
    tracing::info!(user = %username, "registered");
    Ok(json(StatusCode::CREATED, protocol::registered_body(&username)))
}

async fn create(app: &App, username: &Username, password: Password, invite: Option<Digest>) -> Result<(), ApiError> {
    let hash = app.hasher.hash(password).await?;
    Ok(app.db.register_user(username.clone(), hash, invite).await?)
}

/// A code as it is copied with a link, without what follows the link in a sentence.
fn trim_sentence(code: &str) -> &str {
    code.trim().trim_end_matches(|char: char| !char.is_ascii_alphanumeric())
}

/// `POST /login`: exchanges a name and a password for a token.
pub(crate) async fn login(app: &Arc<App>, peer: &Peer, request: Request<Incoming>) -> Result<Response, ApiError> {
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let client = short_client(agent.unwrap_or_default());
    let body = read_json_bytes(request).await?;
    let credentials: CredentialsBody = protocol::parse_body(&body).ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with the strings \"username\" and \"password\"",
    ))?;
    let username = Username::parse(&credentials.username);
    app.rates.auth.log_in(peer.address, username.as_ref()).await.map_err(ApiError::RateLimited)?;
    let known = match username {
        Some(username) => app.db.credentials(username).await?,
        None => None,
    };
    let stored = known.as_ref().map(|known| known.password_hash.clone());
    let verified = app.hasher.verify(credentials.claimed_password(), stored).await?;
    let known = known.filter(|_| verified).ok_or(ApiError::InvalidCredentials)?;
    let (token, username) = (Token::random(), known.username);
    let session = app.db.login_user(known.user, known.password_hash, token.digest(), client).await?;
    session.ok_or(ApiError::InvalidCredentials)?;
    let lifetime = i64::try_from(SESSION_LIFETIME.as_millis()).expect("a month is a small number of milliseconds");
    app.rates.auth.logged_in(peer.address, &username);
    tracing::info!(user = %username, "logged in");
    Ok(json(StatusCode::OK, protocol::login_body(&token, &username, UnixMillis::now().plus(lifetime))))
}

/// `POST /logout`: ends the session and closes its sockets.
pub(crate) async fn logout(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let digest = bearer(headers)?;
    // A token that somebody made up costs the writer nothing.
    app.db.validate_session(digest).await?.ok_or(ApiError::Unauthorized)?;
    let ended = app.db.end_session(digest).await?;
    if ended { Ok(empty(StatusCode::NO_CONTENT)) } else { Err(ApiError::Unauthorized) }
}

/// `GET /healthz`: whether the server can read and write the database.
pub(crate) async fn healthz(app: &Arc<App>) -> Result<Response, ApiError> {
    if app.is_stopping() {
        return Err(ApiError::Unavailable);
    }
    app.db.check().await?;
    Ok(json(StatusCode::OK, br#"{"status":"ok"}"#.to_vec()))
}

/// Carries the token where a proxy in front has `Authorization` for a login of its own.
pub(crate) const TOKEN_HEADER: HeaderName = HeaderName::from_static("chinwag-token");

/// The digest of the request's token: that of [`TOKEN_HEADER`], else the bearer token (RFC 6750 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Digest, ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || text(AUTHORIZATION)?.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = text(TOKEN_HEADER).or_else(|| bearer().map(|(_, token)| token));
    token.and_then(|token| Token::parse(token.trim())).map(|token| token.digest()).ok_or(ApiError::Unauthorized)
}

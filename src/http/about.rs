//! The routes about the server and the people on it.

use std::sync::Arc;

use hyper::{HeaderMap, StatusCode};

use super::error::ApiError;
use super::percent::percent_decode;
use super::response::{Response, json};
use super::session::{parameter, session_of};
use crate::app::App;
use crate::config::Registration;
use crate::limits::{EDIT_WITHIN, IMAGE_MAX_BYTES, IMAGE_MAX_PIXELS, PAGE_MAX_MESSAGES};
use crate::model::{CONTENT_MAX_CHARS, USERNAME_MAX_CHARS};
use crate::protocol::{self, AboutBody, AboutLimits, WireUser};
use crate::room::{ALT_MAX_CHARS, REACTIONS, ROOM_NAME_MAX_CHARS, TOPIC_MAX_CHARS};

/// `GET /about`: what a client needs to know before anybody logs in.
pub(crate) async fn about(app: &Arc<App>) -> Result<Response, ApiError> {
    let body = AboutBody {
        name: &app.config.name,
        version: env!("CARGO_PKG_VERSION"),
        registration: match app.config.registration() {
            Registration::Open => "open",
            Registration::Invite => "invite",
            Registration::Closed => "closed",
        },
        new: !app.db.has_users().await?,
        push: app.pushes(),
        reactions: &REACTIONS,
        limits: AboutLimits {
            content: CONTENT_MAX_CHARS,
            edit_within: u64::try_from(EDIT_WITHIN.as_millis()).unwrap_or(u64::MAX),
            page: PAGE_MAX_MESSAGES,
            room_name: ROOM_NAME_MAX_CHARS,
            topic: TOPIC_MAX_CHARS,
            alt: ALT_MAX_CHARS,
            image_bytes: IMAGE_MAX_BYTES,
            image_pixels: IMAGE_MAX_PIXELS,
        },
    };
    Ok(json(StatusCode::OK, body.encode()))
}

/// `GET /users`: the people and programs on this server, for its members.
pub(crate) async fn users(app: &Arc<App>, headers: &HeaderMap, query: Option<&str>) -> Result<Response, ApiError> {
    session_of(app, headers).await?;
    let prefix = parameter(query.unwrap_or_default(), "prefix")?.unwrap_or_default();
    // A prefix that is encoded wrongly, or longer than any name, matches no name.
    let prefix = percent_decode(prefix).filter(|prefix| prefix.len() <= USERNAME_MAX_CHARS).unwrap_or("{".into());
    let people = app.db.people(prefix.into_owned()).await?;
    let users: Vec<_> = people
        .iter()
        .map(|person| WireUser {
            username: &person.username,
            bot: person.is_bot,
            moderator: person.is_moderator,
            online: app.presence.is_online(&person.username),
            last_seen: person.last_seen.map(|at| at.0),
        })
        .collect();
    Ok(json(StatusCode::OK, protocol::users_body(&users)))
}

//! The routes of rooms: their list, making and changing them, and their members.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{HeaderMap, Request, StatusCode};

use super::body::read_json;
use super::error::ApiError;
use super::response::{Response, empty, json};
use super::session::session_of;
use crate::app::App;
use crate::config::Whose;
use crate::db::{RoomChange, RoomCommand, RoomError, RoomOutcome, Session};
use crate::limits::NEW_MEMBERS_MAX;
use crate::model::Username;
use crate::protocol::{self, DirectBody, NewRoomBody, NotifyBody, RoomChangeBody};
use crate::room::{RoomEmoji, RoomId, RoomName, Topic};

/// `GET /rooms`: the rooms that the user may read.
pub(crate) async fn list(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let session = session_of(app, headers).await?;
    let rooms = app.db.rooms(session.user).await?;
    Ok(json(StatusCode::OK, protocol::rooms_body(&rooms)))
}

/// `POST /rooms`: makes an open or a private room.
pub(crate) async fn create(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    let session = session_of(app, request.headers()).await?;
    let body = read_json(request).await?;
    let NewRoomBody { name, kind, emoji, topic, members } = protocol::parse_body(&body).ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with the strings \"name\" and \"kind\", and \"emoji\", \"topic\" and the list \
         \"members\" if any",
    ))?;
    let is_open = match &kind[..] {
        "open" => true,
        "private" => false,
        _ => return Err(ApiError::InvalidRequest("kind must be \"open\" or \"private\"")),
    };
    if members.len() > NEW_MEMBERS_MAX {
        return Err(ApiError::InvalidRequest("create a room with at most 200 members, then add more one by one"));
    }
    let members = members.iter().map(|name| Username::parse(name).ok_or(ApiError::NotFound));
    let command = RoomCommand::Create {
        name: parse_name(&name)?,
        is_open,
        emoji: emoji.as_deref().map(parse_emoji).transpose()?,
        topic: topic.as_deref().map(parse_topic).transpose()?.unwrap_or_default(),
        members: members.collect::<Result<_, _>>()?,
        by_moderators: app.config.rooms == Whose::Moderators,
    };
    let now = Instant::now();
    app.rates.rooms.take(session.user, now).map_err(ApiError::RateLimited)?;
    let made = change_room(app, &session, command).await;
    if made.is_err() {
        app.rates.rooms.put_back(&session.user, 1, now);
    }
    answer(app, &session, made?, StatusCode::CREATED).await
}

/// `POST /direct`: the room of two people, made if there is none.
pub(crate) async fn direct(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    let session = session_of(app, request.headers()).await?;
    let body = read_json(request).await?;
    let DirectBody { username } = protocol::parse_body(&body)
        .ok_or(ApiError::InvalidBody("the body must be a JSON object with the string \"username\""))?;
    let username = Username::parse(&username).ok_or(ApiError::NotFound)?;
    // To find it is the writer's work too.
    app.rates.writes.take(session.user, Instant::now()).map_err(ApiError::RateLimited)?;
    let open = |make| {
        let command = RoomCommand::OpenDirect { username: username.clone(), make };
        app.db.change_room(session.id, session.user, command)
    };
    let outcome = match open(false).await {
        // Making one is limited further.
        Err(RoomError::NotFound) => {
            let now = Instant::now();
            app.rates.direct_rooms.take(session.user, now).map_err(ApiError::RateLimited)?;
            let made = open(true).await;
            if !made.as_ref().is_ok_and(|outcome| outcome.is_new) {
                app.rates.direct_rooms.put_back(&session.user, 1, now);
            }
            made
        }
        found => found,
    }?;
    answer(app, &session, outcome, if outcome.is_new { StatusCode::CREATED } else { StatusCode::OK }).await
}

/// `PATCH /rooms/ID`: changes a room's name, emoji or topic, or archives it.
pub(crate) async fn change(app: &Arc<App>, request: Request<Incoming>, room: RoomId) -> Result<Response, ApiError> {
    let session = session_of(app, request.headers()).await?;
    let body = read_json(request).await?;
    let RoomChangeBody { name, emoji, topic, archived } = protocol::parse_body(&body).ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with some of the strings \"name\", \"emoji\" and \"topic\" and the boolean \
         \"archived\"",
    ))?;
    let change = RoomChange {
        name: name.as_deref().map(parse_name).transpose()?,
        emoji: emoji.map(|emoji| emoji.as_deref().map(parse_emoji).transpose()).transpose()?,
        topic: topic.as_deref().map(parse_topic).transpose()?,
        archived,
    };
    let outcome = change_room(app, &session, RoomCommand::Change { room, change }).await?;
    answer(app, &session, outcome, StatusCode::OK).await
}

/// `PUT /rooms/ID/members/NAME`: adds somebody to a private room.
pub(crate) async fn add_member(
    app: &Arc<App>,
    headers: &HeaderMap,
    room: RoomId,
    username: Username,
) -> Result<Response, ApiError> {
    let session = session_of(app, headers).await?;
    change_room(app, &session, RoomCommand::AddMember { room, username }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `DELETE /rooms/ID/members/NAME`: removes somebody from a private room.
pub(crate) async fn remove_member(
    app: &Arc<App>,
    headers: &HeaderMap,
    room: RoomId,
    username: Username,
) -> Result<Response, ApiError> {
    let session = session_of(app, headers).await?;
    change_room(app, &session, RoomCommand::RemoveMember { room, username }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `PUT /rooms/ID/notify`: what the user wants to be notified of in a room.
pub(crate) async fn notify(app: &Arc<App>, request: Request<Incoming>, room: RoomId) -> Result<Response, ApiError> {
    let session = session_of(app, request.headers()).await?;
    let body = read_json(request).await?;
    let NotifyBody { what } = protocol::parse_body(&body).ok_or(ApiError::InvalidBody(
        "the body must be a JSON object with \"what\": \"all\", \"mentions\" or \"nothing\"",
    ))?;
    change_room(app, &session, RoomCommand::Notify { room, about: what.into() }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Changes a room, within the user's rates: each change is sent to all its readers.
async fn change_room(app: &App, session: &Session, command: RoomCommand) -> Result<RoomOutcome, ApiError> {
    let now = Instant::now();
    app.rates.writes.take(session.user, now).map_err(ApiError::RateLimited)?;
    app.rates.room_changes.take(session.user, now).map_err(ApiError::RateLimited)?;
    Ok(app.db.change_room(session.id, session.user, command).await?)
}

/// The room as the user sees it now.
async fn answer(app: &App, session: &Session, outcome: RoomOutcome, status: StatusCode) -> Result<Response, ApiError> {
    let room = app.db.room(session.user, outcome.room).await?.ok_or(ApiError::NotFound)?;
    Ok(json(status, protocol::room_body(&room)))
}

fn parse_name(name: &str) -> Result<RoomName, ApiError> {
    RoomName::parse(name)
        .ok_or(ApiError::InvalidRequest("name must have 1 to 60 characters, none of them a control character"))
}

fn parse_emoji(emoji: &str) -> Result<RoomEmoji, ApiError> {
    RoomEmoji::parse(emoji).ok_or(ApiError::InvalidRequest("emoji must have 1 to 16 characters"))
}

fn parse_topic(topic: &str) -> Result<Topic, ApiError> {
    Topic::parse(topic)
        .ok_or(ApiError::InvalidRequest("topic must have at most 250 characters, none of them a control character"))
}

//! The routes of Web Push: the key to subscribe to, and a device's subscription.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{HeaderMap, Request, StatusCode};

use super::account::person;
use super::body::read_json;
use super::error::ApiError;
use super::response::{Response, empty, json};
use super::session::sender;
use crate::app::App;
use crate::db::{Session, Subscription};
use crate::protocol::{self, EndpointBody, SubscriptionBody};
use crate::push::{Keys, Push};

/// `GET /push`: the key that a browser subscribes to.
pub(crate) async fn key(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let (_, push) = authorize(app, headers).await?;
    Ok(json(StatusCode::OK, protocol::push_key_body(&push.public_key())))
}

/// `PUT /push`: stores a device's subscription, for this user from then on and for nobody else.
pub(crate) async fn subscribe(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    let (session, push) = authorize(app, request.headers()).await?;
    app.rates.writes.take(session.user, Instant::now()).map_err(ApiError::RateLimited)?;
    let body = read_json(request).await?;
    let body = protocol::parse_body(&body).filter(SubscriptionBody::tells).ok_or(ApiError::InvalidRequest(
        "endpoint and keys with p256dh and auth are required; what may be \"all\" or \"mentions\"",
    ))?;
    let endpoint = push.check_endpoint(&body.endpoint).map_err(ApiError::InvalidRequest)?;
    let keys =
        Keys::parse(&body.keys.p256dh, &body.keys.auth).ok_or(ApiError::InvalidRequest("invalid p256dh or auth"))?;
    let subscription =
        Subscription { endpoint, keys: keys.to_bytes(), about: body.about(), hides_text: body.hides_text };
    app.db.subscribe(sender(session), subscription).await?;
    push.listen();
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `DELETE /push`: ends a subscription. There is no error if it does not exist, or is somebody else's.
pub(crate) async fn unsubscribe(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    let (session, push) = authorize(app, request.headers()).await?;
    app.rates.writes.take(session.user, Instant::now()).map_err(ApiError::RateLimited)?;
    let body = read_json(request).await?;
    let body = protocol::parse_body(&body).ok_or(ApiError::InvalidRequest("endpoint must be a string"))?;
    let EndpointBody { endpoint } = body;
    let endpoint = push.check_endpoint(&endpoint).map_err(ApiError::InvalidRequest)?;
    app.db.unsubscribe(session.user, endpoint).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// The session of a person. On a server that does not push, these routes do not exist.
async fn authorize<'a>(app: &'a Arc<App>, headers: &HeaderMap) -> Result<(Session, &'a Arc<Push>), ApiError> {
    let push = app.push.as_ref().ok_or(ApiError::NotFound)?;
    Ok((person(app, headers).await?, push))
}

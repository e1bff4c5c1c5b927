//! Pictures: stored without their metadata, and sent to those who may read their message.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, StatusCode};

use super::body::read_image;
use super::error::ApiError;
use super::response::{Body, Response, json};
use super::session::session_of;
use crate::app::App;
use crate::config::Switch;
use crate::db::{self, ImageError, NewImage};
use crate::limits::IMAGE_MAX_BYTES;
use crate::model::UserId;
use crate::picture::{Picture, PictureError};
use crate::protocol;
use crate::room::ImageId;

/// Should a browser take a picture for a page, nothing in it runs or loads.
const PICTURE_POLICY: &str = "sandbox; default-src 'none'";

/// `POST /images`: stores a picture, for a message that its owner sends next.
pub(crate) async fn store(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    let session = session_of(app, request.headers()).await?;
    if app.config.images == Switch::Off {
        return Err(ApiError::Forbidden);
    }
    if app.space.is_low(app.db.free_bytes()) {
        return Err(ApiError::NoSpace);
    }
    let _of_user = app.uploads.begin(session.user).ok_or(ApiError::Unavailable)?;
    // Held until the picture is on disk: it bounds how many are in memory.
    let _place = app.images.try_acquire().map_err(|_| ApiError::Unavailable)?;
    app.rates.images.take(session.user, Instant::now()).map_err(ApiError::RateLimited)?;
    let file = read_image(request).await?;
    let Picture { subtype, width, height, bytes } = Picture::parse(&file)?;
    drop(file);
    // The orientation that is written anew may take more bytes than the one that was left out.
    if bytes.len() > IMAGE_MAX_BYTES {
        return Err(ApiError::PayloadTooLarge);
    }
    let image = NewImage { subtype: subtype.into(), width, height, bytes };
    let id = app.db.store_image(session.id, session.user, image).await?;
    Ok(json(StatusCode::CREATED, protocol::image_body(id, subtype, width, height)))
}

/// `GET /images/ID`: a picture, to those who may read its message.
pub(crate) async fn get(app: &Arc<App>, headers: &HeaderMap, image: ImageId) -> Result<Response, ApiError> {
    let session = session_of(app, headers).await?;
    let info = app.db.image(session.user, image).await?.ok_or(ApiError::NotFound)?;
    let (sender, pieces) = Channel::new(1);
    tokio::spawn(send(Arc::clone(app), session.user, image, info.bytes, sender));
    let mut response = Response::new(Body::Right(pieces));
    let headers = response.headers_mut();
    let content_type = HeaderValue::try_from(format!("image/{}", info.subtype)).map_err(|_| ApiError::NotFound)?;
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(info.bytes));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PICTURE_POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    Ok(response)
}

/// Sends a picture as fast as the client takes it, a piece in memory at a time; it is cut short for a reader who was
/// removed meanwhile.
async fn send(app: Arc<App>, reader: UserId, image: ImageId, length: u32, mut sender: Sender<Bytes, db::Error>) {
    let mut sent = 0;
    while sent < length {
        let piece = match app.db.image_piece(reader, image, sent).await {
            Ok(Some(piece)) if !piece.is_empty() => piece,
            Ok(_) => return sender.abort(db::Error::SessionEnded),
            Err(error) => return sender.abort(error),
        };
        sent += u32::try_from(piece.len()).unwrap_or(length);
        // Fails when the client has gone.
        if sender.send_data(piece.into()).await.is_err() {
            return;
        }
    }
}

impl From<PictureError> for ApiError {
    fn from(error: PictureError) -> Self {
        match error {
            PictureError::NotAPicture => Self::NotAPicture,
            PictureError::TooLarge => Self::PayloadTooLarge,
        }
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::TooMany => Self::RateLimited(crate::limits::IMAGE_WAIT),
            ImageError::SessionEnded => Self::Unauthorized,
            ImageError::Unavailable => Self::Unavailable,
        }
    }
}

//! Request bodies, each with a limit in bytes and a deadline.
//!
//! Hyper limits the head of a request in both, and the body in neither: without the deadline a client that sends a byte
//! now and then would hold its connection, and the memory for what has arrived, for as long as it likes.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Request};
use tokio::time::Instant;

use super::error::ApiError;
use crate::limits::{BODY_MAX_BYTES, BODY_TIMEOUT, IMAGE_MAX_BYTES};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyKind {
    Json,
    /// Bare text: `text/plain`, or `application/x-www-form-urlencoded`, which `curl -d` sends for any text.
    Text,
}

/// Reads a picture, whatever type is declared.
pub(super) async fn read_image(request: Request<Incoming>) -> Result<Vec<u8>, ApiError> {
    BodyReader::new(request.into_body(), IMAGE_MAX_BYTES)?.read_all().await
}

/// Reads a JSON body.
pub(super) async fn read_json(request: Request<Incoming>) -> Result<Vec<u8>, ApiError> {
    utf8(read_json_bytes(request).await?)
}

/// The body, if it is UTF-8, as JSON and text are here whatever their type says.
pub(super) fn utf8(body: Vec<u8>) -> Result<Vec<u8>, ApiError> {
    let text = String::from_utf8(body).map_err(|_| ApiError::InvalidRequest("the body is not UTF-8"))?;
    Ok(text.into_bytes())
}

/// Reads a JSON body for the routes of the first edition, to which what is not UTF-8 is only no JSON.
pub(super) async fn read_json_bytes(request: Request<Incoming>) -> Result<Vec<u8>, ApiError> {
    match read_body(request, BODY_MAX_BYTES).await? {
        (BodyKind::Json, body) => Ok(body),
        (BodyKind::Text, _) => Err(ApiError::UnsupportedMediaType),
    }
}

/// Reads a body of at most `max_bytes`, and says how it is written.
pub(super) async fn read_body(request: Request<Incoming>, max_bytes: usize) -> Result<(BodyKind, Vec<u8>), ApiError> {
    let is = |media_type: &str| is_declared(request.headers(), media_type);
    let kind = if is("application/json") {
        BodyKind::Json
    } else if is("text/plain") || is("application/x-www-form-urlencoded") {
        BodyKind::Text
    } else {
        return Err(ApiError::UnsupportedMediaType);
    };
    Ok((kind, BodyReader::new(request.into_body(), max_bytes)?.read_all().await?))
}

/// Whether the body is declared as JSON. JSON is UTF-8, and parameters mean nothing to it (RFC 8259 11): a body in
/// another charset is not readable JSON.
#[cfg(any(test, fuzzing))]
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    is_declared(headers, "application/json")
}

/// Whether the body is declared to be of a media type, whatever the parameters.
fn is_declared(headers: &HeaderMap, expected: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let media_type = value.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(expected)
}

/// The transfer of the body ended early, or breaks HTTP.
const BROKEN: ApiError = ApiError::InvalidRequest("the body did not arrive whole");

/// Reads a body chunk by chunk, within [`BODY_TIMEOUT`] altogether.
struct BodyReader {
    body: Incoming,
    bytes_left: usize,
    deadline: Instant,
}

impl BodyReader {
    /// A reader of at most `max_bytes`. A declared length over that is refused before a byte of the body is read.
    fn new(body: Incoming, max_bytes: usize) -> Result<Self, ApiError> {
        if body.size_hint().lower() > max_bytes as u64 {
            return Err(ApiError::PayloadTooLarge);
        }
        Ok(Self { body, bytes_left: max_bytes, deadline: Instant::now() + BODY_TIMEOUT })
    }

    /// The next chunk, `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = tokio::time::timeout_at(self.deadline, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| ApiError::RequestTimeout)? else { return Ok(None) };
            // Trailers are ignored.
            let Ok(chunk) = frame.map_err(|_| BROKEN)?.into_data() else { continue };
            self.bytes_left = self.bytes_left.checked_sub(chunk.len()).ok_or(ApiError::PayloadTooLarge)?;
            return Ok(Some(chunk));
        }
    }

    /// The whole body in one buffer: if they were kept as they came, chunks of one byte would take thirty times their
    /// length.
    async fn read_all(mut self) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_body_is_declared_as_such() {
        let is = |value: &str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        assert!(is("application/json") && is("Application/JSON; charset=UTF-8") && is("application/json;x=y"));
        assert!(!is("text/plain") && !is("application/jsonx") && !is("; application/json"));
        assert!(!is_json(&HeaderMap::new()));
    }
}

//! The upgrade: from an HTTP request to a WebSocket (RFC 6455 4.2).

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper::{HeaderMap, Method, Request, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::connection;
use crate::app::App;
use crate::http::{ApiError, HttpStream, Response, empty};
use crate::net::{Peer, Stream};

/// `GET /ws`: answers 101 and starts the connection's task, which takes the stream over once the answer is written.
pub(crate) fn upgrade(app: &Arc<App>, peer: &Peer, request: &mut Request<Incoming>) -> Result<Response, ApiError> {
    let response = agree(request)?;
    if app.is_stopping() {
        return Err(ApiError::Unavailable);
    }
    // The HTTP connection ends with this answer, and hands over its permits.
    let permits = peer.permits.lock().unwrap_or_else(PoisonError::into_inner).take();
    let permits = permits.ok_or(ApiError::Unavailable)?;
    let (app, upgrade) = (Arc::clone(app), hyper::upgrade::on(request));
    tokio::spawn(async move {
        if let Some((stream, early)) = take_over(upgrade).await {
            // In a task of its own, so that nothing of HTTP stays in memory.
            tokio::spawn(connection::serve(app, stream, &early, permits));
        }
    });
    Ok(response)
}

/// Checks an upgrade and accepts it (RFC 6455 4.2.1, 1 and 3 to 6, and 4.2.2).
pub(super) fn agree(request: &Request<Incoming>) -> Result<Response, ApiError> {
    let headers = request.headers();
    if request.method() != Method::GET
        || request.version() < Version::HTTP_11
        || !lists(headers, &UPGRADE, "websocket")
        || !lists(headers, &CONNECTION, "upgrade")
        || once(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13")
    {
        return Err(ApiError::UpgradeRequired);
    }
    let key = once(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
    let key = key.ok_or(ApiError::InvalidRequest("Sec-WebSocket-Key must appear once, with 16 bytes in base64"))?;
    // A proxy may mistake a body for the first frames, or the first frames for a body.
    if !request.body().is_end_stream() {
        return Err(ApiError::InvalidRequest("an upgrade must not have a body"));
    }
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is a header value");
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Takes the bare stream back from hyper, with what the client sent after its request.
pub(super) async fn take_over(upgrade: OnUpgrade) -> Option<(Stream, Bytes)> {
    match upgrade.await.map(hyper::upgrade::Upgraded::downcast::<HttpStream>) {
        Ok(Ok(Parts { io, read_buf, .. })) => Some((io.into_inner(), read_buf)),
        Ok(Err(_)) => unreachable!("every connection is served on an HttpStream"),
        Err(error) => {
            tracing::debug!(%error, "the client left during the upgrade");
            None
        }
    }
}

/// The value of a header that may appear only once (RFC 6455 11.3.1 and 11.3.5).
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a header that is a list of tokens contains this one (RFC 9110 5.6.1).
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Whether this is 16 bytes in base64: 22 characters of its alphabet and two of padding.
pub(crate) fn is_key(key: &[u8]) -> bool {
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == 22 && digits.iter().all(in_alphabet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_a_list_over_several_headers() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.append(CONNECTION, HeaderValue::from_static("foo ,UpGrade"));
        assert!(lists(&headers, &CONNECTION, "upgrade"));
        assert!(!lists(&headers, &CONNECTION, "up"));
    }

    #[test]
    fn a_key_is_16_bytes_in_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [&b""[..], b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25jZ===", b"dGhl\nHNhbXBsZSBub25jZQ=="] {
            assert!(!is_key(bad));
        }
    }
}

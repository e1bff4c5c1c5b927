//! Answers: their type, how each kind is built, and the headers that all of them carry.

use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, SEC_WEBSOCKET_VERSION, STRICT_TRANSPORT_SECURITY, UPGRADE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};

use super::error::ApiError;
use super::proxy::X_REQUEST_ID;
use crate::db;
use crate::protocol;
use crate::secret::random_name;

/// The body of an answer: complete, or in pieces, as that of a long page of history, a picture or an export.
pub(crate) type Body = Either<Full<Bytes>, Channel<Bytes, db::Error>>;
pub(crate) type Response = hyper::Response<Body>;

/// Everything from this server, nothing from other sites, nothing inline.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
     connect-src 'self'; manifest-src 'self'; worker-src 'self'; object-src 'none'; base-uri 'none'; \
     frame-ancestors 'none'; form-action 'self'";

/// Sent with every answer.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    // For browsers that do not support `frame-ancestors`.
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// For a year after an answer over TLS of ours a browser asks this host for nothing without it (RFC 6797). Its
/// subdomains may be others' servers.
const HTTPS_ONLY: &str = "max-age=31536000";

/// Sets the headers that every answer carries, and the one that every answer over TLS of ours does.
pub(crate) fn secure(response: &mut Response, is_tls: bool) {
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if is_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HTTPS_ONLY));
    }
}

/// The answer to a refused request.
pub(crate) fn error_response(error: &ApiError) -> Response {
    let mut response = json(error.status(), protocol::error_body(error.code(), &error.to_string()));
    let headers = response.headers_mut();
    match error {
        ApiError::MethodNotAllowed(allow) => {
            let allow = HeaderValue::try_from(&**allow).expect("methods are plain ASCII");
            drop(headers.insert(ALLOW, allow));
        }
        ApiError::UpgradeRequired => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        ApiError::Unauthorized | ApiError::InvalidCredentials => {
            drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        _ => {}
    }
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A serialized error response for a connection that closes before any request was read.
pub(crate) fn raw_error_response(error: &ApiError, is_tls: bool) -> Vec<u8> {
    let request = random_name();
    tracing::debug!(request, code = error.code(), "connection refused");
    let mut response = error_response(error);
    response.headers_mut().insert(X_REQUEST_ID, HeaderValue::try_from(request).expect("an id is plain ASCII"));
    secure(&mut response, is_tls);
    let body = protocol::error_body(error.code(), &error.to_string());
    let length = body.len();
    let mut bytes =
        format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {length}\r\n", error.status()).into_bytes();
    bytes.extend_from_slice(format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now())).as_bytes());
    for (name, value) in response.headers() {
        bytes.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

/// The contract's answer in place of hyper's own answer to a request that it cannot parse. Hyper's is recognised by its
/// empty body, which none of ours with such a status has. (Hyper's own answer goes out as it is if it is joined to
/// another one.)
pub(crate) fn override_hyper_error(answer: &[u8], is_tls: bool) -> Option<Vec<u8>> {
    const NO_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";
    let error = match answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)? {
        b"400" => ApiError::InvalidRequest("this is not a valid HTTP/1.1 request"),
        b"431" => ApiError::HeadTooLarge,
        _ => return None,
    };
    answer.windows(NO_BODY.len()).any(|bytes| bytes == NO_BODY).then(|| raw_error_response(&error, is_tls))
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, json: Vec<u8>) -> Response {
    as_json(body(status, json.into()))
}

/// Sets the content type of JSON.
pub(crate) fn as_json(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    body(status, Bytes::new())
}

/// An answer with a body.
pub(crate) fn body(status: StatusCode, content: Bytes) -> Response {
    let mut response = Response::new(Body::Left(Full::new(content)));
    *response.status_mut() = status;
    response
}

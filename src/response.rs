//! Answers: their one type, how each kind is made, and what all of them carry.

use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use crate::db;
use crate::error::ApiError;
use crate::model::random_name;
use crate::protocol;
use crate::proxy::X_REQUEST_ID;

/// What an answer carries: a body that is at hand, or a long page of history, in pieces.
pub(crate) type Body = Either<Full<Bytes>, Channel<Bytes, db::Error>>;
pub(crate) type Response = hyper::Response<Body>;

/// Everything from this server, nothing from elsewhere, nothing inline.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     manifest-src 'self'; worker-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

/// Sent with every answer.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    // For browsers that do not know `frame-ancestors`.
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Sets what every answer carries.
pub(crate) fn secure(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// The answer that an error is.
pub(crate) fn error_response(error: &ApiError) -> Response {
    let mut response = json(error.status(), protocol::error_body(error.code(), &error.to_string()));
    let headers = response.headers_mut();
    match error {
        ApiError::MethodNotAllowed(allow) => drop(headers.insert(ALLOW, HeaderValue::from_static(allow))),
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

/// An error answer as bytes, for a connection that no request of was read, and which ends with it.
pub(crate) fn last_words(error: &ApiError) -> Vec<u8> {
    let request = random_name();
    tracing::debug!(request, code = error.code(), "connection refused");
    let mut response = error_response(error);
    response.headers_mut().insert(X_REQUEST_ID, HeaderValue::try_from(request).expect("an id is plain ASCII"));
    secure(&mut response);
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

/// What to say for an answer that is hyper's own, to a request that it cannot read: told by having no body, which
/// none of ours with such a status is without. (One joined to the answer before it goes out as it is.)
pub(crate) fn instead_of_hypers(answer: &[u8]) -> Option<Vec<u8>> {
    const NO_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";
    let error = match answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)? {
        b"400" => ApiError::InvalidRequest("this is not a request that HTTP/1.1 allows"),
        b"431" => ApiError::HeadTooLarge,
        _ => return None,
    };
    answer.windows(NO_BODY.len()).any(|bytes| bytes == NO_BODY).then(|| last_words(&error))
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, json: Vec<u8>) -> Response {
    as_json(body(status, json.into()))
}

/// Says that a body is JSON.
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

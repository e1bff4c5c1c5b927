//! The session of a request, and the parameters of its query.

use hyper::HeaderMap;

use super::error::ApiError;
use super::rest::bearer;
use crate::app::App;
use crate::db::{Sender, Session};

/// The live session of a request.
pub(crate) async fn session_of(app: &App, headers: &HeaderMap) -> Result<Session, ApiError> {
    app.db.validate_session(bearer(headers)?).await?.ok_or(ApiError::Unauthorized)
}

/// The sender of a session's writes.
pub(super) fn sender(session: Session) -> Sender {
    let Session { id, user, username, is_bot, .. } = session;
    Sender { session: id, user, username, is_bot }
}

/// The value of a parameter of a query; an error if it appears twice.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Result<Option<&'a str>, ApiError> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(ApiError::InvalidRequest("a parameter appears twice")),
    }
}

/// A parameter that is a number in decimal digits.
pub(super) fn number(query: &str, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(value) = parameter(query, name)? else { return Ok(None) };
    let digits = (!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit())).then_some(value);
    let number = digits.and_then(|digits| digits.parse().ok());
    number.map(Some).ok_or(ApiError::InvalidRequest("ids and limits must be numbers below 2^63 in decimal digits"))
}

//! Whose request it is, and what its query says.

use hyper::HeaderMap;

use super::error::ApiError;
use super::rest::bearer;
use crate::app::App;
use crate::db::{Sender, Session};

/// The live session of a request.
pub(crate) async fn session_of(app: &App, headers: &HeaderMap) -> Result<Session, ApiError> {
    app.db.validate_session(bearer(headers)?).await?.ok_or(ApiError::Unauthorized)
}

/// Writes are made in the name of a session's user.
pub(super) fn sender(session: Session) -> Sender {
    let Session { id, user, username, is_bot, .. } = session;
    Sender { session: id, user, username, is_bot }
}

/// The value of a parameter of a query; an error if it is given twice.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Result<Option<&'a str>, ApiError> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(ApiError::InvalidRequest("a parameter is given twice")),
    }
}

/// A parameter that is a number in decimal digits.
pub(super) fn number(query: &str, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(value) = parameter(query, name)? else { return Ok(None) };
    let digits = (!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit())).then_some(value);
    let number = digits.and_then(|digits| digits.parse().ok());
    number.map(Some).ok_or(ApiError::InvalidRequest("an id or a limit is a number below 2^63 in decimal digits"))
}

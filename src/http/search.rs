//! `GET /search`: messages, found by a part of their text.

use std::sync::Arc;
use std::time::Instant;

use hyper::{HeaderMap, StatusCode};

use super::error::ApiError;
use super::percent::percent_decode;
use super::response::{Response, json};
use super::session::{number, parameter, session_of};
use crate::app::App;
use crate::db::SearchQuery;
use crate::limits::{SEARCH_DEFAULT_MESSAGES, SEARCH_MAX_CHARS, SEARCH_MAX_MESSAGES};
use crate::model::{MessageId, UserId, Username};
use crate::protocol;
use crate::room::{RoomId, fold};

/// Answers a search: the newest first, and where to continue.
pub(crate) async fn search(app: &Arc<App>, headers: &HeaderMap, query: Option<&str>) -> Result<Response, ApiError> {
    let session = session_of(app, headers).await?;
    let query = parse(session.user, query.unwrap_or_default())?;
    app.rates.searches.take(session.user, Instant::now()).map_err(ApiError::RateLimited)?;
    let Some(query) = query else { return Ok(json(StatusCode::OK, protocol::search_body(&[], None))) };
    let found = app.db.search(query).await?.ok_or(ApiError::NotFound)?;
    Ok(json(StatusCode::OK, protocol::search_body(&found.messages, found.before)))
}

/// Reads the query. Unknown parameters are ignored. `None`: the search finds nothing, since nobody can have such a
/// name.
fn parse(user: UserId, query: &str) -> Result<Option<SearchQuery>, ApiError> {
    const SHAPE: ApiError = ApiError::InvalidRequest(
        "q is required (1 to 100 characters); room, from, before and limit (1 to 100) are optional",
    );
    // In a query a space may be a plus, as forms write it.
    let decode = |value: &str| Some(percent_decode(&value.replace('+', "%20"))?.into_owned());
    let decoded = |name| parameter(query, name)?.map(|value| decode(value).ok_or(SHAPE)).transpose();
    let (text, from) = (decoded("q")?, decoded("from")?);
    let text = text.ok_or(SHAPE)?;
    let text = text.trim();
    if text.is_empty() || text.chars().count() > SEARCH_MAX_CHARS {
        return Err(SHAPE);
    }
    let limit = number(query, "limit")?.map_or(Ok(SEARCH_DEFAULT_MESSAGES), u32::try_from).map_err(|_| SHAPE)?;
    if !(1..=SEARCH_MAX_MESSAGES).contains(&limit) {
        return Err(SHAPE);
    }
    let (room, before) = (number(query, "room")?.map(RoomId), number(query, "before")?.unwrap_or(i64::MAX));
    let from = match from {
        None => None,
        Some(name) => match Username::parse(&name) {
            Some(username) => Some(username),
            None => return Ok(None),
        },
    };
    Ok(Some(SearchQuery { user, text: fold(text), room, from, before: MessageId::new(before), limit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_has_a_text_and_perhaps_where_by_whom_and_how_many() {
        let search = |query| parse(UserId(1), query);
        let found = search("q=Stra%C3%9Fe+50%25&room=3&from=ada&before=9&limit=100&x=1").unwrap().unwrap();
        assert_eq!(
            (found.text.as_str(), found.room, found.before, found.limit),
            ("straße 50%", Some(RoomId(3)), MessageId::new(9), 100)
        );
        assert_eq!(search("q=%20x%20").unwrap().unwrap().text, "x");
        assert!(search("q=x&from=nobody%20here").unwrap().is_none());
        let long = format!("q={}", "x".repeat(101));
        for bad in [
            "",
            "q=",
            "q=%20",
            "q=x&q=y",
            "q=%ff",
            "q=x&limit=0",
            "q=x&limit=101",
            "q=x&before=-1",
            "q=x&room=a",
            &long,
        ] {
            assert!(search(bad).is_err(), "{bad}");
        }
    }
}

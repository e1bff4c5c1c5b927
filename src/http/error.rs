//! The protocol's table of errors: each code with its status and its text.
//!
//! One closed enum, so that a handler can only answer with what the contract knows, and the table can be read in one
//! place. Internal causes are logged where they happen and never sent.

use std::borrow::Cow;
use std::time::Duration;

use hyper::StatusCode;

use crate::db;
use crate::model::USERNAME_MAX_CHARS;
use crate::password;
use crate::secret::{PASSWORD_MAX_CHARS, PASSWORD_MIN_CHARS};

/// Message sent when the connection limit is reached.
pub const TOO_MANY_CONNECTIONS: &str = "too many connections: try again soon";

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// The body is not the JSON object that the route takes; the text says which it is.
    #[error("{0}")]
    InvalidBody(&'static str),
    /// The contract does not allow such a message; the text says why.
    #[error("{0}")]
    InvalidMessage(Cow<'static, str>),
    /// Another open room has this name, in whatever case.
    #[error("another room has this name")]
    NameTaken,
    /// The room is archived: it can only be read.
    #[error("the room is archived")]
    Archived,
    /// The message was stored too long ago to be edited.
    #[error("the message is too old to be edited")]
    TooOld,
    /// The message was deleted.
    #[error("the message was deleted")]
    Gone,
    /// A malformed query or parameter; the text says which.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// Not an acceptable username.
    #[error(
        "a username must have 1 to {USERNAME_MAX_CHARS} of the characters A-Z a-z 0-9 . _ - and start with a letter or digit"
    )]
    InvalidUsername,
    /// The password is too short or too long.
    #[error("a password must have {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters")]
    InvalidPassword,
    /// The username is taken, compared without regard to case.
    #[error("this username is taken")]
    UsernameTaken,
    /// Only administrators can create accounts.
    #[error("registration is closed on this server")]
    RegistrationClosed,
    /// Registration needs an invitation, and the request has none.
    #[error("registration on this server requires an invitation")]
    InviteNeeded,
    /// There is no such invitation, or it has expired or been used up.
    #[error("this invitation is invalid or has expired")]
    InvalidInvite,
    /// A wrong name or a wrong password; the answer does not say which.
    #[error("wrong username or password")]
    InvalidCredentials,
    /// No session, or one that has ended.
    #[error("this requires a session: log in")]
    Unauthorized,
    /// The request comes from a page of another site.
    #[error("requests from this origin are not allowed here")]
    ForbiddenOrigin,
    /// This user may not do it, or nobody may.
    #[error("this is not allowed")]
    Forbidden,
    /// The request names a host that this server does not know as its own.
    #[error("this server is not known by this host name: its operator can allow it with --host or --public-url")]
    UnknownHost,
    /// Nothing exists at this path.
    #[error("nothing exists at this path")]
    NotFound,
    /// The path exists, but not with this method; carries the value of `Allow`.
    #[error("this path accepts only {0}")]
    MethodNotAllowed(Cow<'static, str>),
    /// `GET /ws` without an upgrade.
    #[error("this path requires an upgrade to WebSocket, version 13")]
    UpgradeRequired,
    /// The body is larger than the route accepts.
    #[error("the request is too large")]
    PayloadTooLarge,
    /// The request's target is too long (RFC 9112 3).
    #[error("the address is too long")]
    UriTooLong,
    /// The request's head is too large, or has too many headers.
    #[error("the request's headers are too large or too many")]
    HeadTooLarge,
    /// The body did not arrive in time.
    #[error("the request took too long to arrive")]
    RequestTimeout,
    /// The route does not take a body of this type.
    #[error("this path does not take a body of this type: send application/json")]
    UnsupportedMediaType,
    /// A rate limit was exceeded; carries how long to wait.
    #[error("too many requests: wait {} s", seconds(.0))]
    RateLimited(Duration),
    /// The disk has no room for what people write, or the database is as large as it may be.
    #[error("this server has no disk space for new messages: its operator can free some")]
    NoSpace,
    /// The body is not a picture of a type that the server takes.
    #[error("this is not a PNG, JPEG, WebP or GIF picture")]
    NotAPicture,
    /// The server or the address has as many connections as allowed.
    #[error("{TOO_MANY_CONNECTIONS}")]
    TooManyConnections,
    /// The database fails, a queue is full, or the server is stopping.
    #[error("the server cannot do this now: try again soon")]
    Unavailable,
}

/// Whole seconds, rounded up, as `Retry-After` counts (RFC 9110 10.2.3).
fn seconds(wait: &Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl ApiError {
    /// Whether it says that something does not exist, or is not for this client.
    pub(crate) fn denies(&self) -> bool {
        matches!(
            self.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE
        )
    }

    /// The contract's code.
    #[must_use]
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::InvalidBody(_) => "invalid_json",
            Self::InvalidMessage(_) => "invalid_message",
            Self::NameTaken => "name_taken",
            Self::Archived => "archived",
            Self::TooOld => "too_old",
            Self::Gone => "gone",
            Self::InvalidRequest(_)
            | Self::UnknownHost
            | Self::UpgradeRequired
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::RequestTimeout => "invalid_request",
            Self::InvalidUsername => "invalid_username",
            Self::InvalidPassword => "invalid_password",
            Self::UsernameTaken => "username_taken",
            Self::RegistrationClosed | Self::InviteNeeded => "registration_closed",
            Self::InvalidInvite => "invalid_invite",
            Self::InvalidCredentials => "invalid_credentials",
            Self::Unauthorized => "unauthorized",
            Self::ForbiddenOrigin => "forbidden_origin",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType | Self::NotAPicture => "unsupported_media_type",
            Self::RateLimited(_) => "rate_limited",
            Self::NoSpace => "no_space",
            Self::TooManyConnections | Self::Unavailable => "unavailable",
        }
    }

    /// The status that goes with the code.
    #[must_use]
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::InvalidBody(_) | Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::InvalidUsername | Self::InvalidPassword | Self::InvalidMessage(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UsernameTaken | Self::NameTaken | Self::Archived | Self::TooOld => StatusCode::CONFLICT,
            Self::Gone => StatusCode::GONE,
            Self::RegistrationClosed
            | Self::InviteNeeded
            | Self::InvalidInvite
            | Self::Forbidden
            | Self::ForbiddenOrigin => StatusCode::FORBIDDEN,
            Self::InvalidCredentials | Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType | Self::NotAPicture => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Self::TooManyConnections | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Seconds for `Retry-After`, where the answer carries one.
    #[must_use]
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited(wait) => Some(seconds(wait).max(1)),
            Self::TooManyConnections | Self::Unavailable => Some(1),
            _ => None,
        }
    }
}

impl From<db::Error> for ApiError {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::UsernameTaken => Self::UsernameTaken,
            db::Error::InvalidInvite => Self::InvalidInvite,
            db::Error::SessionEnded => Self::Unauthorized,
            db::Error::Unavailable => Self::Unavailable,
        }
    }
}

impl From<db::WriteError> for ApiError {
    fn from(error: db::WriteError) -> Self {
        match error {
            db::WriteError::NotFound => Self::NotFound,
            db::WriteError::Gone => Self::Gone,
            db::WriteError::Forbidden => Self::Forbidden,
            db::WriteError::Archived => Self::Archived,
            db::WriteError::TooOld => Self::TooOld,
        }
    }
}

impl From<db::RoomError> for ApiError {
    fn from(error: db::RoomError) -> Self {
        match error {
            db::RoomError::NotFound => Self::NotFound,
            db::RoomError::Forbidden | db::RoomError::TooMany => Self::Forbidden,
            db::RoomError::NameTaken => Self::NameTaken,
            db::RoomError::NoMembers => Self::InvalidRequest("an open room has no members: everybody reads it"),
            db::RoomError::SessionEnded => Self::Unauthorized,
            db::RoomError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<password::Busy> for ApiError {
    fn from(_: password::Busy) -> Self {
        Self::Unavailable
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_for_other_programs_has_these_codes() {
        let document: serde_json::Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
        let told = &document["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"];
        let mut told: Vec<_> = told.as_array().unwrap().iter().filter_map(|code| code.as_str()).collect();
        let (_, source) = include_str!("error.rs").split_once("const fn code").unwrap();
        let (source, _) = source.split_once("const fn status").unwrap();
        let mut codes: Vec<_> = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        told.sort_unstable();
        codes.sort_unstable();
        assert_eq!(told, codes);
    }
}

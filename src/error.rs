//! The protocol's table of errors: each code with its status and its words.
//!
//! One closed enum, so that a handler can only answer what the contract knows, and the table is read in one place.
//! The cause inside the server goes to the log where it happened; it never travels in one of these.

use std::time::Duration;

use hyper::StatusCode;

use crate::db;
use crate::model::{PASSWORD_MAX_CHARS, PASSWORD_MIN_CHARS, USERNAME_MAX_CHARS};
use crate::password;

/// The words of a server that has no place for who asks, and was not asked anything else.
pub const TOO_MANY_CONNECTIONS: &str = "too many connections: try again soon";

/// What a request may be refused with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// The body is not the JSON object asked for.
    #[error("the body must be a JSON object with the strings \"username\" and \"password\", and \"invite\" if any")]
    InvalidJson,
    /// A malformed query or parameter; the text says which.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The name is not one a person can have.
    #[error(
        "a username has 1 to {USERNAME_MAX_CHARS} of the characters A-Z a-z 0-9 . _ - and starts with a letter or digit"
    )]
    InvalidUsername,
    /// The password is too short or too long.
    #[error("a password has {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters")]
    InvalidPassword,
    /// Somebody has this name, in whatever case.
    #[error("this username is taken")]
    UsernameTaken,
    /// The operator lets nobody in by themselves.
    #[error("registration is closed on this server")]
    RegistrationClosed,
    /// The operator lets in only who is invited, and no invitation was shown.
    #[error("registration on this server needs an invitation")]
    InviteNeeded,
    /// No such invitation, or not any more.
    #[error("this invitation is not valid, or not any more")]
    InvalidInvite,
    /// A wrong name or a wrong password: which of the two is not said.
    #[error("wrong username or password")]
    InvalidCredentials,
    /// No session, or a dead one.
    #[error("this needs a live session: log in")]
    Unauthorized,
    /// A page of another site asks.
    #[error("requests from this origin are not allowed here")]
    ForbiddenOrigin,
    /// There is nothing at this path.
    #[error("there is nothing here")]
    NotFound,
    /// The path is right and the method is not; carries the value of `Allow`.
    #[error("this path takes only {0}")]
    MethodNotAllowed(&'static str),
    /// `GET /ws` without an upgrade.
    #[error("this path speaks WebSocket, version 13: ask for an upgrade to it")]
    UpgradeRequired,
    /// The body is larger than the route takes.
    #[error("the request is too large")]
    PayloadTooLarge,
    /// The request's target is longer than is taken (RFC 9112 3).
    #[error("the address is too long")]
    UriTooLong,
    /// The request's head is larger, or has more headers, than is taken.
    #[error("the request's headers are too large or too many")]
    HeadTooLarge,
    /// The body did not arrive in time.
    #[error("the request took too long to arrive")]
    RequestTimeout,
    /// The body is not `application/json`.
    #[error("the body must be application/json")]
    UnsupportedMediaType,
    /// Too many of these; carries how long to wait.
    #[error("too many requests: wait {} s", seconds(.0))]
    RateLimited(Duration),
    /// The server or the address has as many connections as it may.
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
    /// The contract's code.
    #[must_use]
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidRequest(_)
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
            Self::NotFound => "not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimited(_) => "rate_limited",
            Self::TooManyConnections | Self::Unavailable => "unavailable",
        }
    }

    /// The status that goes with the code.
    #[must_use]
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::InvalidJson | Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::InvalidUsername | Self::InvalidPassword => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UsernameTaken => StatusCode::CONFLICT,
            Self::RegistrationClosed | Self::InviteNeeded | Self::InvalidInvite | Self::ForbiddenOrigin => {
                StatusCode::FORBIDDEN
            }
            Self::InvalidCredentials | Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
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

impl From<password::Busy> for ApiError {
    fn from(_: password::Busy) -> Self {
        Self::Unavailable
    }
}

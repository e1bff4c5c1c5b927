//! HTTP: every route except the WebSocket's, and what all answers have in common.

pub(crate) mod about;
pub(crate) mod account;
pub(crate) mod assets;
mod body;
mod error;
pub(crate) mod images;
pub(crate) mod messages;
pub(crate) mod metrics;
mod percent;
pub(crate) mod proxy;
#[cfg(feature = "push")]
pub(crate) mod push;
mod response;
pub(crate) mod rest;
pub(crate) mod rooms;
pub(crate) mod search;
mod session;
mod stream;

#[cfg(any(test, fuzzing))]
pub(crate) use body::is_json;
pub(crate) use error::ApiError;
pub use error::TOO_MANY_CONNECTIONS;
pub(crate) use percent::percent_decode;
pub(crate) use response::{Response, empty, error_response, override_hyper_error, raw_error_response, secure};
pub(crate) use stream::HttpStream;

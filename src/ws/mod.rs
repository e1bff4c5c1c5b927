//! WebSocket: the upgrade, authentication, and the life of one connection.

mod authenticate;
mod connection;
#[cfg(feature = "echo")]
pub mod echo;
mod frames;
mod upgrade;

#[cfg(any(test, fuzzing))]
pub(crate) use frames::FrameTracker;
pub(crate) use upgrade::upgrade;
#[cfg(any(test, fuzzing))]
pub(crate) use upgrade::{is_key, lists};

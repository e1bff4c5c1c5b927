//! A client of NATS: the part of its protocol that a replicated log needs, which is core NATS.
//!
//! A [`Connection`] is one TCP (or TLS) connection to one server, and ends with it: requests over it fail at once, and
//! nothing is kept to be sent over another one later. So the [publisher](super::publisher) knows that an entry is
//! published once. [`Link`] reconnects; subscribers then subscribe again.
//!
//! The server is trusted no further than its bytes: lines, headers and payloads are bounded, and one that is silent for
//! some seconds despite pings counts as dead.

mod address;
mod connection;
mod link;
mod protocol;

pub use address::Address;
pub(crate) use connection::{Connection, Error, Servers, Subscription, new_inbox};
pub(crate) use link::{Link, VERSION_NEEDED, connect_to_any, is_new_enough};
pub(crate) use protocol::Message;
#[cfg(any(test, fuzzing))]
pub(super) use protocol::read_anything;

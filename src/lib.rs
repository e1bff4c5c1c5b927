//! chinwag: a real-time chat server for small devices, and a reference for how one is written.
//!
//! A message takes two hops from its sender's socket to everybody's: the sender's connection task (`handler::ws`) hands
//! it to the [writer thread](db), which commits all that waits at once and publishes what it committed; a
//! shard (`fan_out`) then writes the encoded batch to every socket that keeps up. The README's architecture section
//! draws it.

pub mod config;
pub mod control;
pub mod db;
mod error;
mod fan_out;
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod http_stream;
mod hub;
mod listen;
mod metrics;
pub mod model;
pub mod password;
mod presence;
pub mod protocol;
mod proxy;
mod rate_limit;
mod response;
mod router;
mod server;
mod stream;
#[cfg(feature = "tls")]
mod tls;

pub use error::TOO_MANY_CONNECTIONS;
#[doc(hidden)]
pub use handler::ws::echo;
pub use server::{BindError, RunError, Server, ShutdownHandle, shards_for};

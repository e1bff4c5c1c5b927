//! Several nodes that are one chat, on the real NATS JetStream.
//!
//! The servers are [`Engine`]'s, one or three of them; `tests/cluster/get-nats-server` gets the program. What the log
//! promises is held against what clients were told, and against the databases, which must all be equal in the end.

#[path = "../common/mod.rs"]
mod common;

mod agreement;
mod apart;
mod bare;
mod engine;
mod faults;
mod load;
mod log;
mod nodes;
mod operator;
mod power;
#[cfg(feature = "push-test")]
mod push;
#[cfg(feature = "push-test")]
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../common/push_service.rs"]
mod push_service;
mod security;

use engine::Engine;

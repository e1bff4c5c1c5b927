//! The fan-out: a shard takes what is published and writes it to every socket that keeps up.
//!
//! A shard is a loop with one receiver of the broadcast channel. It writes everything that is pending, already encoded,
//! to each of its sockets with one non-blocking write. Nothing is copied or queued for a connection and no task is
//! woken, so a connection that keeps up costs one `send` per delivery and nothing else.
//!
//! A frame that is not for everybody carries its [reach](Reach), and a subscriber knows which rooms its user reads. A
//! change of a room or its members travels in the same channel: each subscriber it concerns is handed to its own task,
//! which reads rooms and events from the database in one transaction. So the rooms of a subscriber change exactly
//! between two frames.
//!
//! A socket that would block is left alone from then on: its own task writes. It finishes the frame that was cut, reads
//! from the database what was missed meanwhile, and [joins](Shard::join) again. So a slow reader costs the others
//! nothing and needs no queue of its own: the database is the queue.
//!
//! Shard and task share a [`Subscriber`]. Its write owner says who writes next, so that no frame is split by another
//! writer. Its position says what has been sent, so that nothing is skipped or repeated when the owner changes.

mod batch;
mod hub;
mod presence;
mod shard;
mod subscriber;

pub(crate) use batch::{FrameBatchBuilder, FrameKind, Position, Reach, Span};
pub(crate) use hub::{Broadcast, Hub};
#[cfg(feature = "cluster")]
pub(crate) use presence::Local;
pub(crate) use presence::{OnlineSnapshot, Presence, PresenceGuard};
pub(crate) use shard::Shard;
pub(crate) use subscriber::{Clock, CloseReason, Subscriber, WakeReason};

//! What the tests stand on: a real server in a process of its own, and two kinds of client for it.
//!
//! [`TestServer`] owns the process and its database file. [`Client`] is a person with a session, whose [`Connection`]s
//! and [`Follower`]s behave. [`RawClient`] sends the bytes that a polite client cannot. Whatever answers they read has
//! to be as the documents for other programs say ([`schema`]).
//!
//! With how many shards is the environment's to say: `CHINWAG_SHARDS=4 cargo test` has every server run with four. No
//! test knows the number. On two shards or more what one task does is seen by another in any order, so a test waits for
//! each thing by itself: a message may come before its ack; a place, or a descriptor, is free a moment after the answer
//! on a connection that was closed; who has just authenticated may hear of a join by a list ([`Connection::settled`]).
//!
//! No test sleeps and hopes: it waits for a frame, an answer or an end, and every wait has the deadline
//! [`PATIENCE`], so that a broken promise is a panic that says what was missing, and never a hang.

#![allow(dead_code, reason = "each test file uses its own part of this module")]
#![allow(unused_imports, reason = "each test file uses its own part of this module")]

mod client;
mod command;
mod follower;
mod http;
mod raw;
pub(crate) mod schema;
mod server;

use std::future::Future;
use std::io::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

pub(crate) use client::{Client, Connection, PASSWORD, gather};
pub(crate) use command::{Ended, chinwag, chinwag_in, chinwag_reading};
pub(crate) use follower::Follower;
pub(crate) use http::{Request, Response};
pub(crate) use raw::{
    BINARY, CLOSE, CONTINUATION, FIN, HANDSHAKE, PING, PONG, RawClient, RawFrame, TEXT, frame, header, unmasked,
};
pub(crate) use server::{TestServer, raise_descriptor_limit, reserved_port, run_to_end};

/// How long any one wait may take: far past the longest deadline of the contract (10 s), since the machine may be busy
/// with ten times what it can do; only what never comes is waited for so long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Within what a stop is asserted to be over. The contract's 5 s, of which it uses up to 4.5 by design, leave no room
/// for a busy machine; a stop that waits for what it must not wait for takes 10 s and more.
pub(crate) const STOP: Duration = Duration::from_secs(8);

/// The program under test: Cargo's, or the one that `CHINWAG_BIN` names, of another build or behind an emulator.
pub(crate) fn binary() -> &'static str {
    static BINARY: LazyLock<String> = LazyLock::new(|| match std::env::var("CHINWAG_BIN") {
        // Absolute, since some tests run it in a directory of their own.
        Ok(path) => std::fs::canonicalize(path).expect("CHINWAG_BIN is a program").display().to_string(),
        Err(_) => env!("CARGO_BIN_EXE_chinwag").to_owned(),
    });
    &BINARY
}

/// The outcome of `wait`, or a panic naming what did not come.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, wait).await;
    outcome.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}

/// Waits as long as `it_is`, which another process changes in its own time; panics if it stays so.
pub(crate) async fn wait_while(what: &str, mut it_is: impl AsyncFnMut() -> bool) {
    within(what, async {
        while it_is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Says that a test passes without having tested anything, unless `CHINWAG_NO_SKIP` forbids that, as `.ci/run` does.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CHINWAG_NO_SKIP").is_none(), "nothing is to be skipped, but {why}");
    writeln!(std::io::stderr(), "skipped: {why}").expect("standard error takes a line");
}

/// A stored message, as the socket and the history both show it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Message {
    pub(crate) id: i64,
    pub(crate) username: String,
    pub(crate) content: String,
    pub(crate) created_at: i64,
}

impl Message {
    /// Reads a `message` frame or an entry of the history.
    pub(crate) fn parse(value: &Value) -> Message {
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("no MESSAGE ({error}): {value}"))
    }
}

/// The ids of `messages`, in their order.
pub(crate) fn ids(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| message.id).collect()
}

/// The texts of `messages`, in their order.
pub(crate) fn contents(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.content.as_str()).collect()
}

/// The integer `value` holds.
pub(crate) fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("no integer: {value}"))
}

/// The string `value` holds.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}"))
}

/// The value of one series of the metrics, named with its labels.
pub(crate) fn metric(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in:\n{metrics}"))
}

/// Now, as the contract tells time.
pub(crate) fn unix_millis() -> i64 {
    let since_epoch =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since_epoch.as_millis()).expect("the clock is before the year 292 million")
}

/// A small seeded generator (xorshift64*), so that a random walk which fails can be walked again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(mixed).expect("31 bits fit") % bound
    }
}

//! chinwag: a real-time chat server for small devices, and a reference for how one is written.
//!
//! A message takes two hops from its sender's socket to everybody's: the sender's connection task (`ws`) hands it to
//! the [writer thread](db), which commits everything that waits at once and publishes it; a shard (`fan_out`) then
//! writes the encoded batch to every socket that keeps up. A socket that does not is caught up by its own task, from
//! the database. To understand this, read these eight functions in order:
//!
//! 1. `Connection::receive` in `ws/connection.rs`: what one read brought becomes one command.
//! 2. `Writer::run_all` in `db/writer.rs`: while one commit is on its way to the disk, the next batch gathers.
//! 3. `Writer::try_transact`, there: the transaction, and what comes before the first one after a failure.
//! 4. `Execution::write` in `db/write.rs`: the nonce, the room's rules, the next id.
//! 5. `Writer::publish` in `db/writer.rs`: who is told what was committed, and in which order.
//! 6. `Hub::publish_batch` in `fan_out/hub.rs`: encode once, and wait for shards that are behind.
//! 7. `Subscriber::deliver` in `fan_out/subscriber.rs`: one write to one socket, if nothing is missing before it.
//! 8. `Connection::catch_up` in `ws/connection.rs`: from wherever a connection is to where its shard is.
//!
//! The folders are layers, each of which uses those after it: `server`, `router` and `control`; `ws`; `http`; `app`;
//! `push` and `cluster`; `fan_out`; `net`; `protocol`; `db`; `model`, `room` and `secret`; `config` and `limits`.
//! `docs/ARCHITECTURE.md` draws them, names the few exceptions, and says why a crash loses nothing.
//!
//! # Example
//!
//! A server inside a test: on a port that is free, with a database of its own, and stopped in order at the end.
//!
//! ```
//! use chinwag::Server;
//! use chinwag::config::Config;
//! use clap::Parser;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! #[derive(Parser)]
//! struct Flags {
//!     #[command(flatten)]
//!     config: Config,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let database = folder.path().join("chat.db").display().to_string();
//! let flags = ["test", "--listen", "127.0.0.1:0", "--db", &database];
//! let server = Server::bind(Flags::parse_from(flags).config).await?;
//! let url = server.addresses().remove(0);
//! let stop = server.shutdown_handle();
//! let running = tokio::spawn(server.run());
//!
//! let mut connection = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await?;
//! connection.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
//! let mut answer = String::new();
//! connection.read_to_string(&mut answer).await?;
//! assert!(answer.ends_with(r#"{"status":"ok"}"#));
//!
//! stop.shutdown();
//! running.await??;
//! # Ok(())
//! # }
//! ```

mod app;
mod auth_rate;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod config;
pub mod control;
pub mod db;
mod fan_out;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod limits;
mod memory;
mod metrics;
pub mod model;
mod net;
pub mod password;
mod picture;
pub mod protocol;
#[cfg(feature = "push")]
mod push;
mod rate_limit;
pub mod room;
mod router;
pub mod secret;
mod server;
mod space;
mod unfinished;
mod ws;

pub use http::TOO_MANY_CONNECTIONS;
pub use net::reachable;
pub use server::{BindError, RunError, Server, ShutdownHandle};
#[cfg(feature = "echo")]
#[doc(hidden)]
pub use ws::echo;

//! An echo server on chinwag's own connection code, for conformance suites such as Autobahn: `tests/autobahn/run`.
//!
//! `cargo run --release --features echo --example echo -- 127.0.0.1:9001`

#![expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]

use anyhow::Context as _;

/// The suite's largest messages are of 16 MiB; the program itself takes 64 KiB.
const MESSAGE_MAX_BYTES: usize = 16 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("name an address and a port to listen on")?;
    let listener =
        tokio::net::TcpListener::bind(&address).await.with_context(|| format!("cannot listen on {address}"))?;
    println!("echoing on ws://{}", listener.local_addr()?);
    match chinwag::echo::serve(listener, MESSAGE_MAX_BYTES).await? {}
}

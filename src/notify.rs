//! Tells systemd the state of the service: ready, stopping, alive (`sd_notify(3)`).
//!
//! That is one datagram of text to a socket named in the environment: too little for a library. Without systemd nothing
//! is sent. A timer of the runtime that serves the connections feeds the watchdog, so that a runtime that hangs does
//! not; a failing disk does not stop it, since a restart would end every connection and repair nothing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// The supervisor that started this process, if there is one. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor(Option<Arc<UnixDatagram>>);

impl Supervisor {
    /// Finds the supervisor named in the environment.
    pub(crate) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                tracing::warn!(%error, "cannot reach the supervisor named by NOTIFY_SOCKET");
                None
            }
        });
        Self(socket)
    }

    /// The server is ready. Starts feeding the watchdog, if there is one.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
        if self.0.is_some()
            && let Some(patience) = watchdog_patience()
        {
            tokio::spawn(self.clone().feed_watchdog(patience / 2));
        }
    }

    /// The server is about to end.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    async fn feed_watchdog(self, every: Duration) {
        let mut interval = tokio::time::interval(every);
        loop {
            interval.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(state, %error, "cannot notify the supervisor");
        }
    }
}

/// A name that begins with `@` is in Linux's abstract namespace; any other is a path.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // The server does not wait for its supervisor.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How long systemd waits for a sign of life before it restarts this process (`sd_watchdog_enabled(3)`).
fn watchdog_patience() -> Option<Duration> {
    let ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let micros = env::var("WATCHDOG_USEC").ok()?.parse().ok().filter(|&micros: &u64| micros > 0)?;
    ours.then_some(Duration::from_micros(micros))
}

//! Telling systemd how the service is: ready, stopping, alive (`sd_notify(3)`).
//!
//! A datagram of text to a socket that the environment names: too little for a library. Without systemd nothing is
//! told. The watchdog is fed by a timer of the runtime that serves the connections, so it starves when that hangs; a
//! failing disk does not starve it, since a restart would end every connection and mend nothing.

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
    /// Finds the supervisor that the environment names.
    pub(crate) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                tracing::warn!(%error, "cannot reach the supervisor that NOTIFY_SOCKET names");
                None
            }
        });
        Self(socket)
    }

    /// The server answers from now on. Has the watchdog fed, if there is one.
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
            tracing::warn!(state, %error, "cannot tell the supervisor");
        }
    }
}

/// A name that begins with `@` is one of Linux's abstract namespace, and any other a path.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // The server does not wait for whoever watches it.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How long systemd waits for a sign of life before it restarts this process (`sd_watchdog_enabled(3)`).
fn watchdog_patience() -> Option<Duration> {
    let ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let micros = env::var("WATCHDOG_USEC").ok()?.parse().ok().filter(|&micros: &u64| micros > 0)?;
    ours.then_some(Duration::from_micros(micros))
}

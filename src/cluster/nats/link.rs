//! The connection that is kept up: to one of the servers after the other, whenever it ends.

use std::time::Duration;

use tokio::sync::watch;

use super::address::Address;
use super::connection::{ConnectError, Connection, Servers};

/// The first version of a server that keeps on disk what it acknowledges, also when another leads a stream.
pub(crate) const VERSION_NEEDED: (u32, u32) = (2, 15);
/// Time between two tries to connect, to one server after the other.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// The current connection, if there is one; kept up by [`Link::keep`].
#[derive(Debug, Clone)]
pub(crate) struct Link(watch::Receiver<Option<Connection>>);

impl Link {
    /// Connects, and reconnects whenever the connection ends. The future is the task that does this, and never ends.
    pub(crate) fn keep(servers: Servers) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = watch::channel(None);
        (Self(receiver), keep(servers, sender))
    }

    /// The current connection.
    pub(crate) fn current(&self) -> Option<Connection> {
        self.0.borrow().clone()
    }

    /// Waits until there is a connection. Cancel safe.
    pub(crate) async fn connected(&self) -> Connection {
        let mut watched = self.0.clone();
        loop {
            if let Some(connection) = watched.borrow_and_update().clone() {
                return connection;
            }
            if watched.changed().await.is_err() {
                // The server stops: there will be none.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn keep(servers: Servers, current: watch::Sender<Option<Connection>>) {
    let mut failing = false;
    for server in servers.addresses.iter().cycle() {
        match Connection::open(server, &servers).await {
            Ok(connection) => {
                failing = false;
                let version = &connection.info().version;
                tracing::info!(%server, version, "connected to NATS");
                if !is_new_enough(version) {
                    tracing::warn!(%server, version, "this NATS server is too old: it may lose what it acknowledged");
                }
                current.send_replace(Some(connection.clone()));
                connection.ended().await;
                current.send_replace(None);
                tracing::warn!(%server, "the connection to NATS is lost");
            }
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%server, %error, "cannot connect to NATS, trying the next");
            }
            Err(error) => tracing::debug!(%server, %error, "cannot connect to NATS"),
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Whether a server of this version loses nothing that it acknowledged.
pub(crate) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= VERSION_NEEDED
}

/// Connects to the first of the servers that accepts us, for a command.
///
/// # Errors Why the last of them did not.
pub(crate) async fn connect_to_any(servers: &Servers) -> Result<Connection, (Address, ConnectError)> {
    let mut last = None;
    for server in &servers.addresses {
        match Connection::open(server, servers).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = Some((server.clone(), error)),
        }
    }
    Err(last.expect("there is one server at least"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_new_enough_from_2_15_on() {
        assert!(is_new_enough("2.15.0") && is_new_enough("2.15.1-RC.1") && is_new_enough("3.0.0"));
        assert!(!is_new_enough("2.14.9") && !is_new_enough("1.99.0") && !is_new_enough(""));
    }
}

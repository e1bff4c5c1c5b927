//! Connections as streams of bytes: where they come from, who may have one, and TLS.

mod admission;
#[cfg(feature = "tls")]
mod certificate;
mod listen;
mod network;
mod reachable;
mod read_all;
mod stream;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use admission::{ConnectionPermits, ConnectionsPerIp, IpPermit, KnownAddresses, Peer};
#[cfg(feature = "tls")]
pub(crate) use certificate::Certificate;
pub use listen::Endpoint;
pub(crate) use listen::{Listener, SocketFile, remove_stale};
pub use network::Network;
pub use reachable::reachable;
pub(crate) use stream::Stream;

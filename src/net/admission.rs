//! Admission: the permits that a connection holds, and the limit per address. Strangers are counted before a byte is
//! read, and apart from members, so that they cannot take the places of members.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use crate::limits::{KEPT_OPEN_PER_IP, USER_ADDRESSES_KNOWN, USERS_KNOWN_MAX};
use crate::model::UserId;
use crate::rate_limit::{CountedNetwork, address_key, networks_of};

/// How many connections of a kind each address has, and of IPv6 each [network](networks_of) around it. A network
/// without any is not in the map, which has at most three entries for each connection.
#[derive(Debug)]
pub(crate) struct ConnectionsPerIp {
    most: usize,
    /// A cap for every network, however wide.
    network_most: usize,
    connections: Mutex<HashMap<(IpAddr, u32), usize>>,
}

impl ConnectionsPerIp {
    /// At most so many of an address, and as many times that of a wider network as it has room for customers, up to
    /// `network_most`. 0 is no limit.
    pub(crate) fn new(most: usize, network_most: usize) -> Self {
        let most = if most == 0 { usize::MAX } else { most };
        Self { most, network_most: network_most.max(most), connections: Mutex::default() }
    }

    /// Counts a connection of `address`, unless it or a network around it has as many as allowed.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<IpPermit> {
        let mut connections = self.lock();
        let has_place =
            |network: CountedNetwork| count(&connections, network) < times(self.most, network).min(self.network_most);
        if !networks_of(address).all(has_place) {
            return None;
        }
        for network in networks_of(address) {
            *connections.entry(key(network)).or_default() += 1;
        }
        Some(IpPermit { limit: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(IpAddr, u32), usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(network: CountedNetwork) -> (IpAddr, u32) {
    (network.base, network.prefix)
}

fn count(connections: &HashMap<(IpAddr, u32), usize>, network: CountedNetwork) -> usize {
    connections.get(&key(network)).copied().unwrap_or_default()
}

/// `count`, scaled for a wider network.
fn times(count: usize, network: CountedNetwork) -> usize {
    count.saturating_mul(network.times as usize)
}

/// Counts as a connection of its address until it is dropped.
#[derive(Debug)]
pub(crate) struct IpPermit {
    limit: Arc<ConnectionsPerIp>,
    address: IpAddr,
}

impl IpPermit {
    /// The address whose connection it counts.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether the address, or a network around it, has more than half of its allowed connections, and more than a few
    /// browsers keep open.
    fn is_crowded(&self) -> bool {
        let connections = self.limit.lock();
        let few = (self.limit.most / 2).max(KEPT_OPEN_PER_IP);
        let at_most = (self.limit.network_most / 2).max(few);
        networks_of(self.address).any(|network| count(&connections, network) > times(few, network).min(at_most))
    }
}

impl Drop for IpPermit {
    fn drop(&mut self) {
        let mut connections = self.limit.lock();
        for network in networks_of(self.address) {
            if let Entry::Occupied(mut entry) = connections.entry(key(network)) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }
}

/// The addresses from which users connected last: the last places are kept for these, so that strangers, however many
/// addresses they have, do not keep everybody out.
#[derive(Debug, Default)]
pub(crate) struct KnownAddresses(Mutex<HashMap<UserId, VecDeque<IpAddr>>>);

impl KnownAddresses {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, VecDeque<IpAddr>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a user has connected from an address. Only a few are kept for each user, so that an account with many
    /// addresses does not push out anybody else's.
    pub(crate) fn note(&self, user: UserId, address: IpAddr) {
        let mut known = self.lock();
        if known.len() >= USERS_KNOWN_MAX
            && !known.contains_key(&user)
            && let Some(&some) = known.keys().next()
        {
            known.remove(&some);
        }
        let (addresses, address) = (known.entry(user).or_default(), address_key(address));
        addresses.retain(|other| *other != address);
        addresses.push_back(address);
        if addresses.len() > USER_ADDRESSES_KNOWN {
            addresses.pop_front();
        }
    }

    /// Whether a user has connected from this address. Looks at all of them, and is called when few places are left.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address_key(address);
        self.lock().values().any(|addresses| addresses.contains(&address))
    }
}

/// The permits that a connection holds.
#[derive(Debug)]
pub(crate) struct ConnectionPermits {
    /// One of all connections.
    pub(crate) connection: OwnedSemaphorePermit,
    /// One of its address's unauthenticated connections; of its authenticated ones from then on. A trusted proxy's
    /// connection has none until it carries a request.
    pub(crate) per_ip: Option<IpPermit>,
}

/// The peer of a request, and the permits of its connection until a WebSocket takes them over.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The client's address: behind a trusted proxy, the forwarded one.
    pub(crate) address: IpAddr,
    /// Whether the connection is from a trusted proxy.
    pub(crate) proxied: bool,
    /// Whether the connection is encrypted by this server.
    pub(crate) is_tls: bool,
    pub(crate) permits: Arc<Mutex<Option<ConnectionPermits>>>,
}

impl Peer {
    /// Whether fewer than `kept` places are free beside that of its connection: it has one of the last.
    pub(crate) fn has_one_of_the_last_places(&self, kept: usize) -> bool {
        let permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        permits.as_ref().is_some_and(|permits| permits.connection.semaphore().available_permits() < kept)
    }

    /// Counts a trusted proxy's connection for the client whose request it carries now, in place of the client before,
    /// which it counted for until now because the answer might be unread. False if the address has as many as allowed.
    pub(crate) fn count_for_client(&self, limit: &Arc<ConnectionsPerIp>) -> bool {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(permits) = permits.as_mut() else { return true };
        permits.per_ip = None;
        permits.per_ip = limit.enter(self.address);
        permits.per_ip.is_some()
    }

    /// Whether the connection should close after its answer, because its address has many: browsers keep connections
    /// open for a while, so that a class behind one address would lock out its own latecomers.
    pub(crate) fn is_crowded(&self) -> bool {
        // A new one would cost another handshake.
        if self.is_tls {
            return false;
        }
        let permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        permits.as_ref().and_then(|permits| permits.per_ip.as_ref()).is_some_and(IpPermit::is_crowded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        let [.., high, low] = number.to_be_bytes();
        IpAddr::from([198, 51, high, low])
    }

    #[test]
    fn strangers_of_one_ipv6_customer_have_half_of_all_places_at_most() {
        let limit = Arc::new(ConnectionsPerIp::new(64, 100));
        let network = |number: usize| format!("2001:db8:0:{number:x}::1").parse().unwrap();
        let inside: Vec<_> = (0..1_000).filter_map(|number| limit.enter(network(number))).collect();
        assert_eq!(inside.len(), 100);
        assert!(inside[0].is_crowded(), "what is kept open between requests leaves room");
        assert!(limit.enter(address(1)).is_some(), "another customer");
    }

    #[test]
    fn of_a_user_the_last_few_addresses_are_known_whatever_others_do() {
        let known = KnownAddresses::default();
        known.note(UserId(1), address(0));
        for number in 1..=2 * USER_ADDRESSES_KNOWN {
            known.note(UserId(2), address(number));
        }
        let last: Vec<_> = (1..=2 * USER_ADDRESSES_KNOWN).filter(|number| known.contains(address(*number))).collect();
        assert_eq!(last, (USER_ADDRESSES_KNOWN + 1..=2 * USER_ADDRESSES_KNOWN).collect::<Vec<_>>());
        assert!(known.contains(address(0)), "another user's");
    }

    #[test]
    fn the_users_whose_addresses_are_known_are_bounded() {
        let known = KnownAddresses::default();
        for user in 0..=USERS_KNOWN_MAX {
            known.note(UserId(i64::try_from(user).unwrap()), address(user));
        }
        assert_eq!(known.lock().len(), USERS_KNOWN_MAX);
        assert!(known.contains(address(USERS_KNOWN_MAX)), "the last one");
    }
}

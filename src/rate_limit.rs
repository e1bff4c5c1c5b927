//! Token buckets, with the clock passed in.
//!
//! A bucket holds up to `burst` tokens and regains `rate` a second; each action takes one. It is stored as the moment
//! at which it would be full again, which is its whole state (the "generic cell rate algorithm").

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::BUCKETS_MAX;

/// What a bucket allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Time to regain one token.
    interval: Duration,
    /// Time to regain all tokens.
    depth: Duration,
}

impl Allowance {
    /// `count` actions per second, with a burst of `burst`.
    pub(crate) fn per_second(count: u32, burst: u32) -> Self {
        Self::new(count, Duration::from_secs(1), burst)
    }

    /// `count` actions per `period`, with a burst of `burst`.
    pub(crate) fn new(count: u32, period: Duration, burst: u32) -> Self {
        let interval = period / count.max(1);
        Self { interval, depth: interval * burst.max(1) }
    }
}

impl Allowance {
    /// `count` times the allowance.
    fn times(self, count: u32) -> Self {
        let interval = self.interval / count.max(1);
        Self { interval, depth: self.depth }
    }
}

/// One bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes a token, or says how long to wait for one.
    pub(crate) fn take(&mut self, allowance: Allowance, now: Instant) -> Result<(), Duration> {
        self.take_many(1, allowance, now)
    }

    /// Takes `count` tokens, or says how long to wait for them.
    pub(crate) fn take_many(&mut self, count: u32, allowance: Allowance, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + allowance.interval * count;
        let missing = full_at - now;
        if let Some(wait) = missing.checked_sub(allowance.depth).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Puts `count` tokens back, as far as there is room.
    pub(crate) fn put_back(&mut self, count: u32, allowance: Allowance, now: Instant) {
        let taken = self.full_at.saturating_duration_since(now);
        self.full_at = now + taken.saturating_sub(allowance.interval * count);
    }
}

/// A bucket for each key, for a bounded number of keys.
///
/// When the table is full, full buckets are removed: they are the same as new ones. If that makes no room, new keys
/// share one bucket, so that a flood of addresses neither grows the table nor gets a burst for each.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    /// `None`: no limit.
    allowance: Option<Allowance>,
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    known: HashMap<K, Bucket>,
    newcomers: Option<Bucket>,
    /// When it is next worth looking for full buckets.
    sweep_at: Option<Instant>,
}

impl<K: Hash + Eq> Limiter<K> {
    pub(crate) fn new(allowance: Option<Allowance>) -> Self {
        Self { allowance, buckets: Mutex::new(Buckets { known: HashMap::new(), newcomers: None, sweep_at: None }) }
    }

    /// Takes a token from the bucket of `key`, or says how long to wait for one.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        self.take_many(key, 1, now)
    }

    /// Takes `count` tokens from the bucket of `key`, or says how long to wait for them.
    pub(crate) fn take_many(&self, key: K, count: u32, now: Instant) -> Result<(), Duration> {
        let Some(allowance) = self.allowance else { return Ok(()) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.known.get_mut(&key) {
            return bucket.take_many(count, allowance, now);
        }
        // At most one sweep in the time that a token takes to come back: few buckets fill in less.
        if buckets.known.len() >= BUCKETS_MAX && buckets.sweep_at.is_none_or(|at| at <= now) {
            buckets.known.retain(|_, bucket| bucket.full_at > now);
            buckets.sweep_at = Some(now + allowance.interval);
        }
        if buckets.known.len() >= BUCKETS_MAX {
            return buckets.newcomers.get_or_insert(Bucket::full(now)).take_many(count, allowance, now);
        }
        let mut bucket = Bucket::full(now);
        let taken = bucket.take_many(count, allowance, now);
        buckets.known.insert(key, bucket);
        taken
    }

    /// Puts `count` tokens back into the bucket of `key`.
    pub(crate) fn put_back(&self, key: &K, count: u32, now: Instant) {
        let Some(allowance) = self.allowance else { return };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.known.get_mut(key) {
            bucket.put_back(count, allowance, now);
        }
    }
}

/// A bucket for each address; for IPv6 one for each /64, and wider ones for the /56 and the /48 around it, since a
/// customer may have as many as 65,536 of the smaller networks.
#[derive(Debug)]
pub(crate) struct IpLimiter([Limiter<IpAddr>; 3]);

/// The networks' prefixes, each with its allowance as a multiple of the smallest network's.
const NETWORKS: [(u32, u32); 3] = [(64, 1), (56, 4), (48, 16)];

impl IpLimiter {
    pub(crate) fn new(allowance: Option<Allowance>) -> Self {
        Self(NETWORKS.map(|(_, times)| Limiter::new(allowance.map(|allowance| allowance.times(times)))))
    }

    /// Takes a token from the bucket of `address` and from those around it, or says how long to wait and takes none.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        for (level, (limiter, network)) in self.each(address).enumerate() {
            if let Err(wait) = limiter.take(network, now) {
                let taken = self.each(address).take(level);
                taken.for_each(|(limiter, network)| limiter.put_back(&network, 1, now));
                return Err(wait);
            }
        }
        Ok(())
    }

    /// Puts a token back into the bucket of `address` and into those around it.
    pub(crate) fn put_back(&self, address: IpAddr, now: Instant) {
        self.each(address).for_each(|(limiter, network)| limiter.put_back(&network, 1, now));
    }

    /// The limiters of an address, each with the network that it counts.
    fn each(&self, address: IpAddr) -> impl Iterator<Item = (&Limiter<IpAddr>, IpAddr)> {
        self.0.iter().zip(networks_of(address)).map(|(limiter, network)| (limiter, network.base))
    }
}

/// A network that an address counts in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CountedNetwork {
    pub(crate) base: IpAddr,
    /// Its bits, for IPv6.
    pub(crate) prefix: u32,
    /// Its allowance as a multiple of the smallest network's.
    pub(crate) times: u32,
}

/// The networks that an address counts in, from the smallest: itself, or for IPv6 the /64, the /56 and the /48 around
/// it.
pub(crate) fn networks_of(address: IpAddr) -> impl Iterator<Item = CountedNetwork> {
    let address = address.to_canonical();
    let levels = if address.is_ipv4() { 1 } else { NETWORKS.len() };
    NETWORKS.into_iter().take(levels).map(move |(prefix, times)| {
        let base = match address {
            IpAddr::V6(v6) => IpAddr::from((v6.to_bits() & (u128::MAX << (128 - prefix))).to_be_bytes()),
            IpAddr::V4(_) => address,
        };
        CountedNetwork { base, prefix, times }
    })
}

/// What counts as one address: an IPv4 address, or the /64 of one IPv6 customer.
pub(crate) fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (allowance, start) = (Allowance::per_second(10, 30), Instant::now());
        let mut bucket = Bucket::full(start);
        assert_eq!((0..100).filter(|_| bucket.take(allowance, start).is_ok()).count(), 30);
        let wait = bucket.take(allowance, start).unwrap_err();
        assert_eq!(wait, SECOND / 10);
        assert!(bucket.take(allowance, start + wait).is_ok());
        assert!(bucket.take(allowance, start + wait).is_err());
        assert_eq!((0..100).filter(|_| bucket.take(allowance, start + 60 * SECOND).is_ok()).count(), 30);
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let (allowance, start) = (Allowance::per_second(1, 1), Instant::now());
        let mut bucket = Bucket::full(start);
        bucket.take(allowance, start).unwrap();
        for _ in 0..100 {
            assert_eq!(bucket.take(allowance, start), Err(SECOND));
        }
    }

    #[test]
    fn what_is_put_back_can_be_taken_again_up_to_the_burst() {
        let (allowance, start) = (Allowance::per_second(10, 30), Instant::now());
        let mut bucket = Bucket::full(start);
        bucket.put_back(30, allowance, start);
        assert_eq!(bucket.take_many(31, allowance, start), Err(SECOND / 10));
        bucket.take_many(30, allowance, start).unwrap();
        bucket.put_back(12, allowance, start);
        assert!(bucket.take_many(13, allowance, start).is_err());
        bucket.take_many(12, allowance, start).unwrap();
    }

    #[test]
    fn the_table_is_bounded_and_newcomers_share_one_bucket_when_it_is_full() {
        let (limiter, now) = (Limiter::new(Some(Allowance::per_second(1, 1))), Instant::now());
        for key in 0..BUCKETS_MAX {
            limiter.take(key, now).unwrap();
        }
        limiter.take(BUCKETS_MAX, now).unwrap();
        // One of them is full again, but that is not looked for at once.
        limiter.put_back(&0, 1, now);
        assert!(limiter.take(BUCKETS_MAX + 1, now).is_err());
        assert_eq!(limiter.buckets.lock().unwrap().known.len(), BUCKETS_MAX);
        limiter.take(BUCKETS_MAX + 1, now + SECOND).unwrap();
        assert_eq!(limiter.buckets.lock().unwrap().known.len(), 1, "buckets that are full again are forgotten");
    }

    #[test]
    fn a_table_with_room_is_not_walked() {
        let (limiter, start) = (Limiter::new(Some(Allowance::per_second(1, 1))), Instant::now());
        limiter.take(1, start).unwrap();
        limiter.take(2, start + Duration::from_mins(1)).unwrap();
        assert_eq!(limiter.buckets.lock().unwrap().known.len(), 2, "the full one is looked for when that is worth it");
    }

    #[test]
    fn the_networks_around_an_ipv6_address_have_limits_of_their_own() {
        let (limiter, now) = (IpLimiter::new(Some(Allowance::per_second(2, 2))), Instant::now());
        let take = |address: String| limiter.take(address.parse().unwrap(), now).is_ok();
        let of_64s = (0..=255).filter(|network| take(format!("2001:db8:0:{network:x}::1"))).count();
        assert_eq!(of_64s, 8, "256 of them are one /56");
        let of_56s = (1..=255).filter(|network| take(format!("2001:db8:0:{network:x}00::1"))).count();
        assert_eq!(8 + of_56s, 32, "256 of those are one /48");
        assert!(take("2001:db8:1::1".into()), "another customer");
    }

    #[test]
    fn a_refusal_by_a_wider_network_takes_nothing_from_the_one_inside() {
        let (limiter, now) = (IpLimiter::new(Some(Allowance::per_second(1, 1))), Instant::now());
        let address = |network: u16| format!("2001:db8:0:{network:x}::1").parse().unwrap();
        for network in 0..4 {
            limiter.take(address(network), now).unwrap();
        }
        assert_eq!(limiter.take(address(4), now), Err(SECOND / 4), "the /56 has no more");
        limiter.take(address(4), now + SECOND / 4).unwrap();
    }

    #[test]
    fn what_is_put_back_can_be_taken_again_in_all_networks_around_an_address() {
        let (limiter, now) = (IpLimiter::new(Some(Allowance::per_second(1, 1))), Instant::now());
        for network in 0..64 {
            let address = format!("2001:db8:0:{network:x}::1").parse().unwrap();
            limiter.take(address, now).unwrap();
            limiter.put_back(address, now);
        }
    }

    #[test]
    fn an_ipv6_customer_is_one_address_and_a_mapped_ipv4_address_is_itself() {
        let key = |address: &str| address_key(address.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}

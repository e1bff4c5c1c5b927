//! Token buckets, with the clock passed in.
//!
//! A bucket holds `burst` tokens and regains `rate` a second; each thing done takes one. It is kept as the moment at
//! which it would be full again, which is all there is to know of it (the "generic cell rate algorithm").

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::BUCKETS_MAX;

/// What a bucket allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Time to regain one token.
    interval: Duration,
    /// Time to regain all.
    depth: Duration,
}

impl Allowance {
    /// `count` things in a second, and `burst` of them at once.
    pub(crate) fn per_second(count: u32, burst: u32) -> Self {
        Self::new(count, Duration::from_secs(1), burst)
    }

    /// `count` things in `period`, and `burst` of them at once.
    pub(crate) fn new(count: u32, period: Duration, burst: u32) -> Self {
        let interval = period / count.max(1);
        Self { interval, depth: interval * burst.max(1) }
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

    /// Takes so many tokens, or says how long to wait for them.
    pub(crate) fn take_many(&mut self, count: u32, allowance: Allowance, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + allowance.interval * count;
        let missing = full_at - now;
        if let Some(wait) = missing.checked_sub(allowance.depth).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Puts so many tokens back; those there is no room for are lost.
    #[cfg(feature = "tls")]
    pub(crate) fn put_back(&mut self, count: u32, allowance: Allowance, now: Instant) {
        let taken = self.full_at.saturating_duration_since(now);
        self.full_at = now + taken.saturating_sub(allowance.interval * count);
    }
}

/// A bucket for each key, for a bounded number of keys.
///
/// A full bucket is forgotten when the table is: it says no more than a new one. If that makes no room, newcomers
/// share one bucket, so that a flood of addresses neither grows the table nor lets each of them in afresh.
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
        let Some(allowance) = self.allowance else { return Ok(()) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.known.get_mut(&key) {
            return bucket.take(allowance, now);
        }
        // At most one sweep for each time a token takes to come back: between two, few buckets fill.
        if buckets.known.len() >= BUCKETS_MAX && buckets.sweep_at.is_none_or(|at| at <= now) {
            buckets.known.retain(|_, bucket| bucket.full_at > now);
            buckets.sweep_at = Some(now + allowance.interval);
        }
        if buckets.known.len() >= BUCKETS_MAX {
            return buckets.newcomers.get_or_insert(Bucket::full(now)).take(allowance, now);
        }
        let mut bucket = Bucket::full(now);
        let taken = bucket.take(allowance, now);
        buckets.known.insert(key, bucket);
        taken
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 customer has.
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

    #[cfg(feature = "tls")]
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
        assert!(limiter.take(BUCKETS_MAX + 1, now).is_err());
        assert_eq!(limiter.buckets.lock().unwrap().known.len(), BUCKETS_MAX);
        limiter.take(BUCKETS_MAX + 1, now + 2 * SECOND).unwrap();
        assert_eq!(limiter.buckets.lock().unwrap().known.len(), 1, "buckets that are full again are forgotten");
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

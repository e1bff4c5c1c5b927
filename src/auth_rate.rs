//! Limits on login and registration, by name and address first, then by address.
//!
//! Many people share an address, and an attacker may have many. So each name is limited at each address first: somebody
//! who guesses slows themselves and locks out nobody beside them. All names of an address together have a wider limit,
//! and a name from all addresses together has one that makes guessing slow and refuses late. Neither applies to a name
//! that has logged in from the address before, so that guesses of others do not keep its owner out.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::limits::{
    AUTH_NAMES_PER_IP, KNOWN_LOGINS_MAX, LOGIN_PATIENCE, LOGINS_WAITING, NAME_GUESSES_PER_MINUTE, REGISTRATION_BURST,
    REGISTRATION_INTERVAL,
};
use crate::model::Username;
use crate::rate_limit::{Allowance, IpLimiter, Limiter, address_key};

/// One name from one address. All texts that cannot be a name count as one.
type Pair = (IpAddr, String);

/// Limits of logins and registrations.
#[derive(Debug)]
pub(crate) struct AuthRate {
    pairs: Limiter<Pair>,
    addresses: IpLimiter,
    names: Limiter<String>,
    /// Accounts that were created without an invitation.
    registered: IpLimiter,
    known: Mutex<KnownLogins>,
    waiting: Semaphore,
}

/// The latest successful logins.
#[derive(Debug, Default)]
struct KnownLogins {
    pairs: HashSet<Pair>,
    /// The oldest first.
    order: VecDeque<Pair>,
}

impl AuthRate {
    /// `per_minute` tries of one name from one address; 0 means no limits at all.
    pub(crate) fn new(per_minute: u32) -> Self {
        let minute = Duration::from_mins(1);
        let limited = |count: u32| (per_minute > 0).then(|| Allowance::new(count, minute, count));
        let registered = Allowance::new(1, REGISTRATION_INTERVAL, REGISTRATION_BURST);
        Self {
            pairs: Limiter::new(limited(per_minute)),
            addresses: IpLimiter::new(limited(per_minute.saturating_mul(AUTH_NAMES_PER_IP))),
            // A burst of half of them: a full bucket and what it regains in a minute are all of them.
            names: Limiter::new(limited(NAME_GUESSES_PER_MINUTE / 2)),
            registered: IpLimiter::new((per_minute > 0).then_some(registered)),
            known: Mutex::default(),
            waiting: Semaphore::new(LOGINS_WAITING),
        }
    }

    /// Lets a try to register through, or says how long to wait.
    pub(crate) fn register(&self, address: IpAddr, username: &Username) -> Result<(), Duration> {
        self.take_pair(address, pair(address, Some(username)), Instant::now())
    }

    /// Counts a try of a name from an address, or says how long to wait. The address comes first: past its limit no
    /// name is noted, so that one address cannot fill the table with names.
    fn take_pair(&self, address: IpAddr, pair: Pair, now: Instant) -> Result<(), Duration> {
        self.addresses.take(address, now)?;
        self.pairs.take(pair, now).inspect_err(|_| self.addresses.put_back(address, now))
    }

    /// Lets an account without an invitation be created, or says how long to wait. An address creates a few at once,
    /// and then few an hour. It counts before the account exists, so that requests sent at the same moment count, too.
    pub(crate) fn create(&self, address: IpAddr) -> Result<(), Duration> {
        self.registered.take(address, Instant::now())
    }

    /// Takes back a [`create`](Self::create): the account was not created after all.
    pub(crate) fn not_created(&self, address: IpAddr) {
        self.registered.put_back(address, Instant::now());
    }

    /// Lets a try to log in through, after a moment if others try the same name; or says how long to wait.
    pub(crate) async fn log_in(&self, address: IpAddr, username: Option<&Username>) -> Result<(), Duration> {
        let (pair, started) = (pair(address, username), Instant::now());
        if self.known().pairs.contains(&pair) {
            return self.pairs.take(pair, started);
        }
        self.take_pair(address, pair.clone(), started)?;
        let (_, name) = pair;
        loop {
            let Err(wait) = self.names.take(name.clone(), Instant::now()) else { return Ok(()) };
            let Ok(_place) = self.waiting.try_acquire() else { return Err(wait) };
            if started.elapsed() + wait > LOGIN_PATIENCE {
                return Err(wait);
            }
            // By chance: those who guess come back at once, and would always be the first of all who wait.
            let more = started.elapsed().subsec_nanos() % 1_024;
            tokio::time::sleep(wait + Duration::from_millis(more.into())).await;
        }
    }

    /// Notes that somebody has logged in from an address.
    pub(crate) fn logged_in(&self, address: IpAddr, username: &Username) {
        let pair = pair(address, Some(username));
        let mut known = self.known();
        if !known.pairs.insert(pair.clone()) {
            return;
        }
        known.order.push_back(pair);
        if known.order.len() > KNOWN_LOGINS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.pairs.remove(&oldest);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, KnownLogins> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair(address: IpAddr, username: Option<&Username>) -> Pair {
    (address_key(address), username.map(|name| name.as_str().to_ascii_lowercase()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BUCKETS_MAX;

    fn name(name: &str) -> Username {
        Username::parse(name).unwrap()
    }

    fn host(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[tokio::test]
    async fn who_guesses_at_a_name_locks_out_nobody_beside_them() {
        let rate = AuthRate::new(5);
        let (ada, bob) = (name("ada"), name("bob"));
        for _ in 0..5 {
            rate.log_in(host(1), Some(&ada)).await.unwrap();
        }
        assert!(rate.log_in(host(1), Some(&name("ADA"))).await.is_err());
        assert!(rate.log_in(host(1), Some(&bob)).await.is_ok(), "the neighbour");
        assert!(rate.log_in(host(2), Some(&ada)).await.is_ok(), "the same name from elsewhere");
    }

    #[test]
    fn who_tries_to_register_a_name_again_and_again_has_to_wait() {
        let rate = AuthRate::new(5);
        for _ in 0..5 {
            rate.register(host(1), &name("ada")).unwrap();
        }
        assert!(rate.register(host(1), &name("ada")).is_err());
        assert!(rate.register(host(1), &name("bob")).is_ok());
    }

    #[tokio::test]
    async fn a_rate_of_0_is_no_limit_at_all() {
        let (rate, ada) = (AuthRate::new(0), name("ada"));
        for _ in 0..1_000 {
            rate.log_in(host(1), Some(&ada)).await.unwrap();
            rate.register(host(1), &ada).unwrap();
            rate.create(host(1)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_login_waits_for_a_moment_while_others_guess_at_its_name() {
        let rate = AuthRate::new(1_000);
        while rate.names.take("ada".into(), Instant::now()).is_ok() {}
        assert!(rate.log_in(host(1), Some(&name("ada"))).await.is_ok());
    }

    #[tokio::test]
    async fn a_name_takes_so_many_guesses_from_all_addresses_and_its_owner_gets_in() {
        let rate = AuthRate::new(1_000);
        let ada = name("ada");
        rate.logged_in(host(250), &ada);
        for guess in 0..NAME_GUESSES_PER_MINUTE / 2 {
            rate.log_in(host(u8::try_from(guess % 250).unwrap()), Some(&ada)).await.unwrap();
        }
        assert!(rate.names.take("ada".into(), Instant::now()).is_err());
        assert!(rate.log_in(host(250), Some(&ada)).await.is_ok());
    }

    #[tokio::test]
    async fn one_address_that_tries_name_after_name_leaves_room_for_others() {
        let rate = AuthRate::new(5);
        for number in 0..2 * BUCKETS_MAX {
            rate.log_in(host(1), Some(&name(&format!("name{number}")))).await.ok();
        }
        for (address, user) in [(2, "ada"), (3, "bob"), (4, "carol")] {
            for _ in 0..5 {
                assert!(rate.log_in(host(address), Some(&name(user))).await.is_ok(), "{user}");
            }
        }
    }

    #[test]
    fn no_minute_has_more_guesses_at_a_name_than_the_limit() {
        let (rate, start) = (AuthRate::new(1_000), Instant::now());
        let minute = (0..600).map(|tenth| start + tenth * Duration::from_millis(100));
        let guesses = minute.filter(|moment| rate.names.take("ada".into(), *moment).is_ok()).count();
        assert!(guesses <= NAME_GUESSES_PER_MINUTE as usize, "{guesses} in a minute");
    }

    #[test]
    fn an_address_creates_a_few_accounts_and_then_no_more_for_a_while() {
        let rate = AuthRate::new(20);
        for _ in 0..REGISTRATION_BURST {
            rate.create(host(1)).unwrap();
            rate.not_created(host(1));
            assert!(rate.create(host(1)).is_ok(), "a try that creates none does not count");
        }
        assert!(rate.create(host(1)).is_err() && rate.create(host(2)).is_ok());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let rate = AuthRate::new(20);
        for number in 0..=KNOWN_LOGINS_MAX {
            rate.logged_in(host(1), &name(&format!("user{number}")));
        }
        let known = rate.known();
        assert_eq!((known.pairs.len(), known.order.len()), (KNOWN_LOGINS_MAX, KNOWN_LOGINS_MAX));
    }
}

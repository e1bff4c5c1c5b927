//! The days whose nonces are remembered, whatever the clock does.
//!
//! Nonces are kept by the day they came in, so that old ones are removed from one end of their table. But a day of the
//! wall clock is not always 24 hours: a Raspberry Pi starts with the time it stopped at, and is days ahead a minute
//! later. So the wall clock only names the days. They follow it forwards and never back, and continue without it if it
//! stays behind, over restarts too; and a day that is over is remembered for 24 hours more by a clock that cannot be
//! set (promise 5).
//!
//! [`NonceClock`] reads the clocks; a change gets [`NonceDays`], which is data.

use std::time::{Duration, Instant};

use super::data::millis;
use crate::limits::NONCE_DAY;
use crate::model::UnixMillis;

/// The day of new nonces, and the days before it that are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NonceDays {
    /// In days since the Unix epoch.
    pub(super) today: i64,
    /// The newest first.
    pub(super) before: [Option<i64>; NonceDays::REMEMBERED - 1],
}

impl NonceDays {
    /// Days that are remembered at once. There is a third only while the clock jumps.
    pub(super) const REMEMBERED: usize = 3;

    /// The days before today that are remembered, the newest first.
    pub(super) fn before(&self) -> impl Iterator<Item = i64> {
        self.before.iter().copied().flatten()
    }

    /// All that are remembered, the newest first.
    pub(super) fn all(&self) -> [Option<i64>; Self::REMEMBERED] {
        let [before, earlier] = self.before;
        [Some(self.today), before, earlier]
    }

    /// Whether the nonces of a day are remembered.
    pub(super) fn has(&self, day: i64) -> bool {
        self.all().contains(&Some(day))
    }

    /// The first day that is remembered: the nonces of earlier days can go.
    pub(super) fn first(&self) -> i64 {
        self.before().last().unwrap_or(self.today)
    }
}

/// Counts the days.
#[derive(Debug)]
pub(super) struct NonceClock {
    today: i64,
    /// When today began, or this process if it began before that.
    began: Instant,
    /// How long it had lasted by then.
    lasted: Duration,
    /// The days before it, the newest first, each with when it was over.
    before: Vec<(i64, Instant)>,
}

impl NonceClock {
    /// Continues from the newest days that have nonces already, and from how long one of them had lasted. When those before
    /// it ended is unknown: they are kept for 24 hours, however old they seem, since the clock may have been behind.
    pub(super) fn since(newest: &[i64], lasted: Option<(i64, Duration)>, wall: UnixMillis, now: Instant) -> Self {
        let today = newest.iter().copied().fold(day_of(wall), i64::max);
        let lasted = lasted.filter(|(day, _)| *day == today).map_or(Duration::ZERO, |(_, lasted)| lasted);
        let before =
            newest.iter().filter(|day| **day < today).take(NonceDays::REMEMBERED - 1).map(|day| (*day, now)).collect();
        Self { today, began: now, lasted, before }
    }

    /// Notes the time.
    pub(super) fn advance(&mut self, wall: UnixMillis, now: Instant) {
        self.before.retain(|(_, over)| now.duration_since(*over) < NONCE_DAY);
        let by_itself = self.today + i64::from(self.lasted(now).1 >= NONCE_DAY);
        let day = day_of(wall).max(by_itself);
        if day > self.today {
            self.before.insert(0, (self.today, now));
            self.before.truncate(NonceDays::REMEMBERED - 1);
            (self.today, self.began, self.lasted) = (day, now, Duration::ZERO);
        }
    }

    /// Today, and how long it has lasted while the server ran.
    pub(super) fn lasted(&self, now: Instant) -> (i64, Duration) {
        (self.today, self.lasted.saturating_add(now.duration_since(self.began)))
    }

    /// The days as they are now.
    pub(super) fn days(&self) -> NonceDays {
        let mut before = self.before.iter().map(|(day, _)| *day);
        NonceDays { today: self.today, before: std::array::from_fn(|_| before.next()) }
    }
}

fn day_of(wall: UnixMillis) -> i64 {
    wall.0.div_euclid(millis(NONCE_DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// The wall clock, so many hours into 1970.
    fn wall(hours: i64) -> UnixMillis {
        UnixMillis(hours * 3_600_000)
    }

    fn remembered(clock: &NonceClock) -> Vec<i64> {
        let days = clock.days();
        let all: Vec<_> = std::iter::once(days.today).chain(days.before()).collect();
        assert_eq!(all.last(), Some(&days.first()));
        all
    }

    #[test]
    fn yesterday_is_remembered_to_its_last_nonce() {
        let start = Instant::now();
        let mut days = NonceClock::since(&[], None, wall(24), start);
        assert_eq!(remembered(&days), [1]);
        days.advance(wall(48), start + 24 * HOUR);
        days.advance(wall(71), start + 47 * HOUR);
        assert_eq!(remembered(&days), [2, 1]);
        days.advance(wall(72), start + 48 * HOUR);
        assert_eq!(remembered(&days), [3, 2]);
    }

    #[test]
    fn a_clock_set_forward_by_days_forgets_nothing_of_the_last_24_hours() {
        let start = Instant::now();
        let mut days = NonceClock::since(&[], None, wall(24), start);
        days.advance(wall(24 * 7), start + HOUR);
        assert_eq!(remembered(&days), [7, 1]);
        days.advance(wall(24 * 8), start + 24 * HOUR);
        assert_eq!(remembered(&days), [8, 7, 1]);
        days.advance(wall(24 * 8 + 2), start + 26 * HOUR);
        assert_eq!(remembered(&days), [8, 7]);
    }

    #[test]
    fn a_clock_set_back_leaves_the_day_as_it_is() {
        let start = Instant::now();
        let mut days = NonceClock::since(&[], None, wall(24 * 9), start);
        days.advance(wall(0), start + HOUR);
        assert_eq!(remembered(&days), [9]);
        days.advance(wall(24), start + 24 * HOUR);
        assert_eq!(remembered(&days), [10, 9], "or its nonces would never go");
    }

    #[test]
    fn a_start_goes_on_where_the_table_is() {
        let started_at = |hours| remembered(&NonceClock::since(&[5, 4, 3], None, wall(hours), Instant::now()));
        assert_eq!(started_at(24 * 6), [6, 5, 4], "after a night");
        assert_eq!(started_at(24 * 36), [36, 5, 4], "after a month, or with a clock that was a month behind");
        assert_eq!(started_at(0), [5, 4, 3], "with a clock that is behind");
    }

    #[test]
    fn a_day_that_is_far_ahead_is_over_when_the_server_has_run_for_24_hours_in_however_many_parts() {
        let mut kept = None;
        for part in [9, 9, 5] {
            let start = Instant::now();
            let mut days = NonceClock::since(&[30], kept, wall(0), start);
            days.advance(wall(0), start + part * HOUR);
            assert_eq!(remembered(&days), [30]);
            kept = Some(days.lasted(start + part * HOUR));
        }
        let start = Instant::now();
        let mut days = NonceClock::since(&[30], kept, wall(0), start);
        days.advance(wall(0), start + HOUR);
        assert_eq!(remembered(&days), [31, 30]);
        assert_eq!(days.lasted(start + 3 * HOUR), (31, 2 * HOUR));
        assert_eq!(NonceClock::since(&[32], kept, wall(0), start).lasted(start), (32, Duration::ZERO), "another day");
    }

    #[test]
    fn a_clock_that_jumps_without_end_has_few_days_remembered() {
        let start = Instant::now();
        let mut days = NonceClock::since(&[], None, wall(0), start);
        for jump in 1..100 {
            days.advance(wall(24 * jump * 10), start);
        }
        assert_eq!(remembered(&days), [990, 980, 970]);
    }
}

//! The time by which things expire.
//!
//! The wall clock may be wrong: a Raspberry Pi starts with the time it stopped at, and is weeks ahead when NTP answers.
//! What is removed by a wrong clock is gone for good, so a jump forwards does not count until a day has passed by a
//! clock that cannot be set; meanwhile things expire as if the clock had not jumped. Being late by a day costs nothing.
//! What is believed, and for how long a jump has been doubted, outlives the process: a restart proves nothing, and
//! nothing is removed on the first day after a long pause, either.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::data::millis;
use crate::limits::{CLOCK_JUMP, CLOCK_JUMP_PROOF};
use crate::model::UnixMillis;

/// Tells by which time things expire.
#[derive(Debug)]
pub(super) struct ExpiryClock(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The last time that was believed, and when.
    believed: (UnixMillis, Instant),
    /// Since when the wall clock has been further ahead than it can be.
    jumped: Option<Instant>,
    /// For how long it had been while servers ran that have ended.
    doubted: Duration,
}

/// What outlives the process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Belief {
    /// The time that is believed.
    pub(super) time: UnixMillis,
    /// For how long the wall clock has been further ahead, while a server ran.
    pub(super) doubted: Duration,
}

impl ExpiryClock {
    /// Continues from what was believed last, or, where that is not known, from what was written last, if anything was.
    pub(super) fn since(last: Option<Belief>, written: Option<UnixMillis>, wall: UnixMillis, now: Instant) -> Self {
        let believed = last.map(|last| last.time).or(written).map_or(wall, |time| time.min(wall));
        let doubted = last.map_or(Duration::ZERO, |last| last.doubted);
        Self(Mutex::new(State { believed: (believed, now), jumped: None, doubted }))
    }

    /// What is to outlive the process.
    pub(super) fn belief(&self, now: Instant) -> Belief {
        let state = self.lock();
        Belief { time: state.expected(now), doubted: state.doubted(now) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time by which things expire now.
    pub(super) fn now(&self) -> UnixMillis {
        self.at(UnixMillis::now(), Instant::now())
    }

    fn at(&self, wall: UnixMillis, now: Instant) -> UnixMillis {
        let mut state = self.lock();
        let expected = state.expected(now);
        if wall > expected.plus(millis(CLOCK_JUMP)) {
            state.jumped.get_or_insert_with(|| {
                let hours = wall.0.saturating_sub(expected.0) / 3_600_000;
                tracing::warn!(hours, "the clock jumped ahead: expiry ignores it for a day");
                now
            });
            if state.doubted(now) < CLOCK_JUMP_PROOF {
                return expected;
            }
        }
        *state = State { believed: (wall, now), jumped: None, doubted: Duration::ZERO };
        wall
    }
}

impl State {
    /// The time that is believed, if the wall clock says nothing better.
    fn expected(&self, now: Instant) -> UnixMillis {
        self.believed.0.plus(millis(now.duration_since(self.believed.1)))
    }

    /// For how long the wall clock has been further ahead.
    fn doubted(&self, now: Instant) -> Duration {
        self.jumped.map_or(Duration::ZERO, |since| self.doubted.saturating_add(now.duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_counts_when_a_day_has_passed() {
        let (start, hour) = (Instant::now(), |hours: u64| Duration::from_hours(hours));
        let wall = |hours: i64| UnixMillis(hours * 3_600_000);
        let clock = ExpiryClock::since(None, None, wall(100), start);
        assert_eq!(clock.at(wall(100), start), wall(100));
        assert_eq!(clock.at(wall(1_000), start + hour(1)), wall(101));
        assert_eq!(clock.at(wall(1_023), start + hour(24)), wall(124));
        assert_eq!(clock.at(wall(1_024), start + hour(25)), wall(1_024));
        assert_eq!(clock.at(wall(50), start + hour(26)), wall(50), "nothing expires earlier than by the wall clock");
        let clock = ExpiryClock::since(None, Some(wall(100)), wall(1_000), start);
        assert_eq!(clock.at(wall(1_000), start), wall(100), "a jump over a restart");
        let clock = ExpiryClock::since(None, Some(wall(5_000)), wall(1_000), start);
        assert_eq!(clock.at(wall(1_000), start), wall(1_000), "what was written while the clock was ahead");
    }

    #[test]
    fn a_jump_is_doubted_over_restarts_until_the_server_has_run_for_a_day() {
        let (start, hour) = (Instant::now(), |hours: u64| Duration::from_hours(hours));
        let wall = |hours: i64| UnixMillis(hours * 3_600_000);
        let mut last = Some(Belief { time: wall(100), doubted: Duration::ZERO });
        // What was written meanwhile, by the clock that jumped, proves nothing.
        let restarted = |last| ExpiryClock::since(last, Some(wall(1_000)), wall(1_000), start);
        for (part, believed) in [(12, 112), (11, 123)] {
            let clock = restarted(last);
            assert_eq!(clock.at(wall(1_000), start), wall(believed - part));
            assert_eq!(clock.at(wall(1_000), start + hour(part.unsigned_abs())), wall(believed));
            last = Some(clock.belief(start + hour(part.unsigned_abs())));
        }
        let clock = restarted(last);
        assert_eq!(clock.at(wall(1_000), start), wall(123));
        assert_eq!(clock.at(wall(1_001), start + hour(1)), wall(1_001));
        assert_eq!(clock.belief(start + hour(1)).doubted, Duration::ZERO);
        let clock = restarted(last);
        assert_eq!(clock.at(wall(123), start), wall(123), "it was set right");
        assert_eq!(clock.at(wall(1_001), start + hour(1)), wall(124), "and jumps again: that is doubted from here on");
    }
}

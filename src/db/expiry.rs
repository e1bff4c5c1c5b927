//! The time by which things expire.
//!
//! The wall clock may be wrong: a Raspberry Pi starts with the time it stopped at, and is weeks ahead when NTP answers.
//! What is removed by a wrong clock is gone for good, so a jump forwards does not count until a day has passed by a
//! clock that cannot be set; meanwhile things expire as if the clock had not jumped. Being late by a day costs nothing.
//! A jump across a restart is noticed by the time of the last write, so that nothing is removed on the first day after
//! a long pause, either.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

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
}

impl ExpiryClock {
    /// Continues from the time of the last write, if there was one.
    pub(super) fn since(written: Option<UnixMillis>, wall: UnixMillis, now: Instant) -> Self {
        let believed = written.map_or(wall, |written| written.min(wall));
        Self(Mutex::new(State { believed: (believed, now), jumped: None }))
    }

    /// The time by which things expire now.
    pub(super) fn now(&self) -> UnixMillis {
        self.at(UnixMillis::now(), Instant::now())
    }

    fn at(&self, wall: UnixMillis, now: Instant) -> UnixMillis {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = state.believed.0.plus(millis(now.duration_since(state.believed.1)));
        if wall > expected.plus(millis(CLOCK_JUMP)) {
            let since = *state.jumped.get_or_insert_with(|| {
                let hours = (wall.0 - expected.0) / 3_600_000;
                tracing::warn!(hours, "the clock jumped ahead: expiry ignores it for a day");
                now
            });
            if now.duration_since(since) < CLOCK_JUMP_PROOF {
                return expected;
            }
        }
        *state = State { believed: (wall, now), jumped: None };
        wall
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_jump_counts_when_a_day_has_passed() {
        let (start, hour) = (Instant::now(), |hours: u64| Duration::from_hours(hours));
        let wall = |hours: i64| UnixMillis(hours * 3_600_000);
        let clock = ExpiryClock::since(None, wall(100), start);
        assert_eq!(clock.at(wall(100), start), wall(100));
        assert_eq!(clock.at(wall(1_000), start + hour(1)), wall(101));
        assert_eq!(clock.at(wall(1_023), start + hour(24)), wall(124));
        assert_eq!(clock.at(wall(1_024), start + hour(25)), wall(1_024));
        assert_eq!(clock.at(wall(50), start + hour(26)), wall(50), "nothing expires earlier than by the wall clock");
        let clock = ExpiryClock::since(Some(wall(100)), wall(1_000), start);
        assert_eq!(clock.at(wall(1_000), start), wall(100), "a jump over a restart");
        let clock = ExpiryClock::since(Some(wall(5_000)), wall(1_000), start);
        assert_eq!(clock.at(wall(1_000), start), wall(1_000), "what was written while the clock was ahead");
    }
}

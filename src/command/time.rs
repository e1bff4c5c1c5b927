//! Ages as people write them, and moments as people read them.

use std::time::Duration;

use chinwag::model::UnixMillis;

/// Reads an age: a number and `d`, `h` or `m`.
pub(super) fn parse_age(text: &str) -> Result<Duration, String> {
    let hint = || "expected a number and a unit, such as 90d, 12h or 30m".to_owned();
    let unit = text.chars().next_back().ok_or_else(hint)?;
    let number: u32 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| hint())?;
    let minutes = match unit {
        'd' => 24 * 60,
        'h' => 60,
        'm' => 1,
        _ => return Err(hint()),
    };
    Ok(Duration::from_secs(u64::from(number) * minutes * 60))
}

/// The moment that was `age` ago.
pub(super) fn ago(age: Duration) -> UnixMillis {
    UnixMillis::now().plus(-millis(age))
}

/// The moment that is `age` ahead.
pub(super) fn ahead(age: Duration) -> UnixMillis {
    UnixMillis::now().plus(millis(age))
}

fn millis(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

/// A moment to the minute, in UTC: `2026-11-23 09:05`.
pub(super) fn utc(moment: UnixMillis) -> String {
    let minutes = moment.0.div_euclid(60_000);
    let (mut day, minute) = (minutes.div_euclid(24 * 60), minutes.rem_euclid(24 * 60));
    let (mut year, mut month) = (1970, 1);
    while day < 0 {
        year -= 1;
        day += days_of(year);
    }
    while day >= days_of(year) {
        day -= days_of(year);
        year += 1;
    }
    for days in [31, days_of(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02}", day + 1, minute / 60, minute % 60)
}

/// Days of a year; February has what the 337 of the other months leave.
const fn days_of(year: i64) -> i64 {
    if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_number_and_a_unit() {
        assert_eq!(parse_age("90d"), Ok(Duration::from_hours(24 * 90)));
        assert_eq!(parse_age("12h"), Ok(Duration::from_hours(12)));
        assert_eq!(parse_age("30m"), Ok(Duration::from_mins(30)));
        for bad in ["", "d", "90", "-1d", "1.5d", "1 d", "1é", "99999999999d"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_moment_reads_as_the_calendar_has_it() {
        let known = [
            (0, "1970-01-01 00:00"),
            (951_782_400_000, "2000-02-29 00:00"),
            (1_709_251_199_999, "2024-02-29 23:59"),
            (1_709_251_200_000, "2024-03-01 00:00"),
            (1_798_761_599_000, "2026-12-31 23:59"),
            (-1, "1969-12-31 23:59"),
            (4_107_542_400_000, "2100-03-01 00:00"),
        ];
        for (millis, text) in known {
            assert_eq!(utc(UnixMillis(millis)), text);
        }
    }
}

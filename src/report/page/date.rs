//! Dates in pages.

use std::time::{SystemTime, UNIX_EPOCH};

/// The date and time of a page that is written now. The environment variable `SOURCE_DATE_EPOCH`
/// replaces the clock, as in other programs whose output must be reproducible
/// (<https://reproducible-builds.org/docs/source-date-epoch/>).
pub fn now() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    given.map_or_else(|| date(SystemTime::now()), written)
}

/// A time as text: `2026-11-30 08:23 UTC`.
pub fn date(time: SystemTime) -> String {
    written(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// A number of seconds since 1970 as text.
fn written(seconds: u64) -> String {
    let (days, minutes) = (seconds / 86_400, seconds / 60 % 1440);
    // Days are counted from 1 March of the year 0, so that a leap day is the last of its year. Then
    // a date follows from the 146,097 days of 400 years (Hinnant, "chrono-compatible low-level date
    // algorithms").
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) =
        if month < 10 { (month + 3, 400 * era + year) } else { (month - 9, 400 * era + year + 1) };
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_796_026_980, "2026-11-30 08:23 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(written(seconds), text);
        }
    }
}

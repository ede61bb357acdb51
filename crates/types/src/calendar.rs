//! Times as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-01-31 12:00:00.123`, UTC.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}", since.subsec_millis())
}

/// `2026-01-31T12:00:00.123Z`, as protobuf's JSON form prints timestamps.
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = timestamp(time).replace(' ', "T");
    text.push('Z');
    text
}

/// Days since 1970-01-01 to a Gregorian date (Howard Hinnant's `civil_from_days`: years begin in March, so
/// that the leap day is the last of its year).
pub fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        let at = |seconds: u64, millis: u64| UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
        assert_eq!(timestamp(at(0, 0)), "1970-01-01 00:00:00.000");
        assert_eq!(timestamp(at(951_782_400, 7)), "2000-02-29 00:00:00.007");
        assert_eq!(rfc3339(at(1_767_225_599, 999)), "2025-12-31T23:59:59.999Z");
    }
}

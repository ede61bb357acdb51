//! `START_TIME` formats: strftime with Envoy's `%s`, `%f` and `%1f`..`%9f`, and `%E#S`, in UTC.
//!
//! Envoy docs, "Command operators", `START_TIME`. No time zone data, so local times are not offered.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A parsed time format.
#[derive(Clone, Debug)]
pub(super) struct TimeFormat(Box<[Part]>);

#[derive(Clone, Debug)]
enum Part {
    Text(Box<str>),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    Century,
    ShortYear,
    Month,
    MonthName,
    ShortMonthName,
    Day,
    SpaceDay,
    DayOfYear,
    Hour,
    Hour12,
    Minute,
    Second,
    AmPm,
    Weekday,
    ShortWeekday,
    WeekdayFromMonday,
    WeekdayFromSunday,
    EpochSeconds,
    /// Digits of the second's fraction.
    Fraction(usize),
    /// Seconds with that many digits.
    SecondFraction(usize),
    /// All digits of the fraction but the last zeros.
    AllDigits,
    /// Seconds with all digits of the fraction but the last zeros.
    SecondAllDigits,
}

/// `2016-04-15T20:17:00.310Z`
const DEFAULT: &str = "%Y-%m-%dT%H:%M:%E3SZ";

impl TimeFormat {
    /// Envoy's default.
    pub(super) fn iso() -> Self {
        Self::parse(DEFAULT).unwrap_or_else(|_| Self(Box::default()))
    }

    /// Parses a format; the error is the specifier that is not supported.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            push_text(&mut parts, &rest[..at]);
            rest = &rest[at + 1..];
            let taken = specifier(rest, &mut parts)
                .ok_or_else(|| format!("%{}", rest.chars().take(3).collect::<String>()))?;
            rest = &rest[taken..];
        }
        push_text(&mut parts, rest);
        Ok(Self(parts.into()))
    }

    /// Writes a time.
    pub(super) fn write(&self, time: SystemTime, out: &mut impl fmt::Write) -> fmt::Result {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = Clock::new(since.as_secs(), since.subsec_nanos());
        for part in &self.0 {
            match part {
                Part::Text(text) => out.write_str(text)?,
                Part::Field(field) => clock.write(*field, out)?,
            }
        }
        Ok(())
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
}

/// Reads what follows a `%` and says how many bytes it took.
fn specifier(rest: &str, parts: &mut Vec<Part>) -> Option<usize> {
    use Field::*;
    let mut fields = |list: &[Result<Field, &str>]| {
        for part in list {
            match part {
                Ok(field) => parts.push(Part::Field(*field)),
                Err(text) => push_text(parts, text),
            }
        }
    };
    let bytes = rest.as_bytes();
    match bytes {
        [digit @ b'1'..=b'9', b'f', ..] => {
            fields(&[Ok(Fraction(usize::from(digit - b'0')))]);
            return Some(2);
        }
        [b'E', b'*', b'S', ..] => fields(&[Ok(SecondAllDigits)]),
        [b'E', b'*', b'f', ..] => fields(&[Ok(AllDigits)]),
        [b'E', b'4', b'Y', ..] => fields(&[Ok(Year)]),
        [b'E', digit @ b'0'..=b'9', b'S', ..] => fields(&[Ok(SecondFraction(usize::from(digit - b'0')))]),
        [b'E', digit @ b'1'..=b'9', b'f', ..] => fields(&[Ok(Fraction(usize::from(digit - b'0')))]),
        _ => {
            let list: &[Result<Field, &str>] = match bytes.first()? {
                b'Y' => &[Ok(Year)],
                b'C' => &[Ok(Century)],
                b'y' => &[Ok(ShortYear)],
                b'm' => &[Ok(Month)],
                b'B' => &[Ok(MonthName)],
                b'b' | b'h' => &[Ok(ShortMonthName)],
                b'd' => &[Ok(Day)],
                b'e' => &[Ok(SpaceDay)],
                b'j' => &[Ok(DayOfYear)],
                b'H' => &[Ok(Hour)],
                b'I' => &[Ok(Hour12)],
                b'M' => &[Ok(Minute)],
                b'S' => &[Ok(Second)],
                b'p' => &[Ok(AmPm)],
                b'A' => &[Ok(Weekday)],
                b'a' => &[Ok(ShortWeekday)],
                b'u' => &[Ok(WeekdayFromMonday)],
                b'w' => &[Ok(WeekdayFromSunday)],
                b's' => &[Ok(EpochSeconds)],
                b'f' => &[Ok(Fraction(9))],
                b'F' => &[Ok(Year), Err("-"), Ok(Month), Err("-"), Ok(Day)],
                b'T' => &[Ok(Hour), Err(":"), Ok(Minute), Err(":"), Ok(Second)],
                b'R' => &[Ok(Hour), Err(":"), Ok(Minute)],
                b'D' => &[Ok(Month), Err("/"), Ok(Day), Err("/"), Ok(ShortYear)],
                b'z' => &[Err("+0000")],
                b'Z' => &[Err("UTC")],
                b't' => &[Err("\t")],
                b'%' => &[Err("%")],
                _ => return None,
            };
            fields(list);
            return Some(1);
        }
    }
    Some(3)
}

/// A point in time in UTC, broken down.
struct Clock {
    epoch: u64,
    nanos: u32,
    year: u64,
    /// From 1.
    month: usize,
    day: u64,
    day_of_year: u64,
    /// Sunday is 0.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Clock {
    fn new(epoch: u64, nanos: u32) -> Self {
        let (days, time) = (epoch / 86_400, epoch % 86_400);
        let (year, month, day) = civil(days);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before = DAYS_BEFORE.get(month - 1).copied().unwrap_or_default();
        let day_of_year = before + u64::from(leap && month > 2) + day;
        // 1970-01-01 was a Thursday.
        let weekday = usize::try_from((days + 4) % 7).unwrap_or_default();
        Self {
            epoch,
            nanos,
            year,
            month,
            day,
            day_of_year,
            weekday,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
        }
    }

    fn write(&self, field: Field, out: &mut impl fmt::Write) -> fmt::Result {
        let month = || MONTHS.get(self.month - 1).copied().unwrap_or_default();
        let weekday = || WEEKDAYS.get(self.weekday).copied().unwrap_or_default();
        match field {
            Field::Year => write!(out, "{}", self.year),
            Field::Century => write!(out, "{:02}", self.year / 100),
            Field::ShortYear => write!(out, "{:02}", self.year % 100),
            Field::Month => write!(out, "{:02}", self.month),
            Field::MonthName => out.write_str(month()),
            Field::ShortMonthName => out.write_str(month().get(..3).unwrap_or_default()),
            Field::Day => write!(out, "{:02}", self.day),
            Field::SpaceDay => write!(out, "{:2}", self.day),
            Field::DayOfYear => write!(out, "{:03}", self.day_of_year),
            Field::Hour => write!(out, "{:02}", self.hour),
            Field::Hour12 => write!(out, "{:02}", (self.hour + 11) % 12 + 1),
            Field::Minute => write!(out, "{:02}", self.minute),
            Field::Second => write!(out, "{:02}", self.second),
            Field::AmPm => out.write_str(if self.hour < 12 { "AM" } else { "PM" }),
            Field::Weekday => out.write_str(weekday()),
            Field::ShortWeekday => out.write_str(weekday().get(..3).unwrap_or_default()),
            Field::WeekdayFromMonday => write!(out, "{}", (self.weekday + 6) % 7 + 1),
            Field::WeekdayFromSunday => write!(out, "{}", self.weekday),
            Field::EpochSeconds => write!(out, "{}", self.epoch),
            Field::Fraction(digits) => self.fraction(digits, out),
            Field::SecondFraction(0) => write!(out, "{:02}", self.second),
            Field::SecondFraction(digits) => {
                write!(out, "{:02}.", self.second)?;
                self.fraction(digits, out)
            }
            Field::AllDigits if self.nanos == 0 => out.write_str("0"),
            Field::AllDigits => self.all_digits(out),
            Field::SecondAllDigits => {
                write!(out, "{:02}", self.second)?;
                if self.nanos > 0 {
                    out.write_str(".")?;
                    self.all_digits(out)?;
                }
                Ok(())
            }
        }
    }

    fn fraction(&self, digits: usize, out: &mut impl fmt::Write) -> fmt::Result {
        let drop = u32::try_from(9 - digits.min(9)).unwrap_or_default();
        write!(out, "{:0digits$}", self.nanos / 10u32.pow(drop))
    }

    fn all_digits(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let (mut value, mut digits) = (self.nanos, 9);
        while value % 10 == 0 && digits > 1 {
            value /= 10;
            digits -= 1;
        }
        write!(out, "{value:0digits$}")
    }
}

/// Year, month (from 1) and day of a day since 1970-01-01, by counting from March of year 0, so that a
/// leap day is a year's last.
fn civil(days: u64) -> (u64, usize, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

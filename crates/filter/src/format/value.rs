//! What an operator yields.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use tidegate_types::{Address, ResponseFlags};

use super::time::TimeFormat;

/// A value that knows whether it is a number in JSON.
pub(super) enum Value<'a> {
    /// `-`, `null` or nothing.
    Missing,
    /// Text.
    Text(Cow<'a, str>),
    /// A JSON number.
    Number(u64),
    /// Text that is written without an intermediate string.
    Shown(Shown<'a>),
}

/// Things that print themselves.
pub(super) enum Shown<'a> {
    Address(&'a Address),
    Owned(Address),
    Ip(IpAddr),
    Flags(ResponseFlags),
    Time(&'a TimeFormat, SystemTime),
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Owned(address) => address.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
            Self::Flags(flags) => flags.fmt(f),
            Self::Time(format, time) => format.write(*time, f),
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    pub(super) fn maybe_text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Missing, Self::text)
    }

    pub(super) fn maybe_owned(text: Option<String>) -> Self {
        text.map_or(Self::Missing, |text| Self::Text(Cow::Owned(text)))
    }

    pub(super) fn maybe_number(number: Option<u64>) -> Self {
        number.map_or(Self::Missing, Self::Number)
    }
}

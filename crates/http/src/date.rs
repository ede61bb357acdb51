//! The `date` header field, formatted once a second (RFC 9110 §6.6.1).

use std::cell::{Cell, RefCell};
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// A worker's current `date` value.
#[derive(Debug)]
pub(crate) struct DateCache {
    second: Cell<u64>,
    value: RefCell<HeaderValue>,
}

impl Default for DateCache {
    fn default() -> Self {
        Self { second: Cell::new(u64::MAX), value: RefCell::new(HeaderValue::from_static("")) }
    }
}

impl DateCache {
    /// The value at `now`.
    pub(crate) fn at(&self, now: SystemTime) -> HeaderValue {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        if self.second.replace(second) != second
            && let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            *self.value.borrow_mut() = value;
        }
        self.value.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_value_follows_the_second() {
        let dates = DateCache::default();
        assert_eq!(dates.at(UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(dates.at(UNIX_EPOCH + Duration::from_millis(999)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(dates.at(UNIX_EPOCH + Duration::from_secs(61)), "Thu, 01 Jan 1970 00:01:01 GMT");
    }
}

//! Numbers as field values.

use std::cell::RefCell;

use http::HeaderValue;

/// Milliseconds below this have a value ready: service times of fast upstreams.
const READY: usize = 256;

thread_local! {
    static VALUES: RefCell<[Option<HeaderValue>; READY]> = const { RefCell::new([const { None }; READY]) };
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The number in decimal. Small ones, and the one asked for last (a route's timeout), cost a reference
/// count instead of two allocations.
pub(crate) fn value(number: u64) -> HeaderValue {
    if let Some(slot) = usize::try_from(number).ok().filter(|slot| *slot < READY) {
        return VALUES.with_borrow_mut(|values| values[slot].get_or_insert_with(|| number.into()).clone());
    }
    LAST.with_borrow_mut(|last| match last {
        Some((known, value)) if *known == number => value.clone(),
        _ => last.insert((number, number.into())).1.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_whatever_came_before() {
        for number in [0, 255, 256, 15_000, 15_000, 7, 15_001, u64::MAX] {
            assert_eq!(value(number), number.to_string());
        }
    }
}

//! How long the upstream may take: the route's times, the caller's `x-envoy-*` headers, and what the
//! upstream is told.
//!
//! Envoy docs, "Router": `x-envoy-upstream-rq-timeout-ms`, `x-envoy-upstream-rq-per-try-timeout-ms`,
//! `x-envoy-upstream-stream-duration-ms`, `x-envoy-upstream-rq-timeout-alt-response`,
//! `x-envoy-expected-rq-timeout-ms`. The connection manager has already removed these headers from
//! requests that are not internal. No timers here. Start with [`Timeouts::of_request`].

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_types::fields::take_in_order;

/// `x-envoy-upstream-rq-timeout-ms`
const RQ_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
/// `x-envoy-upstream-rq-per-try-timeout-ms`
const PER_TRY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
/// `x-envoy-upstream-stream-duration-ms`
const STREAM_DURATION: HeaderName = HeaderName::from_static("x-envoy-upstream-stream-duration-ms");
/// `x-envoy-upstream-rq-timeout-alt-response`
const ALT_RESPONSE: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response");
/// `x-envoy-upstream-alt-stat-name`
const ALT_STAT_NAME: HeaderName = HeaderName::from_static("x-envoy-upstream-alt-stat-name");
/// `x-envoy-hedge-on-per-try-timeout`
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
/// `x-envoy-expected-rq-timeout-ms`
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// The times of one request. `None` is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the response, over all tries.
    pub global: Option<Duration>,
    /// One try. Never as long as `global`.
    pub per_try: Option<Duration>,
    /// One try without progress.
    pub per_try_idle: Option<Duration>,
    /// What the caller says in place of the cluster's `max_stream_duration`.
    pub stream_duration: Option<Option<Duration>>,
    /// The answer when the upstream took too long.
    pub late: LateAnswer,
    /// What a try's time brings when it is over.
    pub hedge: Hedge,
    /// Whether the upstream's `grpc-timeout` says what it has.
    pub grpc: GrpcTimeout,
}

/// What becomes of `grpc-timeout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrpcTimeout {
    /// It goes up as it came.
    #[default]
    Kept,
    /// `max_grpc_timeout`: it says what the upstream has for this try.
    Rewritten,
}

/// `hedge_policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hedge {
    /// A try whose time is over is ended.
    #[default]
    Off,
    /// `hedge_on_per_try_timeout`: it goes on beside the next one, and the first good response wins.
    OnPerTryTimeout,
}

/// What `x-envoy-expected-rq-timeout-ms` of a request is (`respect_expected_rq_timeout` of the router).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallersTimeout {
    /// A field to be overwritten.
    #[default]
    Ignored,
    /// The timeout: what is left of the one that the proxy before this one keeps.
    Respected,
}

/// What a client is told when its upstream took too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateAnswer {
    /// 504.
    #[default]
    GatewayTimeout,
    /// 204, as `x-envoy-upstream-rq-timeout-alt-response` asks.
    NoContent,
}

impl Timeouts {
    /// No limit.
    pub const NONE: Self = Self {
        global: None,
        per_try: None,
        per_try_idle: None,
        stream_duration: None,
        late: LateAnswer::GatewayTimeout,
        hedge: Hedge::Off,
        grpc: GrpcTimeout::Kept,
    };

    /// The times that a request gets: `route`'s, unless the caller's headers say otherwise. Takes those
    /// headers out of `headers`, all but `x-envoy-expected-rq-timeout-ms`.
    pub fn of_request(route: Timeouts, headers: &mut HeaderMap, callers: CallersTimeout) -> Self {
        let mut timeouts = route;
        // One walk over the names is cheaper than two look-ups, and nearly always the end of it.
        let to_proxy = |name: &str| name.starts_with("x-envoy-upstream-") || *name == *HEDGE.as_str();
        if headers.keys().any(|name| to_proxy(name.as_str())) {
            timeouts.take_headers(headers);
        }
        if callers == CallersTimeout::Respected
            && let Some(ms) = headers.get(&EXPECTED_TIMEOUT).and_then(milliseconds)
        {
            timeouts.global = ms;
        }
        timeouts.settled()
    }

    /// A try that may take as long as the whole has no time of its own.
    fn settled(mut self) -> Self {
        if let (Some(per_try), Some(global)) = (self.per_try, self.global)
            && per_try >= global
        {
            self.per_try = None;
        }
        self
    }

    fn take_headers(&mut self, headers: &mut HeaderMap) {
        if let Some(ms) = take_in_order(headers, &RQ_TIMEOUT).as_ref().and_then(milliseconds) {
            self.global = ms;
        }
        if let Some(ms) = take_in_order(headers, &PER_TRY_TIMEOUT).as_ref().and_then(milliseconds) {
            self.per_try = ms;
        }
        if let Some(ms) = take_in_order(headers, &STREAM_DURATION).as_ref().and_then(milliseconds) {
            self.stream_duration = Some(ms);
        }
        if take_in_order(headers, &ALT_RESPONSE).is_some() {
            self.late = LateAnswer::NoContent;
        }
        // Names no statistics of this proxy.
        take_in_order(headers, &ALT_STAT_NAME);
        match take_in_order(headers, &HEDGE).as_ref().map(HeaderValue::as_bytes) {
            Some(b"true") => self.hedge = Hedge::OnPerTryTimeout,
            Some(b"false") => self.hedge = Hedge::Off,
            Some(_) | None => {}
        }
    }

    /// What the upstream has for the next try, `elapsed` after the request was complete. Never zero,
    /// which would mean "no limit".
    pub fn expected(&self, elapsed: Duration) -> Option<Duration> {
        // A hedged try may take all the time that is left.
        let per_try = self.per_try.filter(|_| self.hedge == Hedge::Off);
        let mut expected = per_try.or(self.global)?;
        if let Some(global) = self.global {
            expected = expected.min(global.saturating_sub(elapsed)).max(Duration::from_millis(1));
        }
        Some(expected)
    }

    /// Writes `grpc-timeout` where that is the route's to say; no limit leaves the caller's value.
    pub fn write_grpc(&self, elapsed: Duration, headers: &mut HeaderMap) {
        if self.grpc == GrpcTimeout::Rewritten
            && let Some(expected) = self.expected(elapsed)
        {
            headers.insert(GRPC_TIMEOUT, grpc_timeout_value(expected));
        }
    }

    /// Writes `x-envoy-expected-rq-timeout-ms`; a caller's value stays when there is no limit.
    pub fn write_expected(&self, elapsed: Duration, headers: &mut HeaderMap) {
        if let Some(expected) = self.expected(elapsed) {
            let ms = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
            headers.insert(EXPECTED_TIMEOUT, crate::number::value(ms));
        }
    }
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Rewrites `grpc-timeout`, where there is one, for a stream that may take `longest` (Envoy docs, `max_stream_duration`).
pub fn limit_grpc(longest: Duration, headers: &mut HeaderMap) {
    if grpc_timeout(headers).is_some() {
        headers.insert(GRPC_TIMEOUT, grpc_timeout_value(longest));
    }
}

/// The smallest unit in which the number has at most 8 digits; milliseconds first, as Envoy writes it.
fn grpc_timeout_value(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let (mut number, mut unit) = (timeout.as_millis(), 'm');
    for (size, larger) in [(1000, 'S'), (60, 'M'), (60, 'H')] {
        if number > MOST {
            (number, unit) = (number / size, larger);
        }
    }
    let text = format!("{}{unit}", number.min(MOST));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("99999999H"))
}

/// `grpc-timeout`: up to 8 digits and a unit (gRPC over HTTP/2, "Requests").
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A whole number of milliseconds, 0 for off; `None` when it is no number.
fn milliseconds(value: &HeaderValue) -> Option<Option<Duration>> {
    let ms: u64 = value.to_str().ok()?.trim().parse().ok()?;
    Some((ms > 0).then(|| Duration::from_millis(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    fn request(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn grpc_timeouts_have_a_unit() {
        let parse = |text| grpc_timeout(&request(&[(HeaderName::from_static("grpc-timeout"), text)]));
        assert_eq!(["1H", "2M", "3S", "40m"].map(parse), [ms(3_600_000), ms(120_000), ms(3000), ms(40)]);
        assert_eq!(["", "S", "1", "1x", "-1S", "123456789S"].map(parse), [None; 6]);
    }

    #[test]
    fn grpc_timeouts_are_written_with_at_most_eight_digits() {
        let text = |secs| grpc_timeout_value(Duration::from_secs(secs));
        assert_eq!([text(1), text(99_999), text(100_000)], ["1000m", "99999000m", "100000S"]);
        assert_eq!([text(100_000_000), text(u64::MAX)], ["1666666M", "99999999H"]);
        let timeouts = Timeouts { global: ms(250), grpc: GrpcTimeout::Rewritten, ..Timeouts::NONE };
        let mut headers = request(&[(GRPC_TIMEOUT, "1H")]);
        timeouts.write_grpc(Duration::ZERO, &mut headers);
        assert_eq!(headers[GRPC_TIMEOUT], "250m");
    }

    #[test]
    fn a_streams_longest_time_replaces_the_callers() {
        let mut headers = request(&[(GRPC_TIMEOUT, "5S")]);
        limit_grpc(Duration::from_millis(400), &mut headers);
        assert_eq!(headers[GRPC_TIMEOUT], "400m");
        for asked in [&[][..], &[(GRPC_TIMEOUT, "soon")]] {
            let mut headers = request(asked);
            limit_grpc(Duration::from_secs(1), &mut headers);
            assert_eq!(headers, request(asked), "it names no time");
        }
    }

    const ROUTE: Timeouts =
        Timeouts { global: Some(Duration::from_secs(15)), per_try: None, ..Timeouts::NONE };

    #[test]
    fn headers_override_the_route_and_are_taken_out() {
        let mut headers = request(&[(RQ_TIMEOUT, "1000"), (PER_TRY_TIMEOUT, "300")]);
        let timeouts = Timeouts::of_request(ROUTE, &mut headers, CallersTimeout::Ignored);
        assert_eq!((timeouts.global, timeouts.per_try), (ms(1000), ms(300)));
        assert!(headers.is_empty());
        timeouts.write_expected(Duration::ZERO, &mut headers);
        assert_eq!(headers[EXPECTED_TIMEOUT], "300");
    }

    #[test]
    fn zero_is_off_and_garbage_is_ignored() {
        let mut headers = request(&[(RQ_TIMEOUT, "0")]);
        let timeouts = Timeouts::of_request(ROUTE, &mut headers, CallersTimeout::Ignored);
        assert_eq!((timeouts.global, timeouts.expected(Duration::ZERO)), (None, None));
        let mut headers = request(&[(RQ_TIMEOUT, "soon")]);
        assert_eq!(Timeouts::of_request(ROUTE, &mut headers, CallersTimeout::Ignored), ROUTE);
        assert!(headers.is_empty());
    }

    #[test]
    fn a_try_as_long_as_the_whole_has_no_limit_of_its_own() {
        let route = Timeouts { global: ms(100), per_try: ms(100), per_try_idle: ms(5), ..Timeouts::NONE };
        let timeouts = Timeouts::of_request(route, &mut HeaderMap::new(), CallersTimeout::Ignored);
        assert_eq!((timeouts.per_try, timeouts.per_try_idle), (None, ms(5)));
        let unbounded = Timeouts { global: None, per_try: ms(100), ..Timeouts::NONE };
        assert_eq!(
            Timeouts::of_request(unbounded, &mut HeaderMap::new(), CallersTimeout::Ignored).per_try,
            ms(100)
        );
    }

    #[test]
    fn a_proxy_before_this_one_may_say_what_is_left() {
        let sent = [(EXPECTED_TIMEOUT, "400"), (RQ_TIMEOUT, "900")];
        let of = |callers| {
            let mut headers = request(&sent);
            let timeouts = Timeouts::of_request(ROUTE, &mut headers, callers);
            timeouts.write_expected(Duration::ZERO, &mut headers);
            (timeouts.global, headers[EXPECTED_TIMEOUT].clone(), headers.len())
        };
        assert_eq!(of(CallersTimeout::Respected), (ms(400), HeaderValue::from_static("400"), 1));
        assert_eq!(of(CallersTimeout::Ignored), (ms(900), HeaderValue::from_static("900"), 1));
        let mut headers = request(&[(EXPECTED_TIMEOUT, "soon")]);
        assert_eq!(Timeouts::of_request(ROUTE, &mut headers, CallersTimeout::Respected), ROUTE);
    }

    #[test]
    fn a_hedged_try_may_take_what_is_left() {
        let mut headers = request(&[(HEDGE, "true"), (PER_TRY_TIMEOUT, "300")]);
        let timeouts = Timeouts::of_request(ROUTE, &mut headers, CallersTimeout::Ignored);
        assert_eq!((timeouts.hedge, headers.len()), (Hedge::OnPerTryTimeout, 0));
        assert_eq!((timeouts.per_try, timeouts.expected(Duration::ZERO)), (ms(300), ms(15_000)));
        let hedged = Timeouts { hedge: Hedge::OnPerTryTimeout, ..ROUTE };
        let mut headers = request(&[(HEDGE, "false")]);
        assert_eq!(Timeouts::of_request(hedged, &mut headers, CallersTimeout::Ignored).hedge, Hedge::Off);
    }

    #[test]
    fn later_tries_have_what_is_left_and_at_least_a_millisecond() {
        let timeouts = Timeouts { global: ms(100), per_try: ms(40), ..Timeouts::NONE };
        assert_eq!(timeouts.expected(Duration::from_millis(30)), ms(40));
        assert_eq!(timeouts.expected(Duration::from_millis(80)), ms(20));
        assert_eq!(timeouts.expected(Duration::from_millis(500)), ms(1));
    }
}

//! Response flags: what happened to a stream beyond its status code.
//!
//! Names and order follow Envoy docs, "Access logging", `%RESPONSE_FLAGS%`.

use std::fmt;

/// A set of response flags. `Display` prints the short names joined by commas, `-` when empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $short:literal, $long:literal;)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
        /// Every flag with its short and its long name, in Envoy's order.
        const NAMES: &[(ResponseFlags, &str, &str)] = &[$((ResponseFlags::$name, $short, $long)),*];
    };
}

flags! {
    /// The local health check of the proxy failed.
    FAILED_LOCAL_HEALTH_CHECK = 0, "LH", "FailedLocalHealthCheck";
    /// No healthy host in the cluster.
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    /// A request or try timeout of the router.
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    /// The stream was reset locally.
    LOCAL_RESET = 3, "LR", "LocalReset";
    /// The upstream reset the stream.
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    /// No upstream connection could be made.
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// The upstream connection ended under the stream.
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    /// A circuit breaker refused it.
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    /// No route matched.
    NO_ROUTE_FOUND = 8, "NR", "NoRouteFound";
    /// A fault filter delayed it.
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    /// A fault filter aborted it.
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    /// A rate limit refused it.
    RATE_LIMITED = 11, "RL", "RateLimited";
    /// An authorization service refused it.
    UNAUTHORIZED = 12, "UAEX", "UnauthorizedExternalService";
    /// The rate-limit service failed.
    RATE_LIMIT_SERVICE_ERROR = 13, "RLSE", "RateLimitServiceError";
    /// The client's connection ended before the response was complete.
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "DownstreamConnectionTermination";
    /// All retries were used up.
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    /// A stream idle timeout fired.
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    /// An `x-envoy-*` request header held an invalid value.
    INVALID_ENVOY_HEADERS = 17, "IH", "InvalidEnvoyRequestHeaders";
    /// The client broke HTTP.
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    /// The upstream's maximum stream duration was reached.
    UPSTREAM_MAX_STREAM_DURATION = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    /// The answer came from a cache.
    RESPONSE_FROM_CACHE = 20, "RFCF", "ResponseFromCacheFilter";
    /// A filter's configuration was not there.
    NO_FILTER_CONFIG = 21, "NFCF", "NoFilterConfigFound";
    /// A connection lived for as long as it may.
    DURATION_TIMEOUT = 22, "DT", "DurationTimeout";
    /// The upstream broke HTTP.
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    /// The cluster does not exist.
    NO_CLUSTER_FOUND = 24, "NC", "NoClusterFound";
    /// The overload manager refused it.
    OVERLOAD_MANAGER = 25, "OM", "OverloadManagerTerminated";
    /// DNS resolution failed.
    DNS_FAILURE = 26, "DF", "DnsResolutionFailed";
    /// The client reset the stream (HTTP/2, HTTP/3).
    DOWNSTREAM_REMOTE_RESET = 27, "DR", "DownstreamRemoteReset";
    /// The cluster drops all requests.
    UNCONDITIONAL_DROP_OVERLOAD = 28, "UDO", "UnconditionalDropOverload";
    /// The cluster drops a share of its requests.
    DROP_OVERLOAD = 29, "DO", "DropOverload";
}

/// No flag: how a set is printed.
const RETRIES_LAST: ResponseFlags = ResponseFlags(1 << 63);

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Adds `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// This set and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether any flag of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.without(RETRIES_LAST).0 == 0
    }

    /// The names of the set. Envoy prints flags in the order in which they were raised; what is ever raised
    /// before another one is the end of retries and what denied one, after it only the former, and only where
    /// [`Self::retries_last`] says so.
    fn in_order(self) -> impl Iterator<Item = &'static (Self, &'static str, &'static str)> {
        let place = move |flag: Self| match flag {
            Self::UPSTREAM_RETRY_LIMIT_EXCEEDED if self.intersects(RETRIES_LAST) => Place::Last,
            Self::UPSTREAM_RETRY_LIMIT_EXCEEDED | Self::UPSTREAM_OVERFLOW => Place::First,
            _ => Place::Between,
        };
        let at = move |wanted: Place| {
            NAMES.iter().filter(move |(flag, ..)| self.intersects(*flag) && place(*flag) == wanted)
        };
        at(Place::First).chain(at(Place::Between)).chain(at(Place::Last))
    }

    /// The same set, printed with the end of retries after the other flags: how the TCP proxy raises them.
    #[must_use]
    pub const fn retries_last(self) -> Self {
        self.with(RETRIES_LAST)
    }

    /// The flag with that short name.
    pub fn from_short(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, short, _)| *short == name).map(|(flag, ..)| *flag)
    }

    /// The long names joined by commas, `-` when empty (`%RESPONSE_FLAGS_LONG%`).
    pub fn long(self) -> String {
        let names: Vec<_> = self.in_order().map(|(.., long)| *long).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(",") }
    }
}

/// Where a flag is printed among others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Between,
    Last,
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut separator = "";
        for (_, short, _) in self.in_order() {
            write!(f, "{separator}{short}")?;
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_as_envoy_prints_them() {
        assert_eq!(ResponseFlags::NONE.to_string(), "-");
        let flags =
            ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED.with(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        assert_eq!(flags.to_string(), "URX,UF");
        assert_eq!(flags.retries_last().to_string(), "UF,URX");
        assert_eq!(ResponseFlags::NONE.retries_last().to_string(), "-");
        assert_eq!(flags.long(), "UpstreamRetryLimitExceeded,UpstreamConnectionFailure");
        assert_eq!(ResponseFlags::from_short("DPE"), Some(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR));
    }
}

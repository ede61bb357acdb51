//! What a request from outside may not say (Envoy docs, "HTTP header sanitizing").

use http::HeaderName;
use tidegate_types::RequestHead;

/// Removed from every external request.
const EXTERNAL: [&str; 14] = [
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-hedge-on-per-try-timeout",
];

/// Removed as well where requests enter the network (`use_remote_address`).
const EDGE: [&str; 5] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-path",
    "x-envoy-original-host",
];

/// Whether an insider asks for a trace, and so for the request's id in the response.
pub(super) fn is_forced_trace(head: &RequestHead) -> bool {
    head.headers.contains_key("x-envoy-force-trace")
}

/// Removes those fields.
pub(super) fn remove(head: &mut RequestHead, edge: bool, internal_only: &[String]) {
    for name in EXTERNAL {
        head.headers.remove(name);
    }
    if edge {
        for name in EDGE {
            head.headers.remove(name);
        }
    }
    for name in internal_only {
        if let Ok(name) = HeaderName::try_from(name.as_str()) {
            head.headers.remove(name);
        }
    }
}

//! What a request from outside may not say (Envoy docs, "HTTP header sanitizing").

use tidegate_types::RequestHead;
use tidegate_types::fields::remove_in_order;

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
    remove_in_order(&mut head.headers, |name| {
        let name = name.as_str();
        EXTERNAL.contains(&name)
            || edge && EDGE.contains(&name)
            || internal_only.iter().any(|internal| name.eq_ignore_ascii_case(internal))
    });
}

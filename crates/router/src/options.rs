//! The router filter's own configuration.

use crate::timeout::CallersTimeout;

/// `@type` of the router in `http_filters`.
pub const ROUTER_TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// `envoy.extensions.filters.http.router.v3.Router`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default)]
pub struct RouterOptions {
    /// Response-code statistics per cluster. They are always kept; `false` is accepted as in Envoy, where
    /// it saves their cost.
    pub dynamic_stats: bool,
    /// No `x-envoy-*` fields are added, to requests or to responses.
    pub suppress_envoy_headers: bool,
    /// `x-envoy-expected-rq-timeout-ms` of a caller that is a proxy itself is the request's timeout, before the
    /// route's and before `x-envoy-upstream-rq-timeout-ms`.
    pub respect_expected_rq_timeout: bool,
}

impl RouterOptions {
    /// What a caller's `x-envoy-expected-rq-timeout-ms` is to the request.
    pub fn callers_timeout(&self) -> CallersTimeout {
        if self.respect_expected_rq_timeout { CallersTimeout::Respected } else { CallersTimeout::Ignored }
    }
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self { dynamic_stats: true, suppress_envoy_headers: false, respect_expected_rq_timeout: false }
    }
}

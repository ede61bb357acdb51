//! The router filter's own configuration.

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
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self { dynamic_stats: true, suppress_envoy_headers: false }
    }
}

//! Configurations as texts, read the way the server reads a file.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::{Bootstrap, Format, HcmConfig, from_str};

/// What varies between the documents of the benches.
#[derive(Default)]
pub struct Document {
    /// `virtual_hosts`, as JSON objects.
    pub virtual_hosts: Vec<String>,
    /// The `@type` of each filter before the router.
    pub filters: Vec<String>,
    /// The endpoint's port on 127.0.0.1 of the cluster `origin`; without one there is no cluster.
    pub origin_port: Option<u16>,
}

impl Document {
    /// A document with one virtual host `*` whose only route does `action`.
    pub fn with_action(action: &str) -> Self {
        Self { virtual_hosts: vec![virtual_host("*", &[route("prefix", "/", action)])], ..Self::default() }
    }

    /// Adds a filter before the router, `count` times.
    pub fn with_filters(mut self, type_url: &str, count: usize) -> Self {
        self.filters.extend(std::iter::repeat_n(type_url.to_owned(), count));
        self
    }

    /// Reads the text.
    pub fn load(&self) -> Bootstrap {
        let text = self.text();
        from_str(&text, "bench.json", Format::Json).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn text(&self) -> String {
        let filters: String = (self.filters.iter().enumerate())
            .map(|(n, url)| format!(r#"{{"name": "filter-{n}", "typed_config": {{"@type": "{url}"}}}},"#))
            .collect();
        let clusters = self.origin_port.map(cluster).unwrap_or_default();
        format!(
            r#"{{"static_resources": {{"clusters": [{clusters}], "listeners": [{{
            "name": "bench", "address": {{"socket_address": {{"address": "127.0.0.1", "port_value": 1}}}},
            "filter_chains": [{{"filters": [{{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {{
                    "@type": "{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "bench",
                    "route_config": {{"name": "bench", "virtual_hosts": [{}]}},
                    "http_filters": [{filters}{{"name": "envoy.filters.http.router",
                        "typed_config": {{"@type": "{TYPES}.filters.http.router.v3.Router"}}}}]
                }}
            }}]}}]
            }}]}}}}"#,
            self.virtual_hosts.join(",")
        )
    }
}

/// A virtual host named after its domain.
pub fn virtual_host(domain: &str, routes: &[String]) -> String {
    format!(r#"{{"name": "{domain}", "domains": ["{domain}"], "routes": [{}]}}"#, routes.join(","))
}

/// A route on a `prefix` or `path`.
pub fn route(condition: &str, value: &str, action: &str) -> String {
    format!(r#"{{"match": {{"{condition}": "{value}"}}, {action}}}"#)
}

/// The connection manager of a document.
pub fn connection_manager(bootstrap: &Bootstrap) -> &Arc<HcmConfig> {
    let filters = bootstrap.listeners.iter().flat_map(|l| &l.filter_chains).flat_map(|chain| &chain.filters);
    let mut managers = filters.filter_map(|filter| match filter {
        NetworkFilterConfig::Http(config) => Some(config),
        _ => None,
    });
    managers.next().expect("a connection manager")
}

fn cluster(port: u16) -> String {
    format!(
        r#"{{"name": "origin", "type": "STATIC", "load_assignment": {{"cluster_name": "origin",
        "endpoints": [{{"lb_endpoints": [{{"endpoint": {{"address": {{"socket_address":
            {{"address": "127.0.0.1", "port_value": {port}}}}}}}}}]}}]}}}}"#
    )
}

/// Answers without an upstream, with [`BODY`](crate::messages::BODY).
pub const DIRECT: &str = r#""direct_response": {"status": 200, "body": {"inline_string": "hello, world"}}"#;

/// Forwards to the cluster of [`Document::origin_port`].
pub const FORWARD: &str = r#""route": {"cluster": "origin"}"#;

const TYPES: &str = "type.googleapis.com/envoy.extensions";

//! Configurations of the tests: one listener, one virtual host, one cluster, and what a test changes.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::tls_origin;

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A configuration; each method merges a piece of JSON into its message (`null` deletes a key).
///
/// Listener `ingress` on port 0, route `/` to the cluster `origin`, `delayed_close_timeout` of 0.2 s so that a
/// close is seen soon.
#[derive(Clone, Debug)]
pub struct Config(pub Value);

impl Config {
    /// With one upstream.
    pub fn new(origin: SocketAddr) -> Self {
        Self::with_clusters(&[cluster("origin", &[origin])])
    }

    /// With these clusters; the first one must be named `origin`.
    pub fn with_clusters(clusters: &[Value]) -> Self {
        Self(json!({
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {
                "listeners": [{
                    "name": "ingress",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                    "filter_chains": [{"filters": [{
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": HCM,
                            "stat_prefix": "ingress",
                            "codec_type": "HTTP1",
                            "delayed_close_timeout": "0.2s",
                            "route_config": {"name": "routes", "virtual_hosts": [{
                                "name": "all",
                                "domains": ["*"],
                                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}],
                            }]},
                            "http_filters": [{
                                "name": "envoy.filters.http.router",
                                "typed_config": {"@type": ROUTER},
                            }],
                        },
                    }]}],
                }],
                "clusters": clusters,
            },
        }))
    }

    fn edit(mut self, pointer: &str, change: Value) -> Self {
        let place = self.0.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        merge(place, change);
        self
    }

    /// Changes the bootstrap.
    pub fn bootstrap(self, change: Value) -> Self {
        self.edit("", change)
    }

    /// Changes the listener.
    pub fn listener(self, change: Value) -> Self {
        self.edit("/static_resources/listeners/0", change)
    }

    /// Changes the connection manager.
    pub fn hcm(self, change: Value) -> Self {
        self.edit("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config", change)
    }

    /// Changes the route configuration.
    pub fn route_config(self, change: Value) -> Self {
        self.hcm(json!({"route_config": change}))
    }

    /// Changes the only virtual host.
    pub fn virtual_host(self, change: Value) -> Self {
        let place = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0";
        self.edit(place, change)
    }

    /// Replaces the routes.
    pub fn routes(self, routes: Value) -> Self {
        self.virtual_host(json!({"routes": routes}))
    }

    /// Changes the only route.
    pub fn route(self, change: Value) -> Self {
        let place = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0";
        self.edit(place, change)
    }

    /// Changes the first cluster.
    pub fn cluster(self, change: Value) -> Self {
        self.edit("/static_resources/clusters/0", change)
    }

    /// Changes the first cluster's `HttpProtocolOptions`.
    pub fn cluster_http(self, change: Value) -> Self {
        let mut options = json!({
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": {"http_protocol_options": {}},
        });
        merge(&mut options, change);
        self.cluster(json!({"typed_extension_protocol_options": {HTTP_OPTIONS: options}}))
    }

    /// Speaks HTTP/2 to the first cluster, with these options.
    pub fn http2_upstream(self, options: Value) -> Self {
        self.cluster_http(
            json!({"explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": options}}),
        )
    }

    /// Speaks TLS to clients, with the tests' certificate for `server.test`, HTTP/2 or HTTP/1.1 as ALPN says.
    pub fn tls_listener(self) -> Self {
        let certificate = json!({
            "certificate_chain": {"filename": tls_origin::certificate("server.pem")},
            "private_key": {"filename": tls_origin::certificate("server.key")},
        });
        let socket = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate],
                },
            },
        });
        self.hcm(json!({"codec_type": "AUTO"}))
            .edit("/static_resources/listeners/0/filter_chains/0", json!({"transport_socket": socket}))
    }

    /// Speaks TLS to the first cluster, without a look at its certificate.
    pub fn tls_upstream(self) -> Self {
        self.cluster(json!({"transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "server.test",
                "common_tls_context": {"alpn_protocols": ["h2"]},
            },
        }}))
    }

    /// Puts filters before the router: `[{"name": .., "typed_config": ..}, ..]`.
    pub fn filters(self, filters: Value) -> Self {
        let mut all = filters.as_array().cloned().unwrap_or_default();
        all.push(json!({"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}));
        self.hcm(json!({"http_filters": all}))
    }

    /// Adds a file access log; `format` is `log_format`, or null for the default.
    pub fn access_log(self, path: &Path, format: Value) -> Self {
        self.hcm(json!({"access_log": [file_log(path, format)]}))
    }
}

/// One `access_log` entry.
pub fn file_log(path: &Path, format: Value) -> Value {
    let mut log = json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {"@type": FILE_LOG, "path": path},
    });
    if !format.is_null() {
        log["typed_config"]["log_format"] = format;
    }
    log
}

/// A text `log_format`.
pub fn text_format(format: &str) -> Value {
    json!({"text_format_source": {"inline_string": format}})
}

/// A STATIC cluster with these hosts.
pub fn cluster(name: &str, hosts: &[SocketAddr]) -> Value {
    let host = |address: &SocketAddr| {
        json!({"endpoint": {"address": {"socket_address": {
            "address": address.ip(), "port_value": address.port(),
        }}}})
    };
    let hosts: Vec<Value> = hosts.iter().map(host).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
    })
}

/// A filter of the chain, by the end of its type.
pub fn filter(name: &str, message: &str, config: Value) -> Value {
    let mut typed = json!({"@type": format!("type.googleapis.com/{message}")});
    merge(&mut typed, config);
    json!({"name": name, "typed_config": typed})
}

/// Merges `change` into `place`: objects key by key, anything else as a whole, `null` deletes.
pub fn merge(place: &mut Value, change: Value) {
    match (place, change) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                if value.is_null() {
                    old.remove(&key);
                } else {
                    merge(old.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (place, change) => *place = change,
    }
}

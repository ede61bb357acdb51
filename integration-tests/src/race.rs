//! A host that speaks every version of HTTP, over paths for TCP and UDP that a test makes good or bad, and the
//! configuration of a proxy that is to find out (`auto_config`).

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_testkit::udp::{Quality, UdpPath};

use crate::config::{filter, merge};
use crate::tls_origin::certificate;
use crate::{Config, Origin, Proxy, Relay};

const QUIC: &str = "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport";
const LEARNER: &str = "envoy.extensions.filters.http.alternate_protocols_cache.v3.FilterConfig";

/// A host for `server.test` whose responses say in `x-by` which version asked: another proxy, which ends TLS and QUIC.
#[derive(Debug)]
pub struct Host {
    /// The other proxy.
    pub proxy: Proxy,
    /// The way to it by TCP.
    pub tcp: Relay,
    /// The way to it by UDP.
    pub udp: UdpPath,
}

/// How a host is, and the ways to it.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// That of datagrams.
    pub udp: Quality,
    /// How long each way over TCP takes.
    pub tcp: Duration,
    /// What the host takes over TCP.
    pub alpn: &'static [&'static str],
}

impl Default for Ways {
    fn default() -> Self {
        Self { udp: Quality::Open, tcp: Duration::ZERO, alpn: &["h2", "http/1.1"] }
    }
}

impl Host {
    /// Starts one in front of `origin`.
    ///
    /// # Panics
    /// When it does not start, or no port is free for TCP and UDP.
    #[track_caller]
    pub fn start(origin: &Origin, ways: Ways) -> Self {
        let by = json!({"response_headers_to_add": [{"header": {"key": "x-by", "value": "%PROTOCOL%"}}]});
        let config = Config::new(origin.address()).virtual_host(by);
        let mut all = config.clone().tls_listener();
        let context =
            "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config/common_tls_context";
        all.0.pointer_mut(context).unwrap()["alpn_protocols"] = json!(ways.alpn);
        let mut quic = config.quic_listener(json!({})).0["static_resources"]["listeners"][0].take();
        quic["name"] = json!("quic");
        all.0["static_resources"]["listeners"].as_array_mut().unwrap().push(quic);
        let proxy = Proxy::start(&all);
        let far = proxy.admin.listener("quic");
        // A port that is free for TCP may be taken for UDP.
        let found = (0..100).find_map(|_| {
            let tcp = Relay::new(proxy.address, ways.tcp);
            let udp = UdpPath::new(tcp.address(), far, ways.udp).ok()?;
            Some((tcp, udp))
        });
        let (tcp, udp) = found.expect("a port");
        Self { proxy, tcp, udp }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.tcp.address()
    }
}

/// In front of the host at `address`, in every version, with this `alternate_protocols_cache_options`.
pub fn front(address: SocketAddr, cache: Value) -> Config {
    let tls = json!({
        "sni": "server.test",
        "common_tls_context": {"validation_context": {"trusted_ca": {"filename": certificate("ca.pem")}}},
    });
    let socket = json!({
        "name": "envoy.transport_sockets.quic",
        "typed_config": {"@type": QUIC, "upstream_tls_context": tls},
    });
    Config::new(address)
        .cluster(json!({"transport_socket": socket}))
        .cluster_http(json!({"explicit_http_config": null, "auto_config": auto(cache)}))
        .filters(json!([filter("envoy.filters.http.alternate_protocols_cache", LEARNER, json!({}))]))
}

/// `auto_config` with every version and this `alternate_protocols_cache_options`.
pub fn auto(cache: Value) -> Value {
    json!({
        "http_protocol_options": {}, "http2_protocol_options": {}, "http3_protocol_options": {},
        "alternate_protocols_cache_options": cache,
    })
}

/// A cache that knows that the host on that port takes HTTP/3.
pub fn hint(port: u16) -> Value {
    json!({"name": "c", "prepopulated_entries": [{"hostname": "server.test", "port": port}]})
}

/// With Tidegate's own options of the choice (`tidegate.http3_selection`).
pub fn selecting(config: Config, fields: Value) -> Config {
    let mut selection = json!({"@type": "type.googleapis.com/tidegate.upstreams.v1.Http3Selection"});
    merge(&mut selection, fields);
    config.cluster(json!({"typed_extension_protocol_options": {"tidegate.http3_selection": selection}}))
}

/// Until when HTTP/3 is not tried with the host, in ms since 1970: `h3_broken_until_ms` of `/pools`.
///
/// # Panics
/// When the admin server does not answer.
#[track_caller]
pub fn broken_until(proxy: &Proxy) -> Option<u64> {
    let page = proxy.admin.get("/pools").json();
    let pools = page["clusters"][0]["hosts"][0]["pools"].as_array().cloned().unwrap_or_default();
    pools.iter().find_map(|pool| pool["h3_broken_until_ms"].as_u64())
}

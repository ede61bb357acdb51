//! What each proxy's configuration says, for a [`Setup`].

use std::path::Path;

use serde_json::{Value, json};

use super::{Front, Setup, Upstream};
use crate::sys;

/// nginx's; it is never asked for a TCP proxy.
pub(super) fn nginx(folder: &Path, setup: Setup) -> String {
    let Setup { port, origin, front, .. } = setup;
    let folder = folder.display();
    let (tls, certificate) = if front.is_tls() {
        let files = format!("ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;");
        // 1.22 does not offer 1.3 by itself.
        (" ssl", format!("ssl_protocols TLSv1.3; {files}"))
    } else {
        ("", String::new())
    };
    let http2 = if front.is_http2() { " http2" } else { "" };
    // Started by root, the worker would change to a user who cannot write below the target folder.
    let user = if sys::is_root() { "user root;" } else { "" };
    format!(
        "{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream origin {{
    server 127.0.0.1:{origin};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port}{tls}{http2} backlog=4096;
    {certificate}
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
    }}
  }}
}}
"
    )
}

/// HAProxy's.
pub(super) fn haproxy(folder: &Path, setup: Setup) -> String {
    let Setup { port, origin, front, .. } = setup;
    let mode = if front == Front::Tcp { "tcp" } else { "http" };
    let tls = if front.is_tls() {
        format!(" ssl crt {}/both.pem alpn {}", folder.display(), front.alpn())
    } else {
        String::new()
    };
    let (h2_in, h2_out) = (
        if front == Front::Http2 { " proto h2" } else { "" },
        if setup.upstream == Upstream::Http2 { " proto h2" } else { "" },
    );
    // HAProxy refuses to start when the limit of open files cannot carry its `maxconn`.
    let connections = (sys::raise_open_files().saturating_sub(200) / 2).min(32_000);
    format!(
        "global
  nbthread 1
  maxconn {connections}
defaults
  mode {mode}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend ingress
  bind 127.0.0.1:{port}{tls}{h2_in}
  default_backend origin
backend origin
  server origin 127.0.0.1:{origin}{h2_out}
"
    )
}

/// Envoy's v3 configuration, which Tidegate reads too.
pub(super) fn envoy(folder: &Path, setup: Setup) -> String {
    let address = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let mut chain = json!({ "filters": [terminal(setup)] });
    if setup.front.is_tls() {
        let file = |name: &str| json!({ "filename": folder.join(name) });
        let mut context = json!({
            "common_tls_context": {
                "alpn_protocols": [setup.front.alpn()],
                "tls_certificates": [{
                    "certificate_chain": file("cert.pem"),
                    "private_key": file("key.pem")
                }]
            }
        });
        chain["transport_socket"] = if setup.front == Front::Http3 {
            json!({
                "name": "envoy.transport_sockets.quic",
                "typed_config": {
                    "@type": type_url("transport_sockets.quic.v3.QuicDownstreamTransport"),
                    "downstream_tls_context": context
                }
            })
        } else {
            context["@type"] = json!(type_url("transport_sockets.tls.v3.DownstreamTlsContext"));
            json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
        };
    }
    let mut listener = json!({ "name": "ingress", "address": address(setup.port), "filter_chains": [chain] });
    if setup.front == Front::Http3 {
        listener["address"]["socket_address"]["protocol"] = json!("UDP");
        listener["udp_listener_config"] =
            json!({ "quic_options": {}, "downstream_socket_config": { "prefer_gro": true } });
    }
    let mut cluster = json!({
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000
        }] },
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(setup.origin) } }] }]
        }
    });
    if setup.upstream == Upstream::Http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": type_url("upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": { "http2_protocol_options": {} }
            }
        });
    }
    let config = json!({
        "static_resources": {
            "listeners": [listener],
            "clusters": [cluster]
        }
    });
    format!("{config:#}\n")
}

/// The filter that owns the connection.
fn terminal(setup: Setup) -> Value {
    if setup.front == Front::Tcp {
        return json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": type_url("filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "ingress_tcp",
                "cluster": "origin"
            }
        });
    }
    let mut manager = json!({
        "@type": type_url("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "ingress_http",
        "codec_type": if setup.front == Front::Http3 { "HTTP3" } else { "AUTO" },
        "route_config": {
            "name": "routes",
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "origin" } }]
            }]
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": type_url("filters.http.router.v3.Router") }
        }]
    });
    if let Some(timeout) = setup.idle_timeout {
        // Without the drain window and the delayed close: the timer itself is measured.
        manager["common_http_protocol_options"] =
            json!({ "idle_timeout": format!("{}s", timeout.as_secs()) });
        manager["drain_timeout"] = json!("0s");
        manager["delayed_close_timeout"] = json!("0s");
    }
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
}

fn type_url(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Setup =
        Setup { port: 1234, origin: 5678, front: Front::Tcp, upstream: Upstream::Plain, idle_timeout: None };

    #[test]
    fn the_envoy_file_is_json_with_both_ports() {
        let config: Value = serde_json::from_str(&envoy(Path::new("/x"), TCP)).unwrap();
        let resources = &config["static_resources"];
        assert_eq!(resources["listeners"][0]["address"]["socket_address"]["port_value"], 1234);
        let endpoint =
            &resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"]["socket_address"]["port_value"], 5678);
    }

    #[test]
    fn a_tls_front_names_its_certificate() {
        let tls = Setup { front: Front::Tls, ..TCP };
        assert!(envoy(Path::new("/x"), tls).contains("/x/cert.pem"));
        assert!(nginx(Path::new("/x"), tls).contains("1234 ssl backlog"));
        assert!(haproxy(Path::new("/x"), tls).contains("crt /x/both.pem"));
    }

    #[test]
    fn http2_is_set_up_on_the_side_that_has_it() {
        let in_only = Setup { front: Front::Http2, ..TCP };
        assert!(nginx(Path::new("/x"), in_only).contains("1234 http2 backlog"));
        assert!(haproxy(Path::new("/x"), in_only).contains("1234 proto h2\n"));
        assert!(!envoy(Path::new("/x"), in_only).contains("http2_protocol_options"));
        let out_only = Setup { front: Front::Http, upstream: Upstream::Http2, ..TCP };
        assert!(haproxy(Path::new("/x"), out_only).contains("5678 proto h2\n"));
        assert!(envoy(Path::new("/x"), out_only).contains("http2_protocol_options"));
        let tls = Setup { front: Front::Http2Tls, ..TCP };
        assert!(nginx(Path::new("/x"), tls).contains("1234 ssl http2 backlog"));
        assert!(haproxy(Path::new("/x"), tls).contains("alpn h2\n"));
    }
}

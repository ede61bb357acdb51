//! Hosts of one cluster that speak different things: `transport_socket_matches`, and the checks' own labels.

use integration_tests::config::cluster;
use integration_tests::tls_origin::{Answer, TlsOrigin};
use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};

fn tls(sni: &str) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": sni,
    }})
}

/// A cluster whose first host is one of TLS, by its label or its locality's, and whose second is not.
fn mixed(secure: &TlsOrigin, plain: &Origin, by_locality: bool) -> Value {
    let labels = json!({"filter_metadata": {"envoy.transport_socket_match": {"tls": true, "rack": 7}}});
    let mut mixed = cluster("origin", &[secure.address(), plain.address()]);
    let hosts = mixed["load_assignment"]["endpoints"][0]["lb_endpoints"].take();
    let place = |zone: &str, host: &Value| json!({"locality": {"zone": zone}, "lb_endpoints": [host]});
    let mut places = json!([place("a", &hosts[0]), place("b", &hosts[1])]);
    let target = if by_locality { &mut places[0] } else { &mut places[0]["lb_endpoints"][0] };
    target["metadata"] = labels;
    mixed["load_assignment"]["endpoints"] = places;
    mixed["transport_socket_matches"] = json!([
        {"name": "never", "match": {"tls": true, "rack": 8}, "transport_socket": tls("never.test")},
        {"name": "secure", "match": {"tls": true}, "transport_socket": tls("server.test")},
    ]);
    mixed
}

#[test]
fn hosts_speak_what_their_labels_say() {
    for by_locality in [false, true] {
        let (secure, plain) = (TlsOrigin::new("server", Answer::Keep), Origin::named("plain"));
        let proxy = Proxy::start(&Config::with_clusters(&[mixed(&secure, &plain, by_locality)]));
        let mut answers: Vec<_> = (0..4).map(|_| proxy.get("/").text()).collect();
        answers.sort();
        assert_eq!(answers, ["ok", "ok", "plain", "plain"]);
        assert_eq!(secure.seen().remove(0).server_name.as_deref(), Some("server.test"));
        for (name, value) in [
            ("secure.total_match_count", 1),
            ("never.total_match_count", 0),
            ("default.total_match_count", 1),
            ("ssl.handshake", 1),
            ("upstream_cx_total", 2),
        ] {
            assert_eq!(proxy.stat(&format!("cluster.origin.{name}")), value, "{name}");
        }
    }
}

/// What a request asks of its connection goes by what its host speaks, and not by what most hosts do.
#[test]
fn requests_name_the_server_where_the_host_speaks_tls() {
    let (secure, plain) = (TlsOrigin::new("server", Answer::Keep), Origin::named("plain"));
    let mut mixed = mixed(&secure, &plain, false);
    mixed["transport_socket_matches"][1]["transport_socket"]["typed_config"]["sni"].take();
    mixed["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "upstream_http_protocol_options": {"auto_sni": true},
            "explicit_http_config": {"http_protocol_options": {}},
        },
    });
    let proxy = Proxy::start(&Config::with_clusters(&[mixed]));
    (0..2).for_each(|_| drop(proxy.get("/")));
    assert_eq!(secure.seen().remove(0).server_name.as_deref(), Some("a.test"));
}

#[test]
fn checks_may_go_by_labels_of_their_own() {
    let (secure, plain) = (TlsOrigin::new("server", Answer::Keep), Origin::named("plain"));
    let mut mixed = mixed(&secure, &plain, false);
    // With the label both hosts are asked in plain text, which only one of them understands.
    mixed["transport_socket_matches"][0]["match"] = json!({"plain": true});
    mixed["transport_socket_matches"][0]["transport_socket"] = json!({
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
    });
    mixed["health_checks"] = json!([{
        "timeout": "5s", "interval": "60s", "unhealthy_threshold": 1, "healthy_threshold": 1,
        "http_health_check": {"path": "/"},
        "transport_socket_match_criteria": {"plain": true},
    }]);
    let proxy = Proxy::start(&Config::with_clusters(&[mixed]));
    proxy.admin.await_stat("cluster.origin.health_check.attempt", 2);
    proxy.admin.await_stat("cluster.origin.membership_healthy", 1);
    assert_eq!(proxy.stat("cluster.origin.never.total_match_count"), 2);
    assert_eq!(proxy.get("/").text(), "plain");
}

//! Pools beyond the common case: owned by a client's connection, limited in number, ended by their upstream.

use integration_tests::config::cluster;
use integration_tests::h2::{H2Origin, Manners, code};
use integration_tests::proxy::Options;
use integration_tests::{Config, Gate, Origin, Proxy, Wire, wait};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// Speaks HTTP/2 with these options to the upstream.
fn http2(config: Config, options: Value) -> Config {
    config.cluster_http(
        json!({"explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": options}}),
    )
}

fn h2(origin: &H2Origin) -> Config {
    http2(Config::new(origin.address()), json!({}))
}

#[track_caller]
fn counts(proxy: &Proxy, expected: &[(&str, u64)]) {
    let stats = proxy.admin.stats();
    for (name, value) in expected {
        assert_eq!(stats.get(&format!("cluster.origin.{name}")), *value, "{name}");
    }
}

/// Sends a request and waits until that many have arrived.
fn send(proxy: &Proxy, origin: &H2Origin, path: &str, arrived: usize) -> Wire {
    let mut client = proxy.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
    origin.await_streams(arrived);
    client
}

#[test]
fn a_clients_connection_may_have_upstream_connections_to_itself() {
    for own in [true, false] {
        let change = json!({"connection_pool_per_downstream_connection": own});
        let expected = if own { 2 } else { 1 };

        let origin = Origin::ok();
        let proxy = Proxy::start(&Config::new(origin.address()).cluster(change.clone()));
        let mut clients = [proxy.connect(), proxy.connect()];
        for _ in 0..2 {
            clients.iter_mut().for_each(|client| assert_eq!(client.ask(GET).status, 200));
        }
        assert_eq!(origin.connections(), expected);
        let used: Vec<_> = origin.requests().iter().map(|request| request.connection).collect();
        assert_eq!(used, if own { [0, 1, 0, 1] } else { [0; 4] });
        // They outlive their client.
        drop(clients);
        proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
        counts(&proxy, &[("upstream_cx_active", expected as u64), ("upstream_cx_destroy", 0)]);

        let origin = H2Origin::ok();
        let proxy = Proxy::start(&h2(&origin).cluster(change));
        let mut clients = [proxy.connect(), proxy.connect()];
        for _ in 0..2 {
            clients.iter_mut().for_each(|client| assert_eq!(client.ask(GET).status, 200));
        }
        assert_eq!((origin.connections(), origin.streams().len()), (expected, 4));
    }
}

/// One pool and two clients that would have one each: whoever comes second is refused while the first one's is in
/// use, and takes its place once it is not.
#[test]
fn max_connection_pools_refuses_as_if_there_were_no_host() {
    let change = || {
        json!({
            "connection_pool_per_downstream_connection": true,
            "circuit_breakers": {"thresholds": [{"max_connection_pools": 1}]},
        })
    };
    let check = |proxy: &Proxy, gate: &Gate, in_use: &dyn Fn()| {
        let mut first = proxy.connect();
        first.send(GET);
        in_use();
        let mut second = proxy.connect();
        let refused = second.ask(GET);
        assert_eq!((refused.status, refused.text().as_str()), (503, "no healthy upstream"));
        assert_eq!(refused.header("x-envoy-overloaded"), None);
        counts(
            proxy,
            &[
                ("upstream_cx_pool_overflow", 1),
                ("circuit_breakers.default.cx_pool_open", 1),
                ("upstream_rq_pending_overflow", 0),
                ("upstream_cx_none_healthy", 0),
            ],
        );
        gate.open(2);
        assert_eq!(first.response().status, 200);
        proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
        assert_eq!(second.ask(GET).status, 200);
        counts(
            proxy,
            &[("upstream_cx_pool_overflow", 1), ("upstream_cx_total", 2), ("upstream_cx_active", 1)],
        );
    };
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(change()));
    check(&proxy, &gate, &|| {
        origin.await_requests(1);
    });
    let gate = Gate::default();
    let origin = H2Origin::gated(Manners::default(), &gate);
    let proxy = Proxy::start(&h2(&origin).cluster(change()));
    check(&proxy, &gate, &|| {
        origin.await_streams(1);
    });
}

/// As in Envoy: another host's pool is not given up, though nobody uses it.
#[test]
fn max_connection_pools_leaves_a_host_out() {
    let origins = [Origin::ok(), Origin::ok()];
    let hosts = [origins[0].address(), origins[1].address()];
    let limits = json!({"circuit_breakers": {"thresholds": [{"max_connection_pools": 1}]}});
    let proxy = Proxy::start(&Config::with_clusters(&[cluster("origin", &hosts)]).cluster(limits));
    let statuses: Vec<_> = (0..4).map(|_| proxy.get("/").status).collect();
    assert_eq!(statuses, [200, 503, 200, 503]);
    counts(&proxy, &[("upstream_cx_pool_overflow", 2), ("upstream_cx_total", 1)]);
}

/// Envoy's number for no limit: 2^64 - 1.
#[test]
fn what_remains_of_no_limit_is_a_lot() {
    let origin = Origin::ok();
    let limits = json!({"circuit_breakers": {"thresholds": [{"track_remaining": true}]}});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(limits));
    counts(&proxy, &[("circuit_breakers.default.remaining_cx_pools", u64::MAX)]);
    assert_eq!(proxy.get("/").status, 200);
    counts(
        &proxy,
        &[
            ("circuit_breakers.default.remaining_cx_pools", u64::MAX - 1),
            ("circuit_breakers.default.remaining_cx", 1023),
        ],
    );
}

#[test]
fn priorities_have_pools_and_limits_of_their_own_over_http2() {
    let gate = Gate::default();
    let origin = H2Origin::gated(Manners::default(), &gate);
    let routes = json!([
        {"match": {"prefix": "/high"}, "route": {"cluster": "origin", "priority": "HIGH"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "origin"}},
    ]);
    let limits = json!({"circuit_breakers": {"thresholds": [
        {"max_requests": 1}, {"priority": "HIGH", "max_requests": 2},
    ]}});
    let proxy = Proxy::start(&h2(&origin).cluster(limits).routes(routes));
    let mut clients: Vec<_> = ["/", "/high", "/high"]
        .iter()
        .enumerate()
        .map(|(sent, path)| send(&proxy, &origin, path, sent + 1))
        .collect();
    assert_eq!(origin.connections(), 2);
    for path in ["/", "/high"] {
        let refused = proxy.get(path);
        assert_eq!((refused.status, refused.header("x-envoy-overloaded")), (503, Some("true")));
    }
    counts(
        &proxy,
        &[
            ("upstream_rq_active_overflow", 2),
            ("circuit_breakers.default.rq_open", 1),
            ("circuit_breakers.high.rq_open", 1),
        ],
    );
    gate.open(3);
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
}

/// A connection that takes 1024 streams is ahead of any small demand; one that takes a single stream is not.
#[test]
fn connections_ahead_of_demand_count_places_for_streams() {
    for (options, expected) in [(json!({}), 1), (json!({"max_concurrent_streams": 1}), 4)] {
        let gate = Gate::default();
        let origin = H2Origin::gated(Manners::default(), &gate);
        let ahead = json!({"preconnect_policy": {"per_upstream_preconnect_ratio": 2}});
        let proxy = Proxy::start(&http2(Config::new(origin.address()), options).cluster(ahead));
        let mut clients: Vec<_> = (1..=2).map(|number| send(&proxy, &origin, "/", number)).collect();
        wait::until("connections", || origin.connections() == expected);
        gate.open(2);
        assert!(clients.iter_mut().all(|client| client.response().status == 200));
        counts(&proxy, &[("upstream_cx_total", expected as u64)]);
    }
}

#[test]
fn max_requests_is_exact_over_workers_for_streams() {
    let gate = Gate::default();
    let origin = H2Origin::gated(Manners::default(), &gate);
    let limits = json!({"circuit_breakers": {"thresholds": [{"max_requests": 3}]}});
    let options = Options { concurrency: 4, ..Options::default() };
    let proxy = options.start(&h2(&origin).cluster(limits));
    let mut clients: Vec<Wire> = (0..24).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    proxy.admin.await_stat("cluster.origin.upstream_rq_active_overflow", 21);
    origin.await_streams(3);
    gate.open(3);
    let statuses: Vec<_> = clients.iter_mut().map(|client| client.response().status).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((served, origin.streams().len(), origin.most_streams()), (3, 3, 3));
}

/// Each request is refused once, and goes again on the connection that refused it.
#[test]
fn a_refused_stream_costs_no_connection() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        if stream.id % 4 == 1 {
            return stream.reset(code::REFUSED_STREAM);
        }
        stream.request();
        stream.answer(200, "ok");
    });
    let proxy = Proxy::start(&h2(&origin));
    for _ in 0..7 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!((origin.connections(), origin.streams().len()), (1, 14));
    counts(&proxy, &[("upstream_rq_safe_retry", 7), ("upstream_rq_safe_retry_success", 7)]);
}

#[test]
fn goaway_in_two_steps_is_one_notice() {
    let origin = H2Origin::manual(Manners::default());
    let proxy = Proxy::start(&h2(&origin));
    let mut client = send(&proxy, &origin, "/", 1);
    let stream = origin.streams().remove(0);
    stream.conn.goaway_after(0x7fff_ffff);
    stream.conn.sync();
    stream.conn.goaway_after(1);
    stream.conn.sync();
    stream.answer(200, "ok");
    assert_eq!(client.response().status, 200);
    proxy.admin.await_stat("cluster.origin.upstream_cx_destroy_local", 1);
    counts(
        &proxy,
        &[
            ("upstream_cx_close_notify", 1),
            ("upstream_cx_destroy_with_active_rq", 0),
            ("upstream_cx_close_reason.announced", 1),
        ],
    );
}

/// What outlives the pool: why its connection closed.
#[test]
fn an_unanswered_ping_closes_the_connection_here() {
    let origin = H2Origin::manual(Manners { ack_pings: false, ..Manners::default() });
    let keepalive = json!({"connection_keepalive": {"interval": "0.1s", "timeout": "0.2s"}});
    let proxy = Proxy::start(&http2(Config::new(origin.address()), keepalive));
    assert_eq!(proxy.get("/").status, 503);
    proxy.admin.await_stat("cluster.origin.upstream_cx_close_reason.keepalive_timeout", 1);
    counts(
        &proxy,
        &[
            ("http2.keepalive_timeout", 1),
            ("upstream_cx_destroy_local_with_active_rq", 1),
            ("upstream_cx_destroy_remote", 0),
        ],
    );
    let host = proxy.admin.get("/pools").json()["clusters"][0]["hosts"][0].clone();
    assert_eq!(host["last_close_reasons"], json!(["keepalive_timeout"]));
    assert_eq!(host["pools"], json!([]));
}

/// HTTP/2 by prior knowledge is spoken whatever the upstream's TLS agreed to, as by Envoy.
#[test]
fn http2_is_spoken_whatever_tls_negotiated() {
    for (offered, taken) in [(json!([]), None), (json!(["http/1.1"]), Some("http/1.1"))] {
        let origin = H2Origin::tls_with(Manners::default(), taken.as_slice(), |stream| {
            stream.request();
            stream.answer(200, "ok");
        });
        let tls = json!({"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "server.test", "common_tls_context": {"alpn_protocols": offered},
        }}});
        let proxy = Proxy::start(&h2(&origin).cluster(tls));
        assert_eq!(proxy.get("/").text(), "ok");
        assert_eq!(origin.connection(0).alpn().as_deref(), taken);
    }
}

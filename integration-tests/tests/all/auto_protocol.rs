//! `auto_config`: what ALPN chooses is spoken to the host, which here is another proxy that ends TLS.

use integration_tests::origin::Gate;
use integration_tests::{Config, Origin, Proxy, wait};
use serde_json::json;

/// A proxy with `alpn` in front of `origin`, and one that chooses by ALPN in front of it.
fn chain(origin: &Origin, alpn: &[&str]) -> (Proxy, Proxy) {
    let mut host = Config::new(origin.address()).tls_listener();
    let context =
        "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config/common_tls_context";
    host.0.pointer_mut(context).unwrap()["alpn_protocols"] = json!(alpn);
    let host = Proxy::start(&host);
    let auto = json!({"explicit_http_config": null, "auto_config": {}});
    let tls = json!({"typed_config": {"common_tls_context": {"alpn_protocols": null}}});
    let front = Config::new(host.address).tls_upstream().cluster_http(auto);
    let front = Proxy::start(&front.cluster(json!({"transport_socket": tls})));
    (front, host)
}

/// Three requests at once; the connections of each version that they took.
fn burst(alpn: &[&str]) -> (u64, u64, u64) {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let (front, _host) = chain(&origin, alpn);
    std::thread::scope(|scope| {
        let requests = [(); 3].map(|()| scope.spawn(|| front.get("/").status));
        origin.await_requests(3);
        gate.open(3);
        assert_eq!(requests.map(|request| request.join().unwrap()), [200; 3]);
    });
    wait::until("all are counted", || front.stat("cluster.origin.upstream_rq_completed") == 3);
    (
        front.stat("cluster.origin.upstream_cx_total"),
        front.stat("cluster.origin.upstream_cx_http1_total"),
        front.stat("cluster.origin.upstream_cx_http2_total"),
    )
}

/// Three requests at once, and then five, when the first ones are answered; the connections of each version.
fn waves(alpn: &[&str]) -> (u64, u64, u64) {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let (front, _host) = chain(&origin, alpn);
    let mut asked = 0;
    for wave in [3, 5] {
        std::thread::scope(|scope| {
            let requests: Vec<_> = (0..wave).map(|_| scope.spawn(|| front.get("/").status)).collect();
            asked += wave;
            origin.await_requests(asked);
            gate.open(wave);
            assert!(requests.into_iter().all(|request| request.join().unwrap() == 200));
        });
        let counted = asked as u64;
        wait::until("all are counted", || front.stat("cluster.origin.upstream_rq_completed") == counted);
    }
    assert_eq!(front.stat("cluster.origin.upstream_cx_connect_fail"), 0);
    (
        front.stat("cluster.origin.upstream_cx_total"),
        front.stat("cluster.origin.upstream_cx_http1_total"),
        front.stat("cluster.origin.upstream_cx_http2_total"),
    )
}

/// The first connections say what the host speaks: the next wave has those, and opens what is missing at once.
#[test]
fn a_second_wave_uses_what_the_first_one_learned() {
    assert_eq!(waves(&["http/1.1"]), (5, 5, 0));
    assert_eq!(waves(&["h2"]), (1, 0, 1));
}

#[test]
fn a_burst_shares_a_connection_where_http2_is_chosen() {
    assert_eq!(burst(&["h2", "http/1.1"]), (1, 0, 1));
}

#[test]
fn a_burst_has_a_connection_each_where_http1_is_chosen() {
    assert_eq!(burst(&["http/1.1"]), (3, 3, 0));
}

#[test]
fn a_host_without_alpn_speaks_http1() {
    assert_eq!(burst(&[]), (3, 3, 0));
}

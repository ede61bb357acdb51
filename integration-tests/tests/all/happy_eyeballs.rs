//! Hosts with several addresses: who is asked, who wins, what is counted, and what becomes of the losers. How long it
//! takes is the library's tests' matter, in virtual time.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use integration_tests::config::text_format;
use integration_tests::h2::H2Origin;
use integration_tests::proxy::await_lines;
use integration_tests::tls_origin::{Answer, TlsOrigin};
use integration_tests::{Config, Nobody, Origin, Proxy, Response, Wire, wait};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const ALL: &str = "envoy.reloadable_features.allow_multiple_dns_addresses";

fn address(address: SocketAddr) -> Value {
    json!({"address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}}})
}

/// A cluster of one host with these addresses, the primary one first.
fn addresses(all: &[SocketAddr]) -> Value {
    let mut endpoint = address(all[0]);
    endpoint["additional_addresses"] = all[1..].iter().copied().map(address).collect();
    json!({"load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}})
}

fn config(all: &[SocketAddr]) -> Config {
    Config::new(all[0]).cluster(addresses(all))
}

fn tcp(config: Config) -> Config {
    config.listener(json!({"filter_chains": [{"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {"@type": TCP, "stat_prefix": "t", "cluster": "origin"},
    }]}]}))
}

/// An address that answers nothing: its queue of connections is full, so that the kernel drops what comes.
struct BlackHole {
    socket: Socket,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        Self { _waiting: std::iter::from_fn(connect).take(16).collect(), socket }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }
}

#[track_caller]
fn counts(proxy: &Proxy, expected: &[(&str, u64)]) {
    let stats = proxy.admin.stats();
    for (name, value) in expected {
        assert_eq!(stats.get(&format!("cluster.origin.{name}")), *value, "{name}");
    }
}

/// Asks once, with what the access log says.
#[track_caller]
fn once(config: Config) -> (Proxy, Response, String) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let format =
        "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n";
    let proxy = Proxy::start(&config.access_log(&log, text_format(format)));
    let response = proxy.get("/");
    let line = await_lines(&log, 1).remove(0);
    (proxy, response, line)
}

#[test]
fn refused_addresses_are_passed_over() {
    let (one, two, origin) = (Nobody::new(), Nobody::new(), Origin::ok());
    let (proxy, response, line) = once(config(&[one.address(), two.address(), origin.address()]));
    assert_eq!(response.status, 200);
    // The host goes by its primary address.
    assert_eq!(line, format!("- {} {} -", one.address(), origin.address()));
    counts(
        &proxy,
        &[
            ("happy_eyeballs.attempts", 3),
            ("happy_eyeballs.won_ipv4", 1),
            ("happy_eyeballs.won_ipv6", 0),
            ("upstream_cx_total", 1),
            ("upstream_cx_connect_fail", 0),
            ("upstream_rq_pending_failure_eject", 0),
        ],
    );
    let clusters = proxy.admin.get("/clusters").text();
    assert!(clusters.contains(&format!("origin::{}::cx_total::1\n", one.address())), "{clusters}");
    assert!(!clusters.contains(&origin.address().to_string()), "as in Envoy: {clusters}");
}

#[test]
fn the_last_failure_is_told_when_all_are_refused() {
    let (one, two) = (Nobody::new(), Nobody::new());
    let (proxy, response, line) = once(config(&[one.address(), two.address()]));
    assert_eq!(response.status, 503);
    assert_eq!(line, format!("UF {} - delayed_connect_error:_Connection_refused", one.address()));
    counts(
        &proxy,
        &[
            ("happy_eyeballs.attempts", 2),
            ("happy_eyeballs.won_ipv4", 0),
            ("upstream_cx_total", 1),
            ("upstream_cx_connect_fail", 1),
            ("upstream_cx_destroy", 1),
        ],
    );
}

#[test]
fn a_black_hole_is_given_300_ms_alone() {
    let (hole, origin) = (BlackHole::new(), Origin::ok());
    let (proxy, response, line) =
        once(config(&[hole.address(), origin.address()]).bootstrap(json!({"stats_flush_interval": "0.05s"})));
    assert_eq!(response.status, 200);
    assert_eq!(line, format!("- {} {} -", hole.address(), origin.address()));
    // The connection is kept, so that the price is paid once.
    assert_eq!(proxy.get("/").status, 200);
    counts(
        &proxy,
        &[("happy_eyeballs.attempts", 2), ("happy_eyeballs.won_ipv4", 1), ("upstream_cx_total", 1)],
    );
    let cost = wait::until_some("the histogram", || {
        let metrics = proxy.admin.get("/stats/prometheus").text();
        let sum = metrics.lines().find(|line| line.contains("happy_eyeballs_delay_ms_sum"))?;
        sum.rsplit_once(' ')?.1.parse::<f64>().ok().filter(|ms| *ms > 0.0)
    });
    assert!(cost >= 300.0, "{cost} ms");
}

#[test]
fn connect_timeout_covers_all_attempts() {
    let (one, two) = (BlackHole::new(), BlackHole::new());
    let all = config(&[one.address(), two.address()]).cluster(json!({"connect_timeout": "0.6s"}));
    let (proxy, response, line) = once(all);
    assert_eq!(response.status, 503);
    assert!(line.starts_with("UF "), "{line}");
    counts(
        &proxy,
        &[
            ("happy_eyeballs.attempts", 2),
            ("upstream_cx_connect_timeout", 1),
            ("upstream_cx_connect_fail", 1),
        ],
    );
}

/// Whether it is HTTP/1.1, HTTP/2 or bytes.
#[test]
fn all_protocols_race() {
    let nobody = Nobody::new();
    let h2 = H2Origin::ok();
    let proxy = Proxy::start(&config(&[nobody.address(), h2.address()]).http2_upstream(json!({})));
    assert_eq!(proxy.get("/").status, 200);
    counts(&proxy, &[("happy_eyeballs.attempts", 2), ("upstream_cx_http2_total", 1)]);
    let origin = Origin::ok();
    let proxy = Proxy::start(&tcp(config(&[nobody.address(), origin.address()])));
    assert_eq!(proxy.get("/").status, 200);
    counts(&proxy, &[("happy_eyeballs.attempts", 2), ("upstream_cx_total", 1)]);
}

#[test]
fn an_address_that_accepts_and_says_nothing_loses_and_is_closed() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = TlsOrigin::new("server", Answer::Keep);
    let all = [silent.local_addr().unwrap(), origin.address()];
    let proxy = Proxy::start(&config(&all).tls_upstream());
    assert_eq!(proxy.get("/").status, 200);
    let (mut loser, _) = silent.accept().unwrap();
    loser.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut hello = Vec::new();
    loser.read_to_end(&mut hello).unwrap();
    assert_eq!(hello.first(), Some(&22), "a TLS handshake, and then the end");
    counts(
        &proxy,
        &[
            ("happy_eyeballs.attempts", 2),
            ("happy_eyeballs.won_ipv4", 1),
            ("upstream_cx_active", 1),
            ("ssl.handshake", 1),
        ],
    );
    // And the handshake of the winner was not disturbed.
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_request_that_is_given_up_leaves_the_attempts_to_the_pool() {
    let (hole, origin) = (BlackHole::new(), Origin::ok());
    let proxy = Proxy::start(&config(&[hole.address(), origin.address()]));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    proxy.admin.await_stat("cluster.origin.upstream_rq_pending_active", 1);
    drop(client);
    proxy.admin.await_stat("cluster.origin.happy_eyeballs.won_ipv4", 1);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle", 1);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_runtime_key_leaves_only_the_first_address() {
    let (nobody, origin) = (Nobody::new(), Origin::ok());
    let all = config(&[nobody.address(), origin.address()]);
    let layers = json!({"layered_runtime": {"layers": [{"name": "s", "static_layer": {ALL: false}}]}});
    let proxy = Proxy::start(&all.bootstrap(layers));
    assert_eq!(proxy.get("/").status, 503);
    assert_eq!(origin.connections(), 0);
    counts(&proxy, &[("happy_eyeballs.attempts", 0), ("upstream_cx_connect_fail", 1)]);
    assert!(!proxy.log().contains("has no effect"), "{}", proxy.log());
}

#[test]
fn other_addresses_after_a_reload_are_used() {
    let (nobody, one, two) = (Nobody::new(), Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::start(&config(&[nobody.address(), one.address()]));
    assert_eq!(proxy.get("/").text(), "one");
    let next = config(&[nobody.address(), two.address()]).0;
    std::fs::write(proxy.config_file(), next.to_string()).unwrap();
    assert_eq!(proxy.admin.post("/reload").status, 200);
    assert_eq!(proxy.get("/").text(), "two");
}

/// Skipped where there is no IPv6.
#[test]
fn families_take_turns_and_are_counted_apart() {
    let Ok(six) = TcpListener::bind("[::1]:0") else { return };
    let six_address = six.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in six.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                while wire.request().is_some() {
                    wire.send(integration_tests::origin::OK);
                }
            });
        }
    });
    let (one, two) = (Nobody::new(), Nobody::new());
    let all = [one.address(), two.address(), six_address];
    // IPv4 first, since the primary address is; the second address of that family is not asked.
    let proxy = Proxy::start(&config(&all));
    assert_eq!(proxy.get("/").status, 200);
    counts(
        &proxy,
        &[("happy_eyeballs.attempts", 2), ("happy_eyeballs.won_ipv6", 1), ("happy_eyeballs.won_ipv4", 0)],
    );
    let order = |order: Value| {
        let options = json!({"upstream_connection_options": {"happy_eyeballs_config": order}});
        let proxy = Proxy::start(&config(&all).cluster(options));
        assert_eq!(proxy.get("/").status, 200);
        proxy.stat("cluster.origin.happy_eyeballs.attempts")
    };
    assert_eq!(order(json!({"first_address_family_count": 2})), 3);
    assert_eq!(order(json!({"first_address_family_version": "V6"})), 1);
}

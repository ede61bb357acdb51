//! Idle and duration timeouts of upstream connections, handshakes and keep-alive, row by row: what is on the wire,
//! plain and under each `close_notify` policy, what is counted, the one line in the log, the time.

use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use integration_tests::closes::{Watched, in_time};
use integration_tests::config::{cluster, filter};
use integration_tests::tls_origin::{Answer, TlsEnd, TlsOrigin, certificate};
use integration_tests::{Config, End, Origin, binary};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::idle_rows::{ALL, Over};
use super::listener_filters::{TLS as INSPECTOR, client_hello};

const OWN: &str = "type.googleapis.com/tidegate.transport_sockets.tls.v1.TlsContext";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const UP: &str = "cluster.origin.upstream_cx";
const DUE: Duration = Duration::from_millis(300);

/// An upstream that notes how its first connection ends, and then talks on.
enum Upstream {
    Plain(Origin, Receiver<(End, bool)>),
    Tls(TlsOrigin),
}

impl Upstream {
    fn new(over: Over) -> Self {
        if over != Over::Plain {
            return Self::Tls(TlsOrigin::new("server", Answer::TalkAfterEnd));
        }
        let (sender, ends) = channel();
        let origin = Origin::script(move |mut peer| {
            while peer.request().is_some() {
                peer.send(integration_tests::origin::OK);
            }
            let end = peer.wire.end();
            let _ = sender.send((end, peer.wire.is_reset_by(b"HTTP/1.1 408 Request Timeout\r\n\r\n")));
        });
        Self::Plain(origin, ends)
    }

    /// A cluster of this upstream.
    fn cluster(&self, over: Over) -> Value {
        let address = match self {
            Self::Plain(origin, _) => origin.address(),
            Self::Tls(origin) => origin.address(),
        };
        let mut cluster = cluster("origin", &[address]);
        if let Over::Tls(policy) = over {
            cluster["transport_socket"] = json!({"name": "tidegate.transport_sockets.tls", "typed_config": {
                "@type": OWN, "close_notify": policy, "upstream_tls_context": {}}});
        }
        cluster
    }

    /// The end, in order and with the farewell that is due; and what crosses it meets no RST.
    #[track_caller]
    fn ends(&self, over: Over, idle: bool) {
        match self {
            Self::Plain(_, ends) => assert_eq!(ends.recv().unwrap(), (End::Fin, false)),
            Self::Tls(origin) => {
                let end = TlsEnd { close_notify: over.says_farewell(idle), reset: false };
                assert_eq!(origin.await_end(0), end, "{over:?}");
            }
        }
    }
}

/// One connection closed by the proxy, of which the counters and the one line say why.
#[track_caller]
fn closed(watched: &Watched, over: Over, kind: &str, reason: &str, idle: bool) -> u64 {
    let by = |name: &str| format!("{UP}_{name}");
    watched.counts(&[
        (&by("destroy"), 1),
        (&by("destroy_local"), 1),
        (&by("active"), 0),
        (&by("idle"), 0),
        (&by(&format!("close_reason.{reason}")), 1),
    ]);
    if let Over::Tls(_) = over {
        watched.counts(&[("cluster.origin.ssl.close_notify_sent", u64::from(over.says_farewell(idle)))]);
    }
    watched.one_line(kind, &["connection=", "cluster=\"origin\"", &format!("reason=\"{reason}\"")])
}

#[test]
fn pooled_connections_end_at_each_of_their_limits() {
    for over in ALL {
        for (options, counter, reason, due) in [
            (json!({"idle_timeout": "0.3s"}), "idle_timeout", "idle_timeout", DUE),
            (json!({"max_connection_duration": "0.3s"}), "max_duration_reached", "max_duration", DUE),
            (json!({"max_requests_per_connection": 1}), "max_requests", "max_requests", Duration::ZERO),
        ] {
            let origin = Upstream::new(over);
            let config = Config::with_clusters(&[origin.cluster(over)])
                .cluster_http(json!({"common_http_protocol_options": options}));
            let watched = Watched::start(&config);
            let since = Instant::now();
            let mut client = watched.proxy.connect();
            assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").status, 200);
            let idle = reason == "idle_timeout";
            watched.counts(&[(&format!("{UP}_{counter}"), 1)]);
            in_time(&format!("upstream {reason}, {over:?}"), since, due);
            origin.ends(over, idle);
            let idled = closed(&watched, over, "upstream h1", reason, idle);
            assert!(!idle || (300..2300).contains(&idled), "{idled}");
            // The client's connection does not notice.
            assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").status, 200);
        }
    }
}

#[test]
fn the_idle_clock_of_a_pool_stands_while_a_request_is_under_way() {
    let slow = Origin::answering(|_| {
        std::thread::sleep(Duration::from_millis(900));
        integration_tests::origin::OK
    });
    let config = Config::new(slow.address())
        .cluster_http(json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}}));
    let watched = Watched::start(&config);
    let since = Instant::now();
    assert_eq!(watched.proxy.get("/").status, 200);
    watched.counts(&[("cluster.origin.upstream_cx_idle_timeout", 1)]);
    in_time("upstream idle_timeout after a long response", since, Duration::from_millis(1200));
    assert_eq!(slow.connections(), 1);
}

/// A TCP proxy to this cluster.
fn tcp(cluster: Value, fields: Value) -> Config {
    let mut proxy = json!({"stat_prefix": "t", "cluster": "origin"});
    integration_tests::config::merge(&mut proxy, fields);
    Config::with_clusters(&[cluster])
        .listener(json!({"filter_chains": [{"filters": [filter("tcp", TCP, proxy)]}]}))
}

#[test]
fn a_tcp_session_says_farewell_to_its_upstream_too() {
    // The handshake counts as idling: on a machine that is busy it takes its time.
    let due = DUE * 5;
    for over in &ALL[1..] {
        let origin = Upstream::new(*over);
        let watched = Watched::start(&tcp(origin.cluster(*over), json!({"idle_timeout": "1.5s"})));
        let since = Instant::now();
        let mut client = watched.proxy.connect();
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").status, 200);
        assert_eq!(client.end(), End::Fin);
        in_time(&format!("tcp idle_timeout with TLS upstream, {over:?}"), since, due);
        origin.ends(*over, true);
        closed(&watched, *over, "upstream tcp", "idle_timeout", true);
    }
}

/// Without `preconnect_policy` a connection of a TCP pool belongs to one session, from its beginning, and there is
/// none for `TcpProtocolOptions.idle_timeout` to close: it goes when its session is given up while it connects.
#[test]
fn a_tcp_pool_keeps_no_connection_that_its_session_gave_up() {
    let (sender, ended) = channel();
    let slow = Origin::script(move |mut peer| {
        // Never answers the handshake.
        let _ = sender.send(peer.wire.end());
    });
    let options = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions";
    let mut origin = cluster("origin", &[slow.address()]);
    origin["transport_socket"] = json!({"name": "tidegate.transport_sockets.tls", "typed_config": {
        "@type": OWN, "upstream_tls_context": {}}});
    origin["typed_extension_protocol_options"] =
        json!({options: {"@type": format!("type.googleapis.com/{options}"), "idle_timeout": "10s"}});
    let watched = Watched::start(&tcp(origin, json!({"idle_timeout": "0.3s"})));
    let since = Instant::now();
    assert_eq!(watched.proxy.connect().end(), End::Fin);
    in_time("tcp idle_timeout while connecting", since, DUE);
    assert_eq!(ended.recv().unwrap(), End::Fin);
    watched.counts(&[
        ("cluster.origin.upstream_cx_active", 0),
        ("cluster.origin.upstream_cx_idle_timeout", 0),
        ("cluster.origin.upstream_rq_cancelled", 1),
    ]);
}

#[test]
fn a_handshake_of_a_client_ends_in_time() {
    let origin = Origin::ok();
    let file = |end: &str| json!({"filename": certificate(&format!("server.{end}"))});
    let pair = json!({"certificate_chain": file("pem"), "private_key": file("key")});
    for sent in [&[][..], &[22, 3, 1, 2, 0, 1, 0]] {
        let mut config = Config::new(origin.address());
        let chain = &mut config.0["static_resources"]["listeners"][0]["filter_chains"][0];
        chain["transport_socket_connect_timeout"] = json!("0.3s");
        chain["transport_socket"] = json!({"name": "tidegate.transport_sockets.tls", "typed_config": {
            "@type": OWN, "downstream_tls_context": {"common_tls_context": {"tls_certificates": [pair]}}}});
        let watched = Watched::start(&config);
        let since = Instant::now();
        let mut client = watched.proxy.connect();
        client.send(sent);
        assert_eq!((client.end(), client.text().as_str()), (End::Fin, ""));
        in_time("transport_socket_connect_timeout", since, DUE);
        drop(client);
        watched.counts(&[
            ("listener.127.0.0.1_0.downstream_cx_transport_socket_connect_timeout", 1),
            ("http.ingress.downstream_cx_destroy_local", 1),
            ("http.ingress.downstream_cx_close_reason.connect_timeout", 1),
            ("http.ingress.downstream_cx_idle_timeout", 0),
            ("listener.127.0.0.1_0.ssl.connection_error", 0),
        ]);
        watched.one_line("downstream h1", &["connection=", "reason=\"connect_timeout\""]);
    }
}

#[test]
fn listener_filters_end_in_time_or_are_passed_over() {
    let origin = Origin::ok();
    let filters = json!([filter("tls", INSPECTOR, json!({}))]);
    let config = Config::new(origin.address())
        .listener(json!({"listener_filters": filters, "listener_filters_timeout": "0.3s"}));
    let watched = Watched::start(&config);
    let since = Instant::now();
    let mut client = watched.proxy.connect();
    assert_eq!(client.end(), End::Fin);
    in_time("listener_filters_timeout", since, DUE);
    let counter = "listener.127.0.0.1_0.downstream_pre_cx_timeout";
    watched.counts(&[
        (counter, 1),
        ("listener.127.0.0.1_0.downstream_pre_cx_active", 0),
        ("listener.127.0.0.1_0.downstream_cx_total", 0),
        ("http.ingress.downstream_cx_total", 0),
    ]);
    let waited =
        watched.one_line("listener filters", &["[conn_handler]", "reason=\"listener_filters_timeout\""]);
    assert!((300..2300).contains(&waited), "{waited}");

    let watched = Watched::start(&config.listener(json!({"continue_on_listener_filters_timeout": true})));
    let mut client = watched.proxy.connect();
    let since = Instant::now();
    watched.counts(&[(counter, 1), ("http.ingress.downstream_cx_active", 1)]);
    in_time("continue_on_listener_filters_timeout", since, DUE.saturating_sub(Duration::from_millis(50)));
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").status, 200);
    assert!(watched.lines("listener filters").is_empty());
    // What was looked at for so long is no request: it is answered as one that is none.
    let mut half = watched.proxy.connect();
    half.send(&client_hello("a.test")[..40]);
    assert_eq!(half.response().status, 400);
}

#[test]
fn the_connect_timeout_bounds_tcp_and_tls_together() {
    // Its queue is full: no connection to it is ever established.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _queue: Vec<Socket> = (0..3)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let _ = socket.connect_timeout(&address, Duration::from_millis(50));
            socket
        })
        .collect();
    let silent = Origin::script(|mut peer| {
        peer.wire.end();
    });
    let tls = json!({"transport_socket": {"name": "tidegate.transport_sockets.tls", "typed_config": {
        "@type": OWN, "upstream_tls_context": {}}}});
    for (what, address, change) in
        [("TCP", address.as_socket().unwrap(), json!({})), ("TLS", silent.address(), tls)]
    {
        let config = Config::new(address).cluster(json!({"connect_timeout": "0.3s"})).cluster(change);
        let watched = Watched::start(&config);
        let since = Instant::now();
        let response = watched.proxy.get("/");
        in_time(&format!("connect_timeout of {what}"), since, DUE);
        assert_eq!(response.status, 503);
        assert!(response.text().ends_with("reset reason: connection timeout"), "{}", response.text());
        watched.counts(&[
            ("cluster.origin.upstream_cx_connect_timeout", 1),
            ("cluster.origin.upstream_cx_connect_fail", 1),
            ("cluster.origin.upstream_cx_close_reason.connect_timeout", 1),
            ("cluster.origin.upstream_cx_active", 0),
        ]);
        watched.one_line("upstream h1", &["cluster=\"origin\"", "reason=\"connect_timeout\""]);
    }
}

/// The kernel's timers of the connections from `local` port, as `ss -o` says.
fn timers(ss: &std::path::Path, port: u16) -> String {
    let filter = format!("sport = :{port}");
    let output = Command::new(ss).args(["-tnoH", "state", "established", &filter]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tcp_keepalive_is_the_kernels_on_both_sides() {
    let Some(ss) = binary::peer("ss", "SS_BIN") else { return binary::skipped("ss") };
    let (sender, peers) = channel();
    let origin = Origin::script(move |mut peer| {
        while peer.request().is_some() {
            let _ = sender.send(());
            peer.send(integration_tests::origin::OK);
        }
    });
    let keepalive = json!({"keepalive_time": 50, "keepalive_interval": 7, "keepalive_probes": 3});
    let on = Config::new(origin.address())
        .listener(json!({"tcp_keepalive": keepalive}))
        .cluster(json!({"upstream_connection_options": {"tcp_keepalive": keepalive}}));
    for (config, expected) in [(on, true), (Config::new(origin.address()), false)] {
        let watched = Watched::start(&config);
        let mut client = watched.proxy.connect();
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").status, 200);
        peers.recv().unwrap();
        // The proxy's ends: towards the client from the listener's port, towards the upstream to its port.
        let downstream = timers(&ss, watched.proxy.address.port());
        let to = format!("dport = :{}", origin.address().port());
        let output = Command::new(&ss).args(["-tnoHp", "state", "established", &to]).output().unwrap();
        let upstream = String::from_utf8_lossy(&output.stdout).into_owned();
        let own = format!("pid={},", watched.proxy.process.id());
        let upstream: String = upstream.lines().filter(|line| line.contains(&own)).collect();
        for (side, found) in [("downstream", downstream), ("upstream", upstream)] {
            let seen = found.contains("timer:(keepalive,4") || found.contains("timer:(keepalive,50");
            assert!(seen == expected, "{side}, expected {expected}: {found}");
        }
    }
}

/// The listener's descriptors are all that a client who left leaves behind.
#[test]
fn what_is_closed_for_idling_leaves_no_descriptor() {
    let origin = Origin::ok();
    let options = json!({"common_http_protocol_options": {"idle_timeout": "0.2s"}});
    let watched = Watched::start(&Config::new(origin.address()).hcm(options));
    let before = watched.proxy.process.descriptors();
    let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(watched.proxy.address).unwrap()).collect();
    watched.counts(&[("http.ingress.downstream_cx_close_reason.idle_timeout", 100)]);
    // Also while the clients have not closed: no longer than `delayed_close_timeout`.
    integration_tests::wait::until("closed descriptors", || watched.proxy.process.descriptors() <= before);
    drop(clients);
}

//! TCP sessions over real sockets: each way to end one, what is counted and logged, and bytes in bulk.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use integration_tests::config::{cluster, file_log, text_format};
use integration_tests::proxy::{Options, await_lines};
use integration_tests::{Config, End, Proxy, Wire, wait};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// One listener with a TCP proxy `t` to the cluster `origin`, changed by `tcp`.
fn config(clusters: &[Value], tcp: Value) -> Config {
    let mut proxy = json!({"@type": TCP, "stat_prefix": "t", "cluster": "origin"});
    integration_tests::config::merge(&mut proxy, tcp);
    Config::with_clusters(clusters).listener(json!({"filter_chains": [{"filters": [{
        "name": "envoy.filters.network.tcp_proxy", "typed_config": proxy,
    }]}]}))
}

/// An upstream that the test plays.
struct Origin(TcpListener);

impl Origin {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    #[track_caller]
    fn accept(&self) -> Wire {
        let stream = wait::until_some("a connection", || Some(self.0.accept().ok()?.0));
        stream.set_nonblocking(false).unwrap();
        Wire::new(stream)
    }

    fn clusters(&self) -> Vec<Value> {
        vec![cluster("origin", &[self.address()])]
    }
}

/// A session that has carried a message each way.
#[track_caller]
fn session(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let mut client = proxy.connect();
    let mut server = origin.accept();
    client.send("ping");
    assert_eq!(server.exactly(4).unwrap(), b"ping");
    server.send("pong");
    assert_eq!(client.exactly(4).unwrap(), b"pong");
    (client, server)
}

/// Waits for the counters of ended sessions, which add up.
#[track_caller]
fn ended(proxy: &Proxy, sessions: u64, reason: &str) {
    proxy.admin.await_stat("tcp.t.downstream_cx_destroy", sessions);
    let stats = proxy.admin.stats();
    assert_eq!(stats.get(&format!("tcp.t.downstream_cx_close_reason.{reason}")), sessions, "{stats:#?}");
    let family = "tcp.t.downstream_cx_close_reason.";
    let sum: u64 = stats.0.iter().filter(|(name, _)| name.starts_with(family)).map(|(_, value)| value).sum();
    assert_eq!(sum, sessions);
    assert_eq!(stats.get("tcp.t.downstream_cx_idle"), 0);
    let closed = stats.get("cluster.origin.upstream_cx_destroy");
    let family = "cluster.origin.upstream_cx_close_reason.";
    let sum: u64 = stats.0.iter().filter(|(name, _)| name.starts_with(family)).map(|(_, value)| value).sum();
    assert_eq!(sum, closed);
    assert_eq!(stats.get("cluster.origin.upstream_cx_active"), 0);
}

/// `tcp` with an access log of the flags.
fn logged(proxy: &mut Value, path: &std::path::Path) {
    let format = text_format(
        "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n",
    );
    proxy["access_log"] = json!([file_log(path, format)]);
}

#[test]
fn bytes_pass_and_are_counted() {
    let origin = Origin::new();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let proxy =
        Proxy::start(&config(&origin.clusters(), json!({"access_log": [file_log(&log, Value::Null)]})));
    let (mut client, mut server) = session(&proxy, &origin);
    proxy.admin.await_stat("tcp.t.downstream_cx_idle", 1);
    client.finish();
    assert_eq!(server.end(), End::Fin);
    drop(server);
    assert_eq!(client.end(), End::Fin);
    ended(&proxy, 1, "peer_fin");
    let stats = proxy.admin.stats();
    for (name, value) in [
        ("tcp.t.downstream_cx_total", 1),
        ("tcp.t.downstream_cx_rx_bytes_total", 4),
        ("tcp.t.downstream_cx_tx_bytes_total", 4),
        ("cluster.origin.upstream_cx_total", 1),
        ("cluster.origin.upstream_cx_http1_total", 0),
        ("cluster.origin.upstream_rq_total", 1),
        ("cluster.origin.upstream_rq_pending_total", 1),
        ("cluster.origin.upstream_cx_rx_bytes_total", 4),
        ("cluster.origin.upstream_cx_tx_bytes_total", 4),
        ("cluster.origin.upstream_cx_destroy_remote_with_active_rq", 1),
    ] {
        assert_eq!(stats.get(name), value, "{name}");
    }
    // Envoy's default line, of which a session fills a few places.
    let lines = await_lines(&log, 1);
    let (head, tail) = (lines[0].split(']').nth(1).unwrap(), format!("\"{}\"", origin.address()));
    assert!(head.starts_with(" \"- - -\" 0 - 4 4 ") && head.ends_with(&tail), "{}", lines[0]);
}

#[test]
fn the_listeners_line_comes_first_and_tells_of_the_session() {
    let origin = Origin::new();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let format = text_format(
        "%ACCESS_LOG_TYPE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% \
         %UPSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE% \
         %DOWNSTREAM_LOCAL_CLOSE_REASON%\n",
    );
    let limit = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        "stat_prefix": "cl", "max_connections": 1,
    });
    let tcp = json!({
        "@type": TCP, "stat_prefix": "t", "cluster": "origin", "access_log": [file_log(&log, format.clone())],
    });
    let config = Config::with_clusters(&origin.clusters()).listener(json!({
        "access_log": [file_log(&log, format)],
        "filter_chains": [{"filters": [
            {"name": "limit", "typed_config": limit}, {"name": "tcp", "typed_config": tcp},
        ]}],
    }));
    let proxy = Proxy::start(&config);
    let (client, server) = session(&proxy, &origin);
    // Refused by the filter before it, the connection is the TCP proxy's all the same.
    assert_eq!(proxy.connect().end(), End::Fin);
    let refused = "- 0 - - - Normal Normal over_connection_limit";
    assert_eq!(await_lines(&log, 2), [format!("NotSet {refused}"), format!("TcpConnectionEnd {refused}")]);
    proxy.admin.await_stat("tcp.t.downstream_cx_total", 2);
    drop(client);
    drop(server);
    let address = origin.address();
    let served = format!("- 4 {address} origin {address} Normal Normal -");
    assert_eq!(await_lines(&log, 4)[2..], [format!("NotSet {served}"), format!("TcpConnectionEnd {served}")]);
}

#[test]
fn each_side_may_close_its_half_first() {
    let origin = Origin::new();
    let proxy = Proxy::start(&config(&origin.clusters(), json!({})));
    // A client that says all it has to say, and waits for the answer.
    let (mut client, mut server) = session(&proxy, &origin);
    client.send("question").finish();
    assert_eq!(server.exactly(8).unwrap(), b"question");
    assert_eq!(server.end(), End::Fin);
    server.send("answer").finish();
    assert_eq!(client.exactly(6).unwrap(), b"answer");
    assert_eq!(client.end(), End::Fin);
    proxy.admin.await_stat("tcp.t.downstream_cx_close_reason.peer_fin", 1);
    // An upstream that does.
    let (mut client, mut server) = session(&proxy, &origin);
    server.finish();
    assert_eq!(client.end(), End::Fin);
    client.send("late");
    assert_eq!(server.exactly(4).unwrap(), b"late");
    client.finish();
    assert_eq!(server.end(), End::Fin);
    proxy.admin.await_stat("tcp.t.downstream_cx_close_reason.announced", 1);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_destroy_local_with_active_rq"), 1);
}

#[test]
fn a_reset_is_passed_on() {
    let origin = Origin::new();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut tcp = json!({});
    logged(&mut tcp, &log);
    let proxy = Proxy::start(&config(&origin.clusters(), tcp));
    let (client, mut server) = session(&proxy, &origin);
    client.reset();
    assert_eq!(server.end(), End::Reset);
    proxy.admin.await_stat("tcp.t.downstream_cx_close_reason.peer_rst", 1);
    let (mut client, mut server) = session(&proxy, &origin);
    server.send("last words");
    assert_eq!(client.exactly(10).unwrap(), b"last words");
    server.reset();
    assert_eq!(client.end(), End::Reset);
    proxy.admin.await_stat("cluster.origin.upstream_cx_close_reason.peer_rst", 1);
    assert_eq!(await_lines(&log, 2), ["- 4 4 origin 1", "UR 4 14 origin 1"]);
}

#[test]
fn an_idle_session_ends_in_order_and_in_time() {
    let origin = Origin::new();
    let idle = Duration::from_millis(300);
    let options = Options { arguments: vec!["-l".into(), "debug".into()], ..Options::default() };
    let proxy = options.start(&config(&origin.clusters(), json!({"idle_timeout": "0.3s"})));
    let (mut client, mut server) = session(&proxy, &origin);
    // A byte of either side starts the clock anew.
    for _ in 0..3 {
        assert!(client.is_quiet_for(idle / 2));
        server.send("x");
        assert_eq!(client.exactly(1).unwrap(), b"x");
    }
    let last = Instant::now();
    assert_eq!(client.end(), End::Fin);
    let took = last.elapsed();
    assert!(took >= idle - Duration::from_millis(5), "early: {took:?}");
    assert_eq!(server.end(), End::Fin);
    // What crosses the close meets no RST.
    client.send("crossing");
    assert!(!matches!(client.end(), End::Reset));
    drop((client, server));
    ended(&proxy, 1, "idle_timeout");
    assert_eq!(proxy.stat("tcp.t.idle_timeout"), 1);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_destroy_local_with_active_rq"), 1);
    wait::until("the log's line", || proxy.log().contains("Session timed out"));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("Session timed out")).unwrap();
    for part in [
        "debug",
        "filter",
        "kind=\"tcp session\"",
        "cluster=\"origin\"",
        "reason=\"idle_timeout\"",
        "idle_ms=3",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

/// An address at which connections are never established: its queue is full.
fn unreachable() -> (Socket, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let _ = socket.connect_timeout(&address, Duration::from_millis(50));
        socket
    };
    let queue = (0..3).map(fill).collect();
    (listener, queue)
}

#[test]
fn the_idle_clock_and_the_connect_timeout_run_while_connecting() {
    let (listener, _queue) = unreachable();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let proxy = Proxy::start(&config(&[cluster("origin", &[address])], json!({"idle_timeout": "0.2s"})));
    let mut client = proxy.connect();
    client.send("unread bytes do not make it an RST");
    assert_eq!(client.end(), End::Fin);
    ended(&proxy, 1, "idle_timeout");
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_rq_cancelled"), 1);
    assert_eq!(stats.get("cluster.origin.upstream_cx_connect_fail"), 0);

    let mut slow = cluster("origin", &[address]);
    slow["connect_timeout"] = json!("0.2s");
    let proxy = Proxy::start(&config(&[slow], json!({"max_connect_attempts": 2})));
    assert_eq!(proxy.connect().end(), End::Fin);
    ended(&proxy, 1, "request_reset");
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_cx_connect_timeout"), 2);
    assert_eq!(stats.get("cluster.origin.upstream_cx_connect_attempts_exceeded"), 1);
}

#[test]
fn an_old_session_ends() {
    let origin = Origin::new();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut tcp = json!({"max_downstream_connection_duration": "0.3s"});
    logged(&mut tcp, &log);
    let proxy = Proxy::start(&config(&origin.clusters(), tcp));
    let (mut client, mut server) = session(&proxy, &origin);
    assert_eq!((client.end(), server.end()), (End::Fin, End::Fin));
    drop((client, server));
    ended(&proxy, 1, "max_duration");
    assert_eq!(proxy.stat("tcp.t.max_downstream_connection_duration"), 1);
    assert_eq!(await_lines(&log, 1), ["DT 4 4 origin 1"]);
}

#[test]
fn a_session_without_an_upstream_ends_at_once() {
    let nobody = Origin::new().address();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let cases = [
        (
            cluster("origin", &[nobody]),
            json!({"max_connect_attempts": 3}),
            "request_reset",
            "UF,URX 0 0 origin 3",
        ),
        (cluster("origin", &[]), json!({}), "refused", "UH 0 0 origin 0"),
        (cluster("origin", &[]), json!({"cluster": "nowhere"}), "refused", "NC 0 0 - 0"),
    ];
    for (number, (cluster, mut tcp, reason, line)) in cases.into_iter().enumerate() {
        logged(&mut tcp, &log);
        let proxy = Proxy::start(&config(&[cluster], tcp));
        let mut client = proxy.connect();
        client.send("bytes that nobody reads");
        assert_eq!(client.end(), End::Fin, "{line}");
        ended(&proxy, 1, reason);
        assert_eq!(await_lines(&log, number + 1)[number], line);
        let stats = proxy.admin.stats();
        match number {
            0 => {
                assert_eq!(stats.get("cluster.origin.upstream_cx_connect_fail"), 3);
                assert_eq!(stats.get("cluster.origin.upstream_cx_connect_attempts_exceeded"), 1);
                assert_eq!(stats.get("cluster.origin.upstream_rq_total"), 0);
            }
            1 => assert_eq!(stats.get("cluster.origin.upstream_cx_none_healthy"), 1),
            _ => assert_eq!(stats.get("tcp.t.downstream_cx_no_route"), 1),
        }
    }
}

#[test]
fn a_connection_limit_refuses_sessions_at_once() {
    let origin = Origin::new();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut limited = cluster("origin", &[origin.address()]);
    limited["circuit_breakers"] = json!({"thresholds": [{"max_connections": 1}]});
    let mut tcp = json!({"max_connect_attempts": 2});
    logged(&mut tcp, &log);
    let proxy = Proxy::start(&config(&[limited], tcp));
    let (client, server) = session(&proxy, &origin);
    assert_eq!(proxy.connect().end(), End::Fin);
    assert_eq!(await_lines(&log, 1), ["UO 0 0 origin 0"]);
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_cx_overflow"), 1);
    assert_eq!(stats.get("cluster.origin.upstream_rq_pending_total"), 1);
    assert_eq!(stats.get("cluster.origin.circuit_breakers.default.cx_open"), 1);
    assert_eq!(stats.get("tcp.t.downstream_cx_close_reason.overflow"), 1);
    drop((client, server));
    proxy.admin.await_stat("cluster.origin.circuit_breakers.default.cx_open", 0);
    session(&proxy, &origin);
}

#[test]
fn sessions_are_spread_by_weight() {
    let (one, two) = (Origin::new(), Origin::new());
    let clusters = [cluster("origin", &[one.address()]), cluster("other", &[two.address()])];
    let weights = json!([{"name": "origin", "weight": 1}, {"name": "other", "weight": 1}]);
    let proxy = Proxy::start(&config(
        &clusters,
        json!({"cluster": null, "weighted_clusters": {"clusters": weights}}),
    ));
    let clients: Vec<_> = (0..40).map(|_| proxy.connect()).collect();
    proxy.admin.await_stat("tcp.t.downstream_cx_total", 40);
    let total = |name| proxy.stat(&format!("cluster.{name}.upstream_cx_total"));
    wait::until("all connections", || total("origin") + total("other") == 40);
    assert!(total("origin") > 0 && total("other") > 0);
    drop(clients);
}

/// 100 MB each way: pseudo-random, so that a byte out of place shows.
const BULK: usize = 100 << 20;

fn noise(block: usize) -> Vec<u8> {
    let mut state = block as u64 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..BLOCK / 8).flat_map(|_| next()).collect()
}

const BLOCK: usize = 64 << 10;

#[test]
fn bulk_passes_intact_by_splice_to_a_slow_reader() {
    let origin = Origin::new();
    let proxy = Proxy::start(&config(&origin.clusters(), json!({})));
    let mut client = proxy.connect();
    let mut server = origin.accept();
    let before = proxy.process.resident_bytes();
    let sender = std::thread::spawn(move || {
        for block in 0..BULK / BLOCK {
            client.send(noise(block));
        }
        client.finish();
        client
    });
    // Nobody reads: the sender is held back, and nothing gathers in the proxy.
    let received = || proxy.stat("tcp.t.downstream_cx_rx_bytes_total");
    wait::until("backpressure", || {
        let now = received();
        std::thread::sleep(Duration::from_millis(100));
        now > 0 && now == received()
    });
    assert!(received() < BULK as u64 / 2);
    assert!(proxy.process.resident_bytes() < before + (8 << 20));
    let pipes = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", proxy.process.id())).unwrap();
        let names = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        names.filter(|name| name.to_string_lossy().starts_with("pipe:")).count()
    };
    let with_bytes = pipes();
    for block in 0..BULK / BLOCK {
        assert!(server.exactly(BLOCK).unwrap() == noise(block), "block {block}");
        // As a reader with other things to do.
        if block % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(server.end(), End::Fin);
    assert!(with_bytes >= 2, "spliced by a pipe");
    // The way back is quiet and goes on.
    server.send("thanks").finish();
    let mut client = sender.join().unwrap();
    assert_eq!(client.exactly(6).unwrap(), b"thanks");
    assert_eq!(client.end(), End::Fin);
    ended(&proxy, 1, "peer_fin");
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_cx_tx_bytes_total"), BULK as u64);
    assert!(stats.get("tcp.t.downstream_flow_control_paused_reading_total") > 0);
}

/// By a rename, so that the watcher never meets half a file.
fn write(proxy: &Proxy, config: &Config) {
    let fresh = proxy.folder().join("fresh");
    std::fs::write(&fresh, config.0.to_string()).unwrap();
    std::fs::rename(&fresh, proxy.config_file()).unwrap();
}

#[test]
fn sessions_go_on_through_a_reload() {
    let (old, new) = (Origin::new(), Origin::new());
    let both = [cluster("origin", &[old.address()]), cluster("other", &[new.address()])];
    let proxy = Proxy::start(&config(&both, json!({})));
    let (mut client, mut server) = session(&proxy, &old);
    // The cluster that it uses goes too.
    let mut changed = config(&[cluster("origin", &[new.address()])], json!({"idle_timeout": "77s"}));
    changed.0["static_resources"]["clusters"][0]["connect_timeout"] = json!("3s");
    write(&proxy, &changed);
    // Counted once every worker serves it.
    proxy.admin.await_stat("config.reload_success", 1);
    client.send("still");
    assert_eq!(server.exactly(5).unwrap(), b"still");
    session(&proxy, &new);
    server.send("here").finish();
    assert_eq!(client.exactly(4).unwrap(), b"here");
    client.finish();
    assert_eq!(server.end(), End::Fin);
}

#[test]
fn sigterm_lets_sessions_go_on_until_the_drain_time_is_over() {
    let origin = Origin::new();
    let start = |time: &str| {
        let options =
            Options { arguments: vec!["--drain-time-s".to_owned(), time.to_owned()], ..Options::default() };
        options.start(&config(&origin.clusters(), json!({})))
    };
    let mut proxy = start("60");
    let (mut client, mut server) = session(&proxy, &origin);
    proxy.process.signal("TERM");
    wait::until("the drain", || proxy.log().contains("shutting down"));
    client.send("more");
    assert_eq!(server.exactly(4).unwrap(), b"more");
    drop((client, server));
    assert_eq!(proxy.process.exit().code(), Some(0));

    let mut proxy = start("1");
    let (mut client, mut server) = session(&proxy, &origin);
    proxy.process.signal("TERM");
    assert_eq!((client.end(), server.end()), (End::Fin, End::Fin));
    assert_eq!(proxy.process.exit().code(), Some(0));
}

#[test]
fn a_removed_listener_drains_its_sessions() {
    let origin = Origin::new();
    let options = Options { arguments: vec!["--drain-time-s".into(), "1".into()], ..Options::default() };
    let config = config(&origin.clusters(), json!({}));
    let proxy = options.start(&config);
    let (mut client, mut server) = session(&proxy, &origin);
    write(&proxy, &config.bootstrap(json!({"static_resources": {"listeners": []}})));
    assert_eq!((client.end(), server.end()), (End::Fin, End::Fin));
    // The proxy's own counters went with it.
    proxy.admin.await_stat("cluster.origin.upstream_cx_close_reason.drained", 1);
}

#[test]
fn nothing_is_left_of_many_sessions() {
    let origin = Origin::new();
    let proxy = Proxy::start(&config(&origin.clusters(), json!({})));
    session(&proxy, &origin);
    proxy.admin.await_stat("tcp.t.downstream_cx_destroy", 1);
    let before = proxy.process.descriptors();
    for round in 0..50 {
        let (client, server) = session(&proxy, &origin);
        match round % 3 {
            0 => client.reset(),
            1 => server.reset(),
            _ => drop((client, server)),
        }
    }
    proxy.admin.await_stat("tcp.t.downstream_cx_destroy", 51);
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
    wait::until("descriptors", || proxy.process.descriptors() <= before + 2);
}

/// Clients of 127.0.0.2 to 127.0.0.9 get the hosts that Envoy 1.40 gives them; 1 is `host-b`.
#[test]
fn sessions_are_placed_by_the_hash_of_their_source() {
    for (policy, placed) in [("RING_HASH", [1, 0, 0, 1, 1, 0, 1, 1]), ("MAGLEV", [1, 1, 0, 1, 1, 0, 1, 0])] {
        let origins = [Origin::new(), Origin::new()];
        let mut hashed = cluster("origin", &origins.each_ref().map(Origin::address));
        hashed["lb_policy"] = json!(policy);
        for (endpoint, name) in [(0, "host-a"), (1, "host-b")] {
            hashed["load_assignment"]["endpoints"][0]["lb_endpoints"][endpoint]["metadata"] =
                json!({"filter_metadata": {"envoy.lb": {"hash_key": name}}});
        }
        let proxy = Proxy::start(&config(&[hashed], json!({"hash_policy": [{"source_ip": {}}]})));
        for (source, host) in (2..10).zip(placed) {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, source], 0)).into()).unwrap();
            socket.connect(&proxy.address.into()).unwrap();
            let (mut client, mut server) = (Wire::new(socket), origins[host].accept());
            client.send("ping");
            assert_eq!(server.exactly(4).unwrap(), b"ping");
        }
        let stats = proxy.admin.stats();
        match policy {
            "RING_HASH" => {
                assert_eq!(stats.get("cluster.origin.ring_hash_lb.size"), 1024);
                assert_eq!(stats.get("cluster.origin.ring_hash_lb.min_hashes_per_host"), 512);
            }
            _ => assert_eq!(stats.get("cluster.origin.maglev_lb.max_entries_per_host"), 32_769),
        }
    }
}

//! Idle and duration timeouts of clients' connections, row by row: what is on the wire, plain and under each
//! `close_notify` policy, what is counted, the one line in the log, the time.
//!
//! The rows of upstream connections and handshakes are in `idle_rows_upstream.rs`; how the same rows look on
//! Envoy is in `docs/idle-compared-with-envoy.md`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use integration_tests::closes::{Watched, in_time};
use integration_tests::config::merge;
use integration_tests::tls_client::TlsClient;
use integration_tests::tls_origin::certificate;
use integration_tests::{Config, End, Origin, Wire};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const OWN: &str = "type.googleapis.com/tidegate.transport_sockets.tls.v1.TlsContext";
const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const DOWN: &str = "http.ingress.downstream_cx";
const IDLE: Duration = Duration::from_millis(300);

/// What a row is tried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    /// TLS with this `close_notify` policy.
    Tls(&'static str),
}

pub(crate) const ALL: [Over; 4] =
    [Over::Plain, Over::Tls("ALWAYS"), Over::Tls("NOT_ON_IDLE"), Over::Tls("NEVER")];

impl Over {
    fn config(self, config: Config) -> Config {
        let Self::Tls(policy) = self else { return config };
        let file = |end: &str| json!({"filename": certificate(&format!("server.{end}"))});
        let pair = json!({"certificate_chain": file("pem"), "private_key": file("key")});
        let mut config = config;
        config.0["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = json!({"name": "tidegate.transport_sockets.tls", "typed_config": {
            "@type": OWN, "close_notify": policy,
            "downstream_tls_context": {"common_tls_context": {"tls_certificates": [pair]}},
        }});
        config
    }

    fn connect(self, address: SocketAddr) -> Client {
        match self {
            Self::Plain => Client::Plain(Wire::connect(address)),
            Self::Tls(_) => Client::Tls(Box::new(TlsClient::connect(address, rustls::ALL_VERSIONS))),
        }
    }

    /// Whether a close with (or without) an idle timeout behind it says farewell.
    pub(crate) fn says_farewell(self, idle: bool) -> bool {
        match self {
            Self::Plain | Self::Tls("NEVER") => false,
            Self::Tls("NOT_ON_IDLE") => !idle,
            Self::Tls(_) => true,
        }
    }
}

enum Client {
    Plain(Wire),
    Tls(Box<TlsClient>),
}

impl Client {
    #[track_caller]
    fn send(&mut self, bytes: &str) {
        match self {
            Self::Plain(wire) => drop(wire.send(bytes)),
            Self::Tls(tls) => tls.send(bytes),
        }
    }

    #[track_caller]
    fn through(&mut self, mark: &str) -> String {
        match self {
            Self::Plain(wire) => wire.through(mark),
            Self::Tls(tls) => tls.through(mark),
        }
    }

    /// A request and its whole answer.
    #[track_caller]
    fn ask(&mut self) -> String {
        self.send(GET);
        self.through("\r\n\r\nok")
    }

    /// The end, in order and with the farewell that is due; then what crosses it meets no RST.
    #[track_caller]
    fn ends(&mut self, over: Over, idle: bool) {
        match self {
            Self::Plain(wire) => assert_eq!(wire.end(), End::Fin),
            Self::Tls(tls) => {
                let end = tls.end();
                assert_eq!((end.close_notify, end.reset), (over.says_farewell(idle), false), "{over:?}");
            }
        }
    }

    fn is_reset_by(&mut self, bytes: &str) -> bool {
        match self {
            Self::Plain(wire) => wire.is_reset_by(bytes.as_bytes()),
            Self::Tls(tls) => tls.is_reset_by(bytes.as_bytes()),
        }
    }
}

/// A connection manager; late bytes are read for long enough to be seen on a loaded machine.
fn http(over: Over, origin: &Origin, change: Value) -> Watched {
    let config = Config::new(origin.address()).hcm(json!({"delayed_close_timeout": "5s"})).hcm(change);
    Watched::start(&over.config(config))
}

/// One connection ended for `reason`, by the proxy, and its line says so.
#[track_caller]
fn closed(watched: &Watched, over: Over, reason: &str) -> u64 {
    let by = |name: &str| format!("{DOWN}_{name}");
    watched.counts(&[
        (&by("destroy"), 1),
        (&by("destroy_local"), 1),
        (&by("active"), 0),
        (&by("idle"), 0),
        (&by(&format!("close_reason.{reason}")), 1),
        ("listener.127.0.0.1_0.downstream_cx_destroy", 1),
    ]);
    if let Over::Tls(_) = over {
        let sent = u64::from(over.says_farewell(reason == "idle_timeout"));
        watched.counts(&[("listener.127.0.0.1_0.ssl.close_notify_sent", sent)]);
    }
    let reason = format!("reason=\"{reason}\"");
    watched.one_line("downstream h1", &["connection=", "stat_prefix=\"ingress\"", &reason])
}

#[test]
fn a_client_without_a_request_ends_at_its_idle_timeout() {
    let origin = Origin::ok();
    for over in ALL {
        let options = json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}});
        let watched = http(over, &origin, options);
        let since = Instant::now();
        let mut client = over.connect(watched.proxy.address);
        if let Client::Tls(tls) = &mut client {
            tls.handshake();
        }
        client.ends(over, true);
        in_time(&format!("idle without a request, {over:?}"), since, IDLE);
        assert!(!client.is_reset_by("GET / HTTP/1.1\r\n"), "{over:?}");
        drop(client);
        watched.counts(&[("http.ingress.downstream_cx_idle_timeout", 1)]);
        let idled = closed(&watched, over, "idle_timeout");
        assert!((300..2300).contains(&idled), "{idled}");
    }
}

#[test]
fn a_client_that_was_served_ends_after_its_drain_window() {
    let origin = Origin::ok();
    for over in ALL {
        let watched = http(
            over,
            &origin,
            json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "0.2s"}),
        );
        let mut client = over.connect(watched.proxy.address);
        let since = Instant::now();
        client.ask();
        client.ends(over, true);
        in_time(&format!("idle after a request and drained, {over:?}"), since, IDLE + IDLE * 2 / 3);
        assert!(!client.is_reset_by(GET), "{over:?}");
        drop(client);
        watched.counts(&[
            ("http.ingress.downstream_cx_idle_timeout", 1),
            ("http.ingress.downstream_cx_drain_close", 0),
        ]);
        let idled = closed(&watched, over, "idle_timeout");
        assert!((500..2500).contains(&idled), "{idled}");
    }
}

#[test]
fn a_request_sent_as_the_idle_timer_fires_is_answered() {
    let origin = Origin::ok();
    for over in ALL {
        let watched = http(
            over,
            &origin,
            json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "10s"}),
        );
        // Before, at and after the moment; a window of 10 s is enough for any machine.
        for offset in [-20_i64, -2, -1, 0, 1, 2, 20] {
            let mut client = over.connect(watched.proxy.address);
            client.ask();
            let moment = Duration::from_millis(300_u64.checked_add_signed(offset).unwrap());
            std::thread::sleep(moment);
            let answer = client.ask();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{over:?} {offset}: {answer}");
            // The last answer before the end says so.
            if answer.contains("connection: close") {
                client.ends(over, true);
            }
        }
    }
}

#[test]
fn an_old_clients_connection_ends_between_requests() {
    let origin = Origin::ok();
    for over in ALL {
        let options = json!({"max_connection_duration": "0.3s"});
        let change = json!({"common_http_protocol_options": options, "drain_timeout": "0.2s"});
        let watched = http(over, &origin, change);
        let since = Instant::now();
        let mut client = over.connect(watched.proxy.address);
        client.ask();
        client.ends(over, false);
        in_time(&format!("max_connection_duration, {over:?}"), since, IDLE * 5 / 3);
        assert!(!client.is_reset_by(GET), "{over:?}");
        drop(client);
        watched.counts(&[("http.ingress.downstream_cx_max_duration_reached", 1)]);
        closed(&watched, over, "max_duration");
    }
}

#[test]
fn the_last_request_of_a_connection_is_told_so() {
    let origin = Origin::ok();
    for over in ALL {
        let options = json!({"common_http_protocol_options": {"max_requests_per_connection": 2}});
        let watched = http(over, &origin, options);
        let mut client = over.connect(watched.proxy.address);
        assert!(!client.ask().contains("connection: close"));
        assert!(client.ask().contains("connection: close"));
        client.ends(over, false);
        assert!(!client.is_reset_by(GET), "{over:?}");
        drop(client);
        watched.counts(&[("http.ingress.downstream_cx_max_requests_reached", 1)]);
        closed(&watched, over, "max_requests");
    }
}

#[test]
fn zero_turns_the_idle_timeout_off() {
    let origin = Origin::ok();
    let options = json!({"common_http_protocol_options": {"idle_timeout": "0s"}, "drain_timeout": "0s"});
    let watched = http(Over::Plain, &origin, options);
    let mut client = watched.proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    assert!(client.is_quiet_for(Duration::from_millis(500)));
    assert_eq!(client.ask(GET).status, 200);
}

#[test]
fn streams_end_at_each_of_their_timeouts() {
    let silent = Origin::script(|mut peer| while peer.request().is_some() {});
    let body = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 10\r\n\r\nabc";
    let due = Duration::from_millis(300);
    for over in [Over::Plain, Over::Tls("ALWAYS"), Over::Tls("NEVER")] {
        for (name, change, sent, status, text, counter, closes) in [
            (
                "stream_idle_timeout",
                json!({"stream_idle_timeout": "0.3s"}),
                GET,
                504,
                "stream timeout",
                "downstream_rq_idle_timeout",
                false,
            ),
            (
                "stream_idle_timeout",
                json!({"stream_idle_timeout": "0.3s"}),
                body,
                408,
                "stream timeout",
                "downstream_rq_idle_timeout",
                true,
            ),
            (
                "request_timeout",
                json!({"request_timeout": "0.3s"}),
                body,
                408,
                "request timeout",
                "downstream_rq_timeout",
                true,
            ),
            (
                "request_headers_timeout",
                json!({"request_headers_timeout": "0.3s"}),
                "GET / HT",
                408,
                "request header timeout",
                "downstream_rq_header_timeout",
                true,
            ),
            (
                "max_stream_duration",
                json!({"common_http_protocol_options": {"max_stream_duration": "0.3s"}}),
                GET,
                504,
                "downstream duration timeout",
                "downstream_rq_max_duration_reached",
                false,
            ),
        ] {
            // A close after an answer waits for `delayed_close_timeout`, which is to be over here.
            let mut change = change;
            merge(&mut change, json!({"delayed_close_timeout": "0.2s"}));
            let watched = http(over, &silent, change);
            let since = Instant::now();
            let mut client = over.connect(watched.proxy.address);
            client.send(sent);
            let answer = client.through(text);
            in_time(&format!("{name}, {over:?}"), since, due);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!(answer.contains("connection: close"), closes, "{answer}");
            watched.counts(&[(&format!("http.ingress.{counter}"), 1)]);
            if closes {
                client.ends(over, false);
                in_time(&format!("{name} and delayed_close_timeout, {over:?}"), since, due + due * 2 / 3);
                drop(client);
                closed(&watched, over, "request_timeout");
            }
        }
        let route = Config::new(silent.address()).route(json!({"route": {"idle_timeout": "0.3s"}}));
        let watched = Watched::start(&over.config(route));
        let since = Instant::now();
        let mut client = over.connect(watched.proxy.address);
        client.send(GET);
        assert!(client.through("stream timeout").starts_with("HTTP/1.1 504 "));
        in_time(&format!("route idle_timeout, {over:?}"), since, due);
        watched.counts(&[("http.ingress.downstream_rq_idle_timeout", 1)]);
    }
}

/// A TCP proxy behind the transport.
fn tcp(over: Over, origin: &Origin, fields: Value) -> Watched {
    let mut proxy = json!({"@type": TCP, "stat_prefix": "t", "cluster": "origin"});
    merge(&mut proxy, fields);
    let chain = json!({"filter_chains": [{"filters": [{
        "name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}]});
    Watched::start(&over.config(Config::new(origin.address()).listener(chain)))
}

/// An upstream of TCP sessions: echoes lines, then says how it ended and whether late bytes met an RST.
fn echo() -> (Origin, std::sync::mpsc::Receiver<(End, bool)>) {
    let (sender, ends) = std::sync::mpsc::channel();
    let origin = Origin::script(move |mut peer| {
        while let Some(line) = peer.wire.exactly(5) {
            peer.send(line);
        }
        let end = peer.wire.end();
        let _ = sender.send((end, peer.wire.is_reset_by(b"late")));
    });
    (origin, ends)
}

#[test]
fn a_tcp_session_ends_at_its_idle_timeout_and_at_its_age() {
    for over in ALL {
        for (field, counter, reason, words) in [
            ("idle_timeout", "idle_timeout", "idle_timeout", "Session timed out"),
            (
                "max_downstream_connection_duration",
                "max_downstream_connection_duration",
                "max_duration",
                "max connection duration reached",
            ),
        ] {
            let (origin, ends) = echo();
            let watched = tcp(over, &origin, json!({field: "0.3s"}));
            let since = Instant::now();
            let mut client = over.connect(watched.proxy.address);
            client.send("line\n");
            client.through("line\n");
            client.ends(over, reason == "idle_timeout");
            in_time(&format!("tcp {field}, {over:?}"), since, IDLE);
            assert!(!client.is_reset_by("late"), "{over:?}");
            assert_eq!(ends.recv().unwrap(), (End::Fin, false), "{over:?}");
            drop(client);
            let reasons = format!("tcp.t.downstream_cx_close_reason.{reason}");
            watched.counts(&[
                (&format!("tcp.t.{counter}"), 1),
                ("tcp.t.downstream_cx_destroy", 1),
                (&reasons, 1),
                ("tcp.t.downstream_cx_idle", 0),
                ("cluster.origin.upstream_cx_destroy_local_with_active_rq", 1),
            ]);
            let reason = format!("reason=\"{reason}\"");
            watched.one_line("upstream tcp", &["connection=", "cluster=\"origin\"", &reason]);
            let idled =
                watched.one_line("tcp session", &[words, "connection=", "cluster=\"origin\"", &reason]);
            assert!(counter != "idle_timeout" || (300..2300).contains(&idled), "{idled}");
        }
    }
}

#[test]
fn a_tcp_session_of_silence_ends_too_and_halves_keep_the_clock() {
    let (origin, ends) = echo();
    let watched = tcp(Over::Plain, &origin, json!({"idle_timeout": "0.3s"}));
    let since = Instant::now();
    let mut client = watched.proxy.connect();
    assert_eq!(client.end(), End::Fin);
    in_time("tcp idle_timeout without a byte", since, IDLE);
    assert_eq!(ends.recv().unwrap(), (End::Fin, false));
    // The client has said all: the upstream, which does not answer, is not waited for.
    let mute = Origin::script(|mut peer| {
        peer.wire.end();
        let _ = peer.wire.is_reset_by(b"");
        std::thread::sleep(Duration::from_secs(3));
    });
    let watched = tcp(Over::Plain, &mute, json!({"idle_timeout": "0.3s"}));
    let since = Instant::now();
    let mut client = watched.proxy.connect();
    client.send("last").finish();
    assert_eq!(client.end(), End::Fin);
    in_time("tcp idle_timeout after the client's FIN", since, IDLE);
    watched.counts(&[("tcp.t.idle_timeout", 1)]);
}

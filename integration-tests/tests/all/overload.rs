//! The overload manager, with a pressure that the test writes into a file.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use integration_tests::closes::in_time;
use integration_tests::h2::{H2Client, Manners};
use integration_tests::{Config, End, Origin, Proxy};
use serde_json::{Value, json};
use tempfile::TempDir;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// Where the pressure stands.
struct Pressure(TempDir);

impl Pressure {
    fn none() -> Self {
        let this = Self(TempDir::new().unwrap());
        std::fs::write(this.file(), "0").unwrap();
        this
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("pressure")
    }

    /// Rises or falls to `pressure` of 100; returns when the proxy has measured it.
    fn becomes(&self, proxy: &Proxy, pressure: u64) {
        let next = self.0.path().join("next");
        std::fs::write(&next, format!("{}\n", pressure as f64 / 100.0)).unwrap();
        std::fs::rename(next, self.file()).unwrap();
        proxy.admin.await_stat("overload.file.pressure", pressure);
    }

    fn manager(&self, actions: Value) -> Value {
        let injected = "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig";
        json!({"overload_manager": {
            "refresh_interval": "0.02s",
            "resource_monitors": [
                {"name": "file", "typed_config": {"@type": injected, "filename": self.file()}},
            ],
            "actions": actions,
        }})
    }
}

fn action(name: &str, threshold: f64) -> Value {
    json!({
        "name": format!("envoy.overload_actions.{name}"),
        "triggers": [{"name": "file", "threshold": {"value": threshold}}],
    })
}

fn reduce_timeouts(factors: Value) -> Value {
    let scale = "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig";
    json!({
        "name": "envoy.overload_actions.reduce_timeouts",
        "triggers": [{"name": "file", "scaled": {"scaling_threshold": 0.5, "saturation_threshold": 1.0}}],
        "typed_config": {"@type": scale, "timer_scale_factors": factors},
    })
}

#[test]
fn a_pressed_proxy_announces_the_close_then_refuses_requests_then_connections() {
    let pressure = Pressure::none();
    let origin = Origin::ok();
    let actions = json!([
        action("disable_http_keepalive", 0.3),
        action("stop_accepting_requests", 0.5),
        action("reject_incoming_connections", 0.7),
    ]);
    let config = Config::new(origin.address())
        .bootstrap(pressure.manager(actions))
        .hcm(json!({"append_local_overload": true}));
    let proxy = Proxy::start(&config);
    assert!(!proxy.get("/").closes());

    pressure.becomes(&proxy, 35);
    let response = proxy.get("/");
    assert_eq!(response.status, 200);
    assert!(response.closes());
    proxy.admin.await_stat("http.ingress.downstream_cx_overload_disable_keepalive", 1);

    pressure.becomes(&proxy, 60);
    let response = proxy.get("/");
    assert_eq!((response.status, response.text().as_str()), (503, "envoy overloaded"));
    assert_eq!(response.header("x-envoy-local-overloaded"), Some("true"));
    assert!(response.closes());
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("http.ingress.downstream_rq_overload_close"), 1);
    assert_eq!(stats.get("overload.envoy.overload_actions.stop_accepting_requests.active"), 1);
    assert_eq!(stats.get("overload.envoy.overload_actions.stop_accepting_requests.scale_percent"), 100);
    assert_eq!(origin.requests().len(), 2);

    pressure.becomes(&proxy, 75);
    let before = proxy.admin.stats();
    assert_eq!(proxy.connect().end(), End::Fin);
    let stats = proxy.admin.stats();
    let count = |stats: &integration_tests::Stats, name: &str| {
        let of_ingress = |key: &str| key.starts_with("listener.127") && !key.contains("worker");
        let mut found =
            stats.0.iter().filter(|(key, _)| of_ingress(key) && key.ends_with(&format!(".{name}")));
        *found.next().unwrap().1
    };
    assert_eq!(count(&stats, "downstream_cx_overload_reject"), 1);
    assert_eq!(count(&stats, "downstream_cx_total"), count(&before, "downstream_cx_total"));

    pressure.becomes(&proxy, 0);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn streams_are_refused_and_their_connection_drained_under_pressure() {
    let pressure = Pressure::none();
    let origin = Origin::ok();
    let actions = json!([action("disable_http_keepalive", 0.3), action("stop_accepting_requests", 0.5)]);
    let config = Config::new(origin.address())
        .bootstrap(pressure.manager(actions))
        .hcm(json!({"codec_type": "AUTO", "append_local_overload": true}));
    let proxy = Proxy::start(&config);
    let client = H2Client::connect(proxy.address);
    assert_eq!(client.ask("/").status(), 200);
    assert_eq!(client.goaway(), None);

    pressure.becomes(&proxy, 35);
    assert_eq!(client.ask("/").status(), 200);
    assert_eq!(client.await_goaway(), (0x7fff_ffff, 0));
    assert!(proxy.stat("http.ingress.downstream_cx_overload_disable_keepalive") > 0);

    pressure.becomes(&proxy, 60);
    let refused = H2Client::connect(proxy.address).ask("/");
    assert_eq!((refused.status(), refused.text().as_str()), (503, "envoy overloaded"));
    assert_eq!(refused.header("x-envoy-local-overloaded"), Some("true"));
    assert_eq!(proxy.stat("http.ingress.downstream_rq_overload_close"), 1);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn pressure_shortens_the_wait_for_a_client_that_takes_nothing() {
    let pressure = Pressure::none();
    let origin = Origin::ok();
    let flush = json!([{"timer": "HTTP_DOWNSTREAM_STREAM_FLUSH", "min_timeout": "0.1s"}]);
    let config = Config::new(origin.address())
        .bootstrap(pressure.manager(json!([reduce_timeouts(flush)])))
        .hcm(json!({"codec_type": "AUTO", "stream_flush_timeout": "1000s"}));
    let proxy = Proxy::start(&config);
    // SETTINGS_INITIAL_WINDOW_SIZE
    let client = H2Client::with(proxy.address, Manners::settings(&[(4, 0)]));
    let stream = client.get("/");
    client.await_head(stream);
    pressure.becomes(&proxy, 100);
    assert_eq!(client.message(stream).reset, Some(2), "INTERNAL_ERROR");
    assert_eq!(proxy.stat("http2.tx_flush_timeout"), 1);
}

/// idle.md §11: 1 s, at least 0.2 s; a timer that runs is shortened too.
#[test]
fn pressure_shortens_idle_timeouts_that_run() {
    let pressure = Pressure::none();
    let origin = Origin::ok();
    let idle = json!([{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "0.2s"}]);
    let config = Config::new(origin.address())
        .bootstrap(pressure.manager(json!([reduce_timeouts(idle)])))
        .hcm(json!({"common_http_protocol_options": {"idle_timeout": "60s"}, "drain_timeout": "0s"}));
    let proxy = Proxy::start(&config);
    let mut wire = proxy.connect();
    assert_eq!(wire.ask(GET).status, 200);
    assert!(wire.is_quiet_for(Duration::from_millis(300)));
    pressure.becomes(&proxy, 100);
    assert_eq!(wire.end(), End::Fin);
    assert_eq!(proxy.stat("overload.envoy.overload_actions.reduce_timeouts.scale_percent"), 100);
    // The next one lives as long as the pressure lets it from the start.
    let mut wire = proxy.connect();
    assert_eq!(wire.ask(GET).status, 200);
    let since = Instant::now();
    assert_eq!(wire.end(), End::Fin);
    in_time("an idle close under pressure", since, Duration::from_millis(200));
    proxy.admin.await_stat("http.ingress.downstream_cx_idle_timeout", 2);
}

#[test]
fn pressure_shortens_the_idle_timeout_of_streams_that_wait() {
    let pressure = Pressure::none();
    let gate = integration_tests::origin::Gate::default();
    let origin = Origin::gated(&gate);
    let idle = json!([{"timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_scale": {"value": 1}}]);
    let config = Config::new(origin.address())
        .bootstrap(pressure.manager(json!([reduce_timeouts(idle)])))
        .hcm(json!({"stream_idle_timeout": "30s"}));
    let proxy = Proxy::start(&config);
    let mut wire = proxy.connect();
    wire.send(GET);
    origin.await_requests(1);
    pressure.becomes(&proxy, 100);
    let response = wire.response();
    assert_eq!((response.status, response.text().as_str()), (504, "stream timeout"));
}

#[test]
fn connections_wait_in_the_kernel_while_none_are_accepted() {
    let pressure = Pressure::none();
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .bootstrap(pressure.manager(json!([action("stop_accepting_connections", 0.5)])));
    let proxy = Proxy::start(&config);
    pressure.becomes(&proxy, 50);
    let mut wire = proxy.connect();
    wire.send(GET);
    assert!(wire.is_quiet_for(Duration::from_millis(200)));
    pressure.becomes(&proxy, 0);
    assert_eq!(wire.response().status, 200);
}

/// What cannot be measured is counted, and the last good measurement goes on.
#[test]
fn a_file_without_a_pressure_is_counted() {
    let pressure = Pressure::none();
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .bootstrap(pressure.manager(json!([action("stop_accepting_requests", 0.5)])));
    let proxy = Proxy::start(&config);
    pressure.becomes(&proxy, 60);
    std::fs::write(pressure.file(), "much").unwrap();
    integration_tests::wait::until("a failed update", || proxy.stat("overload.file.failed_updates") > 0);
    assert_eq!(proxy.stat("overload.file.pressure"), 60);
    assert_eq!(proxy.get("/").status, 503);
}

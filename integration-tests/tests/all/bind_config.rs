//! `upstream_bind_config`: where connections to upstreams come from, and what their sockets are told.

use std::path::Path;

use integration_tests::{Config, Origin, Proxy, config, proxy};
use serde_json::{Value, json};

const LOCAL: &str = "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%";

fn ip(address: &str) -> Value {
    json!({"address": address, "port_value": 0})
}

/// An option that no kernel has.
fn no_option(state: &str) -> Value {
    json!({"level": 9999, "name": 9999, "int_value": 1, "state": state})
}

/// With a header that says where connections came from.
fn bound(origin: &Origin, bind: Value) -> Config {
    let shown = json!([{"header": {"key": "x-local", "value": LOCAL}}]);
    Config::new(origin.address())
        .cluster(json!({"upstream_bind_config": bind}))
        .route(json!({"response_headers_to_add": shown}))
}

#[track_caller]
fn comes_from(config: &Config, address: &str) {
    let response = Proxy::start(config).get("/");
    assert_eq!((response.status, response.header("x-local")), (200, Some(address)));
}

#[test]
fn the_source_of_the_hosts_family() {
    let origin = Origin::ok();
    comes_from(&bound(&origin, json!({"source_address": ip("127.0.0.2")})), "127.0.0.2");
    let extra = json!([{"address": ip("127.0.0.3")}]);
    comes_from(
        &bound(&origin, json!({"source_address": ip("::1"), "extra_source_addresses": extra})),
        "127.0.0.3",
    );
    let additional = json!([ip("127.0.0.4")]);
    let bind = json!({"source_address": ip("::1"), "additional_source_addresses": additional});
    comes_from(&bound(&origin, bind), "127.0.0.4");
}

#[test]
fn the_bootstraps_where_a_cluster_has_none() {
    let origin = Origin::ok();
    let of_all = json!({"cluster_manager": {"upstream_bind_config": {"source_address": ip("127.0.0.2")}}});
    comes_from(&bound(&origin, Value::Null).bootstrap(of_all.clone()), "127.0.0.2");
    comes_from(&bound(&origin, json!({})).bootstrap(of_all), "127.0.0.1");
}

/// What the log says of a request that has no connection.
fn failure(origin: &Origin, bind: Value, log: &Path) -> (String, u64) {
    let format = "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n";
    let proxy = Proxy::start(&bound(origin, bind).access_log(log, config::text_format(format)));
    let response = proxy.get("/");
    assert_eq!(response.status, 503);
    assert!(response.text().ends_with("reset reason: local connection failure"), "{}", response.text());
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_connect_fail"), 1);
    (proxy::await_lines(log, 1).remove(0), proxy.stat("cluster.origin.bind_errors"))
}

#[test]
fn what_cannot_be_bound_or_set_fails_the_connection() {
    let (origin, folder) = (Origin::ok(), tempfile::tempdir().unwrap());
    let reason = "failed_to_bind_to_192.0.2.1:0:_Cannot_assign_requested_address";
    let bind = json!({"source_address": ip("192.0.2.1")});
    let line =
        format!("UF upstream_reset_before_response_started{{local_connection_failure|{reason}}} {reason}");
    assert_eq!(failure(&origin, bind, &folder.path().join("bind")), (line, 1));
    let bind = json!({"socket_options": [no_option("STATE_PREBIND")]});
    let line = "UF upstream_reset_before_response_started{local_connection_failure} -".to_owned();
    assert_eq!(failure(&origin, bind, &folder.path().join("option")), (line, 0));
    assert_eq!(origin.connections(), 0);
}

#[test]
fn only_options_of_stream_sockets_before_they_are_bound_count() {
    let origin = Origin::ok();
    let mut of_datagrams = no_option("STATE_PREBIND");
    of_datagrams["type"] = json!({"datagram": {}});
    let options = json!([no_option("STATE_BOUND"), no_option("STATE_LISTENING"), of_datagrams]);
    comes_from(
        &bound(&origin, json!({"source_address": ip("127.0.0.2"), "socket_options": options})),
        "127.0.0.2",
    );
    // One with options of its own.
    let extra = json!([{"address": ip("127.0.0.3"), "socket_options": {}}]);
    let bind = json!({"source_address": ip("::1"), "socket_options": [no_option("STATE_PREBIND")],
        "extra_source_addresses": extra});
    comes_from(&bound(&origin, bind), "127.0.0.3");
}

#[test]
fn a_source_that_is_not_here_needs_freebind() {
    let (origin, folder) = (Origin::ok(), tempfile::tempdir().unwrap());
    let log = folder.path().join("log");
    let format = config::text_format("%UPSTREAM_TRANSPORT_FAILURE_REASON%\n");
    let bind = json!({"source_address": ip("192.0.2.1"), "freebind": true});
    let config = bound(&origin, bind).cluster(json!({"connect_timeout": "0.2s"}));
    let proxy = Proxy::start(&config.access_log(&log, format));
    // Bound it is; whether a route for it exists is the system's matter.
    assert_eq!(proxy.get("/").status, 503);
    assert_eq!(proxy.stat("cluster.origin.bind_errors"), 0);
    assert!(!proxy::await_lines(&log, 1)[0].contains("bind"));
}

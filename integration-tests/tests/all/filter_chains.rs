//! Many filter chains behind one socket: which one serves, and what a reload makes of them.

use integration_tests::config::{file_log, filter, text_format};
use integration_tests::proxy::{Options, await_lines};
use integration_tests::{Config, End, Nobody, Proxy, Wire};
use serde_json::{Value, json};

use super::listener_filters::{HTTP, TLS, client_hello};

/// A chain that sends its name and closes.
fn says(name: &str, matching: Value) -> Value {
    let response = json!({"response": {"inline_string": name}});
    let filter = filter("says", "envoy.extensions.filters.network.direct_response.v3.Config", response);
    json!({"name": name, "filter_chain_match": matching, "filters": [filter]})
}

fn listener(chains: &[Value], change: Value) -> Config {
    let filters = [filter("tls", TLS, json!({})), filter("http", HTTP, json!({}))];
    let listener = json!({"stat_prefix": "test", "listener_filters": filters, "filter_chains": chains});
    Config::new(Nobody::new().address()).listener(listener).listener(change)
}

#[track_caller]
fn answer(proxy: &Proxy, bytes: &[u8]) -> (String, End) {
    let mut client = proxy.connect();
    client.send(bytes);
    let end = client.end();
    (client.text(), end)
}

#[test]
fn the_most_specific_chain_serves_and_its_name_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let chains = [
        says("exact", json!({"server_names": ["a.test"]})),
        says("wild", json!({"server_names": ["*.a.test"]})),
        says("http", json!({"application_protocols": ["http/1.1"], "transport_protocol": "raw_buffer"})),
    ];
    let log = file_log(&file, text_format("%FILTER_CHAIN_NAME% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"));
    let config = listener(&chains, json!({"access_log": [log]}));
    let options =
        Options { arguments: vec!["--file-flush-interval-msec".into(), "10".into()], ..Options::default() };
    let proxy = options.start(&config);
    for (bytes, expected) in [
        (client_hello("A.test"), "exact"),
        (client_hello("b.a.test"), "wild"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "http"),
    ] {
        assert_eq!(answer(&proxy, &bytes).0, expected);
    }
    assert_ne!(answer(&proxy, &client_hello("other.test")).1, End::Open);
    assert_eq!(proxy.stat("listener.test.no_filter_chain_match"), 1);
    assert_eq!(proxy.stat("listener.test.downstream_cx_total"), 3);
    let lines = await_lines(&file, 4);
    let names: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["exact", "wild", "http", "-"]);
    assert_eq!(lines[3], "- NR filter_chain_not_found");
}

#[test]
fn the_default_chain_serves_the_rest() {
    let default = says("default", json!({}));
    let chains = [says("a", json!({"server_names": ["a.test"]}))];
    let proxy = Proxy::start(&listener(&chains, json!({"default_filter_chain": default})));
    assert_eq!(answer(&proxy, &client_hello("a.test")).0, "a");
    assert_eq!(answer(&proxy, &client_hello("b.test")).0, "default");
}

/// A chain that answers every request with `status`, and its name in statistics.
fn http(name: &str, port: u16, status: u16) -> Value {
    let router = filter("router", "envoy.extensions.filters.http.router.v3.Router", json!({}));
    let manager = filter(
        "hcm",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": name,
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "direct_response": {"status": status}}]}]},
            "http_filters": [router],
        }),
    );
    let ranges = json!([{"address_prefix": "127.0.0.1", "prefix_len": 32}]);
    let matching = json!({"source_ports": [port], "source_prefix_ranges": ranges});
    json!({"name": name, "filters": [manager], "filter_chain_match": matching})
}

#[test]
fn a_reload_reaches_the_connections_of_each_chain_as_it_should() {
    // Clients whose ports are known: the chains tell them apart.
    let sockets: Vec<_> = (0..3)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            socket
        })
        .collect();
    let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().as_socket().unwrap().port()).collect();
    let config = |chains: &[Value]| listener(chains, json!({"listener_filters": []}));
    let before = [http("kept", ports[0], 200), http("changed", ports[1], 200), http("gone", ports[2], 200)];
    let proxy = Proxy::start(&config(&before));
    let mut clients: Vec<_> = sockets
        .into_iter()
        .map(|socket| {
            socket.connect(&proxy.address.into()).unwrap();
            Wire::new(std::net::TcpStream::from(socket))
        })
        .collect();
    const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
    for client in &mut clients {
        assert_eq!(client.ask(GET).status, 200);
    }
    // In another order, one with another route, one without its chain.
    let after = [http("changed", ports[1], 201), http("kept", ports[0], 200)];
    let text = std::fs::read_to_string(proxy.config_file()).unwrap();
    let mut new: Value = serde_json::from_str(&text).unwrap();
    new["static_resources"]["listeners"][0]["filter_chains"] = json!(after);
    std::fs::write(proxy.config_file(), new.to_string()).unwrap();
    proxy.admin.post("/reload");
    assert_eq!(clients[0].ask(GET).status, 200);
    assert_eq!(clients[1].ask(GET).status, 201);
    assert_eq!(clients[2].end(), End::Fin);
    proxy.admin.await_stat("listener_manager.total_filter_chains_draining", 0);
    assert_eq!(proxy.stat("listener.test.downstream_cx_active"), 2);
    assert_eq!(proxy.stat("listener.test.downstream_cx_total"), 3);
}

//! Two hundred reloads under load: not one failed request, not one lost connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use integration_tests::config::filter;
use integration_tests::proxy::Options;
use integration_tests::{Config, Origin, Wire};
use serde_json::{Value, json};

const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const RELOADS: usize = 200;
const CLIENTS: usize = 8;

/// Route, filters and a second cluster change from one to the next.
fn version(origin: &Origin, number: usize) -> Config {
    let text = number.to_string();
    let add = json!([{"header": {"key": "x-route", "value": text}}]);
    let mut config = Config::new(origin.address()).route(json!({"response_headers_to_add": add}));
    if number.is_multiple_of(2) {
        let mutation = json!({"mutations": {"response_mutations": [
            {"append": {"header": {"key": "x-filter", "value": text}}},
        ]}});
        config = config.filters(json!([filter("mutate", MUTATION, mutation)]));
    } else {
        let routes = config.0["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
            ["route_config"]["virtual_hosts"][0]["routes"]
            .as_array_mut()
            .unwrap();
        let extra: Value = json!({"match": {"path": "/extra"}, "direct_response": {"status": 204}});
        routes.insert(0, extra);
        let clusters = config.0["static_resources"]["clusters"].as_array_mut().unwrap();
        clusters.push(integration_tests::config::cluster("extra", &[origin.address()]));
    }
    config
}

/// Hammers on one connection until told to stop; the number of requests.
fn hammer(mut client: Wire, number: usize, stop: &AtomicBool, newest: &AtomicUsize) -> usize {
    let request = match number % 2 {
        0 => "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n",
        _ => "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello",
    };
    let mut served = 0;
    while !stop.load(Ordering::SeqCst) {
        let at_least = newest.load(Ordering::SeqCst);
        let response = client.ask(request);
        assert_eq!((response.status, response.text().as_str(), response.closes()), (200, "ok", false));
        // A version is newest once its reload was answered: a request sent after that must see it.
        let seen: usize = response.header("x-route").unwrap().parse().unwrap();
        assert!(seen >= at_least, "version {seen} after {at_least} was answered for");
        let filtered = response.header("x-filter").map(|text| text.parse().unwrap());
        assert_eq!(
            filtered,
            seen.is_multiple_of(2).then_some(seen),
            "route and filters of one configuration"
        );
        served += 1;
    }
    served
}

#[test]
fn two_hundred_reloads_fail_no_request_and_close_no_connection() {
    let origin = Origin::ok();
    let options = Options { concurrency: 2, ..Options::default() };
    let proxy = options.start(&version(&origin, 0));
    let stop = Arc::new(AtomicBool::new(false));
    let newest = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (client, stop, newest) = (proxy.connect(), stop.clone(), newest.clone());
            std::thread::spawn(move || hammer(client, number, &stop, &newest))
        })
        .collect();
    for number in 1..=RELOADS {
        // A rename, so that the watcher, which looks at the same time, never meets half a file.
        let fresh = proxy.folder().join("fresh");
        std::fs::write(&fresh, version(&origin, number).0.to_string()).unwrap();
        std::fs::rename(&fresh, proxy.config_file()).unwrap();
        let answer = proxy.admin.post("/reload");
        assert_eq!((answer.status, answer.text().as_str()), (200, "OK\n"), "reload {number}");
        newest.store(number, Ordering::SeqCst);
    }
    stop.store(true, Ordering::SeqCst);
    let served: Vec<usize> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(served.iter().all(|count| *count > 0), "{served:?}");

    let stats = proxy.admin.stats();
    assert_eq!(stats.get("config.reload_failed"), 0);
    assert!(stats.get("config.reload_success") >= RELOADS as u64);
    assert_eq!(stats.get("http.ingress.downstream_cx_total"), CLIENTS as u64);
    assert_eq!(stats.get("http.ingress.downstream_rq_2xx"), served.iter().sum::<usize>() as u64);
    for class in ["3xx", "4xx", "5xx"] {
        assert_eq!(stats.get(&format!("http.ingress.downstream_rq_{class}")), 0, "{class}");
    }
    // The cluster never changed: its pools live on.
    assert!(origin.connections() <= CLIENTS, "{} upstream connections", origin.connections());
    assert_eq!(origin.connections() as u64, stats.get("cluster.origin.upstream_cx_total"));
}

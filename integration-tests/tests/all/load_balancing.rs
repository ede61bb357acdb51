//! Which host gets a request: least requests, weights and zones of localities, panic, and the extension form of it all.

use integration_tests::config::cluster;
use integration_tests::origin::Gate;
use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A cluster whose localities have these zones, weights and hosts.
fn zones(name: &str, places: &[(&str, u32, &[&Origin])]) -> Value {
    let place = |(zone, weight, hosts): &(&str, u32, &[&Origin])| {
        let addresses: Vec<_> = hosts.iter().map(|host| host.address()).collect();
        let endpoints = cluster("x", &addresses)["load_assignment"]["endpoints"][0]["lb_endpoints"].clone();
        json!({"locality": {"zone": zone}, "load_balancing_weight": weight, "lb_endpoints": endpoints})
    };
    let mut cluster = cluster(name, &[]);
    cluster["load_assignment"]["endpoints"] = places.iter().map(place).collect();
    cluster
}

/// An entry of `load_balancing_policy.policies`.
fn policy(name: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}").into();
    json!({"typed_extension_config": {"name": name, "typed_config": config}})
}

fn count(proxy: &Proxy, requests: usize, name: &str) -> usize {
    (0..requests).filter(|_| proxy.get("/").text() == name).count()
}

#[test]
fn a_host_with_a_request_in_hand_gets_no_other_while_one_is_idle() {
    let gate = Gate::default();
    let (busy, idle) = (Origin::gated(&gate), Origin::named("idle"));
    let mut least = cluster("origin", &[busy.address(), idle.address()]);
    least["load_balancing_policy"] = json!({"policies": [
        policy("nobody.v3.Knows", json!({})),
        policy("least_request.v3.LeastRequest", json!({"selection_method": "FULL_SCAN"})),
    ]});
    let proxy = Proxy::start(&Config::with_clusters(&[least]));
    // Until the busy one has a request, either may get them.
    let mut waiting = proxy.connect();
    while busy.requests().is_empty() {
        waiting = proxy.connect();
        waiting.send(GET);
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while busy.requests().is_empty() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
    assert_eq!(count(&proxy, 30, "idle"), 30);
    assert_eq!(busy.requests().len(), 1);
    gate.open(1);
    drop(waiting);
}

/// With two choices the busy one of two hosts is left with a quarter of the requests, as in Envoy.
#[test]
fn the_better_of_two_choices_gets_it() {
    let (one, other) = (Origin::named("one"), Origin::named("other"));
    let mut least = cluster("origin", &[one.address(), other.address()]);
    least["lb_policy"] = json!("LEAST_REQUEST");
    least["least_request_lb_config"] = json!({"choice_count": 2});
    let proxy = Proxy::start(&Config::with_clusters(&[least]));
    let ones = count(&proxy, 200, "one");
    assert!((60..140).contains(&ones), "{ones} of 100");
}

/// As Envoy: the schedule of localities is exact.
#[test]
fn localities_get_their_weights() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let places: &[(&str, u32, &[&Origin])] = &[("a", 1, &[&a]), ("b", 3, &[&b])];
    let mut legacy = zones("origin", places);
    legacy["common_lb_config"] = json!({"locality_weighted_lb_config": {}});
    let weighted = json!({"locality_lb_config": {"locality_weighted_lb_config": {}}});
    let mut extension = zones("origin", places);
    extension["load_balancing_policy"] = json!({"policies": [policy("random.v3.Random", weighted)]});
    let mut wrapped = zones("origin", places);
    let inner = json!({"policies": [policy("round_robin.v3.RoundRobin", json!({}))]});
    wrapped["load_balancing_policy"] = json!({"policies": [
        policy("wrr_locality.v3.WrrLocality", json!({"endpoint_picking_policy": inner})),
    ]});
    for cluster in [legacy, extension, wrapped] {
        let proxy = Proxy::start(&Config::with_clusters(&[cluster]));
        // Connections that tests open may land on workers with schedules of their own: one connection is on one.
        let mut client = proxy.connect();
        let ones = (0..80).filter(|_| client.ask(GET).text() == "a").count();
        assert_eq!(ones, 20);
    }
}

#[test]
fn requests_stay_in_their_zone() {
    let near: Vec<_> = (0..3).map(|_| Origin::named("near")).collect();
    let far: Vec<_> = (0..3).map(|_| Origin::named("far")).collect();
    let upstream = zones(
        "origin",
        &[("far", 1, &far.iter().collect::<Vec<_>>()), ("near", 1, &near.iter().collect::<Vec<_>>())],
    );
    let proxies = zones("proxies", &[("near", 1, &[&near[0]]), ("far", 1, &[&far[0]])]);
    let config = |upstream: &Value| {
        Config::with_clusters(&[upstream.clone(), proxies.clone()]).bootstrap(json!({
            "node": {"id": "x", "cluster": "x", "locality": {"zone": "near"}},
            "cluster_manager": {"local_cluster_name": "proxies"},
        }))
    };
    let proxy = Proxy::start(&config(&upstream));
    assert_eq!(count(&proxy, 30, "near"), 30);
    assert_eq!(proxy.stat("cluster.origin.lb_zone_routing_all_directly"), 30);
    assert!(proxy.stat("cluster.origin.lb_recalculate_zone_structures") >= 1);
    // Seven hosts are asked for.
    let mut large = upstream;
    large["common_lb_config"] = json!({"zone_aware_lb_config": {"min_cluster_size": 7}});
    let proxy = Proxy::start(&config(&large));
    let mut client = proxy.connect();
    assert_eq!((0..30).filter(|_| client.ask(GET).text() == "near").count(), 15);
    assert!(proxy.stat("cluster.origin.lb_zone_cluster_too_small") >= 1);
}

#[test]
fn in_panic_requests_fail_if_so_configured() {
    let origin = Origin::ok();
    let mut sick = cluster("origin", &[origin.address()]);
    sick["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["health_status"] = json!("UNHEALTHY");
    let proxy = Proxy::start(&Config::with_clusters(&[sick.clone()]));
    assert_eq!(proxy.get("/").status, 200);
    let threshold = json!({"layered_runtime": {"layers": [
        {"name": "static", "static_layer": {"upstream": {"healthy_panic_threshold": 0}}},
    ]}});
    let proxy = Proxy::start(&Config::with_clusters(&[sick.clone()]).bootstrap(threshold));
    assert_eq!(proxy.get("/").text(), "no healthy upstream");
    assert_eq!(proxy.stat("cluster.origin.lb_healthy_panic"), 0);
    sick["common_lb_config"] = json!({"zone_aware_lb_config": {"fail_traffic_on_panic": true}});
    let proxy = Proxy::start(&Config::with_clusters(&[sick]));
    assert_eq!(proxy.get("/").status, 503);
    assert_eq!(proxy.stat("cluster.origin.lb_healthy_panic"), 1);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_none_healthy"), 1);
}

/// All requests ask for one key, and hang: its host gets no more than its bound allows.
#[test]
fn a_key_overflows_to_other_hosts_when_its_own_is_loaded() {
    let gate = Gate::default();
    let hosts: Vec<_> = (0..3).map(|_| Origin::gated(&gate)).collect();
    let addresses: Vec<_> = hosts.iter().map(Origin::address).collect();
    let mut bounded = cluster("origin", &addresses);
    bounded["lb_policy"] = json!("RING_HASH");
    bounded["common_lb_config"] = json!({"consistent_hashing_lb_config": {"hash_balance_factor": 100}});
    let by_host = json!({"route": {"hash_policy": [{"header": {"header_name": "host"}}]}});
    let proxy = Proxy::start(&Config::with_clusters(&[bounded]).route(by_host));
    let arrived = || hosts.iter().map(|host| host.requests().len()).sum::<usize>();
    let clients: Vec<_> = (1..=9)
        .map(|n| {
            let mut client = proxy.connect();
            client.send(GET);
            while arrived() < n {
                std::thread::yield_now();
            }
            client
        })
        .collect();
    // A third of those in hand, rounded up, and the one that it then takes.
    let counts: Vec<_> = hosts.iter().map(|host| host.requests().len()).collect();
    assert!(counts.iter().all(|count| *count <= 4), "{counts:?}");
    gate.open(9);
    drop(clients);
}

/// `set_filter_state` with objects under `k`.
fn objects(of: &str, field: &str, factory: &str, text: &str) -> Value {
    let value = json!({
        "object_key": "k",
        "factory_key": factory,
        "format_string": {"text_format_source": {"inline_string": text}},
    });
    let message = format!("type.googleapis.com/envoy.extensions.filters.{of}.set_filter_state.v3.Config");
    json!({"name": "set_filter_state", "typed_config": {"@type": message, field: [value]}})
}

fn five(policy: &str) -> (Vec<Origin>, Value) {
    let origins: Vec<_> = ["a", "b", "c", "d", "e"].map(Origin::named).into();
    let mut cluster = cluster("origin", &origins.iter().map(Origin::address).collect::<Vec<_>>());
    cluster["lb_policy"] = policy.into();
    (origins, cluster)
}

#[test]
fn objects_that_a_filter_left_are_hashed() {
    let (_origins, cluster) = five("MAGLEV");
    let hash = |by: Value| json!({"route": {"hash_policy": [by]}});
    let by_header = Config::with_clusters(std::slice::from_ref(&cluster))
        .route(hash(json!({"header": {"header_name": "x-k"}})));
    let by_object = |factory: &str| {
        Config::with_clusters(std::slice::from_ref(&cluster))
            .route(hash(json!({"filter_state": {"key": "k"}})))
            .filters(json!([objects("http", "on_request_headers", factory, "%REQ(x-k)%")]))
    };
    let hosts = |config: &Config| {
        let proxy = Proxy::start(config);
        let mut client = proxy.connect();
        let mut ask =
            |key: usize| client.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\nx-k: k{key}\r\n\r\n")).text();
        (0..40).map(|key| ask(key % 20)).collect::<Vec<_>>()
    };
    let expected = hosts(&by_header);
    assert_eq!(expected[..20], expected[20..]);
    // The header's hash is that of its value, and so is the object's.
    assert_eq!(hosts(&by_object("envoy.hashable_string")), expected);
    let unhashed = hosts(&by_object("envoy.string"));
    assert_ne!(unhashed[..20], unhashed[20..], "chosen at random");
}

#[test]
fn a_session_goes_by_what_a_network_filter_left() {
    let (_origins, cluster) = five("RING_HASH");
    let tcp = json!({
        "name": "tcp",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "t",
            "cluster": "origin",
            "hash_policy": [{"filter_state": {"key": "k"}}],
        },
    });
    let hosts = |text: &str| {
        let set = objects("network", "on_new_connection", "envoy.hashable_string", text);
        let chain = json!({"filter_chains": [{"filters": [set, tcp]}]});
        let proxy = Proxy::start(&Config::with_clusters(std::slice::from_ref(&cluster)).listener(chain));
        (0..12).map(|_| proxy.get("/").text()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(hosts("one").len(), 1);
    assert!(hosts("%CONNECTION_ID%").len() > 1);
}

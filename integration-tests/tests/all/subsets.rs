//! Requests go to the hosts that have their labels.

use integration_tests::config::cluster;
use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};

fn labels(labels: Value) -> Value {
    json!({"filter_metadata": {"envoy.lb": labels}})
}

/// The cluster `origin` with these hosts, each with its labels.
fn labelled(hosts: &[(&Origin, Value)]) -> Value {
    let addresses: Vec<_> = hosts.iter().map(|(host, _)| host.address()).collect();
    let mut cluster = cluster("origin", &addresses);
    for (index, (_, of_host)) in hosts.iter().enumerate() {
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][index]["metadata"] =
            labels(of_host.clone());
    }
    cluster
}

/// A route of requests to `/NAME` that want these labels.
fn route(name: &str, wanted: Value) -> Value {
    json!({
        "match": {"prefix": format!("/{name}")},
        "route": {"cluster": "origin", "metadata_match": labels(wanted)},
    })
}

fn routes(cluster: Value, routes: &[Value]) -> Proxy {
    let hosts = json!([{"name": "all", "domains": ["*"], "routes": routes}]);
    Proxy::start(&Config::with_clusters(&[cluster]).hcm(json!({"route_config": {"virtual_hosts": hosts}})))
}

/// Who answers to several requests for a path.
fn who(proxy: &Proxy, path: &str) -> Vec<String> {
    let mut names: Vec<_> = (0..12)
        .map(|_| {
            let response = proxy.get(path);
            format!("{} {}", response.status, response.text())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn labels_choose_the_hosts() {
    let (one, two, three) = (Origin::named("one"), Origin::named("two"), Origin::named("three"));
    let hosts = [
        (&one, json!({"v": "1", "s": "a"})),
        (&two, json!({"v": "1", "s": "b"})),
        (&three, json!({"v": "2", "s": "a"})),
    ];
    let mut legacy = labelled(&hosts);
    let config = json!({
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"s": "b"},
        "subset_selectors": [
            {"keys": ["v"]},
            {"keys": ["v", "s"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["v"]},
            {"keys": ["s"], "fallback_policy": "NO_FALLBACK"},
        ],
    });
    legacy["lb_subset_config"] = config.clone();
    let mut extension = labelled(&hosts);
    let policy = |name: &str, mut config: Value| {
        config["@type"] =
            format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}").into();
        json!({"policies": [{"typed_extension_config": {"name": name, "typed_config": config}}]})
    };
    let mut subset = config;
    subset["subset_lb_policy"] = policy("random.v3.Random", json!({}));
    extension["load_balancing_policy"] = policy("subset.v3.Subset", subset);
    for cluster in [legacy, extension] {
        let proxy = routes(
            cluster,
            &[
                route("version", json!({"v": "1"})),
                route("exact", json!({"v": "2", "s": "a"})),
                route("fewer", json!({"v": "2", "s": "b"})),
                route("nobody", json!({"s": "z"})),
                route("other", json!({"v": "9"})),
                json!({"match": {"prefix": "/"}, "route": {"cluster": "origin"}}),
            ],
        );
        assert_eq!(proxy.stat("cluster.origin.lb_subsets_active"), 7);
        assert_eq!(who(&proxy, "/version"), ["200 one", "200 two"]);
        assert_eq!(who(&proxy, "/exact"), ["200 three"]);
        assert_eq!(who(&proxy, "/fewer"), ["200 three"]);
        assert_eq!(proxy.stat("cluster.origin.lb_subsets_selected"), 36);
        assert_eq!(who(&proxy, "/nobody"), ["503 no healthy upstream"]);
        assert_eq!(proxy.stat("cluster.origin.upstream_cx_none_healthy"), 12);
        assert_eq!(proxy.stat("cluster.origin.lb_subsets_fallback"), 0);
        assert_eq!(who(&proxy, "/other"), ["200 two"]);
        assert_eq!(who(&proxy, "/"), ["200 two"]);
        assert_eq!(proxy.stat("cluster.origin.lb_subsets_fallback"), 24);
    }
}

#[test]
fn weighted_clusters_have_labels_of_their_own() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let mut cluster = labelled(&[(&one, json!({"v": "1", "s": "a"})), (&two, json!({"v": "2", "s": "a"}))]);
    cluster["lb_subset_config"] = json!({"subset_selectors": [{"keys": ["v", "s"]}]});
    let weighted = |v: &str, weight: u32| json!({"name": "origin", "weight": weight, "metadata_match": labels(json!({"v": v}))});
    let action = |one: u32, two: u32| {
        let clusters = json!({"clusters": [weighted("1", one), weighted("2", two)]});
        // A weighted cluster's labels beat its route's, and add to them.
        json!({"weighted_clusters": clusters, "metadata_match": labels(json!({"v": "9", "s": "a"}))})
    };
    let proxy = routes(
        cluster,
        &[
            json!({"match": {"prefix": "/one"}, "route": action(1, 0)}),
            json!({"match": {"prefix": "/two"}, "route": action(0, 1)}),
        ],
    );
    assert_eq!(who(&proxy, "/one"), ["200 one"]);
    assert_eq!(who(&proxy, "/two"), ["200 two"]);
}

#[test]
fn panic_goes_to_any_host_where_the_fallback_has_none() {
    let one = Origin::named("one");
    let mut cluster = labelled(&[(&one, json!({"v": "1"}))]);
    cluster["lb_subset_config"] = json!({
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"v": "2"},
        "subset_selectors": [{"keys": ["v"], "single_host_per_subset": true}],
        "panic_mode_any": true,
    });
    let proxy = routes(cluster, &[route("", json!({"v": "3"}))]);
    assert_eq!(who(&proxy, "/"), ["200 one"]);
    assert_eq!(proxy.stat("cluster.origin.lb_subsets_fallback_panic"), 12);
    assert_eq!(proxy.stat("cluster.origin.lb_subsets_single_host_per_subset_duplicate"), 0);
}

#[test]
fn tcp_sessions_go_by_labels_too() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let mut cluster = labelled(&[(&one, json!({"v": "1"})), (&two, json!({"v": "2"}))]);
    cluster["lb_subset_config"] = json!({"subset_selectors": [{"keys": ["v"]}]});
    let clusters =
        json!({"clusters": [{"name": "origin", "weight": 1, "metadata_match": labels(json!({"v": "2"}))}]});
    let of_one = json!({"cluster": "origin", "metadata_match": labels(json!({"v": "1"}))});
    for (mut tcp, name) in [(of_one, "200 one"), (json!({"weighted_clusters": clusters}), "200 two")] {
        tcp["@type"] = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy".into();
        tcp["stat_prefix"] = "t".into();
        let config =
            Config::with_clusters(&[cluster.clone()]).listener(json!({"filter_chains": [{"filters": [
                {"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp},
            ]}]}));
        assert_eq!(who(&Proxy::start(&config), "/"), [name]);
    }
}

/// Hosts and counters are Envoy's for the same configurations.
#[test]
fn lists_of_labels_are_tried_in_turn() {
    let (one, two, three) = (Origin::named("one"), Origin::named("two"), Origin::named("three"));
    let hosts = [(&one, json!({"v": "1"})), (&two, json!({"v": "2"})), (&three, json!({"v": "2", "s": "x"}))];
    let mut cluster = labelled(&hosts);
    cluster["lb_subset_config"] = json!({
        "metadata_fallback_policy": "FALLBACK_LIST",
        "subset_selectors": [{"keys": ["v"]}, {"keys": ["v", "s"]}],
    });
    let cases = [
        (json!({"fallback_list": [{"v": "9"}, {"v": "2"}]}), &["200 three", "200 two"][..]),
        (json!({"v": "2", "fallback_list": [{"s": "y"}, {"s": "x"}]}), &["200 three"]),
        (json!({"v": "1", "fallback_list": [{"v": "9"}, {}]}), &["200 one"]),
        (json!({"v": "1", "fallback_list": []}), &["200 one"]),
        (json!({"v": "1", "fallback_list": "x"}), &["200 one"]),
        (json!({"fallback_list": [{"v": "8"}, {"v": "9"}]}), &["503 no healthy upstream"]),
    ];
    let routes_of: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(index, (wanted, _))| route(&index.to_string(), wanted.clone()))
        .collect();
    let proxy = routes(cluster, &routes_of);
    for (index, (wanted, expected)) in cases.iter().enumerate() {
        assert_eq!(who(&proxy, &format!("/{index}")), *expected, "{wanted}");
    }
    assert_eq!(proxy.stat("cluster.origin.lb_subsets_selected"), 60);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_none_healthy"), 12);
}

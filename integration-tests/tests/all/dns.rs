//! Hosts found by DNS: what changing answers, failures and families do to a running proxy.

use std::net::{IpAddr, SocketAddr};

use integration_tests::{Config, Origin, Proxy, wait};
use serde_json::{Value, json};
use tidegate_testkit::dns::{DnsServer, Say};

const CARES: &str =
    "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
const DNS_CLUSTER: &str = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster";
const NAME: &str = "a.test";

/// A cluster `origin` of the hosts that `server` knows as `a.test`, on `port`, looked up every 50 ms.
fn config(server: &DnsServer, port: u16, change: Value) -> Config {
    let resolver = json!({
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": CARES,
            "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": server.address().port()}}],
            "query_timeout_seconds": 1,
            "query_tries": 1,
            "dns_resolver_options": {"no_default_search_domain": true},
        },
    });
    let host = json!({"endpoint": {"address": {"socket_address": {"address": NAME, "port_value": port}}}});
    let placeholder = SocketAddr::from(([127, 0, 0, 1], port));
    Config::new(placeholder)
        .cluster(json!({
            "type": "STRICT_DNS",
            "dns_refresh_rate": "0.05s",
            "dns_lookup_family": "V4_ONLY",
            "typed_dns_resolver_config": resolver,
            "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [host]}]},
        }))
        .cluster(change)
}

fn logical() -> Value {
    json!({"type": "LOGICAL_DNS"})
}

fn stat(proxy: &Proxy, name: &str) -> u64 {
    proxy.stat(&format!("cluster.origin.{name}"))
}

/// Waits for two more look-ups to begin: what was said before them is known.
fn refreshed(server: &DnsServer) {
    let before = server.asked(NAME);
    wait::until("it is looked up again", || server.asked(NAME) > before + 1);
}

#[test]
fn changing_answers_bring_and_remove_hosts() {
    let server = DnsServer::start();
    let origin = Origin::ok();
    server.has(NAME, &["127.0.0.1"]);
    let proxy = Proxy::start(&config(&server, origin.address().port(), json!({})));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(stat(&proxy, "upstream_cx_active"), 1);
    server.has(NAME, &["127.0.0.1", "127.0.0.2"]);
    wait::until("the other came", || stat(&proxy, "membership_total") == 2);
    assert_eq!(stat(&proxy, "upstream_cx_destroy"), 0);
    // The host that leaves takes its idle connection along, without waiting for a request.
    server.has(NAME, &["127.0.0.2"]);
    wait::until("it left", || stat(&proxy, "upstream_cx_active") == 0);
    assert_eq!((stat(&proxy, "membership_total"), stat(&proxy, "membership_change")), (1, 3));
}

#[test]
fn a_change_of_order_drops_no_connection() {
    let server = DnsServer::start();
    let origin = Origin::ok();
    server.has(NAME, &["127.0.0.1", "127.0.0.2"]);
    let proxy = Proxy::start(&config(&server, origin.address().port(), json!({})));
    server.has(NAME, &["127.0.0.2", "127.0.0.1"]);
    refreshed(&server);
    assert_eq!(stat(&proxy, "membership_change"), 1);
    assert!(stat(&proxy, "update_no_rebuild") > 0);
}

#[test]
fn failures_keep_the_last_answer_and_no_such_name_empties() {
    let server = DnsServer::start();
    let origin = Origin::ok();
    server.has(NAME, &["127.0.0.1"]);
    let proxy = Proxy::start(&config(&server, origin.address().port(), json!({})));
    assert_eq!(proxy.get("/").status, 200);
    let forged = || vec![IpAddr::from([127, 6, 6, 6])];
    let liars = [Say::OtherId(forged()), Say::OtherQuestion(forged()), Say::OtherSource(forged())];
    for say in [Say::Failure, Say::Refused, Say::Silence].into_iter().chain(liars) {
        let failures = stat(&proxy, "update_failure");
        server.say(NAME, say.clone());
        wait::until("it fails", || stat(&proxy, "update_failure") > failures);
        assert_eq!(stat(&proxy, "membership_total"), 1, "{say:?}");
        assert_eq!(proxy.get("/").status, 200, "{say:?}");
    }
    assert_eq!(origin.connections(), 1);
    assert!(proxy.stat("dns.cares.get_addr_failure") >= 2 && proxy.stat("dns.cares.timeouts") >= 4);
    server.say(NAME, Say::NoSuchName);
    wait::until("it is empty", || stat(&proxy, "membership_total") == 0);
    assert_eq!(proxy.get("/").status, 503);
    server.has(NAME, &["127.0.0.1"]);
    wait::until("it is back", || stat(&proxy, "membership_total") == 1);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn a_cluster_that_cannot_be_resolved_keeps_nothing_from_starting() {
    let server = DnsServer::start();
    server.say(NAME, Say::Failure);
    let proxy = Proxy::start(&config(&server, 1, json!({})));
    assert_eq!(proxy.get("/").status, 503);
    assert!(stat(&proxy, "update_failure") > 0);
}

#[test]
fn a_thousand_addresses_are_a_thousand_hosts() {
    let server = DnsServer::start();
    let many = (0..1000).map(|n| IpAddr::from([127, 1, (n / 250) as u8, (n % 250 + 1) as u8])).collect();
    server.say(NAME, Say::OnlyOverTcp(many));
    let proxy = Proxy::start(&config(&server, 1, json!({})));
    assert_eq!(stat(&proxy, "membership_total"), 1000);
}

#[test]
fn the_time_to_live_is_respected() {
    let server = DnsServer::start();
    server.say(NAME, Say::Addresses(vec![[127, 0, 0, 1].into()], 3600));
    let proxy = Proxy::start(&config(&server, 1, json!({"respect_dns_ttl": true})));
    // A name of no time to live is looked up all the while.
    assert_eq!((server.asked(NAME), stat(&proxy, "update_success")), (1, 1));
}

#[test]
fn families_are_asked_for_as_configured() {
    for (family, kinds, hosts) in [
        ("AUTO", vec![28, 1], 1),
        ("V6_ONLY", vec![28], 0),
        ("V4_PREFERRED", vec![1], 1),
        ("ALL", vec![1, 28], 1),
    ] {
        let server = DnsServer::start();
        server.has(NAME, &["127.0.0.1"]);
        let slow = json!({"dns_lookup_family": family, "dns_refresh_rate": "60s"});
        let proxy = Proxy::start(&config(&server, 1, slow));
        let mut asked: Vec<_> = server.questions().into_iter().map(|(_, kind)| kind).collect();
        if family == "ALL" {
            asked.sort_unstable();
        }
        assert_eq!((asked, stat(&proxy, "membership_total")), (kinds, hosts), "{family}");
    }
}

#[test]
fn the_host_of_a_logical_cluster_is_another_one_when_its_address_is_gone() {
    let server = DnsServer::start();
    let origin = Origin::ok();
    server.has(NAME, &["127.0.0.1"]);
    let proxy = Proxy::start(&config(&server, origin.address().port(), logical()));
    assert_eq!(proxy.get("/").status, 200);
    let asked = stat(&proxy, "update_success");
    server.has(NAME, &["127.0.0.1", "127.0.0.2"]);
    wait::until("more is known", || stat(&proxy, "update_success") > asked + 1);
    assert_eq!(proxy.get("/").status, 200, "on the connection that was there");
    assert_eq!((origin.connections(), stat(&proxy, "upstream_cx_destroy")), (1, 0));
    // Nobody listens there.
    server.has(NAME, &["127.0.0.2"]);
    wait::until("the connection closes", || stat(&proxy, "upstream_cx_destroy_local") == 1);
    assert_eq!(proxy.get("/").status, 503);
    server.say(NAME, Say::NoSuchName);
    wait::until("it fails", || stat(&proxy, "update_failure") > 0);
    assert_eq!(stat(&proxy, "membership_total"), 1);
}

#[test]
fn the_new_form_makes_one_host_of_all_addresses() {
    let server = DnsServer::start();
    let origin = Origin::ok();
    // The first address refuses, the second one answers.
    server.has(NAME, &["127.0.0.2", "127.0.0.1"]);
    let Config(mut whole) = config(&server, origin.address().port(), json!({}));
    let cluster = &mut whole["static_resources"]["clusters"][0];
    let resolver = cluster["typed_dns_resolver_config"].clone();
    for legacy in ["type", "dns_refresh_rate", "dns_lookup_family", "typed_dns_resolver_config"] {
        cluster.as_object_mut().unwrap().remove(legacy);
    }
    cluster["cluster_type"] = json!({"name": "envoy.cluster.dns", "typed_config": {
        "@type": DNS_CLUSTER,
        "dns_lookup_family": "V4_ONLY",
        "all_addresses_in_single_endpoint": true,
        "typed_dns_resolver_config": resolver,
    }});
    let proxy = Proxy::start(&Config(whole));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!((stat(&proxy, "membership_total"), stat(&proxy, "happy_eyeballs.attempts")), (1, 2));
}

#[test]
fn the_bootstraps_resolver_is_that_of_clusters_that_choose_none() {
    let server = DnsServer::start();
    let origin = Origin::ok();
    server.has(NAME, &["127.0.0.1"]);
    let config = config(&server, origin.address().port(), json!({"typed_dns_resolver_config": null}));
    let at = json!({"socket_address": {"address": "127.0.0.1", "port_value": server.address().port()}});
    let typed = json!({"name": "cares", "typed_config": {
        "@type": CARES,
        "resolvers": [at],
        "dns_resolver_options": {"no_default_search_domain": true},
    }});
    for bootstrap in [
        json!({"typed_dns_resolver_config": typed}),
        json!({"dns_resolution_config": {
            "resolvers": [at],
            "dns_resolver_options": {"no_default_search_domain": true},
        }}),
    ] {
        let before = server.asked(NAME);
        let proxy = Proxy::start(&config.clone().bootstrap(bootstrap));
        assert_eq!(proxy.get("/").status, 200);
        assert!(server.asked(NAME) > before);
    }
}

#[test]
fn the_system_resolves_where_it_is_asked_to() {
    const SYSTEM: &str = "type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig";
    let server = DnsServer::start();
    let origin = Origin::ok();
    let resolver =
        json!({"name": "envoy.network.dns_resolver.getaddrinfo", "typed_config": {"@type": SYSTEM}});
    let host = json!({"endpoint": {"address": {"socket_address": {
        "address": "localhost", "port_value": origin.address().port(),
    }}}});
    let config = config(&server, 1, json!({"typed_dns_resolver_config": null})).cluster(json!({
        "typed_dns_resolver_config": resolver,
        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [host]}]},
    }));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!((stat(&proxy, "membership_total"), server.questions().len()), (1, 0));
    assert!(stat(&proxy, "update_success") > 0);
    assert!(!proxy.admin.get("/stats").text().contains("dns.cares"));
}

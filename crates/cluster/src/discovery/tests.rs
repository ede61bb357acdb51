#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{LocalityEndpoints, OutlierDetectionConfig};
use tidegate_stats::Store;
use tokio::task::LocalSet;
use tokio::time::Instant;

use tidegate_net::dns::ServiceEndpoint;

use super::*;
use crate::tests::{build, config};
use crate::{Failing, HostShared};

type Answer = Result<Vec<Found>, ResolveError>;

/// Says what a test wrote down last, and when it was asked.
#[derive(Default)]
struct Script {
    answers: RefCell<HashMap<String, Answer>>,
    asked: RefCell<Vec<(String, Instant)>>,
    services: RefCell<HashMap<String, ServiceEndpoint>>,
}

impl Script {
    fn says(&self, name: &str, answer: Answer) {
        self.answers.borrow_mut().insert(name.to_owned(), answer);
    }

    fn asked(&self) -> usize {
        self.asked.borrow().len()
    }
}

/// As the one resolver of a test.
struct Scripted(Rc<Script>);

impl Resolve for Scripted {
    fn resolve(&self, name: &str, _: Families) -> tidegate_net::dns::Resolving {
        self.0.asked.borrow_mut().push((name.to_owned(), Instant::now()));
        let answer = self.0.answers.borrow().get(name).cloned().unwrap_or(Err(ResolveError::Timeout));
        Box::pin(std::future::ready(answer))
    }

    fn services(&self, name: &str, port: u16) -> tidegate_net::dns::ResolvingServices {
        let name = format!("{name}:{port}");
        self.0.asked.borrow_mut().push((name.clone(), Instant::now()));
        let answer = self.0.services.borrow().get(&name).cloned();
        Box::pin(std::future::ready(answer.ok_or(ResolveError::Timeout).map(|endpoint| vec![endpoint])))
    }
}

fn found(ips: &[&str]) -> Answer {
    Ok(ips.iter().map(|ip| Found { ip: ip.parse::<IpAddr>().unwrap(), ttl: 30 * S }).collect())
}

const S: Duration = Duration::from_secs(1);

fn dns() -> DnsConfig {
    DnsConfig {
        refresh_rate: 5 * S,
        failure_refresh_rate: None,
        respect_ttl: false,
        min_refresh_rate: Duration::ZERO,
        jitter: Duration::ZERO,
        family: LookupFamily::V4Only,
        resolver: None,
    }
}

fn names(names: &[&str]) -> Vec<LocalityEndpoints> {
    let address = Address::Ip(([0, 0, 0, 0], 80).into());
    let mut place = config("c", &vec![address; names.len()]).endpoints.remove(0);
    for (endpoint, name) in place.endpoints.iter_mut().zip(names) {
        endpoint.name = Some((*name).to_owned());
    }
    vec![place]
}

/// A cluster under discovery.
struct Lab {
    cluster: Arc<ClusterShared>,
    script: Rc<Script>,
    _attendants: Vec<Attendant>,
}

/// All defaults.
fn outlier_detection() -> Option<OutlierDetectionConfig> {
    let text = r#"{"static_resources": {"clusters": [{"name": "c", "outlier_detection": {}}]}}"#;
    let bootstrap = tidegate_config::from_str(text, "test", tidegate_config::Format::Json).unwrap();
    bootstrap.clusters[0].outlier_detection.clone()
}

impl Lab {
    fn start(discovery: Discovery, endpoints: Vec<LocalityEndpoints>, script: &Rc<Script>) -> Self {
        Self::replacing(None, discovery, endpoints, script)
    }

    fn replacing(
        previous: Option<&Arc<ClusterShared>>,
        discovery: Discovery,
        endpoints: Vec<LocalityEndpoints>,
        script: &Rc<Script>,
    ) -> Self {
        let (Discovery::StrictDns(dns) | Discovery::LogicalDns(dns)) = discovery.clone() else { panic!() };
        // What outlier detection found goes with it.
        let outlier_detection = outlier_detection();
        let mut config = ClusterConfig { endpoints, ..config("c", &[]) };
        (config.discovery, config.outlier_detection) = (discovery, outlier_detection);
        let cluster = build(config, &Store::new(1), previous);
        let resolver: Rc<dyn Resolve> = Rc::new(Scripted(script.clone()));
        let attendants = look_up(&cluster, &dns, &resolver, &Arc::default());
        Self { cluster, script: script.clone(), _attendants: attendants }
    }

    fn hosts(&self) -> Vec<Arc<HostShared>> {
        self.cluster.hosts().hosts.clone()
    }

    fn addresses(&self) -> Vec<String> {
        self.hosts().iter().map(|host| host.address().to_string()).collect()
    }

    /// `update_attempt`, `update_success`, `update_failure`, `update_no_rebuild`, `membership_change`.
    fn counts(&self) -> [u64; 5] {
        let balance = &self.cluster.stats().balance;
        let counters = [
            balance.update_attempt(),
            balance.update_success(),
            balance.update_failure(),
            balance.update_no_rebuild(),
            self.cluster.stats().members.membership_change(),
        ];
        counters.map(|counter| counter.value())
    }
}

async fn refresh() {
    tokio::time::sleep(5 * S).await;
    tokio::task::yield_now().await;
}

/// In virtual time.
fn test<F: Future<Output = ()>>(run: impl FnOnce(Rc<Script>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    LocalSet::new().block_on(&runtime.unwrap(), run(Rc::default()));
}

#[test]
fn each_address_of_a_strict_cluster_is_a_host() {
    test(|script| async move {
        script.says("a.test", found(&["10.0.0.1", "10.0.0.2", "10.0.0.1"]));
        script.says("b.test", found(&["10.0.0.2"]));
        let lab = Lab::start(Discovery::StrictDns(Box::new(dns())), names(&["a.test", "b.test"]), &script);
        assert!(lab.hosts().is_empty() && !lab.cluster.warming().is_over());
        lab.cluster.warming().over().await;
        assert_eq!(lab.addresses(), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:80"]);
        let hostnames: Vec<_> = lab.hosts().iter().map(|host| host.attributes().hostname.clone()).collect();
        assert_eq!(hostnames, ["a.test", "a.test", "b.test"]);
        assert_eq!(lab.counts(), [2, 2, 0, 0, 2]);
        assert_eq!(lab.cluster.stats().members.max_host_weight().value(), 1);
    });
}

#[test]
fn a_change_of_order_changes_nothing() {
    test(|script| async move {
        script.says("a.test", found(&["10.0.0.1", "10.0.0.2"]));
        let lab = Lab::start(Discovery::StrictDns(Box::new(dns())), names(&["a.test"]), &script);
        lab.cluster.warming().over().await;
        let generation = lab.cluster.generation();
        script.says("a.test", found(&["10.0.0.2", "10.0.0.1"]));
        refresh().await;
        assert_eq!(lab.cluster.generation(), generation);
        assert_eq!(lab.counts(), [2, 2, 0, 1, 1]);
        assert_eq!(lab.cluster.stats().members.default_total_match_count().value(), 4);
    });
}

#[test]
fn no_such_name_empties_a_strict_cluster_and_a_failure_does_not() {
    test(|script| async move {
        script.says("a.test", found(&["10.0.0.1"]));
        let lab = Lab::start(Discovery::StrictDns(Box::new(dns())), names(&["a.test"]), &script);
        lab.cluster.warming().over().await;
        let host = lab.hosts().remove(0);
        for error in [ResolveError::Timeout, ResolveError::Server] {
            script.says("a.test", Err(error));
            refresh().await;
            assert!(Arc::ptr_eq(&lab.hosts()[0], &host));
        }
        assert_eq!(lab.counts(), [3, 1, 2, 0, 1]);
        script.says("a.test", Ok(Vec::new()));
        refresh().await;
        assert!(lab.hosts().is_empty());
        refresh().await;
        assert_eq!(lab.counts(), [5, 3, 2, 1, 2]);
    });
}

#[test]
fn a_cluster_that_cannot_be_resolved_is_warm_after_the_first_failure() {
    test(|script| async move {
        let lab = Lab::start(Discovery::StrictDns(Box::new(dns())), names(&["a.test"]), &script);
        lab.cluster.warming().over().await;
        assert!(lab.hosts().is_empty());
        script.says("a.test", found(&["10.0.0.1"]));
        refresh().await;
        assert_eq!(lab.addresses(), ["10.0.0.1:80"]);
    });
}

#[test]
fn the_time_to_live_is_respected() {
    test(|script| async move {
        script.says("a.test", found(&["10.0.0.1"]));
        let respecting = DnsConfig { respect_ttl: true, ..dns() };
        let lab = Lab::start(Discovery::StrictDns(Box::new(respecting)), names(&["a.test"]), &script);
        lab.cluster.warming().over().await;
        tokio::time::sleep(29 * S).await;
        assert_eq!(script.asked(), 1);
        tokio::time::sleep(2 * S).await;
        assert_eq!(script.asked(), 2);
    });
}

#[test]
fn the_host_of_a_logical_cluster_moves_and_stays_itself() {
    test(|script| async move {
        script.says("a.test", found(&["10.0.0.1", "::1"]));
        let lab = Lab::start(Discovery::LogicalDns(Box::new(dns())), names(&["a.test"]), &script);
        lab.cluster.warming().over().await;
        let host = lab.hosts().remove(0);
        let all =
            |host: &HostShared| host.addresses().all().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(all(&host), ["10.0.0.1:80", "[::1]:80"]);
        assert_eq!(host.attributes().hostname, "a.test");
        script.says("a.test", found(&["10.0.0.3", "10.0.0.1"]));
        refresh().await;
        assert!(Arc::ptr_eq(&lab.hosts()[0], &host), "its address is one of them");
        script.says("a.test", found(&["10.0.0.2"]));
        refresh().await;
        assert!(!Arc::ptr_eq(&lab.hosts()[0], &host));
        assert_eq!(lab.addresses(), ["10.0.0.2:80"]);
        assert_eq!(lab.counts(), [3, 3, 0, 0, 3]);
        assert_eq!(lab.cluster.stats().members.default_total_match_count().value(), 3);
        // An answer without addresses is none.
        script.says("a.test", Ok(Vec::new()));
        refresh().await;
        assert_eq!(lab.addresses(), ["10.0.0.2:80"]);
        assert_eq!(lab.counts(), [4, 3, 1, 0, 3]);
        assert_eq!(lab.script.asked(), 4);
    });
}

#[test]
fn a_reloaded_cluster_inherits_what_was_found_out_of_all_names() {
    test(|script| async move {
        script.says("a.test", found(&["10.0.0.1"]));
        script.says("b.test", found(&["10.0.0.2"]));
        let discovery = || Discovery::StrictDns(Box::new(dns()));
        let old = Lab::start(discovery(), names(&["a.test", "b.test"]), &script);
        old.cluster.warming().over().await;
        old.hosts()[1].set_failing(Failing::Outlier, true);
        let patient = Discovery::StrictDns(Box::new(DnsConfig { refresh_rate: 9 * S, ..dns() }));
        let new = Lab::replacing(Some(&old.cluster), patient, names(&["a.test", "b.test"]), &script);
        new.cluster.warming().over().await;
        let failing: Vec<_> = new.hosts().iter().map(|host| host.is_failing(Failing::Outlier)).collect();
        assert_eq!(failing, [false, true]);
        // Found again later, it is a new host.
        script.says("b.test", Ok(Vec::new()));
        tokio::time::sleep(9 * S + S / 10).await;
        script.says("b.test", found(&["10.0.0.2"]));
        tokio::time::sleep(9 * S + S / 10).await;
        assert!(!new.hosts()[1].is_failing(Failing::Outlier));
    });
}

#[test]
fn a_thousand_addresses_are_a_thousand_hosts() {
    test(|script| async move {
        let ips: Vec<_> = (0..1000).map(|n| format!("10.1.{}.{}", n / 250, n % 250)).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        script.says("a.test", found(&ips));
        let lab = Lab::start(Discovery::StrictDns(Box::new(dns())), names(&["a.test"]), &script);
        lab.cluster.warming().over().await;
        assert_eq!(lab.hosts().len(), 1000);
    });
}

/// A cluster that may speak HTTP/3 with those whom its cache knows.
fn with_cache() -> ClusterConfig {
    let text = r#"{"static_resources": {"clusters": [{"name": "c",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "auto_config": {"http3_protocol_options": {}, "alternate_protocols_cache_options": {"name": "a"}}}},
        "transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
            "upstream_tls_context": {"sni": "a.test"}}}}]}}"#;
    let bootstrap = tidegate_config::from_str(text, "test", tidegate_config::Format::Json).unwrap();
    ClusterConfig::clone(&bootstrap.clusters[0])
}

#[test]
fn services_are_asked_for_where_a_cache_takes_them_up() {
    test(|script| async move {
        let endpoint = ServiceEndpoint {
            target: None,
            port: Some(8443),
            alpn: vec![b"h3".to_vec()],
            hints: Vec::new(),
            ttl: 30 * S,
        };
        script.services.borrow_mut().insert("a.test:80".into(), endpoint);
        let resolver: Rc<dyn Resolve> = Rc::new(Scripted(script.clone()));
        let discovery = Discovery::StrictDns(Box::new(dns()));
        let mut asking = ClusterConfig { endpoints: names(&["a.test", "b.test", "a.test"]), ..with_cache() };
        asking.discovery = discovery;
        let mut silent = asking.clone();
        silent.http3_selection.https_records = false;
        for (config, asked) in [(silent, 0), (asking, 1)] {
            let cluster = build(config, &Store::new(1), None);
            let attendants = look_up(&cluster, &dns(), &resolver, &Arc::default());
            refresh().await;
            let times = script.asked.borrow().iter().filter(|(name, _)| name == "a.test:80").count();
            assert_eq!(times, 2 * asked, "once for two equal names, and again");
            let found = cluster.services().map(|services| services.all());
            let Some([(place, said)]) = found.as_deref() else {
                assert_eq!(asked, 0, "b.test has none");
                continue;
            };
            assert_eq!((place, said.services[0].port), (&("a.test".to_owned(), 80), 8443));
            drop(attendants);
        }
    });
}

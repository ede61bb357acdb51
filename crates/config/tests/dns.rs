//! Clusters that look names up: what their fields mean, and mistakes in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::{
    Discovery, DnsConfig, DnsResolverConfig, LookupFamily, ResolverConfig, SystemResolverConfig,
};
use tidegate_config::{ClusterConfig, Format, from_str};

const S: Duration = Duration::from_secs(1);

/// A cluster with these fields and a host for each of `hosts`.
fn read(fields: &str, hosts: &[&str]) -> Result<ClusterConfig, Vec<String>> {
    let host = |host: &&str| format!(r#"{{"endpoint": {{"address": {host}}}}}"#);
    let hosts: Vec<_> = hosts.iter().map(host).collect();
    let text = format!(
        r#"{{"static_resources": {{"clusters": [{{"name": "c", {fields},
        "load_assignment": {{"cluster_name": "c", "endpoints": [{{"lb_endpoints": [{}]}}]}}}}]}}}}"#,
        hosts.join(",")
    );
    match from_str(&text, "f.json", Format::Json) {
        Ok(bootstrap) => Ok(ClusterConfig::clone(&bootstrap.clusters[0])),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

const NAME: &str = r#"{"socket_address": {"address": "a.test", "port_value": 80}}"#;

fn strict(fields: &str) -> Result<DnsConfig, Vec<String>> {
    match read(&format!(r#""type": "STRICT_DNS" {fields}"#), &[NAME])?.discovery.clone() {
        Discovery::StrictDns(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(read: Result<T, Vec<String>>, expected: &str) {
    let errors = read.expect_err("a problem").join("\n");
    assert!(errors.contains(expected), "{errors}");
}

#[test]
fn defaults_are_envoys() {
    let config = strict("").unwrap();
    assert_eq!((config.refresh_rate, config.failure_refresh_rate), (5 * S, None));
    assert_eq!((config.jitter, config.min_refresh_rate), (Duration::ZERO, Duration::ZERO));
    assert!(!config.respect_ttl && config.family == LookupFamily::Auto && config.resolver.is_none());
    let cluster = read(r#""type": "STRICT_DNS""#, &[NAME]).unwrap();
    let endpoint = &cluster.endpoints[0].endpoints[0];
    assert_eq!((endpoint.name.as_deref(), endpoint.address.port()), (Some("a.test"), Some(80)));
}

#[test]
fn every_field_of_both_forms() {
    let fields = r#""dns_refresh_rate": "7s", "respect_dns_ttl": true, "dns_jitter": "1s", "dns_lookup_family": "ALL",
        "dns_failure_refresh_rate": {"base_interval": "2s"}"#;
    let old = strict(&format!(", {fields}")).unwrap();
    assert_eq!((old.refresh_rate, old.jitter, old.family), (7 * S, S, LookupFamily::All));
    let failure = old.failure_refresh_rate.unwrap();
    assert_eq!((failure.base, failure.max, old.respect_ttl), (2 * S, 20 * S, true));
    for (single, logical) in [(false, false), (true, true)] {
        let new = format!(
            r#""cluster_type": {{"name": "envoy.cluster.dns", "typed_config": {{
            "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
            "all_addresses_in_single_endpoint": {single}, "dns_min_refresh_rate": "3s", {fields}}}}}"#
        );
        match read(&new, &[NAME]).unwrap().discovery.clone() {
            Discovery::LogicalDns(config) if logical => assert_eq!(config.min_refresh_rate, 3 * S),
            Discovery::StrictDns(config) if !logical => {
                assert_eq!(*config, DnsConfig { min_refresh_rate: 3 * S, ..old.clone() });
            }
            other => panic!("{other:?}"),
        }
    }
    let named = read(r#""cluster_type": {"name": "envoy.cluster.logical_dns"}"#, &[NAME]).unwrap();
    assert!(matches!(named.discovery, Discovery::LogicalDns(_)));
}

fn cares(fields: &str) -> String {
    format!(
        r#", "typed_dns_resolver_config": {{"name": "envoy.network.dns_resolver.cares", "typed_config": {{
        "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" {fields}}}}}"#
    )
}

const SERVER: &str = r#"{"socket_address": {"address": "10.0.0.53", "port_value": 0}}"#;

#[test]
fn resolvers() {
    let asks = |fields: &str| match strict(fields).unwrap().resolver.unwrap() {
        ResolverConfig::Dns(config) => config,
        ResolverConfig::System(_) => panic!("{fields}"),
    };
    let resolver = |fields: &str| asks(&cares(fields));
    assert_eq!(resolver(""), DnsResolverConfig::default());
    let all = resolver(&format!(
        r#", "resolvers": [{SERVER}], "use_resolvers_as_fallback": true, "filter_unroutable_families": true,
        "query_timeout_seconds": 2, "query_tries": 3, "rotate_nameservers": true, "edns0_max_payload_size": 512,
        "dns_resolver_options": {{"use_tcp_for_dns_lookups": true, "no_default_search_domain": true}}"#
    ));
    let expected = DnsResolverConfig {
        servers: vec!["10.0.0.53:0".parse().unwrap()],
        servers_are_fallback: true,
        filter_unroutable_families: true,
        tcp: true,
        no_search: true,
        query_timeout: 2 * S,
        query_tries: 3,
        rotate: true,
        max_payload: 512,
    };
    assert_eq!(all, expected);
    // The deprecated forms; the newest one holds.
    let old = format!(r#", "dns_resolvers": [{SERVER}], "use_tcp_for_dns_lookups": true"#);
    let config = asks(&old);
    assert!(config.tcp && config.servers.len() == 1);
    let older = format!(r#"{old}, "dns_resolution_config": {{"resolvers": [{SERVER}, {SERVER}]}}"#);
    let config = asks(&older);
    assert!(!config.tcp && config.servers.len() == 2);
    let config = asks(&format!("{older}{}", cares("")));
    assert_eq!(config, DnsResolverConfig::default());

    let system = |fields: &str| {
        format!(
            r#", "typed_dns_resolver_config": {{"name": "envoy.network.dns_resolver.getaddrinfo", "typed_config": {{
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig" {fields}}}}}"#
        )
    };
    let config = |fields: &str| strict(&system(fields)).unwrap().resolver.unwrap();
    assert_eq!(config(""), ResolverConfig::System(SystemResolverConfig::default()));
    let all = SystemResolverConfig { retries: Some(2), at_once: Some(3) };
    assert_eq!(config(r#", "num_retries": 2, "num_resolver_threads": 3"#), ResolverConfig::System(all));
}

#[test]
fn mistakes_are_told() {
    refused(strict(r#", "dns_refresh_rate": "0.001s""#), "dns_refresh_rate: must be more than 1 ms");
    refused(strict(r#", "dns_failure_refresh_rate": {}"#), "missing field `base_interval`");
    let reversed = r#", "dns_failure_refresh_rate": {"base_interval": "5s", "max_interval": "2s"}"#;
    refused(strict(reversed), "`max_interval` must be greater");
    refused(strict(r#", "dns_resolution_config": {}"#), "`resolvers` must not be empty");
    refused(strict(&cares(r#", "query_tries": 0"#)), "query_tries");
    refused(strict(&cares(r#", "qcache_max_ttl": 5"#)), "qcache_max_ttl");
    let named = r#", "resolvers": [{"socket_address": {"address": "ns.test", "port_value": 53}}]"#;
    refused(strict(&cares(named)), "`ns.test` is no IP address");
    let other = r#", "typed_dns_resolver_config": {"name": "x", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.apple.v3.AppleDnsResolverConfig"}}"#;
    refused(strict(other), "is not supported by this build");
}

#[test]
fn endpoints_suit_the_type() {
    refused(read(r#""type": "STATIC""#, &[NAME]), "`a.test` is no IP address; names need a DNS cluster type");
    let one = "exactly one locality, and in it exactly one endpoint";
    refused(read(r#""type": "LOGICAL_DNS""#, &[NAME, NAME]), one);
    refused(read(r#""type": "LOGICAL_DNS""#, &[]), one);
    let pipe = r#"{"pipe": {"path": "/x"}}"#;
    refused(read(r#""type": "STRICT_DNS""#, &[pipe]), "a cluster that looks names up has no pipes");
    let portless = r#"{"socket_address": {"address": "a.test", "port_value": 0}}"#;
    assert!(read(r#""type": "STRICT_DNS""#, &[portless]).is_ok());
    let custom = r#"{"socket_address": {"address": "a.test", "port_value": 80, "resolver_name": "x"}}"#;
    refused(read(r#""type": "STRICT_DNS""#, &[custom]), "no resolver for each address");
    let both = r#""type": "STRICT_DNS", "cluster_type": {"name": "envoy.cluster.dns"}"#;
    refused(read(both, &[NAME]), "cannot be set together");
    refused(
        read(r#""cluster_type": {"name": "envoy.cluster.redis"}"#, &[]),
        "is not supported by this build",
    );
    assert!(read(r#""type": "STRICT_DNS""#, &[]).is_ok());
}

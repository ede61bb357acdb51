#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_config::{Format, from_str};

use super::*;

/// The index over chains with these matches; `default` adds a default chain.
fn index(matches: &[&str], default: bool) -> ChainIndex {
    let filter = r#"{"name": "x", "typed_config": {"@type": "x/a.Echo"}}"#;
    let chains: Vec<_> =
        matches.iter().map(|m| format!(r#"{{"filters": [{filter}], "filter_chain_match": {m}}}"#)).collect();
    let default =
        if default { format!(r#","default_filter_chain": {{"filters": [{filter}]}}"#) } else { "".into() };
    let text = format!(
        r#"{{"static_resources": {{"listeners": [{{"address": {{"socket_address": {{"address": "127.0.0.1",
        "port_value": 80}}}}, "filter_chains": [{}]{default}}}]}}}}"#,
        chains.join(",")
    );
    ChainIndex::new(&from_str(&text, "t.json", Format::Json).unwrap().listeners[0])
}

fn arrival(local: &str, remote: &str) -> Arrival {
    Arrival::new(Address::Ip(local.parse().unwrap()), Address::Ip(remote.parse().unwrap()))
}

fn sni(name: &str) -> Arrival {
    let mut arrival = arrival("10.0.0.1:443", "192.0.2.1:5000");
    arrival.server_name = Some(name.into());
    arrival
}

#[test]
fn names_are_matched_exactly_then_by_the_longest_wildcard_then_any() {
    let index = index(
        &[
            r#"{"server_names": ["a.example.com", "*.a.example.com"]}"#,
            r#"{"server_names": ["*.example.com"]}"#,
            r#"{"server_names": ["*.com"]}"#,
            "{}",
        ],
        false,
    );
    let chosen = |name| index.find(&sni(name));
    assert_eq!(chosen("a.example.com"), Some(0));
    assert_eq!(chosen("A.Example.COM"), Some(0));
    assert_eq!(chosen("x.y.a.example.com"), Some(0));
    assert_eq!(chosen("b.example.com"), Some(1));
    assert_eq!(chosen("example.com"), Some(2));
    assert_eq!(chosen("example.org"), Some(3));
    assert_eq!(chosen(""), Some(3));
    assert_eq!(chosen("."), Some(3));
    assert_eq!(chosen("é.com"), Some(2));
}

#[test]
fn the_search_never_goes_back_to_a_less_specific_entry() {
    let index = index(
        &[
            r#"{"server_names": ["a.com"], "application_protocols": ["h2"]}"#,
            r#"{"server_names": ["*.com"]}"#,
        ],
        true,
    );
    assert_eq!(index.find(&sni("a.com")), Some(2));
    let mut h2 = sni("a.com");
    h2.application_protocols = vec![b"x".to_vec(), b"h2".to_vec()];
    assert_eq!(index.find(&h2), Some(0));
    assert_eq!(index.find(&sni("b.com")), Some(1));
}

#[test]
fn ports_and_ranges_are_matched_by_the_longest_prefix() {
    let index = index(
        &[
            r#"{"destination_port": 8443, "prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}"#,
            r#"{"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}"#,
            r#"{"prefix_ranges": [{"address_prefix": "10.1.2.3", "prefix_len": 16}]}"#,
            r#"{"prefix_ranges": [{"address_prefix": "2001:db8::", "prefix_len": 32}]}"#,
        ],
        false,
    );
    let chosen = |local| index.find(&arrival(local, "192.0.2.1:1"));
    assert_eq!(chosen("10.0.0.1:8443"), Some(0));
    assert_eq!(chosen("11.0.0.1:8443"), None);
    assert_eq!(chosen("10.0.0.1:80"), Some(1));
    assert_eq!(chosen("10.1.0.1:80"), Some(2));
    assert_eq!(chosen("[2001:db8::1]:80"), Some(3));
    assert_eq!(chosen("[2001:db9::1]:80"), None);
}

#[test]
fn sources_are_matched_by_peer_type_client_and_port() {
    let index = index(
        &[
            r#"{"direct_source_prefix_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 24}]}"#,
            r#"{"source_type": "SAME_IP_OR_LOOPBACK"}"#,
            r#"{"source_type": "EXTERNAL", "source_ports": [7]}"#,
            r#"{"source_prefix_ranges": [{"address_prefix": "198.51.100.0", "prefix_len": 24}], "source_ports": [9]}"#,
        ],
        true,
    );
    let chosen = |remote| index.find(&arrival("10.0.0.1:80", remote));
    assert_eq!(chosen("192.0.2.9:7"), Some(0));
    assert_eq!(chosen("127.0.0.1:7"), Some(1));
    // Envoy counts one address of the loopback network only.
    assert_eq!(chosen("127.0.0.9:7"), Some(2));
    assert_eq!(chosen("10.0.0.1:7"), Some(1));
    assert_eq!(chosen("203.0.113.1:7"), Some(2));
    assert_eq!(chosen("203.0.113.1:8"), Some(4));
    // EXTERNAL is more specific than ANY, and the search does not go back.
    assert_eq!(chosen("198.51.100.1:9"), Some(4));
}

#[test]
fn transport_protocols_and_unix_sockets() {
    let index = index(&[r#"{"transport_protocol": "tls"}"#, r#"{"transport_protocol": "raw_buffer"}"#], true);
    let mut arrival = Arrival::new(Address::Unix("@a".into()), Address::Unix("".into()));
    // What nobody looked at is plain.
    assert_eq!(index.find(&arrival), Some(1));
    arrival.transport_protocol = Some("tls".into());
    assert_eq!(index.find(&arrival), Some(0));
    arrival.transport_protocol = Some("other".into());
    assert_eq!(index.find(&arrival), Some(2));
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_config::cluster::TransportMatch;
use tidegate_config::transport::UpstreamTransport;
use tidegate_types::json::parse;

use super::*;
use crate::tests::{build, config};

/// A cluster's matches, each a name with its labels.
fn matches(all: &[(&str, &str)]) -> Vec<TransportMatch> {
    let one = |(name, labels): &(&str, &str)| TransportMatch {
        name: (*name).to_owned(),
        labels: members(&parse(labels).unwrap()),
        socket: UpstreamTransport::Raw,
    };
    all.iter().map(one).collect()
}

fn members(node: &Node) -> Vec<(String, Node)> {
    node.members().iter().map(|member| (member.key.to_string(), member.value.clone())).collect()
}

fn metadata(labels: &str) -> Node {
    parse(&format!(r#"{{"{TRANSPORT_LABELS}": {labels}, "envoy.lb": {{"b": 2}}}}"#)).unwrap()
}

/// What `own` and its locality's labels choose of these, by name.
fn chosen(all: &[(&str, &str)], own: Option<&str>, place: Option<&str>) -> Option<String> {
    let matches = matches(all);
    let mut config = config("c", &[]);
    config.transport_matches = matches.clone();
    let store = Store::new(1);
    let cluster = build(config.clone(), &store, None);
    let matcher = Matcher::new(&config, &store, cluster.stats());
    let (own, place) = (own.map(metadata), place.map(metadata));
    let index = matcher.choose(own.as_ref(), place.as_ref()).index()?;
    Some(matches[index].name.clone())
}

#[test]
fn the_first_match_with_all_labels_is_chosen() {
    let all = [("two", r#"{"k": 1, "l": true}"#), ("one", r#"{"k": 1}"#), ("deep", r#"{"p": {"q": ["x"]}}"#)];
    let name = |labels| chosen(&all, Some(labels), None);
    assert_eq!(name(r#"{"l": true, "k": 1.0, "more": "x"}"#).as_deref(), Some("two"));
    assert_eq!(name(r#"{"k": 1}"#).as_deref(), Some("one"));
    assert_eq!(name(r#"{"k": "1"}"#), None);
    assert_eq!(name(r#"{"p": {"q": ["x"]}}"#).as_deref(), Some("deep"));
    assert_eq!(name(r#"{"p": {"q": "x"}}"#), None);
    assert_eq!(chosen(&all, None, None), None);
}

#[test]
fn a_match_without_labels_is_for_all_hosts() {
    let all = [("any", "{}"), ("one", r#"{"a": 1}"#)];
    assert_eq!(chosen(&all, Some(r#"{"a": 1}"#), None).as_deref(), Some("any"));
    assert_eq!(chosen(&all, None, None).as_deref(), Some("any"));
}

#[test]
fn the_locality_speaks_where_the_host_matches_nothing() {
    let all = [("one", r#"{"a": 1}"#), ("two", r#"{"a": 2}"#)];
    assert_eq!(chosen(&all, Some(r#"{"a": 2}"#), Some(r#"{"a": 1}"#)).as_deref(), Some("two"));
    assert_eq!(chosen(&all, Some(r#"{"a": 3}"#), Some(r#"{"a": 1}"#)).as_deref(), Some("one"));
    assert_eq!(chosen(&all, None, Some(r#"{"a": 1}"#)).as_deref(), Some("one"));
}

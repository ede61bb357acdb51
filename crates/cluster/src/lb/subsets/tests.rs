#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use tidegate_config::cluster::SubsetSelector;
use tidegate_types::json::parse;

use super::super::{Health, Method, Moment, Wish};
use super::*;

fn node(text: &str) -> Node {
    parse(text).unwrap()
}

fn wanted(text: &str) -> LabelMatch {
    let node = node(text);
    LabelMatch::new(node.members().iter().map(|member| (&*member.key, &member.value)))
}

fn selector(keys: &[&str], fallback: Option<SelectorFallback>) -> SubsetSelector {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    SubsetSelector { keys, fallback, single_host_per_subset: false }
}

fn config(selectors: Vec<SubsetSelector>) -> SubsetConfig {
    SubsetConfig {
        fallback: SubsetFallback::None,
        default_subset: Vec::new(),
        selectors,
        locality_weight_aware: false,
        scale_locality_weight: false,
        panic_mode_any: false,
        list_as_any: false,
        fallback_list: false,
        allow_redundant_keys: false,
    }
}

const HOSTS: [&str; 4] =
    [r#"{"v": "1", "s": "a"}"#, r#"{"v": "1", "s": "b"}"#, r#"{"v": "2", "s": "a"}"#, r#"{"v": 2}"#];

fn build_of(config: &SubsetConfig, terms: &Terms, members: &[Member<'_>], hosts: &[&str]) -> Arc<Subsets> {
    let nodes: Vec<_> = hosts.iter().map(|text| node(text)).collect();
    let labels: Vec<_> = nodes.iter().map(Some).collect();
    let scene = Scene { now_ms: 1, home: &Locality::default(), census: None };
    Arc::new(Subsets::build(config, terms, members, &labels, scene))
}

fn build(config: &SubsetConfig, hosts: &[&str]) -> Arc<Subsets> {
    let members: Vec<_> = hosts.iter().map(|_| Member::of(0, Health::Healthy)).collect();
    build_of(config, &Terms::default(), &members, hosts)
}

/// The hosts that requests with these labels get; empty if they do not go to a subset.
fn hosts(subsets: &Arc<Subsets>, config: &SubsetConfig, labels: &str) -> Vec<usize> {
    let Way::Subset(place) = subsets.way(config, Some(&wanted(labels))) else { return Vec::new() };
    let mut seats = Seats::new(subsets.clone(), 7);
    drawn(|| seats.choose(place, draw(None)))
}

fn draw(hash: Option<u64>) -> impl FnOnce(&mut Balancer) -> Pick {
    let wish = Wish { hash, ..Wish::default() };
    move |balancer| balancer.choose(wish, Moment::default(), &mut || fastrand::u64(..))
}

fn drawn(mut choose: impl FnMut() -> Option<usize>) -> Vec<usize> {
    (0..64).filter_map(|_| choose()).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn exact_labels_lead_to_a_subset() {
    let config = config(vec![selector(&["v"], None), selector(&["s", "v"], None)]);
    let subsets = build(&config, &HOSTS);
    assert_eq!(subsets.count(), 6);
    assert_eq!(hosts(&subsets, &config, r#"{"v": "1"}"#), [0, 1]);
    assert_eq!(hosts(&subsets, &config, r#"{"v": "1", "s": "b"}"#), [1]);
    // Numbers are no strings, and 2 is 2.0.
    assert_eq!(hosts(&subsets, &config, r#"{"v": "2"}"#), [2]);
    assert_eq!(hosts(&subsets, &config, r#"{"v": 2.0}"#), [3]);
    for other in [r#"{"v": "3"}"#, r#"{"s": "a"}"#, r#"{"v": "1", "x": "1"}"#, "{}"] {
        assert_eq!(subsets.way(&config, Some(&wanted(other))), Way::Fallback, "{other}");
    }
    assert_eq!(subsets.way(&config, None), Way::Fallback);
}

#[test]
fn selectors_have_fallbacks_of_their_own() {
    let any = SelectorFallback::To(SubsetFallback::AnyEndpoint);
    let keys = SelectorFallback::Keys(vec!["v".into()]);
    let config = config(vec![selector(&["v"], Some(any)), selector(&["s", "v"], Some(keys))]);
    let subsets = build(&config, &HOSTS);
    let way = |labels| subsets.way(&config, Some(&wanted(labels)));
    assert_eq!(way(r#"{"v": "9"}"#), Way::SelectorFallback(SubsetFallback::AnyEndpoint));
    assert_eq!(hosts(&subsets, &config, r#"{"v": "1", "s": "x"}"#), [0, 1]);
    // The fallback of the keys that are left.
    assert_eq!(way(r#"{"v": "9", "s": "a"}"#), Way::SelectorFallback(SubsetFallback::AnyEndpoint));
    assert_eq!(way(r#"{"x": "1"}"#), Way::Fallback);
}

#[test]
fn the_default_subset_has_its_labels() {
    let mut config = config(vec![selector(&["v"], None)]);
    config.fallback = SubsetFallback::DefaultSubset;
    config.default_subset = vec![("s".into(), node(r#""a""#))];
    let mut seats = Seats::new(build(&config, &HOSTS), 3);
    assert_eq!(drawn(|| seats.choose_default(draw(None))), [0, 2]);
    // Without labels it is all hosts.
    config.default_subset.clear();
    let mut seats = Seats::new(build(&config, &HOSTS), 3);
    assert_eq!(drawn(|| seats.choose_default(draw(None))), [0, 1, 2, 3]);
}

#[test]
fn a_list_has_each_of_its_values() {
    let labels = [r#"{"v": ["1", "2"], "s": ["x", "y"]}"#, r#"{"v": ["3"], "s": "x"}"#, r#"{"v": "2"}"#];
    let mut config = config(vec![selector(&["v"], None), selector(&["s", "v"], None)]);
    let whole = build(&config, &labels);
    assert_eq!(hosts(&whole, &config, r#"{"v": "2"}"#), [2]);
    assert_eq!(hosts(&whole, &config, r#"{"v": ["3"]}"#), [1]);
    config.list_as_any = true;
    let each = build(&config, &labels);
    assert_eq!(each.count(), 3 + 5);
    assert_eq!(hosts(&each, &config, r#"{"v": "2"}"#), [0, 2]);
    assert_eq!(hosts(&each, &config, r#"{"v": "1", "s": "y"}"#), [0]);
}

#[test]
fn a_single_host_takes_all_however_it_is() {
    let mut config = config(vec![selector(&["v"], None)]);
    config.selectors[0].single_host_per_subset = true;
    let member = |(priority, health)| Member::of(priority, health);
    let members = [(1, Health::Healthy), (0, Health::Unhealthy), (0, Health::Healthy), (0, Health::Healthy)];
    let members = members.map(member);
    let subsets = build_of(
        &config,
        &Terms::default(),
        &members,
        &[r#"{"v": 1}"#, r#"{"v": 1}"#, r#"{"v": 1}"#, HOSTS[0]],
    );
    assert_eq!(subsets.duplicates(), 1);
    assert_eq!(hosts(&subsets, &config, r#"{"v": 1}"#), [1]);
}

#[test]
fn redundant_keys_are_left_out_if_that_is_allowed() {
    let mut config = config(vec![selector(&["v"], None), selector(&["s", "v"], None)]);
    config.allow_redundant_keys = true;
    let subsets = build(&config, &HOSTS);
    // The selector with most of the keys that it has.
    assert_eq!(hosts(&subsets, &config, r#"{"v": "1", "s": "a", "x": "1"}"#).len(), 1);
    assert_eq!(hosts(&subsets, &config, r#"{"v": "1", "x": "1"}"#), [0, 1]);
    assert_eq!(subsets.way(&config, Some(&wanted(r#"{"v": "1", "s": "none"}"#))), Way::Fallback);
    assert_eq!(subsets.way(&config, Some(&wanted(r#"{"s": "a"}"#))), Way::Fallback);
}

#[test]
fn health_is_that_of_the_subset() {
    let config = config(vec![selector(&["v"], None)]);
    let mut members = HOSTS.map(|_| Member::of(0, Health::Healthy));
    members[0].health = Health::Unhealthy;
    let subsets = build_of(&config, &Terms::default(), &members, &HOSTS);
    assert_eq!(hosts(&subsets, &config, r#"{"v": "1"}"#), [1]);
    // The only one of its subset: panic, though most hosts of the cluster are well.
    members[2].health = Health::Unhealthy;
    let subsets = build_of(&config, &Terms::default(), &members, &HOSTS);
    assert_eq!(hosts(&subsets, &config, r#"{"v": "2"}"#), [2]);
    let Way::Subset(place) = subsets.way(&config, Some(&wanted(r#"{"v": "2"}"#))) else { panic!() };
    let mut panic = false;
    Seats::new(subsets, 1).choose(place, |balancer| {
        let pick = draw(None)(balancer);
        panic = pick.panic;
        pick
    });
    assert!(panic);
}

#[test]
fn each_policy_works_within() {
    use tidegate_config::cluster::{HashFunction, HashedName, MaglevConfig, RingHashConfig};
    let config = config(vec![selector(&["v"], None)]);
    let (host_name, balance_factor) = (HashedName::Address, None);
    let ring = RingHashConfig {
        minimum_size: 64,
        maximum_size: 1024,
        hash_function: HashFunction::XxHash,
        host_name,
        balance_factor,
    };
    let maglev = Method::Maglev(MaglevConfig { table_size: 257, host_name, balance_factor });
    let least = Method::LeastRequest { choices: Some(2), bias: 1.0 };
    for method in [Method::RoundRobin, least, Method::Random, Method::Ring(ring), maglev] {
        let terms = Terms { method, ..Terms::default() };
        let mut members = HOSTS.map(|_| Member::of(0, Health::Healthy));
        for (index, member) in members.iter_mut().enumerate() {
            member.name = format!("host {index}").into();
        }
        let subsets = build_of(&config, &terms, &members, &HOSTS);
        assert_eq!(hosts(&subsets, &config, r#"{"v": "1"}"#), [0, 1], "{method:?}");
        let Way::Subset(place) = subsets.way(&config, Some(&wanted(r#"{"v": "1"}"#))) else { panic!() };
        let mut seats = Seats::new(subsets, 5);
        let of_key = drawn(|| seats.choose(place, draw(Some(42))));
        assert_eq!(of_key.len() == 1, method.hashes(), "{method:?}");
    }
}

#[test]
fn cursors_stay_with_their_subset() {
    let config = config(vec![selector(&["v"], None)]);
    let place = |seats: &Seats| {
        let Way::Subset(place) = seats.subsets().way(&config, Some(&wanted(r#"{"v": "1"}"#))) else {
            panic!()
        };
        place
    };
    let one = r#"{"v": "1"}"#;
    let mut seats = Seats::new(build(&config, &[one, one]), 9);
    let at = place(&seats);
    let first = seats.choose(at, draw(None));
    let old = seats.subsets().clone();
    let new = build(&config, &[one, one, r#"{"v": "3"}"#]);
    assert_eq!((new.count_beyond(&old), old.count_beyond(&new)), (1, 0));
    seats.follow(new);
    let at = place(&seats);
    assert_ne!(seats.choose(at, draw(None)), first);
    seats.follow(build(&config, &[r#"{"v": "3"}"#]));
    assert_eq!(seats.subsets().way(&config, Some(&wanted(one))), Way::Fallback);
}

#[test]
fn weights_of_localities_count_by_the_share_of_their_hosts() {
    let near = Locality { zone: "near".into(), ..Locality::default() };
    let far = Locality { zone: "far".into(), ..Locality::default() };
    let mut members = [&near, &near, &near, &near, &far].map(|place| {
        let mut member = Member::of(0, Health::Healthy);
        (member.place, member.place_weight) = (place, 4);
        member
    });
    members[4].place_weight = 1;
    // One of four near ones: its locality's weight is a quarter of 4.
    let labels = [r#"{"v": 1}"#, "{}", "{}", "{}", r#"{"v": 1}"#];
    let mut config = config(vec![selector(&["v"], None)]);
    config.locality_weight_aware = true;
    let terms = Terms { places: Places::Weighted, ..Terms::default() };
    let near_of = |config: &SubsetConfig| {
        let subsets = build_of(config, &terms, &members, &labels);
        let Way::Subset(place) = subsets.way(config, Some(&wanted(r#"{"v": 1}"#))) else { panic!() };
        let mut seats = Seats::new(subsets, 0);
        (0..100).filter(|_| seats.choose(place, draw(None)) == Some(0)).count()
    };
    assert_eq!(near_of(&config), 80);
    config.scale_locality_weight = true;
    assert_eq!(near_of(&config), 50);
}

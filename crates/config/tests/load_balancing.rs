//! Load balancing: what both forms mean, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::{
    HashFunction, HashedName, LbPolicy, LeastRequestConfig, LocalityBasis, LocalityLb, MaglevConfig,
    RingHashConfig, SelectionMethod, SelectorFallback, SlowStart, SubsetFallback, ZoneAware,
};
use tidegate_config::values::RuntimeDouble;
use tidegate_config::{ClusterConfig, Format, from_str};

/// One cluster with these fields; problems without file and place.
fn read(fields: &str) -> Result<ClusterConfig, Vec<String>> {
    let text = format!(r#"{{"static_resources": {{"clusters": [{{"name": "c", {fields}}}]}}}}"#);
    let short = |error: String| {
        let error = error.splitn(4, ':').last().unwrap().trim_start();
        error.replace("static_resources.clusters[0]", "C")
    };
    from_str(&text, "f.json", Format::Json)
        .map(|bootstrap| (*bootstrap.clusters[0]).clone())
        .map_err(|errors| errors.iter().map(|error| short(error.to_string())).collect())
}

/// `load_balancing_policy` of these policies, each a message's end and its fields.
fn list(policies: &[(&str, &str)]) -> String {
    let entry = |(name, fields): &(&str, &str)| {
        let kind = format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}");
        format!(
            r#"{{"typed_extension_config": {{"name": "x", "typed_config": {{"@type": "{kind}"{fields}}}}}}}"#
        )
    };
    let entries: Vec<_> = policies.iter().map(entry).collect();
    format!(r#""load_balancing_policy": {{"policies": [{}]}}"#, entries.join(", "))
}

#[track_caller]
fn refused(fields: &str, expected: &str) {
    let problems = read(fields).err().unwrap_or_default();
    assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?} of {fields}");
}

#[test]
fn both_forms_mean_the_same() {
    let slow = r#"{"slow_start_window": "10s", "aggression": {"default_value": 2.0, "runtime_key": "a"}}"#;
    let fields = format!(
        r#""choice_count": 3, "active_request_bias": {{"default_value": 0.5, "runtime_key": "b"}}, "slow_start_config": {slow}"#
    );
    let expected = LbPolicy::LeastRequest(LeastRequestConfig {
        choice_count: 3,
        active_request_bias: Some(RuntimeDouble { default: 0.5, runtime_key: "b".into() }),
        slow_start: Some(SlowStart {
            window: Duration::from_secs(10),
            aggression: Some(RuntimeDouble { default: 2.0, runtime_key: "a".into() }),
            min_weight_percent: 10.0,
        }),
        method: SelectionMethod::Choices,
    });
    let legacy = format!(r#""lb_policy": "LEAST_REQUEST", "least_request_lb_config": {{{fields}}}"#);
    assert_eq!(read(&legacy).unwrap().lb_policy, expected);
    // It beats `lb_policy`, as in Envoy.
    let extension = list(&[("least_request.v3.LeastRequest", &format!(", {fields}"))]);
    assert_eq!(read(&format!(r#""lb_policy": "RANDOM", {extension}"#)).unwrap().lb_policy, expected);
    let maglev = |fields: &str| read(fields).unwrap().lb_policy.clone();
    let expected =
        MaglevConfig { table_size: 65_537, host_name: HashedName::Hostname, balance_factor: Some(150) };
    let hashing =
        r#""consistent_hashing_lb_config": {"use_hostname_for_hashing": true, "hash_balance_factor": 150}"#;
    assert_eq!(
        maglev(&format!(r#""lb_policy": "MAGLEV", "common_lb_config": {{{hashing}}}"#)),
        LbPolicy::Maglev(expected)
    );
    assert_eq!(maglev(&list(&[("maglev.v3.Maglev", &format!(", {hashing}"))])), LbPolicy::Maglev(expected));
}

#[test]
fn extensions_have_what_the_enum_has_not() {
    let policy = |name, fields: &str| {
        let cluster = read(&list(&[(name, fields)])).unwrap();
        (cluster.lb_policy.clone(), cluster.locality_lb.clone())
    };
    let (policy_of_scan, _) = policy("least_request.v3.LeastRequest", r#", "selection_method": "FULL_SCAN""#);
    let LbPolicy::LeastRequest(least) = policy_of_scan else { panic!() };
    assert_eq!(least.method, SelectionMethod::FullScan);
    let ring = RingHashConfig {
        minimum_size: 1024,
        maximum_size: 8_388_608,
        hash_function: HashFunction::MurmurHash2,
        host_name: HashedName::Address,
        balance_factor: Some(120),
    };
    // The deprecated field, and weights of localities.
    let fields = r#", "hash_function": "MURMUR_HASH_2", "hash_balance_factor": 120, "locality_weighted_lb_config": {}"#;
    assert_eq!(policy("ring_hash.v3.RingHash", fields), (LbPolicy::RingHash(ring), LocalityLb::Weighted));
    let fields = r#", "locality_lb_config": {"zone_aware_lb_config": {"routing_enabled": {"value": 49.6},
        "force_local_zone": {}, "locality_basis": "HEALTHY_HOSTS_WEIGHT"}}"#;
    let (_, LocalityLb::ZoneAware(zones)) = policy("random.v3.Random", fields) else { panic!() };
    assert_eq!(zones.force_local_zone.unwrap().min_size, 1);
    assert_eq!(
        zones,
        ZoneAware {
            routing_enabled: 50,
            basis: LocalityBasis::Weights,
            force_local_zone: zones.force_local_zone,
            ..ZoneAware::default()
        }
    );
    let inner = format!(
        r#", "endpoint_picking_policy": {{{}}}"#,
        r#""policies": [{"typed_extension_config": {"name": "x",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random"}}}]"#
    );
    assert_eq!(policy("wrr_locality.v3.WrrLocality", &inner), (LbPolicy::Random, LocalityLb::Weighted));
}

#[test]
fn the_first_known_policy_holds() {
    let fields = list(&[("not.v3.Yet", ""), ("random.v3.Random", ""), ("maglev.v3.Maglev", "")]);
    assert_eq!(read(&fields).unwrap().lb_policy, LbPolicy::Random);
    refused(&list(&[("not.v3.Yet", "")]), "no load balancing policy of the list is known to this build");
    refused(r#""load_balancing_policy": {}"#, "`policies` must not be empty");
    refused(
        r#""lb_policy": "LOAD_BALANCING_POLICY_CONFIG""#,
        "`lb_policy` is LOAD_BALANCING_POLICY_CONFIG, but `load_balancing_policy` is missing",
    );
    let beside = format!(
        r#"{}, "common_lb_config": {{"locality_weighted_lb_config": {{}}}}"#,
        list(&[("random.v3.Random", "")])
    );
    refused(&beside, "cannot be set together with `load_balancing_policy`");
}

#[test]
fn what_envoy_refuses_is_refused() {
    refused(
        r#""least_request_lb_config": {"choice_count": 1}"#,
        "1 is out of range (expected 2 to 4294967295)",
    );
    refused(
        r#""least_request_lb_config": {"active_request_bias": {"default_value": 1}}"#,
        "missing field `runtime_key`",
    );
    refused(
        r#""common_lb_config": {"consistent_hashing_lb_config": {"hash_balance_factor": 99}}"#,
        "99 is out of range",
    );
    refused(
        r#""common_lb_config": {"zone_aware_lb_config": {}, "locality_weighted_lb_config": {}}"#,
        "cannot be set together with",
    );
    refused(
        r#""round_robin_lb_config": {"slow_start_config": {"min_weight_percent": {"value": 101}}}"#,
        "101 is out of range",
    );
    refused(
        r#""round_robin_lb_config": {}, "least_request_lb_config": {}"#,
        "cannot be set together with `least_request_lb_config`",
    );
    refused(&list(&[("random.v3.Random", r#", "locality_lb_config": {}"#)]), "nothing is chosen");
    let text = r#"{"cluster_manager": {"local_cluster_name": "nowhere"}}"#;
    let problems = from_str(text, "f.json", Format::Json).unwrap_err();
    assert!(problems[0].to_string().contains("unknown cluster `nowhere`"), "{}", problems[0]);
}

#[test]
fn subsets_in_both_forms() {
    let fields = r#""fallback_policy": "ANY_ENDPOINT", "default_subset": {"v": 1}, "list_as_any": true,
        "subset_selectors": [{"keys": ["b", "a"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"]},
            {"keys": ["c"], "fallback_policy": "NO_FALLBACK", "single_host_per_subset": true}, {"keys": ["d"]}]"#;
    let legacy = read(&format!(r#""lb_policy": "RANDOM", "lb_subset_config": {{{fields}}}"#)).unwrap();
    let subsets = legacy.subsets.clone().unwrap();
    assert_eq!(subsets.fallback, SubsetFallback::AnyEndpoint);
    assert!(subsets.list_as_any && !subsets.panic_mode_any && !subsets.allow_redundant_keys);
    assert_eq!(subsets.default_subset.len(), 1);
    assert_eq!(subsets.selectors[0].keys, ["a", "b"]);
    let fallbacks: Vec<_> = subsets.selectors.iter().map(|selector| selector.fallback.clone()).collect();
    let nowhere = SelectorFallback::To(SubsetFallback::None);
    assert_eq!(fallbacks, [Some(SelectorFallback::Keys(vec!["a".into()])), Some(nowhere), None]);
    assert!(subsets.selectors[1].single_host_per_subset);
    let inner = format!(r#""subset_lb_policy": {{{}}}"#, random());
    let extension = read(&list(&[("subset.v3.Subset", &format!(", {fields}, {inner}"))])).unwrap();
    assert_eq!((&extension.lb_policy, &extension.subsets), (&LbPolicy::Random, &legacy.subsets));
    // As in Envoy nothing without a selector.
    assert_eq!(read(r#""lb_subset_config": {"fallback_policy": "ANY_ENDPOINT"}"#).unwrap().subsets, None);
}

/// A list of one policy.
fn random() -> &'static str {
    r#""policies": [{"typed_extension_config": {"name": "x", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random"}}}]"#
}

#[test]
fn subsets_that_make_no_sense_are_refused() {
    let selector = |fields: &str| {
        format!(r#""lb_subset_config": {{"subset_selectors": [{{"keys": ["a", "b"], {fields}}}]}}"#)
    };
    let keys = |keys: &str| {
        selector(&format!(r#""fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": [{keys}]"#))
    };
    refused(&keys(""), "KEYS_SUBSET needs keys to fall back to");
    refused(&keys(r#""c""#), "these must be some of the selector's `keys`");
    refused(&keys(r#""b", "a""#), "these must not be all of the selector's `keys`");
    refused(&selector(r#""fallback_keys_subset": ["a"]"#), "only the `fallback_policy` KEYS_SUBSET has it");
    let own = format!(r#", "subset_lb_policy": {{{}}}"#, random());
    let nested = list(&[("subset.v3.Subset", &own)]).replacen("load_balancing_policy", "subset_lb_policy", 1);
    refused(&list(&[("subset.v3.Subset", &format!(", {nested}"))]), "is itself one of subsets");
    refused(
        r#""type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "lb_subset_config": {}"#,
        "CLUSTER_PROVIDED cannot be combined with `lb_subset_config`",
    );
    let beside = format!(r#"{}, "lb_subset_config": {{}}"#, list(&[("random.v3.Random", "")]));
    refused(&beside, "`lb_subset_config` cannot be set together with `load_balancing_policy`");
}

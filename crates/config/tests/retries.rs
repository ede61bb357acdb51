//! Retries, hedging, mirroring and the use of connections: what they mean and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::ConnectionReuse;
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::route::{
    Action, HeaderMutation, HedgePolicy, HostPredicate, MirrorTarget, PreviousPriorities, RouteAction,
};
use tidegate_config::values::TimeoutOverride;
use tidegate_config::{Bootstrap, Format, HcmConfig, from_str};

/// One cluster, one route; `CLUSTER`, `ACTION`, `HOST` and `TABLE` stand for further fields of both, of the
/// virtual host and of the route table.
const BASE: &str = r#"{"static_resources": {
"clusters": [{"name": "backend", CLUSTER "connect_timeout": "1s"}],
"listeners": [{"name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000}},
"filter_chains": [{"filters": [{"name": "http", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
"stat_prefix": "in",
"http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
"route_config": {TABLE "virtual_hosts": [{HOST "name": "v", "domains": ["*"], "routes": [
{"match": {"prefix": "/"}, "route": {ACTION "cluster": "backend"}}]}]}}}]}]}]}}
"#;

/// Fields by the place that [`BASE`] has for them.
type Fields<'a> = &'a [(&'a str, &'a str)];

fn read(fields: Fields<'_>) -> Result<Bootstrap, Vec<String>> {
    let text = ["CLUSTER", "ACTION", "HOST", "TABLE"].iter().fold(BASE.to_owned(), |text, place| {
        let given: String =
            fields.iter().filter(|(at, _)| at == place).map(|(_, fields)| format!("{fields},")).collect();
        text.replacen(place, &given, 1)
    });
    let short = |error: String| {
        let manager = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config";
        let error = error.splitn(4, ':').last().unwrap().trim_start();
        error
            .replace("static_resources.clusters[0]", "C")
            .replace(&format!("{manager}.virtual_hosts[0].routes[0].route"), "A")
            .replace(manager, "T")
    };
    from_str(&text, "f.json", Format::Json)
        .map_err(|errors| errors.iter().map(|error| short(error.to_string())).collect())
}

#[track_caller]
fn refused(fields: Fields<'_>, expected: &str) {
    assert_eq!(read(fields).err().unwrap_or_default(), [expected], "with {fields:?}");
}

fn manager(bootstrap: &Bootstrap) -> &HcmConfig {
    match &bootstrap.listeners[0].filter_chains[0].filters[0] {
        NetworkFilterConfig::Http(manager) => manager,
        other => panic!("{other:?}"),
    }
}

fn action(fields: &str) -> RouteAction {
    let bootstrap = read(&[("ACTION", fields)]).unwrap();
    match &manager(&bootstrap).route_config.virtual_hosts[0].routes[0].action {
        Action::Route(action) => RouteAction::clone(action),
        other => panic!("{other:?}"),
    }
}

const REUSE: &str = r#""typed_extension_protocol_options": {"tidegate.connection_reuse": {
    "@type": "type.googleapis.com/tidegate.upstreams.v1.ConnectionReuse", FIELDS}}"#;

#[test]
fn connection_reuse() {
    let reuse = |fields: &[(&str, &str)]| read(fields).unwrap().clusters[0].reuse.clone();
    assert_eq!(reuse(&[]), ConnectionReuse::default());
    let given = reuse(&[("CLUSTER", &REUSE.replace(", FIELDS", ""))]);
    assert!(given.own.is_some());
    assert_eq!(ConnectionReuse { own: None, ..given }, ConnectionReuse::default());
    let all = r#""safe_retry": false, "learn_idle": false, "replay_buffer_bytes": 0, "max_connecting": 3"#;
    let given = reuse(&[("CLUSTER", &REUSE.replace("FIELDS", all))]);
    let expected = ConnectionReuse {
        safe_retry: false,
        learn_idle: false,
        replay_buffer_bytes: 0,
        max_connecting: Some(3),
        own: given.own.clone(),
    };
    assert_eq!(given, expected);
    refused(
        &[("CLUSTER", &REUSE.replace("FIELDS", "\"max_connecting\": 0"))],
        "C.typed_extension_protocol_options[\"tidegate.connection_reuse\"].max_connecting: 0 is out of range (expected 1 to 4294967295)",
    );
    refused(
        &[("CLUSTER", &REUSE.replace(", FIELDS", "").replace("connection_reuse\"", "conection_reuse\""))],
        "C.typed_extension_protocol_options[\"tidegate.conection_reuse\"]: these protocol options \
             are not supported by this build (expected \
             envoy.extensions.upstreams.http.v3.HttpProtocolOptions; did you mean \
             `tidegate.connection_reuse`?)",
    );
}

const ROUTER: &str = r#""typed_per_filter_config": {"router": {
    "@type": "type.googleapis.com/tidegate.filters.http.router.v1.RouterPerRoute", "safe_retry": false}}"#;

#[test]
fn the_router_of_single_routes() {
    let bootstrap = read(&[("HOST", ROUTER), ("TABLE", &ROUTER.replace("false", "true"))]).unwrap();
    let table = &manager(&bootstrap).route_config;
    let host = &table.virtual_hosts[0];
    assert_eq!((table.router.safe_retry, host.router.safe_retry), (Some(true), Some(false)));
    assert_eq!(host.router.inside(&table.router).safe_retry, Some(false));
    assert_eq!(host.routes[0].router.inside(&host.router).safe_retry, Some(false));
    assert!(host.per_filter.is_empty());
    assert_eq!(table.router_overrides().count(), 2);
    refused(
        &[("HOST", &ROUTER.replace("\"router\"", "\"buffer\""))],
        "T.virtual_hosts[0].typed_per_filter_config.buffer: this is the router's, whose name in \
             `http_filters` is `router`",
    );
}

#[test]
fn a_whole_retry_policy() {
    let action = action(
        r#""retry_policy": {"retry_on": "5xx", "host_selection_retry_max_attempts": "3",
        "retry_host_predicate": [
            {"name": "a", "typed_config": {"@type": "x/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}},
            {"name": "b", "typed_config": {"@type": "x/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}},
            {"name": "c", "typed_config": {"@type": "x/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
                "metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "old"}, "other": {"x": 1}}}}}],
        "retry_priority": {"name": "p", "typed_config": {
            "@type": "x/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": 2}}}, "#
            .trim_end_matches(", "),
    );
    let policy = action.retry_policy.unwrap();
    assert_eq!(policy.host_selection_attempts, 3);
    let [
        HostPredicate::PreviousHosts,
        HostPredicate::OmitCanaryHosts,
        HostPredicate::OmitHostMetadata(labels),
    ] = policy.host_predicates.as_slice()
    else {
        panic!("{:?}", policy.host_predicates)
    };
    assert_eq!((labels.len(), labels[0].0.as_str(), labels[0].1.as_str()), (1, "stage", Some("old")));
    assert_eq!(policy.retry_priority, Some(PreviousPriorities { update_frequency: 2 }));
}

#[test]
fn what_is_refused_of_retries() {
    for (policy, error) in [
        (
            r#""retry_host_predicate": [{"name": "a"}]"#,
            "A.retry_policy.retry_host_predicate[0].typed_config: missing field `typed_config`",
        ),
        (
            r#""retry_host_predicate": [{"name": "a", "typed_config": {"@type": "x/envoy.Foo"}}]"#,
            "A.retry_policy.retry_host_predicate[0].typed_config: this extension is not supported by \
             this build (expected one of \
             envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate, \
             envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig, \
             envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate)",
        ),
        (
            r#""retry_priority": {"name": "p", "typed_config": {"@type": "x/envoy.Foo"}}"#,
            "A.retry_policy.retry_priority.typed_config: this extension is not supported by this build \
             (expected one of \
             envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig)",
        ),
        (
            r#""retry_priority": {"name": "p", "typed_config": {
            "@type": "x/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"}}"#,
            "A.retry_policy.retry_priority.typed_config.update_frequency: missing field \
             `update_frequency`",
        ),
        (
            r#""host_selection_retry_max_attempts": -1"#,
            "A.retry_policy.host_selection_retry_max_attempts: -1 is out of range",
        ),
        (
            r#""retry_options_predicates": []"#,
            "A.retry_policy.retry_options_predicates: `retry_options_predicates` is known to Envoy, \
             but not supported by this build",
        ),
        (
            r#""refresh_cluster_on_retry": true"#,
            "A.retry_policy.refresh_cluster_on_retry: `refresh_cluster_on_retry` is known to Envoy, \
             but not supported by this build",
        ),
    ] {
        refused(&[("ACTION", &format!("\"retry_policy\": {{{policy}}}"))], error);
    }
}

#[test]
fn hedging_and_grpc_timeouts() {
    let given = action(
        r#""hedge_policy": {"initial_requests": 1, "hedge_on_per_try_timeout": true}, "max_grpc_timeout": "0s",
        "grpc_timeout_offset": "0.1s""#,
    );
    assert_eq!(given.hedge_policy, Some(HedgePolicy { on_per_try_timeout: true }));
    assert_eq!(given.max_grpc_timeout, TimeoutOverride::Off);
    assert_eq!(given.grpc_timeout_offset, Some(Duration::from_millis(100)));
    let bootstrap = read(&[("HOST", "\"hedge_policy\": {}")]).unwrap();
    let host = &manager(&bootstrap).route_config.virtual_hosts[0];
    assert_eq!(host.hedge_policy, Some(HedgePolicy { on_per_try_timeout: false }));
    refused(
        &[("ACTION", "\"hedge_policy\": {\"initial_requests\": 2}")],
        "A.hedge_policy.initial_requests: this value is not supported by this build (expected 1)",
    );
    refused(
        &[("ACTION", "\"hedge_policy\": {\"additional_request_chance\": {\"numerator\": 5}}")],
        "A.hedge_policy.additional_request_chance: Envoy accepts this field and makes no such \
             requests; nor does this build",
    );
}

#[test]
fn mirrors_at_every_level() {
    let list = |policy: &str| format!("\"request_mirror_policies\": [{{{policy}}}]");
    let given = action(&list(
        r#""cluster_header": "X-To", "runtime_fraction": {"default_value": {"numerator": 5}, "runtime_key": "m"},
        "disable_shadow_host_suffix_append": true, "host_rewrite_literal": "copy.example", "trace_sampled": false,
        "request_headers_mutations": [{"remove": "Cookie"}, {"append": {"header": {"key": "a", "value": "b"}}}]"#,
    ));
    let policy = &given.mirrors[0];
    assert_eq!(policy.cluster, MirrorTarget::Header("x-to".into()));
    assert_eq!(policy.runtime_fraction.as_ref().unwrap().default.numerator, 5);
    assert!(policy.disable_shadow_host_suffix_append);
    assert_eq!(policy.host_rewrite_literal.as_deref(), Some("copy.example"));
    assert_eq!(policy.request_headers[0], HeaderMutation::Remove("cookie".into()));
    assert!(matches!(&policy.request_headers[1], HeaderMutation::Append(add) if add.key == "a"));

    let known = list("\"cluster\": \"backend\"");
    let bootstrap = read(&[("HOST", &known), ("TABLE", &known)]).unwrap();
    let table = &manager(&bootstrap).route_config;
    assert_eq!((table.mirrors.len(), table.virtual_hosts[0].mirrors.len()), (1, 1));
    for place in ["ACTION", "HOST", "TABLE"] {
        let errors = read(&[(place, &list("\"cluster\": \"nope\""))]).err().unwrap();
        assert!(
            errors[0].contains("request_mirror_policies[0].cluster: unknown cluster `nope`"),
            "{errors:?}"
        );
    }
    read(&[("TABLE", &format!("\"validate_clusters\": false, {}", list("\"cluster\": \"nope\"")))]).unwrap();
    for (policy, error) in [
        ("", "A.request_mirror_policies[0]: nothing is chosen (expected one of cluster, cluster_header)"),
        (
            r#""cluster": "backend", "cluster_header": "x""#,
            "A.request_mirror_policies[0].cluster_header: `cluster_header` cannot be set together with \
             `cluster` (expected at most one of cluster, cluster_header)",
        ),
        (
            r#""cluster": "backend", "runtime_fraction": {"runtime_key": "x"}"#,
            "A.request_mirror_policies[0].runtime_fraction.default_value: missing field \
             `default_value`",
        ),
        (
            r#""cluster": "backend", "request_headers_mutations": [{"remove": ":path"}]"#,
            "A.request_mirror_policies[0].request_headers_mutations[0].remove: `:path` cannot be \
             removed: pseudo-headers and `host` are changed by rewrites",
        ),
        (
            r#""cluster": "backend", "request_headers_mutations": [{}]"#,
            "A.request_mirror_policies[0].request_headers_mutations[0]: nothing is chosen (expected \
             one of remove, append)",
        ),
        (
            r#""cluster": "backend", "request_headers_mutations": [{"append": {"header": {"key": ":path"}}}]"#,
            "A.request_mirror_policies[0].request_headers_mutations[0].append.header.key: `:path` \
             cannot be added: pseudo-headers and `host` are changed by rewrites",
        ),
    ] {
        refused(&[("ACTION", &list(policy))], error);
    }
}

#[test]
fn what_clusters_say_of_retries_and_copies() {
    let options = |fields: &str| {
        format!(
            "\"typed_extension_protocol_options\": {{\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\": {{\
             \"@type\": \"x/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\", \
             \"explicit_http_config\": {{\"http_protocol_options\": {{}}}}, {fields}}}}}"
        )
    };
    let both = options(
        r#""retry_policy": {"retry_on": "reset"}, "request_mirror_policies": [{"cluster": "not-here"}]"#,
    );
    let budget = r#""circuit_breakers": {"thresholds": [{"retry_budget": {"budget_interval": "10s"}}]}"#;
    let cluster = &read(&[("CLUSTER", &both), ("CLUSTER", budget)]).unwrap().clusters[0];
    assert_eq!(cluster.retry_policy.as_ref().unwrap().retry_on, ["reset"]);
    assert_eq!(cluster.mirrors[0].cluster, MirrorTarget::Cluster("not-here".into()));
    let budget = cluster.circuit_breakers.default.retry_budget.as_ref().unwrap();
    assert_eq!(budget.budget_interval, Some(Duration::from_secs(10)));
}

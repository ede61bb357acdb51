//! Every kind of mistake, and what the user reads about it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_config::{Format, from_str};

/// A small valid configuration in which a test replaces one piece. Pieces start on lines of their own, so
/// that places are easy to read: cluster pieces on line 6, manager pieces on line 16, routes on line 20.
const BASE: &str = r#"{
"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
"static_resources": {
"clusters": [{
"name": "backend",
"connect_timeout": "1s",
"type": "STATIC"
}],
"listeners": [{
"name": "in",
"address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000}},
"filter_chains": [{"filters": [{
"name": "envoy.filters.network.http_connection_manager",
"typed_config": {
"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
"stat_prefix": "in",
"http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
"route_config": {"virtual_hosts": [{"name": "v",
"domains": ["*"], "routes": [
{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
]}]}}}]}]}]}}
"#;

const MANAGER: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
const ROUTE: &str = r#"{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}"#;

/// The errors of [`BASE`] with one piece replaced; `M` and `R` stand for the manager's and route's paths.
#[track_caller]
fn check(piece: &str, with: &str, expected: &[&str]) {
    assert!(BASE.contains(piece), "{piece}");
    let text = BASE.replacen(piece, with, 1);
    let errors = from_str(&text, "f.json", Format::Json).err().unwrap_or_default();
    let route = format!("{MANAGER}.route_config.virtual_hosts[0].routes[0]");
    let short = |error: String| error.replace(&route, "R").replace(MANAGER, "M").replace("f.json:", "");
    let errors: Vec<_> = errors.iter().map(|error| short(error.to_string())).collect();
    assert_eq!(errors, expected, "with {with}");
}

#[test]
fn a_misspelt_required_field_is_one_mistake() {
    let listener = "static_resources.listeners[0]";
    let unknown = |path: &str, wrong: &str, right: &str| {
        format!("{path}.{wrong}: unknown field `{wrong}` (did you mean `{right}`?)")
    };
    let chains = unknown(listener, "filter_chainz", "filter_chains");
    check("\"filter_chains\"", "\"filter_chainz\"", &[&format!("12:1: {chains}")]);
    let address = "\"address\": {\"socket_address\": {\"address\": \"127.0.0.1\", \"port_value\": 10000}}";
    let misspelt = address.replacen("address", "adress", 1);
    check(address, &misspelt, &[&format!("11:1: {}", unknown(listener, "adress", "address"))]);
    check(
        "{\"prefix\": \"/\"}",
        "{\"prefixx\": \"/\"}",
        &[&format!("20:12: {}", unknown("R.match", "prefixx", "prefix"))],
    );
}

#[track_caller]
fn cluster(field: &str, expected: &[&str]) {
    check("\"connect_timeout\": \"1s\"", field, expected);
}

#[track_caller]
fn manager(field: &str, expected: &[&str]) {
    check("\"stat_prefix\": \"in\"", &format!("\"stat_prefix\": \"in\", {field}"), expected);
}

#[track_caller]
fn route(route: &str, expected: &[&str]) {
    check(ROUTE, route, expected);
}

#[test]
fn the_base_is_valid() {
    check("{", "{", &[]);
}

#[test]
fn an_error_names_file_line_column_path_and_the_nearest_name() {
    let text = BASE.replace("\"connect_timeout\": \"1s\"", "  \"conect_timeout\": \"1s\"");
    let errors = from_str(&text, "conf/edge.json", Format::Json).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "conf/edge.json:6:3: static_resources.clusters[0].conect_timeout: unknown field `conect_timeout` \
         (did you mean `connect_timeout`?)"
    );
}

#[test]
fn syntax_errors_stop_the_reading() {
    check("\"type\": \"STATIC\"", "\"type\": \"STATIC\",", &["8:1: a comma before `}` is not JSON"]);
    check("\"type\": \"STATIC\"", "\"name\": \"x\"", &["7:1: key `name` is given twice"]);
}

#[test]
fn unsupported_fields_are_told_from_unknown_ones() {
    cluster(
        "\"lrs_server\": {}, \"upstreamConfig\": 1, \"foo\": 1",
        &[
            "6:1: static_resources.clusters[0].lrs_server: `lrs_server` is known to Envoy, but not \
             supported by this build",
            "6:19: static_resources.clusters[0].upstreamConfig: `upstreamConfig` is known to Envoy, but not \
             supported by this build",
            "6:40: static_resources.clusters[0].foo: unknown field `foo`",
        ],
    );
    cluster(
        "\"lb_policy\": \"MAGLEV\", \"maglev_lb_config\": {\"table_size\": 65536}",
        &["6:59: static_resources.clusters[0].maglev_lb_config.table_size: 65536 is not a prime number"],
    );
    cluster(
        "\"ring_hash_lb_config\": {\"minimum_ring_size\": 9, \"maximum_ring_size\": 8}",
        &["6:24: static_resources.clusters[0].ring_hash_lb_config: `minimum_ring_size` (9) is above \
             `maximum_ring_size` (8)"],
    );
    cluster(
        "\"lb_policy\": \"ROUND_ROBBIN\"",
        &[
            "6:14: static_resources.clusters[0].lb_policy: unknown value `ROUND_ROBBIN` (expected one of ROUND_ROBIN, \
           LEAST_REQUEST, RING_HASH, RANDOM, MAGLEV, CLUSTER_PROVIDED, LOAD_BALANCING_POLICY_CONFIG; did you mean `ROUND_ROBIN`?)",
        ],
    );
}

#[test]
fn all_independent_problems_are_reported_in_file_order() {
    let text = BASE
        .replace("\"connect_timeout\": \"1s\"", "\"connect_timeout\": 1")
        .replace("\"stat_prefix\": \"in\",", "\"via\": 7,")
        .replace("{\"cluster\": \"backend\"}", "{\"cluster\": \"bakend\"}")
        .replace("9901", "99010");
    let errors = from_str(&text, "f", Format::Json).unwrap_err();
    let errors: Vec<_> = errors.iter().map(|error| error.to_string().replace(MANAGER, "M")).collect();
    assert_eq!(
        errors,
        [
            "f:2:80: admin.address.socket_address.port_value: 99010 is out of range (expected 0 to 65535)",
            "f:6:20: static_resources.clusters[0].connect_timeout: wrong type: the number 1 (expected a duration such \
             as \"0.25s\")",
            "f:14:17: M.stat_prefix: missing field `stat_prefix`",
            "f:16:8: M.via: wrong type: the number 7 (expected a string)",
            "f:20:49: M.route_config.virtual_hosts[0].routes[0].route.cluster: unknown cluster `bakend` (did you mean \
             `backend`?)",
        ]
    );
}

#[test]
fn durations() {
    let path = "6:20: static_resources.clusters[0].connect_timeout:";
    let form = "(expected a duration such as \"0.25s\")";
    cluster("\"connect_timeout\": \"500ms\"", &[&format!("{path} `500ms` is no duration {form}")]);
    cluster(
        "\"connect_timeout\": \"-1s\"",
        &[&format!("{path} Invalid duration: Expected positive duration {form}")],
    );
    cluster(
        "\"connect_timeout\": \"0s\"",
        &[&format!("{path} the duration must not be 0 (expected more than 0s)")],
    );
}

#[test]
fn numbers_and_wrong_types() {
    manager(
        "\"max_request_headers_kb\": 9000",
        &["16:48: M.max_request_headers_kb: 9000 is out of range (expected 1 to 8192)"],
    );
    manager(
        "\"xff_num_trusted_hops\": -1",
        &["16:46: M.xff_num_trusted_hops: -1 is out of range (expected an integer from 0 to 4294967295)"],
    );
    manager(
        "\"xff_num_trusted_hops\": 1.5",
        &[
            "16:46: M.xff_num_trusted_hops: wrong type: the number 1.5 (expected an integer from 0 to 4294967295)",
        ],
    );
    manager(
        "\"normalize_path\": 1",
        &["16:40: M.normalize_path: wrong type: the number 1 (expected true or false)"],
    );
    manager("\"access_log\": 1", &["16:36: M.access_log: wrong type: a number (expected an object)"]);
    manager(
        "\"http_protocol_options\": 1",
        &["16:47: M.http_protocol_options: wrong type: a number (expected an object)"],
    );
    manager(
        "\"normalize_path\": true, \"normalizePath\": false",
        &["16:46: M.normalizePath: `normalize_path` and `normalizePath` are the same field"],
    );
}

#[test]
fn oneofs() {
    route(
        r#"{"match": {"prefix": "/"}}"#,
        &["20:1: R: nothing is chosen (expected one of route, redirect, direct_response, \
           non_forwarding_action)"],
    );
    route(
        r#"{"match": {"prefix": "/"}, "route": {"cluster": "backend"}, "redirect": {}}"#,
        &[
            "20:61: R.redirect: `redirect` cannot be set together with `route` (expected at most one of route, redirect, \
           direct_response, non_forwarding_action)",
        ],
    );
    route(
        r#"{"match": {}, "non_forwarding_action": {}}"#,
        &["20:11: R.match: nothing is chosen (expected one of prefix, path, safe_regex, \
           path_separated_prefix, connect_matcher)"],
    );
    route(
        r#"{"match": {"path_match_policy": {}}, "non_forwarding_action": {}}"#,
        &[
            "20:12: R.match.path_match_policy: `path_match_policy` is known to Envoy, but not supported by this build",
        ],
    );
    route(r#"{"non_forwarding_action": {}}"#, &["20:1: R.match: missing field `match`"]);
}

#[test]
fn names_must_be_unique() {
    check(
        "\"type\": \"STATIC\"\n}",
        "\"type\": \"STATIC\"\n}, {\"name\": \"backend\"}",
        &["8:13: static_resources.clusters[1].name: duplicate cluster name `backend`, first used in line 5"],
    );
    let listeners = "\"listeners\": [{\"name\": \"in\", \"filter_chains\": [{\"filters\": [{\"name\": \"echo\", \
                     \"typed_config\": {\"@type\": \"x/a.Echo\"}}]}],\n\"address\": {\"socket_address\": {\"address\": \
                     \"127.0.0.1\", \"port_value\": 10000}}}, {";
    check(
        "\"listeners\": [{",
        listeners,
        &[
            "11:9: static_resources.listeners[1].name: duplicate listener name `in`, first used in line 9",
            "12:1: static_resources.listeners[1].address: duplicate address `127.0.0.1:10000`, first used in line 10",
        ],
    );
    check(
        "\"domains\": [\"*\"]",
        "\"domains\": [\"a.com\", \"A.com\"]",
        &["19:12: M.route_config.virtual_hosts[0].domains: duplicate domain `a.com`, first used in line 19"],
    );
}

#[test]
fn required_fields() {
    check(
        "\"domains\": [\"*\"], ",
        "",
        &["18:36: M.route_config.virtual_hosts[0].domains: missing field `domains`"],
    );
    check("[\"*\"]", "[]", &["19:12: M.route_config.virtual_hosts[0].domains: must not be empty"]);
    check("\"stat_prefix\": \"in\"", "\"stat_prefix\": \"\"", &["16:16: M.stat_prefix: must not be empty"]);
    check(
        "{\"@type\": \"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\"}",
        "{}",
        &["17:53: M.http_filters[0].typed_config: missing `@type` (expected an object whose \"@type\" is \
           \"type.googleapis.com/\" and a message name)"],
    );
}

#[test]
fn regexes_and_substitutions() {
    route(
        r#"{"match": {"safe_regex": {"regex": "/(a"}}, "non_forwarding_action": {}}"#,
        &["20:36: R.match.safe_regex.regex: invalid regex: unclosed group"],
    );
    route(
        r#"{"match": {"prefix": "/"}, "route": {"cluster": "backend", "regex_rewrite": {"pattern": {"regex": "(a)"}, "substitution": "\\2"}}}"#,
        &[
            "20:123: R.route.regex_rewrite.substitution: the substitution uses group \\2, which the pattern does not have",
        ],
    );
}

#[test]
fn routes_retries_and_headers() {
    route(
        r#"{"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [{"name": "nope", "weight": 0}]}}}"#,
        &[
            "20:59: R.route.weighted_clusters: the sum of the weights is 0; it must be from 1 to 4294967295",
            "20:82: R.route.weighted_clusters.clusters[0].name: unknown cluster `nope`",
        ],
    );
    route(
        r#"{"match": {"prefix": "/"}, "non_forwarding_action": {}, "request_headers_to_remove": ["Host"]}"#,
        &[
            "20:86: R.request_headers_to_remove: `host` cannot be removed: pseudo-headers and `host` are changed by \
           rewrites",
        ],
    );
    route(
        r#"{"match": {"prefix": "/"}, "direct_response": {"status": 99}}"#,
        &["20:58: R.direct_response.status: 99 is out of range (expected 200 to 599)"],
    );
}

#[test]
fn protocols_and_sockets_that_this_build_lacks() {
    manager(
        "\"codec_type\": \"HTTP4\"",
        &[
            "16:36: M.codec_type: unknown value `HTTP4` (expected one of AUTO, HTTP1, HTTP2, HTTP3; did you mean `HTTP3`?)",
        ],
    );
    cluster(
        "\"transport_socket\": {\"name\": \"tls\", \"typed_config\": {\"@type\": \"x/envoy.Tls\"}}",
        &[
            "6:53: static_resources.clusters[0].transport_socket.typed_config: this transport socket is not supported by \
           this build (expected one of \
           type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
           type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport, \
           type.googleapis.com/tidegate.transport_sockets.tls.v1.TlsContext, \
           type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
           type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer)",
        ],
    );
}

#[test]
fn data_sources() {
    route(
        r#"{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"filename": "/nowhere/body"}}}"#,
        &[
            "20:84: R.direct_response.body.filename: cannot read `/nowhere/body`: No such file or directory (os error 2)",
        ],
    );
}

#[test]
fn an_unreadable_file_is_an_error_without_a_place() {
    let errors = tidegate_config::load("/nowhere/edge.json".as_ref()).unwrap_err();
    assert_eq!(errors[0].to_string(), "/nowhere/edge.json: No such file or directory (os error 2)");
}

/// What Envoy knows and this build would have to ignore is an error, even where the name is right.
#[test]
fn what_would_have_no_effect_is_refused() {
    let cluster = |fields: &str| format!("static_resources: {{clusters: [{{name: a, {fields}}}]}}");
    let refused = |text: &str| from_str(text, "x.yaml", Format::Yaml).err().map(|all| all.len());
    let ignored = "http_protocol_options: {send_fully_qualified_url: true}";
    assert_eq!(refused(&cluster(ignored)), Some(1));
    for read in ["timeout_budgets", "per_endpoint_stats"] {
        assert_eq!(refused(&cluster(&format!("track_cluster_stats: {{{read}: true}}"))), None, "{read}");
    }
}

#[test]
fn statistics() {
    let with = |json: &str| format!("\"stats_config\": {json},\n\"static_resources\"");
    let check = |json: &str, expected: &[&str]| check("\"static_resources\"", &with(json), expected);
    let patterns = r#"{"patterns": [{"prefix": "a"}]}"#;
    check(
        r#"{"stats_matcher": {}}"#,
        &[
            "3:35: stats_config.stats_matcher: nothing is chosen (expected one of reject_all, exclusion_list, inclusion_list)",
        ],
    );
    check(
        &format!(r#"{{"stats_matcher": {{"exclusion_list": {patterns}, "inclusion_list": {patterns}}}}}"#),
        &["3:87: stats_config.stats_matcher.inclusion_list: `inclusion_list` cannot be set together with \
           `exclusion_list` (expected at most one of reject_all, exclusion_list, inclusion_list)"],
    );
    check(
        r#"{"stats_matcher": {"exclusion_list": {"patterns": []}}}"#,
        &["3:67: stats_config.stats_matcher.exclusion_list.patterns: must not be empty"],
    );
    check(
        r#"{"stats_tags": [{"tag_name": "a", "regex": "(a"}]}"#,
        &["3:60: stats_config.stats_tags[0].regex: invalid regex: unclosed group"],
    );
    check(
        r#"{"stats_tags": [{"tag_name": "a", "regex": "(a)", "fixed_value": "b"}, {"fixed_value": "b"}]}"#,
        &[
            "3:67: stats_config.stats_tags[0].fixed_value: `fixed_value` cannot be set together with `regex` \
             (expected at most one of regex, fixed_value)",
            "3:88: stats_config.stats_tags[1].tag_name: missing field `tag_name`",
        ],
    );
}

#[test]
fn a_typed_struct_says_what_it_lacks() {
    let router = r#"{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}"#;
    let with =
        |fields: &str| format!(r#"{{"@type": "type.googleapis.com/xds.type.v3.TypedStruct"{fields}}}"#);
    let path = "M.http_filters[0].typed_config";
    check(
        router,
        &with(r#", "type_url": "a/b", "value": 1"#),
        &[&format!(
            "17:138: {path}.value: wrong type: a number (expected an object: the fields of the message)"
        )],
    );
    check(router, &with(r#", "value": {}"#), &[&format!("17:53: {path}.type_url: missing field `type_url`")]);
}

//! What is accepted, and what it means.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::UpstreamProtocol;
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::route::{Action, ClusterSpecifier, PathMatch, Priority};
use tidegate_config::stats_config::{StatsMatcher, TagValue};
use tidegate_config::values::{StringPattern, TcpKeepalive, TimeoutOverride};
use tidegate_config::{Bootstrap, Format, HcmConfig, from_str, schema};
use tidegate_types::json::lower_camel;

const MINIMAL: &str = include_str!("files/minimal.json");
const ACCESS_LOG: &str = include_str!("files/admin-access-log.json");
const BREAKERS: &str = include_str!("files/circuit-breakers.json");
const MANY_FIELDS: &str = include_str!("files/many-fields.yaml");

fn json(text: &str) -> Bootstrap {
    from_str(text, "test.json", Format::Json).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn manager(bootstrap: &Bootstrap) -> &HcmConfig {
    match &bootstrap.listeners[0].filter_chains[0].filters[0] {
        NetworkFilterConfig::Http(manager) => manager,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_envoys() {
    let bootstrap = json(MINIMAL);
    let manager = manager(&bootstrap);
    assert_eq!(manager.common.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(manager.timeouts.stream_idle, Some(Duration::from_secs(300)));
    assert_eq!(manager.timeouts.request_headers, TimeoutOverride::Inherit);
    assert_eq!((manager.max_request_headers_kb, manager.common.max_headers_count), (60, 100));
    assert!(manager.request_id.generate);
    assert_eq!(manager.server_name, "envoy");
    let route = &manager.route_config.virtual_hosts[0].routes[0];
    assert_eq!(route.matcher.path, PathMatch::Prefix("/".into()));
    let Action::Route(action) = &route.action else { panic!("{route:?}") };
    assert_eq!(action.cluster, ClusterSpecifier::Cluster("backend".into()));
    assert_eq!(
        (action.timeout, action.idle_timeout),
        (Some(Duration::from_secs(15)), TimeoutOverride::Inherit)
    );
    let cluster = &bootstrap.clusters[0];
    assert_eq!(cluster.connect_timeout, Duration::from_secs(1));
    assert!(matches!(&cluster.protocol, UpstreamProtocol::Http1(options) if options.allow_absolute_url));
    assert_eq!(cluster.endpoints[0].endpoints[0].address.to_string(), "127.0.0.1:18080");
    assert_eq!(bootstrap.listeners[0].per_connection_buffer_limit_bytes, 1 << 20);
}

/// As Envoy's JSON reader has it, of messages, strings and numbers.
#[test]
fn one_value_stands_for_a_list_of_it() {
    fn bare(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(items) if items.len() == 1 => {
                *value = items.remove(0);
                bare(value);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(bare),
            serde_json::Value::Object(fields) => fields.values_mut().for_each(bare),
            _ => {}
        }
    }
    let mut tree: serde_json::Value = serde_json::from_str(MINIMAL).unwrap();
    bare(&mut tree);
    assert!(!tree.to_string().contains('['), "{tree}");
    let (with, without) = (json(MINIMAL), json(&tree.to_string()));
    assert_eq!(without.clusters[0].name, with.clusters[0].name);
    let endpoint = |b: &Bootstrap| b.clusters[0].endpoints[0].endpoints[0].address.clone();
    assert_eq!(endpoint(&without), endpoint(&with));
    assert_eq!(manager(&without).route_config.virtual_hosts[0].domains.len(), 1);
}

/// As control planes write what they have no descriptor for.
#[test]
fn a_typed_struct_is_the_message_that_it_names() {
    let plain = json(MINIMAL);
    let mut tree: serde_json::Value = serde_json::from_str(MINIMAL).unwrap();
    let config =
        &mut tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let mut fields = config.take();
    let type_url = fields.as_object_mut().unwrap().remove("@type").unwrap();
    for (name, key) in [("xds.type.v3", "type_url"), ("udpa.type.v1", "typeUrl")] {
        let kind = format!("type.googleapis.com/{name}.TypedStruct");
        let config = serde_json::json!({"@type": kind, key: type_url, "value": fields});
        tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"] = config;
        assert_eq!(manager(&json(&tree.to_string())), manager(&plain));
    }
}

#[test]
fn the_older_log_of_the_admin_is_a_file() {
    let address = r#"{"socket_address": {"address": "127.0.0.1", "port_value": 0}}"#;
    let bootstrap =
        json(&format!(r#"{{"admin": {{"address": {address}, "access_log_path": "/tmp/admin.log"}}}}"#));
    let log = &bootstrap.admin.unwrap().access_log[0];
    assert_eq!(log.logger.message_name(), "envoy.extensions.access_loggers.file.v3.FileAccessLog");
    assert_eq!(log.logger.value.member("path").unwrap().as_str(), Some("/tmp/admin.log"));
}

#[test]
fn an_admin_without_an_address_is_one_that_nobody_reaches() {
    assert_eq!(json(r#"{"admin": {}}"#).admin.unwrap().address, None);
}

#[test]
fn the_admin_and_its_logs() {
    let bootstrap = json(ACCESS_LOG);
    let admin = bootstrap.admin.as_ref().unwrap();
    assert_eq!((admin.access_log.len(), admin.ignore_global_conn_limit), (1, true));
    assert_eq!((bootstrap.node.id.as_str(), bootstrap.node.cluster.as_str()), ("edge-1", "edge"));
    let logger = &manager(&bootstrap).access_log[0].logger;
    assert_eq!(logger.message_name(), "envoy.extensions.access_loggers.file.v3.FileAccessLog");
    assert_eq!(logger.value.member("path").and_then(|path| path.as_str()), Some("/dev/stdout"));
    assert!(logger.value.member("@type").is_none());
    assert!(logger.path.as_str().ends_with("typed_config.access_log[0].typed_config"));
}

#[test]
fn circuit_breakers_by_priority() {
    let bootstrap = json(BREAKERS);
    let breakers = &bootstrap.clusters[0].circuit_breakers;
    assert_eq!((breakers.default.max_connections, breakers.default.max_requests), (1, 1024));
    assert_eq!((breakers.high.max_pending_requests, breakers.high.max_retries), (10, 3));
    let high = &manager(&bootstrap).route_config.virtual_hosts[0].routes[0];
    assert!(matches!(&high.action, Action::Route(action) if action.priority == Priority::High));
}

/// The same configuration in the other spelling of every field.
#[test]
fn camel_case_and_numbers_as_strings() {
    let camel_key = |line: &str| match line.split_once("\":") {
        Some((key, value)) => format!("{}\":{value}\n", lower_camel(key)),
        None => format!("{line}\n"),
    };
    let text: String = BREAKERS.lines().map(camel_key).collect();
    let text = text.replace(": 1024", ": \"1024\"").replace("\"HIGH\"", "1").replace("\"AUTO\"", "0");
    assert!(text.contains("\"staticResources\"") && text.contains("\"maxRequests\": \"1024\""));
    assert_eq!(json(&text), json(BREAKERS));
}

#[test]
fn null_is_unset() {
    let text = MINIMAL
        .replace("\"connect_timeout\": \"1s\"", "\"connect_timeout\": null, \"outlier_detection\": null");
    assert_eq!(json(&text).clusters[0].connect_timeout, Duration::from_secs(5));
}

#[test]
fn reloads_compare_values_not_places() {
    assert_eq!(json(MINIMAL), json(&MINIMAL.replace('\n', "\n\n  ")));
    assert_ne!(json(MINIMAL), json(&MINIMAL.replace("18080", "18081")));
}

#[test]
fn yaml_reads_as_json_does() {
    let yaml = from_str(MINIMAL, "test.yaml", Format::Yaml).unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert_eq!(yaml, json(MINIMAL));
}

#[test]
fn yaml_with_many_fields() {
    let bootstrap =
        from_str(MANY_FIELDS, "many.yaml", Format::Yaml).unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert_eq!(bootstrap.global_downstream_max_connections, Some(500));
    assert_eq!(bootstrap.runtime.integer("circuit_breakers.backend.default.max_connections"), Some(7));
    assert!(!bootstrap.runtime.unread().iter().any(|key| key.starts_with("circuit_breakers.")));
    assert_eq!(bootstrap.runtime.unread(), ["upstream.maintenance_mode.backend"]);
    assert_eq!(bootstrap.runtime.flag("upstream.maintenance_mode.backend"), Some(false));
    assert!(bootstrap.runtime.unread().is_empty());
    let manager = manager(&bootstrap);
    assert_eq!(manager.route_config.virtual_hosts.len(), 2);
    assert_eq!(manager.common.idle_timeout, None);
    assert_eq!(manager.upgrades[0].upgrade_type, "websocket");
    assert_eq!(manager.timeouts.stream_flush, TimeoutOverride::Off);
    let routes = manager.route_config.virtual_hosts.iter().flat_map(|host| &host.routes);
    let flush = routes.filter_map(|route| match &route.action {
        Action::Route(action) if action.flush_timeout != TimeoutOverride::Inherit => {
            Some(action.flush_timeout)
        }
        _ => None,
    });
    assert_eq!(flush.collect::<Vec<_>>(), [TimeoutOverride::After(Duration::from_secs(7))]);
    let host = &manager.route_config.virtual_hosts[0];
    assert_eq!(host.retry_policy.as_ref().unwrap().retry_on, ["connect-failure", "5xx"]);
    assert!(host.per_filter["buffer"].disabled);
    let Action::DirectResponse(reply) = &host.routes[1].action else { panic!("direct_response") };
    assert_eq!((reply.status, reply.body.as_deref()), (200, Some(&b"pong"[..])));
    let Action::Redirect(redirect) = &host.routes[2].action else { panic!("redirect") };
    assert_eq!(redirect.status, 308);
    let keepalive = TcpKeepalive::On { probes: Some(3), time_s: None, interval_s: None };
    assert_eq!(bootstrap.clusters[0].tcp_keepalive, Some(keepalive));
}

#[test]
fn yaml_errors_have_places_of_the_yaml_file() {
    let errors = |text: &str| {
        let errors = from_str(text, "f.yaml", Format::Yaml).err().unwrap_or_default();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        errors("static_resources:\n  clusters:\n  - name: a\n    conect_timeout: 1s\n"),
        [
            "f.yaml:4:5: static_resources.clusters[0].conect_timeout: unknown field `conect_timeout` (did you mean \
          `connect_timeout`?)"
        ]
    );
    assert_eq!(errors("node: {id: a, id: b}\n"), ["f.yaml:1:15: key `id` is given twice"]);
    assert_eq!(errors("node: {}\n---\nnode: {}\n"), ["f.yaml:3:1: more than one document in the file"]);
    assert_eq!(errors("node: !odd {}\n"), ["f.yaml:1:7: the tag `!odd` is not supported"]);
    assert_eq!(errors("node: {id: [}\n").len(), 1);
}

#[test]
fn yaml_aliases_are_bounded() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let errors = from_str(&text, "f.yaml", Format::Yaml).unwrap_err();
    assert!(errors[0].to_string().contains("the aliases expand to too much"), "{}", errors[0]);
}

#[test]
fn the_schema_has_the_fields_that_are_read() {
    let schema = schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let cluster = &definitions["envoy.config.cluster.v3.Cluster"]["properties"];
    assert_eq!(cluster["connect_timeout"], cluster["connectTimeout"]);
    assert_eq!(cluster["lb_policy"]["anyOf"][0]["enum"][2], "RING_HASH");
    assert!(cluster.get("lrs_server").is_none());
    // Every reference leads somewhere.
    let text = schema.to_string();
    for reference in text.split("\"#/$defs/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(definitions.contains_key(reference), "{reference}");
    }
}

/// Whatever a file holds, it is read or refused.
#[test]
fn no_text_panics() {
    for at in (0..MANY_FIELDS.len()).step_by(29).filter(|at| MANY_FIELDS.is_char_boundary(*at)) {
        let (before, after) = MANY_FIELDS.split_at(at);
        let _ = from_str(before, "f.yaml", Format::Yaml);
        let mut rest = after.chars();
        rest.next();
        let odd = ["\"", "{", "]", ": ", "- ", "\t", "&a ", "*a", "\0"][at % 9];
        let _ = from_str(&format!("{before}{odd}{}", rest.as_str()), "f.yaml", Format::Yaml);
    }
}

#[test]
fn statistics() {
    let with = |stats: &str| json(&format!("{{\"stats_config\": {stats}}}")).stats_config;
    let default = json(MINIMAL).stats_config;
    assert_eq!((default.matcher, default.tags.len()), (StatsMatcher::AcceptAll, 0));
    assert!(default.use_all_default_tags);
    assert_eq!(with(r#"{"stats_matcher": {"reject_all": false}}"#).matcher, StatsMatcher::AcceptAll);
    assert_eq!(with(r#"{"statsMatcher": {"rejectAll": true}}"#).matcher, StatsMatcher::RejectAll);
    let listed = with(r#"{"stats_matcher": {"inclusion_list": {"patterns": [{"suffix": "_total"}]}}}"#);
    let StatsMatcher::Inclusion(patterns) = listed.matcher else { panic!("{listed:?}") };
    assert_eq!(patterns[0].pattern, StringPattern::Suffix("_total".into()));
    let tags = with(
        r#"{"use_all_default_tags": false, "stats_tags": [{"tag_name": "envoy.cluster_name"},
            {"tag_name": "dc", "fixed_value": "ams"}, {"tag_name": "team", "regex": "^cluster\\.((\\w+?)-)"}]}"#,
    );
    let values: Vec<_> = tags.tags.into_iter().map(|tag| tag.value).collect();
    let team = TagValue::Regex(r"^cluster\.((\w+?)-)".into());
    assert_eq!(values, [TagValue::Default, TagValue::Fixed("ams".into()), team]);
}

#[test]
fn metadata_is_kept_wherever_it_stands() {
    let metadata = r#""metadata": {"filter_metadata": {"owner": {"team": "edge"}}}"#;
    let places = [r#""name": "backend","#, r#""name": "ingress","#, r#""filters": ["#, r#""name": "r","#];
    let text = places.iter().fold(MINIMAL.to_owned(), |text, place| {
        assert!(text.contains(place), "{place}");
        text.replacen(place, &format!("{metadata}, {place}"), 1)
    });
    let bootstrap = json(&text);
    let listener = &bootstrap.listeners[0];
    let all = [
        bootstrap.clusters[0].metadata.as_deref(),
        listener.metadata.as_ref(),
        listener.filter_chains[0].metadata.as_ref(),
        manager(&bootstrap).route_config.metadata.as_ref(),
    ];
    for found in all {
        let team = found.unwrap().member("owner").unwrap().member("team").unwrap();
        assert_eq!(team.as_str(), Some("edge"));
    }
}

#[test]
fn what_a_listener_tells_its_sockets() {
    let with = |fields: &str| {
        MINIMAL.replacen("\"name\": \"ingress\",", &format!("\"name\": \"ingress\", {fields},"), 1)
    };
    let options = r#""freebind": true, "transparent": true, "tcp_fast_open_queue_length": 7, "socket_options": [
        {"level": 1, "name": 12, "int_value": 3, "state": "STATE_LISTENING"},
        {"level": 6, "name": 4, "buf_value": "AQ==", "type": {"stream": {}}},
        {"level": 17, "name": 103, "int_value": 1, "type": {"datagram": {}}}]"#;
    let bootstrap = json(&with(options));
    let listener = &bootstrap.listeners[0];
    assert!(listener.freebind && listener.transparent);
    assert_eq!(listener.tcp_fast_open_queue_length, Some(7));
    // What is for datagram sockets has no place on a TCP one.
    let told: Vec<_> = listener.socket_options.iter().map(|o| (o.level, o.name, o.value.clone())).collect();
    assert_eq!(told, [(1, 12, 3_i32.to_ne_bytes().to_vec()), (6, 4, vec![1])]);

    let pipe = with("\"freebind\": true").replacen(
        r#""socket_address": {
            "address": "127.0.0.1",
            "port_value": 10000
          }"#,
        r#""pipe": {"path": "/run/p"}"#,
        1,
    );
    let errors = from_str(&pipe, "f", Format::Json).unwrap_err();
    assert!(
        errors[0].to_string().ends_with("freebind: a Unix-domain socket has no such option"),
        "{errors:?}"
    );
}

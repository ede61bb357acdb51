//! `envoy.config.metrics.v3.StatsConfig`: which statistics exist, and which parts of their names are labels.
//!
//! Only the shape: what a matcher does to a statistic is in the `stats` crate, and the warning about hidden
//! idle-timeout counters in the server. Start from [`StatsConfig`].
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/metrics/v3/stats.proto>.

use crate::reader::{Message, Reader};
use crate::values::StringMatcher;

/// `stats_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsConfig {
    /// `stats_matcher`.
    pub matcher: StatsMatcher,
    /// `stats_tags`, in file order.
    pub tags: Vec<TagSpecifier>,
    /// `use_all_default_tags`, true when unset: cluster names, stat prefixes, response codes and the like
    /// become labels. False leaves only those that `stats_tags` names.
    pub use_all_default_tags: bool,
}

/// `stats_matcher`: a statistic is looked at once, by its full dotted name, when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsMatcher {
    /// Not set, or `reject_all: false`: every statistic exists.
    AcceptAll,
    /// `reject_all: true`: none does.
    RejectAll,
    /// `exclusion_list.patterns`: those do not that one of these matches.
    Exclusion(Vec<StringMatcher>),
    /// `inclusion_list.patterns`: only those do that one of these matches.
    Inclusion(Vec<StringMatcher>),
}

/// `envoy.config.metrics.v3.TagSpecifier`: a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSpecifier {
    /// `tag_name`, with its dots: they become underscores in the label.
    pub name: String,
    /// Where its value comes from.
    pub value: TagValue,
}

/// The oneof of [`TagSpecifier`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagValue {
    /// Neither: the label of that name that Envoy knows.
    Default,
    /// `regex`, looked for in the full name: its first group is cut out of the name, its second, or else the
    /// first, is the value. It compiles.
    Regex(String),
    /// `fixed_value`: the same on every statistic.
    Fixed(String),
}

impl Message for StatsConfig {
    const NAME: &'static str = "envoy.config.metrics.v3.StatsConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            matcher: r.message("stats_matcher").or(StatsMatcher::AcceptAll),
            tags: r.repeated("stats_tags").or_default(),
            use_all_default_tags: r.bool("use_all_default_tags").or(true),
        }
    }
}

impl Message for StatsMatcher {
    const NAME: &'static str = "envoy.config.metrics.v3.StatsMatcher";

    fn read(r: &Reader<'_>) -> Self {
        let reject_all = r.bool("reject_all").optional();
        let exclusion = r.message::<Patterns>("exclusion_list").optional();
        let inclusion = r.message::<Patterns>("inclusion_list").optional();
        r.exactly_one(&["reject_all", "exclusion_list", "inclusion_list"]);
        match (reject_all, exclusion, inclusion) {
            (Some(true), ..) => Self::RejectAll,
            (_, Some(patterns), _) => Self::Exclusion(patterns.0),
            (_, _, Some(patterns)) => Self::Inclusion(patterns.0),
            _ => Self::AcceptAll,
        }
    }
}

/// `ListStringMatcher`.
struct Patterns(Vec<StringMatcher>);

impl Message for Patterns {
    const NAME: &'static str = "envoy.type.matcher.v3.ListStringMatcher";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.repeated("patterns").required_non_empty())
    }
}

impl Message for TagSpecifier {
    const NAME: &'static str = "envoy.config.metrics.v3.TagSpecifier";

    fn read(r: &Reader<'_>) -> Self {
        let name = r.string("tag_name");
        let known = name.peek().is_some_and(|name| DEFAULT_TAGS.contains(&name.as_str()));
        if !known && !r.has("regex") && !r.has("fixed_value") && name.peek().is_some() {
            let message = "a tag that Envoy does not know by name needs `regex` or `fixed_value`";
            name.report(message, Some(format!("one of {}", DEFAULT_TAGS.join(", "))));
        }
        let regex = r.string("regex").check(|regex| {
            let compiled = regex::Regex::new(regex);
            compiled.map(drop).map_err(|error| {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("invalid regex: {last}")
            })
        });
        let regex = regex.optional().filter(|regex| !regex.is_empty()).map(TagValue::Regex);
        let fixed = r.string("fixed_value").optional().map(TagValue::Fixed);
        r.at_most_one(&["regex", "fixed_value"]);
        Self { name: name.required_non_empty(), value: regex.or(fixed).unwrap_or(TagValue::Default) }
    }
}

/// The tags that Envoy extracts unless told otherwise (`source/common/config/well_known_names.cc`). Those of
/// features that this build does not have are accepted and find nothing.
const DEFAULT_TAGS: &[&str] = &[
    "envoy.cluster_name",
    "envoy.listener_address",
    "envoy.http_conn_manager_prefix",
    "envoy.http_user_agent",
    "envoy.ssl_cipher",
    "envoy.ssl_curve",
    "envoy.ssl_sigalg",
    "envoy.ssl_version",
    "cipher_suite",
    "envoy.clientssl_prefix",
    "envoy.mongo_prefix",
    "envoy.mongo_cmd",
    "envoy.mongo_collection",
    "envoy.mongo_callsite",
    "envoy.ratelimit_prefix",
    "envoy.local_http_ratelimit_prefix",
    "envoy.local_network_ratelimit_prefix",
    "envoy.local_listener_ratelimit_prefix",
    "envoy.dns_filter_prefix",
    "envoy.connection_limit_prefix",
    "envoy.rbac_prefix",
    "envoy.rbac_http_prefix",
    "envoy.rbac_policy_name",
    "envoy.tcp_prefix",
    "envoy.udp_prefix",
    "envoy.fault_downstream_cluster",
    "envoy.dynamo_operation",
    "envoy.dynamo_table",
    "envoy.dynamo_partition_id",
    "envoy.grpc_bridge_service",
    "envoy.grpc_bridge_method",
    "envoy.response_code",
    "envoy.response_code_class",
    "envoy.rds_route_config",
    "envoy.scoped_rds_config",
    "envoy.route",
    "envoy.virtual_host",
    "envoy.virtual_cluster",
    "envoy.worker_id",
    "envoy.thrift_prefix",
    "envoy.redis_prefix",
    "envoy.proxy_protocol_version",
    "envoy.proxy_protocol_prefix",
];

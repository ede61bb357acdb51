//! `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::json::Node;

use crate::access_log::{AccessLogConfig, access_logs};
use crate::reader::{Message, Reader};
use crate::values::{Empty, Metadata, Percent};

/// A validated TCP proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxyConfig {
    /// `stat_prefix`, never empty.
    pub stat_prefix: String,
    /// `cluster` or `weighted_clusters`; that they exist is looked up for each session, as in Envoy.
    pub clusters: TcpClusters,
    /// `metadata_match`, `envoy.lb`: the labels of the hosts that sessions go to, where the cluster has subsets.
    pub metadata_match: Vec<(String, Node)>,
    /// `hash_policy`, at most one: what hashing load balancers choose the host by.
    pub hash_policy: Option<TcpHashPolicy>,
    /// `idle_timeout`: no byte either way; 1 h when unset, `None` is off (0).
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`, at least 1 ms.
    pub max_duration: Option<Duration>,
    /// `max_downstream_connection_duration_jitter_percentage`: up to so many percent are added, drawn for
    /// each session; 0 when unset.
    pub max_duration_jitter_percent: f64,
    /// `max_connect_attempts`, 1 when unset.
    pub max_connect_attempts: u32,
    /// `backoff_options`; `None`: the next attempt comes at once.
    pub backoff: Option<BackOff>,
    /// `access_log`.
    pub access_log: Vec<AccessLogConfig>,
    /// `access_log_options`, or the older fields of the proxy itself.
    pub access_log_options: TcpAccessLogOptions,
    /// `upstream_connect_mode`.
    pub connect_mode: ConnectMode,
    /// `max_early_data_bytes`: most bytes read from the client before the upstream is connected; `None`: they
    /// stay in the kernel, and so does the client's end.
    pub max_early_data: Option<u32>,
}

/// Where sessions go.
#[derive(Debug, Clone, PartialEq)]
pub enum TcpClusters {
    /// `cluster`.
    One(Arc<str>),
    /// `weighted_clusters`, never empty.
    Weighted(Vec<TcpClusterWeight>),
}

/// One of `weighted_clusters`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpClusterWeight {
    /// `name`.
    pub name: Arc<str>,
    /// `weight`, at least 1.
    pub weight: u32,
    /// `metadata_match`: labels in addition to the proxy's, or instead of those of the same name.
    pub metadata_match: Vec<(String, Node)>,
}

/// `hash_policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpHashPolicy {
    /// `source_ip`.
    SourceIp,
    /// `filter_state.key`: the object that filters left under that name.
    FilterState(Arc<str>),
}

/// `backoff_options`: waits grow from `base` by a factor of 2 up to `max`, with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// `base_interval`, at least 1 ms.
    pub base: Duration,
    /// `max_interval`, 10 times the base when unset.
    pub max: Duration,
}

/// When a session is logged beside its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpAccessLogOptions {
    /// `access_log_flush_interval`, at least 1 ms: a line each interval.
    pub flush_interval: Option<Duration>,
    /// `flush_access_log_on_connected`: a line when the upstream is connected.
    pub on_connected: bool,
    /// `flush_access_log_on_start`: a line when the session begins.
    pub on_start: bool,
}

/// `upstream_connect_mode`: what starts the connection to the upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnectMode {
    /// `IMMEDIATE`: the downstream connection itself.
    #[default]
    Immediate,
    /// `ON_DOWNSTREAM_DATA`: the client's first bytes.
    OnData,
}

impl Message for TcpProxyConfig {
    const NAME: &'static str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

    fn read(r: &Reader<'_>) -> Self {
        let jitter = r.message::<Percent>("max_downstream_connection_duration_jitter_percentage").optional();
        Self {
            stat_prefix: r.string("stat_prefix").required_non_empty(),
            clusters: TcpClusters::read(r),
            metadata_match: Metadata::labels(r, "metadata_match"),
            hash_policy: hash_policy(r),
            idle_timeout: r.duration("idle_timeout").zero_is_off(Some(Duration::from_secs(3600))),
            max_duration: r.duration("max_downstream_connection_duration").at_least(MILLISECOND).optional(),
            max_duration_jitter_percent: jitter.map_or(0.0, |percent| percent.0),
            max_connect_attempts: r.u32("max_connect_attempts").positive().or(1),
            backoff: r.message("backoff_options").optional(),
            access_log: access_logs(r),
            access_log_options: TcpAccessLogOptions::of(r),
            connect_mode: connect_mode(r),
            max_early_data: r.u32("max_early_data_bytes").optional(),
        }
    }
}

impl TcpClusters {
    fn read(r: &Reader<'_>) -> Self {
        let one = r.string("cluster").optional();
        let weighted = r.message::<Weighted>("weighted_clusters").optional();
        r.exactly_one(&["cluster", "weighted_clusters"]);
        match weighted {
            Some(Weighted(clusters)) => Self::Weighted(clusters),
            None => Self::One(one.unwrap_or_default().into()),
        }
    }
}

struct Weighted(Vec<TcpClusterWeight>);

impl Message for Weighted {
    const NAME: &'static str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.repeated("clusters").required_non_empty())
    }
}

impl Message for TcpClusterWeight {
    const NAME: &'static str =
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            name: r.string("name").required_non_empty().into(),
            weight: r.u32("weight").positive().required(),
            metadata_match: Metadata::labels(r, "metadata_match"),
        }
    }
}

impl Message for BackOff {
    const NAME: &'static str = "envoy.config.core.v3.BackoffStrategy";

    fn read(r: &Reader<'_>) -> Self {
        let base = r.duration("base_interval").at_least(MILLISECOND).required();
        let max = r.duration("max_interval").greater_than_zero().check(|max| {
            if *max < base { Err("must not be shorter than `base_interval`".to_owned()) } else { Ok(()) }
        });
        Self { base, max: max.or(base.saturating_mul(10)) }
    }
}

impl TcpAccessLogOptions {
    /// `access_log_options`, or the fields that it replaced; Envoy refuses both together.
    fn of(r: &Reader<'_>) -> Self {
        let old = Self {
            flush_interval: r.duration("access_log_flush_interval").at_least(MILLISECOND).optional(),
            on_connected: r.bool("flush_access_log_on_connected").or_default(),
            on_start: false,
        };
        for field in ["access_log_flush_interval", "flush_access_log_on_connected"] {
            r.at_most_one(&["access_log_options", field]);
        }
        r.message("access_log_options").optional().unwrap_or(old)
    }
}

impl Message for TcpAccessLogOptions {
    const NAME: &'static str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TcpAccessLogOptions";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            flush_interval: r.duration("access_log_flush_interval").at_least(MILLISECOND).optional(),
            on_connected: r.bool("flush_access_log_on_connected").or_default(),
            on_start: r.bool("flush_access_log_on_start").or_default(),
        }
    }
}

fn connect_mode(r: &Reader<'_>) -> ConnectMode {
    const MODES: &[(&str, u32, ConnectMode)] =
        &[("IMMEDIATE", 0, ConnectMode::Immediate), ("ON_DOWNSTREAM_DATA", 1, ConnectMode::OnData)];
    let mode =
        r.enumeration("upstream_connect_mode", MODES, &[("ON_DOWNSTREAM_TLS_HANDSHAKE", 2)]).or_default();
    if mode == ConnectMode::OnData && !r.has("max_early_data_bytes") {
        r.problem("`max_early_data_bytes` must be set when `upstream_connect_mode` is not IMMEDIATE");
    }
    mode
}

fn hash_policy(r: &Reader<'_>) -> Option<TcpHashPolicy> {
    let policies = r.repeated::<HashPolicy>("hash_policy").check(|policies| match policies.len() {
        0 | 1 => Ok(()),
        _ => Err("at most one hash policy is allowed".to_owned()),
    });
    policies.or_default().into_iter().next().map(|policy| policy.0)
}

struct HashPolicy(TcpHashPolicy);

impl Message for HashPolicy {
    const NAME: &'static str = "envoy.type.v3.HashPolicy";

    fn read(r: &Reader<'_>) -> Self {
        let source = r.message::<Empty>("source_ip").optional();
        let state = r.message::<HashFilterState>("filter_state").optional();
        r.exactly_one(&["source_ip", "filter_state"]);
        Self(match state {
            Some(HashFilterState(key)) if source.is_none() => TcpHashPolicy::FilterState(key),
            _ => TcpHashPolicy::SourceIp,
        })
    }
}

struct HashFilterState(Arc<str>);

impl Message for HashFilterState {
    const NAME: &'static str = "envoy.type.v3.HashPolicy.FilterState";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.string("key").required_non_empty().into())
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

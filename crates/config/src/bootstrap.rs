//! `envoy.config.bootstrap.v3.Bootstrap`: the whole file.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::Address;
use tidegate_types::json::{self, Kind, Member, TypedConfig};

use crate::access_log::{AccessLogConfig, access_logs};
use crate::address::Endpoint;
use crate::cluster::{AlternateProtocols, BindConfig, ResolverConfig, resolver_of_bootstrap};
use crate::discovery::DynamicResources;
use crate::overload::OverloadConfig;
use crate::reader::{Message, Reader};
use crate::runtime::{LayerSource, LayeredRuntime, Runtime};
use crate::stats_config::StatsConfig;
use crate::tls::Secrets;
use crate::{ClusterConfig, ListenerConfig};

/// The validated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// `node`: who this proxy says it is.
    pub node: Node,
    /// `cluster_manager.local_cluster_name`: the cluster whose hosts are the proxies like this one, for zone-aware
    /// routing. It exists.
    pub local_cluster: Option<String>,
    /// `admin`; `None` starts no admin server.
    pub admin: Option<AdminConfig>,
    /// `static_resources.listeners`, in file order, names unique.
    pub listeners: Vec<Arc<ListenerConfig>>,
    /// `static_resources.clusters`, in file order, names unique.
    pub clusters: Vec<Arc<ClusterConfig>>,
    /// `static_resources.secrets`, which TLS contexts name.
    pub secrets: Arc<Secrets>,
    /// `dynamic_resources`: the files with more of both.
    pub dynamic: DynamicResources,
    /// `cluster_manager.upstream_bind_config`: of clusters that have none.
    pub upstream_bind: Option<BindConfig>,
    /// `typed_dns_resolver_config` and its deprecated forms: of clusters that choose none; `None`: the default.
    pub dns_resolver: Option<ResolverConfig>,
    /// `layered_runtime`.
    pub layered_runtime: LayeredRuntime,
    /// What its layers hold. After reading: the static ones alone; see [`Bootstrap::set_runtime`].
    pub runtime: Runtime,
    /// Most downstream connections of all listeners that do not set `ignore_global_conn_limit`: the
    /// `envoy.resource_monitors.global_downstream_max_connections` resource monitor or, when absent, the
    /// runtime key `overload.global_downstream_max_connections`. `None`: no limit.
    pub global_downstream_max_connections: Option<u64>,
    /// `cluster_manager.outlier_detection.event_log_path`: where ejections and returns are told of.
    pub outlier_event_log: Option<String>,
    /// `overload_manager`; without it nothing is measured.
    pub overload: OverloadConfig,
    /// `stats_config`: which statistics there are, and their Prometheus labels.
    pub stats_config: StatsConfig,
    /// `stats_flush_interval`, 5 s when unset.
    pub stats_flush_interval: Duration,
}

/// `node`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// `id`.
    pub id: String,
    /// `cluster`.
    pub cluster: String,
    /// `locality`.
    pub locality: Locality,
}

/// `envoy.config.core.v3.Locality`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// `region`.
    pub region: String,
    /// `zone`.
    pub zone: String,
    /// `sub_zone`.
    pub sub_zone: String,
}

/// `admin`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminConfig {
    /// `address`; without one no admin server is started.
    pub address: Option<Address>,
    /// `access_log`, and a file log for the older `access_log_path`.
    pub access_log: Vec<AccessLogConfig>,
    /// `profile_path`: without effect, of which the server warns, since there is no CPU profiler.
    pub profile_path: Option<String>,
    /// `ignore_global_conn_limit`: admin connections do not count against the global limit.
    pub ignore_global_conn_limit: bool,
}

impl Bootstrap {
    /// Gives the runtime, and what is derived from it, other values.
    pub fn set_runtime(&mut self, runtime: Runtime) {
        let from_runtime = runtime.integer("overload.global_downstream_max_connections");
        self.global_downstream_max_connections = self.overload.max_downstream_connections.or(from_runtime);
        self.runtime = runtime;
    }
}

impl Message for Bootstrap {
    const NAME: &'static str = "envoy.config.bootstrap.v3.Bootstrap";

    fn read(r: &Reader<'_>) -> Self {
        let StaticResources { listeners, clusters, secrets } = r.message_or_defaults("static_resources");
        AlternateProtocols::check_shared(r.cx, &clusters);
        let layered_runtime = r.message::<LayeredRuntime>("layered_runtime").optional();
        let layered_runtime = layered_runtime.map(LayeredRuntime::or_admin_layer).unwrap_or_default();
        let overload = r.message::<OverloadConfig>("overload_manager").optional().unwrap_or_default();
        let ClusterManager { local_cluster, outlier_events, upstream_bind } =
            r.message_or_defaults("cluster_manager");
        let mut bootstrap = Self {
            node: r.message_or_defaults("node"),
            local_cluster,
            upstream_bind,
            dynamic: r.message_or_defaults("dynamic_resources"),
            admin: r.message("admin").optional(),
            dns_resolver: resolver_of_bootstrap(r),
            listeners,
            clusters,
            secrets,
            outlier_event_log: outlier_events,
            global_downstream_max_connections: None,
            overload,
            layered_runtime: LayeredRuntime::default(),
            runtime: Runtime::default(),
            stats_config: r.message_or_defaults("stats_config"),
            stats_flush_interval: r
                .duration("stats_flush_interval")
                .at_least(Duration::from_millis(1))
                .at_most(Duration::from_secs(300))
                .or(Duration::from_secs(5)),
        };
        let layers = layered_runtime.layers.iter().filter_map(|layer| match &layer.source {
            LayerSource::Static(entries) => Some((layer.name.clone(), entries.clone())),
            LayerSource::Disk(_) | LayerSource::Admin => None,
        });
        bootstrap.set_runtime(Runtime::new(layers.collect()));
        bootstrap.layered_runtime = layered_runtime;
        bootstrap
    }
}

/// `cluster_manager`.
struct ClusterManager {
    local_cluster: Option<String>,
    outlier_events: Option<String>,
    upstream_bind: Option<BindConfig>,
}

impl Message for ClusterManager {
    const NAME: &'static str = "envoy.config.bootstrap.v3.ClusterManager";

    fn read(r: &Reader<'_>) -> Self {
        let name = r.string("local_cluster_name");
        if let Some(cluster) = name.peek().filter(|name| !name.is_empty()) {
            r.cx.refer(cluster, name.path(), name.span);
        }
        let outlier_events = r.message_or_defaults::<OutlierEvents>("outlier_detection").0;
        let upstream_bind = r.message("upstream_bind_config").optional();
        Self { local_cluster: name.non_empty(), outlier_events, upstream_bind }
    }
}

/// `cluster_manager.outlier_detection`.
struct OutlierEvents(Option<String>);

impl Message for OutlierEvents {
    const NAME: &'static str = "envoy.config.bootstrap.v3.ClusterManager.OutlierDetection";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.string("event_log_path").non_empty())
    }
}

struct StaticResources {
    listeners: Vec<Arc<ListenerConfig>>,
    clusters: Vec<Arc<ClusterConfig>>,
    secrets: Arc<Secrets>,
}

impl Message for StaticResources {
    const NAME: &'static str = "envoy.config.bootstrap.v3.Bootstrap.StaticResources";

    fn read(r: &Reader<'_>) -> Self {
        // Before those that name them.
        let secrets = Arc::new(Secrets::read(r));
        r.cx.secrets.replace(secrets.clone());
        Self {
            listeners: r.repeated("listeners").or_default(),
            clusters: r.repeated("clusters").or_default(),
            secrets,
        }
    }
}

impl Message for Node {
    const NAME: &'static str = "envoy.config.core.v3.Node";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            id: r.string("id").or_default(),
            cluster: r.string("cluster").or_default(),
            locality: r.message_or_defaults("locality"),
        }
    }
}

impl Message for Locality {
    const NAME: &'static str = "envoy.config.core.v3.Locality";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            region: r.string("region").or_default(),
            zone: r.string("zone").or_default(),
            sub_zone: r.string("sub_zone").or_default(),
        }
    }
}

impl Message for AdminConfig {
    const NAME: &'static str = "envoy.config.bootstrap.v3.Admin";

    fn read(r: &Reader<'_>) -> Self {
        let mut access_log = access_logs(r);
        if let Some(path) = r.string("access_log_path").non_empty() {
            access_log.push(file_log(path, r));
        }
        Self {
            address: r.message::<Endpoint>("address").optional().map(|endpoint| endpoint.address),
            access_log,
            profile_path: r.string("profile_path").non_empty(),
            ignore_global_conn_limit: r.bool("ignore_global_conn_limit").or_default(),
        }
    }
}

/// What `access_log_path` is short for: a file log with the default format.
fn file_log(path: String, r: &Reader<'_>) -> AccessLogConfig {
    let span = r.place("access_log_path");
    let value = json::Node { kind: Kind::String(path.into()), span };
    let member = Member { key: "path".into(), key_span: span, value };
    let logger = TypedConfig {
        name: "envoy.access_loggers.file".to_owned(),
        type_url: "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog".to_owned(),
        value: Arc::new(json::Node { kind: Kind::Object(vec![member]), span }),
        path: r.path.field("access_log_path"),
        span,
    };
    AccessLogConfig { logger, filter: None }
}

//! A TCP proxy's configuration, made ready to serve.

use std::sync::Arc;
use std::time::Duration;

use tidegate_cluster::lb::LabelMatch;
use tidegate_config::TcpProxyConfig;
use tidegate_config::tcp_proxy::TcpClusters;
use tidegate_filter::AccessLog;
use tidegate_stats::{Scope, Store};
use tidegate_types::json::Node;

use crate::TcpStats;

/// A TCP proxy, built once per configuration and shared by all workers.
pub struct TcpProxy {
    pub(crate) config: Arc<TcpProxyConfig>,
    pub(crate) logs: Vec<Arc<dyn AccessLog>>,
    pub(crate) stats: TcpStats,
    /// Of all weights.
    total_weight: u64,
    /// What labels hosts are to have: of the one cluster, or by the place of the weighted one.
    matches: Vec<Option<LabelMatch>>,
}

impl TcpProxy {
    /// The proxy that `config` asks for, with its access logs.
    pub fn new(config: Arc<TcpProxyConfig>, logs: Vec<Arc<dyn AccessLog>>, store: &Store) -> Arc<Self> {
        let stats = TcpStats::new(store, Scope::tcp(&config.stat_prefix));
        let total_weight = match &config.clusters {
            TcpClusters::One(_) => 0,
            TcpClusters::Weighted(clusters) => clusters.iter().map(|cluster| u64::from(cluster.weight)).sum(),
        };
        let matches = match &config.clusters {
            TcpClusters::One(_) => vec![label_match(&config, &[])],
            TcpClusters::Weighted(clusters) => {
                clusters.iter().map(|cluster| label_match(&config, &cluster.metadata_match)).collect()
            }
        };
        Arc::new(Self { config, logs, stats, total_weight, matches })
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<TcpProxyConfig> {
        &self.config
    }

    /// The access logs.
    pub fn access_logs(&self) -> impl Iterator<Item = &Arc<dyn AccessLog>> {
        self.logs.iter()
    }

    /// The cluster of a session that drew `random`, and its place among the weighted ones.
    pub(crate) fn choose_cluster(&self, random: impl FnOnce() -> u64) -> (&Arc<str>, usize) {
        match &self.config.clusters {
            TcpClusters::One(name) => (name, 0),
            TcpClusters::Weighted(clusters) => {
                let mut at = random() % self.total_weight.max(1);
                for (place, cluster) in clusters.iter().enumerate() {
                    match at.checked_sub(u64::from(cluster.weight)) {
                        Some(rest) => at = rest,
                        None => return (&cluster.name, place),
                    }
                }
                // Not reached: `at` is below the sum. The first one is as good as any.
                (&clusters[0].name, 0)
            }
        }
    }

    /// What labels the host of a session is to have whose cluster has this place.
    pub(crate) fn labels(&self, place: usize) -> Option<&LabelMatch> {
        self.matches.get(place)?.as_ref()
    }

    /// `max_downstream_connection_duration` of a session that drew `random`, in 0 to 1: up to the jitter longer.
    pub(crate) fn max_duration(&self, random: impl FnOnce() -> f64) -> Option<Duration> {
        let jitter = self.config.max_duration_jitter_percent / 100.0;
        let factor = if jitter > 0.0 { 1.0 + random() * jitter } else { 1.0 };
        self.config.max_duration.map(|duration| duration.mul_f64(factor))
    }

    /// How long to wait after failed attempt number `attempt`, from 1; `random` in 0 to 1.
    pub(crate) fn back_off(&self, attempt: u32, random: impl FnOnce() -> f64) -> Option<Duration> {
        let backoff = self.config.backoff.as_ref()?;
        let most = backoff.base.saturating_mul(1 << (attempt - 1).min(20)).min(backoff.max);
        Some(most.mul_f64(random()))
    }
}

/// The labels of a weighted cluster beat those of the proxy.
fn label_match(config: &TcpProxyConfig, own: &[(String, Node)]) -> Option<LabelMatch> {
    let labels = config.metadata_match.iter().chain(own).map(|(key, value)| (key.as_str(), value));
    (!config.metadata_match.is_empty() || !own.is_empty()).then(|| LabelMatch::new(labels))
}

impl std::fmt::Debug for TcpProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpProxy").field("config", &self.config).finish_non_exhaustive()
    }
}

//! The cluster oneof of a route: a name, a header or weights.

use crate::route::{HeaderMutations, PerFilterConfigs};

/// Which cluster a route uses.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterSpecifier {
    /// `cluster`, which exists unless the table says `validate_clusters: false`.
    Cluster(String),
    /// `cluster_header`, lower case: the request header that names it.
    Header(String),
    /// `weighted_clusters`.
    Weighted(WeightedClusters),
}

/// `envoy.config.route.v3.WeightedCluster`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedClusters {
    /// `clusters`, at least one; the sum of weights is at least 1 and fits 32 bits.
    pub clusters: Vec<ClusterWeight>,
    /// `runtime_key_prefix`: `PREFIX.CLUSTER` overrides a weight; empty: none.
    pub runtime_key_prefix: String,
    /// `header_name`, lower case: a request header whose number picks instead of chance.
    pub header_name: Option<String>,
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterWeight {
    /// `name` or `cluster_header`.
    pub cluster: WeightedTarget,
    /// `weight`.
    pub weight: u32,
    /// Header mutations of this choice.
    pub headers: HeaderMutations,
    /// `host_rewrite_literal`.
    pub host_rewrite_literal: Option<String>,
    /// `typed_per_filter_config`.
    pub per_filter: PerFilterConfigs,
}

/// The target of a [`ClusterWeight`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightedTarget {
    /// `name`.
    Name(String),
    /// `cluster_header`, lower case.
    Header(String),
}

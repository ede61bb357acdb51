//! The cluster oneof of a route: a name, a header or weights.

use tidegate_types::json::Node;

use crate::reader::{Message, Reader};
use crate::route::headers::header_name;
use crate::route::{HeaderMutations, PerFilterConfigs, RouterPerRoute, per_filter};
use crate::values::Metadata;

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
    /// `metadata_match`, `envoy.lb`: labels in addition to the route's, or instead of those of the same name.
    pub metadata_match: Vec<(String, Node)>,
    /// Header mutations of this choice.
    pub headers: HeaderMutations,
    /// `host_rewrite_literal`.
    pub host_rewrite_literal: Option<String>,
    /// `typed_per_filter_config`.
    pub per_filter: PerFilterConfigs,
    /// The router's part of it.
    pub router: RouterPerRoute,
}

/// The target of a [`ClusterWeight`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightedTarget {
    /// `name`.
    Name(String),
    /// `cluster_header`, lower case.
    Header(String),
}

impl ClusterSpecifier {
    /// The cluster oneof of the route action that `r` reads.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        let cluster = cluster_name(r, "cluster").map(Self::Cluster);
        let header = header_name(r, "cluster_header").non_empty().map(Self::Header);
        let weighted = r.message("weighted_clusters").optional().map(Self::Weighted);
        r.exactly_one(&["cluster", "cluster_header", "weighted_clusters"]);
        cluster.or(header).or(weighted).unwrap_or(Self::Cluster(String::new()))
    }
}

/// A cluster's name, noted to be checked when all clusters are known.
pub(super) fn cluster_name(r: &Reader<'_>, field: &'static str) -> Option<String> {
    let name = r
        .string(field)
        .check(|name| if name.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) });
    if let Some(cluster) = name.peek().filter(|name| !name.is_empty()) {
        r.cx.refer(cluster, name.path(), name.span);
    }
    name.optional()
}

impl Message for WeightedClusters {
    const NAME: &'static str = "envoy.config.route.v3.WeightedCluster";

    fn read(r: &Reader<'_>) -> Self {
        let clusters = r.repeated::<ClusterWeight>("clusters").required_non_empty();
        let sum: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
        if !clusters.is_empty() && !(1..=u64::from(u32::MAX)).contains(&sum) {
            r.problem(format!("the sum of the weights is {sum}; it must be from 1 to {}", u32::MAX));
        }
        r.u32("total_weight").check(|total| {
            let same = u64::from(*total) == sum;
            if same { Ok(()) } else { Err(format!("the weights sum up to {sum}, not {total}")) }
        });
        Self {
            clusters,
            runtime_key_prefix: r.string("runtime_key_prefix").or_default(),
            header_name: header_name(r, "header_name").non_empty(),
        }
    }
}

impl Message for ClusterWeight {
    const NAME: &'static str = "envoy.config.route.v3.WeightedCluster.ClusterWeight";

    fn read(r: &Reader<'_>) -> Self {
        let name = cluster_name(r, "name").map(WeightedTarget::Name);
        let header = header_name(r, "cluster_header").non_empty().map(WeightedTarget::Header);
        r.exactly_one(&["name", "cluster_header"]);
        let (per_filter, router) = per_filter(r);
        Self {
            cluster: name.or(header).unwrap_or(WeightedTarget::Name(String::new())),
            weight: r.u32("weight").required(),
            metadata_match: Metadata::labels(r, "metadata_match"),
            headers: HeaderMutations::read(r),
            host_rewrite_literal: r.string("host_rewrite_literal").non_empty(),
            per_filter,
            router,
        }
    }
}

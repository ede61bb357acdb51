//! What a cluster says about the requests it gets, in place of their routes (`HttpProtocolOptions`).

use std::rc::Rc;
use std::sync::Arc;

use tidegate_cluster::Cluster;
use tidegate_config::ClusterConfig;

use crate::mirror::{self, Mirror};
use crate::retry::RetryPolicy;

/// A cluster's own policies, compiled.
#[derive(Debug)]
pub struct OfCluster {
    /// `retry_policy`: replaces the route's.
    pub retry: Option<RetryPolicy>,
    /// `request_mirror_policies`: replace the route's, unless empty.
    pub mirrors: Arc<[Mirror]>,
}

impl OfCluster {
    /// Compiles them. To be checked when a configuration is loaded.
    ///
    /// # Errors
    /// What is wrong, or not supported.
    pub fn compile(config: &ClusterConfig) -> Result<Self, String> {
        let retry = config.retry_policy.as_ref().map(RetryPolicy::compile).transpose()?;
        Ok(Self { retry, mirrors: mirror::compile(&config.mirrors)? })
    }

    /// Those of `cluster`; `None`, at the cost of two looks, for most.
    pub fn of(cluster: &Cluster) -> Option<Rc<Self>> {
        let config = cluster.config();
        if config.retry_policy.is_none() && config.mirrors.is_empty() {
            return None;
        }
        // Checked when it was loaded: there is nothing wrong with it.
        let none = |_| Self { retry: None, mirrors: Arc::default() };
        Some(cluster.extension(|config| Self::compile(config).unwrap_or_else(none)))
    }
}

//! Requests that are counted by themselves, beside their cluster: the virtual clusters of a virtual host, and routes
//! with a `stat_prefix` (Envoy docs, "Router: statistics").
//!
//! Start with [`RequestGroup`]; [`VirtualClusters`] finds a request's.

use std::sync::{Arc, OnceLock};

use tidegate_config::route as config;
use tidegate_stats::{CodeCounters, DynScope, OwnedHistogram, Scope, Store, stat_block};
use tidegate_types::RequestHead;

use crate::table::matcher::HeaderMatcher;

stat_block! {
    /// What is listed from the start; the codes, and the time, are once there are any.
    pub struct GroupStats {
        counters {
            /// Requests that got a connection: each try is one.
            upstream_rq_total,
            /// The route's `timeout` fired.
            upstream_rq_timeout,
            upstream_rq_retry,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_success,
        }
    }
}

/// The statistics of a group of requests.
#[derive(Debug)]
pub struct RequestGroup {
    /// Counted by name.
    pub stats: GroupStats,
    /// `upstream_rq_200`, `_2xx` and `_completed`.
    pub codes: CodeCounters,
    scope: DynScope,
    time: OnceLock<OwnedHistogram>,
}

impl RequestGroup {
    /// The requests of a route with `stat_prefix`: `vhost.VHOST.route.PREFIX.`.
    pub fn route(store: &Store, virtual_host: &str, prefix: &str) -> Self {
        let scope = Scope::new("vhost", &[virtual_host]).child("route");
        Self::new(store, scope.tagged("envoy_route", prefix))
    }

    /// `vhost.VHOST.vcluster.NAME.`
    fn virtual_cluster(store: &Store, virtual_host: &str, name: &str) -> Self {
        let scope = Scope::new("vhost", &[virtual_host]).child("vcluster");
        Self::new(store, scope.tagged("envoy_virtual_cluster", name))
    }

    fn new(store: &Store, scope: Scope) -> Self {
        Self {
            stats: GroupStats::new(store, scope.clone()),
            codes: CodeCounters::new(store, scope.clone()),
            scope: DynScope::new(store, scope),
            time: OnceLock::new(),
        }
    }

    /// Records `upstream_rq_time`, in ms.
    pub fn record_time(&self, ms: u64) {
        self.time.get_or_init(|| self.scope.histogram("upstream_rq_time")).record(ms);
    }
}

/// A virtual cluster.
#[derive(Debug)]
pub struct VirtualCluster {
    /// `name`; `None`: all requests that belong to no other, as in access logs.
    pub name: Option<Arc<str>>,
    /// What is counted of its requests.
    pub group: RequestGroup,
    matchers: Vec<HeaderMatcher>,
}

/// The virtual clusters of one virtual host: those configured, and `other` for the rest.
#[derive(Debug)]
pub struct VirtualClusters {
    list: Vec<VirtualCluster>,
}

impl VirtualClusters {
    /// `None` where none is configured.
    ///
    /// # Errors
    /// The index of the one that is wrong, and what is wrong with it.
    pub fn compile(
        store: &Store,
        virtual_host: &str,
        configured: &[config::VirtualCluster],
    ) -> Result<Option<Arc<Self>>, (usize, String)> {
        if configured.is_empty() {
            return Ok(None);
        }
        let mut list = Vec::with_capacity(configured.len() + 1);
        for (index, cluster) in configured.iter().enumerate() {
            let matchers = cluster.headers.iter().map(HeaderMatcher::compile).collect::<Result<_, _>>();
            list.push(VirtualCluster {
                name: Some(cluster.name.as_str().into()),
                group: RequestGroup::virtual_cluster(store, virtual_host, &cluster.name),
                matchers: matchers.map_err(|message| (index, message))?,
            });
        }
        let group = RequestGroup::virtual_cluster(store, virtual_host, "other");
        list.push(VirtualCluster { name: None, group, matchers: Vec::new() });
        Ok(Some(Arc::new(Self { list })))
    }

    /// The first that a request belongs to; the last takes all.
    pub fn of(&self, head: &RequestHead) -> Option<&VirtualCluster> {
        self.list.iter().find(|cluster| cluster.matchers.iter().all(|matcher| matcher.matches_request(head)))
    }
}

/// The groups that a request is counted in, mostly none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Groups<'r> {
    /// Of its virtual host.
    pub virtual_cluster: Option<&'r RequestGroup>,
    /// Of its route.
    pub route: Option<&'r RequestGroup>,
}

impl<'r> Groups<'r> {
    /// Does something to each.
    #[inline]
    pub(crate) fn each(self, note: impl Fn(&'r RequestGroup)) {
        if let Some(group) = self.virtual_cluster {
            note(group);
        }
        if let Some(group) = self.route {
            note(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use tidegate_config::route::HeaderMatch;
    use tidegate_config::values::{StringMatcher, StringPattern};

    use super::*;

    fn cluster(name: &str, header: &str, value: &str) -> config::VirtualCluster {
        let pattern = StringPattern::Prefix(value.to_owned());
        let condition = HeaderMatch::String(StringMatcher { pattern, ignore_case: false });
        let matcher = config::HeaderMatcher {
            name: header.to_owned(),
            condition,
            invert: false,
            treat_missing_as_empty: false,
        };
        config::VirtualCluster { name: name.to_owned(), headers: vec![matcher] }
    }

    #[test]
    fn the_first_whose_headers_match_counts_and_other_takes_the_rest() {
        let store = Store::new(1);
        let configured = [cluster("api", ":path", "/api"), cluster("gets", ":method", "GET")];
        let clusters = VirtualClusters::compile(&store, "web", &configured).unwrap().unwrap();
        let name = |method, path| {
            clusters.of(&RequestHead::new(method, "a.test", path)).unwrap().name.as_deref().map(str::to_owned)
        };
        assert_eq!(name(Method::GET, "/api/1").as_deref(), Some("api"));
        assert_eq!(name(Method::GET, "/x").as_deref(), Some("gets"));
        assert_eq!(name(Method::POST, "/x"), None);
        clusters
            .of(&RequestHead::new(Method::POST, "a.test", "/x"))
            .unwrap()
            .group
            .stats
            .upstream_rq_total()
            .inc();
        let group = RequestGroup::virtual_cluster(&store, "web", "other");
        assert_eq!(group.stats.upstream_rq_total().value(), 1);
        assert!(VirtualClusters::compile(&store, "web", &[]).unwrap().is_none());
        let wrong =
            VirtualClusters::compile(&store, "web", &[cluster("a", "x", ""), cluster("b", "ä ö", "")]);
        assert_eq!(wrong.unwrap_err().0, 1);
    }
}

//! `envoy.config.route.v3.VirtualCluster`: requests of a virtual host that are counted by themselves.

use super::matcher::HeaderMatcher;
use crate::reader::{Message, Reader};

/// A group of requests, counted under `vhost.VHOST.vcluster.NAME.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualCluster {
    /// `name`, never empty.
    pub name: String,
    /// `headers`: all must match; never empty.
    pub headers: Vec<HeaderMatcher>,
}

impl Message for VirtualCluster {
    const NAME: &'static str = "envoy.config.route.v3.VirtualCluster";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            name: r.string("name").required_non_empty(),
            headers: r.repeated("headers").required_non_empty(),
        }
    }
}

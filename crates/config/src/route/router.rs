//! `tidegate.filters.http.router.v1.RouterPerRoute`: what the router does otherwise for some routes.

use crate::reader::{Message, Reader};
use crate::values::Place;

/// The router's value of `typed_per_filter_config`, under the router's name in `http_filters`. Envoy's router has
/// none, and `--envoy-strict` refuses it. Inner levels win over outer ones, field by field
/// ([`RouterPerRoute::inside`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouterPerRoute {
    /// `safe_retry`: overrides [`ConnectionReuse::safe_retry`](crate::cluster::ConnectionReuse::safe_retry);
    /// `None`: as outside.
    pub safe_retry: Option<bool>,
    /// The message with the name that it was given under, if it was given.
    pub own: Option<(String, Place)>,
}

impl RouterPerRoute {
    /// This level within `outer`.
    pub fn inside(&self, outer: &Self) -> Self {
        Self { safe_retry: self.safe_retry.or(outer.safe_retry), own: None }
    }
}

impl Message for RouterPerRoute {
    const NAME: &'static str = "tidegate.filters.http.router.v1.RouterPerRoute";

    fn read(r: &Reader<'_>) -> Self {
        Self { safe_retry: r.bool("safe_retry").optional(), own: Some((String::new(), Place::of(r))) }
    }
}

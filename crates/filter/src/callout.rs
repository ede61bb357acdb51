//! Requests that a filter makes itself, to a cluster of the configuration.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_types::{RequestHead, ResponseHead, UpstreamInfo};

use crate::LocalFuture;

/// The clusters of the configuration that a stream began with.
pub trait Clusters {
    /// A handle to send HTTP requests to `cluster`, or `None` if there is no such cluster.
    fn http(&self, cluster: &str) -> Option<Rc<dyn HttpCallout>>;

    /// How many hosts `cluster` has now, or `None` if there is no such cluster.
    fn presence(&self, _cluster: &str) -> Option<Presence> {
        None
    }

    /// A response of `cluster`'s host `from`, made `age` ago, has these `alt-svc` fields (RFC 7838 §3).
    fn heard_alternatives(&self, _cluster: &str, _from: &UpstreamInfo, _fields: &[&[u8]], _age: Duration) {}

    /// Whether health checks of the proxy itself are to fail: the operator said so (`/healthcheck/fail`), or it ends.
    fn server_fails_checks(&self) -> bool {
        false
    }
}

/// The hosts of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// All of them.
    pub total: u64,
    /// Those that are healthy or degraded.
    pub serving: u64,
}

/// Sends requests to one cluster.
pub trait HttpCallout {
    /// Sends one request and collects the whole response, at most 1 MiB. Dropping the future cancels it.
    fn send(
        &self,
        request: RequestHead,
        body: Bytes,
        timeout: Duration,
    ) -> LocalFuture<'static, Result<CalloutResponse, CalloutError>>;
}

/// A callout's answer.
#[derive(Debug)]
pub struct CalloutResponse {
    /// Status and fields.
    pub head: ResponseHead,
    /// The whole body.
    pub body: Bytes,
}

/// Why a callout has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalloutError {
    /// No host, no connection, or the connection ended.
    #[error("callout failed: {0}")]
    Failed(&'static str),
    /// No answer in time.
    #[error("callout timed out")]
    TimedOut,
    /// The response body is larger than 1 MiB.
    #[error("callout response is too large")]
    TooLarge,
}

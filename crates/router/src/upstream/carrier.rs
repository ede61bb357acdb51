//! What carries an attempt: an exchange with an HTTP upstream, or the TCP connection of a tunnel that ends here.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Version;
use tidegate_cluster::stream::ClientStream;
use tidegate_cluster::{Acquire, Ask, Cluster, Failed, Host, Lease, PoolError, tcp};
use tidegate_config::hcm::TunnelEnd;
use tidegate_types::UpstreamInfo;

use super::tunnel::Tunnel;

/// Waits for a carrier.
pub(super) enum Waiting {
    Http(Acquire),
    Tcp(tcp::Acquire),
}

/// See the module. Dropped before its end it counts as given up.
pub(super) enum Carrier {
    Http(Lease),
    Tcp(Box<Tunnel>),
}

impl Waiting {
    /// Asks `cluster` for a connection to `host`.
    pub(super) fn begin(cluster: &Cluster, host: &Rc<Host>, ask: Ask, ends: TunnelEnd) -> Self {
        match ends {
            TunnelEnd::Upstream => Self::Http(cluster.acquire(host, ask)),
            TunnelEnd::Here => Self::Tcp(cluster.acquire_tcp(host, ask.options.unwrap_or_default())),
        }
    }
}

impl Future for Waiting {
    type Output = Result<Carrier, PoolError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Http(acquire) => Pin::new(acquire).poll(cx).map_ok(Carrier::Http),
            Self::Tcp(acquire) => {
                let tunnel = |connection| Carrier::Tcp(Box::new(Tunnel::new(connection)));
                Pin::new(acquire).poll(cx).map_ok(tunnel)
            }
        }
    }
}

impl Carrier {
    /// The exchange.
    #[inline]
    pub(super) fn stream(&mut self) -> &mut dyn ClientStream {
        match self {
            Self::Http(lease) => lease.stream(),
            Self::Tcp(tunnel) => &mut **tunnel,
        }
    }

    /// Whether the connection was there before and may have gone stale.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Http(lease) => lease.is_reused(),
            Self::Tcp(_) => false,
        }
    }

    /// Whether the connection carries other requests beside.
    pub(super) fn is_multiplexed(&self) -> bool {
        match self {
            Self::Http(lease) => lease.facts().protocol != Version::HTTP_11,
            Self::Tcp(_) => false,
        }
    }

    /// Whether each direction of a tunnel ends by itself and in order. Over HTTP/1.1 the end of the connection is
    /// all there is, and means that it broke, as far as anybody can tell.
    pub(super) fn has_orderly_ends(&self) -> bool {
        match self {
            Self::Http(lease) => lease.facts().protocol != Version::HTTP_11,
            Self::Tcp(_) => true,
        }
    }

    /// What access logs say of it, on `host`.
    pub(super) fn describe(&self, host: &Host) -> UpstreamInfo {
        match self {
            Self::Http(lease) => {
                let facts = lease.facts();
                UpstreamInfo {
                    host: host.address(),
                    remote_address: facts.remote_address.clone(),
                    local_address: facts.local_address.clone(),
                    connection_id: Some(facts.id),
                    protocol: Some(facts.protocol),
                    tls: facts.tls.clone(),
                }
            }
            Self::Tcp(tunnel) => {
                let facts = tunnel.facts();
                UpstreamInfo {
                    host: host.address(),
                    remote_address: facts.remote_address.clone(),
                    local_address: facts.local_address.clone(),
                    connection_id: Some(facts.id),
                    protocol: None,
                    tls: facts.tls.clone(),
                }
            }
        }
    }

    /// The exchange is over, as far as it went.
    #[inline]
    pub(super) fn finish(self) {
        match self {
            Self::Http(lease) => lease.finish(),
            Self::Tcp(tunnel) => tunnel.finish(),
        }
    }

    /// The exchange failed.
    pub(super) fn failed(self, how: Failed) {
        match self {
            Self::Http(lease) => lease.failed(how),
            Self::Tcp(tunnel) => tunnel.failed(how),
        }
    }
}

//! What connections of health checks are made with: the cluster's settings, none of its limits and counters.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_pool::dialer::Dialer;
use tidegate_pool::h1::DialOptions;
use tidegate_pool::host::Addresses;
use tidegate_pool::solo::HttpLine;
use tidegate_pool::{TransportFactory, dialer, h1, h2};
use tidegate_types::json::Node;

use crate::cluster::kit;
use crate::host::HostShared;
use crate::shared::ClusterShared;
use crate::transports::Choice;

/// See the module. One for a cluster's checks; of the main thread.
pub struct CheckKit {
    shared: Arc<ClusterShared>,
    /// The transport of all hosts, if checks have one of their own.
    chosen: Option<Choice>,
    dial: Rc<DialOptions>,
    http1: Rc<h1::ClientOptions>,
    http2: Rc<h2::ClientOptions>,
    observer: Rc<h2::Counting>,
}

impl CheckKit {
    /// For checks of `shared`, whose hosts' transports are chosen by `labels` in place of their own, if there are any.
    pub fn new(shared: &Arc<ClusterShared>, labels: Option<&Node>) -> Self {
        let config = shared.config();
        // What a check speaks is its own matter: options that the cluster does not have are defaults, as in Envoy.
        let http1 = config.protocol.http1().cloned().unwrap_or_default();
        let http2 = config.protocol.http2().cloned().unwrap_or_default();
        let counters = shared.stats().http2.clone();
        Self {
            shared: shared.clone(),
            chosen: labels.map(|labels| shared.transport_by(labels)),
            dial: Rc::new(kit::dial_options(config)),
            http1: Rc::new(kit::http1_codec(config, &http1)),
            http2: Rc::new(kit::http2_codec(config, &http2)),
            observer: Rc::new(h2::Counting(counters.unwrap_or_else(h2::CodecStats::detached))),
        }
    }

    /// What opens connections to where `host` is checked. No protocols are offered but those that the
    /// configuration names, as in Envoy.
    pub fn dialer(&self, host: &HostShared) -> Dialer {
        let attributes = host.attributes();
        let address = attributes.health_check.address(&host.address());
        let of_host = |all: &Arc<dyn TransportFactory>| all.of_host(&attributes.hostname, &[]);
        if let Some(chosen) = self.chosen {
            self.shared.count_transport(chosen);
        }
        let choice = self.choice(host);
        Dialer {
            addresses: Arc::new(Addresses::new(Arc::from([address]))),
            eyeballs: None,
            dial: self.dial.clone(),
            transport: self.shared.transports().of(choice).stream.as_ref().map(of_host),
            stats: self.shared.stats().upstream.clone(),
        }
    }

    fn choice(&self, host: &HostShared) -> Choice {
        self.chosen.unwrap_or_else(|| host.transport())
    }

    /// Whether connections to `host` are of TLS.
    pub fn is_secure(&self, host: &HostShared) -> bool {
        self.shared.socket_of(self.choice(host)).tls().is_some()
    }

    /// Speaks HTTP/1.1 on a connection.
    pub fn http1(&self, opened: dialer::Opened) -> HttpLine {
        HttpLine::http1(opened.io, self.http1.clone())
    }

    /// Speaks HTTP/2 on a connection, by prior knowledge.
    ///
    /// # Errors
    /// None that the peer could cause.
    pub fn http2(&self, opened: dialer::Opened) -> io::Result<HttpLine> {
        HttpLine::http2(opened.io, self.http2.clone(), self.observer.clone())
    }
}

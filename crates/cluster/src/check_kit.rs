//! What connections of health checks are made with: the cluster's settings, none of its limits and counters.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_pool::dialer::Dialer;
use tidegate_pool::h1::DialOptions;
use tidegate_pool::host::Addresses;
use tidegate_pool::solo::HttpLine;
use tidegate_pool::{TransportFactory, dialer, h1, h2};

use crate::cluster::kit;
use crate::host::HostShared;
use crate::shared::ClusterShared;

/// See the module. One for a cluster's checks; of the main thread.
pub struct CheckKit {
    shared: Arc<ClusterShared>,
    dial: Rc<DialOptions>,
    http1: Rc<h1::ClientOptions>,
    http2: Rc<h2::ClientOptions>,
    observer: Rc<h2::Counting>,
}

impl CheckKit {
    /// For checks of `shared`.
    pub fn new(shared: &Arc<ClusterShared>) -> Self {
        let config = shared.config();
        // What a check speaks is its own matter: options that the cluster does not have are defaults, as in Envoy.
        let http1 = config.protocol.http1().cloned().unwrap_or_default();
        let http2 = config.protocol.http2().cloned().unwrap_or_default();
        let counters = shared.stats().http2.clone();
        Self {
            shared: shared.clone(),
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
        Dialer {
            addresses: Arc::new(Addresses::new(Arc::from([address]))),
            eyeballs: None,
            dial: self.dial.clone(),
            transport: self.shared.transports().stream.as_ref().map(of_host),
            stats: self.shared.stats().upstream.clone(),
        }
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

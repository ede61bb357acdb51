//! How a cluster's pools of HTTP/3 are made, and its grids.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::tls::ValidationConfig;
use tidegate_config::transport::UpstreamTransport;
use tidegate_pool::alternates::{Alternative, Origin};
use tidegate_pool::dialer::Eyeballs;
use tidegate_pool::grid::{Grid, Parts};
use tidegate_pool::h1::DialOptions;
use tidegate_pool::h3::{self, QuicConnector};
use tidegate_pool::host::Addresses;
use tidegate_pool::machine::{Settings, Shared};
use tidegate_pool::quic::{Elsewhere, QuicDialer, QuicTransport, route_to};
use tidegate_pool::{HttpPool, Neighbour, Neighbours, TransportOptions};
use tidegate_types::Address;

use super::Cluster;
use crate::host::Host;
use crate::neighbours::Neighbourhood;

/// Makes pools of HTTP/3 to a host, or to who serves it elsewhere.
pub(super) struct QuicMaker {
    addresses: Arc<Addresses>,
    eyeballs: Option<Eyeballs>,
    dial: Rc<DialOptions>,
    transport: Rc<dyn QuicTransport>,
    options: Rc<TransportOptions>,
    /// Whether certificates are compared with names anyhow.
    compares_names: bool,
    settings: Rc<Settings>,
    shared: Shared,
    codec: Rc<h3::ClientOptions>,
    observer: Rc<h3::Counting>,
    neighbours: Rc<Neighbourhood>,
}

impl QuicMaker {
    /// A pool of connections to `to`; `None` if nobody there could prove to be who it should be.
    pub(super) fn make(
        &self,
        to: &Alternative,
        on_round_trip: Option<Rc<dyn Fn(Duration)>>,
    ) -> Option<Rc<h3::Pool>> {
        let (elsewhere, options) = match to {
            Alternative::Same => (None, self.options.clone()),
            Alternative::Elsewhere { host, port } => {
                (Some(Elsewhere { host: host.clone(), port: *port }), self.options_elsewhere()?)
            }
        };
        let dialer = QuicDialer {
            addresses: self.addresses.clone(),
            elsewhere,
            eyeballs: self.eyeballs.clone(),
            dial: self.dial.clone(),
            transport: self.transport.clone(),
            options,
            stats: self.shared.stats.clone(),
            observer: self.observer.clone(),
        };
        let (codec, observer) = (self.codec.clone(), self.observer.clone());
        let connector = Rc::new(QuicConnector { dialer, codec, observer, on_round_trip });
        let weak: Weak<dyn Neighbours> = Rc::downgrade(&(self.neighbours.clone() as Rc<dyn Neighbours>));
        let pool = h3::Pool::new(self.settings.clone(), self.shared.clone(), connector, weak);
        self.neighbours.join(Rc::downgrade(&(pool.clone() as Rc<dyn Neighbour>)));
        Some(pool)
    }

    /// What connections to another place ask for: a certificate of the origin (RFC 7838 §2.1).
    fn options_elsewhere(&self) -> Option<Rc<TransportOptions>> {
        if !self.transport.verifies() {
            return None;
        }
        if self.compares_names || !self.options.verify_names.is_empty() {
            return Some(self.options.clone());
        }
        let origin = self.transport.server_name(&self.options)?;
        Some(Rc::new(TransportOptions { verify_names: vec![origin], ..(*self.options).clone() }))
    }
}

impl Cluster {
    /// What makes pools of HTTP/3 to `host`; `None` if the cluster speaks none.
    pub(super) fn quic_maker(
        &self,
        host: &Host,
        options: &Rc<TransportOptions>,
        shared: &Shared,
        neighbours: &Rc<Neighbourhood>,
    ) -> Option<QuicMaker> {
        let kit = self.kit();
        let (transports, http3) =
            (self.shared.transports().of(host.shared().transport()).quic.as_ref()?, kit.http3.as_ref()?);
        Some(QuicMaker {
            addresses: host.shared().addresses().clone(),
            eyeballs: self.eyeballs(kit),
            dial: kit.dial.clone(),
            transport: transports.of_host(&host.attributes().hostname),
            options: options.clone(),
            compares_names: compares_names(self.shared.socket_of(host.shared().transport())),
            settings: http3.settings.clone(),
            shared: shared.clone(),
            codec: http3.codec.clone(),
            observer: Rc::new(self.stats().http3.clone()?),
            neighbours: neighbours.clone(),
        })
    }

    /// The pool that tries HTTP/3, and TCP behind it.
    pub(super) fn grid(
        &self,
        maker: QuicMaker,
        host: &Host,
        options: Rc<TransportOptions>,
        shared: Shared,
        weak: Weak<dyn Neighbours>,
    ) -> HttpPool {
        let port = match *host.address() {
            Address::Ip(address) => address.port(),
            Address::Unix(_) => 0,
        };
        let named = maker.transport.server_name(&options);
        let name = named.unwrap_or_else(|| host.attributes().hostname.as_str().into());
        let (origin, cache) = (Origin::https(&name, port), self.alternates().clone());
        let record = cache.record(&origin);
        let noting = cache.clone();
        let note: Rc<dyn Fn(Duration)> = Rc::new(move |rtt| noting.note_round_trip(&record, rtt));
        // The grid never opens connections ahead of demand, as in Envoy.
        let settings = Settings { preconnect_ratio: 1.0, ..Settings::clone(&self.kit().http2.settings) };
        let (stats, addresses) = (shared.stats.clone(), maker.addresses.clone());
        let tcp = self.auto_pool(host, options, Rc::new(settings), shared, weak);
        HttpPool::Grid(Grid::new(Parts {
            tcp,
            quic: Box::new(move |to| maker.make(to, Some(note.clone()))),
            cache,
            origin,
            stats,
            tcp_delay: self.config().http3_selection.tcp_delay,
            route: Box::new(move || route_to(&addresses.primary())),
        }))
    }
}

/// Whether the configuration says which names a certificate must carry.
fn compares_names(socket: &UpstreamTransport) -> bool {
    let Some(tls) = socket.tls() else { return false };
    let pinned = |v: &ValidationConfig| {
        !v.names.is_empty() || !v.certificate_hashes.is_empty() || !v.spki_hashes.is_empty()
    };
    tls.auto_sni_san_validation || tls.common.validation.as_deref().is_some_and(pinned)
}

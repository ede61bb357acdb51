//! Which pool a stream gets: found by host, protocol, priority and what it asks of its connection, or made.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use http::Version;
use tidegate_config::cluster::UpstreamProtocol;
use tidegate_config::route::Priority;
use tidegate_net::Transport;
use tidegate_pool::alternates::Alternative;
use tidegate_pool::dialer::{Dialer, Eyeballs};
use tidegate_pool::grid::Ways;
use tidegate_pool::machine::{Care, Settings, Shared, Tally, wants_connection};
use tidegate_pool::{
    Acquire, HttpPool, Neighbour, Neighbours, TransportFactory, TransportOptions, auto, h1, h2, tcp,
};
use tokio::time::Instant;

use super::Cluster;
use super::kit::Kit;
use crate::host::{Host, HostShared, PoolKey, Protocol};
use crate::lb::Health;
use crate::transports::{Switching, Transports};

/// Opened ahead for each stream at most, as in Envoy.
const MAX_AHEAD: usize = 3;

/// What a request asks of its connection.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The route's.
    pub priority: Priority,
    /// The time.
    pub now: Instant,
    /// How the request came, for clusters that speak as the downstream does; `None` counts as HTTP/1.1.
    pub downstream: Option<Version>,
    /// How much it minds a stale connection.
    pub care: Care,
    /// What only requests that ask for the same share a connection for; `None`: nothing.
    pub options: Option<Rc<TransportOptions>>,
    /// By what it may go.
    pub ways: Ways,
    /// The number of the downstream connection that it came by, for clusters whose connections belong to one.
    pub connection: Option<u64>,
}

impl Ask {
    /// A request that asks for nothing in particular.
    pub fn new(priority: Priority, now: Instant) -> Self {
        Self {
            priority,
            now,
            downstream: None,
            care: Care::Any,
            options: None,
            ways: Ways::All,
            connection: None,
        }
    }
}

impl Cluster {
    /// Asks the pool of `host` that suits for a connection.
    #[inline]
    pub fn acquire(&self, host: &Rc<Host>, ask: Ask) -> Acquire {
        let Ask { priority, now, care, options, downstream, ways, connection } = ask;
        let protocol = self.protocol(downstream);
        let owner = connection.filter(|_| self.config().pool_per_downstream_connection);
        let key = PoolKey { protocol, priority, options, owner };
        if let Some(tally) = &self.tally
            && key.is_plain()
        {
            self.open_ahead(tally, |next, ratio| {
                next.pool(&key).unwrap_or_else(|| self.new_pool(next, &key)).anticipate(ratio)
            });
        }
        if let Some(pool) = host.pool(&key) {
            return pool.acquire_at(now, care, ways);
        }
        if !self.limits(priority).pools.has_room() {
            host.give_up_unused(priority);
        }
        let pool = self.new_pool(host, &key);
        let acquire = pool.acquire_at(now, care, ways);
        // A pool that was refused its first connection has none to lose.
        host.forget_empty(&key);
        acquire
    }

    /// What is spoken for a request that came by `downstream`. One that came by HTTP/3 goes by HTTP/2 where there are
    /// no options for anything newer, as in Envoy.
    #[inline]
    fn protocol(&self, downstream: Option<Version>) -> Protocol {
        match &self.config().protocol {
            UpstreamProtocol::Http1(_) => Protocol::Http1,
            UpstreamProtocol::Http2(_) => Protocol::Http2,
            UpstreamProtocol::Http3(_) => Protocol::Http3,
            UpstreamProtocol::Auto(options) => match options.http3 {
                Some(_) => Protocol::Grid,
                None => Protocol::Auto,
            },
            UpstreamProtocol::AsDownstream(options) => match downstream {
                Some(Version::HTTP_3) if options.http3.is_some() => Protocol::Http3,
                Some(Version::HTTP_2 | Version::HTTP_3) => Protocol::Http2,
                _ => Protocol::Http1,
            },
        }
    }

    #[cold]
    fn new_pool(&self, host: &Rc<Host>, key: &PoolKey) -> HttpPool {
        let kit = self.kit();
        let shared = self.pool_shared(host, key.priority);
        let neighbours = self.neighbours(key.priority);
        let weak: Weak<dyn Neighbours> = Rc::downgrade(&(neighbours.clone() as Rc<dyn Neighbours>));
        let options = key.options.clone().unwrap_or_default();
        let pool = match key.protocol {
            Protocol::Http1 => {
                let dialer = self.dialer(kit, host, &[b"http/1.1"]);
                let connector = h1::SocketConnector { dialer, options, codec: kit.http1.codec.clone() };
                let settings = self.settings_for(host, &kit.http1.settings);
                HttpPool::H1(h1::Pool::new(settings, shared, Rc::new(connector), weak))
            }
            Protocol::Http2 => HttpPool::H2(self.http2_pool(host, options, shared, weak)),
            Protocol::Auto => {
                let settings = self.settings_for(host, &kit.http2.settings);
                HttpPool::Auto(self.auto_pool(host, options, settings, shared, weak))
            }
            Protocol::Http3 => {
                let maker = self.quic_maker(host, &options, &shared, neighbours);
                match maker.and_then(|maker| maker.make(&Alternative::Same, None)) {
                    Some(pool) => HttpPool::H3(pool),
                    // Only a cluster that was built without the transport that its configuration demands.
                    None => HttpPool::H2(self.http2_pool(host, options, shared, weak)),
                }
            }
            Protocol::Grid => match self.quic_maker(host, &options, &shared, neighbours) {
                Some(maker) => self.grid(maker, host, options, shared, weak),
                None => {
                    let settings = self.settings_for(host, &kit.http2.settings);
                    HttpPool::Auto(self.auto_pool(host, options, settings, shared, weak))
                }
            },
        };
        // QUIC's pools joined when they were made.
        if !matches!(pool, HttpPool::H3(_)) {
            neighbours.join(pool.neighbour());
        }
        let (home, name) = (Rc::downgrade(host), key.clone());
        pool.on_empty(Box::new(move || {
            if let Some(host) = home.upgrade() {
                host.forget_empty(&name);
            }
        }));
        host.set_pool(key, pool.clone());
        pool
    }

    fn http2_pool(
        &self,
        host: &Host,
        options: Rc<TransportOptions>,
        shared: Shared,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<h2::Pool> {
        let kit = self.kit();
        let dialer = self.dialer(kit, host, &[b"h2"]);
        let (codec, observer) = (kit.http2.codec.clone(), self.http2_observer());
        let connector = h2::SocketConnector { dialer, options, codec, observer };
        let settings = self.settings_for(host, &kit.http2.settings);
        h2::Pool::new(settings, shared, Rc::new(connector), neighbours)
    }

    pub(super) fn auto_pool(
        &self,
        host: &Host,
        options: Rc<TransportOptions>,
        settings: Rc<Settings>,
        shared: Shared,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<auto::Pool> {
        let kit = self.kit();
        let dialer = self.dialer(kit, host, &[b"h2", b"http/1.1"]);
        let (http1, http2) = (kit.http1.codec.clone(), kit.http2.codec.clone());
        let observer = self.http2_observer();
        let connector = auto::SocketConnector { dialer, options, http1, http2, observer };
        auto::Pool::new(settings, shared, Rc::new(connector), neighbours)
    }

    fn http2_observer(&self) -> Rc<h2::Counting> {
        Rc::new(h2::Counting(self.stats().http2.clone().unwrap_or_else(h2::CodecStats::detached)))
    }

    /// Asks for a connection to `host` for a TCP session that wants `options` of it; see [`tcp::Pool::acquire`].
    pub fn acquire_tcp(&self, host: &Rc<Host>, options: Rc<TransportOptions>) -> tcp::Acquire {
        // Sessions that ask for something of their own share nothing, so their pool is theirs too.
        if *options != TransportOptions::default() {
            return self.new_tcp_pool(host, options).acquire();
        }
        if let Some(tally) = &self.tally {
            self.open_ahead(tally, |next, ratio| self.tcp_pool(next).anticipate(ratio));
        }
        self.tcp_pool(host).acquire()
    }

    /// The pool of sessions that ask for nothing of their own.
    fn tcp_pool(&self, host: &Rc<Host>) -> Rc<tcp::Pool> {
        host.tcp_pool().unwrap_or_else(|| {
            let pool = self.new_tcp_pool(host, Rc::default());
            let home = Rc::downgrade(host);
            pool.on_empty(Box::new(move || {
                if let Some(host) = home.upgrade() {
                    host.forget_empty_tcp();
                }
            }));
            host.set_tcp_pool(pool.clone());
            pool
        })
    }

    fn new_tcp_pool(&self, host: &Host, options: Rc<TransportOptions>) -> Rc<tcp::Pool> {
        // TCP sessions have no priority of their own.
        let priority = Priority::Default;
        let kit = self.kit();
        let neighbours = self.neighbours(priority);
        let weak: Weak<dyn Neighbours> = Rc::downgrade(&(neighbours.clone() as Rc<dyn Neighbours>));
        // A session's end says nothing about others.
        let shared = Shared { idle_limit: None, ..self.pool_shared(host, priority) };
        let dialer = self.dialer(kit, host, &[]);
        // A connection that only one session can use is not worth opening before there is one.
        let shares = *options == TransportOptions::default();
        let settings =
            Settings { preconnect_ratio: if shares { self.ratio_for(host) } else { 1.0 }, ..kit.tcp.clone() };
        let pool = tcp::Pool::new(&settings, shared, dialer, options, weak);
        let weak: Weak<dyn Neighbour> = Rc::downgrade(&(pool.clone() as Rc<dyn Neighbour>));
        neighbours.join(weak);
        pool
    }

    /// Before a stream gets its connection: opens one for each stream that is likely to follow, with the hosts that
    /// the load balancer will choose next (`predictive_preconnect_ratio`; Envoy: `maybePreconnect`).
    #[cold]
    fn open_ahead(&self, tally: &Tally, anticipate: impl Fn(&Rc<Host>, f32) -> bool) {
        let ratio = self.config().preconnect.predictive;
        for _ in 0..MAX_AHEAD {
            if !wants_connection(tally.load(), ratio, 1) {
                return;
            }
            let host = self.peek_host();
            if !host.is_some_and(|host| host.shared().health() == Health::Healthy && anticipate(&host, ratio))
            {
                return;
            }
        }
    }

    /// `per_upstream_preconnect_ratio`, but no more work than asked for goes to a host that is not healthy.
    fn ratio_for(&self, host: &Host) -> f32 {
        if host.shared().health() == Health::Healthy { self.config().preconnect.per_upstream } else { 1.0 }
    }

    fn settings_for(&self, host: &Host, settings: &Rc<Settings>) -> Rc<Settings> {
        let ratio = self.ratio_for(host);
        if ratio == settings.preconnect_ratio {
            return settings.clone();
        }
        Rc::new(Settings { preconnect_ratio: ratio, ..Settings::clone(settings) })
    }

    pub(super) fn kit(&self) -> &Kit {
        self.kit.get_or_init(|| Kit::new(self.config()))
    }

    fn dialer(&self, kit: &Kit, host: &Host, fallback_alpn: &[&[u8]]) -> Rc<Dialer> {
        Rc::new(Dialer {
            addresses: host.shared().addresses().clone(),
            eyeballs: self.eyeballs(kit),
            dial: kit.dial.clone(),
            transport: transport_of(host.shared(), self.shared.transports(), fallback_alpn),
            stats: self.stats().upstream.clone(),
        })
    }

    /// How one of several addresses is chosen; `None`: no other than the first is to be tried.
    pub(super) fn eyeballs(&self, kit: &Kit) -> Option<Eyeballs> {
        let stats = self.shared.stats().clone();
        let eyeballs = || Eyeballs::new(kit.order, move || stats.eyeballs().clone());
        self.shared.tries_all_addresses().then(eyeballs)
    }

    fn pool_shared(&self, host: &Host, priority: Priority) -> Shared {
        Shared {
            limits: self.limits(priority).clone(),
            host_connections: host.shared().connections.clone(),
            stats: self.stats().upstream.clone(),
            host: host.counters().clone(),
            idle_limit: self.shared.learns_idle().then(|| host.shared().idle_limit().clone()),
            tally: self.tally.clone(),
        }
    }
}

/// What connections to a host speak, if it is not plain text.
fn transport_of(
    host: &Arc<HostShared>,
    transports: &Transports,
    fallback_alpn: &[&[u8]],
) -> Option<Rc<dyn Transport>> {
    let hostname = &host.attributes().hostname;
    let open = |all: &Arc<dyn TransportFactory>| all.of_host(hostname, fallback_alpn);
    match transports.matches.is_empty() {
        true => transports.rest.stream.as_ref().map(open),
        false => Some(Rc::new(Switching::new(host, transports, open))),
    }
}

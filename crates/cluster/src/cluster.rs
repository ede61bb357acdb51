//! A worker's part of a cluster: its hosts with their pools, and its load balancer's cursors.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::ClusterConfig;
use tidegate_config::protocol::{HeaderKeyFormat, Http1Options};
use tidegate_config::route::Priority;
use tidegate_config::values::TcpKeepalive;
use tidegate_pool::dialer::Dialer;
use tidegate_pool::h1::{
    Acquire, ClientOptions, DialOptions, Keepalive, NameCase, Neighbour, Neighbours, Pool, SocketConnector,
};
use tidegate_pool::limits::{Limits, RetryPermit};
use tidegate_pool::machine::{Care, Carries, Settings, Shared, Tally, wants_connection};
use tidegate_pool::tcp;
use tidegate_pool::{TransportFactory, TransportOptions};
use tidegate_types::{Address, CloseReason};
use tokio::time::Instant;

use crate::host::{Host, HostSet};
use crate::lb::{Balancer, Health, Table};
use crate::neighbours::{Neighbourhood, PeerBell, Peers};
use crate::shared::ClusterShared;
use crate::stats::ClusterStats;

/// One cluster on one worker. Hosts and pools are made at first use.
pub struct Cluster {
    shared: Arc<ClusterShared>,
    members: RefCell<Option<Members>>,
    generation: Cell<u64>,
    kit: OnceCell<Kit>,
    neighbours: [OnceCell<Rc<Neighbourhood>>; 2],
    peers: Arc<Peers>,
    bell: Arc<PeerBell>,
    /// What its pools carry, if connections are opened ahead of the load balancer's choices.
    tally: Option<Rc<Tally>>,
}

struct Members {
    hosts: Vec<Rc<Host>>,
    balancer: Balancer,
}

/// What every pool of the cluster is made with.
struct Kit {
    settings: Rc<Settings>,
    /// TCP pools'.
    tcp: Settings,
    dial: Rc<DialOptions>,
    codec: Rc<ClientOptions>,
}

impl Cluster {
    pub(crate) fn new(shared: Arc<ClusterShared>, peers: Arc<Peers>, bell: Arc<PeerBell>) -> Rc<Self> {
        let ahead = shared.config().preconnect.predictive > 1.0;
        Rc::new(Self {
            tally: ahead.then(Rc::default),
            shared,
            members: RefCell::default(),
            generation: Cell::default(),
            kit: OnceCell::new(),
            neighbours: Default::default(),
            peers,
            bell,
        })
    }

    /// Chooses a host for a request; `None` counts in `upstream_cx_none_healthy`.
    pub fn choose_host(&self) -> Option<Rc<Host>> {
        self.choose_host_for(None)
    }

    /// As [`Cluster::choose_host`], for what a `hash_policy` found: hashing load balancers give equal hashes the
    /// same host, others do not look at them. See [`crate::lb::hash`].
    pub fn choose_host_for(&self, hash: Option<u64>) -> Option<Rc<Host>> {
        let mut members = self.members();
        let members = members.as_mut()?;
        let pick = members.balancer.choose(hash, fastrand::u64(..));
        let stats = self.stats();
        if pick.panic {
            stats.members.lb_healthy_panic().inc();
        }
        let host = pick.host.and_then(|index| members.hosts.get(index)).cloned();
        if host.is_none() {
            stats.upstream.upstream_cx_none_healthy().inc();
        }
        host
    }

    /// Asks the pool of `host` for a connection; see [`Pool::acquire`].
    #[inline]
    pub fn acquire(&self, host: &Host, priority: Priority) -> Acquire {
        self.acquire_at(host, priority, Instant::now(), Care::Any)
    }

    /// As [`Cluster::acquire`], for a caller that knows the time, and how much its request minds a stale
    /// connection.
    #[inline]
    pub fn acquire_at(&self, host: &Host, priority: Priority, now: Instant, care: Care) -> Acquire {
        if let Some(tally) = &self.tally {
            self.open_ahead(tally, |next, ratio| {
                let pool = next.pool(priority).unwrap_or_else(|| self.new_pool(next, priority));
                pool.anticipate(ratio)
            });
        }
        match host.pool(priority) {
            Some(pool) => pool.acquire_at(now, care),
            None => self.new_pool(host, priority).acquire_at(now, care),
        }
    }

    /// As [`Cluster::acquire_at`], for a request that asks something of its connection: only requests that ask for
    /// the same share it.
    pub fn acquire_with(
        &self,
        host: &Host,
        priority: Priority,
        options: Rc<TransportOptions>,
        now: Instant,
        care: Care,
    ) -> Acquire {
        let pool = host.special_pool(priority, &options);
        let pool = pool.unwrap_or_else(|| {
            let pool = self.pool_with(host, priority, options.clone());
            host.add_special_pool(priority, options, pool.clone());
            pool
        });
        pool.acquire_at(now, care)
    }

    /// Asks for a connection to `host` for a TCP session that wants `options` of it; see [`tcp::Pool::acquire`].
    pub fn acquire_tcp(&self, host: &Host, options: Rc<TransportOptions>) -> tcp::Acquire {
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
    fn tcp_pool(&self, host: &Host) -> Rc<tcp::Pool> {
        host.tcp_pool().unwrap_or_else(|| {
            let pool = self.new_tcp_pool(host, Rc::default());
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
    fn open_ahead(&self, tally: &Tally, anticipate: impl Fn(&Host, f32) -> bool) {
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

    /// The host of a choice to come; `None` if all hosts were looked at already.
    fn peek_host(&self) -> Option<Rc<Host>> {
        let mut members = self.members();
        let members = members.as_mut()?;
        let pick = members.balancer.peek(fastrand::u64(..))?;
        pick.host.and_then(|index| members.hosts.get(index)).cloned()
    }

    /// The hosts as they are now.
    fn members(&self) -> RefMut<'_, Option<Members>> {
        let generation = self.shared.generation();
        let mut members = self.members.borrow_mut();
        if members.is_none() || generation != self.generation.get() {
            self.generation.set(generation);
            *members = Some(self.new_members(members.take()));
        }
        members
    }

    /// `per_upstream_preconnect_ratio`, but no more work than asked for goes to a host that is not healthy.
    fn ratio_for(&self, host: &Host) -> f32 {
        if host.shared().health() == Health::Healthy { self.config().preconnect.per_upstream } else { 1.0 }
    }

    /// What all workers share of it.
    #[inline]
    pub fn shared(&self) -> &Arc<ClusterShared> {
        &self.shared
    }

    /// The validated message.
    #[inline]
    pub fn config(&self) -> &Arc<ClusterConfig> {
        self.shared.config()
    }

    /// Statistics.
    #[inline]
    pub fn stats(&self) -> &ClusterStats {
        self.shared.stats()
    }

    /// The circuit breakers of a priority.
    #[inline]
    pub fn limits(&self, priority: Priority) -> &Arc<Limits> {
        self.shared.limits(priority)
    }

    /// Lets a retry start, within `max_retries` or the retry budget. The router counts the refusal.
    pub fn reserve_retry(&self, priority: Priority) -> Option<RetryPermit> {
        self.limits(priority).reserve_retry()
    }

    /// No new requests will come: idle connections close, the others with their streams.
    pub(crate) fn drain(&self) {
        if let Some(members) = self.members.borrow_mut().take() {
            members.hosts.iter().for_each(|host| host.drain(CloseReason::Drained));
        }
    }

    /// Another worker's pool has no connection: gives up idle ones.
    pub(crate) fn reclaim_for_peer(&self, priority: Priority) {
        if let Some(neighbours) = self.neighbours[priority as usize].get() {
            neighbours.reclaim_here();
        }
    }

    fn new_members(&self, old: Option<Members>) -> Members {
        let set: Arc<HostSet> = self.shared.hosts();
        let old = old.map(|members| members.hosts).unwrap_or_default();
        let kept = |shared| old.iter().find(|host| Arc::ptr_eq(host.shared(), shared)).cloned();
        let host = |shared| kept(shared).unwrap_or_else(|| Rc::new(Host::new(Arc::clone(shared))));
        let hosts: Vec<_> = set.hosts.iter().map(host).collect();
        for host in &old {
            if !hosts.iter().any(|other| Rc::ptr_eq(other, host)) {
                host.drain(CloseReason::HostUnhealthy);
            }
        }
        let balancer = match set.hashed() {
            Some(table) => Balancer::Hashed(table.clone()),
            None => {
                let weights: Vec<_> = set.hosts.iter().map(|host| (host.weight, host.health())).collect();
                let config = self.config();
                let (policy, panic) = (config.lb_policy, config.healthy_panic_threshold);
                Balancer::Own(Box::new(Table::new(policy, panic, &weights, fastrand::u64(..))))
            }
        };
        Members { hosts, balancer }
    }

    #[cold]
    fn new_pool(&self, host: &Host, priority: Priority) -> Rc<Pool> {
        let pool = self.pool_with(host, priority, Rc::default());
        host.set_pool(priority, pool.clone());
        pool
    }

    fn pool_with(&self, host: &Host, priority: Priority, options: Rc<TransportOptions>) -> Rc<Pool> {
        let kit = self.kit();
        let neighbours = self.neighbours(priority);
        let shared = self.pool_shared(host, priority);
        let dialer = self.dialer(kit, host, &[b"http/1.1"]);
        let connector = SocketConnector { dialer, options, codec: kit.codec.clone() };
        let weak: Weak<dyn Neighbours> = Rc::downgrade(&(neighbours.clone() as Rc<dyn Neighbours>));
        let ratio = self.ratio_for(host);
        let settings = if ratio == kit.settings.preconnect_ratio {
            kit.settings.clone()
        } else {
            Rc::new(Settings { preconnect_ratio: ratio, ..Settings::clone(&kit.settings) })
        };
        let pool = Pool::new(settings, shared, Rc::new(connector), weak);
        let weak: Weak<dyn Neighbour> = Rc::downgrade(&(pool.clone() as Rc<dyn Neighbour>));
        neighbours.join(weak);
        pool
    }

    fn kit(&self) -> &Kit {
        self.kit.get_or_init(|| Kit::new(self.config()))
    }

    fn neighbours(&self, priority: Priority) -> &Rc<Neighbourhood> {
        self.neighbours[priority as usize].get_or_init(|| {
            Neighbourhood::new(self.shared.clone(), priority, self.peers.clone(), self.bell.clone())
        })
    }

    fn dialer(&self, kit: &Kit, host: &Host, fallback_alpn: &[&[u8]]) -> Rc<Dialer> {
        let of_host = |all: &Arc<dyn TransportFactory>| all.of_host(&host.shared().hostname, fallback_alpn);
        Rc::new(Dialer {
            addresses: Arc::from([Address::clone(host.address())]),
            dial: kit.dial.clone(),
            transport: self.shared.transports().map(of_host),
            stats: self.stats().upstream.clone(),
        })
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

impl Drop for Cluster {
    fn drop(&mut self) {
        // A request that outlived its configuration may have opened connections after the drain.
        self.drain();
    }
}

impl Kit {
    fn new(config: &ClusterConfig) -> Self {
        let http = &config.common_http;
        let defaults = Http1Options::default();
        let http1 = config.protocol.http1().unwrap_or(&defaults);
        let settings = Settings {
            connect_timeout: config.connect_timeout,
            idle_timeout: http.idle_timeout,
            max_connection_duration: http.max_connection_duration,
            max_streams: http.max_requests_per_connection,
            concurrency: 1,
            preconnect_ratio: config.preconnect.per_upstream,
            carries: Carries::Requests,
        };
        let codec = ClientOptions {
            max_head_bytes: http.max_response_headers_kb as usize * 1024,
            max_headers: http.max_headers_count as usize,
            buffer_limit: config.per_connection_buffer_limit_bytes as usize,
            enable_trailers: http1.enable_trailers,
            name_case: match http1.header_key_format {
                HeaderKeyFormat::Lowercase => NameCase::Lower,
                HeaderKeyFormat::ProperCase => NameCase::Proper,
            },
        };
        let tcp = Settings {
            idle_timeout: config.tcp_idle_timeout,
            max_connection_duration: None,
            ..settings.clone()
        };
        Self { settings: Rc::new(settings), tcp, dial: Rc::new(dial_options(config)), codec: Rc::new(codec) }
    }
}

/// Opened ahead for each stream at most, as in Envoy.
const MAX_AHEAD: usize = 3;

fn dial_options(config: &ClusterConfig) -> DialOptions {
    let seconds = |s: Option<u32>| s.map(|s| Duration::from_secs(u64::from(s)));
    let keepalive = match config.tcp_keepalive {
        Some(TcpKeepalive::On { probes, time_s, interval_s }) => {
            Some(Keepalive { time: seconds(time_s), interval: seconds(interval_s), probes })
        }
        Some(TcpKeepalive::Off) | None => None,
    };
    DialOptions { keepalive, source: config.source_address.map(|(ip, port)| SocketAddr::new(ip, port)) }
}

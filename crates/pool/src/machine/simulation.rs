//! Several workers and hosts under tight limits, with everything that can happen happening at random (seeded), a
//! million times: limits are never exceeded, the machines' invariants hold after each step, no request is lost,
//! served twice or served out of order, no connection is leaked, counters add up, and no request waits for ever.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use tidegate_types::ResetReason;

use super::*;
use crate::limits::Maxima;

struct World {
    random: u64,
    now: Instant,
    limits: Arc<Limits>,
    max: Maxima,
    /// The pools'.
    tally: Rc<Tally>,
    kind: Kind,
    pools: Vec<Site>,
    next: usize,
}

/// What all pools of a world speak.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Http1,
    /// So many streams at a time, unless the peer says otherwise.
    Http2(u32),
    Tcp,
}

/// One pool as its driver would see it.
struct Site {
    machine: Machine,
    kind: Kind,
    learned: Option<Arc<IdleLimit>>,
    host: Arc<Limit>,
    host_max: u64,
    connecting: Vec<ConnKey>,
    /// Connected ones, with the streams on each.
    up: BTreeMap<usize, Vec<usize>>,
    waiting: BTreeMap<usize, StreamKey>,
    asked: bool,
    /// Something happened since the last check.
    moved: bool,
    count: Count,
}

/// What the counters must say.
#[derive(Default)]
struct Count {
    opened: u64,
    closed: u64,
    attached: u64,
    queued: u64,
    cancelled: u64,
    failed: u64,
    /// From the queue.
    served: u64,
}

/// Of an HTTP/1.1 exchange, or a session.
const ENDS: [StreamEnd; 11] = [
    StreamEnd::Complete,
    StreamEnd::Complete,
    StreamEnd::Complete,
    StreamEnd::Complete,
    StreamEnd::CompleteAndAnnounced,
    StreamEnd::CompleteAtClose,
    StreamEnd::CompleteWithExcess,
    StreamEnd::Aborted,
    StreamEnd::PeerClosed(CloseReason::PeerRst),
    StreamEnd::ProtocolError,
    StreamEnd::Unused,
];

/// Of a stream beside others.
const STREAM_ENDS: [StreamEnd; 4] =
    [StreamEnd::Complete, StreamEnd::Complete, StreamEnd::Reset, StreamEnd::Unused];

const CARES: [Care; 4] = [Care::Any, Care::Any, Care::Fresh, Care::New];

impl World {
    fn new(seed: u64, workers: usize, hosts: usize) -> Self {
        let mut world = Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: Instant::now(),
            limits: Arc::new(Limits::detached(&Maxima::default())),
            max: Maxima::default(),
            tally: Rc::default(),
            kind: Kind::Http1,
            pools: Vec::new(),
            next: 0,
        };
        world.kind = match world.below(8) {
            // `max_requests` does not limit sessions.
            0 => Kind::Tcp,
            1..=4 => Kind::Http2(1 + world.below(4) as u32),
            _ => Kind::Http1,
        };
        let sessions = world.kind == Kind::Tcp;
        // Every other world opens connections ahead of demand.
        let ratio = [1.0, 1.0, 1.0, 1.5, 2.0, 3.0][world.below(6) as usize];
        world.max = Maxima {
            connections: 1 + world.below(4),
            pending: 1 + world.below(8),
            requests: if sessions { u64::MAX } else { 1 + world.below(6) },
            connecting: [u64::MAX, u64::MAX, 1, 2][world.below(4) as usize],
            ..Maxima::default()
        };
        world.limits = Arc::new(Limits::detached(&world.max));
        for _ in 0..hosts {
            let host_max = if world.below(2) == 0 { 1 } else { u64::MAX };
            let host = Arc::new(Limit::new(host_max, None, None));
            let learned = (!sessions && world.below(2) == 0).then(Arc::<IdleLimit>::default);
            for _ in 0..workers {
                let settings = Settings {
                    connect_timeout: Duration::from_millis(500),
                    idle_timeout: Some(Duration::from_secs(2)),
                    max_connection_duration: (world.below(2) == 0).then(|| Duration::from_secs(3)),
                    max_streams: if sessions { Some(1) } else { (world.below(3) == 0).then_some(3) },
                    concurrency: if let Kind::Http2(streams) = world.kind { streams } else { 1 },
                    preconnect_ratio: ratio,
                    carries: if sessions { Carries::Sessions } else { Carries::Requests },
                    timeout_text: None,
                };
                let shared = Shared {
                    limits: world.limits.clone(),
                    host_connections: Some(host.clone()),
                    stats: UpstreamStats::detached(),
                    host: HostCounters::detached(),
                    idle_limit: learned.clone(),
                    tally: Some(world.tally.clone()),
                };
                world.pools.push(Site {
                    machine: Machine::new(Rc::new(settings), shared),
                    kind: world.kind,
                    learned: learned.clone(),
                    host: host.clone(),
                    host_max,
                    connecting: Vec::new(),
                    up: BTreeMap::new(),
                    waiting: BTreeMap::new(),
                    asked: false,
                    moved: true,
                    count: Count::default(),
                });
            }
        }
        world
    }

    fn below(&mut self, n: u64) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn step(&mut self) {
        let pool = self.below(self.pools.len() as u64) as usize;
        match self.below(16) {
            0..=4 => self.request(pool),
            5..=6 => self.finish_attempt(pool),
            7..=8 => self.finish_stream(pool, false),
            9 => self.cancel(pool),
            10 => self.close_idle(pool),
            11 => {
                let ratio = 1.0 + self.below(9) as f32 / 4.0;
                self.pools[pool].machine.handle_anticipated(self.now, ratio);
            }
            12 => self.trouble(pool),
            13 => self.announce(pool),
            _ => self.pass_time(),
        }
        self.pools[pool].moved = true;
        self.settle();
    }

    fn request(&mut self, pool: usize) {
        let token = self.next;
        self.next += 1;
        if self.pools[pool].machine.wants_room()
            && let (now, Some(oldest)) = (self.now, self.oldest_idle())
        {
            assert!(oldest.machine.handle_reclaim(now));
        }
        let care = CARES[self.below(4) as usize];
        let nobody_idles = self.oldest_idle().is_none();
        let (now, site) = (self.now, &mut self.pools[pool]);
        match site.machine.try_attach(now, care) {
            Some(Attached::To(key)) => site.carry(key, token),
            Some(Attached::Overflow) => {}
            None => match site.machine.enqueue(now, token) {
                Queued::Waiting(key) => {
                    site.count.queued += 1;
                    site.waiting.insert(token, key);
                }
                Queued::ConnectionOverflow => {
                    assert!(nobody_idles, "refused for a connection that nobody used")
                }
                Queued::Overflow | Queued::PoolOverflow => {}
            },
        }
    }

    fn finish_attempt(&mut self, pool: usize) {
        let fails = self.below(4) == 0;
        // What the peer takes, other than was expected.
        let streams = if let Kind::Http2(_) = self.kind { 1 + self.below(4) as u32 } else { 1 };
        let (now, site) = (self.now, &mut self.pools[pool]);
        if site.connecting.is_empty() {
            return;
        }
        let key = site.connecting.remove(0);
        if fails {
            let reason = ResetReason::RemoteConnectionFailure;
            site.machine.handle_connect_failed(now, key, PoolError::Connect { reason, transport: None });
        } else {
            site.up.insert(key.index(), Vec::new());
            site.machine.handle_connected(now, key, streams);
        }
    }

    fn finish_stream(&mut self, pool: usize, well: bool) {
        let end = match (well, self.kind) {
            (true, _) => StreamEnd::Complete,
            (false, Kind::Http2(_)) => STREAM_ENDS[self.below(STREAM_ENDS.len() as u64) as usize],
            (false, _) => ENDS[self.below(ENDS.len() as u64) as usize],
        };
        let (now, site) = (self.now, &mut self.pools[pool]);
        if let Some((conn, streams)) = site.up.iter_mut().find(|(_, streams)| !streams.is_empty()) {
            streams.remove(0);
            let key = ConnKey(*conn);
            site.machine.handle_stream_end(now, key, end);
        }
    }

    fn cancel(&mut self, pool: usize) {
        let (now, site) = (self.now, &mut self.pools[pool]);
        if let Some((_, key)) = site.waiting.pop_last() {
            site.count.cancelled += 1;
            site.machine.handle_cancel(now, key);
        }
    }

    fn close_idle(&mut self, pool: usize) {
        let (now, site) = (self.now, &mut self.pools[pool]);
        let idle = site.up.iter().rfind(|(_, streams)| streams.is_empty());
        if let Some(key) = idle.map(|(conn, _)| ConnKey(*conn)) {
            site.machine.handle_closed(now, key, CloseReason::PeerFin);
        }
    }

    /// What only connections with many streams see: GOAWAY, other SETTINGS, the end of all streams at once.
    fn trouble(&mut self, pool: usize) {
        let (what, streams) = (self.below(4), self.below(4) as u32);
        let (now, site) = (self.now, &mut self.pools[pool]);
        let (Kind::Http2(_), Some(conn)) = (site.kind, site.up.keys().next().copied()) else { return };
        let key = ConnKey(conn);
        match what {
            0 => site.machine.handle_announced(now, key),
            1 => {
                site.up.insert(conn, Vec::new());
                site.machine.handle_closed(now, key, CloseReason::PeerRst);
            }
            _ => site.machine.handle_concurrency(now, key, streams),
        }
    }

    fn announce(&mut self, pool: usize) {
        let limit = Duration::from_millis(self.below(3_000));
        let (now, site) = (self.now, &mut self.pools[pool]);
        if let Some(learned) = &site.learned {
            learned.closed(now, limit, None);
            site.machine.handle_idle_announced(limit * 2);
        }
    }

    fn pass_time(&mut self) {
        let ms = self.below(300);
        self.now += Duration::from_millis(ms);
        for site in &mut self.pools {
            while site.machine.poll_timeout().is_some_and(|due| due <= self.now) {
                site.machine.handle_timeout(self.now);
                site.moved = true;
            }
        }
    }

    /// The pool whose connection has idled longest.
    fn oldest_idle(&mut self) -> Option<&mut Site> {
        let idle = self.pools.iter_mut().filter_map(|site| Some((site.machine.oldest_idle()?.1, site)));
        idle.min_by_key(|(since, _)| *since).map(|(_, site)| site)
    }

    /// Runs events, grants and reclaims until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for site in &mut self.pools {
                while let Some(event) = site.machine.poll_event() {
                    site.on(event);
                    moved = true;
                }
                if site.machine.waiters().is_granted() {
                    site.machine.handle_grant(self.now);
                    moved = true;
                }
            }
            let asked = self.pools.iter_mut().fold(false, |any, site| std::mem::take(&mut site.asked) | any);
            for site in &mut self.pools {
                while asked && site.machine.host_starves() && site.machine.handle_reclaim(self.now) {
                    moved = true;
                }
            }
            while asked && self.limits.connections.starving_since_before(None) {
                let now = self.now;
                let Some(site) = self.oldest_idle() else { break };
                assert!(site.machine.handle_reclaim(now));
                moved = true;
            }
            if !moved {
                break;
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let (mut connections, mut connecting, mut waiting, mut streams) = (0, 0, 0, 0);
        let mut sum = Load::default();
        for site in &mut self.pools {
            if std::mem::take(&mut site.moved) {
                site.check();
            }
            connections += site.machine.connections();
            connecting += site.connecting.len();
            waiting += site.waiting.len();
            streams += site.streams();
            let load = site.machine.load();
            sum.pending += load.pending;
            sum.active += load.active;
            sum.capacity += load.capacity;
        }
        let limits = &self.limits;
        assert!(connections as u64 <= self.max.connections, "too many connections");
        assert!(limits.connections.used() <= self.max.connections);
        assert!(connecting as u64 <= self.max.connecting, "too many attempts");
        assert_eq!(connecting as u64, limits.connecting.used(), "attempts");
        assert!(limits.pending.used() <= self.max.pending);
        assert!(limits.requests.used() <= self.max.requests);
        assert_eq!(waiting as u64, limits.pending.used(), "waiting streams");
        assert_eq!(streams as u64, limits.requests.used(), "attached streams");
        assert_eq!(self.tally.load(), sum, "what the pools carry");
    }

    /// No more requests, only what has to happen: every waiting stream must get an answer.
    fn wind_down(&mut self) {
        for _ in 0..2000 {
            if self.pools.iter().all(|site| site.waiting.is_empty() && site.streams() == 0) {
                return;
            }
            for pool in 0..self.pools.len() {
                self.finish_attempt(pool);
                self.settle();
                self.finish_stream(pool, true);
                self.settle();
                // A peer that takes no stream at all, and keeps its connections open, is excused.
                let keys = Vec::from_iter(self.pools[pool].up.keys().copied());
                for conn in keys {
                    self.pools[pool].machine.handle_concurrency(self.now, ConnKey(conn), 1);
                    self.settle();
                }
            }
        }
        panic!(
            "a request waits for ever: {:#?}",
            self.pools.iter().map(|site| &site.machine).collect::<Vec<_>>()
        );
    }

    /// Nobody comes any more: every connection must go.
    fn fall_idle(&mut self) {
        for _ in 0..1000 {
            if self.pools.iter().all(|site| site.machine.is_empty()) {
                return;
            }
            self.pass_time();
            self.settle();
        }
        panic!("a connection was leaked");
    }
}

impl Site {
    fn carry(&mut self, key: ConnKey, token: usize) {
        let streams = self.up.get_mut(&key.index()).expect("a stream on no connection");
        assert!(streams.is_empty() || matches!(self.kind, Kind::Http2(_)), "a connection lent twice");
        streams.push(token);
        self.count.attached += 1;
    }

    fn on(&mut self, event: Event) {
        self.moved = true;
        match event {
            Event::Open(key) => {
                self.count.opened += 1;
                self.connecting.push(key);
            }
            Event::Attach { token, conn } => {
                let (first, _) = self.waiting.pop_first().expect("answered a stream that did not wait");
                assert_eq!(first, token, "first come, first served");
                self.count.served += 1;
                self.carry(conn, token);
            }
            Event::Fail { token, .. } => {
                assert!(self.waiting.remove(&token).is_some(), "failed a stream that did not wait");
                self.count.failed += 1;
            }
            Event::Close(key, _) => {
                self.count.closed += 1;
                self.connecting.retain(|other| *other != key);
                let streams = self.up.remove(&key.index()).unwrap_or_default();
                assert!(streams.is_empty(), "closed under a stream");
            }
            Event::Reclaim => self.asked = true,
        }
    }

    fn streams(&self) -> usize {
        self.up.values().map(Vec::len).sum()
    }

    fn check(&self) {
        assert!(self.host.used() <= self.host_max, "too many connections to a host");
        assert_eq!(self.machine.connections(), self.connecting.len() + self.up.len(), "connections");
        assert_eq!(self.machine.streams(), self.streams() + self.waiting.len(), "streams");
        let (stats, count) = (self.machine.stats(), &self.count);
        assert_eq!(stats.upstream_cx_total().value(), count.opened);
        assert_eq!(stats.upstream_cx_destroy().value(), count.closed);
        assert_eq!(stats.upstream_cx_close_reason().total(), count.closed);
        assert_eq!(stats.upstream_cx_active().value() as u64, count.opened - count.closed);
        assert_eq!(stats.upstream_rq_total().value(), count.attached);
        assert_eq!(stats.upstream_rq_pending_total().value(), count.queued);
        assert_eq!(stats.upstream_rq_cancelled().value(), count.cancelled);
        let left = count.queued - count.cancelled - count.failed - count.served;
        assert_eq!(stats.upstream_rq_pending_active().value() as u64, left);
        assert_eq!(left, self.waiting.len() as u64, "a request was lost");
        let idle = self.up.values().filter(|streams| streams.is_empty()).count();
        assert_eq!(stats.upstream_cx_idle().value(), idle as i64, "idle connections");
    }
}

#[test]
fn limits_hold_and_nobody_waits_for_ever() {
    let mut streams = 0;
    for seed in 0..WORLDS {
        let (workers, hosts) = (1 + seed as usize % 3, 1 + seed as usize / 3 % 3);
        let mut world = World::new(seed + 1, workers, hosts);
        (0..STEPS).for_each(|_| world.step());
        world.wind_down();
        if seed % 2 == 0 {
            world.fall_idle();
        }
        streams += world.next;
        let limits = world.limits.clone();
        drop(world);
        let used =
            [&limits.connections, &limits.pending, &limits.requests, &limits.connecting].map(Limit::used);
        assert_eq!(used, [0; 4], "seed {seed}");
    }
    assert!(streams > 200_000);
}

/// A million steps.
const WORLDS: u64 = 2_000;
const STEPS: usize = 500;

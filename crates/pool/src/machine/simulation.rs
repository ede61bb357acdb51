//! Several workers and hosts under tight limits, with everything that can happen happening at random
//! (seeded): limits are never exceeded, the machines' invariants hold, and no request waits for ever.

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
    carries: Carries,
    pools: Vec<Site>,
    next: usize,
    open: usize,
}

/// One pool as its driver would see it.
struct Site {
    machine: Machine,
    host: Arc<Limit>,
    host_max: u64,
    connecting: Vec<ConnKey>,
    /// Streams on each connection.
    carrying: BTreeMap<usize, usize>,
    idle: Vec<ConnKey>,
    waiting: BTreeMap<usize, StreamKey>,
    asked: bool,
}

const ENDS: [StreamEnd; 10] = [
    StreamEnd::Complete,
    StreamEnd::Complete,
    StreamEnd::Complete,
    StreamEnd::Complete,
    StreamEnd::CompleteAndAnnounced,
    StreamEnd::CompleteAtClose,
    StreamEnd::Aborted,
    StreamEnd::PeerClosed(CloseReason::PeerRst),
    StreamEnd::ProtocolError,
    StreamEnd::Unused,
];

impl World {
    fn new(seed: u64, workers: usize, hosts: usize) -> Self {
        let mut world = Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: Instant::now(),
            limits: Arc::new(Limits::detached(&Maxima::default())),
            max: Maxima::default(),
            tally: Rc::default(),
            carries: Carries::Requests,
            pools: Vec::new(),
            next: 0,
            open: 0,
        };
        // Of a TCP proxy's cluster in every fourth world, whose sessions `max_requests` does not limit.
        let sessions = world.below(4) == 0;
        world.carries = if sessions { Carries::Sessions } else { Carries::Requests };
        // Every other world opens connections ahead of demand.
        let ratio = [1.0, 1.0, 1.0, 1.5, 2.0, 3.0][world.below(6) as usize];
        world.max = Maxima {
            connections: 1 + world.below(4),
            pending: 1 + world.below(8),
            requests: if sessions { u64::MAX } else { 1 + world.below(6) },
            ..Maxima::default()
        };
        world.limits = Arc::new(Limits::detached(&world.max));
        for _ in 0..hosts {
            let host_max = if world.below(2) == 0 { 1 } else { u64::MAX };
            let host = Arc::new(Limit::new(host_max, None, None));
            for _ in 0..workers {
                let settings = Settings {
                    connect_timeout: Duration::from_millis(500),
                    idle_timeout: Some(Duration::from_secs(2)),
                    max_connection_duration: (world.below(2) == 0).then(|| Duration::from_secs(3)),
                    max_streams: if sessions { Some(1) } else { (world.below(3) == 0).then_some(3) },
                    concurrency: 1,
                    preconnect_ratio: ratio,
                    carries: world.carries,
                };
                let shared = Shared {
                    limits: world.limits.clone(),
                    host_connections: Some(host.clone()),
                    stats: UpstreamStats::detached(),
                    host: HostCounters::detached(),
                    idle_limit: None,
                    tally: Some(world.tally.clone()),
                };
                world.pools.push(Site {
                    machine: Machine::new(Rc::new(settings), shared),
                    host: host.clone(),
                    host_max,
                    connecting: Vec::new(),
                    carrying: BTreeMap::new(),
                    idle: Vec::new(),
                    waiting: BTreeMap::new(),
                    asked: false,
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
        match self.below(13) {
            12 => {
                let ratio = 1.0 + self.below(9) as f32 / 4.0;
                self.pools[pool].machine.handle_anticipated(self.now, ratio);
            }
            0..=4 => self.request(pool),
            5..=6 => self.finish_attempt(pool),
            7..=8 => {
                let end = ENDS[self.below(ENDS.len() as u64) as usize];
                self.finish_stream(pool, end);
            }
            9 => self.cancel(pool),
            10 => {
                let (now, site) = (self.now, &mut self.pools[pool]);
                if let Some(key) = site.idle.last().copied() {
                    site.machine.handle_closed(now, key, CloseReason::PeerFin);
                }
            }
            _ => self.pass_time(),
        }
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
        let nobody_idles = self.oldest_idle().is_none();
        let (now, site) = (self.now, &mut self.pools[pool]);
        match site.machine.try_attach(now, Care::Any) {
            Some(Attached::To(key)) => {
                site.idle.retain(|idle| *idle != key);
                assert!(site.carrying.insert(key.index(), token).is_none(), "a connection lent twice");
            }
            Some(Attached::Overflow) => {}
            None => match site.machine.enqueue(now, token) {
                Queued::Waiting(key) => {
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
        let (now, site) = (self.now, &mut self.pools[pool]);
        if site.connecting.is_empty() {
            return;
        }
        let key = site.connecting.remove(0);
        if fails {
            let reason = ResetReason::RemoteConnectionFailure;
            site.machine.handle_connect_failed(now, key, PoolError::Connect { reason, transport: None });
        } else {
            site.idle.push(key);
            site.machine.handle_connected(now, key, 1);
        }
    }

    fn finish_stream(&mut self, pool: usize, end: StreamEnd) {
        let (now, site) = (self.now, &mut self.pools[pool]);
        if let Some((conn, _)) = site.carrying.pop_first() {
            site.idle.push(ConnKey(conn));
            site.machine.handle_stream_end(now, ConnKey(conn), end);
        }
    }

    fn cancel(&mut self, pool: usize) {
        let (now, site) = (self.now, &mut self.pools[pool]);
        if let Some((_, key)) = site.waiting.pop_last() {
            site.machine.handle_cancel(now, key);
        }
    }

    fn pass_time(&mut self) {
        let ms = self.below(300);
        self.now += Duration::from_millis(ms);
        for site in &mut self.pools {
            while site.machine.poll_timeout().is_some_and(|due| due <= self.now) {
                site.machine.handle_timeout(self.now);
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
        let connections: usize = self.pools.iter().map(|site| site.machine.connections()).sum();
        assert!(connections as u64 <= self.max.connections, "too many connections");
        assert!(self.limits.connections.used() <= self.max.connections);
        assert!(self.limits.pending.used() <= self.max.pending);
        assert!(self.limits.requests.used() <= self.max.requests);
        let waiting: usize = self.pools.iter().map(|site| site.waiting.len()).sum();
        assert_eq!(waiting as u64, self.limits.pending.used());
        let streams: usize = self.pools.iter().map(|site| site.carrying.len()).sum();
        assert_eq!(streams as u64, self.limits.requests.used());
        for site in &self.pools {
            assert!(site.host.used() <= site.host_max, "too many connections to a host");
            let stats = site.machine.stats();
            assert_eq!(stats.upstream_cx_close_reason().total(), stats.upstream_cx_destroy().value());
            assert_eq!(stats.upstream_cx_idle().value(), site.idle.len() as i64, "idle connections");
        }
        let loads = self.pools.iter().map(|site| site.machine.load());
        let sum = loads.fold(Load::default(), |sum, load| Load {
            pending: sum.pending + load.pending,
            active: sum.active + load.active,
            capacity: sum.capacity + load.capacity,
        });
        assert_eq!(self.tally.load(), sum, "what the pools carry");
        self.open = connections;
    }

    /// No more requests, only what has to happen: every waiting stream must get an answer.
    fn wind_down(&mut self) {
        for _ in 0..2000 {
            if self.pools.iter().all(|site| site.waiting.is_empty() && site.carrying.is_empty()) {
                return;
            }
            for pool in 0..self.pools.len() {
                self.finish_attempt(pool);
                self.settle();
                self.finish_stream(pool, StreamEnd::Complete);
                self.settle();
            }
        }
        panic!(
            "a request waits for ever: {:#?}",
            self.pools.iter().map(|site| &site.machine).collect::<Vec<_>>()
        );
    }
}

impl Site {
    fn on(&mut self, event: Event) {
        match event {
            Event::Open(key) => self.connecting.push(key),
            Event::Attach { token, conn } => {
                assert!(self.waiting.remove(&token).is_some(), "answered a stream that did not wait");
                self.idle.retain(|idle| *idle != conn);
                assert!(self.carrying.insert(conn.index(), token).is_none(), "a connection lent twice");
            }
            Event::Fail { token, .. } => {
                assert!(self.waiting.remove(&token).is_some(), "failed a stream that did not wait");
            }
            Event::Close(key, _) => {
                self.connecting.retain(|other| *other != key);
                self.idle.retain(|other| *other != key);
                assert!(!self.carrying.contains_key(&key.index()), "closed under a stream");
            }
            Event::Reclaim => self.asked = true,
        }
    }
}

#[test]
fn limits_hold_and_nobody_waits_for_ever() {
    let mut streams = 0;
    for seed in 0..300 {
        let (workers, hosts) = (1 + seed as usize % 3, 1 + seed as usize / 3 % 3);
        let mut world = World::new(seed + 1, workers, hosts);
        (0..400).for_each(|_| world.step());
        world.wind_down();
        streams += world.next;
        let limits = world.limits.clone();
        drop(world);
        let left = (limits.connections.used(), limits.pending.used(), limits.requests.used());
        assert_eq!(left, (0, 0, 0), "seed {seed}");
    }
    assert!(streams > 10_000);
}

//! The pool of a host that may speak HTTP/3: QUIC first, TCP when that takes too long or fails (`auto_config` with
//! `http3_protocol_options`; Envoy docs, "HTTP/3 upstream").
//!
//! It is two pools, each with its own machine: one of QUIC connections, and [`auto`] over TCP. A stream takes a ready
//! connection of either kind, QUIC's if both stand; only one that has none waits, in a `race`. Whether QUIC is to be
//! tried at all is what [`Alternates`] knows of the host's origin. A connection that nobody waits for is opened in the
//! background, so that a host that is known to take HTTP/3 gets it while streams go by TCP.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_codec::multiplex::AltSvc;
use tidegate_types::CloseReason;
use tokio::time::Instant;

use crate::alternates::{Alternates, Alternative, Known, Listener, Origin, Record};
use crate::auto;
use crate::driver::{self, Neighbour, Pool};
use crate::error::PoolError;
use crate::machine::Care;
use crate::multiplexed::{self, Multiplexed, Speaks, Watcher};
use crate::report::PoolReport;
use crate::stats::UpstreamStats;

mod acquire;
mod race;

pub use acquire::Acquire;

/// So often is looked whether the network is another one, while QUIC is broken and requests come.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The pool of QUIC connections.
pub(crate) type QuicPool<V> = Pool<Multiplexed<V>>;

/// Makes the pool of QUIC connections to the host, or to who serves it elsewhere; `None` if those cannot be told to be
/// who they should be.
pub type MakeQuic<V> = Box<dyn Fn(&Alternative) -> Option<Rc<QuicPool<V>>>>;

/// What a grid is made of.
pub struct Parts<V: Speaks> {
    /// The pool over TCP.
    pub tcp: Rc<auto::Pool>,
    /// Makes the other one, at first use.
    pub quic: MakeQuic<V>,
    /// What is known of origins.
    pub cache: Rc<Alternates>,
    /// The host's.
    pub origin: Origin,
    /// For `upstream_http3_broken`.
    pub stats: UpstreamStats,
    /// How long QUIC has for itself at most.
    pub tcp_delay: Duration,
    /// Our address on the way to the host now: another one is another network.
    pub route: Box<dyn Fn() -> Option<IpAddr>>,
}

/// See the module.
pub struct Grid<V: Speaks> {
    tcp: Rc<auto::Pool>,
    make_quic: MakeQuic<V>,
    quic: RefCell<Option<Quic<V>>>,
    cache: Rc<Alternates>,
    record: Rc<Record>,
    stats: UpstreamStats,
    tcp_delay: Duration,
    route: Box<dyn Fn() -> Option<IpAddr>>,
    /// Our address when QUIC was found broken, and when that was last compared with what it is.
    broke_on: Cell<Option<IpAddr>>,
    compared: Cell<Option<Instant>>,
    /// Streams that wait for QUIC, or whose attempt is followed.
    hopes: Rc<Cell<usize>>,
    on_empty: OnceCell<Box<dyn Fn()>>,
    this: Weak<Self>,
}

/// QUIC, as it was last made.
struct Quic<V: Speaks> {
    /// Where it goes.
    to: Alternative,
    /// `None`: nobody there can be trusted.
    pool: Option<Rc<QuicPool<V>>>,
}

/// A stream's place in QUIC's queue, counted.
struct Hope<V: Speaks> {
    acquire: driver::Acquire<Multiplexed<V>>,
    hopes: Rc<Cell<usize>>,
}

impl<V: Speaks> Drop for Hope<V> {
    fn drop(&mut self) {
        self.hopes.set(self.hopes.get() - 1);
    }
}

/// What a stream gets.
pub enum Lease<V: Speaks> {
    /// A place on a QUIC connection.
    Quic(multiplexed::Lease<V>),
    /// What the peer chose over TCP.
    Tcp(auto::Lease),
}

/// Which connections a stream may go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ways {
    /// Any.
    #[default]
    All,
    /// Not by QUIC: it failed there already.
    TcpOnly,
}

impl<V: Speaks> Grid<V> {
    /// A grid without connections. Must be called on a thread whose runtime takes local tasks.
    pub fn new(parts: Parts<V>) -> Rc<Self> {
        let Parts { tcp, quic, cache, origin, stats, tcp_delay, route } = parts;
        let record = cache.record(&origin);
        let grid = Rc::new_cyclic(|this: &Weak<Self>| Self {
            tcp,
            make_quic: quic,
            quic: RefCell::default(),
            cache,
            record,
            stats,
            tcp_delay,
            route,
            broke_on: Cell::default(),
            compared: Cell::default(),
            hopes: Rc::default(),
            on_empty: OnceCell::new(),
            this: this.clone(),
        });
        let watcher: Weak<dyn Watcher> = grid.this.clone();
        grid.tcp.described_by(watcher);
        let listener: Rc<dyn Listener> = grid.clone();
        grid.record.listen(Rc::downgrade(&listener));
        grid
    }

    /// Asks for a connection: at once if one is ready, else when one is free or connected.
    #[inline]
    pub fn acquire_at(self: &Rc<Self>, now: Instant, care: Care, ways: Ways) -> Acquire<V> {
        let quic = if ways == Ways::All { self.quic_to_try(now) } else { None };
        if let Some(ready) = quic.as_ref().and_then(|quic| quic.acquire_ready(now, care)) {
            return Acquire::quic(ready);
        }
        if let Some(ready) = self.tcp.acquire_ready(now, care) {
            if let Some(quic) = quic {
                quic.warm();
            }
            return Acquire::tcp(ready);
        }
        match quic {
            Some(quic) => Acquire::race(self.clone(), &quic, care, self.delay(now)),
            None => Acquire::tcp(self.tcp.acquire_at(now, care)),
        }
    }

    /// The pool of QUIC connections, if they are to be tried.
    #[inline]
    fn quic_to_try(&self, now: Instant) -> Option<Rc<QuicPool<V>>> {
        let found = self.cache.find(now, &self.record)?;
        let broken = self.record.status().known(now) == Known::Broken;
        if broken && !self.is_elsewhere(now) {
            return None;
        }
        if let Some(quic) = &*self.quic.borrow()
            && quic.to == found
        {
            return quic.pool.clone();
        }
        self.make_quic(found)
    }

    #[cold]
    fn make_quic(&self, to: Alternative) -> Option<Rc<QuicPool<V>>> {
        let pool = (self.make_quic)(&to);
        if let Some(pool) = &pool {
            let (watcher, this): (Weak<dyn Watcher>, _) = (self.this.clone(), self.this.clone());
            pool.watch_attempts(watcher);
            pool.on_empty(Box::new(move || {
                if let Some(grid) = this.upgrade() {
                    grid.look_empty();
                }
            }));
        }
        // Dropped after the borrow: its end may come back here.
        let old = self.quic.replace(Some(Quic { to, pool: pool.clone() }));
        if let Some(old) = old.and_then(|old| old.pool) {
            old.drain(CloseReason::Drained);
        }
        pool
    }

    /// Whether the network is another one than that on which QUIC was broken: what was seen there says nothing.
    #[cold]
    fn is_elsewhere(&self, now: Instant) -> bool {
        if self.compared.get().is_some_and(|last| now < last + LOOK_PAUSE) {
            return false;
        }
        self.compared.set(Some(now));
        let (here, there) = ((self.route)(), self.broke_on.get());
        let moved = here.is_some() && there.is_some() && here != there;
        if moved {
            tracing::debug!(target: "pool", origin = %self.record.origin(), "the network changed: HTTP/3 is tried again");
            self.cache.network_changed();
            self.record.status().network_changed();
        } else if there.is_none() {
            // Another one's finding.
            self.broke_on.set(here);
        }
        moved
    }

    /// How long TCP waits.
    fn delay(&self, now: Instant) -> Duration {
        if self.record.status().known(now) == Known::FailedRecently {
            return Duration::ZERO;
        }
        // Twice the round trip that it took last, in whole ms as in Envoy, but never longer than without knowing.
        match self.record.round_trip().as_millis() as u64 {
            0 => self.tcp_delay,
            ms => Duration::from_millis(2 * ms).min(self.tcp_delay),
        }
    }

    /// QUIC failed where TCP did not.
    fn mark_broken(&self) {
        self.stats.upstream_http3_broken().inc();
        self.record.status().failed(Instant::now());
        self.broke_on.set((self.route)());
        tracing::debug!(target: "pool", origin = %self.record.origin(), "HTTP/3 is broken");
    }

    /// TCP's turn has come: what QUIC did not achieve until now must not keep the last connection from it.
    fn make_room_for_tcp(&self) {
        if self.tcp.is_refused()
            && let Some(quic) = self.quic_pool()
        {
            quic.give_way();
        }
    }

    /// A place in QUIC's queue.
    fn hope(&self, quic: &Rc<QuicPool<V>>, care: Care) -> Hope<V> {
        self.hopes.set(self.hopes.get() + 1);
        Hope { acquire: quic.acquire_at(Instant::now(), care), hopes: self.hopes.clone() }
    }

    /// A stream went by TCP while QUIC was still trying for it: sees what becomes of that.
    fn follow(&self, mut quic: Hope<V>) {
        let this = self.this.clone();
        tokio::task::spawn_local(async move {
            let settled = poll_fn(|cx| quic.acquire.poll_settled(cx)).await;
            drop(quic);
            if let Some(grid) = this.upgrade() {
                if matches!(settled, Err(PoolError::Connect { .. })) {
                    grid.mark_broken();
                }
                grid.look_empty();
            }
        });
    }

    /// Closes idle connections now and the others with their streams, for a reason.
    pub fn drain(&self, reason: CloseReason) {
        self.tcp.drain(reason);
        if let Some(quic) = self.quic_pool() {
            quic.drain(reason);
        }
    }

    /// No connection in any state, no waiting stream. One whose attempt by QUIC just failed still waits: for TCP.
    pub fn is_empty(&self) -> bool {
        self.hopes.get() == 0 && self.tcp.is_empty() && self.quic_pool().is_none_or(|quic| quic.is_empty())
    }

    /// Attached and waiting streams.
    pub fn streams(&self) -> usize {
        self.tcp.streams() + self.quic_pool().map_or(0, |quic| quic.streams())
    }

    /// Nothing is opened ahead of demand here, as in Envoy.
    pub fn anticipate(&self, _ratio: f32) -> bool {
        false
    }

    /// What is to be done when there is no connection left and nobody waits. The first one counts.
    pub fn on_empty(&self, act: Box<dyn Fn()>) {
        let _ = self.on_empty.set(act);
        let this = self.this.clone();
        self.tcp.on_empty(Box::new(move || {
            if let Some(grid) = this.upgrade() {
                grid.look_empty();
            }
        }));
    }

    /// The pool over TCP, as those see it that share its limits.
    pub fn neighbour(&self) -> Weak<dyn Neighbour> {
        let neighbour: Rc<dyn Neighbour> = self.tcp.clone();
        Rc::downgrade(&neighbour)
    }

    fn quic_pool(&self) -> Option<Rc<QuicPool<V>>> {
        self.quic.borrow().as_ref().and_then(|quic| quic.pool.clone())
    }

    fn look_empty(&self) {
        if let Some(act) = self.on_empty.get()
            && self.is_empty()
        {
            act();
        }
    }
}

impl<V: Speaks> Watcher for Grid<V> {
    fn attempted(&self, outcome: Result<(), CloseReason>) {
        match outcome {
            Ok(()) => self.record.status().succeeded(),
            Err(_) => {
                // Those that wait for it learn it themselves. One that was opened in the background failed beside TCP.
                if self.hopes.get() == 0 && self.tcp.connections() > 0 {
                    self.mark_broken();
                }
            }
        }
    }

    fn advertised(&self, said: &AltSvc) {
        let own = self.record.origin();
        // A connection speaks for others only as far as its certificate does, and none of theirs is asked for here.
        let named = said.origin.as_ref().is_none_or(|origin| Origin::parse(origin).as_ref() == Some(own));
        if named {
            self.cache.learn(Instant::now(), own, [&*said.value], Duration::ZERO);
        }
    }

    fn describe(&self, report: &mut PoolReport) {
        let now = Instant::now();
        let until = self.record.status().broken_until(now);
        report.h3_broken_until_ms = until.map(|until| {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (since_1970 + until.saturating_duration_since(now)).as_millis() as u64
        });
    }
}

impl<V: Speaks> Listener for Grid<V> {
    fn learned(self: Rc<Self>) {
        // Streams go by TCP now: the next ones shall find QUIC.
        if self.tcp.connections() > 0
            && let Some(quic) = self.quic_to_try(Instant::now())
        {
            quic.warm();
        }
    }
}

#[cfg(test)]
mod tests;

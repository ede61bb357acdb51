//! A connection as the machine sees it, and the list of those that are ready.

use std::time::Duration;

use slab::Slab;
use tidegate_types::CloseReason;
use tokio::time::Instant;

/// Names a connection within its pool; used again after it has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey(pub(super) usize);

impl ConnKey {
    /// A small number, for tables beside the machine.
    pub fn index(self) -> usize {
        self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Under way; fails at `deadline`.
    Connecting { deadline: Instant },
    /// In the ready list: takes streams.
    Ready,
    /// Idle for as long as it may be, and kept to see when its peer closes it: takes no streams.
    Probing,
    /// As many streams as it can carry.
    Busy,
    /// Takes no more streams, closes with its last one.
    Draining,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) state: State,
    pub(super) created: Instant,
    /// When it lost its last stream.
    pub(super) idle_since: Instant,
    /// Counted in `upstream_cx_idle`.
    pub(super) idle: bool,
    /// When its last stream took it.
    pub(super) taken: Instant,
    /// How long it had idled then.
    pub(super) idled: Duration,
    /// Its own part of a jitter, of 256.
    pub(super) salt: u8,
    /// Why it drains, once it does.
    pub(super) fate: CloseReason,
    /// Its peer has announced its end.
    pub(super) announced: bool,
    /// `max_connection_duration`.
    pub(super) expires: Option<Instant>,
    /// Streams now.
    pub(super) active: u32,
    /// Streams since it was created.
    pub(super) carried: u32,
    /// Streams that it may still take in its life; `u32::MAX`: no limit.
    pub(super) remaining: u32,
    /// Streams at a time.
    pub(super) concurrency: u32,
    /// Its part of [`ReadyList::capacity`].
    listed: u32,
    links: Links,
}

#[derive(Clone, Copy, Debug, Default)]
struct Links {
    newer: Option<ConnKey>,
    older: Option<ConnKey>,
}

impl Conn {
    pub(super) fn connecting(
        now: Instant,
        deadline: Instant,
        max_streams: Option<u32>,
        concurrency: u32,
    ) -> Self {
        Self {
            state: State::Connecting { deadline },
            created: now,
            idle_since: now,
            idle: false,
            taken: now,
            idled: Duration::ZERO,
            salt: 0,
            fate: CloseReason::Drained,
            announced: false,
            expires: None,
            active: 0,
            carried: 0,
            remaining: max_streams.filter(|max| *max > 0).unwrap_or(u32::MAX),
            concurrency: concurrency.max(1),
            listed: 0,
            links: Links::default(),
        }
    }

    /// Streams that it can take now.
    pub(super) fn capacity(&self) -> u32 {
        self.remaining.min(self.concurrency.saturating_sub(self.active))
    }

    /// Streams that it will take once connected.
    pub(super) fn expected_capacity(&self) -> u64 {
        u64::from(self.remaining.min(self.concurrency))
    }
}

/// Ready connections, most recently used first, so that the others can idle out.
#[derive(Debug, Default)]
pub(super) struct ReadyList {
    newest: Option<ConnKey>,
    oldest: Option<ConnKey>,
    capacity: u64,
}

impl ReadyList {
    /// Streams that its connections can take now.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline]
    pub(super) fn first(&self) -> Option<ConnKey> {
        self.newest
    }

    pub(super) fn push_front(&mut self, conns: &mut Slab<Conn>, key: ConnKey) {
        let Some(conn) = conns.get_mut(key.0) else { return };
        conn.links = Links { newer: None, older: self.newest };
        conn.listed = conn.capacity();
        self.capacity += u64::from(conn.listed);
        match self.newest.replace(key) {
            Some(next) => conns[next.0].links.newer = Some(key),
            None => self.oldest = Some(key),
        }
    }

    pub(super) fn remove(&mut self, conns: &mut Slab<Conn>, key: ConnKey) {
        let Some(conn) = conns.get_mut(key.0) else { return };
        let Links { newer, older } = std::mem::take(&mut conn.links);
        self.capacity -= u64::from(std::mem::take(&mut conn.listed));
        match newer {
            Some(newer) => conns[newer.0].links.older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => conns[older.0].links.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// A listed connection can take more or fewer streams than before.
    #[inline]
    pub(super) fn recount(&mut self, conns: &mut Slab<Conn>, key: ConnKey) {
        let Some(conn) = conns.get_mut(key.0) else { return };
        let now = conn.capacity();
        self.capacity = self.capacity + u64::from(now) - u64::from(std::mem::replace(&mut conn.listed, now));
    }

    /// The one used longest ago.
    pub(super) fn last(&self) -> Option<ConnKey> {
        self.oldest
    }

    /// From the one used longest ago.
    pub(super) fn oldest_first<'a>(&self, conns: &'a Slab<Conn>) -> impl Iterator<Item = ConnKey> + use<'a> {
        std::iter::successors(self.oldest, |key| conns.get(key.0).and_then(|conn| conn.links.newer))
    }
}

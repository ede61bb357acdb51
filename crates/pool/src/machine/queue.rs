//! Streams that wait for a connection, first come, first served, cancellable anywhere.

use std::collections::VecDeque;

use slab::Slab;
use tokio::time::Instant;

/// Names a waiting stream within its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    slot: usize,
    number: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    number: u64,
    token: usize,
    pub(super) since: Instant,
    /// Whether a connection attempt was under way for it when it came, or was made since: if that
    /// fails, so may it. Otherwise a limit stood in the way.
    pub(super) attempted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    streams: Slab<Waiting>,
    /// In order of arrival; cancelled ones stay until they reach the front.
    order: VecDeque<StreamKey>,
    next: u64,
    attempted: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Waiting streams that rely on an attempt.
    pub(super) fn attempted(&self) -> usize {
        self.attempted
    }

    pub(super) fn push(&mut self, since: Instant, token: usize) -> StreamKey {
        let number = self.next;
        self.next += 1;
        let slot = self.streams.insert(Waiting { number, token, since, attempted: false });
        let key = StreamKey { slot, number };
        // Cancelled entries must not pile up behind one stream that waits long.
        if self.order.len() > 2 * self.streams.len() + 16 {
            let streams = &self.streams;
            self.order.retain(|key| streams.get(key.slot).is_some_and(|s| s.number == key.number));
        }
        self.order.push_back(key);
        key
    }

    pub(super) fn pop(&mut self) -> Option<usize> {
        while let Some(key) = self.order.pop_front() {
            if let Some(token) = self.remove(key) {
                return Some(token);
            }
        }
        None
    }

    pub(super) fn remove(&mut self, key: StreamKey) -> Option<usize> {
        self.streams.get(key.slot).filter(|stream| stream.number == key.number)?;
        let stream = self.streams.remove(key.slot);
        self.attempted -= usize::from(stream.attempted);
        Some(stream.token)
    }

    /// The oldest stream that relies on an attempt.
    pub(super) fn pop_attempted(&mut self) -> Option<usize> {
        let found = self.live().find(|(_, stream)| stream.attempted).map(|(key, _)| key)?;
        self.remove(found)
    }

    /// The oldest stream that no attempt was made for relies on one now.
    pub(super) fn mark_attempted(&mut self) {
        let found = self.live().find(|(_, stream)| !stream.attempted).map(|(key, _)| key);
        if let Some(stream) = found.and_then(|key| self.streams.get_mut(key.slot)) {
            stream.attempted = true;
            self.attempted += 1;
        }
    }

    /// The latest stream that relies on an attempt no longer does: its attempt succeeded, with room for fewer streams.
    pub(super) fn unmark_attempted(&mut self) {
        let found = self.order.iter().rev().find(|key| {
            self.streams.get(key.slot).is_some_and(|stream| stream.number == key.number && stream.attempted)
        });
        if let Some(stream) = found.and_then(|key| self.streams.get_mut(key.slot)) {
            stream.attempted = false;
            self.attempted -= 1;
        }
    }

    /// Arrival of the stream that has waited longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.live().next().map(|(_, stream)| stream.since)
    }

    fn live(&self) -> impl Iterator<Item = (StreamKey, &Waiting)> {
        self.order.iter().filter_map(|key| {
            let stream = self.streams.get(key.slot).filter(|stream| stream.number == key.number)?;
            Some((*key, stream))
        })
    }
}

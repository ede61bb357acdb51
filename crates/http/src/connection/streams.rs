//! The streams of a connection that carries many: polled in its one task, each only when it was woken.
//!
//! Places are used again, with their wakers; a connection that stays without streams gives them back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tidegate_codec::prefetch;

use super::wakes::{BITS, Wakes};

/// See the module.
pub(super) struct Streams<F> {
    wakes: Wakes,
    places: Vec<Place<F>>,
    free: Vec<usize>,
    live: usize,
}

struct Place<F> {
    /// `None` while the place is free.
    future: Option<Pin<Box<F>>>,
    waker: Waker,
}

impl<F: Future<Output = ()>> Streams<F> {
    /// No streams.
    pub(super) fn new() -> Self {
        Self { wakes: Wakes::new(), places: Vec::new(), free: Vec::new(), live: 0 }
    }

    /// Who was woken.
    pub(super) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Streams that have not ended.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Begins a stream with its first poll; `open` is told its place.
    pub(super) fn begin(&mut self, open: impl FnOnce(usize) -> F) {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.places.len();
            self.places.push(Place { future: None, waker: self.wakes.waker(index) });
            index
        });
        // Begun where it stays: to move it into memory that is there already costs more than to allocate.
        let future = Box::write(Box::new_uninit(), open(index));
        self.places[index].future = Some(Box::into_pin(future));
        self.live += 1;
        self.poll(index);
    }

    /// Polls the streams that were woken, each once: one that wakes itself waits for the next round.
    pub(super) fn poll_woken(&mut self) {
        for chunk in 0..self.wakes.chunks() {
            let mut woken = self.wakes.take_chunk(chunk);
            let place = |woken: u64| chunk * BITS + woken.trailing_zeros() as usize;
            self.fetch(place(woken));
            while woken != 0 {
                let index = place(woken);
                woken &= woken - 1;
                self.fetch(place(woken));
                self.poll(index);
            }
        }
    }

    /// Asks for the memory of a stream, ahead of its poll: where there are many it has gone from the caches since the
    /// last one.
    fn fetch(&self, index: usize) {
        if let Some(future) = self.places.get(index).and_then(|place| place.future.as_ref()) {
            prefetch(&**future);
        }
    }

    /// Polls every stream once: the connection is over, and they are to see it.
    pub(super) fn poll_all(&mut self) {
        (0..self.places.len()).for_each(|index| self.poll(index));
    }

    fn poll(&mut self, index: usize) {
        let Some(place) = self.places.get_mut(index) else { return };
        let Some(future) = place.future.as_mut() else { return };
        // The task's budget is for one of its kind: many streams would use it up between them and be polled in
        // vain. What a stream does at once is bounded by its buffers.
        let mut future = tokio::task::unconstrained(future.as_mut());
        if let Poll::Ready(()) = Pin::new(&mut future).poll(&mut Context::from_waker(&place.waker)) {
            place.future = None;
            self.free.push(index);
            self.live -= 1;
        }
    }

    /// Gives the places back when no stream is left.
    pub(super) fn release(&mut self) {
        if self.live == 0 && !self.places.is_empty() {
            (self.places, self.free) = (Vec::new(), Vec::new());
            self.wakes.release();
        }
    }
}

//! Peers that take too little, as Envoy counts them: while the upstream does, nothing more of the request is read, and
//! while the client does, nothing more of the response.
//!
//! What only waits for its stream's turn is no pressure.

use std::cell::Cell;

use super::Upstream;

/// On which sides there is pressure.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    by_upstream: Cell<bool>,
    by_client: Cell<bool>,
}

impl Upstream<'_> {
    /// Whether the upstream takes so little that nothing more of the request is read.
    pub fn is_backed_up(&self) -> bool {
        self.pressure.by_upstream.get()
    }

    pub(super) fn set_backed_up(&self, backed_up: bool) {
        if self.pressure.by_upstream.replace(backed_up) != backed_up {
            let stats = &self.facts.cluster.stats().upstream;
            match backed_up {
                true => stats.upstream_flow_control_backed_up_total().inc(),
                false => stats.upstream_flow_control_drained_total().inc(),
            }
        }
    }

    /// Whether the client takes so little that nothing more of the response is read.
    pub fn set_reading_paused(&self, paused: bool) {
        if self.pressure.by_client.replace(paused) != paused {
            let stats = &self.facts.cluster.stats().upstream;
            match paused {
                true => stats.upstream_flow_control_paused_reading_total().inc(),
                false => stats.upstream_flow_control_resumed_reading_total().inc(),
            }
        }
    }
}

/// Who waited does so no more: each pause that was counted has its end.
impl Drop for Upstream<'_> {
    fn drop(&mut self) {
        self.set_backed_up(false);
        self.set_reading_paused(false);
    }
}

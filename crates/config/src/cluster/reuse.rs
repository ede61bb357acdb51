//! `tidegate.upstreams.v1.ConnectionReuse`: how a cluster's connections are used again.

use crate::reader::{Message, Reader};
use crate::values::Place;

/// What a cluster does so that a reused connection costs no user a request (`docs/coming-from-envoy.md`). Envoy has
/// no such message, and `--envoy-strict` refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionReuse {
    /// `safe_retry`, true when unset: an attempt that provably did no harm (nothing was written, the peer says that
    /// it was not processed, or the method is idempotent and the connection was a reused one) is made once more. A
    /// route may switch it off ([`RouterPerRoute`](crate::route::RouterPerRoute)).
    pub safe_retry: bool,
    /// `learn_idle`, true when unset: hosts' own idle timeouts are learned from `Keep-Alive: timeout` and from their
    /// closes, and connections close before them.
    pub learn_idle: bool,
    /// `replay_buffer_bytes`, 64 KiB when unset: bytes of a request's body that are kept for a safe retry. Routes
    /// with a retry policy keep what `request_body_buffer_limit` says, if that is more. 0 keeps nothing.
    pub replay_buffer_bytes: u32,
    /// `max_connecting`, at least 1: connections of the cluster that may be being established at once, all workers
    /// together; `None`: no cap of its own.
    pub max_connecting: Option<u32>,
    /// The message, if it was given: `--envoy-strict` refuses it.
    pub own: Option<Place>,
}

impl Default for ConnectionReuse {
    fn default() -> Self {
        Self {
            safe_retry: true,
            learn_idle: true,
            replay_buffer_bytes: 64 * 1024,
            max_connecting: None,
            own: None,
        }
    }
}

impl ConnectionReuse {
    /// Its key in `typed_extension_protocol_options`.
    pub(super) const KEY: &'static str = "tidegate.connection_reuse";
}

impl Message for ConnectionReuse {
    const NAME: &'static str = "tidegate.upstreams.v1.ConnectionReuse";

    fn read(r: &Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            safe_retry: r.bool("safe_retry").or(default.safe_retry),
            learn_idle: r.bool("learn_idle").or(default.learn_idle),
            replay_buffer_bytes: r.u32("replay_buffer_bytes").or(default.replay_buffer_bytes),
            max_connecting: r.u32("max_connecting").positive().optional(),
            own: Some(Place::of(r)),
        }
    }
}

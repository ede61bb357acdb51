//! `tidegate.upstreams.v1.Http3Selection`: when a cluster that may speak HTTP/3 or TCP tries which.

use std::time::Duration;

use crate::reader::{Message, Reader};
use crate::values::Place;

/// What `auto_config` with `http3_protocol_options` leaves open (`docs/http3.md`). Envoy has no such message, and
/// `--envoy-strict` refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http3Selection {
    /// `tcp_delay`, 300 ms when unset, which is Envoy's fixed number: so long QUIC has for itself before TCP is tried
    /// beside it. 0 starts both at once.
    pub tcp_delay: Duration,
    /// `https_records`, true when unset: where the cluster's names are looked up by DNS and it names a cache of
    /// alternatives, HTTPS records (RFC 9460) are asked for, too, and believed.
    pub https_records: bool,
    /// The message, if it was given: `--envoy-strict` refuses it.
    pub own: Option<Place>,
}

impl Default for Http3Selection {
    fn default() -> Self {
        Self { tcp_delay: Duration::from_millis(300), https_records: true, own: None }
    }
}

impl Http3Selection {
    /// Its key in `typed_extension_protocol_options`.
    pub(super) const KEY: &'static str = "tidegate.http3_selection";
}

impl Message for Http3Selection {
    const NAME: &'static str = "tidegate.upstreams.v1.Http3Selection";

    fn read(r: &Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            tcp_delay: r.duration("tcp_delay").or(default.tcp_delay),
            https_records: r.bool("https_records").or(default.https_records),
            own: Some(Place::of(r)),
        }
    }
}

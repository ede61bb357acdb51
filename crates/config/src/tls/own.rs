//! `tidegate.transport_sockets.tls.v1.TlsContext`: Envoy's contexts and what Envoy has no field for.

use super::{DownstreamTls, UpstreamTls};
use crate::reader::{Message, Reader};
use crate::values::Place;

/// `close_notify`: when a connection that we close is ended by TLS's own closing alert (RFC 8446 §6.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CloseNotify {
    /// `ALWAYS`, as Envoy.
    #[default]
    Always,
    /// `NOT_ON_IDLE`: not when an idle connection ends, for old clients that then see an error at their next
    /// use of it.
    NotOnIdle,
    /// `NEVER`.
    Never,
}

/// The message; which of the contexts it holds depends on where it stands.
pub(crate) struct OwnTls {
    pub(crate) downstream: Option<DownstreamTls>,
    pub(crate) upstream: Option<UpstreamTls>,
}

impl Message for OwnTls {
    const NAME: &'static str = "tidegate.transport_sockets.tls.v1.TlsContext";

    fn read(r: &Reader<'_>) -> Self {
        const CLOSE_NOTIFY: &[(&str, u32, CloseNotify)] = &[
            ("ALWAYS", 0, CloseNotify::Always),
            ("NOT_ON_IDLE", 1, CloseNotify::NotOnIdle),
            ("NEVER", 2, CloseNotify::Never),
        ];
        let close_notify = r.enumeration("close_notify", CLOSE_NOTIFY, &[]).or_default();
        let downstream = r.message::<DownstreamTls>("downstream_tls_context").optional();
        let upstream = r.message::<UpstreamTls>("upstream_tls_context").optional();
        r.exactly_one(&["downstream_tls_context", "upstream_tls_context"]);
        let own = Some(Place::of(r));
        Self {
            downstream: downstream.map(|context| DownstreamTls { close_notify, own: own.clone(), ..context }),
            upstream: upstream.map(|context| UpstreamTls { close_notify, own: own.clone(), ..context }),
        }
    }
}

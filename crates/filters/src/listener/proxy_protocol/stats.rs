//! `proxy_proto.`.

use tidegate_stats::{Scope, Store, stat_block};

use super::config::Version;

stat_block! {
    struct Sum {
        counters {
            /// Headers that were refused.
            downstream_cx_proxy_proto_error,
        }
    }
}

stat_block! {
    struct Presences {
        counters {
            /// Clients without a header that were served.
            not_found_allowed,
            /// Clients without a header that were refused.
            not_found_disallowed,
        }
    }
}

stat_block! {
    struct OfVersion {
        counters {
            /// Good headers.
            found,
            /// Refused for their version.
            disallowed,
            /// Malformed ones.
            error,
        }
    }
}

/// The filter's counters.
pub(super) struct ProxyStats {
    sum: Sum,
    presences: Presences,
    v1: OfVersion,
    v2: OfVersion,
}

impl ProxyStats {
    pub(super) fn new(store: &Store, prefix: &str) -> Self {
        let scope = Scope::root().child("proxy_proto");
        let scope = match prefix {
            "" => scope,
            prefix => scope.tagged("envoy_proxy_protocol_prefix", prefix),
        };
        let version = |name| OfVersion::new(store, scope.child("versions").child(name));
        Self {
            sum: Sum::new(store, Scope::root()),
            v1: version("v1"),
            v2: version("v2"),
            presences: Presences::new(store, scope),
        }
    }

    pub(super) fn not_found_allowed(&self) {
        self.presences.not_found_allowed().inc();
    }

    pub(super) fn not_found_disallowed(&self) {
        self.presences.not_found_disallowed().inc();
        self.sum.downstream_cx_proxy_proto_error().inc();
    }

    pub(super) fn found(&self, version: Version) {
        self.of(version).found().inc();
    }

    pub(super) fn disallowed(&self, version: Version) {
        self.of(version).disallowed().inc();
    }

    pub(super) fn error(&self, version: Version) {
        self.of(version).error().inc();
        self.sum.downstream_cx_proxy_proto_error().inc();
    }

    fn of(&self, version: Version) -> &OfVersion {
        match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        }
    }
}

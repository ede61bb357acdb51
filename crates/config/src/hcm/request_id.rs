//! `x-request-id`: `request_id_extension` and the manager's fields around it.

use crate::reader::{Message, Reader};

/// `x-request-id` handling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIdConfig {
    /// `generate_request_id`, true when unset.
    pub generate: bool,
    /// `preserve_external_request_id`.
    pub preserve_external: bool,
    /// `always_set_request_id_in_response`.
    pub always_set_in_response: bool,
    /// `request_id_extension` (UUID) `pack_trace_reason`, true when unset.
    pub pack_trace_reason: bool,
}

impl RequestIdConfig {
    /// Its fields of the manager that `r` reads.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        Self {
            generate: r.bool("generate_request_id").or(true),
            preserve_external: r.bool("preserve_external_request_id").or_default(),
            always_set_in_response: r.bool("always_set_request_id_in_response").or_default(),
            pack_trace_reason: r
                .message::<RequestIdExtension>("request_id_extension")
                .optional()
                .is_none_or(|x| x.0),
        }
    }
}

/// `request_id_extension`: the UUID one, and whether it packs the trace reason.
struct RequestIdExtension(bool);

impl Message for RequestIdExtension {
    const NAME: &'static str =
        "envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<Uuid>();
        let any = r.any("typed_config");
        if any.peek().is_some_and(|any| !any.is::<Uuid>()) {
            let expected = format!("type.googleapis.com/{}", Uuid::NAME);
            any.report("this request id extension is not supported by this build", Some(expected));
            return Self(true);
        }
        Self(any.optional().is_none_or(|any| any.read::<Uuid>(r).0))
    }
}

struct Uuid(bool);

impl Message for Uuid {
    const NAME: &'static str = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.bool("pack_trace_reason").or(true))
    }
}

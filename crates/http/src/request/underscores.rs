//! `headers_with_underscores_action`: some servers read `a_b` as `a-b`. HTTP/2's codec applies it by itself.

use http::{HeaderName, StatusCode};
use tidegate_config::protocol::UnderscoreAction;
use tidegate_filter::LocalReply;
use tidegate_types::{RequestHead, ResponseFlags};

use crate::hcm::Hcm;

/// Applies the action.
///
/// # Errors
/// The refusal.
pub(super) fn apply(hcm: &Hcm, head: &mut RequestHead) -> Result<(), Box<LocalReply>> {
    if !head.headers.keys().any(|name| name.as_str().contains('_')) {
        return Ok(());
    }
    match hcm.config.common.headers_with_underscores_action {
        UnderscoreAction::Allow => Ok(()),
        UnderscoreAction::RejectRequest => {
            hcm.codec_stats.requests_rejected_with_underscores_in_headers().inc();
            hcm.stats.downstream_cx_protocol_error().inc();
            let reply =
                LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", "http1.unexpected_underscore");
            Err(Box::new(reply.with_flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)))
        }
        UnderscoreAction::DropHeader => {
            let names: Vec<HeaderName> =
                head.headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
            for name in names {
                hcm.codec_stats.dropped_headers_with_underscores().inc();
                head.headers.remove(name);
            }
            Ok(())
        }
    }
}

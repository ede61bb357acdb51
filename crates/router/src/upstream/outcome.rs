//! The one table from a failed attempt to what the client and the log are told
//! (spec: Envoy docs, "Access logging" response flags and "Response code details").

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode};
use tidegate_cluster::Dropped;
use tidegate_cluster::stream::{ResetCode, StreamError};
use tidegate_filter::LocalReply;
use tidegate_types::{ResetReason, ResponseFlags, details};

use super::deadlines::RouterTimeout;
use crate::retry::safe::Fate;
use crate::route::EnvoyHeaders;
use crate::timeout::LateAnswer;

/// Why an attempt has no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The load balancer has no host, or no pool may be made for it.
    NoHost,
    /// The stream was refused, or lost with its connection.
    Reset { reason: ResetReason, transport: Option<String>, fate: Fate },
    /// A reused connection ended under it, and nothing allows to send it again.
    Stale,
    /// A deadline of the router passed.
    Timeout(RouterTimeout),
}

impl Failure {
    /// What became of the stream when reading or writing it failed.
    pub(super) fn of_stream(error: &StreamError) -> Self {
        let reason = match error {
            StreamError::Closed | StreamError::Io(_) => ResetReason::ConnectionTermination,
            StreamError::Protocol { .. } | StreamError::Truncated => ResetReason::ProtocolError,
            StreamError::Reset { code: ResetCode::Refused, .. } => ResetReason::RemoteRefused,
            // The peer says that we broke the protocol: for Envoy the reset is its own.
            StreamError::Reset { code: ResetCode::Protocol, by_peer: true } => ResetReason::ProtocolError,
            StreamError::Reset { code: ResetCode::Connect, by_peer: true } => ResetReason::ConnectError,
            StreamError::Reset { by_peer: true, .. } => ResetReason::RemoteReset,
            StreamError::Reset { by_peer: false, .. } => ResetReason::LocalReset,
        };
        Self::Reset { reason, transport: None, fate: Fate::Unknown }
    }

    /// The same, knowing whether the request may have been processed.
    pub(super) fn with_fate(self, known: Fate) -> Self {
        match self {
            Self::Reset { reason, transport, .. } => Self::Reset { reason, transport, fate: known },
            other => other,
        }
    }

    /// The same, with what the transport has to say.
    pub(super) fn with_transport(self, said: Option<String>) -> Self {
        match self {
            Self::Reset { reason, transport, fate } => {
                Self::Reset { reason, transport: transport.or(said), fate }
            }
            other => other,
        }
    }

    /// The reply to the client, before any part of a response went down. `informed`: a 1xx head had come, for
    /// Envoy the response's start.
    pub(super) fn reply(&self, retried: bool, informed: bool, late: LateAnswer) -> LocalReply {
        match self {
            Self::NoHost => LocalReply::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no healthy upstream",
                details::NO_HEALTHY_UPSTREAM,
            )
            .with_flags(ResponseFlags::NO_HEALTHY_UPSTREAM),
            Self::Reset { reason, transport, .. } => {
                let when = if informed { "after" } else { "before" };
                reset_reply(*reason, retried, reset_details(when, reason.as_str(), transport.as_deref()))
            }
            Self::Stale => {
                let details = reset_details("before", "stale_connection", None);
                reset_reply(ResetReason::ConnectionTermination, retried, details)
            }
            Self::Timeout(timeout) => {
                let (body, details, flag) = timeout_facts(*timeout);
                let reply = match (late, timeout) {
                    (LateAnswer::GatewayTimeout, _) | (_, RouterTimeout::MaxStreamDuration) => {
                        LocalReply::new(StatusCode::GATEWAY_TIMEOUT, body, details)
                    }
                    (LateAnswer::NoContent, _) => LocalReply::new(StatusCode::NO_CONTENT, "", details),
                };
                reply.with_flags(flag)
            }
        }
    }

    /// Flag and details when the response had already begun.
    pub(super) fn cut(&self) -> (ResponseFlags, Cow<'static, str>) {
        match self {
            Self::NoHost => (ResponseFlags::NO_HEALTHY_UPSTREAM, details::NO_HEALTHY_UPSTREAM.into()),
            Self::Reset { reason, transport, .. } => {
                (flag(*reason), reset_details("after", reason.as_str(), transport.as_deref()).into())
            }
            Self::Stale => {
                let reason = ResetReason::ConnectionTermination;
                (flag(reason), reset_details("after", reason.as_str(), None).into())
            }
            Self::Timeout(timeout) => {
                let (_, details, flag) = timeout_facts(*timeout);
                (flag, details.into())
            }
        }
    }
}

fn reset_reply(reason: ResetReason, retried: bool, details: String) -> LocalReply {
    let how = if retried { "retried and the latest " } else { "" };
    let text = reason.as_str();
    let body =
        format!("upstream connect error or disconnect/reset before headers. {how}reset reason: {text}");
    let mut reply = LocalReply::new(status(reason), body, details).with_flags(flag(reason));
    if reason == ResetReason::Overflow {
        reply.headers.push((OVERLOADED, HeaderValue::from_static("true")));
    }
    reply
}

/// The reply in place of an upstream that is in maintenance.
pub(super) fn maintenance(envoy: EnvoyHeaders) -> LocalReply {
    let mut reply =
        LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "maintenance mode", details::MAINTENANCE_MODE)
            .with_flags(ResponseFlags::UPSTREAM_OVERFLOW);
    if envoy == EnvoyHeaders::Add {
        reply.headers.push((OVERLOADED, HeaderValue::from_static("true")));
    }
    reply
}

/// The reply in place of an upstream whose requests are dropped.
pub(super) fn dropped(dropped: Dropped, envoy: EnvoyHeaders) -> LocalReply {
    let (body, details, flag, name) = match dropped {
        Dropped::All => (
            "unconditional drop overload",
            details::UNCONDITIONAL_DROP_OVERLOAD,
            ResponseFlags::UNCONDITIONAL_DROP_OVERLOAD,
            UNCONDITIONALLY_DROPPED,
        ),
        Dropped::Some => ("drop overload", details::DROP_OVERLOAD, ResponseFlags::DROP_OVERLOAD, DROPPED),
    };
    let mut reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details).with_flags(flag);
    if envoy == EnvoyHeaders::Add {
        reply.headers.push((name, HeaderValue::from_static("true")));
    }
    reply
}

const DROPPED: HeaderName = HeaderName::from_static("x-envoy-drop-overload");
const UNCONDITIONALLY_DROPPED: HeaderName = HeaderName::from_static("x-envoy-unconditional-drop-overload");

/// `x-envoy-overloaded`.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

fn status(reason: ResetReason) -> StatusCode {
    match reason {
        ResetReason::ProtocolError => StatusCode::BAD_GATEWAY,
        ResetReason::Overflow
        | ResetReason::RemoteConnectionFailure
        | ResetReason::LocalConnectionFailure
        | ResetReason::ConnectionTimeout
        | ResetReason::ConnectionTermination
        | ResetReason::RemoteReset
        | ResetReason::RemoteRefused
        | ResetReason::ConnectError
        | ResetReason::LocalReset => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn flag(reason: ResetReason) -> ResponseFlags {
    match reason {
        ResetReason::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
        ResetReason::RemoteConnectionFailure
        | ResetReason::LocalConnectionFailure
        | ResetReason::ConnectionTimeout => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
        ResetReason::ConnectionTermination => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
        ResetReason::RemoteReset | ResetReason::RemoteRefused | ResetReason::ConnectError => {
            ResponseFlags::UPSTREAM_REMOTE_RESET
        }
        ResetReason::LocalReset => ResponseFlags::LOCAL_RESET,
        ResetReason::ProtocolError => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
    }
}

fn timeout_facts(timeout: RouterTimeout) -> (&'static str, &'static str, ResponseFlags) {
    let late = ResponseFlags::UPSTREAM_REQUEST_TIMEOUT;
    match timeout {
        RouterTimeout::Route => ("upstream request timeout", details::RESPONSE_TIMEOUT, late),
        RouterTimeout::PerTry => ("upstream request timeout", details::UPSTREAM_PER_TRY_TIMEOUT, late),
        RouterTimeout::PerTryIdle => {
            ("upstream request timeout", details::UPSTREAM_PER_TRY_IDLE_TIMEOUT, late)
        }
        RouterTimeout::MaxStreamDuration => (
            "upstream max stream duration reached",
            details::UPSTREAM_MAX_STREAM_DURATION_REACHED,
            ResponseFlags::UPSTREAM_MAX_STREAM_DURATION,
        ),
    }
}

/// `upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_...}`:
/// details hold no blanks.
fn reset_details(when: &str, reason: &str, transport: Option<&str>) -> String {
    let separator = if transport.is_some() { "|" } else { "" };
    let transport = transport.unwrap_or_default();
    format!("upstream_reset_{when}_response_started{{{reason}{separator}{transport}}}").replace(' ', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_as_envoy_tells_them() {
        let refused = Failure::Reset {
            reason: ResetReason::RemoteConnectionFailure,
            transport: Some("delayed connect error: Connection refused".into()),
            fate: Fate::Unknown,
        };
        let reply = refused.reply(false, false, LateAnswer::default());
        assert_eq!(reply.status, 503);
        assert_eq!(reply.body.len(), 98);
        assert_eq!(
            reply.details,
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
        assert_eq!(refused.reply(true, false, LateAnswer::default()).body.len(), 121);
        let reset = |reason| {
            let failure = Failure::Reset { reason, transport: None, fate: Fate::Unknown };
            failure.reply(false, false, LateAnswer::default())
        };
        let overflow = reset(ResetReason::Overflow);
        assert_eq!((overflow.body.len(), overflow.headers.len()), (81, 1));
        assert_eq!(overflow.flags, ResponseFlags::UPSTREAM_OVERFLOW);
        let lengths = [
            (ResetReason::RemoteReset, 503, 85),
            (ResetReason::RemoteRefused, 503, 100),
            (ResetReason::ProtocolError, 502, 87),
            (ResetReason::ConnectionTermination, 503, 95),
        ];
        for (reason, status, length) in lengths {
            let reply = reset(reason);
            assert_eq!((reply.status.as_u16(), reply.body.len()), (status, length), "{reason:?}");
        }
        let stale = Failure::Stale.reply(false, false, LateAnswer::default());
        assert_eq!((stale.body.len(), stale.flags), (95, ResponseFlags::UPSTREAM_CONNECTION_TERMINATION));
        assert_eq!(stale.details, "upstream_reset_before_response_started{stale_connection}");
        let (flag, cut) = Failure::of_stream(&StreamError::Protocol { details: "x" }).cut();
        assert_eq!(flag, ResponseFlags::UPSTREAM_PROTOCOL_ERROR);
        assert_eq!(cut, "upstream_reset_after_response_started{protocol_error}");
    }

    #[test]
    fn the_transport_may_add_its_words() {
        let failure = Failure::of_stream(&StreamError::Reset { code: ResetCode::NoError, by_peer: true });
        let failure = failure.with_transport(Some("QUIC_STREAM_NO_ERROR|FROM_PEER".to_owned()));
        let (_, details) = failure.cut();
        assert_eq!(
            details,
            "upstream_reset_after_response_started{remote_reset|QUIC_STREAM_NO_ERROR|FROM_PEER}"
        );
    }

    #[test]
    fn resets_of_streams_are_told_by_their_codes() {
        let told = |code, by_peer| {
            let failure = Failure::of_stream(&StreamError::Reset { code, by_peer });
            let (flag, details) = failure.cut();
            let Failure::Reset { reason, .. } = failure else { panic!("{failure:?}") };
            (reason, flag, details.into_owned())
        };
        let remote = ResponseFlags::UPSTREAM_REMOTE_RESET;
        for code in [ResetCode::Cancel, ResetCode::NoError, ResetCode::Internal, ResetCode::EnhanceYourCalm] {
            let details = "upstream_reset_after_response_started{remote_reset}";
            assert_eq!(told(code, true), (ResetReason::RemoteReset, remote, details.to_owned()));
        }
        assert_eq!(told(ResetCode::Refused, true).0, ResetReason::RemoteRefused);
        let of_connect = told(ResetCode::Connect, true);
        assert_eq!(of_connect.1, remote);
        assert!(of_connect.2.ends_with("{remote_error_with_CONNECT_request}"), "{}", of_connect.2);
        let (reason, flag, _) = told(ResetCode::Protocol, true);
        assert_eq!((reason, flag), (ResetReason::ProtocolError, ResponseFlags::UPSTREAM_PROTOCOL_ERROR));
        assert_eq!(told(ResetCode::Cancel, false).0, ResetReason::LocalReset);
    }
}

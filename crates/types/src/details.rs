//! Response-code details strings: the values of `%RESPONSE_CODE_DETAILS%`.
//!
//! Source: Envoy docs, "Response Code Details", and runs of Envoy 1.40.

/// The upstream's own response was passed on.
pub const VIA_UPSTREAM: &str = "via_upstream";
/// The upstream redirected, and the proxy followed.
pub const INTERNAL_REDIRECT: &str = "internal_redirect";
/// The route answered by itself.
pub const DIRECT_RESPONSE: &str = "direct_response";
/// No route matched.
pub const ROUTE_NOT_FOUND: &str = "route_not_found";
/// The route's cluster does not exist.
pub const CLUSTER_NOT_FOUND: &str = "cluster_not_found";
/// The load balancer returned no host.
pub const NO_HEALTHY_UPSTREAM: &str = "no_healthy_upstream";
/// The cluster is in maintenance mode.
pub const MAINTENANCE_MODE: &str = "maintenance_mode";
/// The cluster drops a share of its requests.
pub const DROP_OVERLOAD: &str = "drop_overload";
/// The cluster drops all requests.
pub const UNCONDITIONAL_DROP_OVERLOAD: &str = "unconditional_drop_overload";
/// The client went away.
pub const DOWNSTREAM_REMOTE_DISCONNECT: &str = "downstream_remote_disconnect";
/// The client reset the stream.
pub const DOWNSTREAM_RESET: &str = "http2.remote_reset";
/// The client refused the stream.
pub const DOWNSTREAM_REFUSED: &str = "http2.remote_refuse";
/// The connection was closed over a frame, or over another stream's message, that breaks the rules (RFC 9113 §8.1.1).
/// The wording is Envoy's for all of them.
pub const DOWNSTREAM_VIOLATION: &str = "codec_error:The_user_callback_function_failed";
/// The client answered no PING in time.
pub const DOWNSTREAM_PING_TIMEOUT: &str = "downstream_local_disconnect(http2_ping_timeout)";
/// The listener, or the process, waited long enough.
pub const DOWNSTREAM_DRAINED: &str = "downstream_local_disconnect(drained)";
/// The client sent too many empty frames.
pub const EMPTY_FRAMES_FLOOD: &str = "http2.inbound_empty_frames_flood";
/// The client sent too many PRIORITY frames.
pub const PRIORITY_FLOOD: &str = "http2.inbound_priority_frames_flood";
/// The client sent too many WINDOW_UPDATE frames.
pub const WINDOW_UPDATE_FLOOD: &str = "http2.inbound_window_update_frames_flood";
/// Frames that the client does not take are over `max_outbound_frames`.
pub const OUTBOUND_FLOOD: &str = "http2.outbound_frames_flood";
/// Answers that the client does not take are over `max_outbound_control_frames`.
pub const OUTBOUND_CONTROL_FLOOD: &str = "http2.outbound_control_frames_flood";
/// Too many streams were reset before their response.
pub const PREMATURE_RESETS: &str = "too_many_premature_resets";
/// `stream_idle_timeout` or a route's `idle_timeout` fired.
pub const STREAM_IDLE_TIMEOUT: &str = "stream_idle_timeout";
/// `request_timeout` fired.
pub const REQUEST_OVERALL_TIMEOUT: &str = "request_overall_timeout";
/// `request_headers_timeout` fired.
pub const REQUEST_HEADER_TIMEOUT: &str = "request_header_timeout";
/// `max_stream_duration` fired.
pub const MAX_DURATION_TIMEOUT: &str = "max_duration_timeout";
/// The route's `timeout` fired.
pub const RESPONSE_TIMEOUT: &str = "response_timeout";
/// `per_try_timeout` fired.
pub const UPSTREAM_PER_TRY_TIMEOUT: &str = "upstream_per_try_timeout";
/// `per_try_idle_timeout` fired.
pub const UPSTREAM_PER_TRY_IDLE_TIMEOUT: &str = "upstream_per_try_idle_timeout";
/// The cluster's `max_stream_duration` fired.
pub const UPSTREAM_MAX_STREAM_DURATION_REACHED: &str = "upstream_max_stream_duration_reached";
/// The request was not valid HTTP/1.
pub const HTTP1_CODEC_ERROR: &str = "http1.codec_error";
/// An HTTP/1.0 or older request where it is not accepted.
pub const LOW_VERSION: &str = "low_version";
/// HTTP/1.1 without `Host`.
pub const MISSING_HOST: &str = "missing_host_header";
/// The path is absolute where only a relative one is allowed.
pub const ABSOLUTE_PATH: &str = "absolute_path_rejected";
/// Path normalization refused the path.
pub const PATH_NORMALIZATION_FAILED: &str = "path_normalization_failed";
/// An upgrade that no configuration allows.
pub const UPGRADE_FAILED: &str = "upgrade_failed";
/// The request body is larger than a buffering filter allows.
pub const REQUEST_PAYLOAD_TOO_LARGE: &str = "request_payload_too_large";
/// The response is larger than a buffering filter allows.
pub const RESPONSE_PAYLOAD_TOO_LARGE: &str = "response_payload_too_large";
/// A filter's code panicked: the stream is lost, the worker goes on.
pub const FILTER_PANICKED: &str = "filter_panicked";
/// The overload manager refused the request.
pub const OVERLOAD: &str = "overload";
/// No filter chain matched the connection.
pub const FILTER_CHAIN_NOT_FOUND: &str = "filter_chain_not_found";

//! `envoy.config.accesslog.v3.AccessLog` and its filters.

use std::time::Duration;

use tidegate_types::json::TypedConfig;

use crate::route::HeaderMatcher;
use crate::values::FractionalPercent;

/// One access log: where to write and what to leave out.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLogConfig {
    /// `typed_config`, decoded by the access logger that the registry has for its `@type`.
    pub logger: TypedConfig,
    /// `filter`; `None` logs everything.
    pub filter: Option<AccessLogFilter>,
}

/// `envoy.config.accesslog.v3.AccessLogFilter`.
#[derive(Debug, Clone, PartialEq)]
pub enum AccessLogFilter {
    /// `status_code_filter`.
    StatusCode(Comparison),
    /// `duration_filter`, in milliseconds of the whole stream.
    Duration(Comparison),
    /// `not_health_check_filter`.
    NotHealthCheck,
    /// `traceable_filter`.
    Traceable,
    /// `runtime_filter`.
    Runtime {
        /// `runtime_key`.
        key: String,
        /// `percent_sampled`.
        sampled: FractionalPercent,
        /// `use_independent_randomness`.
        independent: bool,
    },
    /// `and_filter`, at least two.
    And(Vec<AccessLogFilter>),
    /// `or_filter`, at least two.
    Or(Vec<AccessLogFilter>),
    /// `header_filter`.
    Header(HeaderMatcher),
    /// `response_flag_filter`: short names; empty matches any flag.
    ResponseFlag(Vec<String>),
}

/// `ComparisonFilter` with its runtime override.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// `op`.
    pub op: ComparisonOp,
    /// `value.default_value`.
    pub value: u32,
    /// `value.runtime_key`, whose value overrides `value`.
    pub runtime_key: String,
}

/// `ComparisonFilter.Op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonOp {
    /// `EQ`.
    Equal,
    /// `GE`.
    GreaterOrEqual,
    /// `LE`.
    LessOrEqual,
    /// `NE`.
    NotEqual,
}

/// `access_log_options`: when a log line is written besides the stream's end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// `access_log_flush_interval`, at least 1 ms; `None` writes no interim lines.
    pub flush_interval: Option<Duration>,
    /// `flush_access_log_on_new_request`.
    pub on_new_request: bool,
    /// `flush_log_on_tunnel_successfully_established`.
    pub on_tunnel_established: bool,
}

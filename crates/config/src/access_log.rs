//! `envoy.config.accesslog.v3.AccessLog` and its filters.

use tidegate_types::json::TypedConfig;

use crate::reader::{Message, Reader};
use crate::route::HeaderMatcher;
use crate::values::{Empty, FractionalPercent};

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
    /// `grpc_status_filter`.
    GrpcStatus {
        /// `statuses`, as numbers.
        statuses: Vec<u8>,
        /// `exclude`: those with another status.
        exclude: bool,
    },
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

impl Message for Option<AccessLogConfig> {
    const NAME: &'static str = "envoy.config.accesslog.v3.AccessLog";

    fn read(r: &Reader<'_>) -> Self {
        let filter = r.message::<Option<AccessLogFilter>>("filter").optional().flatten();
        Some(AccessLogConfig { logger: r.extension()?, filter })
    }
}

/// The field `access_log`.
pub(crate) fn access_logs(r: &Reader<'_>) -> Vec<AccessLogConfig> {
    r.repeated::<Option<AccessLogConfig>>("access_log").or_default().into_iter().flatten().collect()
}

impl Message for Option<AccessLogFilter> {
    const NAME: &'static str = "envoy.config.accesslog.v3.AccessLogFilter";

    fn read(r: &Reader<'_>) -> Self {
        let all = [
            r.message::<StatusCodeFilter>("status_code_filter")
                .optional()
                .map(|f| AccessLogFilter::StatusCode(f.0)),
            r.message::<DurationFilter>("duration_filter").optional().map(|f| AccessLogFilter::Duration(f.0)),
            r.message::<Empty>("not_health_check_filter").optional().map(|_| AccessLogFilter::NotHealthCheck),
            r.message::<Empty>("traceable_filter").optional().map(|_| AccessLogFilter::Traceable),
            r.message::<RuntimeFilter>("runtime_filter").optional().map(|f| f.0),
            r.message::<AndFilter>("and_filter").optional().map(|f| AccessLogFilter::And(f.0)),
            r.message::<OrFilter>("or_filter").optional().map(|f| AccessLogFilter::Or(f.0)),
            r.message::<HeaderFilter>("header_filter").optional().map(|f| AccessLogFilter::Header(f.0)),
            r.message::<FlagFilter>("response_flag_filter")
                .optional()
                .map(|f| AccessLogFilter::ResponseFlag(f.0)),
            r.message::<GrpcStatusFilter>("grpc_status_filter").optional().map(|f| f.0),
        ];
        r.exactly_one(&[
            "status_code_filter",
            "duration_filter",
            "not_health_check_filter",
            "traceable_filter",
            "runtime_filter",
            "and_filter",
            "or_filter",
            "header_filter",
            "response_flag_filter",
            "grpc_status_filter",
        ]);
        all.into_iter().flatten().next()
    }
}

struct StatusCodeFilter(Comparison);

impl Message for StatusCodeFilter {
    const NAME: &'static str = "envoy.config.accesslog.v3.StatusCodeFilter";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.required_message("comparison"))
    }
}

struct DurationFilter(Comparison);

impl Message for DurationFilter {
    const NAME: &'static str = "envoy.config.accesslog.v3.DurationFilter";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.required_message("comparison"))
    }
}

impl Message for Comparison {
    const NAME: &'static str = "envoy.config.accesslog.v3.ComparisonFilter";

    fn read(r: &Reader<'_>) -> Self {
        const OPS: &[(&str, u32, ComparisonOp)] = &[
            ("EQ", 0, ComparisonOp::Equal),
            ("GE", 1, ComparisonOp::GreaterOrEqual),
            ("LE", 2, ComparisonOp::LessOrEqual),
            ("NE", 3, ComparisonOp::NotEqual),
        ];
        let RuntimeU32 { value, runtime_key } = r.required_message("value");
        Self { op: r.enumeration("op", OPS, &[]).or(ComparisonOp::Equal), value, runtime_key }
    }
}

struct RuntimeU32 {
    value: u32,
    runtime_key: String,
}

impl Message for RuntimeU32 {
    const NAME: &'static str = "envoy.config.core.v3.RuntimeUInt32";

    fn read(r: &Reader<'_>) -> Self {
        Self { value: r.u32("default_value").or_default(), runtime_key: r.string("runtime_key").or_default() }
    }
}

struct RuntimeFilter(AccessLogFilter);

impl Message for RuntimeFilter {
    const NAME: &'static str = "envoy.config.accesslog.v3.RuntimeFilter";

    fn read(r: &Reader<'_>) -> Self {
        Self(AccessLogFilter::Runtime {
            key: r.string("runtime_key").required_non_empty(),
            sampled: r.message_or_defaults("percent_sampled"),
            independent: r.bool("use_independent_randomness").or_default(),
        })
    }
}

struct AndFilter(Vec<AccessLogFilter>);

impl Message for AndFilter {
    const NAME: &'static str = "envoy.config.accesslog.v3.AndFilter";

    fn read(r: &Reader<'_>) -> Self {
        Self(filters(r))
    }
}

struct OrFilter(Vec<AccessLogFilter>);

impl Message for OrFilter {
    const NAME: &'static str = "envoy.config.accesslog.v3.OrFilter";

    fn read(r: &Reader<'_>) -> Self {
        Self(filters(r))
    }
}

fn filters(r: &Reader<'_>) -> Vec<AccessLogFilter> {
    let all = r.repeated::<Option<AccessLogFilter>>("filters");
    let enough = all.peek().is_some_and(|all| all.len() >= 2);
    if !enough {
        all.report("needs two filters or more", None);
    }
    all.or_default().into_iter().flatten().collect()
}

struct HeaderFilter(HeaderMatcher);

impl Message for HeaderFilter {
    const NAME: &'static str = "envoy.config.accesslog.v3.HeaderFilter";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.required_message("header"))
    }
}

struct FlagFilter(Vec<String>);

impl Message for FlagFilter {
    const NAME: &'static str = "envoy.config.accesslog.v3.ResponseFlagFilter";

    fn read(r: &Reader<'_>) -> Self {
        let flags = r.strings("flags").check(|flags| {
            match flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
                Some(flag) => Err(format!("unknown response flag `{flag}`, known are {}", FLAGS.join(" "))),
                None => Ok(()),
            }
        });
        Self(flags.or_default())
    }
}

struct GrpcStatusFilter(AccessLogFilter);

impl Message for GrpcStatusFilter {
    const NAME: &'static str = "envoy.config.accesslog.v3.GrpcStatusFilter";

    fn read(r: &Reader<'_>) -> Self {
        Self(AccessLogFilter::GrpcStatus {
            statuses: r.enumerations("statuses", GRPC_STATUSES).or_default(),
            exclude: r.bool("exclude").or_default(),
        })
    }
}

/// gRPC docs, "Status codes", with Envoy's spelling of the second.
const GRPC_STATUSES: &[(&str, u32, u8)] = &[
    ("OK", 0, 0),
    ("CANCELED", 1, 1),
    ("UNKNOWN", 2, 2),
    ("INVALID_ARGUMENT", 3, 3),
    ("DEADLINE_EXCEEDED", 4, 4),
    ("NOT_FOUND", 5, 5),
    ("ALREADY_EXISTS", 6, 6),
    ("PERMISSION_DENIED", 7, 7),
    ("RESOURCE_EXHAUSTED", 8, 8),
    ("FAILED_PRECONDITION", 9, 9),
    ("ABORTED", 10, 10),
    ("OUT_OF_RANGE", 11, 11),
    ("UNIMPLEMENTED", 12, 12),
    ("INTERNAL", 13, 13),
    ("UNAVAILABLE", 14, 14),
    ("DATA_LOSS", 15, 15),
    ("UNAUTHENTICATED", 16, 16),
];

/// Envoy docs, "Access logging", `%RESPONSE_FLAGS%`.
const FLAGS: &[&str] = &[
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

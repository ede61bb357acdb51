//! `AccessLogFilter`: which streams are logged; the same conditions choose local-reply mappers.

use tidegate_config::Runtime;
use tidegate_config::access_log::{AccessLogFilter, Comparison, ComparisonOp};
use tidegate_config::values::FractionalPercent;
use tidegate_filter::LogContext;
use tidegate_router::table::matcher::HeaderMatcher;
use tidegate_types::ResponseFlags;

/// A compiled condition.
pub(crate) enum LogFilter {
    Status(Compare),
    Duration(Compare),
    /// Every request is a request of its own here: health checks are told by a filter of theirs.
    NotHealthCheck,
    /// Nothing is traced.
    Never,
    Share(FractionalPercent),
    And(Vec<LogFilter>),
    Or(Vec<LogFilter>),
    Header(HeaderMatcher),
    /// Any of these; empty: any flag at all.
    Flags(ResponseFlags),
    /// One of these gRPC statuses; or none of them.
    GrpcStatus {
        statuses: Vec<u8>,
        exclude: bool,
    },
}

/// A comparison with its runtime override resolved.
pub(crate) struct Compare {
    op: ComparisonOp,
    value: u64,
}

impl Compare {
    fn compile(config: &Comparison, runtime: &Runtime) -> Self {
        let value = runtime.integer(&config.runtime_key).unwrap_or_else(|| config.value.into());
        Self { op: config.op, value }
    }

    fn holds(&self, actual: u64) -> bool {
        match self.op {
            ComparisonOp::Equal => actual == self.value,
            ComparisonOp::GreaterOrEqual => actual >= self.value,
            ComparisonOp::LessOrEqual => actual <= self.value,
            ComparisonOp::NotEqual => actual != self.value,
        }
    }
}

impl LogFilter {
    /// Compiles a condition; the error says what is wrong with a header matcher or a flag.
    pub(crate) fn compile(config: &AccessLogFilter, runtime: &Runtime) -> Result<Self, String> {
        let all = |list: &[AccessLogFilter]| {
            list.iter().map(|one| Self::compile(one, runtime)).collect::<Result<Vec<_>, String>>()
        };
        Ok(match config {
            AccessLogFilter::StatusCode(compare) => Self::Status(Compare::compile(compare, runtime)),
            AccessLogFilter::Duration(compare) => Self::Duration(Compare::compile(compare, runtime)),
            AccessLogFilter::NotHealthCheck => Self::NotHealthCheck,
            AccessLogFilter::Traceable => Self::Never,
            AccessLogFilter::Runtime { key, sampled, .. } => {
                Self::Share(runtime.share(key).unwrap_or(*sampled))
            }
            AccessLogFilter::And(list) => Self::And(all(list)?),
            AccessLogFilter::Or(list) => Self::Or(all(list)?),
            AccessLogFilter::Header(matcher) => Self::Header(HeaderMatcher::compile(matcher)?),
            AccessLogFilter::ResponseFlag(names) => {
                let mut flags = ResponseFlags::NONE;
                for name in names {
                    let flag = ResponseFlags::from_short(name);
                    flags.insert(flag.ok_or_else(|| format!("`{name}` is no response flag"))?);
                }
                Self::Flags(flags)
            }
            AccessLogFilter::GrpcStatus { statuses, exclude } => {
                Self::GrpcStatus { statuses: statuses.clone(), exclude: *exclude }
            }
        })
    }

    /// Whether the stream fulfils it.
    pub(crate) fn matches(&self, cx: &LogContext<'_>) -> bool {
        match self {
            Self::Status(compare) => compare.holds(cx.info.response_code.get().into()),
            Self::Duration(compare) => {
                let duration = cx.info.ended.get().unwrap_or_default();
                compare.holds(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
            }
            Self::NotHealthCheck => !cx.info.health_check.get(),
            Self::Never => false,
            Self::Share(share) => fastrand::u32(..share.denominator.max(1)) < share.numerator,
            Self::And(list) => list.iter().all(|one| one.matches(cx)),
            Self::Or(list) => list.iter().any(|one| one.matches(cx)),
            Self::Header(matcher) => cx.request.is_some_and(|head| matcher.matches_request(head)),
            Self::Flags(flags) if flags.is_empty() => !cx.info.flags.get().is_empty(),
            Self::Flags(flags) => cx.info.flags.get().intersects(*flags),
            Self::GrpcStatus { statuses, exclude } => {
                // A status that is none is `UNKNOWN`, as in Envoy.
                let status = cx.grpc_status().unwrap_or(UNKNOWN);
                statuses.iter().any(|one| u64::from(*one) == status) != *exclude
            }
        }
    }
}

/// gRPC docs, "Status codes".
const UNKNOWN: u64 = 2;

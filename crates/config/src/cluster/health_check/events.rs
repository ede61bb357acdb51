//! Where a check's events go.

use std::collections::BTreeSet;

use tidegate_types::json::Problem;

use crate::reader::{Message, Reader};

/// Which events are written, and to which files. Changes of a host's state always are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckEvents {
    /// `event_log_path` (deprecated), and the file sinks of `event_logger`.
    pub paths: BTreeSet<String>,
    /// `always_log_health_check_failures`: every failure, not only a host's first one.
    pub failures: bool,
    /// `always_log_health_check_success`.
    pub successes: bool,
}

impl CheckEvents {
    pub(super) fn read(r: &Reader<'_>) -> Self {
        let sinks = r.repeated::<Option<FileSink>>("event_logger").or_default();
        let sinks = sinks.into_iter().flatten().map(|sink| sink.0);
        Self {
            paths: r.string("event_log_path").non_empty().into_iter().chain(sinks).collect(),
            failures: r.bool("always_log_health_check_failures").or_default(),
            successes: r.bool("always_log_health_check_success").or_default(),
        }
    }
}

/// The only kind of `event_logger`.
struct FileSink(String);

impl Message for Option<FileSink> {
    const NAME: &'static str = "envoy.config.core.v3.TypedExtensionConfig";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<FileSink>();
        let config = r.extension_any()?.config;
        if config.is::<FileSink>() {
            return Some(config.read(r));
        }
        r.cx.report(Problem {
            expected: Some(FileSink::NAME.to_owned()),
            ..Problem::new(config.path.clone(), r.span, "this event sink is not supported by this build")
        });
        None
    }
}

impl Message for FileSink {
    const NAME: &'static str = "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.string("event_log_path").required_non_empty())
    }
}

//! Access loggers: `envoy.access_loggers.file`, `.stdout` and `.stderr`.
//!
//! A log call formats into a buffer of its worker and appends the line to its target's queue; a background
//! thread writes, at the latest after `--file-flush-interval-msec`. Loggers with the same path share one file.
//! Statistics: `filesystem.`

mod config;
mod line;
mod sink;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;

use tidegate_filter::{AccessLog, AccessLogContext, AccessLogType, LogContext};

use config::{FileConfig, StreamConfig};
use line::LineFormat;
use sink::{Sink, Target};

/// `envoy.access_loggers.file`: `path`, and at most one of `log_format`, `format`, `json_format` and
/// `typed_json_format`, of which the last three are Envoy's deprecated forms.
pub struct FileAccessLog;

/// `envoy.access_loggers.stdout`: `log_format`.
pub struct StdoutAccessLog;

/// `envoy.access_loggers.stderr`: `log_format`.
pub struct StderrAccessLog;

impl AccessLogType for FileAccessLog {
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
    type Config = FileConfig;

    fn build(config: FileConfig, cx: &AccessLogContext<'_>) -> Result<Arc<dyn AccessLog>, String> {
        open(Target::of_path(&config.path), config.format, cx)
    }
}

impl AccessLogType for StdoutAccessLog {
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
    type Config = StreamConfig;

    fn build(config: StreamConfig, cx: &AccessLogContext<'_>) -> Result<Arc<dyn AccessLog>, String> {
        open(Target::Stdout, config.log_format.unwrap_or_default(), cx)
    }
}

impl AccessLogType for StderrAccessLog {
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog";
    type Config = StreamConfig;

    fn build(config: StreamConfig, cx: &AccessLogContext<'_>) -> Result<Arc<dyn AccessLog>, String> {
        open(Target::Stderr, config.log_format.unwrap_or_default(), cx)
    }
}

fn open(target: Target, format: LineFormat, cx: &AccessLogContext<'_>) -> Result<Arc<dyn AccessLog>, String> {
    Ok(Arc::new(LineLog { format, sink: Sink::open(target, cx)? }))
}

/// A format and where its lines go.
struct LineLog {
    format: LineFormat,
    sink: Arc<Sink>,
}

impl AccessLog for LineLog {
    fn log(&self, cx: &LogContext<'_>) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.format.write(cx, line);
            self.sink.append(line);
            // One giant header must not be remembered for ever.
            if line.capacity() > LINE_KEPT {
                *line = String::new();
            }
        });
    }

    fn reopen(&self) {
        self.sink.reopen();
    }

    fn flush(&self) {
        self.sink.flush();
    }
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Bytes of line buffer that a worker keeps between streams.
const LINE_KEPT: usize = 16 << 10;

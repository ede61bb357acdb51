//! One line of the log.

use std::fmt::{self, Write};
use std::time::SystemTime;

pub(crate) use tidegate_types::calendar::{civil, rfc3339};
use tracing::Event;
use tracing::field::{Field, Visit};

use super::loggers::logger_of;
use super::pattern::{Line, Pattern};

/// The event by `pattern`, with its end; the message is followed by the event's fields. Times are in UTC.
pub(super) fn format(pattern: &Pattern, event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let level = match *metadata.level() {
        tracing::Level::TRACE => "trace",
        tracing::Level::DEBUG => "debug",
        tracing::Level::INFO => "info",
        tracing::Level::WARN => "warning",
        tracing::Level::ERROR => "error",
    };
    let thread = std::thread::current();
    fields.message.push_str(&fields.others);
    let parts = Line {
        time: SystemTime::now(),
        thread: thread.name().unwrap_or("-"),
        level,
        logger: logger_of(metadata.target()),
        message: &fields.message,
        file: metadata.file().unwrap_or_default(),
        line: metadata.line().unwrap_or_default(),
    };
    let mut line = String::new();
    pattern.write(&parts, &mut line);
    line.push('\n');
    line
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a `String` does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

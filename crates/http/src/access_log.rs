//! Access logs with their filters, and the call at the end of each stream.

mod filter;

use std::sync::Arc;

use tidegate_config::Runtime;
use tidegate_config::access_log::AccessLogConfig;
use tidegate_filter::{AccessLog, AccessLogContext, LogContext, Registry};
use tidegate_types::json::Problem;

use crate::exchange::Exchange;

pub(crate) use filter::LogFilter;

/// Builds access logs, those of a connection manager or of a listener.
///
/// # Errors
/// Everything that is wrong with loggers and filters.
pub fn build(
    configs: &[AccessLogConfig],
    registry: &Registry,
    cx: &AccessLogContext<'_>,
    runtime: &Runtime,
) -> Result<Vec<Arc<dyn AccessLog>>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut logs: Vec<Arc<dyn AccessLog>> = Vec::new();
    for config in configs {
        let filter = config.filter.as_ref().map(|filter| LogFilter::compile(filter, runtime)).transpose();
        match (registry.build_access_log(&config.logger, cx), filter) {
            (Ok(log), Ok(None)) => logs.push(log),
            (Ok(log), Ok(Some(filter))) => logs.push(Arc::new(Filtered { filter, log })),
            (built, filter) => {
                let place = &config.logger;
                problems.extend(built.err().into_iter().flatten());
                let wrong = |message| Problem::new(place.path.clone(), place.span, message);
                problems.extend(filter.err().map(wrong));
            }
        }
    }
    if problems.is_empty() { Ok(logs) } else { Err(problems) }
}

/// An access log that leaves streams out.
struct Filtered {
    filter: LogFilter,
    log: Arc<dyn AccessLog>,
}

impl AccessLog for Filtered {
    fn log(&self, cx: &LogContext<'_>) {
        if self.filter.matches(cx) {
            self.log.log(cx);
        }
    }

    fn reopen(&self) {
        self.log.reopen();
    }

    fn flush(&self) {
        self.log.flush();
    }
}

/// Logs the exchange, which is over.
pub(crate) fn write(exchange: &Exchange<'_>) {
    let hcm = &exchange.hcm.shared;
    if hcm.logs.is_empty() {
        return;
    }
    let response = exchange.response_head.borrow();
    let trailers = exchange.response_trailers.borrow();
    let again = exchange.again.borrow();
    let cx = LogContext {
        // As in Envoy a redirect has made the request another one by now.
        request: again.as_ref().map(|again| &*again.head).or(exchange.stream.request()),
        response: response.as_ref(),
        response_trailers: trailers.as_ref(),
        local_reply_body: "",
        info: exchange.stream.info(),
    };
    hcm.logs.iter().for_each(|log| log.log(&cx));
}

//! One call per stream to each access log whose filter lets it through.

mod filter;

use tidegate_filter::LogContext;

use crate::exchange::Exchange;

pub(crate) use filter::LogFilter;

/// Logs the exchange, which is over.
pub(crate) fn write(exchange: &Exchange<'_>) {
    let hcm = &exchange.hcm.shared;
    if hcm.logs.is_empty() {
        return;
    }
    let response = exchange.response_head.borrow();
    let trailers = exchange.response_trailers.borrow();
    let cx = LogContext {
        request: exchange.stream.request(),
        response: response.as_ref(),
        response_trailers: trailers.as_ref(),
        local_reply_body: "",
        info: exchange.stream.info(),
    };
    for log in &hcm.logs {
        if log.filter.as_ref().is_none_or(|filter| filter.matches(&cx)) {
            log.log.log(&cx);
        }
    }
}

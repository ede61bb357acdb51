//! A header's value that may hold `%FORMAT%` operators.

use std::cell::RefCell;
use std::fmt;

use http::HeaderValue;
use tidegate_filter::LogContext;
use tidegate_filter::format::{Format, Missing};

/// A header's value, compiled when the configuration is loaded.
pub struct Template(Kind);

enum Kind {
    /// No operator in it: rendering shares the bytes.
    Constant(HeaderValue),
    Format(Format),
}

impl Template {
    /// Compiles `text`.
    ///
    /// # Errors
    /// What is wrong with an operator, or a byte that no header value may hold (RFC 9110 §5.5).
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
            return Err(format!("`{}` is not a valid header value", text.escape_debug()));
        }
        let format = Format::parse(text).map_err(|error| error.to_string())?;
        match format.as_static() {
            Some(constant) => HeaderValue::from_str(constant)
                .map(|value| Self(Kind::Constant(value)))
                .map_err(|_| format!("`{}` is not a valid header value", text.escape_debug())),
            None => Ok(Self(Kind::Format(format))),
        }
    }

    /// The value on one stream, missing facts left out; `None` if it came out as something that no header
    /// value may be.
    pub fn render(&self, cx: &LogContext<'_>) -> Option<HeaderValue> {
        match &self.0 {
            Kind::Constant(value) => Some(value.clone()),
            Kind::Format(format) => SCRATCH.with_borrow_mut(|text| {
                text.clear();
                format.write_with(cx, Missing::Nothing, text);
                HeaderValue::from_str(text).ok()
            }),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<String> = const { RefCell::new(String::new()) };
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Constant(value) => f.debug_tuple("Template").field(value).finish(),
            Kind::Format(format) => f.debug_tuple("Template").field(format).finish(),
        }
    }
}

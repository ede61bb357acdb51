//! A value that may hold `%FORMAT%` operators.

use std::fmt;

use http::HeaderValue;
use tidegate_filter::LogContext;

/// A header's value, compiled when the configuration is loaded. Constants are rendered without a copy.
pub struct Template(HeaderValue);

impl Template {
    /// Compiles `text`; `%%` is a percent sign.
    ///
    /// # Errors
    /// An operator that is unknown, or a byte that no header value may hold (RFC 9110 §5.5).
    pub fn parse(text: &str) -> Result<Self, String> {
        let constant = text.replace("%%", "");
        if constant.contains('%') {
            return Err(format!("`{text}`: operators are not supported yet"));
        }
        HeaderValue::from_str(&text.replace("%%", "%"))
            .map(Self)
            .map_err(|_| format!("`{}` is not a valid header value", text.escape_debug()))
    }

    /// The value on one stream; `None` if it came out as something that no header value may be.
    pub fn render(&self, _cx: &LogContext<'_>) -> Option<HeaderValue> {
        Some(self.0.clone())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Template")
    }
}

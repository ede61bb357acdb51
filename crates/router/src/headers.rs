//! Header mutations outside of routes: those of local-reply mappers.

use http::HeaderMap;
use tidegate_config::route::HeaderMutations;
use tidegate_filter::LogContext;
use tidegate_types::json::JsonPath;

use crate::route::headers::Mutations;

/// `response_headers_to_add` and `_to_remove`, compiled.
#[derive(Debug)]
pub struct ResponseMutations(Mutations);

impl ResponseMutations {
    /// Compiles the response side of `config`.
    ///
    /// # Errors
    /// The first name, value or format string that is wrong.
    pub fn compile(config: &HeaderMutations) -> Result<Self, String> {
        let (mut mutations, mut errors) = (Mutations::default(), Vec::new());
        mutations.push(config, &JsonPath::root(), &mut errors);
        match errors.into_iter().next() {
            Some(error) => Err(format!("{}: {}", error.path, error.message)),
            None => Ok(Self(mutations)),
        }
    }

    /// Applies them.
    pub fn apply(&self, headers: &mut HeaderMap, cx: &LogContext<'_>) {
        self.0.apply_response(headers, cx);
    }
}

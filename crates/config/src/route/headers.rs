//! `request_headers_to_add`, `..._to_remove` and the same for responses.

/// The four lists that exist on route tables, virtual hosts, routes and cluster weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutations {
    /// `request_headers_to_add`.
    pub request_add: Vec<HeaderToAdd>,
    /// `request_headers_to_remove`, lower case.
    pub request_remove: Vec<String>,
    /// `response_headers_to_add`.
    pub response_add: Vec<HeaderToAdd>,
    /// `response_headers_to_remove`, lower case.
    pub response_remove: Vec<String>,
}

impl HeaderMutations {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// `envoy.config.core.v3.HeaderValueOption`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderToAdd {
    /// `header.key`, lower case, a valid header name.
    pub key: String,
    /// `header.value` (or `raw_value`): a format string with `%OPERATORS%`, not yet compiled.
    pub value: String,
    /// `append_action`, or the deprecated `append`.
    pub action: AppendAction,
    /// `keep_empty_value`: a value that formats to nothing is still added.
    pub keep_empty_value: bool,
}

/// `append_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AppendAction {
    /// `APPEND_IF_EXISTS_OR_ADD`.
    #[default]
    AppendIfExistsOrAdd,
    /// `ADD_IF_ABSENT`.
    AddIfAbsent,
    /// `OVERWRITE_IF_EXISTS_OR_ADD`.
    OverwriteIfExistsOrAdd,
    /// `OVERWRITE_IF_EXISTS`.
    OverwriteIfExists,
}

//! `envoy.config.route.v3.RouteMatch`: which requests a route takes.

use crate::values::{Pattern, RuntimeFraction, StringMatcher};

/// `RouteMatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// The path condition.
    pub path: PathMatch,
    /// `case_sensitive`, true when unset; regexes ignore it.
    pub case_sensitive: bool,
    /// `runtime_fraction`; `None`: all requests.
    pub runtime_fraction: Option<RuntimeFraction>,
    /// `headers`: all must match.
    pub headers: Vec<HeaderMatcher>,
    /// `query_parameters`: all must match.
    pub query_parameters: Vec<QueryMatcher>,
    /// `grpc` is set: only gRPC requests match.
    pub grpc: bool,
}

/// The path oneof. The query string is not part of what is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// `prefix`.
    Prefix(String),
    /// `path`: the whole path.
    Exact(String),
    /// `safe_regex`: the whole path.
    Regex(Pattern),
    /// `path_separated_prefix`: the path itself or below it; without a trailing slash.
    SeparatedPrefix(String),
}

/// `envoy.config.route.v3.HeaderMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// `name`, lower case; may be a pseudo-header such as `:method`.
    pub name: String,
    /// The condition.
    pub condition: HeaderMatch,
    /// `invert_match`.
    pub invert: bool,
    /// `treat_missing_header_as_empty`.
    pub treat_missing_as_empty: bool,
}

/// The oneof of [`HeaderMatcher`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatch {
    /// `present_match`, or no condition: the header is there (`true`) or is not (`false`).
    Present(bool),
    /// `string_match`, and the deprecated `exact_match`, `prefix_match`, ..., `safe_regex_match`.
    String(StringMatcher),
    /// `range_match`: start included, end excluded.
    Range {
        /// First value that matches.
        start: i64,
        /// First value that no longer matches.
        end: i64,
    },
}

/// `envoy.config.route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatcher {
    /// `name`.
    pub name: String,
    /// `string_match`; `None`: the parameter is there, whatever its value.
    pub value: Option<StringMatcher>,
    /// `present_match: false`: matches when the parameter is absent.
    pub absent: bool,
}

//! `envoy.config.route.v3.RouteMatch`: which requests a route takes.

use crate::reader::{Message, Reader};
use crate::route::headers::header_name;
use crate::values::{Pattern, RuntimeFraction, StringMatcher, StringPattern};

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
    /// `connect_matcher`: CONNECT requests (RFC 9110 §9.3.6), which have no path and match nothing else. Upgrades that
    /// come as extended CONNECT (RFC 8441) have one, and are matched by it.
    Connect,
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

impl Message for RouteMatch {
    const NAME: &'static str = "envoy.config.route.v3.RouteMatch";

    fn read(r: &Reader<'_>) -> Self {
        let prefix = r.string("prefix").optional().map(PathMatch::Prefix);
        let exact = r.string("path").optional().map(PathMatch::Exact);
        let regex = r.message("safe_regex").optional().map(PathMatch::Regex);
        let separated = r.string("path_separated_prefix").check(|prefix| {
            let bad = prefix.len() < 2 || prefix.ends_with('/') || prefix.contains(['?', '#']);
            if bad {
                Err("must have two characters or more, and not end with `/` or hold `?` or `#`".to_owned())
            } else {
                Ok(())
            }
        });
        let separated = separated.optional().map(PathMatch::SeparatedPrefix);
        let connect = r.message::<Connect>("connect_matcher").optional().map(|_| PathMatch::Connect);
        r.exactly_one(&["prefix", "path", "safe_regex", "path_separated_prefix", "connect_matcher"]);
        let path = prefix.or(exact).or(regex).or(separated).or(connect);
        Self {
            path: path.unwrap_or(PathMatch::Prefix(String::new())),
            case_sensitive: r.bool("case_sensitive").or(true),
            runtime_fraction: r.message("runtime_fraction").optional(),
            headers: r.repeated("headers").or_default(),
            query_parameters: r.repeated("query_parameters").or_default(),
            grpc: r.message::<Grpc>("grpc").optional().is_some(),
        }
    }
}

struct Connect;

impl Message for Connect {
    const NAME: &'static str = "envoy.config.route.v3.RouteMatch.ConnectMatcher";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

struct Grpc;

impl Message for Grpc {
    const NAME: &'static str = "envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

impl Message for HeaderMatcher {
    const NAME: &'static str = "envoy.config.route.v3.HeaderMatcher";

    fn read(r: &Reader<'_>) -> Self {
        r.at_most_one(&[
            "string_match",
            "exact_match",
            "prefix_match",
            "suffix_match",
            "contains_match",
            "safe_regex_match",
            "range_match",
            "present_match",
        ]);
        let text = |field, pattern: fn(String) -> StringPattern| {
            let text = r.string(field).optional();
            text.map(|text| HeaderMatch::String(StringMatcher { pattern: pattern(text), ignore_case: false }))
        };
        let string = r.message("string_match").optional().map(HeaderMatch::String);
        let exact = text("exact_match", StringPattern::Exact);
        let prefix = text("prefix_match", StringPattern::Prefix);
        let suffix = text("suffix_match", StringPattern::Suffix);
        let contains = text("contains_match", StringPattern::Contains);
        let regex = r.message("safe_regex_match").optional().map(|regex| {
            HeaderMatch::String(StringMatcher { pattern: StringPattern::Regex(regex), ignore_case: false })
        });
        let range = r.message::<Range>("range_match").optional();
        let range = range.map(|Range { start, end }| HeaderMatch::Range { start, end });
        let present = r.bool("present_match").optional().map(HeaderMatch::Present);
        let condition = string.or(exact).or(prefix).or(suffix).or(contains).or(regex).or(range).or(present);
        Self {
            name: header_name(r, "name").required_non_empty(),
            condition: condition.unwrap_or(HeaderMatch::Present(true)),
            invert: r.bool("invert_match").or_default(),
            treat_missing_as_empty: r.bool("treat_missing_header_as_empty").or_default(),
        }
    }
}

struct Range {
    start: i64,
    end: i64,
}

impl Message for Range {
    const NAME: &'static str = "envoy.type.v3.Int64Range";

    fn read(r: &Reader<'_>) -> Self {
        Self { start: r.i64("start").or_default(), end: r.i64("end").or_default() }
    }
}

impl Message for QueryMatcher {
    const NAME: &'static str = "envoy.config.route.v3.QueryParameterMatcher";

    fn read(r: &Reader<'_>) -> Self {
        r.at_most_one(&["string_match", "present_match"]);
        Self {
            name: r.string("name").required_non_empty(),
            value: r.message("string_match").optional(),
            absent: r.bool("present_match").optional() == Some(false),
        }
    }
}

//! `envoy.config.route.v3.RouteAction.HashPolicy`: by what hashing load balancers choose the host of a request.

use std::time::Duration;

use crate::reader::{Message, Reader};
use crate::route::headers::header_name;
use crate::values::RegexRewrite;

/// One entry of `hash_policy`.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    /// What is hashed.
    pub by: HashBy,
    /// `terminal`: when this one found something, or one before it did, the rest is not looked at.
    pub terminal: bool,
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq)]
pub enum HashBy {
    /// `header`.
    Header {
        /// `header_name`, lower case.
        name: String,
        /// `regex_rewrite`: each value is put through it.
        rewrite: Option<RegexRewrite>,
    },
    /// `cookie`.
    Cookie(HashCookie),
    /// `connection_properties.source_ip: true`: the client's address.
    SourceIp,
    /// `connection_properties` without `source_ip`: nothing.
    Nothing,
    /// `query_parameter.name`.
    QueryParameter(String),
    /// `filter_state.key`: the object that filters left under that name.
    FilterState(String),
}

/// `HashPolicy.Cookie`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCookie {
    /// `name`.
    pub name: String,
    /// `ttl` in whole seconds; `None`: a request without the cookie gets none. Zero is a cookie of the browser's
    /// session.
    pub ttl: Option<Duration>,
    /// `path` of a generated cookie; may be empty.
    pub path: String,
    /// `attributes` of a generated cookie, name and value; the value may be empty.
    pub attributes: Vec<(String, String)>,
}

impl Message for HashPolicy {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.HashPolicy";

    fn read(r: &Reader<'_>) -> Self {
        r.exactly_one(&["header", "cookie", "connection_properties", "query_parameter", "filter_state"]);
        let header = r.message::<Header>("header").optional().map(|header| header.0);
        let cookie = r.message::<HashCookie>("cookie").optional().map(HashBy::Cookie);
        let connection = r.message::<Connection>("connection_properties").optional();
        let query = r.message::<QueryParameter>("query_parameter").optional();
        let by = header
            .or(cookie)
            .or(connection.map(|Connection(source_ip)| match source_ip {
                true => HashBy::SourceIp,
                false => HashBy::Nothing,
            }))
            .or(query.map(|QueryParameter(name)| HashBy::QueryParameter(name)))
            .or(r
                .message::<FilterState>("filter_state")
                .optional()
                .map(|state| HashBy::FilterState(state.0)));
        Self { by: by.unwrap_or(HashBy::Nothing), terminal: r.bool("terminal").or_default() }
    }
}

struct FilterState(String);

impl Message for FilterState {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.HashPolicy.FilterState";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.string("key").required_non_empty())
    }
}

struct Header(HashBy);

impl Message for Header {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.HashPolicy.Header";

    fn read(r: &Reader<'_>) -> Self {
        Self(HashBy::Header {
            name: header_name(r, "header_name").required_non_empty(),
            rewrite: r.message("regex_rewrite").optional(),
        })
    }
}

impl Message for HashCookie {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.HashPolicy.Cookie";

    fn read(r: &Reader<'_>) -> Self {
        let attributes = r.repeated::<Attribute>("attributes").or_default();
        Self {
            name: r.string("name").check(|name| cookie_text(name)).required_non_empty(),
            // Envoy takes the whole seconds of it.
            ttl: r.duration("ttl").optional().map(|ttl| Duration::from_secs(ttl.as_secs())),
            path: r.string("path").check(|path| cookie_text(path)).or_default(),
            attributes: attributes.into_iter().map(|Attribute(name, value)| (name, value)).collect(),
        }
    }
}

struct Attribute(String, String);

impl Message for Attribute {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute";

    fn read(r: &Reader<'_>) -> Self {
        let name = r.string("name").check(|name| cookie_text(name)).required_non_empty();
        Self(name, r.string("value").check(|value| cookie_text(value)).or_default())
    }
}

/// What may stand in a `set-cookie` field (RFC 6265 §4.1.1): no control characters and no `;`.
fn cookie_text(text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control() || *c == ';' || !c.is_ascii()) {
        Some(wrong) => Err(format!("{wrong:?} cannot be part of a cookie")),
        None => Ok(()),
    }
}

struct Connection(bool);

impl Message for Connection {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.bool("source_ip").or_default())
    }
}

struct QueryParameter(String);

impl Message for QueryParameter {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.string("name").required_non_empty())
    }
}

//! `envoy.config.route.v3.InternalRedirectPolicy`: redirects of upstreams that the proxy follows by itself.

use super::headers::{check_header_name, names, protected};
use super::retry::unsupported;
use crate::reader::{Message, Reader};

/// `internal_redirect_policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirectPolicy {
    /// `max_internal_redirects`, 1 when unset: of one request of a client.
    pub max_redirects: u32,
    /// `redirect_response_codes` that are redirects, 302 when unset; others are ignored, as in Envoy.
    pub codes: Vec<u16>,
    /// `predicates`: all must accept.
    pub predicates: Vec<RedirectPredicate>,
    /// `allow_cross_scheme_redirect`: from http to https and back.
    pub allow_cross_scheme: bool,
    /// `response_headers_to_copy`, lower case: from the redirect to the new request.
    pub headers_to_copy: Vec<String>,
}

/// Whether a redirect may lead to a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// `envoy.internal_redirect_predicates.previous_routes`: not where it led from this route before.
    PreviousRoutes,
    /// `envoy.internal_redirect_predicates.allow_listed_routes`: to these names.
    AllowListedRoutes(Vec<String>),
    /// `envoy.internal_redirect_predicates.safe_cross_scheme`: to https only from there.
    SafeCrossScheme,
}

impl Message for InternalRedirectPolicy {
    const NAME: &'static str = "envoy.config.route.v3.InternalRedirectPolicy";

    fn read(r: &Reader<'_>) -> Self {
        let codes = r.u32s("redirect_response_codes").check(|codes| match codes.len() {
            0..=5 => Ok(()),
            number => Err(format!("{number} codes: at most 5")),
        });
        let codes = codes.or_default();
        let codes = if codes.is_empty() { vec![302] } else { codes };
        let codes = codes.into_iter().filter_map(|code| u16::try_from(code).ok());
        let predicates = r.repeated::<Option<RedirectPredicate>>("predicates").or_default();
        Self {
            max_redirects: r.u32("max_internal_redirects").or(1),
            codes: codes.filter(|code| matches!(code, 301..=303 | 307 | 308)).collect(),
            predicates: predicates.into_iter().flatten().collect(),
            allow_cross_scheme: r.bool("allow_cross_scheme_redirect").or_default(),
            headers_to_copy: names(r, "response_headers_to_copy", |name| {
                protected(name, "copied")?;
                check_header_name(name)
            }),
        }
    }
}

impl Message for Option<RedirectPredicate> {
    const NAME: &'static str = "envoy.config.route.v3.InternalRedirectPolicy.Predicate";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<PreviousRoutes>();
        r.may_be::<AllowListedRoutes>();
        r.may_be::<SafeCrossScheme>();
        let config = r.extension_any()?.config;
        if config.is::<PreviousRoutes>() {
            config.read::<PreviousRoutes>(r);
            Some(RedirectPredicate::PreviousRoutes)
        } else if config.is::<AllowListedRoutes>() {
            Some(RedirectPredicate::AllowListedRoutes(config.read::<AllowListedRoutes>(r).0))
        } else if config.is::<SafeCrossScheme>() {
            config.read::<SafeCrossScheme>(r);
            Some(RedirectPredicate::SafeCrossScheme)
        } else {
            unsupported(r, &config, &[PreviousRoutes::NAME, AllowListedRoutes::NAME, SafeCrossScheme::NAME]);
            None
        }
    }
}

struct PreviousRoutes;

impl Message for PreviousRoutes {
    const NAME: &'static str = "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

struct AllowListedRoutes(Vec<String>);

impl Message for AllowListedRoutes {
    const NAME: &'static str =
        "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.strings("allowed_route_names").or_default())
    }
}

struct SafeCrossScheme;

impl Message for SafeCrossScheme {
    const NAME: &'static str =
        "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

//! Redirects that the proxy follows by itself (`internal_redirect_policy`; Envoy docs, "HTTP connection management:
//! internal redirects"): where one leads, and whether it may be followed.
//!
//! Pure: the caller finds the route, and sends the request again. Start with [`InternalRedirect::follow`].

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, LOCATION};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tidegate_config::route::{InternalRedirectPolicy, RedirectPredicate};
use tidegate_types::fields::take_in_order;
use tidegate_types::{RequestHead, ResponseHead, Scheme};

/// `x-envoy-original-url`.
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// A compiled policy.
#[derive(Debug)]
pub struct InternalRedirect {
    max_redirects: u32,
    codes: Vec<u16>,
    predicates: Vec<RedirectPredicate>,
    allow_cross_scheme: bool,
    headers_to_copy: Vec<HeaderName>,
}

/// The redirects of one request so far.
#[derive(Debug, Default)]
pub struct Redirects {
    made: u32,
    /// From which route to which.
    steps: Vec<(Arc<str>, Arc<str>)>,
}

/// Why a redirect goes to the client; a counter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no location.
    NoLocation,
    /// Its location is no `http` or `https` URL.
    BadLocation,
    /// It changes the scheme.
    UnsafeScheme,
    /// There were as many as may be.
    TooMany,
    /// No route takes the new request.
    NoRoute,
    /// A predicate.
    Predicate,
}

/// The schemes that a redirect leads from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Of the request: `https` only over TLS.
    pub from: Scheme,
    /// Of the location.
    pub to: Scheme,
}

/// What to do with the body when the request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Send it again.
    Keep,
    /// The method is another one, which has none.
    Drop,
}

/// Where a redirect leads.
#[derive(Debug)]
pub struct Target {
    /// The new request's head.
    pub head: Box<RequestHead>,
    /// Its schemes, for [`InternalRedirect::accepts`].
    pub crossing: Crossing,
    /// What becomes of the body.
    pub body: Body,
}

impl InternalRedirect {
    /// # Errors
    /// A name in `response_headers_to_copy` that is none.
    pub fn compile(policy: &InternalRedirectPolicy) -> Result<Self, String> {
        let name = |name: &String| name.parse().map_err(|_| format!("`{name}` is no header name"));
        Ok(Self {
            max_redirects: policy.max_redirects,
            codes: policy.codes.clone(),
            predicates: policy.predicates.clone(),
            allow_cross_scheme: policy.allow_cross_scheme,
            headers_to_copy: policy.headers_to_copy.iter().map(name).collect::<Result<_, _>>()?,
        })
    }

    /// Whether a response of this status is a redirect to follow.
    pub fn concerns(&self, status: StatusCode) -> bool {
        self.codes.contains(&status.as_u16())
    }

    /// Where a redirect of `request` leads. `secure`: the client's connection is TLS.
    ///
    /// # Errors
    /// Why it is not followed.
    pub fn follow(
        &self,
        request: &RequestHead,
        secure: bool,
        response: &ResponseHead,
        redirects: &Redirects,
    ) -> Result<Target, Refusal> {
        let location = response.headers.get(LOCATION).ok_or(Refusal::NoLocation)?;
        let url = Url::parse(location).ok_or(Refusal::BadLocation)?;
        let from = if secure { request.scheme } else { Scheme::Http };
        if !self.allow_cross_scheme && from != url.scheme {
            return Err(Refusal::UnsafeScheme);
        }
        if redirects.made >= self.max_redirects {
            return Err(Refusal::TooMany);
        }
        let original = format!("{}://{}{}", from.as_str(), request.authority_str(), request.path_str());
        let mut head = Box::new(request.clone());
        for name in &self.headers_to_copy {
            take_in_order(&mut head.headers, name);
            for value in response.headers.get_all(name) {
                head.headers.append(name.clone(), value.clone());
            }
        }
        head.scheme = url.scheme;
        head.authority = url.authority;
        head.path = url.path;
        // RFC 9110 §15.4.4: what was asked for is to be fetched there.
        let fetches = response.status == StatusCode::SEE_OTHER
            && head.method != Method::GET
            && head.method != Method::HEAD;
        if fetches {
            head.method = Method::GET;
            take_in_order(&mut head.headers, &CONTENT_LENGTH);
        }
        if let Ok(original) = HeaderValue::from_maybe_shared(Bytes::from(original)) {
            head.headers.insert(ORIGINAL_URL, original);
        }
        let body = if fetches { Body::Drop } else { Body::Keep };
        Ok(Target { head, crossing: Crossing { from, to: url.scheme }, body })
    }

    /// Whether a redirect from one route may lead to another; notes it among the request's redirects.
    ///
    /// # Errors
    /// [`Refusal::Predicate`].
    pub fn accepts(
        &self,
        redirects: &mut Redirects,
        from: &str,
        to: &str,
        crossing: Crossing,
    ) -> Result<(), Refusal> {
        for predicate in &self.predicates {
            let accepted = match predicate {
                RedirectPredicate::PreviousRoutes => redirects.is_new(from, to),
                RedirectPredicate::AllowListedRoutes(names) => names.iter().any(|name| name == to),
                RedirectPredicate::SafeCrossScheme => {
                    crossing.from == Scheme::Https || crossing.to == Scheme::Http
                }
            };
            if !accepted {
                return Err(Refusal::Predicate);
            }
        }
        redirects.made += 1;
        Ok(())
    }
}

impl Redirects {
    fn is_new(&mut self, from: &str, to: &str) -> bool {
        let known = self.steps.iter().any(|(known, target)| &**known == from && &**target == to);
        if !known {
            self.steps.push((from.into(), to.into()));
        }
        !known
    }
}

/// An absolute location (RFC 9110 §10.2.2), without its fragment.
#[derive(Debug)]
struct Url {
    scheme: Scheme,
    authority: Bytes,
    path: Bytes,
}

impl Url {
    fn parse(location: &HeaderValue) -> Option<Self> {
        let text = location.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
        let (scheme, rest) = text.split_once("://")?;
        let scheme = [Scheme::Http, Scheme::Https]
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(scheme))?;
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if authority.is_empty() || authority.starts_with(':') {
            return None;
        }
        let root = if path.starts_with('/') { "" } else { "/" };
        Some(Self {
            scheme,
            authority: Bytes::copy_from_slice(authority.as_bytes()),
            path: format!("{root}{path}").into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(predicates: Vec<RedirectPredicate>) -> InternalRedirect {
        let policy = InternalRedirectPolicy {
            max_redirects: 1,
            codes: vec![302, 303],
            predicates,
            allow_cross_scheme: false,
            headers_to_copy: vec!["x-c".to_owned(), "x-a".to_owned()],
        };
        InternalRedirect::compile(&policy).unwrap()
    }

    fn redirect(status: u16, location: &'static str) -> ResponseHead {
        let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
        head.headers.insert(LOCATION, HeaderValue::from_static(location));
        head
    }

    #[test]
    fn a_redirect_leads_to_a_request_with_another_url() {
        let mut request = RequestHead::new(Method::POST, "a.test", "/one?q=1");
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("4"));
        request.headers.insert("x-a", HeaderValue::from_static("old"));
        let mut response = redirect(302, "HTTP://u@B.test:81?x=1#part");
        response.headers.append("x-c", HeaderValue::from_static("1"));
        response.headers.append("x-c", HeaderValue::from_static("2"));
        let policy = policy(Vec::new());
        let target = policy.follow(&request, false, &response, &Redirects::default()).unwrap();
        assert_eq!((target.head.authority_str(), target.head.path_str()), ("B.test:81", "/?x=1"));
        assert_eq!(target.head.headers.get(ORIGINAL_URL).unwrap(), "http://a.test/one?q=1");
        assert!(!target.head.headers.contains_key("x-a"));
        assert_eq!(target.head.headers.get_all("x-c").iter().count(), 2);
        assert_eq!((&target.head.method, target.body), (&Method::POST, Body::Keep));
        let target =
            policy.follow(&request, false, &redirect(303, "http://b.test/"), &Redirects::default()).unwrap();
        assert_eq!((&target.head.method, target.body), (&Method::GET, Body::Drop));
        assert!(!target.head.headers.contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn what_leads_nowhere_is_refused_by_its_reason() {
        let request = RequestHead::new(Method::GET, "a.test", "/");
        let policy = policy(Vec::new());
        let refused = |response: &ResponseHead, redirects: &Redirects| {
            policy.follow(&request, false, response, redirects).unwrap_err()
        };
        let none = Redirects::default();
        assert_eq!(refused(&ResponseHead::new(StatusCode::FOUND), &none), Refusal::NoLocation);
        for location in
            ["", "/two", "b.test/two", "ftp://b.test/", "http://", "http:///x", "http://b.test/a b"]
        {
            assert_eq!(refused(&redirect(302, location), &none), Refusal::BadLocation, "{location}");
        }
        assert_eq!(refused(&redirect(302, "https://b.test/"), &none), Refusal::UnsafeScheme);
        let once = Redirects { made: 1, steps: Vec::new() };
        assert_eq!(refused(&redirect(302, "http://b.test/"), &once), Refusal::TooMany);
        assert!(policy.concerns(StatusCode::FOUND) && !policy.concerns(StatusCode::MOVED_PERMANENTLY));
    }

    #[test]
    fn predicates_look_at_routes_and_schemes() {
        let plain = Crossing { from: Scheme::Http, to: Scheme::Http };
        let mut redirects = Redirects::default();
        let previous = policy(vec![RedirectPredicate::PreviousRoutes]);
        assert_eq!(previous.accepts(&mut redirects, "a", "b", plain), Ok(()));
        assert_eq!(previous.accepts(&mut redirects, "b", "a", plain), Ok(()));
        assert_eq!(previous.accepts(&mut redirects, "a", "b", plain), Err(Refusal::Predicate));
        assert_eq!(redirects.made, 2);
        let listed = policy(vec![RedirectPredicate::AllowListedRoutes(vec!["b".to_owned()])]);
        assert_eq!(listed.accepts(&mut redirects, "a", "b", plain), Ok(()));
        assert_eq!(listed.accepts(&mut redirects, "b", "a", plain), Err(Refusal::Predicate));
        let safe = policy(vec![RedirectPredicate::SafeCrossScheme]);
        let crossing = |from, to| Crossing { from, to };
        let up = crossing(Scheme::Http, Scheme::Https);
        assert_eq!(safe.accepts(&mut redirects, "", "", up), Err(Refusal::Predicate));
        assert_eq!(safe.accepts(&mut redirects, "", "", crossing(Scheme::Https, Scheme::Http)), Ok(()));
    }
}

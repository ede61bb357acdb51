//! `hash_policy`: the number by which hashing load balancers give equal requests the same host.
//!
//! Envoy docs, `config.route.v3.RouteAction.HashPolicy`. Hashes are Envoy's, so that stickiness survives a
//! migration. Pure; start with [`HashPolicy::hash`].

use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderName, HeaderValue};
use tidegate_cluster::lb::hash::{of_ip, xx64, xx64_of_all};
use tidegate_config::route::{self as config, HashBy, HashCookie};
use tidegate_types::{Address, RequestHead};

use super::rewrite::RegexRewrite;

/// The compiled `hash_policy` of a route; empty for most.
#[derive(Debug, Default)]
pub struct HashPolicy(Box<[Entry]>);

#[derive(Debug)]
struct Entry {
    method: Method,
    terminal: bool,
}

#[derive(Debug)]
enum Method {
    Header(HeaderName, Option<RegexRewrite>),
    Cookie(HashCookie),
    SourceIp,
    Nothing,
    QueryParameter(String),
    FilterState(String),
}

/// Who asks, for addresses and generated cookies.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The client's address as the connection manager determined it.
    pub remote: &'a Address,
    /// Both ends of its connection, of which generated cookies are made: the same for all of its streams.
    pub connection: (&'a Address, &'a Address),
}

/// What the policy found.
#[derive(Debug, Default)]
pub struct Hashed {
    /// The number, if anything was found.
    pub hash: Option<u64>,
    /// `set-cookie` fields of cookies that were generated.
    pub cookies: Vec<HeaderValue>,
}

impl HashPolicy {
    pub(crate) fn compile(policies: &[config::HashPolicy]) -> Result<Self, String> {
        let entry = |policy: &config::HashPolicy| {
            let method = match &policy.by {
                HashBy::Header { name, rewrite } => {
                    let name = name.parse().map_err(|_| format!("`{name}` is no header name"))?;
                    Method::Header(name, rewrite.as_ref().map(RegexRewrite::compile).transpose()?)
                }
                HashBy::Cookie(cookie) => Method::Cookie(cookie.clone()),
                HashBy::SourceIp => Method::SourceIp,
                HashBy::Nothing => Method::Nothing,
                HashBy::QueryParameter(name) => Method::QueryParameter(name.clone()),
                HashBy::FilterState(key) => Method::FilterState(key.clone()),
            };
            Ok(Entry { method, terminal: policy.terminal })
        };
        policies.iter().map(entry).collect::<Result<_, String>>().map(Self)
    }

    /// Whether there is nothing to evaluate.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Evaluates the policies in order, up to a terminal one once something was found. `object`: what filters left
    /// under a name.
    pub fn hash(
        &self,
        head: &RequestHead,
        client: Client<'_>,
        object: impl Fn(&str) -> Option<Arc<str>>,
    ) -> Hashed {
        let mut hashed = Hashed::default();
        for entry in &self.0 {
            let found = match &entry.method {
                Method::FilterState(key) => object(key).map(|text| xx64(text.as_bytes())),
                method => method.hash(head, client, &mut hashed.cookies),
            };
            if let Some(found) = found {
                // Rotated, so that the same policy twice does not cancel itself out.
                hashed.hash = Some(hashed.hash.map_or(0, |before| before.rotate_left(1)) ^ found);
            }
            if entry.terminal && hashed.hash.is_some() {
                break;
            }
        }
        hashed
    }
}

impl Method {
    fn hash(&self, head: &RequestHead, client: Client<'_>, made: &mut Vec<HeaderValue>) -> Option<u64> {
        match self {
            Self::Header(name, rewrite) => of_header(head, name, rewrite.as_ref()),
            Self::Cookie(cookie) => match cookie_value(head, &cookie.name) {
                Some(value) => Some(xx64(value)),
                None => cookie.ttl.map(|_| {
                    let value = generated_value(client);
                    made.extend(set_cookie(cookie, &value));
                    xx64(value.as_bytes())
                }),
            },
            Self::SourceIp => client.remote.ip().map(of_ip),
            Self::Nothing | Self::FilterState(_) => None,
            Self::QueryParameter(name) => query_parameter(head, name).map(|value| xx64(value.as_bytes())),
        }
    }
}

/// All values of a field, in an order of their own: that of the request's lines says nothing.
fn of_header(head: &RequestHead, name: &HeaderName, rewrite: Option<&RegexRewrite>) -> Option<u64> {
    if name == http::header::HOST {
        return Some(rewritten(&head.authority, rewrite)).map(|value| xx64(&value));
    }
    let mut values = head.headers.get_all(name).iter();
    let first = rewritten(values.next()?.as_bytes(), rewrite);
    let mut all: Vec<_> = values.map(|value| rewritten(value.as_bytes(), rewrite)).collect();
    all.push(first);
    all.sort_unstable();
    Some(xx64_of_all(all.iter().map(AsRef::as_ref)))
}

fn rewritten<'v>(value: &'v [u8], rewrite: Option<&RegexRewrite>) -> std::borrow::Cow<'v, [u8]> {
    let replace = |rewrite: &RegexRewrite| rewrite.replace(std::str::from_utf8(value).ok()?);
    rewrite.and_then(replace).map_or(value.into(), |text| text.into_bytes().into())
}

/// The cookie's value without quotes; an empty one is none, as in Envoy.
fn cookie_value<'h>(head: &'h RequestHead, name: &str) -> Option<&'h [u8]> {
    let lines = head.headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let value = pairs.map(<[u8]>::trim_ascii_start).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    })?;
    (!value.is_empty()).then_some(value)
}

fn generated_value(client: Client<'_>) -> String {
    let (remote, local) = client.connection;
    format!("{:016x}", xx64(format!("{remote}{local}").as_bytes()))
}

/// RFC 6265 §4.1, as Envoy writes it. A configured text that cannot stand in a field was refused before.
fn set_cookie(cookie: &HashCookie, value: &str) -> Option<HeaderValue> {
    let mut text = format!("{}=\"{value}\"", cookie.name);
    if let Some(ttl) = cookie.ttl.filter(|ttl| !ttl.is_zero()) {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !cookie.path.is_empty() {
        text.push_str(&format!("; Path={}", cookie.path));
    }
    for (name, value) in &cookie.attributes {
        let separator = if value.is_empty() { "" } else { "=" };
        text.push_str(&format!("; {name}{separator}{value}"));
    }
    text.push_str("; HttpOnly");
    HeaderValue::try_from(text).ok()
}

/// The first value of that name, as written.
fn query_parameter<'h>(head: &'h RequestHead, name: &str) -> Option<&'h str> {
    head.query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_config::route::HashPolicy as Policy;

    use super::*;

    fn compile(policies: &[(HashBy, bool)]) -> HashPolicy {
        let policies: Vec<_> =
            policies.iter().map(|(by, terminal)| Policy { by: by.clone(), terminal: *terminal }).collect();
        HashPolicy::compile(&policies).unwrap()
    }

    fn hash(
        policies: &[(HashBy, bool)],
        lines: &[(&'static str, &'static str)],
        path: &'static str,
    ) -> Hashed {
        let mut head = RequestHead::new(http::Method::GET, "a.test", path);
        for (name, value) in lines {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        let remote = Address::Ip("10.0.0.9:4000".parse().unwrap());
        let local = Address::Ip("10.0.0.1:80".parse().unwrap());
        let client = Client { remote: &remote, connection: (&remote, &local) };
        compile(policies).hash(&head, client, |key| (key == "k").then(|| "v".into()))
    }

    fn by_header(name: &str) -> HashBy {
        HashBy::Header { name: name.to_owned(), rewrite: None }
    }

    fn cookie(ttl: Option<u64>) -> HashBy {
        HashBy::Cookie(HashCookie {
            name: "sid".to_owned(),
            ttl: ttl.map(Duration::from_secs),
            path: "/p".to_owned(),
            attributes: vec![("SameSite".to_owned(), "Lax".to_owned()), ("Secure".to_owned(), String::new())],
        })
    }

    #[test]
    fn each_method_hashes_what_it_finds() {
        assert_eq!(hash(&[(by_header("x-a"), false)], &[("x-a", "v")], "/").hash, Some(xx64(b"v")));
        assert_eq!(hash(&[(by_header("x-a"), false)], &[], "/").hash, None);
        let both = [("x-a", "b"), ("x-a", "a")];
        assert_eq!(hash(&[(by_header("x-a"), false)], &both, "/").hash, Some(xx64_of_all([&b"a"[..], b"b"])));
        assert_eq!(hash(&[(HashBy::SourceIp, false)], &[], "/").hash, Some(xx64(b"10.0.0.9")));
        let query = HashBy::QueryParameter("k".to_owned());
        assert_eq!(hash(&[(query.clone(), false)], &[], "/?j=1&k=2&k=3").hash, Some(xx64(b"2")));
        assert_eq!(hash(&[(query, false)], &[], "/").hash, None);
        assert_eq!(hash(&[(HashBy::Nothing, false)], &[], "/").hash, None);
    }

    #[test]
    fn a_cookie_is_found_or_made() {
        for line in ["a=1; sid=xyz", "sid=\"xyz\"; b=2"] {
            let found = hash(&[(cookie(Some(9)), false)], &[("cookie", line)], "/");
            assert_eq!((found.hash, found.cookies.len()), (Some(xx64(b"xyz")), 0));
        }
        assert_eq!(hash(&[(cookie(None), false)], &[("cookie", "xsid=1; sid=")], "/").hash, None);
        let value = format!("{:016x}", xx64(b"10.0.0.9:400010.0.0.1:80"));
        for (ttl, age) in [(9, "; Max-Age=9"), (0, "")] {
            let made = hash(&[(cookie(Some(ttl)), false)], &[], "/");
            let text = format!("sid=\"{value}\"{age}; Path=/p; SameSite=Lax; Secure; HttpOnly");
            assert_eq!(
                (made.hash, made.cookies),
                (Some(xx64(value.as_bytes())), vec![text.parse().unwrap()])
            );
        }
    }

    #[test]
    fn policies_add_up_until_a_terminal_one_has_a_hash() {
        let lines = [("x-a", "a"), ("x-b", "b")];
        let combined = xx64(b"a").rotate_left(1) ^ xx64(b"b");
        let all =
            |terminal| hash(&[(by_header("x-a"), terminal), (by_header("x-b"), false)], &lines, "/").hash;
        assert_eq!((all(false), all(true)), (Some(combined), Some(xx64(b"a"))));
        // Terminal, but nothing was found so far.
        let absent = hash(&[(by_header("x-c"), true), (by_header("x-b"), false)], &lines, "/");
        assert_eq!(absent.hash, Some(xx64(b"b")));
    }
}

//! What a cluster's checks ask and expect, compiled once.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;
use regex::Regex;
use tidegate_config::cluster::{CheckProtocol, Checker, HealthCheckConfig, HttpCheck, TcpCheck};
use tidegate_config::values::{StringMatcher, StringPattern};

use super::headers::HeaderChanges;

/// See the module.
pub(super) enum Plan {
    Http(Box<HttpPlan>),
    Grpc(GrpcPlan),
    Tcp(TcpPlan),
}

/// An HTTP request.
pub(super) struct HttpPlan {
    pub(super) check: HttpCheck,
    pub(super) headers: HeaderChanges,
    pub(super) body: Bytes,
    pub(super) service_name: Option<Matcher>,
    /// Of 100 checks so many compare it: the runtime key `health_check.verify_cluster`.
    pub(super) verify_percent: u64,
}

/// `grpc.health.v1.Health/Check`.
pub(super) struct GrpcPlan {
    pub(super) authority: String,
    pub(super) headers: HeaderChanges,
    /// The message with its prefix.
    pub(super) body: Bytes,
    /// `grpc-timeout`.
    pub(super) timeout: String,
}

/// Bytes, or only a connection.
pub(super) struct TcpPlan {
    pub(super) check: TcpCheck,
    /// More is not looked at.
    pub(super) most_input: usize,
}

impl Plan {
    /// Compiles the check.
    ///
    /// # Errors
    /// What is wrong with a header's value.
    pub(super) fn new(
        config: &HealthCheckConfig,
        buffer_limit: u32,
        verify_percent: u64,
    ) -> Result<Self, String> {
        Ok(match &config.checker {
            Checker::Http(check) => Self::Http(Box::new(HttpPlan {
                headers: HeaderChanges::new(&check.headers)?,
                body: Bytes::from(check.send.clone()),
                service_name: check.service_name.as_ref().map(Matcher::new),
                verify_percent,
                check: HttpCheck::clone(check),
            })),
            Checker::Grpc(check) => Self::Grpc(GrpcPlan {
                authority: check.authority.clone(),
                headers: HeaderChanges::new(&check.headers)?,
                body: grpc_request(&check.service_name),
                timeout: grpc_timeout(config.timeout.as_millis() as u64),
            }),
            Checker::Tcp(check) => {
                Self::Tcp(TcpPlan { check: check.clone(), most_input: buffer_limit as usize })
            }
        })
    }

    /// The authority that hosts are asked for that name none of their own; empty: the cluster's name.
    pub(super) fn authority(&self) -> &str {
        match self {
            Self::Http(plan) => &plan.check.host,
            Self::Grpc(plan) => &plan.authority,
            Self::Tcp(_) => "",
        }
    }

    /// Whether HTTP/2 is spoken.
    pub(super) fn speaks_http2(&self) -> bool {
        match self {
            Self::Http(plan) => plan.check.protocol == CheckProtocol::Http2,
            Self::Grpc(_) => true,
            Self::Tcp(_) => false,
        }
    }

    /// `health_checker_type` of events.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTP",
            Self::Grpc(_) => "GRPC",
            Self::Tcp(_) => "TCP",
        }
    }
}

/// Whether `input` holds all of `expected`, in this order, whatever lies between (`HealthCheck.Payload`).
pub(super) fn holds(input: &[u8], expected: &[Vec<u8>]) -> bool {
    let mut rest = input;
    expected.iter().all(|part| match memmem::find(rest, part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// `HealthCheckRequest { service = 1 }` behind the prefix of a gRPC message: not compressed, four bytes of length.
fn grpc_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// At most eight digits, in the finest unit that they suffice for (gRPC over HTTP/2, "Timeout").
fn grpc_timeout(ms: u64) -> String {
    const MOST: u64 = 99_999_999;
    let units = [(1, 'm'), (1000, 'S'), (60_000, 'M'), (3_600_000, 'H')];
    let fitting = units.iter().find(|(unit, _)| ms / unit <= MOST);
    let (unit, name) = fitting.copied().unwrap_or((3_600_000, 'H'));
    format!("{}{name}", (ms / unit).min(MOST))
}

/// `service_name_matcher`.
pub(super) enum Matcher {
    Text(StringMatcher),
    Regex(Regex),
    /// A regex that does not compile: configurations with one are refused.
    Nothing,
}

impl Matcher {
    fn new(config: &StringMatcher) -> Self {
        match &config.pattern {
            StringPattern::Regex(pattern) => {
                Regex::new(&format!("^(?:{})$", pattern.0)).map_or(Self::Nothing, Self::Regex)
            }
            _ => Self::Text(config.clone()),
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let matcher = match self {
            Self::Regex(regex) => return regex.is_match(text),
            Self::Nothing => return false,
            Self::Text(matcher) => matcher,
        };
        let fold = |text: &str| match matcher.ignore_case {
            true => text.to_ascii_lowercase(),
            false => text.to_owned(),
        };
        let text = fold(text);
        match &matcher.pattern {
            StringPattern::Exact(other) => text == fold(other),
            StringPattern::Prefix(prefix) => text.starts_with(&fold(prefix)),
            StringPattern::Suffix(suffix) => text.ends_with(&fold(suffix)),
            StringPattern::Contains(part) => text.contains(&fold(part)),
            StringPattern::Regex(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_looked_for_in_order() {
        let parts = |all: &[&str]| all.iter().map(|part| part.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(holds(b"+PONG +OK", &parts(&["PONG", "OK"])));
        assert!(!holds(b"+OK +PONG", &parts(&["PONG", "OK"])));
        assert!(!holds(b"aba", &parts(&["ab", "ba"])));
        assert!(holds(b"", &[]));
    }

    #[test]
    fn grpc_messages_and_timeouts_are_framed() {
        assert_eq!(&grpc_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&grpc_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(&grpc_request(&"x".repeat(200))[5..8], [0x0a, 0xc8, 1]);
        assert_eq!(grpc_timeout(300), "300m");
        assert_eq!(grpc_timeout(100_000_000), "100000S");
    }
}

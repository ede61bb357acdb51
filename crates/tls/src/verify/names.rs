//! The names in a certificate (RFC 5280 §4.2.1.6), and Envoy's rules for matching them.

use std::net::IpAddr;

use regex::Regex;
use tidegate_config::tls::{SanKind, SanMatcher};
use tidegate_config::values::{StringMatcher, StringPattern};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What is looked at in a leaf.
pub(super) struct Names {
    /// In the certificate's order.
    all: Vec<(SanKind, String)>,
    /// DER.
    pub(super) public_key_info: Vec<u8>,
}

impl Names {
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let mut all = Vec::new();
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            all.extend(names.value.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some((SanKind::Uri, (*uri).to_owned())),
                GeneralName::DNSName(dns) => Some((SanKind::Dns, (*dns).to_owned())),
                GeneralName::RFC822Name(mail) => Some((SanKind::Email, (*mail).to_owned())),
                GeneralName::IPAddress(bytes) => {
                    address(bytes).map(|ip| (SanKind::IpAddress, ip.to_string()))
                }
                _ => None,
            }));
        }
        Some(Self { all, public_key_info: parsed.public_key().raw.to_vec() })
    }

    /// For the reason of a refusal.
    pub(super) fn list(&self) -> String {
        self.all.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Whether one of them is `wanted`: a DNS name by DNS rules, an address by value, a URI as it is.
    pub(super) fn carries(&self, wanted: &str) -> bool {
        let ip: Option<IpAddr> = wanted.trim_start_matches('[').trim_end_matches(']').parse().ok();
        self.all.iter().any(|(kind, name)| match kind {
            SanKind::Dns => ip.is_none() && dns_matches(wanted, name),
            SanKind::IpAddress => ip.is_some() && name.parse().ok() == ip,
            SanKind::Uri => name == wanted,
            SanKind::Email => false,
        })
    }
}

/// `match_typed_subject_alt_names`.
#[derive(Debug, Default)]
pub(super) struct NameRules(Vec<(SanKind, Rule)>);

#[derive(Debug)]
enum Rule {
    /// An exact DNS name, which a wildcard in the certificate satisfies.
    Dns(String),
    Text(StringMatcher),
    Regex(Regex),
    /// A regex that does not compile here: configuration refuses it, so it is never met.
    Nothing,
}

impl NameRules {
    pub(super) fn new(matchers: &[SanMatcher]) -> Self {
        Self(matchers.iter().map(|matcher| (matcher.kind, Rule::new(matcher))).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the names satisfies one of the rules.
    pub(super) fn accept(&self, names: &Names) -> bool {
        self.0.iter().any(|(kind, rule)| names.all.iter().any(|(of, name)| of == kind && rule.accepts(name)))
    }
}

impl Rule {
    fn new(matcher: &SanMatcher) -> Self {
        match &matcher.matcher.pattern {
            StringPattern::Exact(name) if matcher.kind == SanKind::Dns => Self::Dns(name.clone()),
            StringPattern::Regex(pattern) => {
                Regex::new(&format!("^(?:{})$", pattern.0)).map_or(Self::Nothing, Self::Regex)
            }
            _ => Self::Text(matcher.matcher.clone()),
        }
    }

    fn accepts(&self, name: &str) -> bool {
        match self {
            Self::Dns(wanted) => dns_matches(wanted, name),
            Self::Regex(regex) => regex.is_match(name),
            Self::Text(matcher) if matcher.ignore_case => {
                text_matches(&matcher.pattern, &name.to_ascii_lowercase(), str::to_ascii_lowercase)
            }
            Self::Text(matcher) => text_matches(&matcher.pattern, name, str::to_owned),
            Self::Nothing => false,
        }
    }
}

fn text_matches(pattern: &StringPattern, name: &str, fold: fn(&str) -> String) -> bool {
    match pattern {
        StringPattern::Exact(text) => name == fold(text),
        StringPattern::Prefix(text) => name.starts_with(&fold(text)),
        StringPattern::Suffix(text) => name.ends_with(&fold(text)),
        StringPattern::Contains(text) => name.contains(&fold(text)),
        StringPattern::Regex(_) => false,
    }
}

/// Whether the certificate's `pattern` stands for `name`: equal but for case, or a wildcard in its leftmost label
/// (RFC 6125 §6.4.3), which may be a part of a label that is no A-label.
fn dns_matches(name: &str, pattern: &str) -> bool {
    if name.eq_ignore_ascii_case(pattern) {
        return true;
    }
    let (Some((label, parent)), Some((wild, pattern_parent))) =
        (name.split_once('.'), pattern.split_once('.'))
    else {
        return false;
    };
    if !parent.eq_ignore_ascii_case(pattern_parent) || label.is_empty() {
        return false;
    }
    if wild == "*" {
        return true;
    }
    let Some((before, after)) = wild.split_once('*') else { return false };
    let (label, before, after) =
        (label.to_ascii_lowercase(), before.to_ascii_lowercase(), after.to_ascii_lowercase());
    !after.contains('*')
        && !wild.to_ascii_lowercase().starts_with("xn--")
        && label.len() >= before.len() + after.len()
        && label.starts_with(&before)
        && label.ends_with(&after)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

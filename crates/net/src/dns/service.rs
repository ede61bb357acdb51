//! HTTPS records: where and by which protocols an origin is served (RFC 9460).

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::rdata::svcb::{Mandatory, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::{RData, Record};

use super::message::Question;

/// A service endpoint of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// Its name; `None`: the origin's.
    pub target: Option<String>,
    /// Its port; `None`: the origin's.
    pub port: Option<u16>,
    /// The protocols that it speaks beside the default one, as ALPN names them.
    pub alpn: Vec<Vec<u8>>,
    /// Its addresses, as far as the record hints at them.
    pub hints: Vec<IpAddr>,
    /// How long that holds.
    pub ttl: Duration,
}

/// What the records of one name say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Another name is to be asked (RFC 9460 §2.4.2).
    Alias(String),
    /// The endpoints, the preferred ones first.
    Endpoints(Vec<ServiceEndpoint>),
}

/// The name that is asked for the records of an origin (RFC 9460 §9.1, §2.3).
pub(super) fn owner(name: &str, port: u16) -> String {
    if port == HTTPS_PORT { name.to_owned() } else { format!("_{port}._https.{name}") }
}

/// What `answers` say.
pub(super) fn read(question: &Question, answers: &[Record]) -> Said {
    let own = question.own(answers).filter_map(|(record, ttl)| match &record.data {
        RData::HTTPS(https) => Some((&https.0, ttl)),
        _ => None,
    });
    let mut own: Vec<_> = own.collect();
    // RFC 9460 §2.4.1: where there is an alias, nothing else counts.
    if let Some((alias, _)) = own.iter().find(|(record, _)| record.svc_priority == 0) {
        return match alias.target_name.is_root() {
            true => Said::Endpoints(Vec::new()),
            false => Said::Alias(alias.target_name.to_ascii()),
        };
    }
    own.sort_by_key(|(record, _)| record.svc_priority);
    Said::Endpoints(own.into_iter().filter_map(|(record, ttl)| endpoint(record, ttl)).collect())
}

/// `None`: it demands what is not understood here (RFC 9460 §8).
fn endpoint(record: &SVCB, ttl: Duration) -> Option<ServiceEndpoint> {
    let target = (!record.target_name.is_root()).then(|| {
        let target = record.target_name.to_ascii();
        target.strip_suffix('.').unwrap_or(&target).to_owned()
    });
    let mut endpoint = ServiceEndpoint { target, port: None, alpn: Vec::new(), hints: Vec::new(), ttl };
    for (_, value) in &record.svc_params {
        match value {
            SvcParamValue::Mandatory(Mandatory(keys)) if !keys.iter().all(is_understood) => return None,
            SvcParamValue::Alpn(alpn) => {
                endpoint.alpn = alpn.0.iter().map(|id| id.as_bytes().to_vec()).collect();
            }
            SvcParamValue::Port(port) => endpoint.port = Some(*port),
            SvcParamValue::Ipv4Hint(hints) => endpoint.hints.extend(hints.0.iter().map(|a| IpAddr::V4(a.0))),
            SvcParamValue::Ipv6Hint(hints) => endpoint.hints.extend(hints.0.iter().map(|a| IpAddr::V6(a.0))),
            _ => {}
        }
    }
    Some(endpoint)
}

fn is_understood(key: &SvcParamKey) -> bool {
    use SvcParamKey::{Alpn, Ipv4Hint, Ipv6Hint, NoDefaultAlpn, Port};
    matches!(key, Alpn | NoDefaultAlpn | Port | Ipv4Hint | Ipv6Hint)
}

/// RFC 9110 §4.2.2.
const HTTPS_PORT: u16 = 443;

//! What DNS says of who serves a cluster's names by HTTP/3 (HTTPS records, RFC 9460), for all workers.
//!
//! The main thread asks and notes ([`Services::note`]); each worker files what it finds ([`Services::all`]) in its cache
//! of alternatives, under the origins that its connections ask for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tidegate_net::dns::ServiceEndpoint;
use tidegate_pool::alternates::alt_svc::Service;
use tokio::time::Instant;

/// A name and port that DNS was asked about; the name is that of hosts.
pub(crate) type Place = (String, u16);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Services(Mutex<HashMap<Place, Said>>);

/// What was said of one, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) at: Instant,
    pub(crate) services: Vec<Service>,
}

impl Services {
    /// DNS said that now.
    pub(crate) fn note(&self, place: Place, endpoints: &[ServiceEndpoint]) {
        let services = endpoints.iter().filter_map(|endpoint| service(endpoint, place.1)).collect();
        let said = Said { at: Instant::now(), services };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place, said);
    }

    /// All that was said.
    pub(crate) fn all(&self) -> Vec<(Place, Said)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(place, said)| (place.clone(), said.clone())).collect()
    }
}

/// The protocol that is looked for (RFC 9114 §3.1).
const HTTP3: &[u8] = b"h3";

/// `None`: it does not speak HTTP/3. An endpoint of another name is reached at the address that the record hints at, if
/// it does: there is nothing to look up then.
fn service(endpoint: &ServiceEndpoint, port: u16) -> Option<Service> {
    endpoint.alpn.iter().find(|id| *id == HTTP3)?;
    let hint = endpoint.hints.iter().min_by_key(|ip| ip.is_ipv6()).map(IpAddr::to_string);
    let host = endpoint.target.as_ref().map(|target| hint.unwrap_or_else(|| target.clone()));
    Some(Service {
        protocol: HTTP3.to_vec(),
        host: host.unwrap_or_default(),
        port: endpoint.port.unwrap_or(port),
        max_age: endpoint.ttl,
        persist: false,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_http3_is_of_interest() {
        let endpoint = |alpn: &[&str], target: Option<&str>, hints: &[&str]| ServiceEndpoint {
            target: target.map(str::to_owned),
            port: None,
            alpn: alpn.iter().map(|id| id.as_bytes().to_vec()).collect(),
            hints: hints.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: Duration::from_secs(7),
        };
        let services = Services::default();
        let said = [
            endpoint(&["h2"], None, &[]),
            endpoint(&["h2", "h3"], None, &["::1", "10.0.0.1"]),
            ServiceEndpoint { port: Some(8443), ..endpoint(&["h3"], Some("b.test"), &["::1", "10.0.0.1"]) },
            endpoint(&["h3"], Some("b.test"), &[]),
        ];
        services.note(("a.test".into(), 443), &said);
        let [(_, said)] = &services.all()[..] else { panic!() };
        let found: Vec<_> = said.services.iter().map(|service| (&*service.host, service.port)).collect();
        assert_eq!(found, [("", 443), ("10.0.0.1", 8443), ("b.test", 443)]);
        assert_eq!(said.services[0].max_age, Duration::from_secs(7));
        services.note(("a.test".into(), 443), &[]);
        assert!(services.all()[0].1.services.is_empty());
    }
}

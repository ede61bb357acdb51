//! `x-forwarded-client-cert`: what a client's certificate said, passed on.
//!
//! Envoy docs, "HTTP header manipulation", `x-forwarded-client-cert`; checked on Envoy 1.40.

use http::header::Entry;
use http::{HeaderName, HeaderValue};
use tidegate_config::hcm::{ClientCertConfig, ClientCertDetails, ForwardClientCert};
use tidegate_types::{CertificateInfo, ConnectionInfo, RequestHead, TlsInfo};

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Removes the header, keeps it, or says it anew. `present`: the request has one.
pub(super) fn apply(
    config: &ClientCertConfig,
    head: &mut RequestHead,
    connection: &ConnectionInfo,
    present: bool,
) {
    let shown = connection.tls.get().and_then(|tls| Some((tls, tls.peer.as_deref()?)));
    match (config.forward, shown) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::AppendForward, Some((tls, peer))) => {
            set(head, &element(tls, peer, &config.details), Given::Kept);
        }
        (ForwardClientCert::SanitizeSet, Some((tls, peer))) => {
            set(head, &element(tls, peer, &config.details), Given::Replaced);
        }
        _ if present => _ = head.headers.remove(XFCC),
        _ => {}
    }
}

/// What becomes of elements that others wrote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Kept,
    Replaced,
}

fn set(head: &mut RequestHead, element: &str, given: Given) {
    let mut text = Vec::new();
    if given == Given::Kept {
        for earlier in head.headers.get_all(&XFCC) {
            text.extend_from_slice(earlier.as_bytes());
            text.push(b',');
        }
    }
    text.extend_from_slice(element.as_bytes());
    // A subject may hold what no header can: then nothing is said.
    let Ok(value) = HeaderValue::from_bytes(&text) else {
        head.headers.remove(&XFCC);
        return;
    };
    match head.headers.entry(XFCC) {
        Entry::Occupied(mut entry) => _ = entry.insert(value),
        Entry::Vacant(entry) => _ = entry.insert(value),
    }
}

/// One element: `By=..;Hash=..` and the details asked for, in Envoy's order.
fn element(tls: &TlsInfo, peer: &CertificateInfo, details: &ClientCertDetails) -> String {
    let mut pairs: Vec<String> =
        tls.local.iter().flat_map(|local| &local.uri_sans).map(|uri| format!("By={uri}")).collect();
    pairs.push(format!("Hash={}", peer.sha256));
    if details.cert {
        pairs.push(format!("Cert=\"{}\"", peer.url_encoded_pem()));
    }
    if details.chain {
        pairs.push(format!("Chain=\"{}\"", peer.url_encoded_chain()));
    }
    if details.subject {
        pairs.push(format!("Subject=\"{}\"", peer.subject));
    }
    if details.uri {
        // The key is there without a value too.
        if peer.uri_sans.is_empty() {
            pairs.push("URI=".to_owned());
        }
        pairs.extend(peer.uri_sans.iter().map(|uri| format!("URI={uri}")));
    }
    if details.dns {
        pairs.extend(peer.dns_sans.iter().map(|dns| format!("DNS={dns}")));
    }
    pairs.join(";")
}

#[cfg(test)]
mod tests;

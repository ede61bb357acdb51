//! `x-forwarded-client-cert`: what a client's certificate said, passed on.
//!
//! Envoy docs, "HTTP header manipulation", `x-forwarded-client-cert`; checked on Envoy 1.40.

use http::header::Entry;
use http::{HeaderName, HeaderValue};
use tidegate_config::hcm::{ClientCertConfig, ClientCertDetails, ForwardClientCert};
use tidegate_types::{CertificateInfo, ConnectionInfo, RequestHead, TlsInfo};

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Removes the header where nobody's word is taken for it.
pub(super) fn sanitize(config: &ClientCertConfig, head: &mut RequestHead, connection: &ConnectionInfo) {
    let kept = match config.forward {
        ForwardClientCert::AlwaysForwardOnly => true,
        ForwardClientCert::Sanitize => false,
        ForwardClientCert::ForwardOnly
        | ForwardClientCert::AppendForward
        | ForwardClientCert::SanitizeSet => shown(connection).is_some(),
    };
    if !kept {
        head.headers.remove(&XFCC);
    }
}

/// Says what the client's certificate says, where that is asked for.
pub(super) fn describe(config: &ClientCertConfig, head: &mut RequestHead, connection: &ConnectionInfo) {
    let given = match config.forward {
        ForwardClientCert::AppendForward => Given::Kept,
        ForwardClientCert::SanitizeSet => Given::Replaced,
        _ => return,
    };
    if let Some((tls, peer)) = shown(connection) {
        set(head, &element(tls, peer, &config.details), given);
    }
}

fn shown(connection: &ConnectionInfo) -> Option<(&TlsInfo, &CertificateInfo)> {
    let tls = connection.tls.get()?;
    Some((tls, tls.peer.as_deref()?))
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

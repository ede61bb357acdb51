#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::Method;
use tidegate_types::Address;

use super::*;

fn certificate(uri: &str) -> CertificateInfo {
    CertificateInfo {
        subject: "CN=c,O=Acme\\, Inc".to_owned(),
        issuer: String::new(),
        serial: String::new(),
        sha256: "abc".to_owned(),
        sha1: String::new(),
        uri_sans: vec![uri.to_owned()],
        dns_sans: vec!["a.test".to_owned(), "b.test".to_owned()],
        ip_sans: Vec::new(),
        email_sans: Vec::new(),
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH,
        chain: vec![b"der".to_vec()],
        marks: Vec::new(),
    }
}

fn outcome(forward: ForwardClientCert, mutual: bool, given: Option<&str>) -> Option<String> {
    let address = || Address::Unix("x".into());
    let connection = ConnectionInfo::new(1, address(), address(), "l".into());
    if mutual {
        let tls = TlsInfo {
            peer: Some(Arc::new(certificate("spiffe://c"))),
            local: Some(Arc::new(certificate("spiffe://s"))),
            ..TlsInfo::default()
        };
        connection.tls.set(Rc::new(tls)).unwrap();
    }
    let mut head = RequestHead::new(Method::GET, "a", "/");
    if let Some(given) = given {
        head.headers.insert(XFCC, HeaderValue::from_str(given).unwrap());
    }
    let config = ClientCertConfig { forward, details: ClientCertDetails::default() };
    sanitize(&config, &mut head, &connection);
    describe(&config, &mut head, &connection);
    head.headers.get(XFCC).map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn each_mode_treats_the_header_as_envoy_does() {
    use ForwardClientCert::*;
    let ours = "By=spiffe://s;Hash=abc";
    for (mode, mutual, plain) in [
        (Sanitize, None, None),
        (ForwardOnly, Some("given".to_owned()), None),
        (AppendForward, Some(format!("given,{ours}")), None),
        (SanitizeSet, Some(ours.to_owned()), None),
        (AlwaysForwardOnly, Some("given".to_owned()), Some("given".to_owned())),
    ] {
        assert_eq!(outcome(mode, true, Some("given")), mutual, "{mode:?}");
        assert_eq!(outcome(mode, false, Some("given")), plain, "{mode:?}");
    }
    assert_eq!(outcome(AppendForward, true, None).as_deref(), Some(ours));
    assert_eq!(outcome(ForwardOnly, true, None), None);
}

#[test]
fn details_come_in_envoys_order() {
    let tls = TlsInfo::default();
    let all = ClientCertDetails { subject: true, cert: true, chain: true, dns: true, uri: true };
    let pem = "-----BEGIN%20CERTIFICATE-----%0AZGVy%0A-----END%20CERTIFICATE-----%0A";
    assert_eq!(
        element(&tls, &certificate("spiffe://c"), &all),
        format!(
            r#"Hash=abc;Cert="{pem}";Chain="{pem}";Subject="CN=c,O=Acme\, Inc";URI=spiffe://c;DNS=a.test;DNS=b.test"#
        )
    );
}

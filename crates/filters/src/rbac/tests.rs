#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_testkit::network::connection;
use tidegate_types::json::{self, JsonPath};
use tidegate_types::{Address, CertificateInfo, TlsInfo};

use super::*;

fn rules(json: &str) -> Rules {
    json::from_node(&json::parse(json).unwrap(), &JsonPath::root())
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Whether a policy of that permission and principal matches.
fn matches(permission: &str, principal: &str, connection: &ConnectionInfo) -> bool {
    let lists = format!(r#""permissions": [{permission}], "principals": [{principal}]"#);
    let rules = rules(&format!(r#"{{"policies": {{"p": {{{lists}}}}}}}"#));
    rules.judge(&Subject::connection(connection)).access == Access::Allowed
}

const ANY: &str = r#"{"any": true}"#;

fn may(permission: &str) -> bool {
    matches(permission, ANY, &client())
}

fn is(principal: &str) -> bool {
    matches(ANY, principal, &client())
}

/// 192.0.2.1:40000 to 192.0.2.10:80, behind a proxy at 198.51.100.7.
fn client() -> ConnectionInfo {
    let mut info = connection();
    info.direct_remote_address = Address::Ip(([198, 51, 100, 7], 5000).into());
    *info.requested_server_name.borrow_mut() = Some("api.example.com".into());
    info
}

#[test]
fn permissions() {
    assert!(may(r#"{"destination_port": 80}"#));
    assert!(!may(r#"{"destination_port": 81}"#));
    assert!(may(r#"{"destination_port_range": {"start": 80, "end": 81}}"#));
    assert!(!may(r#"{"destination_port_range": {"start": 70, "end": 80}}"#));
    assert!(may(r#"{"destination_ip": {"address_prefix": "192.0.2.10", "prefix_len": 32}}"#));
    assert!(!may(r#"{"destination_ip": {"address_prefix": "2001:db8::", "prefix_len": 0}}"#));
    assert!(may(r#"{"requested_server_name": {"suffix": ".example.com"}}"#));
    assert!(!may(r#"{"requested_server_name": {"exact": ""}}"#));
    assert!(may(r#"{"not_rule": {"destination_port": 81}}"#));
    assert!(may(r#"{"and_rules": {"rules": [{"any": true}, {"destination_port": 80}]}}"#));
    assert!(!may(r#"{"and_rules": {"rules": [{"any": true}, {"destination_port": 81}]}}"#));
    assert!(may(r#"{"or_rules": {"rules": [{"destination_port": 1}, {"destination_port": 80}]}}"#));
}

#[test]
fn a_connection_without_a_server_name_has_the_empty_one() {
    assert!(matches(r#"{"requested_server_name": {"exact": ""}}"#, ANY, &connection()));
}

#[test]
fn principals() {
    let range =
        |kind: &str, ip: &str| format!(r#"{{"{kind}": {{"address_prefix": "{ip}", "prefix_len": 32}}}}"#);
    assert!(is(&range("source_ip", "192.0.2.1")));
    assert!(is(&range("remote_ip", "192.0.2.1")));
    assert!(!is(&range("direct_remote_ip", "192.0.2.1")));
    assert!(is(&range("direct_remote_ip", "198.51.100.7")));
    assert!(is(r#"{"not_id": {"authenticated": {}}}"#));
    assert!(is(r#"{"and_ids": {"ids": [{"any": true}]}}"#));
    assert!(is(r#"{"or_ids": {"ids": [{"authenticated": {}}, {"any": true}]}}"#));
}

fn secured(peer: Option<CertificateInfo>) -> ConnectionInfo {
    let info = connection();
    info.tls.set(Rc::new(TlsInfo { peer: peer.map(Arc::new), ..TlsInfo::default() })).unwrap();
    info
}

fn certificate() -> CertificateInfo {
    CertificateInfo {
        subject: "CN=client".into(),
        issuer: String::new(),
        serial: String::new(),
        sha256: String::new(),
        sha1: String::new(),
        uri_sans: vec!["spiffe://td/a".into()],
        dns_sans: vec!["a.example".into(), "b.example".into()],
        ip_sans: vec![],
        email_sans: vec![],
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH,
        chain: vec![],
        marks: Default::default(),
    }
}

#[test]
fn a_certificate_is_known_by_any_of_its_names() {
    let named = |name: &str, info: &ConnectionInfo| {
        matches(ANY, &format!(r#"{{"authenticated": {{"principal_name": {{"exact": "{name}"}}}}}}"#), info)
    };
    let with = secured(Some(certificate()));
    for name in ["spiffe://td/a", "b.example", "CN=client"] {
        assert!(named(name, &with), "{name}");
    }
    assert!(!named("c.example", &with));
    let without = secured(None);
    assert!(named("", &without) && !named("CN=client", &without));
    assert!(matches(ANY, r#"{"authenticated": {}}"#, &without));
    assert!(!named("", &connection()));
}

#[test]
fn policies_are_tried_by_name_and_the_action_decides() {
    let policy = |permission: &str| format!(r#"{{"permissions": [{permission}], "principals": [{ANY}]}}"#);
    let policies = format!(
        r#""policies": {{"z": {}, "b": {}, "a": {}}}"#,
        policy(ANY),
        policy(ANY),
        policy(r#"{"destination_port": 1}"#)
    );
    let info = connection();
    for (action, access) in [("ALLOW", Access::Allowed), ("DENY", Access::Denied), ("LOG", Access::Allowed)] {
        let rules = rules(&format!(r#"{{"action": "{action}", {policies}}}"#));
        assert_eq!(rules.judge(&Subject::connection(&info)), Verdict { access, policy: Some("b") });
    }
    for (action, access) in [("ALLOW", Access::Denied), ("DENY", Access::Allowed), ("LOG", Access::Allowed)] {
        let rules = rules(&format!(r#"{{"action": "{action}"}}"#));
        let verdict = rules.judge(&Subject::connection(&info));
        assert_eq!(verdict, Verdict { access, policy: None });
        assert_eq!(verdict.details(), "rbac_access_denied_matched_policy[none]");
    }
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_stats::Store;
use tidegate_types::Address;
use tidegate_types::json::{self, JsonPath};

use super::*;

fn vector(len: usize, body: &[u8]) -> Vec<u8> {
    let size = body.len().to_be_bytes();
    [&size[size.len() - len..], body].concat()
}

/// A ClientHello message with these extensions.
fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let all: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &vector(2, data)].concat())
        .collect();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &vector(2, &[0x13, 1]), &vector(1, &[0]), &vector(2, &all)].concat();
    [&[1][..], &vector(3, &body)].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &vector(2, part)].concat()).collect()
}

fn sni(name: &str) -> (u16, Vec<u8>) {
    (0, vector(2, &[&[0][..], &vector(2, name.as_bytes())].concat()))
}

fn alpn(names: &[&str]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = names.iter().flat_map(|name| vector(1, name.as_bytes())).collect();
    (16, vector(2, &list))
}

fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
    records(&message(&[sni(name), alpn(protocols), (0xfafa, vec![0; 40])]), 16384)
}

struct Test {
    filter: Box<dyn ListenerFilter>,
    arrival: Arrival,
    store: Store,
}

fn decode(config: &str) -> Result<Config, Vec<json::Problem>> {
    json::from_node(&json::parse(config).unwrap(), &JsonPath::root())
}

fn test(config: &str) -> Test {
    let store = Store::new(1);
    let scope = Scope::root();
    let cx = FactoryContext { stats: &store, scope: &scope, runtime: &|_| None, local_cluster: "" };
    let inspector = TlsInspector::build(decode(config).unwrap(), &cx).unwrap();
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    let arrival = Arrival::new(address("127.0.0.1:443"), address("127.0.0.1:5000"));
    Test { filter: TlsInspector::open(&Arc::new(inspector)), arrival, store }
}

impl Test {
    fn inspect(&mut self, bytes: &[u8]) -> ListenerFlow {
        self.filter.inspect(&mut self.arrival, bytes)
    }

    fn counts(&self, name: &str) -> bool {
        let text = tidegate_stats::render::text(&self.store, &Default::default());
        text.contains(&format!("tls_inspector.{name}: 1\n"))
    }
}

#[test]
fn name_and_protocols_are_found_however_the_hello_is_cut() {
    let message = message(&[sni("A.Example.com"), alpn(&["h2", "http/1.1"])]);
    for record in [1, 7, 16384] {
        let bytes = records(&message, record);
        let mut test = test("{}");
        for end in 0..bytes.len() {
            assert_eq!(test.inspect(&bytes[..end]), ListenerFlow::NeedMore, "{end} of {record}");
        }
        assert_eq!(test.inspect(&[&bytes[..], b"more"].concat()), ListenerFlow::DONE);
        assert_eq!(test.arrival.server_name.as_deref(), Some("a.example.com"));
        assert_eq!(test.arrival.application_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(test.arrival.transport_protocol.as_deref(), Some("tls"));
        for counter in ["tls_found", "sni_found", "alpn_found"] {
            assert!(test.counts(counter), "{counter}");
        }
    }
}

#[test]
fn a_hello_without_extensions_is_tls_all_the_same() {
    let mut test = test("{}");
    assert_eq!(test.inspect(&records(&message(&[]), 100)), ListenerFlow::DONE);
    assert!(test.counts("tls_found") && test.counts("sni_not_found") && test.counts("alpn_not_found"));
}

#[test]
fn plain_text_is_known_after_five_bytes_and_goes_on() {
    let mut plain = test("{}");
    assert_eq!(plain.inspect(b"GET "), ListenerFlow::NeedMore);
    assert_eq!(plain.inspect(b"GET /"), ListenerFlow::DONE);
    assert_eq!(plain.arrival.transport_protocol.as_deref(), Some("raw_buffer"));
    assert!(plain.counts("tls_not_found"));
    let mut closing = test(r#"{"close_connection_on_client_hello_parsing_errors": true}"#);
    assert_eq!(closing.inspect(b"GET /"), ListenerFlow::Refuse);
}

#[test]
fn garbage_in_a_hello_is_no_tls() {
    for bad in [
        &b"\x16\x03\x01\x00\x05garbage"[..],
        b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c\x03\x03zzzzzzzzzz",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x00\x00",
        b"\x16\x03\x01\xff\xff\x01",
    ] {
        let mut test = test("{}");
        assert_eq!(test.inspect(bad), ListenerFlow::DONE, "{}", bad.escape_ascii());
        assert!(test.counts("tls_not_found"));
    }
}

#[test]
fn a_hello_over_the_limit_is_refused_once_it_reaches_it() {
    let mut test = test(r#"{"max_client_hello_size": 256}"#);
    let bytes = records(&message(&[(0xfafa, vec![0; 400])]), 16384);
    assert_eq!(test.filter.most_bytes(), 256);
    assert_eq!(test.inspect(&bytes[..255]), ListenerFlow::NeedMore);
    assert_eq!(test.inspect(&bytes[..256]), ListenerFlow::Refuse);
    assert!(test.counts("client_hello_too_large"));
    for refused in ["255", "16385"] {
        let text = format!(r#"{{"max_client_hello_size": {refused}}}"#);
        assert!(decode(&text).is_err(), "{refused}");
    }
}

#[test]
fn no_mutation_of_a_hello_does_harm() {
    let good = hello("example.com", &["h2"]);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        let _ = ClientHello::parse(&bytes);
    }
}

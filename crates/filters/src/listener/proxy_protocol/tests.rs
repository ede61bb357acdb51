#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_stats::{Scope, Store};
use tidegate_types::json::{self, JsonPath};

use super::crc32c::crc32c;
use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V4: &[u8] = &[1, 2, 3, 4, 10, 0, 0, 9, 0x04, 0x57, 0x08, 0xae];

fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[version_command, family], &length, body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

struct Test {
    filter: Box<dyn ListenerFilter>,
    arrival: Arrival,
    store: Store,
}

fn test(config: &str) -> Test {
    let store = Store::new(1);
    let scope = Scope::root();
    let cx = FactoryContext { stats: &store, scope: &scope, runtime: &|_| None, local_cluster: "" };
    let node = json::parse(config).unwrap();
    let settings = ProxyProtocol::build(json::from_node(&node, &JsonPath::root()).unwrap(), &cx).unwrap();
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    let arrival = Arrival::new(address("127.0.0.1:443"), address("127.0.0.1:5000"));
    Test { filter: ProxyProtocol::open(&Arc::new(settings)), arrival, store }
}

impl Test {
    fn inspect(&mut self, bytes: &[u8]) -> ListenerFlow {
        self.filter.inspect(&mut self.arrival, bytes)
    }

    #[track_caller]
    fn counts(&self, names: &[&str]) {
        let text = tidegate_stats::render::text(&self.store, &Default::default());
        let ones = text.lines().filter_map(|line| line.strip_suffix(": 1"));
        let ones: Vec<_> = ones.filter(|name| !name.starts_with("server")).collect();
        assert_eq!(ones, names);
    }

    fn addresses(&self) -> [String; 3] {
        let Arrival { local_address, remote_address, direct_remote_address, .. } = &self.arrival;
        [local_address, remote_address, direct_remote_address].map(ToString::to_string)
    }
}

#[test]
fn good_headers_are_taken_off_however_they_are_cut() {
    let tlvs = [tlv(2, b"host.example"), tlv(4, &[0; 3])].concat();
    let v4 = ["10.0.0.9:2222", "1.2.3.4:1111", "127.0.0.1:5000"];
    let own = ["127.0.0.1:443", "127.0.0.1:5000", "127.0.0.1:5000"];
    let mapped = ["[::ffff:10.0.0.9]:2", "[::ffff:1.2.3.4]:1", "127.0.0.1:5000"];
    for (header, addresses) in [
        (b"PROXY TCP4 1.2.3.4 10.0.0.9 1111 2222\r\n".to_vec(), v4),
        (b"PROXY TCP6 ::ffff:1.2.3.4 ::ffff:10.0.0.9 1 02\r\n".to_vec(), mapped),
        (b"PROXY UNKNOWN\r\n".to_vec(), own),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), own),
        (v2(0x21, 0x11, V4), v4),
        (v2(0x21, 0x12, V4), v4),
        (v2(0x21, 0x11, &[V4, &tlvs].concat()), v4),
        (v2(0x20, 0, b""), own),
        (v2(0x20, 0x11, V4), own),
    ] {
        let mut test = test("{}");
        for end in 0..header.len() {
            assert_eq!(test.inspect(&header[..end]), ListenerFlow::NeedMore, "{}", header.escape_ascii());
        }
        let consume = header.len();
        assert_eq!(test.inspect(&[&header[..], b"hello"].concat()), ListenerFlow::Done { consume });
        assert_eq!(test.addresses(), addresses);
        let version =
            if header[0] == b'P' { "proxy_proto.versions.v1.found" } else { "proxy_proto.versions.v2.found" };
        test.counts(&[version]);
    }
}

#[test]
fn malformed_headers_are_refused_and_counted() {
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(120));
    for bad in [
        "PROXY UDP4 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.5 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 70000 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 01.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 0.0.0.0 1.2.3.5 1 2\r\n",
        "PROXY TCP4 255.255.255.255 1.2.3.5 1 2\r\n",
        "PROXY TCP4 224.0.0.1 1.2.3.5 1 2\r\n",
        "PROXY unknown\r\n",
        "PROXY \r\n",
        &long,
    ] {
        let mut test = test("{}");
        assert_eq!(test.inspect(bad.as_bytes()), ListenerFlow::Refuse, "{bad}");
        test.counts(&["downstream_cx_proxy_proto_error", "proxy_proto.versions.v1.error"]);
    }
    for bad in [
        v2(0x11, 0x11, V4),
        v2(0x22, 0x11, V4),
        v2(0x21, 0, b""),
        v2(0x21, 0x31, &[1; 216]),
        v2(0x21, 0x41, b""),
        v2(0x21, 0x11, &V4[..4]),
        v2(0x21, 0x11, &[V4, &[2, 0xff, 0xff, 1]].concat()),
        v2(0x21, 0x11, &[V4, &[2, 0]].concat()),
        v2(0x21, 0x11, &[224, 0, 0, 1, 10, 0, 0, 9, 0, 1, 0, 2]),
    ] {
        let mut test = test("{}");
        assert_eq!(test.inspect(&bad), ListenerFlow::Refuse, "{}", bad.escape_ascii());
        test.counts(&["downstream_cx_proxy_proto_error", "proxy_proto.versions.v2.error"]);
    }
}

#[test]
fn ten_kilobytes_of_tlvs_are_refused_before_they_arrive() {
    let bad = v2(0x21, 0x11, &[V4, &tlv(2, &[0; 10_000])].concat());
    let mut test = test("{}");
    assert_eq!(test.inspect(&bad[..15]), ListenerFlow::NeedMore);
    assert_eq!(test.inspect(&bad[..16]), ListenerFlow::Refuse);
    test.counts(&["downstream_cx_proxy_proto_error", "proxy_proto.versions.v2.error"]);
}

#[test]
fn a_checksum_is_checked() {
    let mut header = v2(0x21, 0x11, &[V4, &tlv(3, &[0; 4]), &tlv(4, b"x")].concat());
    let sum = crc32c(&[&header]);
    let at = header.len() - 8;
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    let consume = header.len();
    assert_eq!(test("{}").inspect(&header), ListenerFlow::Done { consume });
    header[at] ^= 1;
    let mut wrong = test("{}");
    assert_eq!(wrong.inspect(&header), ListenerFlow::Refuse);
    wrong.counts(&["downstream_cx_proxy_proto_error", "proxy_proto.versions.v2.error"]);
}

#[test]
fn without_a_header_it_depends() {
    let mut strict = test(r#"{"stat_prefix": "foo"}"#);
    assert_eq!(strict.inspect(b"\r\n\r\n"), ListenerFlow::NeedMore);
    assert_eq!(strict.inspect(b"GET / HTTP/1.1\r\n"), ListenerFlow::Refuse);
    strict.counts(&["downstream_cx_proxy_proto_error", "proxy_proto.foo.not_found_disallowed"]);
    let mut short = test("{}");
    assert_eq!(short.inspect(b"h"), ListenerFlow::NeedMore);
    assert_eq!(short.inspect(b"hhhh\r\n"), ListenerFlow::Refuse);
    short.counts(&["downstream_cx_proxy_proto_error", "proxy_proto.versions.v1.error"]);
    let allow = r#"{"allow_requests_without_proxy_protocol": true}"#;
    for (bytes, flow) in [
        (&b"h"[..], ListenerFlow::DONE),
        (b"PROXZ hello", ListenerFlow::DONE),
        (b"P", ListenerFlow::NeedMore),
        (b"", ListenerFlow::NeedMore),
        (b"PROXY foo\r\n", ListenerFlow::Refuse),
    ] {
        assert_eq!(test(allow).inspect(bytes), flow, "{}", bytes.escape_ascii());
    }
}

#[test]
fn versions_can_be_disallowed() {
    let header = b"PROXY TCP4 1.2.3.4 10.0.0.9 1111 2222\r\n";
    let mut no_v1 = test(r#"{"disallowed_versions": ["V1"]}"#);
    assert_eq!(no_v1.inspect(header), ListenerFlow::Refuse);
    no_v1.counts(&["proxy_proto.versions.v1.disallowed", "proxy_proto.versions.v1.found"]);
    let mut passed =
        test(r#"{"disallowed_versions": ["V1"], "allow_requests_without_proxy_protocol": true}"#);
    assert_eq!(passed.inspect(header), ListenerFlow::DONE);
}

#[test]
fn tlvs_become_metadata_and_are_passed_on() {
    let config = r#"{"rules": [
        {"tlv_type": 2, "on_tlv_present": {"key": "authority"}},
        {"tlv_type": 234, "on_tlv_present": {"key": "auth", "metadata_namespace": "my"}},
        {"tlv_type": 119, "on_tlv_present": {"key": "missing"}}],
        "pass_through_tlvs": {"match_type": "INCLUDE", "tlv_type": [234]}}"#;
    let mut test = test(config);
    let tlvs = [tlv(2, b"a\xffb"), tlv(2, b"second"), tlv(0xea, b"vpce")].concat();
    test.inspect(&v2(0x21, 0x11, &[V4, &tlvs].concat()));
    let metadata = test.arrival.state.value::<ConnectionMetadata>().unwrap();
    let entry =
        |namespace: &str, key: &str, value: &str| (namespace.to_owned(), key.to_owned(), value.to_owned());
    let namespace = "envoy.filters.listener.proxy_protocol";
    assert_eq!(metadata.0, [entry(namespace, "authority", "a!b"), entry("my", "auth", "vpce")]);
    let passed = test.arrival.state.value::<ProxyTlvs>().unwrap();
    assert_eq!(*passed.0, [(0xea, Box::from(&b"vpce"[..]))]);
}

#[test]
fn no_mutation_of_a_header_does_harm() {
    let good = v2(0x21, 0x11, &[V4, &tlv(3, &[0; 4]), &tlv(2, b"abc")].concat());
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..5) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        let _ = test("{}").inspect(&bytes);
    }
}

//! Listener filters over real sockets: what they find, what they refuse, what they leave behind.

use std::time::{Duration, Instant};

use integration_tests::config::{file_log, filter, text_format};
use integration_tests::proxy::{Options, await_lines};
use integration_tests::{Config, End, Nobody, Origin, Proxy, wait};
use serde_json::{Value, json};

pub(crate) const TLS: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
pub(crate) const HTTP: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
const PROXY: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
const RATE: &str = "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit";

/// The beginning of a TLS connection that asks for `name`.
pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    fn vector(len: usize, body: &[u8]) -> Vec<u8> {
        let size = body.len().to_be_bytes();
        [&size[size.len() - len..], body].concat()
    }
    let sni = vector(2, &[&[0][..], &vector(2, name.as_bytes())].concat());
    let extensions = [&[0, 0][..], &vector(2, &sni)].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &vector(2, &extensions)].concat();
    let message = [&[1][..], &vector(3, &body)].concat();
    [&[22, 3, 1][..], &vector(2, &message)].concat()
}

fn v2(tlvs: &[u8]) -> Vec<u8> {
    let body = [&[192, 0, 2, 1, 192, 0, 2, 2, 0, 7, 0, 80][..], tlvs].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &u16::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

/// An echo behind these listener filters.
fn echo(filters: &[Value], change: Value) -> Config {
    let echo = filter("echo", "envoy.extensions.filters.network.echo.v3.Echo", json!({}));
    Config::new(Nobody::new().address())
        .listener(json!({"stat_prefix": "test", "listener_filters": filters, "filter_chains": [{"filters": [echo]}]}))
        .listener(change)
}

/// The name of a listener's counter.
fn listener(counter: &str) -> String {
    format!("listener.test.{counter}")
}

#[test]
fn a_proxy_header_says_who_the_client_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let format = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% \
                  %DOWNSTREAM_LOCAL_ADDRESS% %DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:authority)%\n";
    let origin = Origin::named("one");
    let rule = json!({"tlv_type": 2, "on_tlv_present": {"key": "authority"}});
    let config = Config::new(origin.address())
        .listener(json!({"listener_filters": [filter("pp", PROXY, json!({"rules": [rule]}))]}))
        .hcm(json!({"use_remote_address": true, "access_log": [file_log(&file, text_format(format))]}));
    let options =
        Options { arguments: vec!["--file-flush-interval-msec".into(), "10".into()], ..Options::default() };
    let proxy = options.start(&config);
    let request = b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    for header in [b"PROXY TCP4 192.0.2.1 192.0.2.2 7 80\r\n".to_vec(), v2(b"\x02\x00\x04name")] {
        let mut client = proxy.connect();
        client.send([&header[..], request].concat());
        assert_eq!(client.response().text(), "one");
    }
    let lines = await_lines(&file, 2);
    assert_eq!(lines, ["192.0.2.1:7 127.0.0.1 192.0.2.2:80 -", "192.0.2.1:7 127.0.0.1 192.0.2.2:80 name"]);
    assert_eq!(proxy.stat("proxy_proto.versions.v1.found"), 1);
    assert_eq!(proxy.stat("proxy_proto.versions.v2.found"), 1);
}

#[test]
fn bytes_that_were_looked_at_are_still_there() {
    let filters = [filter("tls", TLS, json!({})), filter("http", HTTP, json!({}))];
    let proxy = Proxy::start(&echo(&filters, json!({})));
    for bytes in [client_hello("a.test"), b"GET / HTTP/1.1\r\n".to_vec()] {
        let mut client = proxy.connect();
        // In two parts, the second of which wakes the look.
        client.send(&bytes[..5]);
        std::thread::sleep(Duration::from_millis(20));
        client.send(&bytes[5..]);
        assert_eq!(client.exactly(bytes.len()).unwrap(), bytes);
    }
    assert_eq!(proxy.stat("tls_inspector.sni_found"), 1);
    assert_eq!(proxy.stat("http_inspector.http11_found"), 1);
}

#[test]
fn bad_input_is_closed_in_time_and_leaves_nothing_behind() {
    let filters = [filter("pp", PROXY, json!({})), filter("tls", TLS, json!({}))];
    let proxy = Proxy::start(&echo(&filters, json!({"listener_filters_timeout": "0.4s"})));
    let header = v2(b"");
    let hello = client_hello("a.test");
    let wrong_checksum = v2(b"\x03\x00\x04abcd");
    let many_tlvs = v2(&[&b"\x02\x27\x10"[..], &[b'x'; 10_000]].concat());
    // Once, so that what is made at the first use is there.
    assert_eq!(proxy.connect().send(&wrong_checksum).end(), End::Reset);
    wait::until("the connection's end", || proxy.stat(&listener("downstream_pre_cx_active")) == 0);
    let (before, memory) = (proxy.process.descriptors(), proxy.process.resident_bytes());
    for bad in [&wrong_checksum[..], &many_tlvs, &[b'x'; 65536], b"PROXY TCP4 1.2.3.4\r\n"] {
        let start = Instant::now();
        let mut client = proxy.connect();
        client.send_some(bad, Duration::from_secs(2));
        assert_ne!(client.end(), End::Open);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    // Stalls: at each byte of a header, and of a ClientHello behind one.
    let whole = [&header[..], &hello].concat();
    let mut stalled: Vec<_> = (0..whole.len())
        .map(|at| {
            let mut client = proxy.connect();
            client.send(&whole[..at]);
            client
        })
        .collect();
    for client in &mut stalled {
        assert_ne!(client.end(), End::Open);
    }
    // Truncated: the client gives up.
    let mut half = proxy.connect();
    half.send(&whole[..40]).finish();
    assert_ne!(half.end(), End::Open);
    let stat = |name: &str| proxy.stat(&listener(name));
    wait::until("the last look's end", || stat("downstream_pre_cx_active") == 0);
    assert_eq!(stat("downstream_pre_cx_timeout"), whole.len() as u64);
    assert_eq!(stat("downstream_listener_filter_remote_close"), 1);
    assert_eq!(stat("downstream_cx_total"), 0);
    wait::until("the descriptors' return", || proxy.process.descriptors() <= before);
    let grown = proxy.process.resident_bytes().saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes are left");
}

#[test]
fn after_the_timeout_a_silent_client_may_be_served() {
    let change = json!({"listener_filters_timeout": "0.2s", "continue_on_listener_filters_timeout": true});
    let proxy = Proxy::start(&echo(&[filter("tls", TLS, json!({}))], change));
    let mut client = proxy.connect();
    client.send(&client_hello("a.test")[..40]);
    assert_eq!(client.exactly(40).unwrap(), &client_hello("a.test")[..40]);
    client.send("more");
    assert_eq!(client.exactly(4).unwrap(), b"more");
    assert_eq!(proxy.stat(&listener("downstream_pre_cx_timeout")), 1);
}

#[test]
fn connections_can_be_rationed() {
    let bucket = json!({"max_tokens": 1, "fill_interval": "600s"});
    let limit = filter("rate", RATE, json!({"stat_prefix": "r", "token_bucket": bucket}));
    let proxy = Proxy::start(&echo(&[limit], json!({})));
    let mut first = proxy.connect();
    assert_eq!(first.send("hi").exactly(2).unwrap(), b"hi");
    assert_eq!(proxy.connect().end(), End::Fin);
    assert_eq!(proxy.stat("listener_local_ratelimit.r.rate_limited"), 1);
}

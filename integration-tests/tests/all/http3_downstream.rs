//! Clients of HTTP/3: requests, limits, closes, reloads.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use http::{Method, StatusCode};
use integration_tests::config::{file_log, text_format};
use integration_tests::h3::{self, Client, Raw, answer, quic_transport_of};
use integration_tests::proxy::{Options, await_lines};
use integration_tests::tls_origin::certificate;
use integration_tests::{Config, Origin, Proxy, wait};
use serde_json::json;
use tidegate_types::EndStream;

fn config(origin: &Origin) -> Config {
    Config::new(origin.address()).http3()
}

fn http(proxy: &Proxy, name: &str) -> u64 {
    proxy.stat(&format!("http.ingress.downstream_{name}"))
}

#[test]
fn requests_are_answered_counted_and_logged() {
    let origin = Origin::answering(|request| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
            request.body.len(),
            String::from_utf8_lossy(&request.body)
        )
    });
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let format = text_format("%PROTOCOL% %RESPONSE_CODE% %DOWNSTREAM_TLS_VERSION% %REQUESTED_SERVER_NAME%\n");
    let proxy = Proxy::start(&config(&origin).hcm(json!({"access_log": [file_log(&log, format)]})));
    h3::run(async {
        let client = Client::connect(proxy.address);
        let answer = client.ask(Method::POST, "/a", b"hello").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "hello"));
        assert_eq!(client.get("/b").await.unwrap().status, StatusCode::OK);
        assert_eq!((http(&proxy, "cx_http3_active"), http(&proxy, "rq_http3_total")), (1, 2));
    });
    assert_eq!(await_lines(&log, 2), ["HTTP/3 200 TLSv1.3 server.test"; 2]);
    let request = origin.requests().swap_remove(0);
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("early-data"), None);
    proxy.admin.await_stat("http.ingress.downstream_cx_destroy_remote", 1);
    assert_eq!(proxy.stat("http3.quic_version_rfc_v1"), 1);
    assert_eq!(http(&proxy, "cx_active"), 0);
}

#[test]
fn many_requests_share_a_connection() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin));
    h3::run(async {
        let client = Client::connect(proxy.address);
        // More than may be open at once.
        let exchanges: Vec<_> = (0..250).map(|_| client.open(Method::GET, "/", EndStream::Yes)).collect();
        for mut exchange in exchanges {
            assert_eq!(answer(&mut exchange).await.unwrap().status, StatusCode::OK);
        }
    });
    assert_eq!((http(&proxy, "cx_total"), http(&proxy, "rq_2xx")), (1, 250));
}

#[test]
fn an_idle_connection_drains_and_is_told_why() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin).hcm(json!({
        "common_http_protocol_options": {"idle_timeout": "0.3s"},
        "drain_timeout": "0.2s",
    })));
    let (goaways, close) = h3::run(async { Raw::connect(proxy.address).await.end().await });
    assert_eq!(goaways.len(), 2, "{goaways:?}");
    assert_eq!(goaways[1], 0);
    assert!(close.starts_with("transport "), "{close}");
    assert!(
        close.ends_with("0:Closed by application with reason: triggered_delayed_close_timeout"),
        "{close}"
    );
    for name in ["cx_idle_timeout", "cx_delayed_close_timeout", "cx_destroy_local"] {
        assert_eq!(http(&proxy, name), 1, "{name}");
    }
    assert_eq!(proxy.stat("http3.goaway_sent"), 1);
}

#[test]
fn the_end_of_the_process_waits_for_requests() {
    let origin = Origin::script(|mut peer| {
        while peer.request().is_some() {
            std::thread::sleep(Duration::from_millis(400));
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let mut proxy = Proxy::start(&config(&origin));
    h3::run(async {
        let (idle, busy) = (Client::connect(proxy.address), Client::connect(proxy.address));
        let mut exchange = busy.open(Method::GET, "/", EndStream::Yes);
        let mut waiting = Box::pin(answer(&mut exchange));
        tokio::select! {
            _ = &mut waiting => panic!("too early"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        proxy.process.signal("TERM");
        let events = idle.closed().await;
        assert!(events.last().unwrap().starts_with("Closed"), "{events:?}");
        assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
        assert!(busy.events().iter().any(|event| event.starts_with("GoAway")), "{:?}", busy.events());
    });
    assert!(proxy.process.exit().success());
}

#[test]
fn the_end_of_the_process_is_told_to_idle_connections() {
    let origin = Origin::ok();
    let mut proxy = Proxy::start(&config(&origin));
    let (goaways, close) = h3::run(async {
        let idle = Raw::connect(proxy.address).await;
        proxy.process.signal("TERM");
        idle.end().await
    });
    assert_eq!(goaways, [0]);
    assert!(close.starts_with("transport "), "{close}");
    assert!(proxy.process.exit().success());
}

/// Between client and proxy, which sees another port from [`Nat::rebind`] on.
struct Nat {
    inside: UdpSocket,
    outside: UdpSocket,
    proxy: SocketAddr,
    client: Option<SocketAddr>,
}

impl Nat {
    fn new(proxy: SocketAddr) -> Self {
        Self { inside: socket(), outside: socket(), proxy, client: None }
    }

    fn rebind(&mut self) {
        self.outside = socket();
    }

    /// Passes on what there is.
    fn pass(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = self.inside.recv_from(&mut buffer) {
            self.client = Some(client);
            self.outside.send_to(&buffer[..length], self.proxy).unwrap();
        }
        while let Ok(length) = self.outside.recv(&mut buffer) {
            self.inside.send_to(&buffer[..length], self.client.unwrap()).unwrap();
        }
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

#[test]
fn a_client_whose_address_changes_keeps_its_connection_on_any_worker() {
    let origin = Origin::ok();
    let proxy = Options { concurrency: 3, ..Options::default() }.start(&config(&origin));
    for _ in 0..4 {
        h3::run(async {
            let mut nat = Nat::new(proxy.address);
            let client = Client::connect(nat.inside.local_addr().unwrap());
            for _ in 0..4 {
                let mut exchange = client.open(Method::GET, "/", EndStream::Yes);
                let mut waiting = Box::pin(answer(&mut exchange));
                let status = loop {
                    nat.pass();
                    tokio::select! {
                        answer = &mut waiting => break answer.unwrap().status,
                        () = tokio::time::sleep(Duration::from_millis(1)) => {}
                    }
                };
                assert_eq!(status, StatusCode::OK);
                nat.rebind();
            }
        });
    }
    assert_eq!((http(&proxy, "cx_total"), http(&proxy, "rq_2xx")), (4, 16));
}

#[test]
fn a_reload_keeps_connections() {
    let origin = Origin::ok();
    let first = config(&origin);
    let proxy = Proxy::start(&first);
    h3::run(async {
        let client = Client::connect(proxy.address);
        assert_eq!(client.get("/").await.unwrap().status, StatusCode::OK);
        let second = first.route(json!({"route": null, "direct_response": {"status": 204}}));
        std::fs::write(proxy.config_file(), second.0.to_string()).unwrap();
        assert_eq!(proxy.admin.post("/reload").status, 200);
        for client in [client, Client::connect(proxy.address)] {
            assert_eq!(client.get("/").await.unwrap().status, StatusCode::NO_CONTENT);
        }
    });
    assert_eq!(proxy.stat("listener_manager.listener_in_place_updated"), 1);
    assert_eq!(http(&proxy, "cx_total"), 2);
}

#[test]
fn a_listener_that_goes_lets_its_connections_finish() {
    let origin = Origin::ok();
    let config = config(&origin);
    let proxy = Proxy::start(&config);
    h3::run(async {
        let client = Client::connect(proxy.address);
        client.get("/").await.unwrap();
        let mut second = config.clone();
        second.0["static_resources"]["listeners"] = json!([]);
        std::fs::write(proxy.config_file(), second.0.to_string()).unwrap();
        assert_eq!(proxy.admin.post("/reload").status, 200);
        let events = client.closed().await;
        assert!(events.last().unwrap().starts_with("Closed"), "{events:?}");
        // And comes back under another name, on the address that the last one may still hold.
        let mut third = config.listener(json!({"name": "other"}));
        third.0["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] =
            json!(proxy.address.port());
        std::fs::write(proxy.config_file(), third.0.to_string()).unwrap();
        assert_eq!(proxy.admin.post("/reload").status, 200);
        assert_eq!(Client::connect(proxy.address).get("/").await.unwrap().status, StatusCode::OK);
    });
}

#[test]
fn a_renamed_listener_takes_the_socket_over() {
    let origin = Origin::ok();
    let port = UdpSocket::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let place = json!({"address": {"socket_address": {"port_value": port}}});
    let first = config(&origin).listener(place);
    let proxy = Proxy::start(&first);
    h3::run(async {
        let old = Client::connect(proxy.address);
        old.get("/").await.unwrap();
        let second = first.listener(json!({"name": "renamed"}));
        std::fs::write(proxy.config_file(), second.0.to_string()).unwrap();
        assert_eq!(proxy.admin.post("/reload").status, 200);
        // At once, although the old listener drains.
        assert_eq!(Client::connect(proxy.address).get("/").await.unwrap().status, StatusCode::OK);
        old.closed().await;
        assert_eq!(Client::connect(proxy.address).get("/").await.unwrap().status, StatusCode::OK);
    });
}

#[test]
fn the_health_of_the_process_is_announced_by_goaway() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin).hcm(json!({"drain_timeout": "0.2s"})));
    h3::run(async {
        let client = Client::connect(proxy.address);
        client.get("/").await.unwrap();
        proxy.admin.post("/healthcheck/fail");
        assert_eq!(client.get("/").await.unwrap().status, StatusCode::OK);
        client.await_event("GoAway").await;
        client.closed().await;
    });
    wait::until("its count", || http(&proxy, "cx_drain_close") == 1);
}

#[test]
fn changed_certificates_are_shown_to_new_clients_and_cost_no_connection() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let put = |from: &str, end: &str| {
        std::fs::copy(certificate(&format!("{from}.{end}")), at(&format!("own.{end}"))).unwrap();
    };
    put("server", "pem");
    put("server", "key");
    let mut config = config(&origin);
    config.0["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] =
        quic_transport_of(&at("own.pem"), &at("own.key"));
    let proxy = Proxy::start(&config);
    h3::run(async {
        let old = Client::connect(proxy.address);
        assert_eq!(old.get("/").await.unwrap().status, StatusCode::OK);
        let first = Raw::connect(proxy.address).await.certificate();

        std::fs::write(at("own.pem"), "garbage").unwrap();
        while !proxy.log().contains("changed certificate files refused") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(Raw::connect(proxy.address).await.certificate(), first);

        put("server-rsa", "key");
        put("server-rsa", "pem");
        while Raw::connect(proxy.address).await.certificate() == first {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(old.get("/").await.unwrap().status, StatusCode::OK);
        assert_eq!(Client::connect(proxy.address).get("/").await.unwrap().status, StatusCode::OK);
    });
}

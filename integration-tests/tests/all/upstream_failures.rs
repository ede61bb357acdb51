//! Upstreams that refuse, vanish or talk nonsense: the answer, its response flag and its details.

use integration_tests::config::{cluster, text_format};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, End, Nobody, Origin, Proxy, Response};
use serde_json::json;

const RESET: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";

/// Asks once and reads `CODE FLAGS DETAILS` from the access log.
#[track_caller]
fn once(config: Config) -> (Response, String) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let config =
        config.access_log(&log, text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"));
    let proxy = Proxy::start(&config);
    let response = proxy.get("/");
    (response, await_lines(&log, 1).remove(0))
}

/// Closes, or says this, after each request.
fn closing(answer: &'static str) -> Origin {
    Origin::script(move |mut peer| {
        peer.request();
        peer.send(answer);
    })
}

#[test]
fn connect_refused_is_503_uf() {
    let nobody = Nobody::new();
    let (response, log) = once(Config::new(nobody.address()));
    assert_eq!((response.status, response.text()), (503, format!("{RESET}remote connection failure")));
    assert_eq!(response.names(), ["content-length", "content-type", "date", "server"]);
    let details = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";
    assert_eq!(log, format!("503 UF {details}"));
}

#[test]
fn no_host_is_503_uh() {
    let (response, log) = once(Config::with_clusters(&[cluster("origin", &[])]));
    assert_eq!((response.status, response.text().as_str()), (503, "no healthy upstream"));
    assert_eq!(log, "503 UH no_healthy_upstream");
}

#[test]
fn no_route_is_404_nr() {
    let origin = Origin::ok();
    let (response, log) = once(Config::new(origin.address()).virtual_host(json!({"routes": []})));
    assert_eq!(
        (response.status, response.text().as_str(), response.header("content-length")),
        (404, "", Some("0"))
    );
    assert_eq!(log, "404 NR route_not_found");
}

#[test]
fn no_such_cluster_is_503_nc() {
    let origin = Origin::ok();
    let route = json!([{"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster"}}]);
    let (response, log) = once(Config::new(origin.address()).routes(route));
    assert_eq!((response.status, response.text().as_str()), (503, ""));
    assert_eq!(log, "503 NC cluster_not_found");
}

#[test]
fn a_close_before_the_response_is_503_uc() {
    let origin = closing("");
    let (response, log) = once(Config::new(origin.address()));
    assert_eq!((response.status, response.text()), (503, format!("{RESET}connection termination")));
    assert_eq!(log, "503 UC upstream_reset_before_response_started{connection_termination}");
}

#[test]
fn a_close_after_an_interim_response_is_no_protocol_error() {
    let origin = closing("HTTP/1.1 100 Continue\r\n\r\n");
    let proxy = Proxy::start(&Config::new(origin.address()));
    assert_eq!(proxy.get("/").status, 503);
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_cx_destroy_remote_with_active_rq"), 1);
    assert_eq!(stats.get("cluster.origin.upstream_cx_protocol_error"), 0);
}

#[test]
fn nonsense_is_502_upe() {
    for answer in [
        "hello\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    ] {
        let origin = closing(answer);
        let (response, log) = once(Config::new(origin.address()));
        assert_eq!(response.status, 502, "{answer:?}: {log}");
        assert!(log.starts_with("502 UPE "), "{answer:?}: {log}");
    }
}

#[test]
fn a_grpc_client_gets_its_status_in_a_header() {
    let nobody = Nobody::new();
    let proxy = Proxy::start(&Config::new(nobody.address()));
    let response =
        proxy.connect().ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\r\n");
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("14")));
    assert_eq!(response.header("content-type"), Some("application/grpc"));
}

#[test]
fn a_refused_connection_does_not_cost_the_clients_connection() {
    let nobody = Nobody::new();
    let proxy = Proxy::start(&Config::new(nobody.address()));
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 503);
    }
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_cx_connect_fail"), 3);
    assert_eq!(stats.get("cluster.origin.upstream_rq_503"), 3);
}

#[test]
fn a_local_reply_to_an_upload_closes_the_connection() {
    let nobody = Nobody::new();
    let proxy = Proxy::start(&Config::new(nobody.address()).virtual_host(json!({"routes": []})));
    let mut client = proxy.connect();
    let response = client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nbegun");
    assert_eq!((response.status, response.closes()), (404, true));
    assert_ne!(client.end(), End::Open);
}

#[test]
fn connect_failures_are_retried_on_another_host() {
    let (nobody, origin) = (Nobody::new(), Origin::ok());
    let config =
        Config::with_clusters(&[cluster("origin", &[nobody.address(), origin.address()])]).route(json!({
            "route": {"retry_policy": {"retry_on": "connect-failure", "num_retries": 3}},
        }));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    for _ in 0..6 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
    }
    let stats = proxy.admin.stats();
    assert!(stats.get("cluster.origin.upstream_rq_retry") >= 1);
    assert!(stats.get("cluster.origin.upstream_rq_retry_success") >= 1);
}

#[test]
fn a_5xx_is_retried_when_asked_for() {
    let origin = Origin::script(|mut peer| {
        while peer.request().is_some() {
            let answer = match peer.number {
                0 => "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                _ => integration_tests::origin::OK,
            };
            peer.send(answer);
        }
    });
    let policy = json!({"route": {"retry_policy": {"retry_on": "5xx", "num_retries": 1}}});
    let proxy = Proxy::start(&Config::new(origin.address()).route(policy));
    let body = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
    assert_eq!(proxy.connect().ask(body).status, 200);
    let bodies: Vec<Vec<u8>> = origin.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [b"body", b"body"]);
}

#[test]
fn half_a_head_is_502_upe() {
    let origin = closing("HTTP/1.1 200 OK\r\ncontent-le");
    let (response, log) = once(Config::new(origin.address()));
    assert_eq!((response.status, response.text()), (502, format!("{RESET}protocol error")));
    assert_eq!(log, "502 UPE upstream_reset_before_response_started{protocol_error}");
}

#[test]
fn retries_end_with_urx() {
    let nobody = Nobody::new();
    let config = Config::new(nobody.address()).route(json!({
        "route": {"retry_policy": {"retry_on": "connect-failure", "num_retries": 2}},
    }));
    let (response, log) = once(config);
    assert_eq!(response.status, 503);
    assert!(log.starts_with("503 URX,UF "), "{log}");
    assert!(response.text().contains("retried and the latest reset reason: remote connection failure"));
}

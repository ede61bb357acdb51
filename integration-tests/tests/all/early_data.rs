//! Early data of HTTP/3 clients (0-RTT, RFC 8470): what is served before the handshake is over, what waits, and what
//! comes of a recording that is played again.

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use integration_tests::h3::{self, Client, answer, dial, trusting};
use integration_tests::wait::PATIENCE;
use integration_tests::{Config, Origin, Proxy, wait};
use serde_json::json;
use tidegate_codec::ClientStream;
use tidegate_codec::h3::ClientExchange;
use tidegate_quic::{ClientConfig, EarlyData};
use tidegate_testkit::udp::{Quality, UdpPath};
use tidegate_types::EndStream;

const TOO_EARLY: &str = "HTTP/1.1 425 Too Early\r\ncontent-length: 0\r\n\r\n";

fn start(origin: &Origin) -> (Proxy, UdpPath) {
    let proxy = Proxy::start(&Config::new(origin.address()).http3());
    let near = ([127, 0, 0, 1], 0).into();
    let path = UdpPath::new(near, proxy.address, Quality::Open).unwrap();
    (proxy, path)
}

/// What is needed to send early data: a session of an earlier connection, which is over.
async fn acquainted(proxy: &Proxy) -> ClientConfig {
    let config = trusting();
    let conn = dial(proxy.address, config.clone());
    assert_eq!(conn.early_data(), EarlyData::None);
    let client = Client::over(conn);
    assert_eq!(client.get("/first").await.unwrap().status, StatusCode::OK);
    drop(client);
    config
}

/// Sends early data.
fn hasty(path: &UdpPath, config: ClientConfig) -> Client {
    let conn = dial(path.address(), config);
    assert_eq!(conn.early_data(), EarlyData::Offered);
    Client::over(conn)
}

/// Lets the client's task run until `look` finds what it looks for.
async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let waited = async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect(what);
}

/// Asks for `at` in early data on a path that brings nothing back, so that there is no handshake, and waits until that
/// came to `origin`.
async fn ask_early(
    proxy: &Proxy,
    path: &UdpPath,
    origin: &Origin,
    at: &'static str,
) -> (Client, ClientExchange) {
    let config = acquainted(proxy).await;
    path.set(Quality::OneWay);
    let client = hasty(path, config);
    let early = client.open(Method::GET, at, EndStream::Yes);
    until("the early request", || came(origin, at) == 1).await;
    (client, early)
}

fn came(origin: &Origin, path: &str) -> usize {
    origin.requests().iter().filter(|request| request.path() == path).count()
}

#[test]
fn what_is_safe_is_served_before_the_handshake_and_the_rest_after_it() {
    let origin = Origin::ok();
    let (proxy, path) = start(&origin);
    h3::run(async {
        let config = acquainted(&proxy).await;
        // Nothing of the proxy's arrives: there is no handshake.
        path.set(Quality::OneWay);
        let client = hasty(&path, config);
        let mut post = client.open(Method::POST, "/post", EndStream::No);
        post.send_data(Bytes::from_static(b"body"), EndStream::Yes);
        let mut gets = ["/get", "/get-too"].map(|path| client.open(Method::GET, path, EndStream::Yes));
        until("early requests", || came(&origin, "/get") + came(&origin, "/get-too") == 2).await;
        assert_eq!(came(&origin, "/post"), 0);
        path.set(Quality::Open);
        for get in &mut gets {
            assert_eq!(answer(get).await.unwrap().status, StatusCode::OK);
        }
        assert_eq!(answer(&mut post).await.unwrap().status, StatusCode::OK);
    });
    let early = |path: &str| {
        let requests = origin.requests();
        let request = requests.iter().find(|request| request.path() == path).unwrap();
        request.header("early-data").map(str::to_owned)
    };
    assert_eq!((early("/first"), early("/post")), (None, None));
    assert_eq!((early("/get").as_deref(), early("/get-too").as_deref()), (Some("1"), Some("1")));
}

/// RFC 8470 section 5.2: the client is told, and asks again when its handshake is over.
#[test]
fn an_upstream_that_finds_it_too_early_is_asked_again_by_the_client() {
    let origin = Origin::answering(|request| match request.header("early-data") {
        Some(_) => TOO_EARLY,
        None => integration_tests::origin::OK,
    });
    let (proxy, path) = start(&origin);
    h3::run(async {
        let (client, mut early) = ask_early(&proxy, &path, &origin, "/get").await;
        path.set(Quality::Open);
        assert_eq!(answer(&mut early).await.unwrap().status, StatusCode::TOO_EARLY);
        assert_eq!(client.get("/get").await.unwrap().status, StatusCode::OK);
    });
    assert_eq!(came(&origin, "/get"), 2);
}

#[test]
fn without_early_data_nobody_is_offered_any() {
    let origin = Origin::ok();
    let mut config = Config::new(origin.address()).http3();
    let transport = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config";
    config.0.pointer_mut(transport).unwrap()["enable_early_data"] = json!(false);
    let proxy = Proxy::start(&config);
    h3::run(async {
        let config = acquainted(&proxy).await;
        let conn = dial(proxy.address, config);
        assert_eq!(conn.early_data(), EarlyData::None);
        assert_eq!(Client::over(conn).get("/").await.unwrap().status, StatusCode::OK);
    });
    assert_eq!(origin.requests()[1].header("early-data"), None);
}

/// Plays the recording of a client again, from another port.
fn play_again(path: &UdpPath) -> UdpSocket {
    path.replay(&path.sent())
}

/// Whatever the recording led to came before this.
async fn ask_after(proxy: &Proxy) {
    let after = Client::connect(proxy.address);
    assert_eq!(after.get("/after").await.unwrap().status, StatusCode::OK);
}

/// While the connection stands its datagrams belong to it, and say nothing new.
#[test]
fn early_data_that_is_played_again_beside_its_connection_is_not_served_again() {
    let origin = Origin::ok();
    let (proxy, path) = start(&origin);
    h3::run(async {
        let (client, mut early) = ask_early(&proxy, &path, &origin, "/early").await;
        for _ in 0..3 {
            play_again(&path);
        }
        path.set(Quality::Open);
        assert_eq!(answer(&mut early).await.unwrap().status, StatusCode::OK);
        for _ in 0..3 {
            play_again(&path);
        }
        ask_after(&proxy).await;
        assert_eq!(client.get("/later").await.unwrap().status, StatusCode::OK);
    });
    assert_eq!(came(&origin, "/early"), 1);
}

/// Afterwards they open a connection, which finds that its session was used: the handshake is a whole one, for which
/// whoever plays a recording has no keys, and its early data is refused.
#[test]
fn early_data_that_is_played_again_after_its_connection_is_not_served_again() {
    let origin = Origin::ok();
    let (proxy, path) = start(&origin);
    h3::run(async {
        let (_client, mut early) = ask_early(&proxy, &path, &origin, "/early").await;
        path.set(Quality::Open);
        assert_eq!(answer(&mut early).await.unwrap().status, StatusCode::OK);
    });
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    let mut again = Vec::new();
    wait::until("a connection of the recording", || {
        again.push(play_again(&path));
        proxy.stat("http.ingress.downstream_cx_active") > 0
    });
    again.push(play_again(&path));
    h3::run(ask_after(&proxy));
    assert_eq!(came(&origin, "/early"), 1);
}

//! What HTTP/3 carries beside plain requests, to upstreams of every version: gRPC, WebSocket, interim responses and
//! trailers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use integration_tests::h2::{H2Origin, H2Stream, Manners, code};
use integration_tests::h3::{self, Answer, Client, answer, head, next_frame, next_head};
use integration_tests::{Config, Nobody, Origin, Proxy, Wire, wait};
use serde_json::json;
use tidegate_codec::h3::ClientExchange;
use tidegate_codec::{BodyFrame, ClientStream, ResponseFrame};
use tidegate_types::EndStream;

const REPLY: [(&str, &str); 1] = [("content-type", "application/grpc")];

/// Speaks HTTP/3 to clients, WebSocket included.
fn from_http3(config: Config) -> Config {
    config.http3().hcm(json!({
        "http3_protocol_options": {"allow_extended_connect": true},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }))
}

fn to_http3(address: SocketAddr) -> Config {
    Config::new(address).http3_upstream(json!({"allow_extended_connect": true}))
}

fn interim(config: Config) -> Config {
    config.hcm(json!({"proxy_100_continue": true}))
}

/// From HTTP/3 straight to what `behind` speaks, and to it by way of HTTP/3.
fn ways(behind: Config) -> [Vec<Proxy>; 2] {
    let last = Proxy::start(&from_http3(behind.clone()));
    let first = Proxy::start(&from_http3(to_http3(last.address)));
    [vec![Proxy::start(&from_http3(behind))], vec![first, last]]
}

fn to_http2(origin: &H2Origin) -> Config {
    Config::new(origin.address()).http2_upstream(json!({}))
}

fn framed(message: &'static [u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// Begins a gRPC call.
fn call(client: &Client) -> ClientExchange {
    let mut head = head(Method::POST, "/test.Echo/Call");
    head.headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    head.headers.insert("te", HeaderValue::from_static("trailers"));
    client.begin(&head, EndStream::No)
}

fn say(exchange: &mut ClientExchange, end: EndStream) {
    exchange.send_data(framed(b"ping").into(), end);
}

async fn unary(client: &Client) -> Answer {
    let mut exchange = call(client);
    say(&mut exchange, EndStream::Yes);
    answer(&mut exchange).await.unwrap()
}

#[track_caller]
fn trailer(answer: &Answer, name: &str, value: &str) {
    let found = answer.trailers.as_ref().and_then(|trailers| trailers.get(name));
    assert_eq!(found.map(HeaderValue::as_bytes), Some(value.as_bytes()), "{answer:?}");
}

/// A response that is all head.
#[track_caller]
fn trailers_only(answer: &Answer, status: &str) {
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers.get("grpc-status").map(HeaderValue::as_bytes), Some(status.as_bytes()));
    assert_eq!(answer.headers["content-type"], "application/grpc");
    assert!(answer.body.is_empty() && answer.trailers.is_none(), "{answer:?}");
}

fn finish(stream: &H2Stream) {
    stream.trailers(&[("grpc-status", "0"), ("grpc-message", "fine")]);
}

#[test]
fn a_unary_call_keeps_its_trailers() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        let request = stream.request();
        assert_eq!((request.header("te"), request.body.clone()), (Some("trailers"), framed(b"ping")));
        stream.head(200, &REPLY, false);
        stream.body(framed(b"pong"), false);
        finish(&stream);
    });
    for proxies in ways(to_http2(&origin)) {
        h3::run(async {
            let answer = unary(&Client::connect(proxies[0].address)).await;
            assert_eq!((answer.status, answer.body.clone()), (StatusCode::OK, framed(b"pong")));
            trailer(&answer, "grpc-status", "0");
            trailer(&answer, "grpc-message", "fine");
        });
        wait::until("its count", || proxies[0].stat("cluster.origin.upstream_rq_200") == 1);
    }
}

#[test]
fn a_server_may_answer_many_times() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.request();
        stream.head(200, &REPLY, false);
        for _ in 0..100 {
            stream.body(framed(b"pong"), false);
        }
        finish(&stream);
    });
    for proxies in ways(to_http2(&origin)) {
        h3::run(async {
            let answer = unary(&Client::connect(proxies[0].address)).await;
            assert_eq!(answer.body, framed(b"pong").repeat(100));
            trailer(&answer, "grpc-status", "0");
        });
    }
}

#[test]
fn a_client_may_ask_many_times() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        let asked = stream.request().body.len() / framed(b"ping").len();
        assert_eq!(asked, 100);
        stream.head(200, &REPLY, false);
        stream.body(framed(b"pong"), false);
        finish(&stream);
    });
    for proxies in ways(to_http2(&origin)) {
        h3::run(async {
            let client = Client::connect(proxies[0].address);
            let mut exchange = call(&client);
            for turn in 1..=100 {
                say(&mut exchange, EndStream::from_last(turn == 100));
            }
            let answer = answer(&mut exchange).await.unwrap();
            assert_eq!(answer.body, framed(b"pong"));
            trailer(&answer, "grpc-status", "0");
        });
    }
}

/// Each message is answered before the next one is sent.
#[test]
fn both_directions_stream_at_once() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.head(200, &REPLY, false);
        for turn in 1..=20 {
            stream.conn.await_message("a ping", stream.id, |message| message.body.len() == 9 * turn);
            stream.body(framed(b"pong"), false);
        }
        assert!(stream.request().ended);
        finish(&stream);
    });
    for proxies in ways(to_http2(&origin)) {
        h3::run(async {
            let client = Client::connect(proxies[0].address);
            let mut exchange = call(&client);
            assert!(matches!(next_head(&mut exchange).await, Ok(ResponseFrame::Head(_, EndStream::No))));
            for turn in 1..=20 {
                say(&mut exchange, EndStream::from_last(turn == 20));
                let mut got = 0;
                while got < framed(b"pong").len() {
                    let Ok(BodyFrame::Data(data, _)) = next_frame(&mut exchange).await else {
                        panic!("a pong")
                    };
                    got += data.len();
                }
            }
            let Ok(BodyFrame::Trailers(trailers)) = next_frame(&mut exchange).await else {
                panic!("trailers")
            };
            assert_eq!(trailers["grpc-status"], "0");
        });
    }
}

#[test]
fn trailers_only_responses_stay_so() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.request();
        stream.head(200, &[REPLY[0], ("grpc-status", "5"), ("grpc-message", "no such thing")], true);
    });
    for proxies in ways(to_http2(&origin)) {
        h3::run(async {
            let answer = unary(&Client::connect(proxies[0].address)).await;
            trailers_only(&answer, "5");
            assert_eq!(answer.headers["grpc-message"], "no such thing");
        });
    }
}

#[test]
fn a_call_that_is_cancelled_is_cancelled_upstream() {
    let origin = H2Origin::with(Manners::default(), |stream| stream.head(200, &REPLY, false));
    for (turn, proxies) in ways(to_http2(&origin)).into_iter().enumerate() {
        h3::run(async {
            let client = Client::connect(proxies[0].address);
            let mut exchange = call(&client);
            assert!(next_head(&mut exchange).await.is_ok());
            drop(exchange);
            // The client's task has to send that.
            let stream = origin.streams()[turn].clone();
            let reset = tokio::task::spawn_blocking(move || stream.conn.await_reset(stream.id));
            assert_eq!(reset.await.unwrap(), code::CANCEL);
        });
    }
}

#[test]
fn local_replies_are_grpc_errors() {
    let nobody = Nobody::new();
    let behind = Config::new(nobody.address()).http2_upstream(json!({}));
    for proxies in ways(behind) {
        h3::run(async {
            let answer = unary(&Client::connect(proxies[0].address)).await;
            trailers_only(&answer, "14");
            let message = answer.headers["grpc-message"].to_str().unwrap();
            assert!(
                message.starts_with("upstream connect error or disconnect/reset before headers"),
                "{message}"
            );
        });
    }
    let gone = Proxy::start(&from_http3(to_http3(nobody.address())));
    let unrouted = Proxy::start(&from_http3(Config::new(nobody.address()).routes(json!([]))));
    for (proxy, status) in [(gone, "14"), (unrouted, "12")] {
        h3::run(async { trailers_only(&unary(&Client::connect(proxy.address)).await, status) });
    }
}

/// Accepts a WebSocket and sends back what comes, in fours.
fn echo() -> Origin {
    Origin::script(|mut peer| {
        if peer.request().is_none() {
            return;
        }
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nx-up: 1\r\n\r\n",
        );
        while let Some(frame) = peer.wire.exactly(4) {
            peer.send(&frame);
        }
    })
}

#[test]
fn websockets_of_http3_clients_reach_every_upstream() {
    let origin = echo();
    for proxies in ways(Config::new(origin.address())) {
        h3::run(async {
            let client = Client::connect(proxies[0].address);
            let mut request = head(Method::CONNECT, "/chat");
            request.upgrade = Some(Bytes::from_static(b"websocket"));
            let version = HeaderName::from_static("sec-websocket-version");
            request.headers.insert(version, HeaderValue::from_static("13"));
            let mut exchange = client.begin(&request, EndStream::No);
            let Ok(ResponseFrame::Head(accepted, EndStream::No)) = next_head(&mut exchange).await else {
                panic!("a head")
            };
            // The codec's word for the 200 that accepts it, as HTTP/1 says it.
            assert_eq!(accepted.status, StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(accepted.headers["x-up"], "1");
            for word in ["ab\0\n", "1234", "\r\n\r\n"] {
                exchange.send_data(Bytes::from(word), EndStream::No);
                let mut got = Vec::new();
                while got.len() < 4 {
                    match next_frame(&mut exchange).await {
                        Ok(BodyFrame::Data(data, _)) => got.extend(data),
                        other => panic!("{word}: {other:?}"),
                    }
                }
                assert_eq!(got, word.as_bytes());
            }
            // The end of either side is the tunnel's: there is no half of a WebSocket over HTTP/1.1.
            drop(exchange);
            let proxy = &proxies[0];
            while proxy.stat("http.ingress.downstream_cx_upgrades_active") > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let seen = origin.requests().pop().unwrap();
        assert_eq!((seen.line(), seen.header("upgrade")), ("GET /chat HTTP/1.1", Some("websocket")));
        assert_eq!(proxies[0].stat("http.ingress.downstream_cx_upgrades_total"), 1);
    }
}

#[test]
fn websockets_of_http1_clients_cross_http3() {
    let origin = echo();
    let last = Proxy::start(&from_http3(Config::new(origin.address())));
    let upgrades = json!({"upgrade_configs": [{"upgrade_type": "websocket"}]});
    let first = Proxy::start(&to_http3(last.address).hcm(upgrades));
    let mut client = Wire::connect(first.address);
    client.send(
        "GET /chat HTTP/1.1\r\nhost: a.test\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
    );
    let accepted = client.head().unwrap();
    assert!(accepted.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{accepted}");
    for word in ["ab\0\n", "1234"] {
        client.send(word);
        assert_eq!(client.exactly(4).unwrap(), word.as_bytes());
    }
    assert_eq!(first.stat("cluster.origin.upstream_cx_http3_total"), 1);
    assert_eq!(origin.request().line(), "GET /chat HTTP/1.1");
}

#[test]
fn interim_responses_and_trailers_cross_whole() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.head(103, &[("link", "</a.css>")], false);
        let request = stream.request();
        let trailer = request.trailer("x-sum").unwrap_or_default().to_owned();
        stream.head(200, &[], false);
        stream.body(request.body, false);
        stream.trailers(&[("x-got", &trailer)]);
    });
    let last = Proxy::start(&interim(from_http3(to_http2(&origin))));
    let first = Proxy::start(&interim(from_http3(to_http3(last.address))));
    for proxy in [&last, &first] {
        h3::run(async {
            let client = Client::connect(proxy.address);
            let mut exchange = client.open(Method::POST, "/", EndStream::No);
            let Ok(ResponseFrame::Informational(interim)) = next_head(&mut exchange).await else {
                panic!("an interim response")
            };
            assert_eq!(
                (interim.status.as_u16(), &interim.headers["link"]),
                (103, &HeaderValue::from_static("</a.css>"))
            );
            exchange.send_data(Bytes::from_static(b"body"), EndStream::No);
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from(4));
            exchange.send_trailers(&trailers);
            let answer = answer(&mut exchange).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "body"));
            trailer(&answer, "x-got", "4");
        });
    }
}

/// The wait for `100 (Continue)` ends when the upstream says so.
#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let origin = Origin::script(|mut peer| {
        while let Some(head) = peer.wire.head() {
            assert!(head.to_lowercase().contains("expect: 100-continue"), "{head}");
            peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            peer.wire.exactly(4);
            peer.send(integration_tests::origin::OK);
        }
    });
    let proxy =
        Proxy::start(&from_http3(Config::new(origin.address())).hcm(json!({"proxy_100_continue": true})));
    h3::run(async {
        let client = Client::connect(proxy.address);
        let mut request = head(Method::POST, "/");
        request.headers.insert("expect", HeaderValue::from_static("100-continue"));
        request.headers.insert("content-length", HeaderValue::from(4));
        let mut exchange = client.begin(&request, EndStream::No);
        let Ok(ResponseFrame::Informational(interim)) = next_head(&mut exchange).await else {
            panic!("a head")
        };
        assert_eq!(interim.status, StatusCode::CONTINUE);
        exchange.send_data(Bytes::from_static(b"body"), EndStream::Yes);
        assert_eq!(answer(&mut exchange).await.unwrap().status, StatusCode::OK);
    });
}

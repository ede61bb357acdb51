//! The two peers against each other: what a test of the proxy may take for granted.

use super::{H2Client, H2Origin, Manners, code, setting};
use crate::wait;
use crate::wire::End;

#[test]
fn a_client_and_an_origin_talk() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        let request = stream.request();
        stream.head(103, &[("link", "</a>")], false);
        stream.head(200, &[("x-path", request.header(":path").unwrap())], false);
        stream.body(request.body, false);
        stream.trailers(&[("grpc-status", "0")]);
    });
    let client = H2Client::connect(origin.address());
    // More than a window, so that both sides wait for room.
    let body = vec![b'x'; 300_000];
    let response = client.message(client.post("/a", &body));
    assert_eq!((response.status(), response.header("x-path")), (200, Some("/a")));
    assert_eq!((response.interim.len(), response.trailer("grpc-status")), (1, Some("0")));
    assert_eq!(response.body, body);
    client.sync();
    assert_eq!((origin.connections(), origin.open_streams(), origin.most_streams()), (1, 0, 1));
}

#[test]
fn streams_are_counted_until_both_sides_ended() {
    let origin = H2Origin::manual(Manners::settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)]));
    let client = H2Client::connect(origin.address());
    let (one, two) = (client.get("/1"), client.get("/2"));
    let streams = origin.await_streams(2);
    assert_eq!((origin.open_streams(), origin.most_streams()), (2, 2));
    streams[0].answer(200, "ok");
    streams[1].reset(code::REFUSED_STREAM);
    assert_eq!(client.message(one).text(), "ok");
    assert_eq!(client.message(two).reset, Some(code::REFUSED_STREAM));
    assert_eq!((origin.open_streams(), client.open_streams(), origin.most_streams()), (0, 0, 2));
    assert_eq!(client.frames()[0].settings_values(), [(setting::MAX_CONCURRENT_STREAMS, 2)]);
}

#[test]
fn connections_end_as_asked() {
    let origin = H2Origin::manual(Manners::default());
    for (number, end) in [End::Fin, End::Reset].into_iter().enumerate() {
        let client = H2Client::connect(origin.address());
        let conn = origin.connection(number);
        conn.sync();
        match end {
            End::Reset => conn.reset(),
            _ => conn.close(),
        }
        assert_eq!(client.end(), end);
    }
    wait::until("no connection", || origin.open_connections() == 0);
    assert_eq!(origin.census().now(), 0);
}

#[test]
fn tls_carries_it_too() {
    let origin = H2Origin::tls(Manners::default(), |stream| stream.answer(200, "secret"));
    let client = H2Client::tls(origin.address(), &["h2", "http/1.1"], Manners::default());
    assert_eq!(client.alpn().as_deref(), Some("h2"));
    assert_eq!(client.ask("/").text(), "secret");
    client.finish();
    assert_eq!(client.end(), End::Fin);
}

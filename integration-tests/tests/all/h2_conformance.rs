//! What HTTP/2 demands of a server, section by section, in the cases of h2spec: each on a connection of its own
//! against the binary.

use integration_tests::h2::{Frame, H2Client, Manners, code, flag, hpack, kind, request_fields, setting};
use integration_tests::{Config, End, Gate, Origin, Proxy};
use serde_json::json;

use Expect::{Answered, Connection, PingAnswer, PingAnswerOrEnd, Stream};

#[derive(Clone, Copy, Debug)]
enum Expect {
    /// GOAWAY with one of these codes, and the end of the connection.
    Connection(&'static [u32]),
    /// RST_STREAM, or the above, with one of these codes.
    Stream(&'static [u32]),
    /// A PING that comes after all is answered.
    PingAnswer,
    /// The same, or the connection ends in peace.
    PingAnswerOrEnd,
    /// The response to the last request, with status 200.
    Answered,
}

struct Case {
    name: &'static str,
    act: fn(&H2Client),
    expect: Expect,
}

const fn case(name: &'static str, act: fn(&H2Client), expect: Expect) -> Case {
    Case { name, act, expect }
}

const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
const FLOW: &[u32] = &[code::FLOW_CONTROL_ERROR];
const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR];
const COMPRESSION: &[u32] = &[code::COMPRESSION_ERROR];
const STREAM_CLOSED: &[u32] = &[code::STREAM_CLOSED];
// A CONTINUATION that continues nothing is wrong in two ways (sections 5.1 and 6.10).
const CLOSED_OR_PROTOCOL: &[u32] = &[code::STREAM_CLOSED, code::PROTOCOL_ERROR];
const REFUSED_OR_PROTOCOL: &[u32] = &[code::REFUSED_STREAM, code::PROTOCOL_ERROR];

/// `:path` of requests that are never answered.
const HELD: &str = "/held";

fn get(path: &'static str) -> Vec<u8> {
    hpack::encode(&request_fields("GET", path, &[]))
}

fn post(more: &[(&'static str, &'static str)]) -> Vec<u8> {
    hpack::encode(&request_fields("POST", "/", more))
}

/// GET / with these fields after its own.
fn get_with(more: &[(&'static str, &'static str)]) -> Vec<u8> {
    hpack::encode(&request_fields("GET", "/", more))
}

/// A HEADERS with everything, as bytes to be followed by more of HPACK.
fn whole(block: impl Into<Vec<u8>>) -> Frame {
    Frame::headers(1, block, true)
}

/// What may follow in a CONTINUATION.
fn more() -> Vec<u8> {
    hpack::encode(&[("x-test", "ok")])
}

/// A request without END_HEADERS.
fn begun(stream: u32) -> Frame {
    Frame::new(kind::HEADERS, flag::END_STREAM, stream, get("/"))
}

fn framing() -> Vec<Case> {
    vec![
        case(
            "4.1/1 an unknown type is ignored",
            |c| c.send(&Frame::new(0x16, 0, 0, *b"\0\0\0\0\0\0\0\0")),
            PingAnswer,
        ),
        case(
            "4.1/2 undefined flags are ignored",
            |c| c.send(&Frame::new(kind::PING, 0x16, 0, *b"12345678")),
            PingAnswer,
        ),
        case(
            "4.1/3 the reserved bit is ignored",
            |c| c.send(&Frame::new(kind::PING, 0, 1 << 31, *b"12345678")),
            PingAnswer,
        ),
        case(
            "4.2/1 DATA of 16384 bytes",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::data(1, vec![b'x'; 16_384], true));
            },
            Answered,
        ),
        case(
            "4.2/2 DATA of 16385 bytes",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::data(1, vec![b'x'; 16_385], true));
            },
            Stream(SIZE),
        ),
        case(
            "4.2/3 HEADERS of more than 16384 bytes",
            |c| {
                let long = "x".repeat(4_000);
                let mut fields = request_fields("GET", "/", &[]);
                fields.extend([("a", &*long), ("b", &*long), ("c", &*long), ("d", &*long), ("e", &*long)]);
                c.send(&whole(hpack::encode(&fields)));
            },
            Connection(SIZE),
        ),
        case("4.3/1 a broken header block", |c| c.send(&whole(*b"\x40")), Connection(COMPRESSION)),
        case(
            "4.3/2 PRIORITY inside a header block",
            |c| {
                c.send(&begun(1));
                c.send(&Frame::priority(1, 0, 255));
                c.send(&Frame::continuation(1, get("/"), true));
            },
            Connection(PROTOCOL),
        ),
        case(
            "4.3/3 HEADERS of another stream inside a header block",
            |c| {
                c.send(&begun(1));
                c.send(&begun(3));
            },
            Connection(PROTOCOL),
        ),
    ]
}

fn states() -> Vec<Case> {
    vec![
        case("5.1/1 idle: DATA", |c| c.send(&Frame::data(1, *b"test", true)), Connection(PROTOCOL)),
        case("5.1/2 idle: RST_STREAM", |c| c.send(&Frame::reset(1, code::CANCEL)), Connection(PROTOCOL)),
        case("5.1/3 idle: WINDOW_UPDATE", |c| c.send(&Frame::window_update(1, 100)), Connection(PROTOCOL)),
        case(
            "5.1/4 idle: CONTINUATION",
            |c| c.send(&Frame::continuation(1, get("/"), true)),
            Connection(PROTOCOL),
        ),
        case(
            "5.1/5 half closed (remote): DATA",
            |c| {
                c.send(&whole(get(HELD)));
                c.send(&Frame::data(1, *b"test", true));
            },
            Stream(STREAM_CLOSED),
        ),
        case(
            "5.1/6 half closed (remote): HEADERS",
            |c| {
                c.send(&whole(get(HELD)));
                c.send(&whole(get(HELD)));
            },
            Stream(STREAM_CLOSED),
        ),
        case(
            "5.1/7 half closed (remote): CONTINUATION",
            |c| {
                c.send(&whole(get(HELD)));
                c.send(&Frame::continuation(1, get("/"), true));
            },
            Stream(CLOSED_OR_PROTOCOL),
        ),
        case(
            "5.1/8 closed by RST_STREAM: DATA",
            |c| {
                c.send(&Frame::headers(1, get(HELD), false));
                c.send(&Frame::reset(1, code::CANCEL));
                c.send(&Frame::data(1, *b"test", true));
            },
            Stream(STREAM_CLOSED),
        ),
        case(
            "5.1/9 closed by RST_STREAM: HEADERS",
            |c| {
                c.send(&Frame::headers(1, get(HELD), false));
                c.send(&Frame::reset(1, code::CANCEL));
                c.send(&whole(get(HELD)));
            },
            Stream(STREAM_CLOSED),
        ),
        case(
            "5.1/10 closed by RST_STREAM: CONTINUATION",
            |c| {
                c.send(&Frame::headers(1, get(HELD), false));
                c.send(&Frame::reset(1, code::CANCEL));
                c.send(&Frame::continuation(1, get("/"), true));
            },
            Stream(CLOSED_OR_PROTOCOL),
        ),
        case(
            "5.1/11 closed by both ends: DATA",
            |c| {
                c.send(&whole(get("/")));
                c.message(1);
                c.send(&Frame::data(1, *b"test", true));
            },
            Stream(STREAM_CLOSED),
        ),
        case(
            "5.1/12 closed by both ends: HEADERS",
            |c| {
                c.send(&whole(get("/")));
                c.message(1);
                c.send(&whole(get("/")));
            },
            Connection(STREAM_CLOSED),
        ),
        case(
            "5.1/13 closed by both ends: CONTINUATION",
            |c| {
                c.send(&whole(get("/")));
                c.message(1);
                c.send(&Frame::continuation(1, get("/"), true));
            },
            Connection(CLOSED_OR_PROTOCOL),
        ),
        case("5.1.1/1 an even stream", |c| c.send(&Frame::headers(2, get("/"), true)), Connection(PROTOCOL)),
        case(
            "5.1.1/2 a smaller stream",
            |c| {
                c.send(&Frame::headers(5, get(HELD), true));
                c.send(&Frame::headers(3, get(HELD), true));
            },
            Connection(PROTOCOL),
        ),
        case(
            "5.1.2/1 more streams than allowed",
            |c| {
                (0..101).for_each(|_| {
                    c.get(HELD);
                });
            },
            Stream(REFUSED_OR_PROTOCOL),
        ),
        case(
            "5.3.1/1 HEADERS that depend on themselves",
            |c| {
                let block = [&[0, 0, 0, 1, 255], &get("/")[..]].concat();
                let flags = flag::END_STREAM | flag::END_HEADERS | flag::PRIORITY;
                c.send(&Frame::new(kind::HEADERS, flags, 1, block));
            },
            Stream(PROTOCOL),
        ),
        case(
            "5.3.1/2 PRIORITY that depends on itself",
            |c| c.send(&Frame::priority(1, 1, 255)),
            Stream(PROTOCOL),
        ),
        case(
            "5.4.1/1 the connection ends after a connection error",
            |c| {
                c.send(&Frame::ping([0; 8]).with_stream(3));
                c.send(&Frame::ping([1; 8]));
            },
            Connection(PROTOCOL),
        ),
        case(
            "5.4.1/2 GOAWAY has the last stream",
            |c| {
                c.ask("/");
                c.send(&Frame::ping([0; 8]).with_stream(3));
                assert_eq!(c.await_goaway().0, 1);
            },
            Connection(PROTOCOL),
        ),
        case(
            "5.5/1 an unknown extension is ignored",
            |c| c.send(&Frame::new(0xff, 0, 0, *b"unknown")),
            PingAnswer,
        ),
        case(
            "5.5/2 an unknown extension inside a header block",
            |c| {
                c.send(&begun(1));
                c.send(&Frame::new(0xff, 0, 0, *b"unknown"));
            },
            Connection(PROTOCOL),
        ),
    ]
}

fn data_and_headers() -> Vec<Case> {
    vec![
        case("6.1/1 DATA on stream 0", |c| c.send(&Frame::data(0, *b"test", true)), Connection(PROTOCOL)),
        case(
            "6.1/2 DATA on a stream that is not open",
            |c| {
                c.send(&whole(get("/")));
                c.message(1);
                c.send(&Frame::data(1, *b"test", true));
            },
            Stream(STREAM_CLOSED),
        ),
        case(
            "6.1/3 DATA with too much padding",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::new(kind::DATA, flag::PADDED | flag::END_STREAM, 1, *b"\x06test"));
            },
            Connection(PROTOCOL),
        ),
        case(
            "6.2/1 HEADERS without their end, then PRIORITY",
            |c| {
                c.send(&begun(1));
                c.send(&Frame::priority(1, 0, 255));
            },
            Connection(PROTOCOL),
        ),
        case(
            "6.2/2 HEADERS without their end, then HEADERS of another stream",
            |c| {
                c.send(&begun(1));
                c.send(&Frame::headers(3, get("/"), true));
            },
            Connection(PROTOCOL),
        ),
        case(
            "6.2/3 HEADERS on stream 0",
            |c| c.send(&Frame::headers(0, get("/"), true)),
            Connection(PROTOCOL),
        ),
        case(
            "6.2/4 HEADERS with too much padding",
            |c| {
                let block = get("/");
                let payload = [&[block.len() as u8 + 1], &block[..]].concat();
                let flags = flag::PADDED | flag::END_STREAM | flag::END_HEADERS;
                c.send(&Frame::new(kind::HEADERS, flags, 1, payload));
            },
            Connection(PROTOCOL),
        ),
        case("6.3/1 PRIORITY on stream 0", |c| c.send(&Frame::priority(0, 0, 255)), Connection(PROTOCOL)),
        case(
            "6.3/2 PRIORITY of another length",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::new(kind::PRIORITY, 0, 1, *b"\x80\0\0\x01"));
            },
            Stream(SIZE),
        ),
        case(
            "6.10/1 many CONTINUATIONs",
            |c| {
                let block = get("/");
                let (first, rest) = block.split_at(10);
                c.send(&Frame::new(kind::HEADERS, flag::END_STREAM, 1, first));
                let (second, third) = rest.split_at(10);
                c.send(&Frame::continuation(1, second, false));
                c.send(&Frame::continuation(1, third, true));
            },
            Answered,
        ),
        case(
            "6.10/2 CONTINUATION followed by another frame",
            |c| {
                c.send(&begun(1));
                c.send(&Frame::continuation(1, more(), false));
                c.send(&Frame::data(1, *b"test", true));
            },
            Connection(CLOSED_OR_PROTOCOL),
        ),
        case(
            "6.10/3 CONTINUATION on stream 0",
            |c| {
                c.send(&begun(1));
                c.send(&Frame::continuation(0, more(), true));
            },
            Connection(PROTOCOL),
        ),
        case(
            "6.10/4 CONTINUATION after the end of HEADERS",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::continuation(1, more(), true));
            },
            Connection(PROTOCOL),
        ),
        case(
            "6.10/5 CONTINUATION after the end of CONTINUATION",
            |c| {
                c.send(&begun(1));
                c.send(&Frame::continuation(1, more(), true));
                c.send(&Frame::continuation(1, more(), true));
            },
            Connection(PROTOCOL),
        ),
        case(
            "6.10/6 CONTINUATION after DATA",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::data(1, *b"test", false));
                c.send(&Frame::continuation(1, more(), true));
            },
            Connection(PROTOCOL),
        ),
    ]
}

fn control() -> Vec<Case> {
    vec![
        case(
            "6.4/1 RST_STREAM on stream 0",
            |c| c.send(&Frame::reset(0, code::CANCEL)),
            Connection(PROTOCOL),
        ),
        case(
            "6.4/2 RST_STREAM of an idle stream",
            |c| c.send(&Frame::reset(1, code::CANCEL)),
            Connection(PROTOCOL),
        ),
        case(
            "6.4/3 RST_STREAM of another length",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::new(kind::RST_STREAM, 0, 1, *b"\0\0\0"));
            },
            Connection(SIZE),
        ),
        case(
            "6.5/1 SETTINGS ACK with a payload",
            |c| {
                c.send(&Frame::new(kind::SETTINGS, flag::ACK, 0, *b"\0"));
            },
            Connection(SIZE),
        ),
        case(
            "6.5/2 SETTINGS of a stream",
            |c| c.send(&Frame::settings(&[(3, 100)]).with_stream(1)),
            Connection(PROTOCOL),
        ),
        case(
            "6.5/3 SETTINGS that are no multiple of 6",
            |c| {
                c.send(&Frame::new(kind::SETTINGS, 0, 0, *b"\0\x03\0"));
            },
            Connection(SIZE),
        ),
        case(
            "6.5.2/1 ENABLE_PUSH of 2",
            |c| c.send(&Frame::settings(&[(setting::ENABLE_PUSH, 2)])),
            Connection(PROTOCOL),
        ),
        case(
            "6.5.2/2 INITIAL_WINDOW_SIZE above the maximum",
            |c| {
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]));
            },
            Connection(FLOW),
        ),
        case(
            "6.5.2/3 MAX_FRAME_SIZE below the minimum",
            |c| {
                c.send(&Frame::settings(&[(setting::MAX_FRAME_SIZE, 16_383)]));
            },
            Connection(PROTOCOL),
        ),
        case(
            "6.5.2/4 MAX_FRAME_SIZE above the maximum",
            |c| {
                c.send(&Frame::settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)]));
            },
            Connection(PROTOCOL),
        ),
        case("6.5.2/5 an unknown setting is ignored", |c| c.send(&Frame::settings(&[(0xff, 1)])), PingAnswer),
        case(
            "6.5.3/1 the last of two values counts",
            |c| {
                let name = setting::INITIAL_WINDOW_SIZE;
                c.send(&Frame::settings(&[(name, 100), (name, 1)]));
                c.send(&whole(get("/")));
                let data = c.await_frame("DATA", |frame| frame.kind == kind::DATA);
                assert_eq!(data.payload.len(), 1);
                c.send(&Frame::window_update(1, 100));
            },
            Answered,
        ),
        case(
            "6.5.3/2 SETTINGS are acknowledged",
            |c| c.change_settings(&[(setting::ENABLE_PUSH, 0)]),
            PingAnswer,
        ),
        case(
            "6.7/1 PING is answered with its data",
            |c| {
                c.send(&Frame::ping(*b"h2spec!!"));
                c.await_frame("PING", |frame| *frame == Frame::pong(*b"h2spec!!"));
            },
            PingAnswer,
        ),
        case(
            "6.7/2 an answer to PING is not answered",
            |c| {
                c.send(&Frame::pong(*b"invalid."));
                c.sync();
                assert!(!c.frames().contains(&Frame::pong(*b"invalid.")));
            },
            PingAnswer,
        ),
        case("6.7/3 PING of a stream", |c| c.send(&Frame::ping([0; 8]).with_stream(1)), Connection(PROTOCOL)),
        case(
            "6.7/4 PING of another length",
            |c| c.send(&Frame::new(kind::PING, 0, 0, *b"\0\0\0\0\0\0")),
            Connection(SIZE),
        ),
        case(
            "6.8/1 GOAWAY of a stream",
            |c| c.send(&Frame::goaway(0, 0).with_stream(1)),
            Connection(PROTOCOL),
        ),
        case(
            "7/1 GOAWAY with an unknown code",
            |c| {
                c.send(&Frame::goaway(0, 0xff));
                c.send(&Frame::ping(*b"unknown."));
            },
            PingAnswerOrEnd,
        ),
        case(
            "7/2 RST_STREAM with an unknown code",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::reset(1, 0xff));
            },
            PingAnswer,
        ),
        case(
            "8.2/1 PUSH_PROMISE of a client",
            |c| {
                let payload = [&[0, 0, 0, 2], &get("/")[..]].concat();
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, 1, payload));
            },
            Connection(PROTOCOL),
        ),
    ]
}

fn windows() -> Vec<Case> {
    vec![
        case(
            "6.9/1 an increment of 0 on the connection",
            |c| c.send(&Frame::window_update(0, 0)),
            Connection(PROTOCOL),
        ),
        case(
            "6.9/2 an increment of 0 on a stream",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::window_update(1, 0));
            },
            Stream(PROTOCOL),
        ),
        case(
            "6.9/3 WINDOW_UPDATE of another length",
            |c| {
                c.send(&Frame::new(kind::WINDOW_UPDATE, 0, 0, *b"\0\0\x01"));
            },
            Connection(SIZE),
        ),
        case(
            "6.9.1/1 a window of 1",
            |c| {
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]));
                c.send(&whole(get("/")));
                let data = c.await_frame("DATA", |frame| frame.kind == kind::DATA);
                assert_eq!(data.payload.len(), 1);
                c.send(&Frame::window_update(1, 1));
            },
            Answered,
        ),
        case(
            "6.9.1/2 a window above the maximum, of the connection",
            |c| {
                c.send_all(&[Frame::window_update(0, 0x7fff_ffff), Frame::window_update(0, 0x7fff_ffff)]);
            },
            Connection(FLOW),
        ),
        case(
            "6.9.1/3 a window above the maximum, of a stream",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send_all(&[Frame::window_update(1, 0x7fff_ffff), Frame::window_update(1, 0x7fff_ffff)]);
            },
            Stream(FLOW),
        ),
        case(
            "6.9.2/1 INITIAL_WINDOW_SIZE changes under a stream",
            |c| {
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
                c.send(&whole(get("/")));
                assert!(c.await_head(1).body.is_empty());
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]));
                let data = c.await_frame("DATA", |frame| frame.kind == kind::DATA);
                assert_eq!(data.payload.len(), 1);
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 100)]));
            },
            Answered,
        ),
        case(
            "6.9.2/2 a window below 0 is kept in mind",
            |c| {
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 3)]));
                c.send(&whole(get("/ten")));
                c.await_message("the window's bytes", 1, |message| message.body.len() == 3);
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 2)]));
                c.send(&Frame::window_update(1, 2));
                c.await_message("one byte more", 1, |message| message.body.len() == 4);
                c.sync();
                assert_eq!(c.so_far(1).body.len(), 4);
                c.send(&Frame::window_update(1, 100));
            },
            Answered,
        ),
        case(
            "6.9.2/3 a change that lifts a window above the maximum",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::window_update(1, 0x7fff_ffff - 65_535));
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0x7fff_ffff)]));
            },
            Stream(FLOW),
        ),
    ]
}

fn messages() -> Vec<Case> {
    vec![
        case(
            "8.1/1 a second HEADERS without END_STREAM",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::headers(1, hpack::encode(&[("x-test", "ok")]), false));
            },
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2/1 a name in upper case",
            |c| c.send(&whole(get_with(&[("X-TEST", "ok")]))),
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.1/1 an unknown pseudo-field",
            |c| c.send(&whole(get_with(&[(":test", "ok")]))),
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.1/2 a pseudo-field of responses",
            |c| c.send(&whole(get_with(&[(":status", "200")]))),
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.1/3 a pseudo-field in trailers",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::headers(1, hpack::encode(&[(":path", "/")]), true));
            },
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.1/4 a pseudo-field after others",
            |c| {
                let fields = [
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":authority", "a"),
                    ("x", "y"),
                    (":path", "/"),
                ];
                c.send(&whole(hpack::encode(&fields)));
            },
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.2/1 a connection-specific field",
            |c| {
                c.send(&whole(get_with(&[("connection", "keep-alive")])));
            },
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.2/2 TE of something else than trailers",
            |c| {
                c.send(&whole(get_with(&[("trailers", "x-test"), ("te", "trailers, deflate")])));
            },
            Stream(PROTOCOL),
        ),
        case("8.1.2.3/1 an empty :path", |c| c.send(&whole(get(""))), Stream(PROTOCOL)),
        case(
            "8.1.2.3/2 no :method",
            |c| {
                c.send(&whole(hpack::encode(&[(":scheme", "http"), (":path", "/"), (":authority", "a")])));
            },
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.3/3 no :scheme",
            |c| {
                c.send(&whole(hpack::encode(&[(":method", "GET"), (":path", "/"), (":authority", "a")])));
            },
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.3/4 no :path",
            |c| {
                c.send(&whole(hpack::encode(&[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":authority", "a"),
                ])));
            },
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.3/5 two of :method",
            |c| c.send(&whole(get_with(&[(":method", "GET")]))),
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.3/6 two of :scheme",
            |c| c.send(&whole(get_with(&[(":scheme", "http")]))),
            Stream(PROTOCOL),
        ),
        case("8.1.2.3/7 two of :path", |c| c.send(&whole(get_with(&[(":path", "/")]))), Stream(PROTOCOL)),
        case(
            "8.1.2.6/1 content-length differs from one DATA",
            |c| {
                c.send(&Frame::headers(1, post(&[("content-length", "1")]), false));
                c.send(&Frame::data(1, *b"test", true));
            },
            Stream(PROTOCOL),
        ),
        case(
            "8.1.2.6/2 content-length differs from several DATA",
            |c| {
                c.send(&Frame::headers(1, post(&[("content-length", "1")]), false));
                c.send(&Frame::data(1, *b"test", false));
                c.send(&Frame::data(1, *b"test", true));
            },
            Stream(PROTOCOL),
        ),
    ]
}

fn compression() -> Vec<Case> {
    vec![
        case(
            "hpack 2.3.3/1 an index of nothing",
            |c| c.send(&whole(after_get(&[0xc6]))),
            Connection(COMPRESSION),
        ),
        case(
            "hpack 2.3.3/2 the name of nothing",
            |c| {
                c.send(&whole(after_get(&[0x7f, 0x07, 0x05, b'e', b'm', b'p', b't', b'y'])));
            },
            Connection(COMPRESSION),
        ),
        case(
            "hpack 4.2/1 a table size at the end of a block",
            |c| c.send(&whole(after_get(&[0x20]))),
            Connection(COMPRESSION),
        ),
        case(
            "hpack 5.2/1 padding of more than 7 bits",
            |c| {
                c.send(&whole(after_get(b"\x00\x01a\x85\xf2\xb2\x4a\x84\xff\xff")));
            },
            Connection(COMPRESSION),
        ),
        case(
            "hpack 5.2/2 padding of zeros",
            |c| c.send(&whole(after_get(b"\x00\x01a\x84\xf2\xb2\x4a\x80"))),
            Connection(COMPRESSION),
        ),
        case(
            "hpack 5.2/3 the end of the string inside it",
            |c| {
                c.send(&whole(after_get(b"\x00\x01a\x87\xf2\xb2\x4a\x87\xff\xff\xff\xfe")));
            },
            Connection(COMPRESSION),
        ),
        case("hpack 6.1/1 index 0", |c| c.send(&whole(after_get(&[0x80]))), Connection(COMPRESSION)),
        case(
            "hpack 6.3/1 a table larger than allowed",
            |c| {
                let mut block = Vec::new();
                hpack::integer(&mut block, 0x20, 5, 100_000);
                block.extend(get("/"));
                c.send(&whole(block));
            },
            Connection(COMPRESSION),
        ),
    ]
}

fn after_get(more: &[u8]) -> Vec<u8> {
    [&get("/")[..], more].concat()
}

/// What a client may do in the course of things.
fn ordinary() -> Vec<Case> {
    vec![
        case("generic 2/1 a PRIORITY of an idle stream", |c| c.send(&Frame::priority(1, 0, 255)), PingAnswer),
        case(
            "generic 2/2 half closed (remote): WINDOW_UPDATE",
            |c| {
                c.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
                c.send(&whole(get("/")));
                c.send(&Frame::window_update(1, 100));
            },
            Answered,
        ),
        case(
            "generic 2/3 half closed (remote): PRIORITY",
            |c| {
                c.send(&whole(get("/")));
                c.send(&Frame::priority(1, 0, 255));
            },
            Answered,
        ),
        case(
            "generic 2/4 half closed (remote): RST_STREAM",
            |c| {
                c.send(&whole(get(HELD)));
                c.send(&Frame::reset(1, code::CANCEL));
            },
            PingAnswer,
        ),
        case(
            "generic 2/5 closed: PRIORITY",
            |c| {
                c.ask("/");
                c.send(&Frame::priority(1, 0, 255));
            },
            PingAnswer,
        ),
        case(
            "generic 3.1/1 DATA, and more of it",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::data(1, *b"te", false));
                c.send(&Frame::data(1, *b"st", true));
            },
            Answered,
        ),
        case(
            "generic 3.1/3 DATA with padding",
            |c| {
                c.send(&Frame::headers(1, post(&[]), false));
                c.send(&Frame::new(kind::DATA, flag::PADDED | flag::END_STREAM, 1, *b"\x06test\0\0\0\0\0\0"));
            },
            Answered,
        ),
        case(
            "generic 3.2/2 HEADERS with padding",
            |c| {
                let payload = [&[6], &get("/")[..], &[0; 6]].concat();
                let flags = flag::PADDED | flag::END_STREAM | flag::END_HEADERS;
                c.send(&Frame::new(kind::HEADERS, flags, 1, payload));
            },
            Answered,
        ),
        case(
            "generic 3.2/3 HEADERS with priority",
            |c| {
                let payload = [&[0, 0, 0, 0, 255], &get("/")[..]].concat();
                let flags = flag::PRIORITY | flag::END_STREAM | flag::END_HEADERS;
                c.send(&Frame::new(kind::HEADERS, flags, 1, payload));
            },
            Answered,
        ),
        case(
            "generic 3.3/3 an exclusive PRIORITY",
            |c| c.send(&Frame::priority(1, 1 << 31, 255)),
            PingAnswer,
        ),
        case("generic 3.8/1 GOAWAY", |c| c.send(&Frame::goaway(0, 0)), PingAnswerOrEnd),
        case(
            "generic 3.9/1 WINDOW_UPDATE of the connection",
            |c| c.send(&Frame::window_update(0, 1)),
            PingAnswer,
        ),
        case(
            "generic 4/1 HEAD",
            |c| {
                c.send(&whole(hpack::encode(&request_fields("HEAD", "/", &[]))));
            },
            Answered,
        ),
        case(
            "generic 4/3 POST with trailers",
            |c| {
                c.send(&Frame::headers(1, post(&[("trailers", "x-test")]), false));
                c.send(&Frame::data(1, *b"test", false));
                c.send(&Frame::headers(1, hpack::encode(&[("x-test", "ok")]), true));
            },
            Answered,
        ),
        case("generic 5/1 indexed fields", |c| c.send(&whole(*b"\x82\x84\x86\x41\x01a")), Answered),
        case(
            "generic 5/2 a field put into the table, and used",
            |c| {
                c.send(&whole([&b"\x82\x84\x86\x41\x01a"[..], b"\x40\x06x-test\x01b\xbe"].concat()));
            },
            Answered,
        ),
        case(
            "generic 5/3 a field never to be indexed",
            |c| {
                c.send(&whole([&b"\x82\x84\x86\x41\x01a"[..], b"\x10\x06x-test\x01b"].concat()));
            },
            Answered,
        ),
        case(
            "generic 5/4 Huffman coding",
            |c| {
                c.send(&whole(*b"\x82\x84\x86\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"));
            },
            Answered,
        ),
        case(
            "generic 5/5 a smaller table",
            |c| c.send(&whole([&b"\x20"[..], b"\x82\x84\x86\x41\x01a"].concat())),
            Answered,
        ),
    ]
}

/// Runs a case on a connection of its own: what was found instead, if it was not as expected.
fn run(proxy: &Proxy, case: &Case) -> Result<(), String> {
    let client = H2Client::with(proxy.address, Manners { replenish: false, ..Manners::default() });
    client.await_frame("SETTINGS", |frame| frame.kind == kind::SETTINGS);
    (case.act)(&client);
    let error = |summary: &str| format!("{}: {:?}, but {summary}", case.name, case.expect);
    match case.expect {
        Connection(codes) => {
            client.end();
            let fine = client.goaway().is_some_and(|(_, code)| codes.contains(&code));
            fine.then_some(()).ok_or_else(|| error(&client.summary()))
        }
        Stream(codes) => {
            let reset =
                client.await_frame("an error", |frame| matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY));
            let code = reset.u32_at(if reset.kind == kind::GOAWAY { 4 } else { 0 });
            codes.contains(&code).then_some(()).ok_or_else(|| error(&client.summary()))
        }
        PingAnswer => {
            client.send(&Frame::ping(*b"survived"));
            let alive = client.await_frame("an answer to PING", |frame| {
                *frame == Frame::pong(*b"survived") || frame.kind == kind::GOAWAY
            });
            (alive.kind == kind::PING).then_some(()).ok_or_else(|| error(&client.summary()))
        }
        PingAnswerOrEnd => {
            client.send(&Frame::ping(*b"survived"));
            client.sync();
            let fine = client.goaway().is_none_or(|(_, code)| code == code::NO_ERROR);
            fine.then_some(()).ok_or_else(|| error(&client.summary()))
        }
        Answered => {
            let message = client.message(1);
            let fine = message.status() == 200 && message.ended && client.broken().is_none();
            fine.then_some(()).ok_or_else(|| error(&client.summary()))
        }
    }
}

#[track_caller]
fn run_all(cases: &[Case]) {
    // Nobody opens it.
    let gate = Gate::default();
    let origin = Origin::script(move |mut peer| {
        while let Some(request) = peer.request() {
            if request.path() == HELD {
                gate.pass();
            }
            if request.path() == "/ten" {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789");
            } else {
                peer.send(integration_tests::origin::OK);
            }
        }
    });
    let options = json!({"codec_type": "HTTP2", "http2_protocol_options": {"max_concurrent_streams": 100}});
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(options));
    let failures: Vec<String> = std::thread::scope(|scope| {
        let proxy = &proxy;
        let runs: Vec<_> = cases.iter().map(|case| (case, scope.spawn(move || run(proxy, case)))).collect();
        let results = runs.into_iter().map(|(case, run)| match run.join() {
            Ok(result) => result,
            Err(panic) => Err(format!("{}: {:?}", case.name, panic.downcast_ref::<String>())),
        });
        results.filter_map(Result::err).collect()
    });
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    // And it goes on serving.
    assert_eq!(H2Client::connect(proxy.address).ask("/").status(), 200);
}

#[test]
fn section_3_5_the_preface() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({"codec_type": "HTTP2"})));
    let client = H2Client::silent(proxy.address, Manners::default());
    client.send_bytes("INVALID CONNECTION PREFACE\r\n\r\n");
    assert_ne!(client.end(), End::Open);
    let client = H2Client::connect(proxy.address);
    assert_eq!(client.await_frame("SETTINGS", |_| true).kind, kind::SETTINGS);
}

#[test]
fn section_4_frames() {
    run_all(&framing());
}

#[test]
fn section_5_streams() {
    run_all(&states());
}

#[test]
fn section_6_data_and_headers() {
    run_all(&data_and_headers());
}

#[test]
fn sections_6_and_7_control() {
    run_all(&control());
}

#[test]
fn section_6_9_windows() {
    run_all(&windows());
}

#[test]
fn section_8_messages() {
    run_all(&messages());
}

#[test]
fn header_compression() {
    run_all(&compression());
}

#[test]
fn what_any_client_may_do() {
    run_all(&ordinary());
}

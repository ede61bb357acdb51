#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use tidegate_filter::ListenerFilterFactory;
use tidegate_stats::Store;
use tidegate_testkit::io::{MemIo, pair};
use tidegate_types::Address;

use super::*;

/// Wants a line: takes it away and makes it the server name; `no` is refused.
struct Line;

impl ListenerFilter for Line {
    fn inspect(&mut self, arrival: &mut Arrival, bytes: &[u8]) -> ListenerFlow {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return ListenerFlow::NeedMore };
        if bytes.starts_with(b"no") {
            return ListenerFlow::Refuse;
        }
        arrival.server_name = Some(String::from_utf8_lossy(&bytes[..end]).into());
        ListenerFlow::Done { consume: end + 1 }
    }

    fn most_bytes(&self) -> usize {
        16
    }
}

impl ListenerFilterFactory for Line {
    fn open(&self) -> Box<dyn ListenerFilter> {
        Box::new(Line)
    }
}

struct Test {
    store: Store,
    stats: ListenerStats,
    options: ListenerOptions,
}

fn test() -> Test {
    let store = Store::new(1);
    let stats = ListenerStats::new(&store, "l", 0);
    let options = ListenerOptions {
        filters: vec![Arc::new(Line), Arc::new(Line)],
        filters_timeout: Some(Duration::from_secs(15)),
        ..ListenerOptions::plain()
    };
    Test { store, stats, options }
}

impl Test {
    async fn inspect(&self, io: MemIo) -> Inspected {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        let arrival = Arrival::new(address("127.0.0.1:1"), address("127.0.0.1:2"));
        inspect(&self.options, &self.stats, Box::new(io), arrival).await
    }

    #[track_caller]
    fn counts(&self, expected: &[&str]) {
        let text = tidegate_stats::render::text(&self.store, &Default::default());
        let ones = text.lines().filter_map(|line| line.strip_prefix("listener.l.")?.strip_suffix(": 1"));
        assert_eq!(ones.collect::<Vec<_>>(), expected);
    }
}

async fn rest(inspected: Inspected) -> (Option<Arc<str>>, BytesMut) {
    let Inspected::Passed(mut io, arrival) = inspected else { panic!("closed") };
    let mut bytes = BytesMut::with_capacity(64);
    poll_fn(|cx| io.poll_read(cx, &mut bytes)).await.unwrap();
    (arrival.server_name, bytes)
}

#[tokio::test(start_paused = true)]
async fn each_filter_takes_its_part_wherever_the_bytes_are_cut() {
    let text = b"one\ntwo\nrest";
    for cut in 0..text.len() {
        let (mut client, server) = pair();
        let test = test();
        let script = async {
            client.write_all(&text[..cut]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.write_all(&text[cut..]).await;
        };
        let ((), inspected) = tokio::join!(script, test.inspect(server));
        let (name, bytes) = rest(inspected).await;
        assert_eq!((name.as_deref(), &bytes[..]), (Some("two"), &b"rest"[..]));
        test.counts(&[]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stall_at_any_byte_is_closed_in_time() {
    let text = b"one\ntwo\n";
    for cut in 0..text.len() {
        let (mut client, server) = pair();
        let test = test();
        client.write_all(&text[..cut]).await;
        let start = tokio::time::Instant::now();
        assert!(matches!(test.inspect(server).await, Inspected::Closed(_)));
        assert_eq!(start.elapsed(), Duration::from_secs(15));
        test.counts(&["downstream_pre_cx_timeout"]);
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_timeout_a_connection_may_go_on_with_what_it_sent() {
    let (mut client, server) = pair();
    let mut test = test();
    test.options.continue_on_filters_timeout = true;
    client.write_all(b"one\ntw").await;
    let (name, bytes) = rest(test.inspect(server).await).await;
    assert_eq!((name.as_deref(), &bytes[..]), (Some("one"), &b"tw"[..]));
    test.counts(&["downstream_pre_cx_timeout"]);
}

#[tokio::test(start_paused = true)]
async fn the_ways_to_end_are_counted() {
    let closed = async |test: &Test, server: MemIo| {
        assert!(matches!(test.inspect(server).await, Inspected::Closed(_)));
    };
    let (mut client, server) = pair();
    client.write_all(b"on").await;
    drop(client);
    let fin = test();
    closed(&fin, server).await;
    fin.counts(&["downstream_listener_filter_remote_close"]);

    let (client, server) = pair();
    client.reset();
    let rst = test();
    closed(&rst, server).await;
    rst.counts(&["downstream_listener_filter_error"]);

    let (mut client, server) = pair();
    client.write_all(b"no\n").await;
    let refused = test();
    closed(&refused, server).await;
    refused.counts(&[]);

    let (mut client, server) = pair();
    client.write_all(&[b'x'; 100]).await;
    let endless = test();
    closed(&endless, server).await;
    endless.counts(&[]);
}

#[tokio::test(start_paused = true)]
async fn who_is_looked_at_is_counted_meanwhile() {
    let (_client, server) = pair();
    let test = test();
    let inspecting = tokio::time::timeout(Duration::from_secs(1), test.inspect(server));
    let looking = async {
        tokio::task::yield_now().await;
        test.counts(&["downstream_pre_cx_active"]);
    };
    let (inspected, ()) = tokio::join!(inspecting, looking);
    assert!(inspected.is_err());
    test.counts(&[]);
}

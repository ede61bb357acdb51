//! Request heads to bytes: serialised by an upstream connection and written to a sink.
#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::rc::Rc;
use std::task::{Context, Waker};

use criterion::{BenchmarkId, Criterion};
use tidegate_benches::memory::Sink;
use tidegate_benches::messages::{MEDIUM, SMALL, large, parsed};
use tidegate_codec::ClientStream;
use tidegate_codec::h1::ClientConn;
use tidegate_types::EndStream;

fn main() {
    tidegate_benches::run(&[requests]);
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head_encode/request_fields");
    let mut cx = Context::from_waker(Waker::noop());
    for (fields, text) in [(3, SMALL.to_owned()), (8, MEDIUM.to_owned()), (20, large())] {
        let head = parsed(&text);
        let mut conn = ClientConn::new(Box::new(Sink), Rc::default());
        group.bench_function(BenchmarkId::from_parameter(fields), |bencher| {
            bencher.iter(|| {
                conn.send_head(black_box(&head), EndStream::Yes);
                assert!(conn.poll_flush(&mut cx).is_ready(), "a sink takes everything");
            });
        });
    }
}

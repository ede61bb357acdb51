//! Heads from bytes: a request of 3, 8 and 20 fields, and a response. The time includes freeing the head.
#![allow(clippy::expect_used)]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use tidegate_benches::messages::{ANSWER, MEDIUM, SMALL, large};
use tidegate_codec::h1::ServerOptions;
use tidegate_codec::h1::parse::{HeadScan, Limits, parse_request, parse_response};
use tidegate_codec::h1::rules::Asked;

fn main() {
    tidegate_benches::run(&[requests, responses]);
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head_parse/request_fields");
    let options = ServerOptions::default();
    for (fields, text) in [(3, SMALL.to_owned()), (8, MEDIUM.to_owned()), (20, large())] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(fields), |bencher| {
            bencher.iter_batched(
                || BytesMut::from(text.as_bytes()),
                |mut buf| {
                    let parsed = parse_request(&mut buf, &mut HeadScan::default(), &options);
                    drop(black_box(parsed.expect("a valid head").expect("a whole head")));
                    buf
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn responses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head_parse/response_fields");
    let limits = Limits { bytes: 96 * 1024, fields: 100 };
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    group.bench_function(BenchmarkId::from_parameter(5), |bencher| {
        bencher.iter_batched(
            || BytesMut::from(ANSWER.as_bytes()),
            |mut buf| {
                let parsed =
                    parse_response(&mut buf, &mut HeadScan::default(), limits, Asked::Ordinary, None);
                drop(black_box(parsed.expect("a valid head").expect("a whole head")));
                buf
            },
            BatchSize::SmallInput,
        );
    });
}

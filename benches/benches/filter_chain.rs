//! Chains of 0, 4 and 8 filters that look at everything and change nothing.
//!
//! `exchange` is a whole exchange of the connection manager with a direct response: the difference to 0
//! filters is their cost. `walk` is that cost alone: opening the filters for a stream and calling the hooks of
//! both halves in the order of the engine.
#![allow(clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion};
use http::StatusCode;
use tidegate_benches::document::{DIRECT, Document, connection_manager};
use tidegate_benches::downstream::Downstream;
use tidegate_benches::messages::{BODY, MEDIUM, parsed};
use tidegate_filter::{
    Clusters, Cx, FactoryContext, Flow, HeadFlow, HttpCallout, HttpFilter, HttpFilterFactory, HttpFilterType,
    Registry, RequestFilter, ResponseFilter, Step, Stream,
};
use tidegate_stats::{Scope, Store};
use tidegate_types::{Address, BodyBuf, ConnectionInfo, EndStream, RequestHead, ResponseHead, StreamInfo};

const LENGTHS: [usize; 3] = [0, 4, 8];

fn main() {
    tidegate_benches::run(&[exchange, walk]);
}

fn exchange(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter_chain/exchange");
    for length in LENGTHS {
        let bootstrap = Document::with_action(DIRECT).with_filters(Onlooker::TYPE_URL, length).load();
        let runtime = tidegate_benches::runtime();
        let mut client = runtime.block_on(async { Downstream::open(&bootstrap, &registry()) });
        group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(client.timed(MEDIUM, count)));
        });
    }
}

fn walk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter_chain/walk");
    let runtime = tidegate_benches::runtime();
    for length in LENGTHS {
        let chain = factories(length);
        let stream = Rc::new(Stream::new(stream_info(), Rc::new(NoClusters)));
        let mut request = parsed(MEDIUM);
        let mut response = ResponseHead::new(StatusCode::OK);
        let mut body = BodyBuf::from(Bytes::from_static(BODY.as_bytes()));
        group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    let start = std::time::Instant::now();
                    for _ in 0..count {
                        walk_once(&chain, &stream, &mut request, &mut response, &mut body).await;
                    }
                    start.elapsed()
                })
            });
        });
    }
}

async fn walk_once(
    chain: &[Arc<dyn HttpFilterFactory>],
    stream: &Rc<Stream>,
    request: &mut RequestHead,
    response: &mut ResponseHead,
    body: &mut BodyBuf,
) {
    let open = |(slot, factory): (usize, &Arc<dyn HttpFilterFactory>)| {
        (factory.open(stream), Cx::new(stream.clone(), slot), Cx::new(stream.clone(), slot))
    };
    let mut filters: Vec<_> = chain.iter().enumerate().map(open).collect();
    for (filter, cx, _) in &mut filters {
        if let Some(half) = &mut filter.request {
            assert!(matches!(half.on_head(cx, request, EndStream::Yes).resolve().await, HeadFlow::Continue));
        }
    }
    for (filter, _, cx) in filters.iter_mut().rev() {
        if let Some(half) = &mut filter.response {
            assert!(matches!(half.on_head(cx, response, EndStream::No).resolve().await, HeadFlow::Continue));
        }
    }
    for (filter, _, cx) in filters.iter_mut().rev() {
        if let Some(half) = &mut filter.response {
            assert!(matches!(half.on_data(cx, body, EndStream::Yes).resolve().await, Flow::Continue));
        }
    }
}

fn factories(length: usize) -> Vec<Arc<dyn HttpFilterFactory>> {
    let bootstrap = Document::with_action(DIRECT).with_filters(Onlooker::TYPE_URL, length).load();
    let (registry, store) = (registry(), Store::new(2));
    let cx =
        FactoryContext { stats: &store, scope: &Scope::http("bench"), runtime: &|_| None, local_cluster: "" };
    let filters = connection_manager(&bootstrap).http_filters.iter().take(length);
    filters
        .map(|filter| registry.build_http(&filter.config, &cx).unwrap_or_else(|all| panic!("{all:?}")))
        .collect()
}

fn registry() -> Registry {
    Registry::default().http::<Onlooker>()
}

/// A filter with both halves that lets everything pass, and asks for bodies.
struct Onlooker;

#[derive(serde::Deserialize)]
struct NoConfig {}

impl HttpFilterType for Onlooker {
    const NAME: &'static str = "bench.onlooker";
    const TYPE_URL: &'static str = "type.googleapis.com/bench.Onlooker";
    type Config = NoConfig;
    type RouteConfig = NoConfig;
    type Factory = ();

    fn build(_: NoConfig, _: &FactoryContext<'_>) -> Result<(), String> {
        Ok(())
    }

    fn open(_: &Arc<()>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::request(Passing { seen: 0 }).and_response(Passing { seen: 0 })
    }
}

/// Not of size zero: real filters have state, for which a box is allocated.
struct Passing {
    seen: usize,
}

impl RequestFilter for Passing {
    fn on_head<'a>(&'a mut self, _: &'a Cx, head: &'a mut RequestHead, _: EndStream) -> Step<'a, HeadFlow> {
        self.seen += head.headers.len();
        Step::Now(HeadFlow::Continue)
    }
}

impl ResponseFilter for Passing {
    fn on_head<'a>(&'a mut self, _: &'a Cx, head: &'a mut ResponseHead, _: EndStream) -> Step<'a, HeadFlow> {
        self.seen += head.headers.len();
        Step::Now(HeadFlow::Continue)
    }

    fn on_data<'a>(&'a mut self, _: &'a Cx, data: &'a mut BodyBuf, _: EndStream) -> Step<'a, Flow> {
        self.seen += data.len();
        Step::Now(Flow::Continue)
    }
}

struct NoClusters;

impl Clusters for NoClusters {
    fn http(&self, _: &str) -> Option<Rc<dyn HttpCallout>> {
        None
    }
}

fn stream_info() -> StreamInfo {
    let address = |port| Address::Ip(([127, 0, 0, 1], port).into());
    let connection = ConnectionInfo::new(1, address(1), address(40_000), Arc::from("bench"));
    StreamInfo::new(Rc::new(connection), SystemTime::UNIX_EPOCH)
}

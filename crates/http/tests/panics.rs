//! A filter or an access logger that panics costs its own stream; other connections, and the gauges, go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tidegate_codec::h1::ServerConn;
use tidegate_config::bootstrap::Node;
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::{Bootstrap, Format, from_str};
use tidegate_filter::registry::AccessLogType;
use tidegate_filter::{
    AccessLog, AccessLogContext, Cx, FactoryContext, Flow, HeadFlow, HttpFilter, HttpFilterType, LogContext,
    Registry, RequestFilter, ResponseFilter, Step, Stream,
};
use tidegate_http::{BuildContext, Drain, Hcm, HcmSlot};
use tidegate_router::Directory;
use tidegate_router::Peers;
use tidegate_stats::Store;
use tidegate_testkit::io::{MemIo, pair};
use tidegate_types::{Address, BodyBuf, Compat, ConnectionInfo, EndStream, RequestHead, ResponseHead};
use tokio::task::LocalSet;

const CONFIG: &str = r#"{"static_resources": {"listeners": [{
    "name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
    "filter_chains": [{"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "access_log": [{"name": "fragile", "typed_config": {"@type": "type.googleapis.com/test.Log"}}],
            "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "fine"}}}
            ]}]},
            "http_filters": [
                {"name": "fragile", "typed_config": {"@type": "type.googleapis.com/test.Fragile"}},
                {"name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
            ]
        }
    }]}]
}]}}"#;

#[derive(Deserialize)]
struct Nothing {}

/// Panics where the path says.
struct Fragile;

struct Half(String);

impl Half {
    fn reach(&self, place: &str) {
        assert!(self.0 != place, "the filter's bug");
    }
}

impl HttpFilterType for Fragile {
    const NAME: &'static str = "test.fragile";
    const TYPE_URL: &'static str = "type.googleapis.com/test.Fragile";
    type Config = Nothing;
    type RouteConfig = Nothing;
    type Factory = ();

    fn build(_: Nothing, _: &FactoryContext<'_>) -> Result<(), String> {
        Ok(())
    }

    fn open(_: &Arc<()>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::request(Half(String::new())).and_response(Half(String::new()))
    }
}

impl RequestFilter for Half {
    fn on_head<'a>(&'a mut self, _: &'a Cx, head: &'a mut RequestHead, _: EndStream) -> Step<'a, HeadFlow> {
        self.0 = head.path_str().to_owned();
        self.reach("/request");
        if self.0 != "/later" {
            return Step::Now(HeadFlow::Continue);
        }
        Step::Later(Box::pin(async {
            tokio::task::yield_now().await;
            panic!("the filter's bug, later")
        }))
    }
}

impl ResponseFilter for Half {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, _: &'a mut ResponseHead, _: EndStream) -> Step<'a, HeadFlow> {
        self.0 = cx.stream().request().map(|head| head.path_str().to_owned()).unwrap_or_default();
        self.reach("/response");
        Step::Now(HeadFlow::Continue)
    }

    fn on_data<'a>(&'a mut self, _: &'a Cx, _: &'a mut BodyBuf, _: EndStream) -> Step<'a, Flow> {
        self.reach("/body");
        Step::Now(Flow::Continue)
    }
}

struct Log;

impl AccessLogType for Log {
    const TYPE_URL: &'static str = "type.googleapis.com/test.Log";
    type Config = Nothing;

    fn build(_: Nothing, _: &AccessLogContext<'_>) -> Result<Arc<dyn AccessLog>, String> {
        Ok(Arc::new(Self))
    }
}

impl AccessLog for Log {
    fn log(&self, cx: &LogContext<'_>) {
        assert!(cx.request.is_none_or(|head| head.path_str() != "/log"), "the logger's bug");
        if cx.info.response_code.get() == 500 {
            assert_eq!(cx.info.details.borrow().as_deref(), Some("filter_panicked"));
        }
    }
}

/// A connection manager, and clients on connections in memory.
struct Proxy {
    slot: Rc<HcmSlot>,
    store: Store,
}

impl Proxy {
    fn new() -> Self {
        let bootstrap: Bootstrap = from_str(CONFIG, "test.json", Format::Json).unwrap();
        let filters =
            bootstrap.listeners.iter().flat_map(|l| &l.filter_chains).flat_map(|chain| &chain.filters);
        let config = filters.filter_map(|filter| match filter {
            NetworkFilterConfig::Http(config) => Some(config.clone()),
            _ => None,
        });
        let store = Store::new(2);
        let cx = BuildContext {
            registry: &Registry::default().http::<Fragile>().access_log::<Log>(),
            store: &store,
            listener: "127.0.0.1_1",
            buffer_limit: 1024,
            runtime: &bootstrap.runtime,
            node: &Node::default(),
            local_address: None,
            log_flush_interval: Duration::from_secs(1),
            compat: Compat::Tidegate,
        };
        let hcm = Hcm::build(&config.into_iter().next().unwrap(), &cx).unwrap();
        Self { slot: HcmSlot::new(hcm, Rc::default()), store }
    }

    fn connect(&self) -> MemIo {
        let (near, far) = pair();
        let address = |port| Address::Ip(([127, 0, 0, 1], port).into());
        let info = ConnectionInfo::new(1, address(1), address(40_000), Arc::from("in"));
        let directory = Directory::new(&Arc::<Peers>::default());
        let conn = ServerConn::new(Box::new(far), self.slot.codec_options());
        let serve = tidegate_http::serve(conn, Rc::new(info), self.slot.clone(), directory, Drain::new());
        tokio::task::spawn_local(serve);
        near
    }

    fn stat(&self, name: &str) -> u64 {
        let text = tidegate_stats::render::text(&self.store, &Default::default());
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("http.in.{name}: ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
    }
}

async fn ask(client: &mut MemIo, path: &str) -> String {
    client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
    String::from_utf8(client.read_some().await.to_vec()).unwrap()
}

/// Panics at `path`, then proves that nothing but that stream was lost.
async fn panic_at(path: &str) -> (Proxy, String) {
    let proxy = Proxy::new();
    let (mut bystander, mut client) = (proxy.connect(), proxy.connect());
    assert!(ask(&mut bystander, "/").await.ends_with("fine"));
    let mut answer = ask(&mut client, path).await;
    answer += std::str::from_utf8(&client.read_to_end().await).unwrap();
    assert!(ask(&mut bystander, "/").await.ends_with("fine"), "another connection goes on");
    drop((bystander, client));
    tokio::time::sleep(Duration::from_secs(60)).await;
    for gauge in ["downstream_rq_active", "downstream_cx_active", "downstream_cx_http1_active"] {
        assert_eq!(proxy.stat(gauge), 0, "{gauge}");
    }
    assert_eq!(proxy.stat("downstream_cx_destroy"), 2);
    assert_eq!(proxy.stat("downstream_rq_total"), 3);
    (proxy, answer)
}

#[tokio::test(start_paused = true)]
async fn before_the_response_the_client_gets_a_500() {
    let check = async {
        for path in ["/request", "/later", "/response"] {
            let (proxy, answer) = panic_at(path).await;
            assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{path}: {answer:?}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{path}: {answer:?}");
            assert!(answer.contains("\r\ncontent-length: 0\r\n"), "{path}: {answer:?}");
            assert_eq!(proxy.stat("downstream_rq_5xx"), 1, "{path}");
        }
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test(start_paused = true)]
async fn within_the_response_the_client_sees_that_it_is_cut() {
    let check = async {
        let (proxy, answer) = panic_at("/body").await;
        assert!(!answer.ends_with("fine"), "{answer:?}");
        assert_eq!(proxy.stat("downstream_rq_tx_reset"), 1);
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test(start_paused = true)]
async fn a_logger_costs_the_connection_and_not_the_response() {
    let check = async {
        let (proxy, answer) = panic_at("/log").await;
        assert!(answer.ends_with("fine"), "{answer:?}");
        assert_eq!(proxy.stat("downstream_rq_2xx"), 3);
    };
    LocalSet::new().run_until(check).await;
}

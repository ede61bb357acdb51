//! A connection manager with one filter that does as the path says, and clients on connections in memory.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use serde::Deserialize;
use tidegate_codec::h1::ServerConn;
use tidegate_config::bootstrap::Node;
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::{Bootstrap, Format, from_str};
use tidegate_filter::{
    Cx, FactoryContext, Flow, HeadFlow, HttpFilter, HttpFilterType, Registry, RequestFilter, ResponseFilter,
    Step, Stream,
};
use tidegate_http::{BuildContext, Drain, Hcm, HcmSlot};
use tidegate_router::{Directory, Peers};
use tidegate_stats::Store;
use tidegate_testkit::io::{MemIo, pair};
use tidegate_testkit::stream::MemStream;
use tidegate_types::{Address, BodyBuf, Compat, ConnectionInfo, EndStream, RequestHead, ResponseHead};
use tokio::task::{LocalSet, spawn_local};

/// Runs a test that spawns.
pub(crate) async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// Lets everything happen that can.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[derive(Deserialize)]
struct Nothing {}

/// `/buffer` waits for the body; `/request`, `/later`, `/response` and `/body` panic there.
struct Obedient;

struct Half(String);

impl Half {
    fn reach(&self, place: &str) {
        assert!(self.0 != place, "the filter's bug");
    }
}

impl HttpFilterType for Obedient {
    const NAME: &'static str = "test.obedient";
    const TYPE_URL: &'static str = "type.googleapis.com/test.Obedient";
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
        match self.0.as_str() {
            "/buffer" => Step::Now(HeadFlow::Buffer { limit: 1 << 20 }),
            "/later" => Step::Later(Box::pin(async {
                tokio::task::yield_now().await;
                panic!("the filter's bug, later")
            })),
            "/never" => Step::Later(Box::pin(std::future::pending())),
            _ => Step::Now(HeadFlow::Continue),
        }
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

/// See the module.
pub(crate) struct Proxy {
    slot: Rc<HcmSlot>,
    store: Store,
    pub(crate) drain: Rc<Drain>,
}

impl Proxy {
    /// A connection manager with these fields besides its own.
    pub(crate) fn new(fields: &str) -> Self {
        let own = r#"{"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "fine"}}}
            ]}]},
            "http_filters": [
                {"name": "obedient", "typed_config": {"@type": "type.googleapis.com/test.Obedient"}},
                {"name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
            ]}"#;
        let mut hcm: serde_json::Value = serde_json::from_str(own).unwrap();
        let more: serde_json::Value = serde_json::from_str(fields).unwrap();
        hcm.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let file = serde_json::json!({"static_resources": {"listeners": [{
            "name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]}]}]}});
        let bootstrap: Bootstrap = from_str(&file.to_string(), "test.json", Format::Json).unwrap();
        let filter = &bootstrap.listeners[0].filter_chains[0].filters[0];
        let NetworkFilterConfig::Http(config) = filter else { panic!("no HTTP") };
        let store = Store::new(2);
        let cx = BuildContext {
            registry: &Registry::default().http::<Obedient>(),
            store: &store,
            listener: "127.0.0.1_1",
            buffer_limit: 1 << 20,
            runtime: &bootstrap.runtime,
            node: &Node::default(),
            local_address: None,
            log_flush_interval: Duration::from_secs(1),
            compat: Compat::Tidegate,
        };
        let hcm = Hcm::build(config, &cx).unwrap();
        Self { slot: HcmSlot::new(hcm, Rc::default()), store, drain: Drain::new() }
    }

    /// A connection.
    pub(crate) fn connect(&self) -> MemIo {
        let (near, far) = pair();
        let address = |port| Address::Ip(([127, 0, 0, 1], port).into());
        let info = ConnectionInfo::new(1, address(1), address(40_000), Arc::from("in"));
        let directory = Directory::new(&Arc::<Peers>::default());
        let conn = ServerConn::new(Box::new(far), self.slot.codec_options());
        let drain = self.drain.clone();
        spawn_local(tidegate_http::serve(conn, Rc::new(info), self.slot.clone(), directory, drain));
        near
    }

    /// A connection of the library's.
    pub(crate) async fn connect_h2(&self) -> SendRequest<Bytes> {
        let (client, connection) = h2::client::handshake(MemStream(self.connect())).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        client.ready().await.unwrap()
    }

    /// A counter or gauge of the manager.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        self.global(&format!("http.in.{name}"))
    }

    /// A counter or gauge by its whole name.
    pub(crate) fn global(&self, name: &str) -> u64 {
        let text = tidegate_stats::render::text(&self.store, &Default::default());
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
    }
}

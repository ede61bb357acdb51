//! A connection manager's configuration made ready to serve, and each worker's hold on it.

mod build;
mod runtime;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tidegate_codec::h1::ServerOptions;
use tidegate_codec::multiplex::Observer;
use tidegate_codec::{h2, h3};
use tidegate_config::{HcmConfig, RouteConfig};
use tidegate_filter::AccessLog;
use tidegate_router::{RouteTable, RouterOptions};
use tidegate_types::Compat;
use tidegate_types::overload::Overload;

use crate::chain::ConfiguredFilter;
use crate::date::DateCache;
use crate::local_reply::ReplyTemplates;
use crate::stats::{
    AsyncClientStats, CodecStats, HcmStats, Http2Stats, Http3Observer, Http3Stats, ListenerHttpStats,
};

pub use build::BuildContext;

/// A connection manager, built once per configuration and shared by all workers.
#[derive(Clone)]
pub struct Hcm {
    pub(crate) config: Arc<HcmConfig>,
    pub(crate) filters: Vec<ConfiguredFilter>,
    pub(crate) routes: Arc<RouteTable>,
    /// What `routes` was compiled from.
    table: Arc<RouteConfig>,
    pub(crate) router: RouterOptions,
    pub(crate) logs: Vec<Arc<dyn AccessLog>>,
    pub(crate) replies: Arc<ReplyTemplates>,
    pub(crate) stats: HcmStats,
    pub(crate) listener_stats: ListenerHttpStats,
    pub(crate) async_client: AsyncClientStats,
    pub(crate) codec_stats: CodecStats,
    pub(crate) http2_stats: Http2Stats,
    pub(crate) http3_stats: Http3Stats,
    http3_observer: Http3Observer,
    /// `server_name`.
    pub(crate) server_name: HeaderValue,
    /// `node`, for `x-envoy-downstream-service-*`.
    pub(crate) node_id: Option<HeaderValue>,
    /// `node.cluster`, likewise, and `user-agent`.
    pub(crate) node_cluster: Option<HeaderValue>,
    /// This machine's own address, which stands in for a loopback client in `x-forwarded-for`.
    pub(crate) local_address: Option<std::net::IpAddr>,
    /// The listener's `per_connection_buffer_limit_bytes`.
    pub(crate) buffer_limit: usize,
    /// `request_headers_timeout`, with its default.
    pub(crate) request_headers_timeout: Option<Duration>,
    /// Whose behaviour holds where the two differ.
    pub(crate) compat: Compat,
}

impl Hcm {
    /// The configuration.
    pub fn config(&self) -> &Arc<HcmConfig> {
        &self.config
    }

    /// The route table that it serves: of the configuration, or the last one from elsewhere.
    pub fn table(&self) -> &Arc<RouteConfig> {
        &self.table
    }

    /// The statistics.
    pub fn stats(&self) -> &HcmStats {
        &self.stats
    }

    pub(crate) fn keeps_after_bad_request(&self) -> bool {
        build::keeps_after_bad_request(&self.config)
    }

    /// The access logs.
    pub fn access_logs(&self) -> impl Iterator<Item = &Arc<dyn AccessLog>> {
        self.logs.iter()
    }

    /// What the codec must know of the configuration.
    pub fn codec_options(&self) -> ServerOptions {
        build::codec_options(&self.config, self.buffer_limit)
    }

    /// What the codec of many streams must know of it.
    fn multiplexed_options(&self) -> h2::ServerOptions {
        build::multiplexed_options(&self.config, self.buffer_limit)
    }

    /// What HTTP/3's codec must know of it, and who counts what happens there.
    fn http3(&self) -> (Rc<h3::ServerOptions>, Rc<dyn Observer>) {
        (Rc::new(build::http3_options(&self.config)), Rc::new(self.http3_observer.clone()))
    }
}

/// A worker's own view of a [`Hcm`].
pub(crate) struct WorkerHcm {
    pub(crate) shared: Arc<Hcm>,
    pub(crate) date: DateCache,
}

/// What the connections of one listener on one worker read for each request: replacing it is how a
/// reload reaches open connections.
pub struct HcmSlot {
    current: RefCell<Rc<WorkerHcm>>,
    options: RefCell<Rc<ServerOptions>>,
    multiplexed: RefCell<Rc<h2::ServerOptions>>,
    observer: RefCell<Rc<dyn Observer>>,
    /// Of HTTP/3: options, and who counts.
    http3: RefCell<(Rc<h3::ServerOptions>, Rc<dyn Observer>)>,
    overload: Rc<Overload>,
}

impl HcmSlot {
    /// A slot that serves `hcm` on a worker that is as loaded as `overload` says.
    pub fn new(hcm: Arc<Hcm>, overload: Rc<Overload>) -> Rc<Self> {
        Rc::new(Self {
            options: RefCell::new(Rc::new(hcm.codec_options())),
            multiplexed: RefCell::new(Rc::new(hcm.multiplexed_options())),
            observer: RefCell::new(Rc::new(hcm.http2_stats.clone())),
            http3: RefCell::new(hcm.http3()),
            current: RefCell::new(WorkerHcm::new(hcm)),
            overload,
        })
    }

    /// Serves `hcm` from the next request on.
    pub fn set(&self, hcm: Arc<Hcm>) {
        *self.options.borrow_mut() = Rc::new(hcm.codec_options());
        *self.multiplexed.borrow_mut() = Rc::new(hcm.multiplexed_options());
        *self.observer.borrow_mut() = Rc::new(hcm.http2_stats.clone());
        *self.http3.borrow_mut() = hcm.http3();
        *self.current.borrow_mut() = WorkerHcm::new(hcm);
    }

    /// As [`HcmSlot::set`], unless `hcm` is what is served already.
    pub fn set_if_changed(&self, hcm: &Arc<Hcm>) {
        if !Arc::ptr_eq(&self.current.borrow().shared, hcm) {
            self.set(hcm.clone());
        }
    }

    pub(crate) fn overload(&self) -> &Rc<Overload> {
        &self.overload
    }

    /// Codec options for a new connection.
    pub fn codec_options(&self) -> Rc<ServerOptions> {
        self.options.borrow().clone()
    }

    pub(crate) fn multiplexed_options(&self) -> Rc<h2::ServerOptions> {
        self.multiplexed.borrow().clone()
    }

    /// Who counts what happens on a new connection of many streams.
    pub(crate) fn observer(&self) -> Rc<dyn Observer> {
        self.observer.borrow().clone()
    }

    /// A new connection of HTTP/3.
    pub fn http3(&self, conn: tidegate_quic::Conn) -> h3::ServerConn {
        let (options, observer) = self.http3.borrow().clone();
        h3::ServerConn::new(conn, options, observer)
    }

    pub(crate) fn current(&self) -> Rc<WorkerHcm> {
        self.current.borrow().clone()
    }
}

impl WorkerHcm {
    fn new(shared: Arc<Hcm>) -> Rc<Self> {
        Rc::new(Self { shared, date: DateCache::default() })
    }
}

//! A proxy with one client: the connection manager on a connection in memory.
//!
//! [`Downstream`] is the client's side; [`Downstream::timed`] drives exchanges one after the other on the
//! kept-alive connection, inside one `block_on`, so that entering the runtime is not measured.
#![allow(clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tidegate_cluster::{BuildContext as ClusterContext, ClusterShared, Directory, Peers, Transports};
use tidegate_codec::h1::ServerConn;
use tidegate_config::Bootstrap;
use tidegate_filter::Registry;
use tidegate_http::{BuildContext, Drain, Hcm, HcmSlot};
use tidegate_net::Io;
use tidegate_stats::Store;
use tidegate_types::{Address, Compat, ConnectionInfo};

use crate::document::connection_manager;
use crate::memory::{MemoryIo, pair};
use crate::messages::BODY;

/// A client's connection to a proxy that runs as a task of this thread.
pub struct Downstream {
    io: MemoryIo,
    received: BytesMut,
}

impl Downstream {
    /// Starts serving `bootstrap` to one client. Must be called inside the runtime.
    pub fn open(bootstrap: &Bootstrap, registry: &Registry) -> Self {
        let store = Store::new(2);
        let cx = BuildContext {
            registry,
            store: &store,
            listener: "127.0.0.1_1",
            buffer_limit: 1024 * 1024,
            runtime: &bootstrap.runtime,
            node: &bootstrap.node,
            local_address: None,
            log_flush_interval: Duration::from_secs(1),
            compat: Compat::Tidegate,
        };
        let hcm = Hcm::build(connection_manager(bootstrap), &cx).unwrap_or_else(|all| panic!("{all:?}"));
        let directory = Directory::new(&Arc::<Peers>::default());
        let cx = ClusterContext {
            runtime: &bootstrap.runtime,
            home: &Arc::default(),
            store: &store,
            workers: 1,
            compat: Compat::Tidegate,
        };
        let clusters: Vec<_> = bootstrap
            .clusters
            .iter()
            .map(|config| ClusterShared::build(config, Transports::default(), cx, None))
            .collect();
        directory.apply(&clusters);
        let (near, far) = pair();
        let slot = HcmSlot::new(hcm, Rc::default());
        let conn = ServerConn::new(Box::new(far), slot.codec_options());
        tokio::task::spawn_local(tidegate_http::serve(conn, client(), slot, directory, Drain::new()));
        Self::on(near)
    }

    /// A client on `io`, whatever serves the other end.
    pub fn on(io: MemoryIo) -> Self {
        Self { io, received: BytesMut::with_capacity(16 * 1024) }
    }

    /// How long `count` exchanges take, one after the other.
    pub async fn timed(&mut self, request: &str, count: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            self.exchange(request).await;
        }
        start.elapsed()
    }

    /// Sends `request` and waits for the body of its response.
    pub async fn exchange(&mut self, request: &str) {
        self.io.send(request.as_bytes());
        self.received.clear();
        while !self.received.ends_with(BODY.as_bytes()) {
            // One read takes what there is: a response here is far smaller than the buffer.
            let read = poll_fn(|cx| self.io.poll_read(cx, &mut self.received)).await;
            assert!(read.expect("a read") > 0, "the proxy closed: {:?}", self.received);
        }
        assert!(self.received.starts_with(b"HTTP/1.1 200 "), "refused: {:?}", self.received);
    }
}

fn client() -> Rc<ConnectionInfo> {
    let address = |port| Address::Ip(([127, 0, 0, 1], port).into());
    Rc::new(ConnectionInfo::new(1, address(1), address(40_000), Arc::from("bench")))
}

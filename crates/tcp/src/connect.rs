//! From a session to its upstream connection: the cluster, a host, and as many attempts as are allowed.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tidegate_cluster::judged::Verdict;
use tidegate_cluster::{Cluster, Directory, Host, PoolError, ProxyAddresses, TransportOptions, lb, tcp};
use tidegate_config::tcp_proxy::{ConnectMode, TcpClusters, TcpHashPolicy};
use tidegate_config::transport::UpstreamTransport;
use tidegate_net::{BoxIo, Io};
use tidegate_types::{FilterObjects, ResetReason, ResponseFlags, UpstreamInfo};
use tokio::time::Instant;

use crate::TcpProxy;
use crate::buffers;
use crate::end::{End, Side};
use crate::session::Session;

/// Connects the session to its cluster. Unless `max_early_data_bytes` allows it the client is not read
/// meanwhile: its bytes wait in the kernel.
pub(crate) async fn connect(
    session: &mut Session,
    downstream: &mut BoxIo,
    early: &mut Early,
    directory: &Directory,
) -> Result<tcp::Connection, End> {
    let cluster = cluster(session, directory)?;
    let most = session.proxy.config.max_connect_attempts;
    for attempt in 1.. {
        let error = match attempt_once(session, downstream, early, &cluster).await? {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        match &error {
            PoolError::ConnectionOverflow => return Err(End::Overflow),
            PoolError::PoolOverflow => return Err(End::NoHost),
            // `max_pending_requests`: only that attempts ran out is said, as in Envoy.
            PoolError::Overflow | PoolError::RequestOverflow => {}
            PoolError::Connect { .. } | PoolError::Lost => {
                session.facts.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                session.facts.transport_failure = error.transport_failure().map(str::to_owned);
            }
        }
        if attempt >= most {
            break;
        }
        if let Some(pause) = session.proxy.back_off(attempt, fastrand::f64) {
            let over = Instant::now() + pause;
            let mut sleep = Box::pin(tokio::time::sleep_until(over));
            until(session, |cx| sleep.as_mut().poll(cx)).await?;
        }
    }
    cluster.stats().upstream.upstream_cx_connect_attempts_exceeded().inc();
    Err(End::ConnectFailed)
}

/// Waits for the client's first bytes, if the connection is to wait for them.
pub(crate) async fn first_bytes(
    session: &mut Session,
    downstream: &mut BoxIo,
    early: &mut Early,
) -> Result<(), End> {
    if session.proxy.config.connect_mode == ConnectMode::Immediate {
        return Ok(());
    }
    until(session, |cx| {
        if early.room() == 0 {
            return downstream
                .poll_read_ready(cx)
                .map_err(|error| End::broken(Side::Downstream, &error, false));
        }
        std::task::ready!(early.poll(cx, downstream.as_mut()))?;
        Poll::Ready(if early.bytes.is_empty() { Err(End::NeverBegun) } else { Ok(()) })
    })
    .await??;
    session.touch(Instant::now());
    Ok(())
}

/// What the client sends before there is an upstream, up to `max_early_data_bytes`.
#[derive(Debug)]
pub(crate) struct Early {
    pub(crate) bytes: BytesMut,
    /// Counts what is read.
    proxy: Arc<TcpProxy>,
    max: usize,
    ended: bool,
}

impl Early {
    pub(crate) fn new(session: &Session) -> Self {
        let max = session.proxy.config.max_early_data.map_or(0, |max| max as usize);
        Self { bytes: BytesMut::new(), proxy: session.proxy.clone(), max, ended: false }
    }

    fn room(&self) -> usize {
        if self.ended { 0 } else { self.max.saturating_sub(self.bytes.len()) }
    }

    /// Reads once; ready when it gave bytes or the end.
    fn poll(&mut self, cx: &mut Context<'_>, downstream: &mut dyn Io) -> Poll<Result<usize, End>> {
        let room = self.room();
        if room == 0 {
            return Poll::Pending;
        }
        let broken = |error: std::io::Error| End::broken(Side::Downstream, &error, false);
        std::task::ready!(downstream.poll_read_ready(cx)).map_err(broken)?;
        let mut buffer = BytesMut::with_capacity(room.min(buffers::SIZE));
        let read = std::task::ready!(downstream.poll_read(cx, &mut buffer)).map_err(broken)?;
        let stats = &self.proxy.stats;
        // Each read, also the client's end, as in Envoy.
        stats.early_data_received_count_total().inc();
        stats.downstream_cx_rx_bytes_total().add(read as u64);
        self.ended = read == 0;
        self.bytes.unsplit(buffer);
        Poll::Ready(Ok(read))
    }
}

fn cluster(session: &mut Session, directory: &Directory) -> Result<Rc<Cluster>, End> {
    let chosen = match &session.proxy.config.clusters {
        TcpClusters::One(_) => session.info.state.cluster.borrow().clone(),
        // They beat what a filter before chose, as in Envoy.
        TcpClusters::Weighted(_) => None,
    };
    let (name, place) = match chosen {
        Some(name) => (name, 0),
        None => {
            let (name, place) = session.proxy.choose_cluster(|| fastrand::u64(..));
            (name.clone(), place)
        }
    };
    let Some(cluster) = directory.cluster(&name) else {
        session.proxy.stats.downstream_cx_no_route().inc();
        return Err(End::NoCluster);
    };
    session.facts.cluster = Some(name);
    session.facts.place = place;
    Ok(cluster)
}

async fn attempt_once(
    session: &mut Session,
    downstream: &mut BoxIo,
    early: &mut Early,
    cluster: &Cluster,
) -> Result<Result<tcp::Connection, PoolError>, End> {
    let host = match cluster.original_dst() {
        Some(_) => cluster.choose_host_at(|_| None, Some(&session.info)),
        None => {
            let labels = session.proxy.labels(session.facts.place);
            cluster.choose_host_by(lb::Wish { hash: hash(session), loads: None, labels })
        }
    };
    let Some(host) = host else { return Err(End::NoHost) };
    let mut acquire = cluster.acquire_tcp(&host, transport_options(session, cluster, &host));
    let result = until(session, |cx| {
        while let Poll::Ready(read) = early.poll(cx, downstream.as_mut()) {
            if let Err(end) = read {
                return Poll::Ready(Err(end));
            }
        }
        Pin::new(&mut acquire).poll(cx).map(Ok)
    })
    .await
    .flatten();
    if result.is_err() {
        // The attempt was under way.
        session.facts.attempts += 1;
    }
    let result = result?;
    judge(&host, &result);
    if result.is_ok() && cluster.config().close_connections_on_host_health_failure {
        session.cut = Some(host.cut());
    }
    let facts = result.as_ref().ok().map(|connection| connection.lease.facts());
    // What a connection limit refuses is no attempt, and what any limit refuses got as far as no host.
    let (attempted, reached) = match &result {
        Err(PoolError::ConnectionOverflow | PoolError::PoolOverflow) => (false, false),
        Err(PoolError::Overflow | PoolError::RequestOverflow) => (true, false),
        Ok(_) | Err(PoolError::Connect { .. } | PoolError::Lost) => (true, true),
    };
    session.facts.attempts += u32::from(attempted);
    if reached {
        session.facts.upstream = Some(UpstreamInfo {
            host: host.address(),
            remote_address: facts.and_then(|facts| facts.remote_address.clone()),
            local_address: facts.and_then(|facts| facts.local_address.clone()),
            connection_id: facts.map(|facts| facts.id),
            protocol: None,
            tls: facts.and_then(|facts| facts.tls.clone()),
        });
    }
    Ok(result)
}

/// Tells outlier detection. As in Envoy a limit of ours and a failure to get a local socket say nothing of the host,
/// and what a connection carries says nothing either.
fn judge(host: &Host, result: &Result<tcp::Connection, PoolError>) {
    match result {
        Ok(_) => host.judge(Verdict::ConnectedForGood),
        Err(error) => match error.reason() {
            ResetReason::ConnectionTimeout => host.judge(Verdict::TimedOut(504)),
            ResetReason::Overflow | ResetReason::LocalConnectionFailure => {}
            _ => host.judge(Verdict::Failed),
        },
    }
}

/// What `hash_policy` finds in the session.
fn hash(session: &Session) -> Option<u64> {
    match session.proxy.config.hash_policy.as_ref()? {
        TcpHashPolicy::SourceIp => session.info.remote_address.ip().map(lb::hash::of_ip),
        TcpHashPolicy::FilterState(key) => {
            let objects = session.info.state.value::<FilterObjects>()?;
            objects.hashable(key).map(|text| lb::hash::xx64(text.as_bytes()))
        }
    }
}

/// What the session asks of its connection: a PROXY header tells of the client.
fn transport_options(session: &Session, cluster: &Cluster, host: &Host) -> Rc<TransportOptions> {
    let tells_addresses = matches!(cluster.socket_of(host), UpstreamTransport::ProxyProtocol(_));
    let proxy = if tells_addresses { ProxyAddresses::of(&session.info) } else { None };
    Rc::new(TransportOptions { proxy, ..TransportOptions::default() })
}

/// Waits for `poll`, unless the session ends first.
async fn until<T>(
    session: &mut Session,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, End> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = poll(cx) {
            return Poll::Ready(Ok(done));
        }
        session.poll_end(cx, Instant::now()).map(Err)
    })
    .await
}

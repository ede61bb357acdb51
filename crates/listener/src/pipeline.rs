//! What a connection passes from `accept` to its end.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tidegate_filter::listener::Arrival;
use tidegate_net::BoxIo;
use tidegate_net::listen::Accepted;
use tidegate_types::overload::ScaledTimer;
use tidegate_types::{Address, ConnectionInfo, ResponseFlags, StreamInfo, details};

use crate::Chain;
use crate::inspect::{Inspected, inspect};
use crate::listener::Listener;
use crate::presence::{self, Places, Presence};
use crate::quic::QuicConnection;

/// An established connection.
pub struct Connection {
    /// Its bytes.
    pub io: BoxIo,
    /// Its facts.
    pub info: Rc<ConnectionInfo>,
    /// `per_connection_buffer_limit_bytes`.
    pub buffer_limit: u32,
    /// Its place in the listener's counts and log, until it is dropped: hold it for as long as the connection is
    /// served.
    pub presence: Presence,
}

/// A connection being served.
pub type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// What owns connections behind the last network filter: the HTTP connection manager, a TCP proxy, an echo.
pub trait Terminal {
    /// Serves the connection to its end. Dropping the future closes the connection.
    fn serve(&self, connection: Connection) -> Serving;

    /// Serves a QUIC connection likewise. Configuration gives no other terminal such connections than one that
    /// speaks HTTP/3.
    fn serve_quic(&self, connection: QuicConnection) -> Serving {
        Box::pin(async move { drop(connection) })
    }

    /// A network filter, or the client, ended the connection before it was served.
    fn refused(&self, _info: &Rc<ConnectionInfo>, _presence: Presence) {}

    /// What the client's FIN means to it. Network filters before it are told accordingly.
    fn half_close(&self) -> HalfClose {
        HalfClose::Kept
    }
}

/// What a client's FIN means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// The client sends no more, but may still read: a TCP proxy. Network filters see the end.
    Kept,
    /// The client is gone: HTTP. Network filters see no end, and a connection that they still think about is
    /// closed.
    Ends,
}

/// One connection, from accept to its end. What comes before it is served lives on the heap only meanwhile:
/// an idle connection keeps what its terminal needs (this saved a kilobyte of each).
pub(crate) fn run(listener: Rc<Listener>, accepted: Accepted, places: Places) -> impl Future<Output = ()> {
    let opening = Box::pin(open(listener, accepted, places));
    async move {
        if let Some(serving) = opening.await {
            serving.await;
        }
    }
}

/// The pipeline of one connection. Each kind of step is a line here.
async fn open(listener: Rc<Listener>, accepted: Accepted, places: Places) -> Option<Serving> {
    let Accepted { io, local_address, peer_address } = accepted;
    // Listener filters look at the first bytes before there is a connection: what they find, the match reads.
    let arrival = arrival(local_address, peer_address);
    let (io, arrival) = inspected(&listener, io, arrival).await?;
    // The match comes before everything that a chain decides, the transport first of all.
    let Some(chain) = listener.chains().find(&arrival).cloned() else {
        refuse(&listener, arrival);
        return None;
    };
    // From here on it is a connection: counted, and logged at its end.
    let info = Rc::new(establish(&listener, Some(&chain), arrival));
    let buffer_limit = listener.options().buffer_limit;
    let handshake_timeout = chain
        .handshake_timeout
        .map(|timeout| listener.overload().scale(ScaledTimer::TransportSocketConnect, timeout));
    let presence = Presence::begin(listener, info.clone(), places);
    // The transport hands on the bytes that filters and terminal understand; its handshake is its first reads.
    let io = match &chain.transport {
        Some(transport) => transport.accept(io, &info, handshake_timeout),
        None => io,
    };
    // The terminal stands behind the chain's network filters (`network::behind`), if it has any.
    Some(chain.terminal.serve(Connection { io, info, buffer_limit, presence }))
}

/// What listener filters leave, if there are any: they may take time, and what that needs is on the heap only
/// meanwhile.
async fn inspected(listener: &Rc<Listener>, io: BoxIo, arrival: Arrival) -> Option<(BoxIo, Arrival)> {
    let options = listener.options();
    if options.filters.is_empty() {
        return Some((io, arrival));
    }
    match Box::pin(inspect(&options, listener.stats(), io, arrival)).await {
        Inspected::Passed(io, arrival) => Some((io, arrival)),
        Inspected::Closed(arrival) => {
            never_a_connection(listener, arrival, |_| {});
            None
        }
    }
}

fn arrival(local_address: Address, peer: Address) -> Arrival {
    // A Unix-domain client has no name of its own: it is called after the socket, as in Envoy.
    let peer = match peer {
        Address::Unix(path) if path.as_os_str().is_empty() => local_address.clone(),
        named => named,
    };
    Arrival::new(local_address, peer)
}

/// A connection's facts; without a chain those of one that none wants.
pub(crate) fn establish(listener: &Listener, chain: Option<&Chain>, arrival: Arrival) -> ConnectionInfo {
    let is_quic = listener.is_quic();
    let mut info = info(listener, NEXT_ID.fetch_add(1, Ordering::Relaxed), arrival);
    if let Some(chain) = chain {
        info.filter_chain = chain.name.clone();
    }
    info.secure = is_quic || chain.is_some_and(|chain| chain.transport.is_some());
    info
}

fn info(listener: &Listener, id: u64, arrival: Arrival) -> ConnectionInfo {
    let peer = arrival.direct_remote_address;
    let mut info = ConnectionInfo::new(id, arrival.local_address, peer, listener.name().clone());
    info.remote_address = arrival.remote_address;
    info.is_redirected = arrival.original_destination.is_some();
    info.requested_server_name.replace(arrival.server_name);
    info.transport_failure.replace(arrival.transport_failure);
    info.state = arrival.state;
    info
}

/// No chain wants it: closed, counted and logged, as in Envoy never a connection.
fn refuse(listener: &Listener, arrival: Arrival) {
    listener.stats().no_filter_chain_match();
    never_a_connection(listener, arrival, |stream| {
        stream.flag(ResponseFlags::NO_ROUTE_FOUND);
        stream.detail(details::FILTER_CHAIN_NOT_FOUND);
    });
}

/// The listener's access log has a line also for what ended before it was a connection.
fn never_a_connection(listener: &Listener, arrival: Arrival, facts: impl FnOnce(&StreamInfo)) {
    if listener.options().access_logs.is_empty() {
        return;
    }
    let stream = StreamInfo::new(Rc::new(info(listener, 0, arrival)), SystemTime::now());
    facts(&stream);
    presence::log(listener, &stream, Duration::ZERO);
}

/// Connection numbers, unique in the process (`%CONNECTION_ID%`).
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

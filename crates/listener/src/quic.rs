//! QUIC connections: the accept loop of a worker's UDP socket, and what a connection passes before its terminal.
//!
//! The same rules admit a connection as on TCP. It is one once its ClientHello is here, which names the server and
//! offers protocols: then a chain is chosen, and the terminal owns it, handshake and all. Start from [`run`] and
//! [`QuicConnection`].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tidegate_filter::listener::Arrival;
use tidegate_quic::{CloseCode, Conn, Endpoint, Event, Incoming};
use tidegate_tls::quic::{LiveFacts, facts, while_accepting};
use tidegate_types::overload::OverloadAction::{RejectIncomingConnections, StopAcceptingConnections};
use tidegate_types::{Address, ConnectionInfo};
use tokio::time::Instant;

use crate::listener::Listener;
use crate::pipeline::{Serving, establish};
use crate::presence::{Places, Presence};

/// A QUIC connection whose handshake has begun.
pub struct QuicConnection {
    /// The connection.
    pub conn: Conn,
    /// Its facts.
    pub info: Rc<ConnectionInfo>,
    /// When its handshake must be over.
    pub handshake_due: Instant,
    /// What it brings, as far as it has come; `None`: it is not one of `tls::quic`.
    pub tls: Option<LiveFacts>,
    /// Its place in the listener's counts and log, until it is dropped: hold it for as long as the connection is
    /// served.
    pub presence: Presence,
}

/// Accepts until the listener is told to stop; then nobody new is answered, and connections that stand go on.
pub(crate) async fn run(listener: Rc<Listener>, endpoint: Endpoint) {
    let stats = listener.stats().clone();
    endpoint.on_drop(Box::new(move || stats.datagram_dropped()));
    loop {
        // Clients ask again meanwhile.
        let accepts = !listener.overload().is_saturated(StopAcceptingConnections);
        let incoming = tokio::select! {
            biased;
            () = listener.stopping().notified() => break,
            () = listener.watch_overload().notified() => continue,
            incoming = poll_fn(|cx| endpoint.poll_incoming(cx)), if accepts => incoming,
        };
        let Some(first) = incoming else { break };
        admit(&listener, first);
        let burst = listener.options().accept_burst.max(1);
        let mut taken = 1;
        while taken < burst {
            let Poll::Ready(Some(more)) = poll_fn(|cx| Poll::Ready(endpoint.poll_incoming(cx))).await else {
                break;
            };
            taken += 1;
            admit(&listener, more);
        }
        listener.stats().accepted_together(u64::from(taken));
        if taken == burst {
            tokio::task::yield_now().await;
        }
    }
    if !listener.gave_endpoint() {
        endpoint.close();
    }
}

fn admit(listener: &Rc<Listener>, incoming: Incoming) {
    let options = listener.options();
    let overload = listener.overload().level(RejectIncomingConnections);
    if overload > 0.0 && fastrand::f64() < overload {
        listener.stats().overload_reject();
        return incoming.refuse();
    }
    let global = match &options.limit {
        None => None,
        Some(limit) => match limit.reserve() {
            Some(reservation) => Some(reservation),
            None => {
                listener.stats().global_overflow();
                return incoming.refuse();
            }
        },
    };
    let Some(own) = options.own_limit.reserve() else {
        listener.stats().overflow();
        return incoming.refuse();
    };
    let (local, remote) = (incoming.local_address(), incoming.remote_address());
    let Ok(conn) = while_accepting(remote, local, || incoming.accept()) else {
        // A ClientHello that TLS refuses.
        listener.stats().closed_for("QUIC_HANDSHAKE_FAILED");
        let arrival = Arrival::new(Address::Ip(local), Address::Ip(remote));
        return drop(unserved(listener, arrival, (global, own)));
    };
    let opening = Box::pin(open(listener.clone(), conn, local, remote, (global, own)));
    tokio::task::spawn_local(async move {
        if let Some(serving) = opening.await {
            serving.await;
        }
    });
}

/// The pipeline of one connection. Each kind of step is a line here.
async fn open(
    listener: Rc<Listener>,
    mut conn: Conn,
    local: SocketAddr,
    remote: SocketAddr,
    places: Places,
) -> Option<Serving> {
    let handshake_due = Instant::now() + listener.options().quic_handshake_timeout;
    // The ClientHello tells for whom it is; it may be longer than a datagram.
    if !matches!(tokio::time::timeout_at(handshake_due, hello(&mut conn)).await, Ok(true)) {
        drop(unserved(&listener, arrival(&conn, local, remote), places));
        return None;
    }
    let arrival = arrival(&conn, local, remote);
    // The chain, and with it everything else that is decided.
    let Some(chain) = listener.chains().find(&arrival).cloned() else {
        let presence = unserved(&listener, arrival, places);
        listener.stats().closed_for("QUIC_NO_ERROR");
        close(conn, NO_CHAIN).await;
        drop(presence);
        return None;
    };
    let info = Rc::new(establish(&listener, Some(&chain), arrival));
    let presence = Presence::begin(listener, info.clone(), places);
    let tls = facts(&conn);
    Some(chain.terminal.serve_quic(QuicConnection { conn, info, handshake_due, tls, presence }))
}

/// The presence of what no chain serves: as in Envoy it was a connection, and no match counts.
fn unserved(listener: &Rc<Listener>, arrival: Arrival, places: Places) -> Presence {
    let info = Rc::new(establish(listener, None, arrival));
    Presence::begin(listener.clone(), info, places)
}

/// Waits for the ClientHello: whether it came.
async fn hello(conn: &mut Conn) -> bool {
    loop {
        match poll_fn(|cx| conn.poll_event(cx)).await {
            Event::HandshakeData | Event::Connected => return true,
            Event::Lost(_) => return false,
            _ => {}
        }
    }
}

fn arrival(conn: &Conn, local: SocketAddr, remote: SocketAddr) -> Arrival {
    let mut arrival = Arrival::new(Address::Ip(local), Address::Ip(remote));
    describe(&mut arrival, conn.server_name().as_deref());
    arrival
}

/// What the chains of QUIC listeners match beside addresses, as in Envoy: it takes every client for one of HTTP/3.
pub fn describe(arrival: &mut Arrival, server_name: Option<&str>) {
    arrival.transport_protocol = Some(TRANSPORT.into());
    arrival.server_name = server_name.map(|name| name.to_ascii_lowercase().into());
    arrival.application_protocols = vec![b"h3".to_vec()];
}

/// Says why, and waits until that is sent.
pub(crate) async fn close(mut conn: Conn, reason: &str) {
    conn.close(CloseCode::NoError, Bytes::from(format!("0:Closed by application with reason: {reason}")));
    let lost = async { while !matches!(poll_fn(|cx| conn.poll_event(cx)).await, Event::Lost(_)) {} };
    // It is said at once, or the socket is full and the client finds out by itself.
    let _ = tokio::time::timeout(LAST_WORDS, lost).await;
}

/// What filter chains match as `transport_protocol`, as in Envoy.
const TRANSPORT: &str = "quic";

/// Envoy's words.
const NO_CHAIN: &str = "no filter chain found";

/// How long saying goodbye may take where the socket is full.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

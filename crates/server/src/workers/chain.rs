//! A filter chain on one worker, and what a reload makes of it.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_cluster::Directory;
use tidegate_codec::h1::ServerConn;
use tidegate_config::listener::FilterChainConfig;
use tidegate_http::{Drain, DrainPhase, HcmSlot};
use tidegate_listener::{
    Chain, Connection, HalfClose, Presence, QuicConnection, RespondTerminal, Serving, Terminal, behind,
};
use tidegate_tcp::{TcpSlot, TcpTerminal};
use tidegate_types::overload::Overload;

use crate::snapshot::{ChainSnapshot, TerminalSnapshot};

/// A filter chain on one worker. Its connections learn of changes through `slot`, and of their end through
/// `drain`.
pub(super) struct WorkerChain {
    pub(super) chain: Rc<Chain>,
    pub(super) drain: Rc<Drain>,
    config: Arc<FilterChainConfig>,
    slot: Slot,
}

/// Where the open connections of a chain find what serves them now.
#[derive(Clone)]
enum Slot {
    Http(Rc<HcmSlot>),
    /// New sessions do; running ones keep what they began with.
    Tcp(Rc<TcpSlot>),
    /// They keep what they began with.
    Fixed,
}

impl WorkerChain {
    /// A chain without connections.
    pub(super) fn open(
        snapshot: &ChainSnapshot,
        directory: &Rc<Directory>,
        overload: &Rc<Overload>,
        phase: DrainPhase,
    ) -> Self {
        let drain = Drain::new();
        drain.set(phase);
        let (slot, terminal): (_, Rc<dyn Terminal>) = match &snapshot.terminal {
            TerminalSnapshot::Http(hcm) => {
                let slot = HcmSlot::new(hcm.clone(), overload.clone());
                let (directory, drain) = (directory.clone(), drain.clone());
                (Slot::Http(slot.clone()), Rc::new(HttpTerminal { slot, directory, drain }))
            }
            TerminalSnapshot::Nothing => (Slot::Fixed, Rc::new(NoFilters)),
            TerminalSnapshot::Tcp(proxy) => {
                let slot = TcpSlot::new(proxy.clone());
                let terminal = TcpTerminal::new(slot.clone(), directory.clone(), drain.clone());
                (Slot::Tcp(slot), Rc::new(terminal))
            }
            TerminalSnapshot::Respond(factory) => {
                (Slot::Fixed, Rc::new(RespondTerminal::new(factory.clone(), drain.clone())))
            }
        };
        let chain = chain(snapshot, behind(&snapshot.filters, terminal));
        Self { chain, drain, config: snapshot.config.clone(), slot }
    }

    /// The chain as `snapshot` has it, with the connections of this one; `None` if they could not go on there.
    fn adopted(&self, snapshot: &ChainSnapshot) -> Option<Self> {
        match (&self.slot, &snapshot.terminal) {
            (Slot::Http(slot), TerminalSnapshot::Http(hcm)) => slot.set_if_changed(hcm),
            (Slot::Tcp(slot), TerminalSnapshot::Tcp(proxy)) => slot.set(proxy.clone()),
            (Slot::Fixed, TerminalSnapshot::Respond(_) | TerminalSnapshot::Nothing)
                if self.config.filters == snapshot.config.filters => {}
            _ => return None,
        }
        Some(Self {
            chain: chain(snapshot, self.chain.terminal.clone()),
            drain: self.drain.clone(),
            config: snapshot.config.clone(),
            slot: self.slot.clone(),
        })
    }
}

fn chain(snapshot: &ChainSnapshot, terminal: Rc<dyn Terminal>) -> Rc<Chain> {
    Rc::new(Chain {
        name: snapshot.config.name.as_str().into(),
        transport: snapshot.transport.open(),
        handshake_timeout: snapshot.handshake_timeout,
        terminal,
    })
}

/// The chains that `snapshots` ask for, with the connections of those of `old` that they continue; what is left
/// in `old` is to be drained.
pub(super) fn renew(
    old: &mut Vec<WorkerChain>,
    snapshots: &[Arc<ChainSnapshot>],
    open: impl Fn(&ChainSnapshot) -> WorkerChain,
) -> Vec<WorkerChain> {
    let mut new: Vec<Option<WorkerChain>> = snapshots.iter().map(|_| None).collect();
    // The surest kinship first, so that a lesser one does not take a chain away from it.
    for kinship in [Kinship::Same, Kinship::Renewed] {
        for (new, snapshot) in new.iter_mut().zip(snapshots).filter(|(new, _)| new.is_none()) {
            let kin = old.iter().position(|old| kinship.holds(&old.config, &snapshot.config));
            let adopted = kin.and_then(|at| Some((at, old[at].adopted(snapshot)?)));
            if let Some((at, adopted)) = adopted {
                old.swap_remove(at);
                *new = Some(adopted);
            }
        }
    }
    let opened = |(new, snapshot): (Option<_>, &Arc<ChainSnapshot>)| new.unwrap_or_else(|| open(snapshot));
    new.into_iter().zip(snapshots).map(opened).collect()
}

/// How a chain of the old configuration relates to one of the new.
#[derive(Clone, Copy)]
enum Kinship {
    /// Nothing but the match differs.
    Same,
    /// It has the same name (without names: the same match), transport and filters before the last: what the
    /// last one does is read anew for each request.
    Renewed,
}

impl Kinship {
    fn holds(self, old: &FilterChainConfig, new: &FilterChainConfig) -> bool {
        let before_last = |chain: &FilterChainConfig| chain.filters.len().saturating_sub(1);
        match self {
            Self::Same => old.same_but_match(new),
            Self::Renewed => {
                old.name == new.name
                    && (!new.name.is_empty() || old.matching == new.matching)
                    && old.transport_socket.same_but_content(&new.transport_socket)
                    && old.filters[..before_last(old)] == new.filters[..before_last(new)]
            }
        }
    }
}

/// Nobody to serve the connection.
struct NoFilters;

impl Terminal for NoFilters {
    fn serve(&self, connection: Connection) -> Serving {
        *connection.info.state.local_close_reason.borrow_mut() = Some("no_filters".into());
        Box::pin(async move { drop(connection) })
    }
}

/// The HTTP connection manager behind a filter chain.
struct HttpTerminal {
    slot: Rc<HcmSlot>,
    directory: Rc<Directory>,
    drain: Rc<Drain>,
}

impl Terminal for HttpTerminal {
    fn serve(&self, connection: Connection) -> Serving {
        let conn = ServerConn::new(connection.io, self.slot.codec_options());
        let serving = tidegate_http::serve(
            conn,
            connection.info,
            self.slot.clone(),
            self.directory.clone(),
            self.drain.clone(),
        );
        present(connection.presence, serving)
    }

    fn serve_quic(&self, connection: QuicConnection) -> Serving {
        let QuicConnection { conn, info, handshake_due, tls, presence } = connection;
        let of = info.clone();
        // Lives as long as the connection is served: in one future with it, which is 80 bytes less than one around it.
        let learn = move || {
            let _here = &presence;
            if let Some(tls) = tls.as_ref().and_then(|tls| tls.take()) {
                // The first handshake is the only one.
                let _ = of.tls.set(tls);
            }
        };
        Box::pin(tidegate_http::serve_http3(
            self.slot.http3(conn),
            handshake_due,
            learn,
            info,
            self.slot.clone(),
            self.directory.clone(),
            self.drain.clone(),
        ))
    }

    fn half_close(&self) -> HalfClose {
        HalfClose::Ends
    }
}

/// `serving`, until whose end the connection counts as present.
fn present(presence: Presence, serving: impl Future<Output = ()> + 'static) -> Serving {
    // Boxed by itself: one that is awaited from a capture would take its room twice.
    let serving = Box::pin(serving);
    Box::pin(async move {
        serving.await;
        drop(presence);
    })
}

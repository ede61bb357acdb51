//! A server's session before and after its ClientHello told which filter chain's context speaks.

use std::any::Any;
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::quic::Suite;
use tidegate_quic::crypto::{Handshake, initial_keys};
use tidegate_quic::proto::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey};
use tidegate_quic::proto::transport_parameters::TransportParameters;
use tidegate_quic::proto::{ConnectionId, Side, TransportError, TransportErrorCode};

use super::hello::{self, Addresses, Hello, Reading};
use super::session::{Session, fault};
use crate::ServerContext;

/// Which of a listener's TLS contexts speaks with a client.
pub trait Pick: Send + Sync {
    /// That of the filter chain that serves this client; `None`: nobody serves it, and no handshake takes place.
    fn pick(&self, hello: &Hello) -> Option<Arc<ServerContext>>;
}

/// Calls `accept`, which accepts a connection between these two: a [`Pick`] gets to know of them.
pub fn while_accepting<T>(remote: SocketAddr, local: SocketAddr, accept: impl FnOnce() -> T) -> T {
    ADDRESSES.set(Some(Addresses { remote, local }));
    let accepted = accept();
    ADDRESSES.set(None);
    accepted
}

thread_local! {
    /// Sessions begin within quinn-proto, which does not tell them for whom.
    static ADDRESSES: Cell<Option<Addresses>> = const { Cell::new(None) };
}

/// A server's session. Small, since it stays as long as its connection.
pub(super) enum Picked {
    /// The ClientHello is not whole yet.
    Waiting(Box<Waiting>),
    /// Nobody serves this client: it gets no answer from TLS, and the connection's owner says why.
    Unserved(Box<Unserved>),
    /// The chosen context's.
    Session(Box<Session>),
}

pub(super) struct Unserved {
    hello: Hello,
    suite: Suite,
}

pub(super) struct Waiting {
    pick: Arc<dyn Pick>,
    suite: Suite,
    /// Our transport parameters, encoded.
    parameters: Vec<u8>,
    /// What came of the ClientHello.
    received: Vec<u8>,
    addresses: Option<Addresses>,
}

impl Picked {
    pub(super) fn new(pick: Arc<dyn Pick>, suite: Suite, parameters: Vec<u8>) -> Self {
        let (received, addresses) = (Vec::new(), ADDRESSES.get());
        Self::Waiting(Box::new(Waiting { pick, suite, parameters, received, addresses }))
    }

    fn session(&self) -> Option<&Session> {
        match self {
            Self::Session(session) => Some(session),
            Self::Waiting(_) | Self::Unserved(_) => None,
        }
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        match self {
            Self::Session(session) => Some(session),
            Self::Waiting(_) | Self::Unserved(_) => None,
        }
    }
}

impl Waiting {
    /// The session that goes on with what came; `None`: more is to come.
    fn begin(&mut self) -> Result<Option<Picked>, TransportError> {
        let hello = match hello::read(&self.received) {
            Reading::Partial => return Ok(None),
            Reading::Whole(hello) => Hello { addresses: self.addresses, ..hello },
            Reading::Garbage => return Err(fault(TransportErrorCode::PROTOCOL_VIOLATION, "no ClientHello")),
        };
        let Some(context) = self.pick.pick(&hello) else {
            return Ok(Some(Picked::Unserved(Box::new(Unserved { hello, suite: self.suite }))));
        };
        let parameters = std::mem::take(&mut self.parameters);
        let session = context.quic_session(self.suite, parameters).ok_or_else(|| {
            // It was tried when the context was made.
            fault(TransportErrorCode::INTERNAL_ERROR, "no TLS session")
        })?;
        Ok(Some(Picked::Session(Box::new(session))))
    }
}

impl crypto::Session for Picked {
    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        match self {
            Self::Waiting(waiting) => initial_keys(waiting.suite, id, side.into()),
            Self::Unserved(unserved) => initial_keys(unserved.suite, id, side.into()),
            Self::Session(session) => session.initial_keys(id, side),
        }
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        match self {
            Self::Waiting(_) => None,
            Self::Unserved(unserved) => {
                let server_name = unserved.hello.server_name.clone();
                Some(Box::new(Handshake { server_name, ..Handshake::default() }))
            }
            Self::Session(session) => session.handshake_data(),
        }
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session()?.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session()?.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session()?.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session().is_none_or(crypto::Session::is_handshaking)
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        match self {
            Self::Session(session) => session.read_handshake(bytes),
            Self::Unserved(_) => Ok(false),
            Self::Waiting(waiting) => {
                waiting.received.extend_from_slice(bytes);
                let Some(next) = waiting.begin()? else { return Ok(false) };
                let received = std::mem::take(&mut waiting.received);
                *self = next;
                match self {
                    Self::Session(session) => session.read_handshake(&received),
                    Self::Waiting(_) | Self::Unserved(_) => Ok(true),
                }
            }
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session().map_or(Ok(None), crypto::Session::transport_parameters)
    }

    fn write_handshake(&mut self, into: &mut Vec<u8>) -> Option<Keys> {
        self.session_mut()?.write_handshake(into)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session_mut()?.next_1rtt_keys()
    }

    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        // Only clients get one.
        false
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        let session = self.session().ok_or(ExportKeyingMaterialError)?;
        session.export_keying_material(output, label, context)
    }
}

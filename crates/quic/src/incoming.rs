//! [`Incoming`]: a client's attempt that nobody has answered yet.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::time::Instant;

use crate::conn::Conn;
use crate::hub::Hub;

/// A connection attempt. Dropping it ignores it: the client tries again.
pub struct Incoming {
    attempt: Option<quinn_proto::Incoming>,
    hub: Rc<Hub>,
}

/// Why an attempt did not become a connection; the client has been told where it can be.
#[derive(Debug, thiserror::Error)]
#[error("the connection attempt failed: {0}")]
pub struct AcceptError(#[from] quinn_proto::ConnectionError);

impl Incoming {
    pub(crate) fn new(hub: Rc<Hub>, attempt: quinn_proto::Incoming) -> Self {
        Self { attempt: Some(attempt), hub }
    }

    /// The client's address, as the datagram claims.
    pub fn remote_address(&self) -> SocketAddr {
        let attempt = self.attempt.as_ref().map(quinn_proto::Incoming::remote_address);
        // Empty only once it is consumed.
        attempt.unwrap_or_else(|| self.hub.link.local_address())
    }

    /// The address that the client wrote to.
    pub fn local_address(&self) -> SocketAddr {
        let mut address = self.hub.link.local_address();
        if let Some(ip) = self.attempt.as_ref().and_then(quinn_proto::Incoming::local_ip) {
            address.set_ip(ip);
        }
        address
    }

    /// Whether the client has proved that its address is its own (RFC 9000 section 8.1).
    pub fn is_validated(&self) -> bool {
        self.attempt.as_ref().is_some_and(quinn_proto::Incoming::remote_address_validated)
    }

    /// Goes on with the handshake.
    ///
    /// # Errors
    /// When its first packet is no good.
    pub fn accept(mut self) -> Result<Conn, AcceptError> {
        let Some(attempt) = self.attempt.take() else {
            return Err(AcceptError(quinn_proto::ConnectionError::LocallyClosed));
        };
        let mut answer = Vec::new();
        let accepted =
            self.hub.proto.borrow_mut().accept(attempt, Instant::now().into_std(), &mut answer, None);
        match accepted {
            Ok((handle, proto)) => {
                self.hub.stats.borrow_mut().accepted += 1;
                let core = self.hub.admit(handle, proto);
                core.state().note_early();
                Ok(Conn::new(self.hub.clone(), core))
            }
            Err(error) => {
                if let Some(transmit) = &error.response {
                    self.hub.answer(transmit, &answer);
                }
                Err(AcceptError(error.cause))
            }
        }
    }

    /// Says `CONNECTION_REFUSED`.
    pub fn refuse(mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.hub.refuse(attempt);
        }
    }

    /// Demands a proof of the address (Retry); refuses a client that has given one.
    pub fn retry(mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.hub.retry(attempt);
        }
    }

    /// Gives no answer.
    pub fn ignore(self) {}
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.hub.proto.borrow_mut().ignore(attempt);
        }
    }
}

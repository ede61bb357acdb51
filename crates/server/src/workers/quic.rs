//! The UDP sockets of QUIC listeners on one worker.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use tidegate_quic::{Endpoint, EndpointOptions, Worker};
use tidegate_types::Address;

use super::listener::WorkerListener;
use super::{ListenerUpdate, WorkerState};

impl WorkerState {
    /// The socket of a new listener.
    ///
    /// # Errors
    /// When it cannot be registered with the runtime.
    pub(super) fn endpoint(&self, update: &ListenerUpdate, socket: UdpSocket) -> io::Result<Endpoint> {
        let workers = self.workers.borrow().clone();
        let count = workers.as_ref().map_or(1, |workers| workers.len());
        let options = EndpointOptions {
            // Once for as long as the socket stays: ids that were issued keep their tokens.
            reset_key: update.snapshot.quic.as_ref().and_then(|quic| quic.reset_key),
            worker: Worker { index: self.index as u32, count: count as u32 },
            ..EndpointOptions::default()
        };
        let endpoint = Endpoint::new(socket, options)?;
        apply(update, &endpoint);
        if let Some(workers) = workers {
            let place = endpoint.local_address();
            endpoint.on_foreign(Box::new(move |worker, remote, datagram: &[u8]| {
                let datagram = datagram.to_vec();
                if let Some(mailbox) = workers.iter().nth(worker as usize) {
                    mailbox.send(move |worker| worker.receive(place, remote, &datagram));
                }
            }));
        }
        Ok(endpoint)
    }

    /// A datagram of one of this worker's connections, which another worker's socket at `place` got.
    fn receive(&self, place: SocketAddr, remote: SocketAddr, datagram: &[u8]) {
        let (listeners, draining) = (self.listeners.borrow(), self.draining.borrow());
        let mut endpoints = listeners.iter().chain(&*draining).filter_map(|l| l.listener.endpoint());
        if let Some(endpoint) = endpoints.find(|endpoint| endpoint.local_address() == place) {
            endpoint.receive(remote, datagram);
        }
    }
}

impl WorkerListener {
    /// Gives the socket to the listener that takes its place, if it does.
    pub(super) fn give_endpoint(&self, successor: &ListenerUpdate) -> Option<Endpoint> {
        let place = self.listener.endpoint()?.local_address();
        if successor.snapshot.config.address != Address::Ip(place) {
            return None;
        }
        let endpoint = self.listener.give_endpoint()?;
        apply(successor, &endpoint);
        Some(endpoint)
    }

    /// What new connections get from now on.
    pub(super) fn renew_endpoint(&self, update: &ListenerUpdate) {
        if let Some(endpoint) = self.listener.endpoint() {
            apply(update, endpoint);
        }
    }
}

fn apply(update: &ListenerUpdate, endpoint: &Endpoint) {
    if let Some(quic) = &update.snapshot.quic {
        quic.apply(endpoint);
    }
}

//! [`Endpoint`]: a server's socket on one worker.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use quinn_proto::ServerConfig;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::conn::alarm::Alarm;
use crate::hub::{Driver, Hub};
use crate::incoming::Incoming;
use crate::link::{Link, Received, UdpLink};
use crate::options::{EndpointOptions, Reception};
use crate::stats::EndpointStats;

/// One UDP socket of one worker, for connections that come. Its task lives as long as a handle or a connection does.
pub struct Endpoint(Rc<Hub>);

impl Endpoint {
    /// Takes over `socket` and spawns the task that receives for all its connections.
    ///
    /// # Errors
    /// When the socket lacks an option or cannot be registered with the runtime.
    ///
    /// # Panics
    /// Outside of a `LocalSet` or `LocalRuntime`.
    pub fn new(socket: UdpSocket, options: EndpointOptions) -> io::Result<Self> {
        Ok(Self::over(Box::new(UdpLink::new(socket)?), options))
    }

    pub(crate) fn over(link: Box<dyn Link>, options: EndpointOptions) -> Self {
        let hub = Hub::new(link, options);
        hub.handles.set(1);
        spawn_local(Driver { hub: hub.clone(), alarm: Alarm::default() });
        Self(hub)
    }

    /// The next attempt to connect; `None` after [`Endpoint::close`].
    pub fn poll_incoming(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        if let Some(attempt) = self.0.attempts.borrow_mut().pop_front() {
            return Poll::Ready(Some(Incoming::new(self.0.clone(), attempt)));
        }
        if self.0.closed.get() {
            return Poll::Ready(None);
        }
        self.0.acceptor.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Refuses new connections from now on; those that stand go on.
    pub fn close(&self) {
        self.0.closed.set(true);
        while let Some(attempt) = self.next_attempt() {
            self.0.refuse(attempt);
        }
        self.0.wake_acceptor();
    }

    /// Called for each datagram that belongs to nobody and gets no answer.
    pub fn on_drop(&self, hook: Box<dyn Fn()>) {
        *self.0.on_drop.borrow_mut() = Some(hook);
    }

    /// What becomes of datagrams from now on.
    pub fn set_reception(&self, reception: Reception) {
        self.0.reception.set(reception);
    }

    /// Takes new connections again after [`Endpoint::close`].
    pub fn reopen(&self) {
        self.0.closed.set(false);
    }

    fn next_attempt(&self) -> Option<quinn_proto::Incoming> {
        self.0.attempts.borrow_mut().pop_front()
    }

    /// What new connections get from now on (certificates were reloaded); `None`: their packets are answered as those
    /// of connections that never were, with a stateless reset.
    pub fn set_server_config(&self, server: Option<Arc<ServerConfig>>) {
        self.0.set_server_config(server);
    }

    /// Where datagrams of other workers go: called with the worker's index, the sender and the datagram. That worker
    /// gives it to [`Endpoint::receive`]. The kernel's filter (`net::udp`) picks by the same rule, so that it is called
    /// only where there is no filter.
    pub fn on_foreign(&self, hook: impl Fn(u32, SocketAddr, &[u8]) + 'static) {
        *self.0.foreign.borrow_mut() = Some(Box::new(hook));
    }

    /// A datagram that another worker's socket got.
    pub fn receive(&self, remote: SocketAddr, datagram: &[u8]) {
        let received = Received { remote, local_ip: None, ecn: None, data: BytesMut::from(datagram) };
        self.0.handle(Instant::now(), received);
    }

    /// The socket's address.
    pub fn local_address(&self) -> SocketAddr {
        self.0.link.local_address()
    }

    /// Counts since the start.
    pub fn stats(&self) -> EndpointStats {
        let mut stats = *self.0.stats.borrow();
        stats.half_open = self.0.half_open();
        stats
    }
}

impl Clone for Endpoint {
    fn clone(&self) -> Self {
        self.0.handles.set(self.0.handles.get() + 1);
        Self(self.0.clone())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.handles.set(self.0.handles.get() - 1);
        if self.0.handles.get() == 0 {
            self.close();
            self.0.wake_driver();
        }
    }
}

//! Two ends of a connection in memory, as cheap as can be.
//!
//! Not the testkit's pair: that one runs on tokio's clock, asks for the time on every call and needs the
//! `test-util` feature, which makes each of the proxy's own looks at the clock dearer. Here a read is a copy.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tidegate_net::Io;
use tidegate_types::Address;

/// Two connected ends. Writes never wait.
pub fn pair() -> (MemoryIo, MemoryIo) {
    let (one, other) = (Rc::<RefCell<Pipe>>::default(), Rc::<RefCell<Pipe>>::default());
    let near = MemoryIo { incoming: one.clone(), outgoing: other.clone() };
    (near, MemoryIo { incoming: other, outgoing: one })
}

/// One end. Dropping it is a FIN.
pub struct MemoryIo {
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
}

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: BytesMut,
    closed: bool,
    reader: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.bytes.is_empty() || self.closed {
            return Poll::Ready(());
        }
        if !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl MemoryIo {
    /// Sends bytes to the other end.
    pub fn send(&mut self, bytes: &[u8]) {
        let mut pipe = self.outgoing.borrow_mut();
        pipe.bytes.extend_from_slice(bytes);
        pipe.wake();
    }

    fn close(&mut self) {
        let mut pipe = self.outgoing.borrow_mut();
        pipe.closed = true;
        pipe.wake();
    }
}

impl Io for MemoryIo {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut pipe = self.incoming.borrow_mut();
        std::task::ready!(pipe.poll_ready(cx));
        let take = pipe.bytes.len().min(buf.capacity() - buf.len());
        buf.extend_from_slice(&pipe.bytes[..take]);
        if take == pipe.bytes.len() {
            // Keeps the memory for the next message.
            pipe.bytes.clear();
        } else {
            drop(pipe.bytes.split_to(take));
        }
        Poll::Ready(Ok(take))
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.incoming.borrow_mut().poll_ready(cx).map(Ok)
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.incoming.borrow().closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        bufs.iter().for_each(|buf| self.outgoing.borrow_mut().bytes.extend_from_slice(buf));
        self.outgoing.borrow_mut().wake();
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }

    fn abort_on_drop(&mut self) {}

    fn local_address(&self) -> Option<Address> {
        None
    }

    fn peer_address(&self) -> Option<Address> {
        None
    }
}

impl Drop for MemoryIo {
    fn drop(&mut self) {
        self.close();
    }
}

/// An end whose other end takes everything and says nothing: for measuring what is written.
pub struct Sink;

impl Io for Sink {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut BytesMut) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_read_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn abort_on_drop(&mut self) {}

    fn local_address(&self) -> Option<Address> {
        None
    }

    fn peer_address(&self) -> Option<Address> {
        None
    }
}

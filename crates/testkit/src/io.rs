//! Two ends of a connection in memory.
//!
//! [`MemIo`] is an [`Io`] for the code under test and has plain async methods for the script that plays its
//! peer. Latency, window and read size are set per direction, system calls are counted, and FIN and RST
//! behave as on TCP.
#![allow(clippy::panic)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tidegate_net::{Io, Peek, Peeked};
use tidegate_types::Address;
use tokio::time::{Instant, Sleep};

/// How a connection behaves, both ways alike.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// From write to readable.
    pub latency: Duration,
    /// Bytes under way before writes wait.
    pub window: usize,
    /// Bytes that one read gives at most: 1 tests every split.
    pub max_read: usize,
    /// Bytes that one write takes at most.
    pub max_write: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self { latency: Duration::ZERO, window: 1024 * 1024, max_read: usize::MAX, max_write: usize::MAX }
    }
}

/// Calls that an end made: what system calls would have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Reads that gave bytes or the end.
    pub reads: usize,
    /// Writes that took bytes.
    pub writes: usize,
}

/// Two connected ends without delay.
pub fn pair() -> (MemIo, MemIo) {
    pair_over(Link::default())
}

/// Two ends connected by `link`.
pub fn pair_over(link: Link) -> (MemIo, MemIo) {
    let one = Rc::new(RefCell::new(Pipe::default()));
    let other = Rc::new(RefCell::new(Pipe::default()));
    let end = |incoming: &Rc<RefCell<Pipe>>, outgoing: &Rc<RefCell<Pipe>>| MemIo {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        link,
        delay: None,
        calls: Rc::new(RefCell::new(Calls::default())),
        close: Close::Fin,
    };
    (end(&one, &other), end(&other, &one))
}

/// One end of a connection. Dropping it sends FIN, or RST after [`Io::abort_on_drop`].
#[derive(Debug)]
pub struct MemIo {
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
    link: Link,
    delay: Option<Pin<Box<Sleep>>>,
    calls: Rc<RefCell<Calls>>,
    close: Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    Fin,
    Rst,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    segments: VecDeque<(Instant, Bytes)>,
    len: usize,
    fin: Option<Instant>,
    broken: bool,
    /// The reading end is gone: writes fail.
    unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// When the next thing can be read, if anything is under way.
    fn due(&self) -> Option<Instant> {
        if self.broken {
            return Some(Instant::now());
        }
        self.segments.front().map(|(due, _)| *due).or(self.fin)
    }
}

impl MemIo {
    /// Calls made at this end; the handle stays valid when the end moves away.
    pub fn calls(&self) -> Rc<RefCell<Calls>> {
        Rc::clone(&self.calls)
    }

    /// Writes everything.
    pub async fn write_all(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match poll_fn(|cx| self.poll_write(cx, &[IoSlice::new(rest)])).await {
                Ok(written) => rest = rest.split_at(written).1,
                Err(error) => panic!("write: {error}"),
            }
        }
    }

    /// Reads once: empty at the end of the stream.
    pub async fn read_some(&mut self) -> Bytes {
        match self.try_read().await {
            Ok(bytes) => bytes,
            Err(error) => panic!("read: {error}"),
        }
    }

    /// Reads once; an error is the peer's RST.
    pub async fn try_read(&mut self) -> io::Result<Bytes> {
        let mut buf = BytesMut::with_capacity(64 * 1024);
        poll_fn(|cx| self.poll_read(cx, &mut buf)).await?;
        Ok(buf.freeze())
    }

    /// Reads exactly `len` bytes; fewer if the stream ends before.
    pub async fn read_exact(&mut self, len: usize) -> Bytes {
        let mut all = BytesMut::new();
        while all.len() < len {
            let mut buf = BytesMut::with_capacity(len - all.len());
            let spare = len - all.len();
            let max_read = std::mem::replace(&mut self.link.max_read, spare);
            let read = poll_fn(|cx| self.poll_read(cx, &mut buf)).await;
            self.link.max_read = max_read;
            match read {
                Ok(0) => break,
                Ok(_) => all.extend_from_slice(&buf),
                Err(error) => panic!("read: {error}"),
            }
        }
        all.freeze()
    }

    /// Reads up to the peer's FIN.
    pub async fn read_to_end(&mut self) -> Bytes {
        let mut all = BytesMut::new();
        loop {
            let some = self.read_some().await;
            if some.is_empty() {
                return all.freeze();
            }
            all.extend_from_slice(&some);
        }
    }

    /// What can be read now, without waiting.
    pub fn read_available(&mut self) -> Bytes {
        let mut all = BytesMut::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut buf = BytesMut::with_capacity(64 * 1024);
            match self.poll_read(&mut cx, &mut buf) {
                Poll::Ready(Ok(1..)) => all.extend_from_slice(&buf),
                _ => return all.freeze(),
            }
        }
    }

    /// Sends FIN.
    pub async fn shutdown(&mut self) {
        if let Err(error) = poll_fn(|cx| self.poll_shutdown(cx)).await {
            panic!("shutdown: {error}");
        }
    }

    /// Closes by RST.
    pub fn reset(mut self) {
        self.abort_on_drop();
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = {
            let mut pipe = self.incoming.borrow_mut();
            match pipe.due() {
                None => {
                    pipe.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Some(due) => due,
            }
        };
        if due <= Instant::now() {
            self.delay = None;
            return Poll::Ready(());
        }
        let delay = self.delay.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // An RST cuts the delay short.
        self.incoming.borrow_mut().reader = Some(cx.waker().clone());
        ready!(delay.as_mut().poll(cx));
        self.delay = None;
        Poll::Ready(())
    }
}

impl Io for MemIo {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        ready!(self.poll_due(cx));
        let mut pipe = self.incoming.borrow_mut();
        self.calls.borrow_mut().reads += 1;
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        assert!(buf.capacity() > buf.len(), "a read needs room");
        let room = (buf.capacity() - buf.len()).min(self.link.max_read);
        let mut read = 0;
        while let Some((due, segment)) = pipe.segments.front_mut() {
            if *due > Instant::now() || read == room {
                break;
            }
            let take = segment.len().min(room - read);
            buf.put_slice(&segment.split_to(take));
            read += take;
            if segment.is_empty() {
                pipe.segments.pop_front();
            }
        }
        pipe.len -= read;
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(read))
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_due(cx).map(Ok)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut pipe = self.outgoing.borrow_mut();
        if pipe.unread || pipe.fin.is_some() || self.incoming.borrow().broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.link.window.saturating_sub(pipe.len).min(self.link.max_write);
        let mut segment = BytesMut::new();
        for buf in bufs {
            let take = buf.len().min(room - segment.len());
            segment.extend_from_slice(buf.split_at(take).0);
        }
        if segment.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.calls.borrow_mut().writes += 1;
        let written = segment.len();
        pipe.len += written;
        pipe.segments.push_back((Instant::now() + self.link.latency, segment.freeze()));
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.outgoing.borrow_mut();
        pipe.fin.get_or_insert_with(|| Instant::now() + self.link.latency);
        pipe.wake();
        Poll::Ready(Ok(()))
    }

    fn abort_on_drop(&mut self) {
        self.close = Close::Rst;
    }

    fn peek(&mut self) -> Option<&mut dyn Peek> {
        Some(self)
    }

    fn local_address(&self) -> Option<Address> {
        None
    }

    fn peer_address(&self) -> Option<Address> {
        None
    }
}

/// Every byte that has been sent is seen, whatever the latency and the size of reads.
impl Peek for MemIo {
    fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        seen: usize,
        most: usize,
    ) -> Poll<io::Result<Peeked>> {
        let mut pipe = self.incoming.borrow_mut();
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        buf.clear();
        for (_, segment) in &pipe.segments {
            buf.extend_from_slice(&segment[..segment.len().min(most - buf.len())]);
        }
        if buf.len() > seen {
            return Poll::Ready(Ok(Peeked::More));
        }
        if pipe.fin.is_some() {
            return Poll::Ready(Ok(Peeked::End));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn discard(&mut self, count: usize) -> io::Result<()> {
        let mut buf = BytesMut::with_capacity(count);
        let mut pipe = self.incoming.borrow_mut();
        while buf.len() < count {
            let Some((_, segment)) = pipe.segments.front_mut() else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let take = segment.len().min(count - buf.len());
            buf.put_slice(&segment.split_to(take));
            if segment.is_empty() {
                pipe.segments.pop_front();
            }
        }
        pipe.len -= count;
        Ok(())
    }

    fn give_up(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for MemIo {
    fn drop(&mut self) {
        let mut outgoing = self.outgoing.borrow_mut();
        // `Instant::now` needs no runtime, so that ends may be dropped outside of one.
        outgoing.fin.get_or_insert_with(|| Instant::now() + self.link.latency);
        outgoing.broken = self.close == Close::Rst;
        outgoing.wake();
        let mut incoming = self.incoming.borrow_mut();
        incoming.unread = true;
        incoming.wake();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_in_order_after_the_latency_and_then_the_fin() {
        let link = Link { latency: Duration::from_secs(5), max_read: 2, ..Link::default() };
        let (mut near, mut far) = pair_over(link);
        let start = Instant::now();
        near.write_all(b"abc").await;
        near.shutdown().await;
        assert_eq!(far.read_some().await, "ab");
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert_eq!(far.read_to_end().await, "c");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_window_stops_the_writer_until_it_is_read() {
        let (mut near, mut far) = pair_over(Link { window: 4, ..Link::default() });
        let write = near.write_all(b"0123456789");
        let read = far.read_exact(10);
        let ((), read) = tokio::join!(write, read);
        assert_eq!(read, "0123456789");
        assert_eq!(near.calls().borrow().writes, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_is_an_error_at_the_other_end() {
        let (near, mut far) = pair();
        near.reset();
        assert_eq!(far.try_read().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

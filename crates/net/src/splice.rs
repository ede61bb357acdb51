//! Bytes from one TCP socket to another without a copy to user space: splice(2) by way of a pipe.
//!
//! A [`Pipe`] belongs to the worker that made it; dropped empty, it waits for the next taker. When to splice
//! and when to copy is the caller's choice: a small message is cheaper by one read and one write.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that a pipe holds at most. 256 KiB takes what a socket has gathered in one call; the kernel's default
/// of 64 KiB costs twice the calls.
const CAPACITY: usize = 256 * 1024;

/// Pipes that a worker keeps for later: two descriptors each.
const MAX_FREE: usize = 32;

/// Pipes that a worker has at the same time. Keeps thousands of bulk sessions from taking all descriptors, and
/// the user's share of pipe pages (pipe-user-pages-soft, pipe(7)); those without one copy.
const MAX_OPEN: usize = 256;

thread_local! {
    static FREE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// Bytes on their way between two sockets, kept by the kernel.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

#[derive(Debug)]
struct Ends {
    output: OwnedFd,
    input: OwnedFd,
    capacity: usize,
}

impl Pipe {
    /// An empty pipe; `None` when this worker has as many as it may, or the system gives none.
    pub fn take() -> Option<Self> {
        let free = FREE.with_borrow_mut(Vec::pop);
        let ends = match free {
            Some(ends) => ends,
            None if OPEN.get() >= MAX_OPEN => return None,
            None => {
                let ends = Ends::open().ok()?;
                OPEN.set(OPEN.get() + 1);
                ends
            }
        };
        Some(Self { ends: Some(ends), held: 0 })
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `limit` bytes from `from` into the pipe, which must be empty: bytes moved, 0 at the peer's
    /// end of stream.
    ///
    /// # Errors
    /// As a read; `InvalidInput` if the kernel cannot splice from this socket.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        let length = limit.clamp(1, ends.capacity);
        loop {
            ready!(from.poll_read_ready(cx))?;
            let input = ends.input.as_raw_fd();
            // An empty pipe takes bytes: would-block means that the socket has none.
            match from.try_io(Interest::READABLE, || splice(from.as_raw_fd(), input, length)) {
                Err(error) if is_retry(&error) => {}
                Ok(moved) => {
                    self.held += moved;
                    return Poll::Ready(Ok(moved));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Moves what is in the pipe on to `to`: bytes moved.
    ///
    /// # Errors
    /// As a write.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            let output = ends.output.as_raw_fd();
            match to.try_io(Interest::WRITABLE, || splice(output, to.as_raw_fd(), self.held)) {
                Err(error) if is_retry(&error) => {}
                Ok(moved) => {
                    self.held -= moved.min(self.held);
                    return Poll::Ready(Ok(moved));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        // Bytes that are left belong to nobody else. A thread that ends has no list any more.
        let kept = self.held == 0
            && FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < MAX_FREE {
                    free.push(ends);
                    return true;
                }
                false
            }) == Ok(true);
        if !kept {
            let _ = OPEN.try_with(|open| open.set(open.get().saturating_sub(1)));
        }
    }
}

impl Ends {
    #[allow(unsafe_code)]
    fn open() -> io::Result<Self> {
        let mut fds: [RawFd; 2] = [-1; 2];
        // SAFETY: `fds` has room for the two descriptors that the call writes.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so both are open descriptors that nobody else owns.
        let (output, input) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
        // SAFETY: a plain integer request on a descriptor that is open.
        let size = unsafe { libc::fcntl(input.as_raw_fd(), libc::F_SETPIPE_SZ, CAPACITY as libc::c_int) };
        // A refusal leaves the kernel's default size, which is good enough.
        let capacity = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(64 * 1024);
        Ok(Self { output, input, capacity })
    }
}

/// Moves up to `length` bytes; one of the two is a pipe.
#[allow(unsafe_code)]
fn splice(from: RawFd, to: RawFd, length: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open (their owners are borrowed by the callers); null offsets are right for
    // pipes and sockets; no memory of ours is touched.
    let moved = unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), length, flags) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_and_the_end_pass() {
        let ((mut client, inside), (outside, mut server)) = (pair().await, pair().await);
        let mut pipe = Pipe::take().unwrap();
        client.write_all(b"hello").await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &inside, 3)).await.unwrap(), 3);
        assert_eq!(pipe.held(), 3);
        assert_eq!(poll_fn(|cx| pipe.poll_drain(cx, &outside)).await.unwrap(), 3);
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &inside, 100)).await.unwrap(), 2);
        assert_eq!(poll_fn(|cx| pipe.poll_drain(cx, &outside)).await.unwrap(), 2);
        drop(client);
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &inside, 100)).await.unwrap(), 0);
        let mut got = [0; 5];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }

    #[tokio::test]
    async fn an_empty_pipe_is_used_again_and_a_full_one_is_not() {
        let (mut client, inside) = pair().await;
        let first = Pipe::take().unwrap();
        let fd = first.ends.as_ref().unwrap().input.as_raw_fd();
        drop(first);
        let mut second = Pipe::take().unwrap();
        assert_eq!(second.ends.as_ref().unwrap().input.as_raw_fd(), fd);
        client.write_all(b"x").await.unwrap();
        poll_fn(|cx| second.poll_fill(cx, &inside, 1)).await.unwrap();
        drop(second);
        assert!(FREE.with_borrow(Vec::is_empty));
        assert_eq!(OPEN.get(), 0);
    }
}

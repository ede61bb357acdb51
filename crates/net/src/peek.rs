//! Looking at a connection's first bytes without taking them: what listener filters need. The socket stays as it
//! is, so that whoever gets it afterwards may read, splice or hand it to TLS as if nobody had looked.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::Interest;

/// A connection whose bytes can be looked at.
pub trait Peek {
    /// Puts the bytes that have arrived into `buf`, which is emptied first, once there are more than `seen`, at
    /// most `most`. Costs no memory before bytes arrive. Do not ask with `seen` at `most`.
    ///
    /// # Errors
    /// The connection broke.
    fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        seen: usize,
        most: usize,
    ) -> Poll<io::Result<Peeked>>;

    /// Takes the first `count` of the bytes that were last looked at away.
    ///
    /// # Errors
    /// The connection broke.
    fn discard(&mut self, count: usize) -> io::Result<()>;

    /// To be called when nobody waits any longer for a [`Peek::poll_peek`] that was pending: the next reader must
    /// not wait for more bytes while there are some.
    ///
    /// # Errors
    /// The descriptor could not be registered anew.
    fn give_up(&mut self) -> io::Result<()>;
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// More bytes than were seen before.
    More,
    /// There will be no more: the peer ended its direction.
    End,
}

/// The loop over a tokio socket; both kinds have the same methods and no trait for them.
macro_rules! peek_socket {
    ($socket:ty, $std:ty) => {
        impl Peek for crate::io::StreamIo<$socket> {
            fn poll_peek(
                &mut self,
                cx: &mut Context<'_>,
                buf: &mut BytesMut,
                seen: usize,
                most: usize,
            ) -> Poll<io::Result<Peeked>> {
                loop {
                    ready!(self.0.poll_read_ready(cx))?;
                    buf.clear();
                    // Room for more than was seen, so that a full buffer is not taken for silence.
                    buf.reserve(most.min((2 * seen).max(FIRST_LOOK)));
                    // Nothing new is reported as `WouldBlock`, which makes tokio wait for the next event: a peek
                    // always succeeds while there are bytes, and waiting for readability alone would spin.
                    let peeked = self.0.try_io(Interest::READABLE, || match peek(&self.0, buf, most)? {
                        0 => Ok(Peeked::End),
                        _ if buf.len() > seen => Ok(Peeked::More),
                        _ => Err(io::ErrorKind::WouldBlock.into()),
                    });
                    match peeked {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            if seen == 0 {
                                // tokio takes a new socket for readable until it has tried.
                                *buf = BytesMut::new();
                            }
                            // A FIN behind bytes that were seen makes the socket readable for ever.
                            let mut state = std::pin::pin!(self.0.ready(Interest::READABLE));
                            let mut now = Context::from_waker(std::task::Waker::noop());
                            if let Poll::Ready(Ok(ready)) = state.as_mut().poll(&mut now)
                                && ready.is_read_closed()
                            {
                                return Poll::Ready(Ok(Peeked::End));
                            }
                        }
                        done => return Poll::Ready(done),
                    }
                }
            }

            fn discard(&mut self, count: usize) -> io::Result<()> {
                discard(&self.0, count)
            }

            fn give_up(&mut self) -> io::Result<()> {
                // Registering a descriptor reports what it is ready for now; tokio has no other way to ask.
                let again: OwnedFd = self.0.as_fd().try_clone_to_owned()?;
                self.0 = <$socket>::from_std(<$std>::from(again))?;
                Ok(())
            }
        }
    };
}

peek_socket!(tokio::net::TcpStream, std::net::TcpStream);
peek_socket!(tokio::net::UnixStream, std::os::unix::net::UnixStream);

/// Peeks into the spare capacity of `buf`, at most up to `most`: bytes seen.
#[allow(unsafe_code)]
fn peek<'a, S>(socket: &'a S, buf: &mut BytesMut, most: usize) -> io::Result<usize>
where
    SockRef<'a>: From<&'a S>,
{
    buf.clear();
    let spare = buf.spare_capacity_mut();
    let room = spare.len().min(most);
    let peeked = SockRef::from(socket).peek(&mut spare[..room])?;
    // SAFETY: `peek` has written that many bytes to the beginning of the spare capacity of the empty `buf`.
    unsafe { buf.set_len(peeked) };
    Ok(peeked)
}

fn discard<'a, S>(socket: &'a S, count: usize) -> io::Result<()>
where
    SockRef<'a>: From<&'a S>,
{
    let socket = SockRef::from(socket);
    let mut buf = vec![MaybeUninit::uninit(); count];
    let mut left = count;
    while left > 0 {
        match socket.recv(&mut buf[..left])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => left -= taken.min(left),
        }
    }
    Ok(())
}

/// Enough for most ClientHellos, also those with a post-quantum key share.
const FIRST_LOOK: usize = 2048;

#[cfg(test)]
mod tests;

//! A connection that nothing can be done with.

use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tidegate_net::Io;
use tidegate_types::Address;

/// Fails at everything but closing.
pub(super) struct Refused;

impl Io for Refused {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut BytesMut) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(ErrorKind::ConnectionAborted.into()))
    }

    fn poll_read_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(ErrorKind::ConnectionAborted.into()))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(ErrorKind::ConnectionAborted.into()))
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

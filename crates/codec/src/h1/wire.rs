//! A connection's bytes in both directions: the read buffer with its growth, the output, the counters.
//!
//! Knows nothing of HTTP beyond handing bytes to a body decoder.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tidegate_net::BoxIo;
use tidegate_types::CloseReason;

use super::body::Decoder;
use super::buffers;
use super::output::Output;
use super::rules::Violation;
use crate::stream::{BodyFrame, StreamError};

/// An [`Io`](tidegate_net::Io) with its buffers.
pub(crate) struct Wire {
    pub(crate) io: BoxIo,
    pub(crate) input: BytesMut,
    pub(crate) output: Output,
    /// Bytes read, ever.
    pub(crate) rx: u64,
    /// Bytes written, ever.
    pub(crate) tx: u64,
    /// The peer's FIN was read.
    pub(crate) eof: bool,
    /// A read or write failed, in this way.
    broken: Option<CloseReason>,
    fill: Fill,
    /// Bytes that one read may take.
    limit: usize,
}

/// How the last read went, which sizes the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    Partial,
    Whole,
}

impl Wire {
    pub(crate) fn new(io: BoxIo, buffer_limit: usize) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            output: Output::default(),
            rx: 0,
            tx: 0,
            eof: false,
            broken: None,
            fill: Fill::Partial,
            limit: buffer_limit.max(MIN_SPARE),
        }
    }

    /// Reads once behind what `input` holds: bytes read, 0 at the end. Waits without a buffer if it held
    /// none.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.input.capacity() == 0
            && let Err(error) = ready!(self.io.poll_read_ready(cx))
        {
            return Poll::Ready(Err(self.note(error)));
        }
        // A read that filled its buffer promises more: larger reads save system calls. Otherwise the
        // rest of the old block is used up first, so that a trickle cannot pin a block a byte.
        let (enough, block) = match self.fill {
            Fill::Whole => (LARGE_READ / 2, LARGE_READ),
            Fill::Partial => (MIN_SPARE, SMALL_READ),
        };
        if self.input.capacity() == 0 && self.fill == Fill::Partial && block <= self.limit {
            self.input = buffers::take_input(block);
        }
        if self.input.capacity() - self.input.len() < enough.min(self.limit) {
            self.input.reserve(block.min(self.limit));
        }
        let spare = self.input.capacity() - self.input.len();
        let read = match ready!(self.io.poll_read(cx, &mut self.input)) {
            Ok(read) => read,
            Err(error) => return Poll::Ready(Err(self.note(error))),
        };
        self.eof = read == 0;
        self.rx += read as u64;
        self.fill = if read == spare { Fill::Whole } else { Fill::Partial };
        Poll::Ready(Ok(read))
    }

    /// Reads the next frame of a body.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
    ) -> Poll<Result<BodyFrame, StreamError>> {
        loop {
            if let Some(frame) = decoder.decode(&mut self.input).map_err(protocol_error)? {
                return Poll::Ready(Ok(frame));
            }
            let filled = self.poll_fill(cx);
            if filled.is_pending() && decoder.is_tunnel() {
                // A tunnel may be silent for hours.
                self.release_input();
            }
            if ready!(filled)? == 0 {
                return Poll::Ready(decoder.at_eof());
            }
        }
    }

    /// Writes until nothing is left.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.output.gather(&mut slices);
            let written = match ready!(self.io.poll_write(cx, slices.get(..count).unwrap_or_default())) {
                Ok(written) => written,
                Err(error) => return Poll::Ready(Err(self.note(error))),
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.tx += written as u64;
            self.output.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// How the peer ended the connection, once that was seen.
    pub(crate) fn ended(&self) -> Option<CloseReason> {
        self.broken.or(self.eof.then_some(CloseReason::PeerFin))
    }

    #[cold]
    fn note(&mut self, error: io::Error) -> io::Error {
        self.broken.get_or_insert(CloseReason::of_io(&error));
        error
    }

    /// Gives the read buffer back if nothing is in it.
    pub(crate) fn release_input(&mut self) {
        if self.input.is_empty() {
            buffers::give_input(std::mem::take(&mut self.input));
            self.fill = Fill::Partial;
        }
    }
}

pub(crate) fn protocol_error(violation: Violation) -> StreamError {
    StreamError::Protocol { details: violation.details() }
}

/// A first read: a head and a small body.
const SMALL_READ: usize = 8 * 1024;

/// A read of a body that flows: 8 times fewer system calls than with the small one.
const LARGE_READ: usize = 64 * 1024;

/// With less room than this a new block is taken.
const MIN_SPARE: usize = 1024;

/// Elements of one `writev`.
const MAX_SLICES: usize = 16;

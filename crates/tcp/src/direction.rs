//! One direction of a session: bytes from one side to the other, then the end.
//!
//! Small messages are copied, one read and one write each, through a buffer that is taken when bytes are there
//! and given back when they are gone. A direction that keeps filling it, between two plain TCP sockets, goes on
//! by splice until it gets quiet. Nothing is read that could not be written on: that is the backpressure.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tidegate_net::{Io, Pipe};

use crate::buffers;

/// One direction.
#[derive(Debug)]
pub(crate) struct Direction {
    state: State,
    /// Bytes taken from the sender.
    pub(crate) read: u64,
    /// Bytes given to the receiver.
    pub(crate) written: u64,
    /// Times that reading stopped because the receiver was slow.
    pub(crate) pauses: u64,
    /// Times that it went on.
    pub(crate) resumes: u64,
    /// How often in a row the last rounds spoke for the other way to move bytes.
    votes: u8,
    paused: bool,
}

#[derive(Debug)]
enum State {
    /// Bytes from `sent` on are still to be written.
    Copying {
        buffer: Option<BytesMut>,
        sent: usize,
    },
    /// Without a pipe while nothing is under way.
    Splicing(Option<Pipe>),
    /// Everything is written on; the end is next.
    Ending,
    Ended,
}

/// Which side broke, and how.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The sender.
    Reading(io::Error),
    /// The receiver.
    Writing(io::Error),
}

/// What one round came to.
enum Round {
    Again,
    Waiting,
}

/// Rounds in one poll: 16 of a full pipe are 4 MiB, about a millisecond. Other sessions get their turn then.
const ROUNDS: usize = 16;

/// Full buffers in a row that make a direction bulk: what fills fewer is cheaper copied than a pipe is set up.
const BULK: u8 = 3;

/// Small splices in a row after which it is none any more.
const QUIET: u8 = 4;

impl Direction {
    /// A direction whose sender has sent `early` already.
    pub(crate) fn new(early: BytesMut) -> Self {
        let read = early.len() as u64;
        let buffer = Some(early).filter(|early| !early.is_empty());
        let state = State::Copying { buffer, sent: 0 };
        Self { state, read, written: 0, pauses: 0, resumes: 0, votes: 0, paused: false }
    }

    /// Whether the sender's end has been passed on.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether bytes are in our hands.
    pub(crate) fn holds_bytes(&self) -> bool {
        match &self.state {
            State::Copying { buffer, .. } => buffer.is_some(),
            State::Splicing(pipe) => pipe.as_ref().is_some_and(|pipe| pipe.held() > 0),
            State::Ending => true,
            State::Ended => false,
        }
    }

    /// Moves what can be moved; `limit` is what may be in our hands. Afterwards the task is woken when more can.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn Io,
        to: &mut dyn Io,
        limit: usize,
    ) -> Result<(), Fault> {
        for _ in 0..ROUNDS {
            let round = match &self.state {
                State::Copying { .. } => self.copy(cx, from, to, limit)?,
                State::Splicing(_) => self.splice(cx, from, to, limit)?,
                State::Ending => match to.poll_shutdown(cx) {
                    Poll::Pending => Round::Waiting,
                    // A receiver that is gone shows when it is read from.
                    Poll::Ready(_) => {
                        self.state = State::Ended;
                        Round::Waiting
                    }
                },
                State::Ended => Round::Waiting,
            };
            if let Round::Waiting = round {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn Io,
        to: &mut dyn Io,
        limit: usize,
    ) -> Result<Round, Fault> {
        let State::Copying { buffer, sent } = &mut self.state else { return Ok(Round::Again) };
        if buffer.is_none() {
            match from.poll_read_ready(cx) {
                Poll::Pending => return Ok(Round::Waiting),
                Poll::Ready(ready) => ready.map_err(Fault::Reading)?,
            }
            let mut empty = buffers::take(limit);
            match from.poll_read(cx, &mut empty) {
                Poll::Pending => {
                    buffers::give(empty);
                    return Ok(Round::Waiting);
                }
                Poll::Ready(Err(error)) => {
                    buffers::give(empty);
                    return Err(Fault::Reading(error));
                }
                Poll::Ready(Ok(0)) => {
                    buffers::give(empty);
                    self.state = State::Ending;
                    return Ok(Round::Again);
                }
                Poll::Ready(Ok(read)) => {
                    self.read += read as u64;
                    // A full one says that there is more.
                    self.votes = if empty.len() >= buffers::SIZE { self.votes.saturating_add(1) } else { 0 };
                    (*buffer, *sent) = (Some(empty), 0);
                }
            }
        }
        let Some(bytes) = buffer else { return Ok(Round::Again) };
        while *sent < bytes.len() {
            match to.poll_write(cx, &[IoSlice::new(&bytes[*sent..])]) {
                Poll::Pending => return Ok(self.pause()),
                Poll::Ready(Err(error)) => return Err(Fault::Writing(error)),
                Poll::Ready(Ok(0)) => return Err(Fault::Writing(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    *sent += written;
                    self.written += written as u64;
                }
            }
        }
        if let Some(bytes) = buffer.take() {
            buffers::give(bytes);
        }
        self.resume();
        if self.votes >= BULK {
            self.votes = 0;
            if from.plain_tcp().is_some() && to.plain_tcp().is_some() {
                self.state = State::Splicing(None);
            }
        }
        Ok(Round::Again)
    }

    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn Io,
        to: &mut dyn Io,
        limit: usize,
    ) -> Result<Round, Fault> {
        let State::Splicing(pipe) = &mut self.state else { return Ok(Round::Again) };
        let (Some(from), Some(to)) = (from.plain_tcp(), to.plain_tcp()) else {
            return Ok(self.go_copying());
        };
        if pipe.is_none() {
            match from.poll_read_ready(cx) {
                Poll::Pending => return Ok(Round::Waiting),
                Poll::Ready(ready) => ready.map_err(Fault::Reading)?,
            }
            *pipe = Pipe::take();
        }
        let Some(bytes) = pipe else { return Ok(self.go_copying()) };
        if bytes.held() == 0 {
            match bytes.poll_fill(cx, from, limit) {
                Poll::Pending => {
                    // An idle session holds no pipe either.
                    *pipe = None;
                    return Ok(Round::Waiting);
                }
                // Not a socket that can be spliced from.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Ok(self.go_copying());
                }
                Poll::Ready(Err(error)) => return Err(Fault::Reading(error)),
                Poll::Ready(Ok(0)) => {
                    self.state = State::Ending;
                    return Ok(Round::Again);
                }
                Poll::Ready(Ok(moved)) => {
                    self.read += moved as u64;
                    self.votes = if moved < buffers::SIZE { self.votes.saturating_add(1) } else { 0 };
                }
            }
        }
        while bytes.held() > 0 {
            match bytes.poll_drain(cx, to) {
                Poll::Pending => return Ok(self.pause()),
                Poll::Ready(Err(error)) => return Err(Fault::Writing(error)),
                Poll::Ready(Ok(moved)) => self.written += moved as u64,
            }
        }
        self.resume();
        if self.votes >= QUIET { Ok(self.go_copying()) } else { Ok(Round::Again) }
    }

    fn go_copying(&mut self) -> Round {
        self.votes = 0;
        self.state = State::Copying { buffer: None, sent: 0 };
        Round::Again
    }

    fn pause(&mut self) -> Round {
        if !self.paused {
            self.paused = true;
            self.pauses += 1;
        }
        Round::Waiting
    }

    fn resume(&mut self) {
        if self.paused {
            self.paused = false;
            self.resumes += 1;
        }
    }
}

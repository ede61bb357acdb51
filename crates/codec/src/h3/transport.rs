//! What the engine needs of a QUIC connection. [`tidegate_quic::Conn`] is the one there is; tests have another, whose
//! peer is a script.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use tidegate_quic::{CloseCode, Conn, Dir, EarlyData, Event, ReadError, StreamId, VarInt, WriteError};

use crate::multiplex::Traffic;

/// See [`Conn`], method by method.
pub(crate) trait Transport {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event>;
    fn open(&mut self, dir: Dir) -> Option<StreamId>;
    fn accept(&mut self, dir: Dir) -> Option<StreamId>;
    /// With 0 bytes: looks for the end or a reset, and takes nothing that is before it.
    fn read(&mut self, id: StreamId, max: usize) -> Result<Option<Bytes>, ReadError>;
    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> Result<usize, WriteError>;
    fn finish(&mut self, id: StreamId);
    fn reset(&mut self, id: StreamId, code: VarInt);
    fn stop(&mut self, id: StreamId, code: VarInt);
    /// Sends what was written, for a close that follows: it takes along what was not sent.
    fn flush(&mut self);
    fn close(&mut self, code: CloseCode, reason: Bytes);
    fn is_handshaking(&self) -> bool;
    fn is_early(&self, id: StreamId) -> bool;
    fn early_data(&self) -> EarlyData;
    fn traffic(&self) -> Traffic;
    fn local_address(&self) -> SocketAddr;
    fn remote_address(&self) -> SocketAddr;
}

impl Transport for Conn {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        Self::poll_event(self, cx)
    }

    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        Self::open(self, dir)
    }

    fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        Self::accept(self, dir)
    }

    fn read(&mut self, id: StreamId, max: usize) -> Result<Option<Bytes>, ReadError> {
        Self::read(self, id, max)
    }

    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        Self::write(self, id, chunks)
    }

    fn finish(&mut self, id: StreamId) {
        Self::finish(self, id);
    }

    fn reset(&mut self, id: StreamId, code: VarInt) {
        Self::reset(self, id, code);
    }

    fn stop(&mut self, id: StreamId, code: VarInt) {
        Self::stop(self, id, code);
    }

    fn flush(&mut self) {
        Self::flush(self);
    }

    fn close(&mut self, code: CloseCode, reason: Bytes) {
        Self::close(self, code, reason);
    }

    fn is_handshaking(&self) -> bool {
        Self::is_handshaking(self)
    }

    fn is_early(&self, id: StreamId) -> bool {
        Self::is_early(self, id)
    }

    fn early_data(&self) -> EarlyData {
        Self::early_data(self)
    }

    fn traffic(&self) -> Traffic {
        let (rx, tx) = Self::traffic(self);
        Traffic { rx, tx }
    }

    fn local_address(&self) -> SocketAddr {
        Self::local_address(self)
    }

    fn remote_address(&self) -> SocketAddr {
        Self::remote_address(self)
    }
}

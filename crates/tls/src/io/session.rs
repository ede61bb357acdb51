//! One rustls connection of either role, driven a turn at a time. Does no I/O.
//!
//! rustls's unbuffered connections are used: they work on our blocks, so that a connection that waits for
//! its peer holds no buffer at all, and a large record takes one `recv`.

use bytes::BytesMut;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadTraffic, UnbufferedStatus,
};
use rustls::{CommonState, Error, ProtocolVersion};

use super::outgoing::{Outgoing, Short};
use super::received::Received;

/// A rustls connection.
pub(crate) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a turn is taken for.
pub(crate) enum Task<'a> {
    /// To learn whether there is plaintext.
    Wait,
    /// To move plaintext into the buffer's spare capacity, and what does not fit into the stash.
    Receive(&'a mut BytesMut, &'a mut BytesMut),
    /// To encrypt this (at most [`MAX_FRAGMENT`] bytes); plaintext that turns up goes into the stash.
    Send(&'a [u8], &'a mut BytesMut),
    /// To say `close_notify`; likewise.
    Farewell(&'a mut BytesMut),
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// With progress: take another.
    Again,
    /// There is plaintext, or was and was moved.
    Plaintext,
    /// Only bytes from the peer lead on.
    Blocked,
    /// What was to be sent is among the outgoing bytes.
    Sent,
    /// The peer said `close_notify`.
    PeerClosed,
    /// Both sides did.
    Closed,
}

/// The most plaintext that a record carries (RFC 8446 §5.1).
pub(crate) const MAX_FRAGMENT: usize = 16 * 1024;

impl Session {
    pub(crate) fn common(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }

    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Whether what it says now, unasked, are session tickets, which may wait.
    pub(crate) fn says_tickets(&self) -> bool {
        self.is_server()
            && !self.common().is_handshaking()
            && self.common().protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    pub(crate) fn turn(
        &mut self,
        received: &mut Received,
        outgoing: &mut Outgoing,
        task: Task<'_>,
    ) -> Result<Turn, Error> {
        let (discard, result) = match self {
            Self::Client(connection) => act(connection.process_tls_records(received.bytes()), outgoing, task),
            Self::Server(connection) => act(connection.process_tls_records(received.bytes()), outgoing, task),
        };
        received.discard(discard);
        result
    }

    /// Moves what rustls wants to say, without processing anything more: its alert after an error.
    pub(crate) fn last_words(&mut self, received: &mut Received, outgoing: &mut Outgoing) {
        while self.common().wants_write() {
            if self.turn(received, outgoing, Task::Wait) != Ok(Turn::Again) {
                return;
            }
        }
    }
}

fn act<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Outgoing,
    task: Task<'_>,
) -> (usize, Result<Turn, Error>) {
    let turn = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(traffic)) => Ok(read(traffic, task)),
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing).map(|()| Turn::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Turn::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match task {
            Task::Wait | Task::Receive(..) => Ok(Turn::Blocked),
            Task::Send(plain, _) => outgoing
                .append(plain.len() + OVERHEAD, |room| short(traffic.encrypt(plain, room)))
                .map(|()| Turn::Sent),
            Task::Farewell(_) => {
                outgoing.append(OVERHEAD, |room| short(traffic.queue_close_notify(room))).map(|()| Turn::Sent)
            }
        },
        Ok(ConnectionState::PeerClosed) => Ok(Turn::PeerClosed),
        Ok(ConnectionState::Closed) => Ok(Turn::Closed),
        // Early data is never offered nor accepted.
        Ok(_) => Ok(Turn::Blocked),
    };
    (status.discard, turn)
}

fn read<Data>(mut traffic: ReadTraffic<'_, '_, Data>, task: Task<'_>) -> Turn {
    match task {
        Task::Wait => Turn::Plaintext,
        Task::Receive(into, stash) => {
            while stash.is_empty() && into.len() < into.capacity() {
                let Some(Ok(record)) = traffic.next_record() else { break };
                let fits = record.payload.len().min(into.capacity() - into.len());
                let (now, later) = record.payload.split_at(fits);
                into.extend_from_slice(now);
                stash.extend_from_slice(later);
            }
            Turn::Plaintext
        }
        Task::Send(_, stash) | Task::Farewell(stash) => {
            while let Some(Ok(record)) = traffic.next_record() {
                stash.extend_from_slice(record.payload);
            }
            Turn::Again
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Outgoing) -> Result<(), Error> {
    outgoing.append(0, |room| match data.encode(room) {
        Ok(used) => Ok(used),
        Err(EncodeError::InsufficientSize(short)) => Err(Short::Needs(short.required_size)),
        Err(EncodeError::AlreadyEncoded) => Ok(0),
    })
}

fn short(result: Result<usize, EncryptError>) -> Result<usize, Short<Error>> {
    result.map_err(|error| match error {
        EncryptError::InsufficientSize(short) => Short::Needs(short.required_size),
        EncryptError::EncryptExhausted => Short::Failed(Error::EncryptError),
    })
}

/// What a record adds to its plaintext at most: header, explicit nonce (TLS 1.2), type, tag.
const OVERHEAD: usize = 5 + 8 + 1 + 16;

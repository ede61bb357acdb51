//! How a connection ends: by us with a [`CloseCode`], or for a [`Loss`].

use quinn_proto::{ConnectionError, VarInt};

/// What a `CONNECTION_CLOSE` says (RFC 9000 section 19.19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// The application's frame (type 0x1d) with a code of its protocol.
    Application(VarInt),
    /// The transport's frame (type 0x1c) with `NO_ERROR`: the connection ends without anything being wrong.
    NoError,
}

/// Why a connection is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The protocol: the peer closed, a timeout, a violation.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The system took no packet of a client, mostly `ECONNREFUSED`: an ICMP message said that nobody listens.
    #[error("Write failed with error: {errno} ({})", describe(*errno))]
    Socket {
        /// The system's number.
        errno: i32,
    },
}

/// The system's words without the number that std appends.
fn describe(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

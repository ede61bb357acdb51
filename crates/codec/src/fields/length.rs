//! `content-length` against what comes (RFC 9113 §8.1.1).

use tidegate_types::EndStream;

/// Bytes of DATA that a message still owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentLength {
    /// Nothing was announced, or a tunnel's: any number.
    Any,
    /// No more and no less.
    Remaining(u64),
}

/// The body is not as long as announced, which ends the stream with PROTOCOL_ERROR, never the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("body does not match content-length")]
pub(crate) struct LengthMismatch;

impl ContentLength {
    /// Takes the payload of a DATA frame without its padding; with 0 bytes, the trailers or a head that end the
    /// message.
    pub(crate) fn take(&mut self, bytes: usize, end: EndStream) -> Result<(), LengthMismatch> {
        let Self::Remaining(remaining) = self else {
            return Ok(());
        };
        *remaining = remaining.checked_sub(bytes as u64).ok_or(LengthMismatch)?;
        if end.is_end() && *remaining > 0 { Err(LengthMismatch) } else { Ok(()) }
    }
}

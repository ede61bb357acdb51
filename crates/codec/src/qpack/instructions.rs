//! The peer's encoder and decoder streams (RFC 9204 §4.3, §4.4), which have next to nothing to say: there is no
//! dynamic table in either direction.

use crate::hpack::{self, integer};

/// An instruction that cannot be followed, which ends the connection with QPACK_ENCODER_STREAM_ERROR or
/// QPACK_DECODER_STREAM_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A capacity over ours, which is 0 (RFC 9204 §4.3.1).
    #[error("Encoder stream error: Error updating dynamic table capacity.")]
    Capacity,
    /// An entry for a table that has no room for any (RFC 9204 §3.2.2).
    #[error("Encoder stream error: Error inserting entry.")]
    Insert,
    /// RFC 9204 §4.4.1.
    #[error("Decoder stream error: Header Acknowledgement received with no outstanding header blocks.")]
    Acknowledgement,
    /// RFC 9204 §4.4.3.
    #[error("Decoder stream error: Invalid increment value 0.")]
    NoIncrement,
    /// RFC 9204 §4.4.3.
    #[error(
        "Decoder stream error: Increment value raises known received count to exceed inserted entry count 0."
    )]
    Increment,
    #[error("Encoded integer too large.")]
    Integer,
}

/// An instruction that has not come to its end; none that is legal is longer.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    bytes: [u8; MAX_INSTRUCTION],
    len: usize,
}

impl Partial {
    /// Takes bytes of the peer's encoder stream.
    pub(crate) fn encoder(&mut self, input: &[u8]) -> Result<(), Error> {
        self.take(
            input,
            |first| match first & 0xe0 {
                0x20 => Ok(5),
                _ => Err(Error::Insert),
            },
            |_, value| if value == 0 { Ok(()) } else { Err(Error::Capacity) },
        )
    }

    /// Takes bytes of the peer's decoder stream.
    pub(crate) fn decoder(&mut self, input: &[u8]) -> Result<(), Error> {
        self.take(
            input,
            |first| match first & 0xc0 {
                0x00 | 0x40 => Ok(6),
                _ => Err(Error::Acknowledgement),
            },
            |first, value| match (first & 0x40 != 0, value) {
                // A stream was cancelled: nothing of ours depended on it (RFC 9204 §4.4.2).
                (true, _) => Ok(()),
                (false, 0) => Err(Error::NoIncrement),
                (false, _) => Err(Error::Increment),
            },
        )
    }

    fn take(
        &mut self,
        mut input: &[u8],
        prefix: impl Fn(u8) -> Result<u32, Error>,
        apply: impl Fn(u8, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while let Some((&byte, rest)) = input.split_first() {
            input = rest;
            // Never fails: an integer this long was refused.
            let Some(place) = self.bytes.get_mut(self.len) else { return Err(Error::Integer) };
            *place = byte;
            self.len += 1;
            let mut whole = self.bytes.get(..self.len).unwrap_or_default();
            let first = self.bytes.first().copied().unwrap_or_default();
            match integer::decode(&mut whole, prefix(first)?) {
                Ok(value) => {
                    self.len = 0;
                    apply(first, value)?;
                }
                Err(hpack::Error::Truncated) => {}
                Err(_) => return Err(Error::Integer),
            }
        }
        Ok(())
    }
}

/// A prefix, and an integer of 32 bits.
const MAX_INSTRUCTION: usize = 8;

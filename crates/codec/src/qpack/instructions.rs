//! The peer's decoder stream (RFC 9204 §4.4), which has next to nothing to say: our sections use no dynamic table.

use crate::hpack::{self, integer};

/// An instruction that cannot be followed, which ends the connection with QPACK_DECODER_STREAM_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// RFC 9204 §4.4.1.
    #[error(
        "Decoder stream error: Header Acknowledgement received for stream {0} with no outstanding header blocks."
    )]
    Acknowledgement(usize),
    /// RFC 9204 §4.4.3.
    #[error("Decoder stream error: Invalid increment value 0.")]
    NoIncrement,
    /// RFC 9204 §4.4.3.
    #[error(
        "Decoder stream error: Increment value {0} raises known received count to {0} exceeding inserted entry count 0"
    )]
    Increment(usize),
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
    /// Takes bytes of the peer's decoder stream.
    pub(crate) fn decoder(&mut self, input: &[u8]) -> Result<(), Error> {
        self.take(
            input,
            |first| if first & 0x80 != 0 { 7 } else { 6 },
            |first, value| match (first & 0xc0, value) {
                // A stream was cancelled: nothing of ours depended on it (RFC 9204 §4.4.2).
                (0x40, _) => Ok(()),
                (0, 0) => Err(Error::NoIncrement),
                (0, _) => Err(Error::Increment(value)),
                _ => Err(Error::Acknowledgement(value)),
            },
        )
    }

    fn take(
        &mut self,
        mut input: &[u8],
        prefix: impl Fn(u8) -> u32,
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
            match integer::decode(&mut whole, prefix(first)) {
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

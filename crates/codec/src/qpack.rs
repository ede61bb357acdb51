//! QPACK (RFC 9204): field sections to fields and back, for HTTP/3.
//!
//! Sans-IO and made for one worker's thread. Integers, Huffman codes and names are [`crate::hpack`]'s. Peers may use a
//! dynamic table, which takes memory with its first entry; we write none. A section that cannot be read ends the
//! connection with QPACK_DECOMPRESSION_FAILED (RFC 9204 §2.2.3); what fields may say is judged by [`crate::fields`].
//! Start from [`decode`], [`DynamicTable`] and [`Encoder`]; [`instructions`] is the peer's decoder stream.

mod decode;
mod dynamic;
mod encode;
pub(crate) mod instructions;
mod table;

pub(crate) use decode::decode;
pub(crate) use dynamic::{BLOCKED_STREAMS, CAPACITY, DynamicTable, required_insertions};
pub(crate) use encode::Encoder;

/// A section that cannot be read (RFC 9204 §2.2.3, §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The section ends inside its prefix.
    #[error("Incomplete header data prefix.")]
    Prefix,
    /// The section ends inside a field.
    #[error("Incomplete header block.")]
    Truncated,
    /// An integer over 32 bits (RFC 9204 §4.1.1).
    #[error("Encoded integer too large.")]
    Integer,
    /// RFC 9204 §3.1.
    #[error("Static table entry not found.")]
    Static,
    /// A dynamic entry that is not there, or a prefix that makes no sense (RFC 9204 §4.5.1.1).
    #[error("Dynamic table entry not found.")]
    Dynamic,
    /// A code that is EOS, or padding that is not its beginning (RFC 7541 §5.2).
    #[error("Error in Huffman-encoded string.")]
    Huffman,
}

impl From<crate::hpack::Error> for Error {
    fn from(error: crate::hpack::Error) -> Self {
        match error {
            crate::hpack::Error::Truncated => Self::Truncated,
            crate::hpack::Error::Integer | crate::hpack::Error::Long => Self::Integer,
            crate::hpack::Error::Huffman => Self::Huffman,
            crate::hpack::Error::Index | crate::hpack::Error::TableSize => Self::Dynamic,
        }
    }
}

#[cfg(test)]
mod tests;

//! QPACK (RFC 9204): field sections to fields and back, for HTTP/3.
//!
//! Sans-IO and made for one worker's thread. Integers, Huffman codes and names are [`crate::hpack`]'s. Neither side
//! uses a dynamic table: we announce none, and write none, so no section waits for another stream and no memory is
//! held between sections. A section that cannot be read ends the connection with QPACK_DECOMPRESSION_FAILED (RFC
//! 9204 §2.2.3); what fields may say is judged by [`crate::fields`]. Start from [`decode`] and [`Encoder`];
//! [`instructions`] are the peer's two streams beside the sections.

mod decode;
mod encode;
pub(crate) mod instructions;
mod table;

pub(crate) use decode::decode;
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
    /// A dynamic entry, or a prefix that promises one: there are none (RFC 9204 §4.5.1.1).
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
            crate::hpack::Error::Integer => Self::Integer,
            crate::hpack::Error::Huffman => Self::Huffman,
            crate::hpack::Error::Index | crate::hpack::Error::TableSize => Self::Dynamic,
        }
    }
}

#[cfg(test)]
mod tests;

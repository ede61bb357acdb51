//! HPACK (RFC 7541): header blocks to fields and back. HTTP/3 uses its integers, Huffman codes and names.
//!
//! Sans-IO and made for one worker's thread. What a block's bytes say is judged here, and every [`Error`] ends the
//! connection with COMPRESSION_ERROR (RFC 9113 §4.3); what fields may say is judged by `crate::fields`. Start
//! from [`Decoder`] and [`Encoder`].

mod decode;
mod encode;
pub(crate) mod huffman;
pub(crate) mod integer;
pub(crate) mod names;
mod table;

use bytes::Bytes;
use http::HeaderName;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

/// What a field is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Status,
    /// `:protocol` (RFC 8441 §4).
    Protocol,
    /// Any other name that begins with a colon.
    UnknownPseudo,
    Header(HeaderName),
    /// Not a lower-case field name (RFC 9113 §8.2.1).
    Invalid,
}

/// One field of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Name,
    /// Any bytes: nothing has looked at them yet.
    pub(crate) value: Bytes,
    /// The sender wants it never to be put into a table, here and further on (RFC 7541 §6.2.3).
    pub(crate) sensitive: bool,
}

/// A block that cannot be read, which leaves the table in doubt for all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The block ends inside a field.
    #[error("header block ends inside a field")]
    Truncated,
    /// An integer over 32 bits (RFC 7541 §5.1).
    #[error("integer too large")]
    Integer,
    /// An index of no entry (RFC 7541 §2.3.3).
    #[error("no such table entry")]
    Index,
    /// A code that is EOS, or padding that is not its beginning (RFC 7541 §5.2).
    #[error("bad Huffman code")]
    Huffman,
    /// A name or a value over the limit.
    #[error("name or value too long")]
    Long,
    /// A new table size after a field, over the limit, or missing where it is due (RFC 7541 §4.2, §6.3).
    #[error("bad table size")]
    TableSize,
}

/// What an entry counts beside its text (RFC 7541 §4.1).
pub(crate) const ENTRY_OVERHEAD: usize = 32;

/// The table's size before anything was agreed on (RFC 9113 §6.5.2).
const DEFAULT_TABLE_SIZE: usize = 4096;

#[cfg(test)]
mod tests;

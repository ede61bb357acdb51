//! HTTP/2 by hand: frames and header blocks for peers that break rules on purpose.
//!
//! [`Frame`] is any frame, well-formed or not; [`hpack::encode`] writes a header block that needs no state,
//! [`hpack::Decoder`] reads whatever the other side writes. There is no connection here, no stream state and no
//! judgement: a scripted peer sends what its test says. Sockets are the caller's.

pub mod frame;
pub mod hpack;
mod huffman;
mod static_table;

pub use frame::{Frame, PREFACE, code, flag, kind, setting};

//! HTTP on the wire: framing, parsing and serialising, for both roles, behind one stream abstraction.
//!
//! [`ServerStream`] is one exchange as a server sees it, [`ClientStream`] as a client sees it; the
//! code above never knows the version below. `h1` holds HTTP/1.1; its `rules` are the one place where
//! framing is judged (RFC 9112). `h2` holds HTTP/2, `h3` HTTP/3; `multiplex` is what connections of
//! many exchanges have in common. No routes, no pools, no filters, no names of statistics
//! here.

mod fields;
pub mod h1;
pub mod h2;
pub mod h3;
mod hpack;
pub mod multiplex;
mod qpack;
pub mod stream;

/// For what codecs, exchanges and connections keep while others run.
pub use tidegate_net::prefetch::{prefetch, prefetch_from};

pub use stream::{
    BodyFrame, ClientEnd, ClientStream, HeadError, ResetCode, ResponseFrame, ServerStream, StreamError,
};

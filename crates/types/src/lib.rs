//! The vocabulary that every Tidegate crate speaks: message heads, body buffers, addresses,
//! response flags, error sources and the facts of a stream.
//!
//! Nothing here knows a clock, a socket or a policy. Start with [`RequestHead`], [`BodyBuf`] and
//! [`StreamInfo`].

pub mod address;
pub mod body;
pub mod calendar;
pub mod close_reason;
pub mod compat;
pub mod connection_state;
pub mod details;
pub mod drain;
pub mod error;
pub mod fields;
pub mod filter_state;
pub mod flags;
pub mod hash;
pub mod head;
pub mod json;
pub mod names;
pub mod overload;
pub mod recent;
pub mod spare;
pub mod stream_info;
pub mod tls;

pub use address::Address;
pub use body::BodyBuf;
pub use close_reason::CloseReason;
pub use compat::Compat;
pub use connection_state::{CloseType, ConnectionState};
pub use drain::{Drain, DrainPhase, DrainStrategy, DrainWatch, GracefulDrain};
pub use error::{ErrorSource, ResetReason};
pub use filter_state::{FilterObject, FilterObjects, Hashing};
pub use flags::ResponseFlags;
pub use head::{EndStream, RequestHead, ResponseHead, Scheme};
pub use names::{OtherNames, WrittenNames};
pub use stream_info::{ConnectionInfo, StreamInfo, UpstreamInfo};
pub use tls::{CertificateInfo, CertificateMarks, TlsInfo};

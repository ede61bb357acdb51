//! Heads between fields and our types, with Envoy's verdicts, for HTTP/2 (RFC 9113 §8) and HTTP/3 (RFC 9114 §4).
//!
//! [`RequestFields`], [`ResponseFields`] and [`TrailerFields`] take the fields of a block one by one and judge the
//! whole at its end. The first rule that is broken decides; what follows it is read for the table's sake only.
//! `write_*` are the way back. No frames here: the engine knows what a [`Verdict`] costs.

mod asked;
mod length;
mod options;
mod request;
mod response;
mod rules;
mod tally;
mod trailers;
mod write;

pub(crate) use asked::Asked;
pub(crate) use length::ContentLength;
pub(crate) use options::Judges;
pub use options::{MessageOptions, ServerOptions};
pub(crate) use request::{Received, RequestFields, RequestRules};
pub(crate) use response::ResponseFields;
pub(crate) use tally::{Dialect, Limits, Verdict, size_of};
pub use tally::{ObsText, Underscores};
pub(crate) use trailers::TrailerFields;
pub(crate) use write::{Unsendable, WriteFields, write_request, write_response, write_trailers};

#[cfg(test)]
use length::LengthMismatch;

#[cfg(test)]
mod tests;

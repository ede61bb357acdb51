//! Heads between fields and our types (RFC 9113 §8), with Envoy's verdicts.
//!
//! [`RequestFields`], [`ResponseFields`] and [`TrailerFields`] take the fields of a block one by one and judge the
//! whole at its end. The first rule that is broken decides; what follows it is read for the table's sake only.
//! `write_*` are the way back. No frames here: the engine knows what a [`Verdict`] costs.

mod length;
mod request;
mod response;
mod rules;
mod tally;
mod trailers;
mod write;

pub(crate) use length::ContentLength;
pub(crate) use request::{Received, RequestFields, RequestRules};
pub(crate) use response::ResponseFields;
pub(crate) use tally::{Limits, Verdict};
pub(crate) use trailers::TrailerFields;
pub(crate) use write::{Unsendable, write_request, write_response, write_trailers};

#[cfg(test)]
use {super::options::Underscores, length::LengthMismatch};

#[cfg(test)]
mod tests;

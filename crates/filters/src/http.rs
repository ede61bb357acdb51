//! HTTP filters.

pub mod buffer;
pub mod header_mutation;
pub mod local_ratelimit;

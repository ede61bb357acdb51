//! HTTP filters.

pub mod alternate_protocols_cache;
pub mod buffer;
pub mod header_mutation;
pub mod health_check;
pub mod local_ratelimit;
pub mod set_filter_state;

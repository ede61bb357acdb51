//! Network filters: what stands before a terminal filter, and the terminal ones that answer by themselves.

pub mod connection_limit;
pub mod direct_response;
pub mod echo;
pub mod local_ratelimit;
pub mod rbac;
pub mod set_filter_state;
pub mod sni_cluster;

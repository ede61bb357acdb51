//! Listener filters: what looks at a connection before a filter chain is chosen. [`http_inspector`] is the template
//! of one that only looks, [`proxy_protocol`] takes bytes away, [`local_ratelimit`] needs none.

pub mod http_inspector;
pub mod local_ratelimit;
pub mod original_dst;
pub mod proxy_protocol;
pub mod tls_inspector;

//! The TCP proxy: the terminal filter that joins a downstream connection to one of a cluster.
//!
//! No HTTP. Hosts, limits and pools are the cluster's; this crate owns the session: its timers, its two
//! directions, its access log.

//! TLS by rustls, in both directions: contexts from Envoy's messages, and the `Io` that speaks it.
//!
//! No HTTP, no pools. Whoever reads and writes the connection sees plain bytes; handshakes happen below.

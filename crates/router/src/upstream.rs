//! The upstream side of one request: attempts, their timeouts and retries, and the bytes both ways.
//!
//! The connection manager pumps the request in (`poll_request_ready`, `send`) and takes the response out
//! (`head`, `poll_body`). All waiting happens in those calls; timers are the caller's: it asks for
//! [`Upstream::next_deadline`] and calls [`Upstream::deadline_passed`]. Knows no protocol version and no
//! downstream connection.

mod deadlines;
mod outcome;
mod replay;

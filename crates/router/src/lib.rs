//! Which way a request goes: the route table, what a route does to heads, timeouts and retries.
//!
//! Everything but the terminal filter is pure: no clock, no I/O, random numbers are arguments. The crate
//! knows no protocol version and no downstream connection. Start with [`table::RouteTable`], which
//! answers a [`route::Route`].

pub mod host;
pub mod path;
pub mod retry;
#[expect(dead_code, reason = "the table itself comes with the next change")]
pub mod table;
pub mod timeout;
pub mod weighted;

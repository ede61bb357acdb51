//! Which way a request goes: the route table, what a route does to heads, timeouts and retries.
//!
//! Everything but the terminal filter is pure: no clock, no I/O, random numbers are arguments. The crate
//! knows no protocol version and no downstream connection. Start with [`RouteTable`], which answers a
//! [`Route`].

pub mod host;
pub mod path;
pub mod retry;
pub mod route;
pub mod table;
pub mod timeout;
pub mod weighted;

pub use route::{ClusterTarget, EnvoyHeaders, Forward, Route, RouteAction};
pub use table::{FilterSlots, RouteTable};

//! Which way a request goes: the route table, what a route does to heads, timeouts and retries; and the
//! upstream side of a request, the last of the HTTP filters.
//!
//! All but [`Upstream`] is pure: no clock, no I/O, random numbers are arguments. The crate knows no
//! protocol version and no downstream connection. Start with [`RouteTable`], which answers a [`Route`],
//! and [`Upstream`].

mod clock;
pub mod group;
pub mod headers;
pub mod host;
pub mod internal_redirect;
pub mod mirror;
mod number;
mod of_cluster;
pub mod options;
pub mod path;
pub mod retry;
pub mod route;
pub mod table;
pub mod timeout;
mod upstream;
pub mod weighted;

pub use clock::PollClock;
pub use group::Groups;
pub use of_cluster::OfCluster;
pub use options::{ROUTER_TYPE_URL, RouterOptions};
pub use retry::RetryState;
pub use route::{ClusterTarget, EnvoyHeaders, Forward, Route, RouteAction};
pub use table::{FilterSlots, RouteTable};
pub use tidegate_cluster::{Cluster, Directory, Peers};
pub use timeout::{CallersTimeout, Timeouts};
pub use upstream::{RequestBody, RequestFacts, Upstream, UpstreamHead, refusal};

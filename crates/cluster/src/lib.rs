//! Upstream clusters: hosts, load balancing, circuit breakers, and the way to a connection.
//!
//! [`ClusterShared`] is what all workers share of a cluster (configuration, hosts, limits, statistics);
//! [`Directory`] holds a worker's [`Cluster`]s with their pools and load-balancer cursors, and follows a new
//! configuration by diff. `lb` picks a host and knows nothing else. Probing hosts and routes are not here.

pub mod attend;
mod breakers;
mod callout;
mod check_kit;
mod checks;
mod cluster;
mod cut;
mod directory;
pub mod discovery;
mod drop_overload;
pub mod home;
mod host;
mod host_update;
pub mod judged;
pub mod lb;
mod merging;
mod neighbours;
mod services;
mod shared;
pub mod stats;
mod transports;

pub use check_kit::CheckKit;
pub use checks::{Checks, Mark};
pub use cluster::{Ask, Cluster};
pub use cut::Cut;
pub use directory::Directory;
pub use drop_overload::Dropped;
pub use home::Home;
pub use host::{Failing, Host, HostAttributes, HostSet, HostShared};
pub use host_update::HostChanges;
pub use neighbours::Peers;
pub use shared::{BuildContext, ClusterShared};
pub use stats::ClusterStats;
pub use tidegate_config::route::Priority;
pub use tidegate_pool::grid::Ways;
pub use tidegate_pool::host::{Addresses, HostStat};
pub use tidegate_pool::limits::{Limits, RetryPermit};
pub use tidegate_pool::machine::Care;
pub use tidegate_pool::quic;
pub use tidegate_pool::report::{IdleAge, PoolReport};
/// Connections of health checks.
pub use tidegate_pool::solo;
/// What a leased connection speaks.
pub use tidegate_pool::stream;
pub use tidegate_pool::{Acquire, ConnFacts, Failed, Lease, PoolError, limits, tcp};
pub use tidegate_pool::{ProxyAddresses, TransportFactory, TransportOptions};
pub use transports::{HostTransports, Transports};

#[cfg(test)]
mod tests;

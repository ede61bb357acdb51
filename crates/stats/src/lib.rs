//! Statistics of the proxy: counters, gauges and histograms that carry Envoy's names.
//!
//! A request touches dozens of these, so a write takes no lock, no look-up by name and no atomic
//! read-modify-write: every worker owns a *shard* of each scope and is its only writer (relaxed load, add,
//! relaxed store). Readers sum the shards. A scope whose worker never wrote costs a name and a few words:
//! shards are allocated at a worker's first write, by that worker, so that neighbours in a cache line are
//! its own.
//!
//! What this crate does not do: serve HTTP (`server::admin` does), or look statistics up by name while
//! requests run.
//!
//! Start from [`Store`] (all scopes of the process), [`Scope`] (a name prefix with its Prometheus labels)
//! and [`stat_block!`] (declares the statistics of one kind of scope). Names known only at run time go
//! through [`DynScope`], response codes through [`CodeCounters`], those of QUIC through [`QuicCodes`], counters by the values of an enum through
//! [`stat_family!`]. [`render`] prints the store; what the user's `stats_config` changes is a [`Policy`].
//!
//! ```
//! use tidegate_stats::{Scope, Store, stat_block};
//!
//! stat_block! {
//!     /// Statistics of a cluster.
//!     pub struct ClusterStats {
//!         counters { /// Connections created.
//!                    upstream_cx_total }
//!         gauges { upstream_cx_active, cx_open = "circuit_breakers.default.cx_open" }
//!         histograms { upstream_rq_time }
//!     }
//! }
//!
//! let store = Store::new(1 + 2); // main thread and two workers
//! let stats = ClusterStats::new(&store, Scope::cluster("backend"));
//! stats.upstream_cx_total().inc();
//! stats.upstream_cx_active().inc();
//! stats.upstream_rq_time().record(12);
//! assert_eq!(stats.upstream_cx_total().value(), 1);
//! ```

mod block;
mod cells;
mod codes;
mod dynamic;
mod family;
mod handle;
mod histogram;
mod macros;
mod policy;
mod quic_codes;
pub mod render;
mod scope;
mod store;
mod tags;
mod unmade;
mod worker;

pub use codes::{CodeCounters, CodePrefix};
pub use dynamic::{DynScope, FilterStats};
pub use handle::{Counter, Gauge, GaugeHold, Histogram, OwnedCounter, OwnedGauge, OwnedHistogram};
pub use histogram::Summary;
pub use policy::{Accepts, Policy};
pub use quic_codes::{EndedBy, QuicCodes};
pub use scope::Scope;
pub use store::Store;
pub use tags::TagRules;
pub use unmade::{Outline, Unmade};
pub use worker::{set_worker, worker_index};

/// What the expansion of [`stat_block!`] needs; no API of its own.
#[doc(hidden)]
pub mod internal {
    pub use crate::block::{Block, Kind, Listed};
    pub use std::sync::Arc;
}

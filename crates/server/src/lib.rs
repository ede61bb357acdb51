//! The server: from a command line and a configuration to running workers, and everything that happens to
//! them afterwards: reloads, signals, the admin interface, the end.
//!
//! No per-request code of the data path is here, and no concrete filter: those come in the [`Registry`]
//! that a binary passes to [`run`]. A configuration becomes a `Snapshot` (`build`), is compared with its
//! predecessor (`plan`) and published to the workers (`control`, `workers`). Start from [`run`].
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     tidegate_server::run(tidegate_filter::Registry::default())
//! }
//! ```

mod admin;
mod attendance;
mod bind;
mod build;
mod certificates;
mod cli;
mod control;
mod demo;
mod discovered;
mod discovery;
mod gauges;
mod logging;
mod overload;
mod plan;
mod reload;
mod run;
mod runtime;
mod serve;
mod shutdown;
mod signals;
mod simple_http;
mod snapshot;
mod stats;
mod stats_policy;
mod watch;
mod workers;

pub use run::run;
pub use tidegate_filter::Registry;

//! What tests share: byte streams in memory, in virtual time.
//!
//! For development only, never a dependency of what ships. [`io::pair`] gives the two ends of a connection
//! whose delays run on tokio's clock, so that a test with `start_paused` takes no time. Failures panic:
//! that is how a test fails.

pub mod io;

pub use io::{MemIo, pair};

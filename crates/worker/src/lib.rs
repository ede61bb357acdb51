//! Worker threads: N threads with a current-thread runtime each, and the ways by which the control plane
//! reaches them.
//!
//! A worker owns a state of type `S` that never leaves its thread (`Rc` and `Cell` inside). The main
//! thread sends it closures through a [`Mailbox`]; [`Mailboxes::broadcast_and_wait`] returns once every
//! worker has run one, which is how a reload knows that it has been applied. Plain immutable data is
//! published by [`Swap`]. No HTTP, no configuration, no clusters here.
//!
//! Start from [`Workers::start`].

mod mailbox;
mod swap;
mod threads;

pub use mailbox::{Mailbox, Mailboxes, WorkerLost};
pub use swap::{Reader, Swap};
pub use threads::{Tuning, Workers};

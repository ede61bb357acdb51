//! Filters that live outside Tidegate's own crates, as yours do: copy this crate to begin.
//!
//! [`greeting::Greeting`] is the smallest filter there is. [`callout::Callout`] asks another service about each
//! request before it goes on, with a configuration, a configuration per route, statistics and tests.
//! The guide in `docs/writing-a-filter.md` walks through both.

pub mod callout;
pub mod greeting;

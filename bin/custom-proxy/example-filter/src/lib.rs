//! Filters that live outside Tidegate's own crates, as yours do: copy this crate to begin.
//!
//! [`greeting::Greeting`] is the smallest filter there is. [`callout::Callout`] asks another service about each
//! request before it goes on, with a configuration, a configuration per route, statistics and tests.
//! [`preamble::Preamble`] is a network filter, which sees the bytes of a connection. The guide in
//! `docs/writing-a-filter.md` walks through all three.

pub mod callout;
pub mod greeting;
pub mod preamble;

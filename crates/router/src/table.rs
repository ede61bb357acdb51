//! The route table.

pub mod matcher;

//! A proxy of one's own: everything that the standard binary has, and two filters from another crate.

// ANCHOR: main
use std::process::ExitCode;

use tidegate_filter::Registry;

fn main() -> ExitCode {
    tidegate_server::run(registry())
}

fn registry() -> Registry {
    tidegate_filters::registry()
        .http::<example_filter::greeting::Greeting>()
        .http::<example_filter::callout::Callout>()
        .network::<example_filter::preamble::Preamble>()
}
// ANCHOR_END: main

#[cfg(test)]
mod tests;

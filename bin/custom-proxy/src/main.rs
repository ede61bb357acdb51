//! A proxy of one's own: everything that the standard binary has, and two filters from another crate.

// ANCHOR: main
use tidegate_filter::Registry;

fn main() {
    // Until the server crate has its entry point, the registry is all there is to start.
    let _registry = registry();
}

fn registry() -> Registry {
    tidegate_filters::registry()
        .http::<example_filter::greeting::Greeting>()
        .http::<example_filter::callout::Callout>()
}
// ANCHOR_END: main

#[cfg(test)]
mod tests;

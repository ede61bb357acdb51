//! The standard binary: the server with the built-in filters.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tidegate_server::run(tidegate_filters::registry())
}

//! `cargo xtask test`: every test of the workspace in one command.
//!
//! The binaries are built first, so that the integration tests drive what the tree says now; they find them
//! through `TIDEGATE_BIN` and `CUSTOM_PROXY_BIN`. Needs cargo and a C compiler, nothing else.

use clap::Args;

use crate::failure::Failure;
use crate::workspace::{Workspace, cargo, run_to_end};

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Run the tests of these packages only
    #[arg(short, long = "package")]
    package: Vec<String>,
    /// Passed to `cargo test` as they are: a name filter, `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the binaries, then runs `cargo test` and leaves its closing lines on the terminal.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let workspace = Workspace::load()?;
    run_to_end(cargo().args(["build", "--package", "tidegate", "--package", "custom-proxy"]))?;

    let built = workspace.target_directory.join("debug");
    let mut test = cargo();
    test.arg("test")
        // One failing crate must not hide the others' results.
        .arg("--no-fail-fast")
        .env("TIDEGATE_BIN", built.join("tidegate"))
        .env("CUSTOM_PROXY_BIN", built.join("custom-proxy"));
    if arguments.package.is_empty() {
        test.arg("--workspace");
    }
    for package in &arguments.package {
        test.args(["--package", package]);
    }
    test.args(&arguments.rest);
    run_to_end(&mut test)
}

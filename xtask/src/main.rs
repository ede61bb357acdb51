//! `cargo xtask`: the project's own tasks, with nothing to install but cargo.
//!
//! This file parses the command line and dispatches. Each task is one module with a `run` function that
//! prints what it does and answers a [`Failure`] when it does not hold. Nothing here is part of the proxy.
// A command-line tool talks on stdout.
#![allow(clippy::print_stdout)]

mod bench;
mod check;
mod failure;
mod new_filter;
mod suite;
mod sys;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tidegate's development tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the crate graph, file and function sizes, and house rules that clippy cannot see
    Check,
    /// Build the binaries and run every test of the workspace
    Test(suite::Arguments),
    /// Begin an HTTP filter in a crate of its own
    NewFilter(new_filter::Arguments),
    /// Measure Tidegate beside nginx, HAProxy and Envoy: CPU a request, latency, memory
    Bench(bench::Arguments),
    /// The benchmark's own origin server, started by `bench`
    #[command(hide = true)]
    BenchBackend(bench::backend::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Check => check::run(),
        Task::Test(arguments) => suite::run(&arguments),
        Task::NewFilter(arguments) => new_filter::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::BenchBackend(arguments) => bench::backend::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

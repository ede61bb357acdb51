//! Peers written in Python, in `integration-tests/peers`, where their libraries are installed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::process::Process;
use crate::{binary, wait};

/// A Python that has `module`: the one that `variable` names, or `python3`.
pub fn python(module: &str, variable: &str) -> Option<PathBuf> {
    let python = binary::peer("python3", variable)?;
    let has = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    has.is_ok_and(|output| output.status.success()).then_some(python)
}

/// A script.
pub fn script(python: &PathBuf, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(binary::root().join("integration-tests/peers").join(name));
    command
}

/// Starts a server that says its port first.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn serve(command: &mut Command) -> (Process, SocketAddr) {
    let mut process = Process::start(command);
    let port: u16 = wait::until_some("a port", || {
        if let Some(status) = process.try_exit() {
            panic!("{status}: {}", process.output());
        }
        process.output().lines().find_map(|line| line.trim().parse().ok())
    });
    (process, ([127, 0, 0, 1], port).into())
}

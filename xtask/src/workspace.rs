//! The workspace as cargo describes it: root, target folder, packages and the edges between them.
//!
//! Reads `cargo metadata --no-deps` and nothing else. Start from [`Workspace::load`] and [`cargo`].

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::failure::{Context, Failure};

/// What `cargo metadata --no-deps` says, cut to the fields in use.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a `[dependencies]` table.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Workspace {
    /// Asks cargo about the workspace that this xtask was built from.
    pub(crate) fn load() -> Result<Self, Failure> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("running cargo metadata")?;
        if !output.status.success() {
            return Err(Failure::new(String::from_utf8_lossy(&output.stderr).trim_end()));
        }
        serde_json::from_slice(&output.stdout).context("reading cargo metadata")
    }

    /// `path` relative to the workspace root, as messages show it.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.workspace_root).unwrap_or(path)
    }
}

/// A cargo command in the workspace's root.
///
/// The variables that `cargo run` sets for *this* package are removed: build scripts that watch them would
/// otherwise run again, and everything behind them would be rebuilt at each turn between `cargo` and
/// `cargo xtask`.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&key);
        }
    }
    command.current_dir(root());
    command
}

/// Runs a command to its end with the terminal's own output, and fails when it does.
pub(crate) fn run_to_end(command: &mut Command) -> Result<(), Failure> {
    let shown = format!("{command:?}");
    let status = command.status().context(format_args!("running {shown}"))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("{shown} ended with {status}"))) }
}

/// The folder above `xtask/`, fixed when xtask was compiled.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

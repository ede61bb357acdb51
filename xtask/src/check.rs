//! `cargo xtask check`: the rules of the house that a compiler does not know.
//!
//! Reads manifests and sources, never builds anything. [`graph`] holds the crate graph, [`sizes`] the limits
//! on files and functions, [`rules`] what a source may not contain; all of them read a file through
//! [`source::Source`]. A [`Finding`] is one line of output.

mod graph;
mod rules;
mod sizes;
mod source;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure};
use crate::workspace::Workspace;
use source::Source;

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    path: PathBuf,
    line: usize,
    message: String,
}

/// Whether a finding only informs, or makes the check fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Warning,
    Error,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}:{}: {severity}: {}", self.path.display(), self.line, self.message)
    }
}

/// Runs all checks, prints the findings, and fails when one of them is an error.
pub(crate) fn run() -> Result<(), Failure> {
    let workspace = Workspace::load()?;
    let mut findings = graph::check(&workspace)?;

    let mut files = Vec::new();
    for package in &workspace.packages {
        if let Some(folder) = package.manifest_path.parent() {
            rust_files(folder, &mut files)?;
        }
    }
    files.sort();
    files.dedup();
    for file in &files {
        let text = std::fs::read_to_string(file).context(file.display())?;
        let source = Source::new(workspace.relative(file), &text);
        sizes::check(&source, &mut findings);
        rules::check(&source, &mut findings);
    }

    findings.sort_by(|a, b| (a.severity, &a.path, a.line).cmp(&(b.severity, &b.path, b.line)));
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    println!(
        "check: {} packages, {} files, {} warnings, {errors} errors",
        workspace.packages.len(),
        files.len(),
        findings.len() - errors
    );
    if errors == 0 { Ok(()) } else { Err(Failure(format!("check found {errors} errors"))) }
}

/// All `.rs` files below `folder`, skipping build output and hidden folders.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for entry in std::fs::read_dir(folder).context(folder.display())? {
        let path = entry.context(folder.display())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, files)?;
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

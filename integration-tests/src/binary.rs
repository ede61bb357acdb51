//! Finding what is tested: the built binaries, and the peers that happen to be installed.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The proxy under test: `TIDEGATE_BIN`, or the binary beside the tests in the target folder.
///
/// # Panics
/// When there is none.
pub fn tidegate() -> PathBuf {
    built("tidegate", "TIDEGATE_BIN")
}

/// The custom build: `CUSTOM_PROXY_BIN`, or as [`tidegate`].
///
/// # Panics
/// When there is none.
pub fn custom_proxy() -> PathBuf {
    built("custom-proxy", "CUSTOM_PROXY_BIN")
}

fn built(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/all-<hash>
    let path = test.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "no {}: run `cargo xtask test`, or `cargo build -p {name}` first", path.display());
    path
}

/// A peer, by an environment variable or in `PATH`.
pub fn peer(name: &str, variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Says why a test with a peer did not run.
#[allow(clippy::print_stderr)]
pub fn skipped(peer: &str) {
    eprintln!("skipped: no {peer} on this machine");
}

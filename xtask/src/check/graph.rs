//! The crate graph: who may depend on whom, as data, and its comparison with the manifests.
//!
//! [`TABLE`] is the table of `docs/ARCHITECTURE.md`. A new edge is a design decision: it changes both in one
//! commit. Only edges between workspace members are listed, and beside them a few outside crates that a
//! crate must never pull in.

use super::{Finding, Severity};
use crate::failure::{Context, Failure};
use crate::workspace::{Package, Workspace};

/// One crate's row.
struct Row {
    name: &'static str,
    may_use: &'static [&'static str],
    /// Outside crates that contradict this crate's job.
    never: &'static [&'static str],
}

const fn row(name: &'static str, may_use: &'static [&'static str], never: &'static [&'static str]) -> Row {
    Row { name, may_use, never }
}

/// Sockets and clocks, for crates that are pure vocabulary or pure policy.
const IO: &[&str] = &["tokio", "socket2", "libc", "mio"];
const NOTHING: &[&str] = &[];

const TABLE: &[Row] = &[
    row("tidegate-types", &[], IO),
    row("tidegate-config", &["types"], IO),
    row("tidegate-stats", &[], IO),
    row("tidegate-worker", &["stats"], NOTHING),
    row("tidegate-net", &["types", "stats"], NOTHING),
    row("tidegate-quic", &["types", "stats", "net"], NOTHING),
    row("tidegate-tls", &["types", "config", "stats", "net", "quic"], NOTHING),
    row("tidegate-filter", &["types", "stats"], IO),
    row(
        "tidegate-listener",
        &["types", "config", "stats", "worker", "net", "quic", "tls", "filter"],
        NOTHING,
    ),
    row(
        "tidegate-tcp",
        &["types", "config", "stats", "net", "filter", "listener", "cluster", "pool"],
        NOTHING,
    ),
    row("tidegate-codec", &["types", "net", "quic"], NOTHING),
    row("tidegate-http", &["types", "config", "stats", "quic", "codec", "filter", "router"], NOTHING),
    row("tidegate-router", &["types", "config", "stats", "filter", "cluster"], NOTHING),
    row("tidegate-cluster", &["types", "config", "stats", "net", "filter", "pool"], NOTHING),
    row("tidegate-pool", &["types", "stats", "net", "quic", "tls", "codec"], NOTHING),
    row("tidegate-health", &["types", "config", "stats", "filter", "cluster", "pool"], NOTHING),
    row("tidegate-filters", &["filter", "types", "stats"], NOTHING),
    row(
        "tidegate-server",
        &[
            "types", "config", "stats", "worker", "net", "quic", "tls", "filter", "listener", "tcp", "codec",
            "http", "router", "cluster", "pool", "health",
        ],
        NOTHING,
    ),
    row("tidegate-testkit", &["types", "stats", "filter", "codec", "net", "quic", "tls"], NOTHING),
    row("tidegate", &["server", "filters"], NOTHING),
    row("xtask", &[], &["tokio"]),
];

/// Crates that only exist to exercise others: any edge out of them is fine, none may lead into them.
const LEAVES: &[&str] = &["integration-tests", "benches", "docs"];

/// A test may always use this one; nothing else may.
const DEV_ONLY: &str = "tidegate-testkit";

/// What a proxy of one's own may import: the SDK, the built-ins and the server.
const CUSTOM: &[&str] = &["server", "filters", "filter", "types", "stats"];

/// Compares every manifest with the table.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let manifest = std::fs::read_to_string(&package.manifest_path).context(&package.name)?;
        let path = workspace.relative(&package.manifest_path);
        let outside = !path.starts_with("crates") && !path.starts_with("xtask");
        for (dependency, message) in verdicts(package, outside, &|name| is_member(workspace, name)) {
            let line = manifest.lines().position(|line| mentions(line, &dependency)).unwrap_or(0) + 1;
            findings.push(Finding { severity: Severity::Error, path: path.to_path_buf(), line, message });
        }
    }
    Ok(findings)
}

/// The forbidden edges of one package: (dependency, message).
fn verdicts(package: &Package, outside: bool, is_member: &dyn Fn(&str) -> bool) -> Vec<(String, String)> {
    let name = package.name.as_str();
    if LEAVES.contains(&name) || LEAVES.iter().any(|leaf| name == format!("tidegate-{leaf}")) {
        return Vec::new();
    }
    let row = TABLE.iter().find(|row| row.name == name);
    let (may_use, never) = match row {
        Some(row) => (row.may_use, row.never),
        // Binaries and filters outside `crates/` live by the rule for third parties.
        None if outside => (CUSTOM, NOTHING),
        None => {
            let message = format!("crate `{name}` is not in the crate table of xtask/src/check/graph.rs");
            return vec![(name.to_owned(), message)];
        }
    };
    let mut verdicts = Vec::new();
    for dependency in &package.dependencies {
        let is_dev = dependency.kind.as_deref() == Some("dev");
        let target = dependency.name.as_str();
        if never.contains(&target) && !is_dev {
            verdicts.push((target.to_owned(), format!("`{name}` must stay free of `{target}`")));
        }
        if !is_member(target) || (is_dev && (target == DEV_ONLY || target == name)) {
            continue;
        }
        let short = target.strip_prefix("tidegate-").unwrap_or(target);
        // A filter crate that stands beside a custom binary is that binary's own business.
        let own_filter = outside && row.is_none() && !target.starts_with("tidegate");
        if !may_use.contains(&short) && !own_filter {
            let allowed = if may_use.is_empty() { "none".to_owned() } else { may_use.join(", ") };
            let hint = if target == DEV_ONLY { "; as a dev-dependency it may" } else { "" };
            let message = format!("`{name}` may not depend on `{target}` (allowed: {allowed}{hint})");
            verdicts.push((target.to_owned(), message));
        }
    }
    verdicts
}

fn is_member(workspace: &Workspace, name: &str) -> bool {
    workspace.packages.iter().any(|package| package.name == name)
}

/// Whether a manifest line declares (or, for a package, names) `dependency`.
fn mentions(line: &str, dependency: &str) -> bool {
    let line = line.trim_start();
    line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
        || line == format!("name = \"{dependency}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        Package {
            name: name.into(),
            manifest_path: "Cargo.toml".into(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(Into::into) })
                .collect(),
        }
    }

    fn forbidden(package: &Package, outside: bool) -> Vec<String> {
        let is_member = |name: &str| name.starts_with("tidegate") || name == "my-filter";
        verdicts(package, outside, &is_member).into_iter().map(|(dependency, _)| dependency).collect()
    }

    #[test]
    fn a_listed_edge_passes_and_another_fails() {
        let pool = package("tidegate-pool", &[("tidegate-codec", None), ("tidegate-cluster", None)]);
        assert_eq!(forbidden(&pool, false), ["tidegate-cluster"]);
    }

    #[test]
    fn the_testkit_is_for_tests_only() {
        let dev = package("tidegate-http", &[("tidegate-testkit", Some("dev"))]);
        assert!(forbidden(&dev, false).is_empty());
        let normal = package("tidegate-http", &[("tidegate-testkit", None)]);
        assert_eq!(forbidden(&normal, false), ["tidegate-testkit"]);
    }

    #[test]
    fn vocabulary_stays_free_of_sockets() {
        assert_eq!(forbidden(&package("tidegate-types", &[("tokio", None)]), false), ["tokio"]);
        assert!(forbidden(&package("tidegate-types", &[("tokio", Some("dev"))]), false).is_empty());
    }

    #[test]
    fn a_custom_proxy_gets_what_third_parties_get() {
        let custom = package("custom-proxy", &[("tidegate-server", None), ("my-filter", None)]);
        assert!(forbidden(&custom, true).is_empty());
        let cheat = package("my-filter", &[("tidegate-codec", None)]);
        assert_eq!(forbidden(&cheat, true), ["tidegate-codec"]);
    }

    #[test]
    fn an_unlisted_crate_is_a_finding() {
        assert_eq!(forbidden(&package("tidegate-surprise", &[]), false), ["tidegate-surprise"]);
    }

    #[test]
    fn the_manifest_line_is_found() {
        assert!(mentions("tidegate-pool.workspace = true", "tidegate-pool"));
        assert!(mentions("tidegate-pool = { path = \"x\" }", "tidegate-pool"));
        assert!(!mentions("tidegate-pools = \"1\"", "tidegate-pool"));
    }

    #[test]
    fn the_table_is_that_of_the_documentation() {
        let page = include_str!("../../../docs/ARCHITECTURE.md");
        let crates: Vec<&str> = TABLE.iter().filter_map(|row| row.name.strip_prefix("tidegate-")).collect();
        let mut rows = 0;
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, name, _, may_use, ..] = cells[..] else { panic!("{line}") };
            let name = name.split('`').nth(1).unwrap();
            let (may_use, _outside) = may_use.split_once('(').unwrap_or((may_use, ""));
            let mut documented: Vec<&str> = may_use
                .split(|c: char| !c.is_ascii_alphanumeric())
                .filter(|word| crates.contains(word))
                .collect();
            if may_use.starts_with("all but") {
                documented.extend([name, "testkit"]);
                documented = crates.iter().filter(|other| !documented.contains(other)).copied().collect();
            }
            let row = TABLE.iter().find(|row| row.name.strip_prefix("tidegate-") == Some(name)).unwrap();
            let mut checked = row.may_use.to_vec();
            documented.sort_unstable();
            checked.sort_unstable();
            assert_eq!(documented, checked, "{name}");
            rows += 1;
        }
        assert_eq!(rows, crates.len());
    }
}

//! Limits on the size of files and functions, in code lines: blank lines, comments and tests do not count.

use super::source::Source;
use super::{Finding, Severity};

/// Above this a size is reported (style.md: files of 150 to 400 lines, functions that fit a screen).
const FILE_WARNING: usize = 600;
const FILE_LIMIT: usize = 1_000;
const FUNCTION_WARNING: usize = 80;
const FUNCTION_LIMIT: usize = 120;

/// Reports the file and each of its functions that is too long.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let size = source.count_without_tests();
    if let Some((severity, limit)) = verdict(size, FILE_WARNING, FILE_LIMIT) {
        let message = format!("file has {size} code lines (more than {limit})");
        findings.push(Finding { severity, path: source.path.clone(), line: 1, message });
    }
    for function in source.functions() {
        let line = *function.lines.start();
        if source.in_tests(line) {
            continue;
        }
        let size = source.count(function.lines);
        if let Some((severity, limit)) = verdict(size, FUNCTION_WARNING, FUNCTION_LIMIT) {
            let message = format!("function `{}` has {size} code lines (more than {limit})", function.name);
            findings.push(Finding { severity, path: source.path.clone(), line, message });
        }
    }
}

fn verdict(size: usize, warning: usize, limit: usize) -> Option<(Severity, usize)> {
    if size > limit {
        Some((Severity::Error, limit))
    } else if size > warning {
        Some((Severity::Warning, warning))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn severities(lines: usize) -> Vec<Severity> {
        let text = format!("fn a() {{\n{}}}\n", "    b();\n\n    // why\n".repeat(lines - 2));
        let mut findings = Vec::new();
        check(&Source::new(Path::new("crates/x/src/a.rs"), &text), &mut findings);
        findings.into_iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn functions_are_measured_in_code_lines() {
        assert_eq!(severities(80), []);
        assert_eq!(severities(81), [Severity::Warning]);
        assert_eq!(severities(120), [Severity::Warning]);
        assert_eq!(severities(121), [Severity::Error]);
    }

    #[test]
    fn files_are_measured_too() {
        assert_eq!(severities(601), [Severity::Warning, Severity::Error]);
        assert_eq!(severities(1_001), [Severity::Error, Severity::Error]);
    }
}

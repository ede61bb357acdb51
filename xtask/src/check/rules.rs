//! What a source may not contain: unfinished code, real sleeps in unit tests, a missing header, a `mod.rs`.

use super::source::{Kind, Source, Token, is_word};
use super::{Finding, Severity};

/// Macros that mark code as not finished, or as being debugged.
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

/// Reports every breach in one file.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let mut report = |severity, line, message: String| {
        findings.push(Finding { severity, path: source.path.clone(), line, message });
    };
    let name = source.path.file_name().unwrap_or_default().to_string_lossy();
    if name == "mod.rs" {
        report(Severity::Error, 1, "a module is `foo.rs` and `foo/`, never `foo/mod.rs`".into());
    }
    if !source.has_header && name != "tests.rs" {
        // A crate without a header hides its job; in a module it is only a gap.
        let severity = if name == "lib.rs" { Severity::Error } else { Severity::Warning };
        report(severity, 1, "file does not start with a `//!` header".into());
    }
    for pair in source.tokens.windows(2) {
        if let (Kind::Word(word), Kind::Punct('!')) = (&pair[0].kind, &pair[1].kind)
            && UNFINISHED.contains(&word.as_str())
        {
            report(Severity::Error, pair[0].line, format!("`{word}!` must not be committed"));
        }
    }
    if source.path.starts_with("crates") {
        for line in real_sleeps(source) {
            let message =
                "a unit test sleeps: use tokio's paused time (`start_paused`), or wait for the event";
            report(Severity::Error, line, message.into());
        }
    }
}

/// Lines of test code that call a `sleep` of real time.
///
/// `sleep` of tokio is virtual in a test with `start_paused`; which test a helper serves cannot be seen here,
/// so the file as a whole must use paused time. `thread::sleep` is never virtual.
fn real_sleeps(source: &Source) -> Vec<usize> {
    let paused = source.tokens.iter().any(|t| is_word(t, "start_paused") || is_word(t, "pause"));
    let calls = source.tokens.windows(2).enumerate();
    calls
        .filter(|(_, pair)| is_word(&pair[0], "sleep") && pair[1].kind == Kind::Punct('('))
        .filter(|(_, pair)| source.in_tests(pair[0].line))
        .filter(|(at, _)| !paused || is_thread_path(&source.tokens[..*at]))
        .map(|(_, pair)| pair[0].line)
        .collect()
}

/// Whether the tokens end with `thread::`.
fn is_thread_path(before: &[Token]) -> bool {
    matches!(before, [.., thread, a, b]
        if is_word(thread, "thread") && a.kind == Kind::Punct(':') && b.kind == Kind::Punct(':'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn lines(path: &str, text: &str) -> Vec<(usize, Severity)> {
        let mut findings = Vec::new();
        check(&Source::new(Path::new(path), text), &mut findings);
        findings.into_iter().map(|finding| (finding.line, finding.severity)).collect()
    }

    #[test]
    fn unfinished_code_is_found_but_not_in_strings() {
        let text = "//! x\nfn a() { let s = \"todo!()\"; // todo!()\n todo!() }\n";
        assert_eq!(lines("crates/x/src/a.rs", text), [(3, Severity::Error)]);
    }

    #[test]
    fn a_crate_needs_a_header() {
        assert_eq!(lines("crates/x/src/lib.rs", "fn a() {}\n"), [(1, Severity::Error)]);
        assert_eq!(lines("crates/x/src/a.rs", "fn a() {}\n"), [(1, Severity::Warning)]);
    }

    #[test]
    fn sleeping_is_for_paused_time() {
        let real = "//! x\n#[cfg(test)]\nmod tests {\n fn a() { tokio::time::sleep(d).await; }\n}\n";
        assert_eq!(lines("crates/x/src/a.rs", real), [(4, Severity::Error)]);
        let paused = "//! x\n#[cfg(test)]\nmod tests {\n #[tokio::test(start_paused = true)]\n async fn a() {\n sleep(d);\n thread::sleep(d); }\n}\n";
        assert_eq!(lines("crates/x/src/a.rs", paused), [(7, Severity::Error)]);
        assert_eq!(lines("integration-tests/src/a.rs", real), []);
    }

    #[test]
    fn mod_rs_is_refused() {
        assert_eq!(lines("crates/x/src/a/mod.rs", "//! x\n"), [(1, Severity::Error)]);
    }
}

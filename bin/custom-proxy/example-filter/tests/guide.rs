//! The snippets of `docs/writing-a-filter.md` are the code that is compiled and tested here.
//!
//! A block behind `<!-- PATH ANCHOR -->` must equal the lines between `ANCHOR: NAME` and `ANCHOR_END: NAME` of
//! that file, less their common indentation. `UPDATE_DOCS=1 cargo test -p example-filter` rewrites them.

#![allow(clippy::expect_used)]

use std::path::PathBuf;

#[test]
fn snippets_are_the_code() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let guide = root.join("docs/writing-a-filter.md");
    let text = std::fs::read_to_string(&guide).unwrap();
    let fresh = refreshed(&text, |path| std::fs::read_to_string(root.join(path)).unwrap());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&guide, &fresh).unwrap();
    } else {
        assert_eq!(text, fresh, "run `UPDATE_DOCS=1 cargo test -p example-filter`");
    }
}

/// The guide with its snippets as the files have them now.
fn refreshed(guide: &str, read: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let marker = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        let Some((path, anchor)) = marker.and_then(|marker| marker.split_once(' ')) else {
            assert_ne!(line, "```rust", "a snippet without a source");
            continue;
        };
        let fence = lines.next().filter(|line| line.starts_with("```")).expect("a block follows its marker");
        lines.by_ref().find(|line| *line == "```").expect("the block ends");
        out.push_str(&format!("{fence}\n{}```\n", snippet(&read(path), anchor)));
    }
    out
}

/// The lines between the marks of `anchor`, less their common indentation.
fn snippet(source: &str, anchor: &str) -> String {
    let (begin, end) = (format!("// ANCHOR: {anchor}"), format!("// ANCHOR_END: {anchor}"));
    let lines: Vec<_> = source
        .lines()
        .skip_while(|line| line.trim() != begin)
        .skip(1)
        .take_while(|line| line.trim() != end)
        .filter(|line| !line.trim().starts_with("// ANCHOR"))
        .collect();
    assert!(!lines.is_empty(), "no lines between the marks of `{anchor}`");
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.is_empty()).map(indent).min().unwrap_or(0);
    lines.iter().map(|line| format!("{}\n", line.get(common..).unwrap_or_default())).collect()
}

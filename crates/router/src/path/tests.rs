//! Expected values were checked against Envoy 1.40.

use super::*;

fn run(path: &str, options: &Normalization) -> String {
    match normalize(&Bytes::copy_from_slice(path.as_bytes()), options) {
        Normalized::Unchanged => path.to_owned(),
        Normalized::Changed(path) => String::from_utf8_lossy(&path).into_owned(),
        Normalized::Redirect(path) => format!("307 {}", String::from_utf8_lossy(&path)),
        Normalized::Rejected => "400".to_owned(),
    }
}

fn all(cases: &[(&str, &str)], options: &Normalization) {
    for (path, expected) in cases {
        assert_eq!(run(path, options), *expected, "{path}");
    }
}

#[test]
fn canonical_form() {
    let options = Normalization { normalize_path: true, ..Normalization::default() };
    all(
        &[
            ("/", "/"),
            ("*", "*"),
            ("/a/b.c/d?x=../y", "/a/b.c/d?x=../y"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/..b/...", "/a/..b/..."),
            ("/a/.b", "/a/.b"),
            ("/a%2eb", "/a.b"),
            ("/a\\b\\..\\c", "/a/c"),
            ("/%41%7e%2d", "/A~-"),
            ("/%2f%2F%3a", "/%2f%2F%3a"),
            ("/%zz%4", "/%zz%4"),
            ("/a//../b", "/a/b"),
            ("/a|b^c`{}<>\"", "/a%7Cb%5Ec%60%7B%7D%3C%3E%22"),
            ("/a%00b", "400"),
            ("/a?b/../c\\d", "/a?b/../c\\d"),
        ],
        &options,
    );
}

#[test]
fn slashes_are_merged_in_the_path_only() {
    let options = Normalization { merge_slashes: true, ..Normalization::default() };
    all(
        &[
            ("/a//b///c?d//e", "/a/b/c?d//e"),
            ("//a", "/a"),
            ("/a//", "/a/"),
            ("/a/b", "/a/b"),
            ("//", "//"),
            ("///", "//"),
        ],
        &options,
    );
}

#[test]
fn escaped_slashes_follow_the_action() {
    let with = |escaped_slashes| Normalization { escaped_slashes, ..Normalization::default() };
    all(&[("/a%2Fb", "/a%2Fb")], &with(EscapedSlashes::KeepUnchanged));
    all(&[("/a%2Fb", "400"), ("/a%5cb", "400"), ("/a%25", "/a%25")], &with(EscapedSlashes::RejectRequest));
    all(&[("/a%2fb?c%2f", "307 /a/b?c%2f")], &with(EscapedSlashes::UnescapeAndRedirect));
    all(
        &[("/a%2Fb%5C", "/a/b\\"), ("/a?b%2F", "/a?b%2F"), ("/%2e%2F", "/%2e/")],
        &with(EscapedSlashes::UnescapeAndForward),
    );
    let both = Normalization { normalize_path: true, ..with(EscapedSlashes::UnescapeAndForward) };
    all(&[("/a%2F..%2fb", "/b"), ("/a%5c..%5Cb", "/b")], &both);
}

#[test]
fn fragments_are_refused_and_nothing_is_done_unasked() {
    all(&[("/a#b", "400"), ("/a/../b//c", "/a/../b//c"), ("*", "*")], &Normalization::default());
}

#![allow(clippy::unwrap_used)]

use super::*;

fn entries(all: &[(&str, &str)]) -> Entries {
    all.iter().map(|(key, text)| ((*key).to_owned(), Entry::of_text(text))).collect()
}

fn runtime(all: &[(&str, &str)]) -> Runtime {
    Runtime::new(vec![("one".to_owned(), entries(all))])
}

#[test]
fn the_last_layer_wins() {
    let layers = [&[("a", "1"), ("b", "2")][..], &[("a", "3")]].map(|all| (String::new(), entries(all)));
    let runtime = Runtime::new(layers.into());
    assert_eq!((runtime.integer("a"), runtime.integer("b"), runtime.integer("c")), (Some(3), Some(2), None));
}

/// As Envoy 1.40 takes them.
#[test]
fn texts_have_a_meaning() {
    let fraction =
        |numerator, denominator| RuntimeValue::Fraction(FractionalPercent { numerator, denominator });
    for (text, value) in [
        ("7", RuntimeValue::Number(7.0)),
        (" 3", RuntimeValue::Number(3.0)),
        ("-1.5", RuntimeValue::Number(-1.5)),
        ("1e3", RuntimeValue::Number(1000.0)),
        ("True", RuntimeValue::Bool(true)),
        ("false", RuntimeValue::Bool(false)),
        ("{\"numerator\":1}", fraction(1, 100)),
        ("numerator: 5\ndenominator: TEN_THOUSAND", fraction(5, 10_000)),
        ("{denominator: MILLION, numerator: 2}", fraction(2, 1_000_000)),
        ("numerator", RuntimeValue::Text("numerator".into())),
        ("{numerator: 1, more: 2}", RuntimeValue::Text("{numerator: 1, more: 2}".into())),
        ("{numerator: 1, denominator: FOO}", RuntimeValue::Text("{numerator: 1, denominator: FOO}".into())),
        ("", RuntimeValue::Text(String::new())),
        ("inf", RuntimeValue::Text("inf".into())),
        ("hello", RuntimeValue::Text("hello".into())),
    ] {
        assert_eq!(Entry::of_text(text), Entry { text: text.into(), value }, "{text}");
    }
}

#[test]
fn files_have_comments() {
    for (content, text) in [
        ("7\n", "7"),
        (" 3 \n", " 3"),
        ("# why\n9\n", "9"),
        ("numerator: 5\n# so many\ndenominator: MILLION\n\n", "numerator: 5\ndenominator: MILLION"),
        ("", ""),
        ("# nothing", ""),
    ] {
        assert_eq!(Entry::of_file(content).text, text, "{content:?}");
    }
}

#[test]
fn kinds_are_told_apart() {
    let runtime = runtime(&[("n", "3.7"), ("m", "-2"), ("b", "true"), ("f", "{numerator: 5}"), ("t", "x")]);
    let integers = ["n", "m", "b", "f", "t"].map(|key| runtime.integer(key));
    assert_eq!(integers, [Some(3), None, None, None, None]);
    let numbers = ["n", "m", "b"].map(|key| runtime.number(key));
    assert_eq!(numbers, [Some(3.7), Some(-2.0), None]);
    assert_eq!(["n", "b"].map(|key| runtime.flag(key)), [None, Some(true)]);
    let share = |key| runtime.share(key).map(|share| (share.numerator, share.denominator));
    assert_eq!(["n", "m", "b", "f"].map(share), [Some((3, 100)), None, None, Some((5, 100))]);
}

#[test]
fn answers_hold_until_a_key_that_was_asked_for_changes() {
    let old = runtime(&[("a", "1"), ("b", "2")]);
    let ((), outer) = old.recorded(|| {
        let (found, inner) = old.recorded(|| (old.integer("a"), old.flag("absent")));
        assert_eq!(found, (Some(1), None));
        assert!(inner.hold(&runtime(&[("a", "1")])));
        old.integer("b");
    });
    assert_eq!(old.unread(), [""; 0]);
    assert!(outer.hold(&runtime(&[("a", "1"), ("b", "2"), ("c", "3")])));
    assert!(!outer.hold(&runtime(&[("a", "1"), ("b", "3")])), "one changed");
    assert!(!outer.hold(&runtime(&[("a", "1")])), "one is gone");
    assert!(!outer.hold(&runtime(&[("a", "1"), ("b", "2"), ("absent", "true")])), "one is new");
    // What holds counts as read, also for a recording around it.
    let new = runtime(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let (held, around) = new.recorded(|| outer.hold(&new));
    assert!(held);
    assert_eq!((new.unread(), around), (vec!["c".to_owned()], outer));
}

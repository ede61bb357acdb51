//! Small value types that many messages share: percentages, data sources, string matchers, regexes.

use std::time::Duration;

use tidegate_types::json::{JsonPath, Node, Problem, Span, decode_base64};

use crate::reader::{Message, Reader};
use crate::runtime::Runtime;

/// `envoy.type.v3.FractionalPercent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FractionalPercent {
    /// `numerator`.
    pub numerator: u32,
    /// `denominator`: 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

/// `envoy.config.core.v3.RuntimeFractionalPercent`: a share that a runtime key may override.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFraction {
    /// `default_value`.
    pub default: FractionalPercent,
    /// `runtime_key`; empty when there is none.
    pub runtime_key: String,
}

/// `envoy.config.core.v3.RuntimeDouble`: a number that a runtime key may override.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeDouble {
    /// `default_value`.
    pub default: f64,
    /// `runtime_key`, never empty.
    pub runtime_key: String,
}

impl RuntimeDouble {
    /// The value in force.
    pub fn value(&self, runtime: &Runtime) -> f64 {
        runtime.number(&self.runtime_key).unwrap_or(self.default)
    }
}

/// `envoy.config.core.v3.DataSource`, already read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSource {
    /// The content.
    pub bytes: bytes::Bytes,
    /// The file that it came from, for reload; `None` for inline data.
    pub filename: Option<String>,
    /// `watched_directory`: a move within it means that the file is to be read again.
    pub watched_directory: Option<String>,
    /// The message.
    pub place: Place,
}

/// Where a message stands in the user's file, for problems that are found later. Compares equal to any other:
/// a message that only moved is the same.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Its path.
    pub path: JsonPath,
    /// Its text.
    pub span: Span,
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

impl Place {
    pub(crate) fn of(r: &Reader<'_>) -> Self {
        Self { path: r.path.clone(), span: r.span }
    }

    /// A problem of the message as a whole.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.path.clone(), self.span, message)
    }
}

/// `envoy.type.matcher.v3.RegexMatcher`: a regex that must match the whole value. It compiles.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(pub String);

/// `RegexMatchAndSubstitute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexRewrite {
    /// `pattern.regex`: every match in the text is replaced (not anchored). It compiles.
    pub pattern: Pattern,
    /// `substitution`, with `\1` for groups and `\0` for the whole match, as RE2 writes them.
    pub substitution: String,
}

/// `envoy.type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringMatcher {
    /// What to compare.
    pub pattern: StringPattern,
    /// `ignore_case`; never set together with a regex.
    pub ignore_case: bool,
}

/// The oneof of [`StringMatcher`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringPattern {
    /// `exact`.
    Exact(String),
    /// `prefix`.
    Prefix(String),
    /// `suffix`.
    Suffix(String),
    /// `contains`.
    Contains(String),
    /// `safe_regex`.
    Regex(Pattern),
}

/// `envoy.config.core.v3.TcpKeepalive`; unset fields leave the kernel's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpKeepalive {
    /// A field was 0: keepalive is off.
    Off,
    /// `SO_KEEPALIVE` with these values.
    On {
        /// `keepalive_probes`.
        probes: Option<u32>,
        /// `keepalive_time` in seconds.
        time_s: Option<u32>,
        /// `keepalive_interval` in seconds.
        interval_s: Option<u32>,
    },
}

/// A per-route timeout that may leave the outer one alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeoutOverride {
    /// Not set: the outer value holds.
    #[default]
    Inherit,
    /// Set to 0: no timeout.
    Off,
    /// Set.
    After(std::time::Duration),
}

impl Message for FractionalPercent {
    const NAME: &'static str = "envoy.type.v3.FractionalPercent";

    fn read(r: &Reader<'_>) -> Self {
        const DENOMINATORS: &[(&str, u32, u32)] =
            &[("HUNDRED", 0, 100), ("TEN_THOUSAND", 1, 10_000), ("MILLION", 2, 1_000_000)];
        Self {
            numerator: r.u32("numerator").or_default(),
            denominator: r.enumeration("denominator", DENOMINATORS, &[]).or(100),
        }
    }
}

impl Message for RuntimeFraction {
    const NAME: &'static str = "envoy.config.core.v3.RuntimeFractionalPercent";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            default: r.required_message("default_value"),
            runtime_key: r.string("runtime_key").or_default(),
        }
    }
}

impl Message for RuntimeDouble {
    const NAME: &'static str = "envoy.config.core.v3.RuntimeDouble";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            default: r.f64("default_value").or_default(),
            runtime_key: r.string("runtime_key").required_non_empty(),
        }
    }
}

/// `envoy.type.v3.Percent`: 0 to 100.
pub(crate) struct Percent(pub(crate) f64);

impl Message for Percent {
    const NAME: &'static str = "envoy.type.v3.Percent";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.f64("value").within(0.0..=100.0).or_default())
    }
}

/// A time is this much longer at random: drawn for each use, so that what began together does not end together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Jitter {
    /// At most so many millionths of the time are added.
    millionths: u32,
}

impl Jitter {
    /// A field of `envoy.type.v3.Percent`, none when unset.
    pub(crate) fn read(r: &Reader<'_>, name: &'static str) -> Self {
        let percent = r.message::<Percent>(name).optional().map_or(0.0, |percent| percent.0);
        // At most a million.
        Self { millionths: (percent * 10_000.0).round() as u32 }
    }

    /// `time`, and up to the jitter more for a draw in 0 to 1.
    pub fn lengthen(self, time: Duration, random: impl FnOnce() -> f64) -> Duration {
        if self == Self::default() {
            return time;
        }
        time.mul_f64(1.0 + f64::from(self.millionths) / 1e6 * random())
    }
}

impl Message for DataSource {
    const NAME: &'static str = "envoy.config.core.v3.DataSource";

    fn read(r: &Reader<'_>) -> Self {
        let inline = r.string("inline_string");
        let base64 = r
            .string("inline_bytes")
            .convert(|text| decode_base64(&text).ok_or_else(|| "not base64".to_owned()));
        let filename = r.string("filename");
        let path = filename.peek().cloned();
        let file = filename.convert(|path| (r.cx.read_file)(&path));
        let variable = r.string("environment_variable").convert(|name| {
            let value = std::env::var_os(&name).map(std::ffi::OsString::into_encoded_bytes);
            value.ok_or_else(|| format!("there is no environment variable `{name}`"))
        });
        r.exactly_one(&["inline_string", "inline_bytes", "filename", "environment_variable"]);
        let watched = r.message::<WatchedDirectory>("watched_directory").optional();
        let inline = inline.optional().map(String::into_bytes);
        let bytes = inline.or(base64.optional()).or(file.optional()).or(variable.optional());
        Self {
            bytes: bytes.unwrap_or_default().into(),
            filename: path,
            watched_directory: watched.map(|watched| watched.0),
            place: Place::of(r),
        }
    }
}

/// `envoy.config.core.v3.WatchedDirectory`.
pub(crate) struct WatchedDirectory(pub(crate) String);

impl Message for WatchedDirectory {
    const NAME: &'static str = "envoy.config.core.v3.WatchedDirectory";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.string("path").required_non_empty())
    }
}

impl Message for Pattern {
    const NAME: &'static str = "envoy.type.matcher.v3.RegexMatcher";

    fn read(r: &Reader<'_>) -> Self {
        let _engine = r.message::<Empty>("google_re2");
        let regex = r.string("regex").check(|regex| {
            // As it is matched later: the whole value.
            let compiled = regex::Regex::new(&format!("^(?:{regex})$"));
            compiled.map(drop).map_err(|error| format!("invalid regex: {}", last_line(&error.to_string())))
        });
        Self(regex.required_non_empty())
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

/// A message without fields.
pub(crate) struct Empty;

impl Message for Empty {
    const NAME: &'static str = "google.protobuf.Empty";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

impl Message for RegexRewrite {
    const NAME: &'static str = "envoy.type.matcher.v3.RegexMatchAndSubstitute";

    fn read(r: &Reader<'_>) -> Self {
        let pattern: Pattern = r.required_message("pattern");
        let groups = regex::Regex::new(&pattern.0).map_or(0, |regex| regex.captures_len());
        let substitution = r.string("substitution").check(|text| check_substitution(text, groups));
        Self { substitution: substitution.or_default(), pattern }
    }
}

/// RE2's rule: a backslash is followed by a backslash or the number of a group.
fn check_substitution(text: &str, groups: usize) -> Result<(), String> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        match chars.next() {
            Some('\\') => {}
            Some(digit) if digit.is_ascii_digit() => {
                if digit as usize - '0' as usize >= groups {
                    return Err(format!(
                        "the substitution uses group \\{digit}, which the pattern does not have"
                    ));
                }
            }
            _ => return Err("a backslash in a substitution is followed by a digit or a backslash".to_owned()),
        }
    }
    Ok(())
}

impl Message for StringMatcher {
    const NAME: &'static str = "envoy.type.matcher.v3.StringMatcher";

    fn read(r: &Reader<'_>) -> Self {
        let exact = r.string("exact").optional().map(StringPattern::Exact);
        let prefix = affix(r, "prefix").map(StringPattern::Prefix);
        let suffix = affix(r, "suffix").map(StringPattern::Suffix);
        let contains = affix(r, "contains").map(StringPattern::Contains);
        let regex = r.message("safe_regex").optional().map(StringPattern::Regex);
        r.exactly_one(&["exact", "prefix", "suffix", "contains", "safe_regex"]);
        let pattern = exact.or(prefix).or(suffix).or(contains).or(regex);
        let ignore_case = r.bool("ignore_case");
        if matches!(pattern, Some(StringPattern::Regex(_))) && ignore_case.peek() == Some(&true) {
            ignore_case.report("`ignore_case` has no effect on `safe_regex`: write (?i) in the regex", None);
        }
        Self {
            pattern: pattern.unwrap_or(StringPattern::Exact(String::new())),
            ignore_case: ignore_case.or_default(),
        }
    }
}

/// A part to look for: an empty one is found everywhere, which nobody means.
fn affix(r: &Reader<'_>, name: &'static str) -> Option<String> {
    r.string(name)
        .check(|s| if s.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) })
        .optional()
}

impl Message for TcpKeepalive {
    const NAME: &'static str = "envoy.config.core.v3.TcpKeepalive";

    fn read(r: &Reader<'_>) -> Self {
        let probes = r.u32("keepalive_probes").optional();
        let time_s = r.u32("keepalive_time").optional();
        let interval_s = r.u32("keepalive_interval").optional();
        if [probes, time_s, interval_s].contains(&Some(0)) {
            Self::Off
        } else {
            Self::On { probes, time_s, interval_s }
        }
    }
}

/// `envoy.config.core.v3.TypedExtensionConfig` of which this build has one implementation, `T`.
pub(crate) struct BuiltIn<T>(Option<T>);

impl<T: Message> BuiltIn<T> {
    /// What the field `name` holds.
    pub(crate) fn of(r: &Reader<'_>, name: &'static str) -> Option<T> {
        // Here, since a schema describes `TypedExtensionConfig` once.
        r.may_be::<T>();
        r.message::<Self>(name).optional().and_then(|built_in| built_in.0)
    }
}

impl<T: Message> Message for BuiltIn<T> {
    const NAME: &'static str = "envoy.config.core.v3.TypedExtensionConfig";

    fn read(r: &Reader<'_>) -> Self {
        let Some(extension) = r.extension_any() else { return Self(None) };
        if extension.config.is::<T>() {
            return Self(Some(extension.config.read(r)));
        }
        let given = extension.config.type_url.rsplit('/').next().unwrap_or_default();
        r.cx.report(Problem {
            expected: Some(T::NAME.to_owned()),
            ..Problem::new(r.path.clone(), r.span, format!("`{given}` is not supported by this build"))
        });
        Self(None)
    }
}

/// `envoy.config.core.v3.RuntimeFeatureFlag`: a switch that a runtime key may override.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFlag {
    /// `default_value`.
    pub default: bool,
    /// `runtime_key`; empty when there is none.
    pub runtime_key: String,
}

impl RuntimeFlag {
    /// The value in force.
    pub fn value(&self, runtime: &Runtime) -> bool {
        runtime.flag(&self.runtime_key).unwrap_or(self.default)
    }
}

impl Message for RuntimeFlag {
    const NAME: &'static str = "envoy.config.core.v3.RuntimeFeatureFlag";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            default: r.bool("default_value").required(),
            runtime_key: r.string("runtime_key").or_default(),
        }
    }
}

/// `envoy.config.core.v3.Metadata`, of which the untyped part is kept.
pub(crate) struct Metadata(pub(crate) Option<Node>);

impl Message for Metadata {
    const NAME: &'static str = "envoy.config.core.v3.Metadata";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.structure("filter_metadata").optional())
    }
}

impl Metadata {
    /// The labels that load balancers look at, `envoy.lb`, in the order of the file.
    pub(crate) fn labels(r: &Reader<'_>, field: &'static str) -> Vec<(String, Node)> {
        let metadata = r.message::<Self>(field).optional().and_then(|metadata| metadata.0);
        let labels = metadata.as_ref().and_then(|metadata| metadata.member("envoy.lb"));
        let members = labels.map(Node::members).unwrap_or_default();
        members.iter().map(|member| (member.key.to_string(), member.value.clone())).collect()
    }
}

/// The untyped metadata of a message.
pub(crate) fn metadata(r: &Reader<'_>) -> Option<Node> {
    r.message::<Metadata>("metadata").optional().and_then(|metadata| metadata.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn a_jitter_lengthens_by_a_part_of_the_time() {
        let time = Duration::from_secs(8);
        assert_eq!(Jitter::default().lengthen(time, || panic!("drawn for nothing")), time);
        let quarter = Jitter { millionths: 250_000 };
        assert_eq!(quarter.lengthen(time, || 0.0), time);
        assert_eq!(quarter.lengthen(time, || 1.0), Duration::from_secs(10));
    }
}

//! Small value types that many messages share: percentages, data sources, string matchers, regexes.

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

/// `envoy.config.core.v3.DataSource`, already read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSource {
    /// The content.
    pub bytes: bytes::Bytes,
    /// The file that it came from, for reload; `None` for inline data.
    pub filename: Option<String>,
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

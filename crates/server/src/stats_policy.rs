//! From `stats_config` to the store's [`Policy`], and to a word about idle-timeout counters that it hides.
//!
//! Meshes hide most statistics by default, the idle-timeout counters among them, and whoever then chases a
//! closed connection looks for them in vain: `validate` and the start name each that is configured and hidden.

use std::collections::BTreeMap;

use regex::Regex;
use tidegate_config::Bootstrap;
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::stats_config::{StatsConfig, StatsMatcher, TagValue};
use tidegate_config::values::{StringMatcher, StringPattern};
use tidegate_stats::{Policy, Scope, TagRules};

/// The store's rules. Set once, before the first scope: as in Envoy, a changed `stats_config` waits for the
/// next start.
pub(crate) fn policy(config: &StatsConfig) -> Policy {
    let mut tags = TagRules::default();
    if !config.use_all_default_tags {
        tags.drop_known();
    }
    for tag in &config.tags {
        match &tag.value {
            TagValue::Default => tags.keep(&tag.name),
            TagValue::Fixed(value) => tags.fixed(&tag.name, value),
            // It compiled when the file was read.
            TagValue::Regex(regex) => {
                if let Ok(regex) = Regex::new(regex) {
                    tags.regex(&tag.name, regex);
                }
            }
        }
    }
    let matcher = Matcher::new(&config.matcher);
    let accepts = (config.matcher != StatsMatcher::AcceptAll).then_some(matcher);
    Policy {
        accepts: accepts.map(|matcher| Box::new(move |name: &str| matcher.rejects(name).is_none()) as _),
        tags,
    }
}

/// A line for each place in the file that hides idle-timeout counters, with their names.
pub(crate) fn hidden_idle_counters(bootstrap: &Bootstrap) -> Vec<String> {
    let matcher = Matcher::new(&bootstrap.stats_config.matcher);
    if matches!(matcher, Matcher::AcceptAll) {
        return Vec::new();
    }
    let mut hidden: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in idle_counters(bootstrap) {
        if let Some(path) = matcher.rejects(&name) {
            hidden.entry(path).or_default().push(name);
        }
    }
    let line = |(path, names): (String, Vec<String>)| {
        let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{path} hides {shown}{more}: idle timeouts there will close connections and not be counted")
    };
    hidden.into_iter().map(line).collect()
}

/// Names in one warning; a mesh has thousands of clusters.
const SHOWN: usize = 5;

/// The full names of the counters that tell of idle timeouts.
fn idle_counters(bootstrap: &Bootstrap) -> Vec<String> {
    let clusters = bootstrap.clusters.iter();
    let upstream = clusters.map(|c| (Scope::cluster(c.stat_name()), "upstream_cx_idle_timeout"));
    let chains = bootstrap.listeners.iter().flat_map(|listener| listener.all_chains());
    let filters = chains.flat_map(|chain| &chain.filters).filter_map(|filter| match filter {
        NetworkFilterConfig::Http(manager) => {
            Some((Scope::http(&manager.stat_prefix), "downstream_cx_idle_timeout"))
        }
        NetworkFilterConfig::Tcp(proxy) => Some((Scope::tcp(&proxy.stat_prefix), "idle_timeout")),
        NetworkFilterConfig::Other(_) => None,
    });
    let names = upstream.chain(filters).map(|(scope, name)| format!("{}{name}", scope.prefix()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

/// `stats_matcher`, compiled.
enum Matcher {
    AcceptAll,
    RejectAll,
    Exclusion(Vec<Compiled>),
    Inclusion(Vec<Compiled>),
}

impl Matcher {
    fn new(config: &StatsMatcher) -> Self {
        let compile = |patterns: &[StringMatcher]| patterns.iter().filter_map(Compiled::new).collect();
        match config {
            StatsMatcher::AcceptAll => Self::AcceptAll,
            StatsMatcher::RejectAll => Self::RejectAll,
            StatsMatcher::Exclusion(patterns) => Self::Exclusion(compile(patterns)),
            StatsMatcher::Inclusion(patterns) => Self::Inclusion(compile(patterns)),
        }
    }

    /// The path of what rejects the statistic `name`.
    fn rejects(&self, name: &str) -> Option<String> {
        match self {
            Self::AcceptAll => None,
            Self::RejectAll => Some(format!("{MATCHER}.reject_all")),
            Self::Exclusion(patterns) => {
                let at = patterns.iter().position(|pattern| pattern.matches(name))?;
                Some(format!("{MATCHER}.exclusion_list.patterns[{at}]"))
            }
            Self::Inclusion(patterns) => {
                let included = patterns.iter().any(|pattern| pattern.matches(name));
                (!included).then(|| format!("{MATCHER}.inclusion_list"))
            }
        }
    }
}

const MATCHER: &str = "stats_config.stats_matcher";

/// A pattern; regexes match whole names.
enum Compiled {
    Text(StringMatcher),
    Regex(Regex),
}

impl Compiled {
    /// `None` for a regex that does not compile, which the reading of the file refuses.
    fn new(matcher: &StringMatcher) -> Option<Self> {
        let StringPattern::Regex(pattern) = &matcher.pattern else {
            return Some(Self::Text(lower(matcher)));
        };
        Regex::new(&format!("^(?:{})$", pattern.0)).ok().map(Self::Regex)
    }

    fn matches(&self, name: &str) -> bool {
        let matcher = match self {
            Self::Regex(regex) => return regex.is_match(name),
            Self::Text(matcher) => matcher,
        };
        let folded;
        let name = if matcher.ignore_case {
            folded = name.to_ascii_lowercase();
            &folded
        } else {
            name
        };
        match &matcher.pattern {
            StringPattern::Exact(text) => name == text,
            StringPattern::Prefix(text) => name.starts_with(text.as_str()),
            StringPattern::Suffix(text) => name.ends_with(text.as_str()),
            StringPattern::Contains(text) => name.contains(text.as_str()),
            StringPattern::Regex(_) => false,
        }
    }
}

fn lower(matcher: &StringMatcher) -> StringMatcher {
    let mut matcher = matcher.clone();
    if matcher.ignore_case {
        match &mut matcher.pattern {
            StringPattern::Exact(text)
            | StringPattern::Prefix(text)
            | StringPattern::Suffix(text)
            | StringPattern::Contains(text) => text.make_ascii_lowercase(),
            StringPattern::Regex(_) => {}
        }
    }
    matcher
}

#[cfg(test)]
mod tests {
    use tidegate_config::{Format, from_str};

    use super::*;

    fn bootstrap(matcher: &str) -> Bootstrap {
        let text = format!(
            r#"{{"static_resources": {{"clusters": [{{"name": "a:b", "type": "STATIC"}}, {{"name": "c", "type": "STATIC"}}]}},
                "stats_config": {{"stats_matcher": {matcher}}}}}"#
        );
        from_str(&text, "f", Format::Json).unwrap()
    }

    #[test]
    fn a_hidden_idle_counter_is_named_with_what_hides_it() {
        let end = "idle timeouts there will close connections and not be counted";
        let list = r#"{"exclusion_list": {"patterns": [{"prefix": "x"}, {"contains": "A_B", "ignore_case": true},
            {"safe_regex": {"regex": ".*_timeout"}}]}}"#;
        let expected = [
            format!(
                "stats_config.stats_matcher.exclusion_list.patterns[1] hides `cluster.a_b.upstream_cx_idle_timeout`: {end}"
            ),
            format!(
                "stats_config.stats_matcher.exclusion_list.patterns[2] hides `cluster.c.upstream_cx_idle_timeout`: {end}"
            ),
        ];
        assert_eq!(hidden_idle_counters(&bootstrap(list)), expected);
        let all = hidden_idle_counters(&bootstrap(r#"{"reject_all": true}"#));
        assert_eq!(all.len(), 1);
        assert!(all[0].starts_with("stats_config.stats_matcher.reject_all hides `cluster.a_b."), "{all:?}");
        let list = r#"{"inclusion_list": {"patterns": [{"prefix": "cluster.c."}]}}"#;
        let one = hidden_idle_counters(&bootstrap(list));
        assert!(
            one[0].starts_with("stats_config.stats_matcher.inclusion_list hides `cluster.a_b."),
            "{one:?}"
        );
        assert!(!one[0].contains("cluster.c."));
        assert!(hidden_idle_counters(&bootstrap(r#"{"reject_all": false}"#)).is_empty());
    }

    #[test]
    fn a_regex_matches_whole_names() {
        let list = r#"{"exclusion_list": {"patterns": [{"safe_regex": {"regex": "b"}}, {"exact": "abc"}]}}"#;
        let policy = policy(&bootstrap(list).stats_config);
        let accepts = policy.accepts.unwrap();
        assert_eq!(["b", "ab", "abc", "abcd"].map(accepts), [false, true, false, true]);
    }
}

//! Names of scopes and their Prometheus labels.
//!
//! A [`Scope`] is the dotted prefix of its statistics plus the places of the parts that Prometheus shows as
//! labels. The places are known where the scope is made, so that no regular expression runs over names
//! later (Envoy extracts the same labels with regexes: `source/common/config/well_known_names.cc`).

use std::ops::Range;
use std::sync::Arc;

/// A dotted name prefix (`cluster.backend.`), with the label values inside it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    prefix: Arc<str>,
    tags: Arc<[Tag]>,
}

/// A label: its name and where in the prefix its value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    name: &'static str,
    /// Where what Prometheus leaves out begins.
    cut: usize,
    start: usize,
    end: usize,
}

impl Scope {
    /// The scope with the empty prefix.
    pub fn root() -> Self {
        Self { prefix: Arc::from(""), tags: Arc::from([]) }
    }

    /// `tree.names[0].names[1]...`, with the labels that Envoy gives to the well-known trees: `cluster`,
    /// `http`, `tcp`, `udp`, `ratelimit`, `vhost`, `listener`.
    pub fn new(tree: &str, names: &[&str]) -> Self {
        let tag = match tree {
            "cluster" => Some(CLUSTER),
            "http" => Some(HTTP),
            "tcp" => Some("envoy_tcp_prefix"),
            "udp" => Some("envoy_udp_prefix"),
            "ratelimit" => Some("envoy_ratelimit_prefix"),
            "vhost" => Some("envoy_virtual_host"),
            "listener" => Some(LISTENER),
            _ => None,
        };
        let mut scope = Self::root().child(tree);
        for (i, name) in names.iter().enumerate() {
            scope = match tag {
                Some(tag) if i == 0 => scope.tagged(tag, name),
                _ => scope.child(name),
            };
        }
        scope
    }

    /// `cluster.NAME.`
    pub fn cluster(name: &str) -> Self {
        Self::new("cluster", &[name])
    }

    /// `http.STAT_PREFIX.`: an HTTP connection manager.
    pub fn http(stat_prefix: &str) -> Self {
        Self::new("http", &[stat_prefix])
    }

    /// `tcp.STAT_PREFIX.`: a TCP proxy filter.
    pub fn tcp(stat_prefix: &str) -> Self {
        Self::new("tcp", &[stat_prefix])
    }

    /// `listener.ADDRESS.`, where the address is `ip:port` or the listener's `stat_prefix`. The admin
    /// listener's name stays in the metric's name, as in Envoy.
    pub fn listener(address: &str) -> Self {
        if address == "admin" {
            return Self::root().child("listener").child("admin");
        }
        Self::new("listener", &[address])
    }

    /// `listener.ADDRESS.http.STAT_PREFIX.`: the listener's copy of an HTTP connection manager's counters.
    pub fn listener_http(address: &str, stat_prefix: &str) -> Self {
        Self::listener(address).child("http").tagged(HTTP, stat_prefix)
    }

    /// `listener.ADDRESS.worker_N.`
    pub fn listener_worker(address: &str, worker: usize) -> Self {
        Self::listener(address).worker(worker)
    }

    /// This scope's part of one worker, `worker_N.`, with label `envoy_worker_id`.
    pub fn worker(&self, worker: usize) -> Self {
        self.append("worker_", Some("envoy_worker_id"), &worker.to_string())
    }

    /// This scope with one more plain segment; it may contain dots. `:` becomes `_`, as in Envoy.
    pub fn child(&self, segment: &str) -> Self {
        self.append("", None, segment)
    }

    /// This scope with one more segment that Prometheus shows as label `tag` instead of in the metric's name.
    pub fn tagged(&self, tag: &'static str, value: &str) -> Self {
        self.append("", Some(tag), value)
    }

    /// As [`Scope::tagged`], with segments before the value that go with it.
    pub fn tagged_after(&self, lead: &str, tag: &'static str, value: &str) -> Self {
        let mut scope = self.append(&format!("{lead}."), Some(tag), value);
        let last = scope.tags.len().saturating_sub(1);
        let cut = self.prefix.len().saturating_sub(1);
        let with_lead = |(index, tag): (usize, &Tag)| if index == last { Tag { cut, ..*tag } } else { *tag };
        scope.tags = scope.tags.iter().enumerate().map(with_lead).collect();
        scope
    }

    /// The innermost label's value, for logs: the cluster's name, the stat prefix. Without labels, the prefix.
    pub fn name(&self) -> &str {
        match self.tags.last() {
            Some(tag) => self.prefix.get(tag.start..tag.end).unwrap_or_default(),
            None => self.prefix.trim_end_matches('.'),
        }
    }

    /// The dotted prefix, with its final dot (empty for the root).
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn append(&self, lead: &str, tag: Option<&'static str>, value: &str) -> Self {
        let start = self.prefix.len() + lead.len();
        let mut prefix = String::with_capacity(start + value.len() + 1);
        prefix.push_str(&self.prefix);
        prefix.push_str(lead);
        match value.contains(':') {
            true => prefix.push_str(&value.replace(':', "_")),
            false => prefix.push_str(value),
        }
        prefix.push('.');
        let tags = match tag {
            Some(name) => {
                let new = Tag { name, cut: start.saturating_sub(1), start, end: start + value.len() };
                self.tags.iter().copied().chain([new]).collect()
            }
            None => self.tags.clone(),
        };
        Self { prefix: prefix.into(), tags }
    }

    pub(crate) fn shared_prefix(&self) -> &Arc<str> {
        &self.prefix
    }

    /// Appends the prefix without its label values: `cluster.` for `cluster.backend.`.
    pub(crate) fn push_extracted(&self, out: &mut String) {
        let mut from = 0;
        for (_, cut) in self.cuts() {
            out.push_str(self.prefix.get(from..cut.start).unwrap_or_default());
            from = cut.end;
        }
        out.push_str(self.prefix.get(from..).unwrap_or_default());
    }

    /// The labels' names with what they take out of the prefix, from its start on.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        self.tags.iter().map(|tag| {
            // The separator before a value goes with it; a value at the very start takes the dot after it.
            let cut = if tag.start == 0 { 0..tag.end + 1 } else { tag.cut..tag.end };
            (tag.name, cut)
        })
    }

    /// Labels in Envoy's order, which is innermost first.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.tags.iter().rev().map(|t| (t.name, self.prefix.get(t.start..t.end).unwrap_or_default()))
    }
}

const CLUSTER: &str = "envoy_cluster_name";
const HTTP: &str = "envoy_http_conn_manager_prefix";
const LISTENER: &str = "envoy_listener_address";

#[cfg(test)]
mod tests {
    use super::*;

    fn extracted(scope: &Scope) -> (String, Vec<(&'static str, &str)>) {
        let mut out = String::new();
        scope.push_extracted(&mut out);
        (out, scope.labels().collect())
    }

    #[test]
    fn values_of_known_trees_become_labels() {
        let scope = Scope::cluster("a:b");
        assert_eq!((scope.prefix(), scope.name()), ("cluster.a_b.", "a_b"));
        assert_eq!(extracted(&scope), ("cluster.".into(), vec![("envoy_cluster_name", "a_b")]));

        let scope = Scope::listener_http("127.0.0.1:80", "P");
        assert_eq!(scope.prefix(), "listener.127.0.0.1_80.http.P.");
        assert_eq!(
            extracted(&scope),
            (
                "listener.http.".into(),
                vec![("envoy_http_conn_manager_prefix", "P"), ("envoy_listener_address", "127.0.0.1_80")]
            )
        );
    }

    #[test]
    fn the_worker_number_is_cut_out_of_its_segment() {
        let scope = Scope::listener_worker("[::1]:80", 3);
        assert_eq!(scope.prefix(), "listener.[__1]_80.worker_3.");
        let (name, labels) = extracted(&scope);
        assert_eq!(name, "listener.worker.");
        assert_eq!(labels, vec![("envoy_worker_id", "3"), ("envoy_listener_address", "[__1]_80")]);
    }

    #[test]
    fn what_leads_to_a_label_goes_with_it() {
        let scope =
            Scope::cluster("c").child("health_check").tagged_after("name", "envoy_health_check_name", "a");
        assert_eq!((scope.prefix(), scope.name()), ("cluster.c.health_check.name.a.", "a"));
        let (name, labels) = extracted(&scope);
        assert_eq!(name, "cluster.health_check.");
        assert_eq!(labels, vec![("envoy_health_check_name", "a"), ("envoy_cluster_name", "c")]);
    }

    #[test]
    fn plain_trees_and_leading_labels() {
        assert_eq!(extracted(&Scope::new("server", &[])).0, "server.");
        let scope =
            Scope::root().tagged("envoy_local_http_ratelimit_prefix", "rl").child("http_local_rate_limit");
        assert_eq!(scope.prefix(), "rl.http_local_rate_limit.");
        assert_eq!(extracted(&scope).0, "http_local_rate_limit.");
        assert_eq!(extracted(&Scope::listener("admin")).0, "listener.admin.");
    }
}

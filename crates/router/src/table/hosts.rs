//! Virtual hosts by name: exact, then the longest suffix wildcard, then the longest prefix wildcard,
//! then `*`.
//!
//! Envoy docs, `config.route.v3.VirtualHost`, `domains`.

use smallvec::SmallVec;
use tidegate_types::hash::ConfiguredMap;

/// From a host to the number of its virtual host.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: ConfiguredMap<Box<[u8]>, usize>,
    /// `*.foo.com` by `.foo.com`.
    suffixes: Wildcards,
    /// `foo.*` by `foo.`.
    prefixes: Wildcards,
    fallback: Option<usize>,
}

#[derive(Debug, Default)]
struct Wildcards {
    by_text: ConfiguredMap<Box<[u8]>, usize>,
    /// Distinct lengths, the longest first.
    lengths: Vec<usize>,
}

impl HostIndex {
    /// Adds a domain; of two equal ones the first stays.
    pub(super) fn insert(&mut self, domain: &str, virtual_host: usize) {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            self.fallback.get_or_insert(virtual_host);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.insert(suffix, virtual_host);
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.insert(prefix, virtual_host);
        } else {
            self.exact.entry(domain.as_bytes().into()).or_insert(virtual_host);
        }
    }

    /// The virtual host of a host, whatever its case.
    pub(super) fn find(&self, host: &[u8]) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.lengths.is_empty() && self.prefixes.lengths.is_empty() {
            return self.fallback;
        }
        if host.iter().any(u8::is_ascii_uppercase) {
            let lower: SmallVec<[u8; 128]> = host.iter().map(u8::to_ascii_lowercase).collect();
            self.find_lower(&lower)
        } else {
            self.find_lower(host)
        }
    }

    fn find_lower(&self, host: &[u8]) -> Option<usize> {
        self.exact
            .get(host)
            .copied()
            .or_else(|| self.suffixes.find(host.len(), |length| &host[host.len() - length..]))
            .or_else(|| self.prefixes.find(host.len(), |length| &host[..length]))
            .or(self.fallback)
    }
}

impl Wildcards {
    fn insert(&mut self, text: &str, virtual_host: usize) {
        self.by_text.entry(text.as_bytes().into()).or_insert(virtual_host);
        if let Err(at) = self.lengths.binary_search_by(|length| text.len().cmp(length)) {
            self.lengths.insert(at, text.len());
        }
    }

    /// The longest that fits. The star stands for at least one character.
    fn find<'a>(&self, host_length: usize, part: impl Fn(usize) -> &'a [u8]) -> Option<usize> {
        let fitting = self.lengths.iter().filter(|length| **length < host_length);
        fitting.into_iter().find_map(|length| self.by_text.get(part(*length)).copied())
    }
}

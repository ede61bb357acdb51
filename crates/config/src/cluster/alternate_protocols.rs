//! `envoy.config.core.v3.AlternateProtocolsCacheOptions`: what is remembered of origins that offer HTTP/3, and where
//! it outlives the process.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::json::Problem;

use super::{ClusterConfig, UpstreamProtocol};
use crate::reader::{Context, Message, Reader};
use crate::values::{BuiltIn, Place};

/// A cache of alternative services (RFC 7838). Clusters that name the same one share it; their options are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlternateProtocols {
    /// `name`, never empty.
    pub name: String,
    /// `max_entries`: origins that are remembered, the one that was added first is forgotten first; at least 1, 1024
    /// when unset.
    pub max_entries: u32,
    /// `key_value_store_config`: only with one worker.
    pub store: Option<KeyValueFile>,
    /// `prepopulated_entries`: origins of which HTTP/3 is believed for 7 days.
    pub prepopulated: Vec<(String, u16)>,
    /// `canonical_suffixes` that begin with a dot: hosts below one share what is known of any. Others have no effect,
    /// as in Envoy.
    pub canonical_suffixes: Vec<String>,
    /// The message.
    pub place: Place,
}

/// `envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValueFile {
    /// `filename`, never empty.
    pub filename: String,
    /// `flush_interval`; `None` when unset or 0: each change is written at once.
    pub flush_interval: Option<Duration>,
    /// `max_entries`, 1000 when unset; `None` is no limit (0).
    pub max_entries: Option<u32>,
}

impl Message for AlternateProtocols {
    const NAME: &'static str = "envoy.config.core.v3.AlternateProtocolsCacheOptions";

    fn read(r: &Reader<'_>) -> Self {
        let store = BuiltIn::<KeyValueStore>::of(r, "key_value_store_config");
        let entries = r.repeated::<Entry>("prepopulated_entries").or_default();
        let suffixes = r.strings("canonical_suffixes").or_default();
        for suffix in suffixes.iter().filter(|suffix| !suffix.starts_with('.')) {
            tracing::warn!(target: "config",
                "{}: `canonical_suffixes`: `{suffix}` has no effect: a suffix begins with a dot", r.path);
        }
        Self {
            name: r.string("name").required_non_empty(),
            max_entries: r.u32("max_entries").positive().or(1024),
            store: store.and_then(|store| store.0),
            prepopulated: entries.into_iter().map(|entry| (entry.hostname, entry.port)).collect(),
            canonical_suffixes: suffixes.into_iter().filter(|suffix| suffix.starts_with('.')).collect(),
            place: Place::of(r),
        }
    }
}

impl AlternateProtocols {
    /// Reports caches that two clusters describe differently.
    pub(crate) fn check_shared(cx: &Context<'_>, clusters: &[Arc<ClusterConfig>]) {
        let all =
            || clusters.iter().filter_map(|cluster| Some((cluster, cluster.protocol.alternate_protocols()?)));
        for (index, (_, cache)) in all().enumerate() {
            let earlier = all().take(index).find(|(_, earlier)| earlier.name == cache.name);
            if let Some((cluster, earlier)) = earlier.filter(|(_, earlier)| *earlier != cache) {
                let (name, cluster) = (&earlier.name, &cluster.name);
                let message = format!("the cache `{name}` has other options in cluster `{cluster}`");
                cx.report(Problem::new(cache.place.path.clone(), cache.place.span, message));
            }
        }
    }
}

impl UpstreamProtocol {
    /// The cache that says to which origins HTTP/3 is tried; `None`: no cache is asked.
    pub fn alternate_protocols(&self) -> Option<&AlternateProtocols> {
        match self {
            Self::Auto(options) if options.http3.is_some() => options.alternate_protocols.as_deref(),
            _ => None,
        }
    }
}

struct Entry {
    hostname: String,
    port: u16,
}

impl Message for Entry {
    const NAME: &'static str =
        "envoy.config.core.v3.AlternateProtocolsCacheOptions.AlternateProtocolsCacheEntry";

    fn read(r: &Reader<'_>) -> Self {
        let hostname = r.string("hostname").check(|name| {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_|~`".contains(&byte);
            if name.strip_prefix(':').unwrap_or(name).bytes().all(token) && name != ":" {
                Ok(())
            } else {
                Err(format!("`{name}` is no host name"))
            }
        });
        // Envoy's bound.
        let port = r.u32("port").within(1..=65_534).required();
        Self { hostname: hostname.or_default(), port: port.try_into().unwrap_or_default() }
    }
}

/// `envoy.config.common.key_value.v3.KeyValueStoreConfig`.
struct KeyValueStore(Option<KeyValueFile>);

impl Message for KeyValueStore {
    const NAME: &'static str = "envoy.config.common.key_value.v3.KeyValueStoreConfig";

    fn read(r: &Reader<'_>) -> Self {
        if !r.has("config") {
            r.problem("missing field `config`");
        }
        Self(BuiltIn::of(r, "config"))
    }
}

impl Message for KeyValueFile {
    const NAME: &'static str = "envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            filename: r.string("filename").required_non_empty(),
            flush_interval: r.duration("flush_interval").zero_is_off(None),
            max_entries: Some(r.u32("max_entries").or(1000)).filter(|most| *most > 0),
        }
    }
}

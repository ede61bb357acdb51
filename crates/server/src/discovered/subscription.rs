//! A watched file: how it is read, and what is counted about it, under Envoy's names (Envoy docs, "xDS
//! subscription statistics").

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_cluster::stats::BalanceStats;
use tidegate_config::Format;
use tidegate_config::discovery::ConfigSource;
use tidegate_config::discovery::response::{Refused, Response};
use tidegate_stats::{OwnedCounter, OwnedGauge, Scope, Store, stat_block};
use xxhash_rust::xxh64::xxh64;

stat_block! {
    /// Of every subscription but those for hosts.
    pub(crate) struct UpdateStats {
        counters { init_fetch_timeout, update_attempt, update_failure, update_rejected, update_success }
        gauges { update_time, version }
        histograms { update_duration }
    }
}

stat_block! {
    /// Of subscriptions whose changes are counted.
    pub(crate) struct ChangeStats {
        counters { config_reload }
        gauges { config_reload_time_ms }
    }
}

stat_block! {
    /// Of subscriptions for one resource.
    pub(crate) struct EmptyStats {
        counters { update_empty }
    }
}

stat_block! {
    /// `cluster.<name>.`, beside what every cluster has.
    pub(crate) struct HostUpdateStats {
        counters { init_fetch_timeout, update_rejected }
        gauges { update_time }
        histograms { update_duration }
    }
}

/// What a subscription is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    Clusters,
    Listeners,
    /// Of a connection manager with that `stat_prefix`, the table of that name.
    Routes(&'a str, &'a str),
    /// Of the cluster with that name in statistics.
    Hosts(&'a str),
}

/// See the module.
pub(crate) struct Subscription {
    pub(crate) source: ConfigSource,
    attempt: OwnedCounter,
    success: OwnedCounter,
    failure: OwnedCounter,
    rejected: OwnedCounter,
    empty: Option<OwnedCounter>,
    changes: Option<(OwnedCounter, OwnedGauge)>,
    version: OwnedGauge,
    time: OwnedGauge,
    name: String,
    store: Store,
    /// The file when it was read last.
    state: Mutex<Option<FileState>>,
}

/// What tells one content of a file from another without a look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl FileState {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { inode: meta.ino(), length: meta.len(), modified: meta.modified().ok() })
    }
}

/// What became of a response, to be counted when it is in force.
pub(crate) struct Tally {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) version: Arc<str>,
    /// `Ok`: whether something changed; `Err`: why not all was taken.
    pub(crate) outcome: Result<bool, String>,
}

impl Subscription {
    /// Subscribes to `source`, for what it holds of `kind`.
    ///
    /// # Errors
    /// When there is no such file, as in Envoy.
    pub(crate) fn new(source: &ConfigSource, kind: Kind<'_>, store: &Store) -> Result<Arc<Self>, String> {
        if !source.path.exists() {
            let path = source.path.display();
            return Err(format!(
                "paths must refer to an existing path in the system: '{path}' does not exist"
            ));
        }
        let scope = match kind {
            Kind::Clusters => Scope::new("cluster_manager", &["cds"]),
            Kind::Listeners => Scope::new("listener_manager", &["lds"]),
            Kind::Routes(prefix, name) => {
                Scope::http(prefix).child("rds").tagged("envoy.rds_route_config", name)
            }
            Kind::Hosts(cluster) => Scope::cluster(cluster),
        };
        let name = format!("{}version_text", scope.prefix());
        store.set_text(&name, "");
        let source = source.clone();
        let store = store.clone();
        if let Kind::Hosts(_) = kind {
            let balance = BalanceStats::new(&store, scope.clone());
            let more = HostUpdateStats::new(&store, scope);
            return Ok(Arc::new(Self {
                attempt: balance.update_attempt().owned(),
                success: balance.update_success().owned(),
                failure: balance.update_failure().owned(),
                rejected: more.update_rejected().owned(),
                empty: Some(balance.update_empty().owned()),
                changes: None,
                version: balance.version().owned(),
                time: more.update_time().owned(),
                source,
                name,
                store,
                state: Mutex::default(),
            }));
        }
        let updates = UpdateStats::new(&store, scope.clone());
        let changes = (!matches!(kind, Kind::Listeners)).then(|| ChangeStats::new(&store, scope.clone()));
        let empty = matches!(kind, Kind::Routes(..)).then(|| EmptyStats::new(&store, scope));
        Ok(Arc::new(Self {
            attempt: updates.update_attempt().owned(),
            success: updates.update_success().owned(),
            failure: updates.update_failure().owned(),
            rejected: updates.update_rejected().owned(),
            empty: empty.map(|empty| empty.update_empty().owned()),
            changes: changes
                .map(|stats| (stats.config_reload().owned(), stats.config_reload_time_ms().owned())),
            version: updates.version().owned(),
            time: updates.update_time().owned(),
            source,
            name,
            store,
            state: Mutex::default(),
        }))
    }

    /// Reads the file; `None`: what it holds cannot be used, which is counted and logged.
    pub(crate) fn read<T>(
        &self,
        parse: impl Fn(&str, &str, Format) -> Result<Response<T>, Refused>,
    ) -> Option<Response<T>> {
        let path = &self.source.path;
        let file = path.display().to_string();
        self.note_state();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            // Removed, or on its way to be replaced: nothing new, as to Envoy.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.attempt.inc();
                self.failure.inc();
                tracing::warn!(target: "config", "{file}: cannot be read, what it held goes on: {error}");
                return None;
            }
        };
        self.attempt.inc();
        match parse(&text, &file, Format::of(path)) {
            Ok(response) => Some(response),
            Err(refused) => {
                match refused {
                    Refused::Unreadable(_) => self.failure.inc(),
                    Refused::Invalid(_) => self.rejected.inc(),
                }
                tracing::warn!(target: "config", "update refused, what the file held before goes on:\n{refused}");
                None
            }
        }
    }

    fn note_state(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = FileState::of(&self.source.path);
    }

    /// Whether the file is another one than when it was read last: it may have changed before it was watched.
    pub(crate) fn is_stale(&self) -> bool {
        let now = FileState::of(&self.source.path);
        now.is_some() && *self.state.lock().unwrap_or_else(PoisonError::into_inner) != now
    }

    /// A response without the resource.
    pub(crate) fn count_empty(&self) {
        self.empty.iter().for_each(OwnedCounter::inc);
    }
}

impl Tally {
    /// Counts it.
    pub(crate) fn count(self) {
        let subscription = self.subscription;
        match self.outcome {
            Ok(changed) => {
                let now = now_ms();
                subscription.success.inc();
                subscription.time.view().set(now);
                subscription.version.view().set(xxh64(self.version.as_bytes(), 0).cast_signed());
                subscription.store.set_text(&subscription.name, &self.version);
                if let Some((reloads, at)) = subscription.changes.as_ref().filter(|_| changed) {
                    reloads.inc();
                    at.view().set(now);
                }
            }
            Err(details) => {
                subscription.rejected.inc();
                let path = subscription.source.path.display();
                tracing::warn!(target: "config", "{path}: update rejected: {details}");
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.store.forget_text(&self.name);
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

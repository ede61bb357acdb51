//! What the layers of `layered_runtime` hold at one time: static ones as configured, directories read, and the values
//! that were set through the admin server.
//!
//! Who reads the values, and what a change of them does, is not known here: see [`tidegate_config::runtime`] and
//! [`crate::reload`].

use std::cell::RefCell;
use std::path::Path;

use tidegate_config::Bootstrap;
use tidegate_config::runtime::{DiskLayer, Entries, Entry, LayerSource, Runtime, RuntimeLayer};
use tidegate_stats::{Scope, Store, stat_block};
use tidegate_types::json::{Problem, Span};

mod disk;

stat_block! {
    /// `runtime.`, as Envoy docs, "Runtime: statistics".
    pub(crate) struct RuntimeStats {
        counters {
            deprecated_feature_use, load_error, load_success, override_dir_exists, override_dir_not_exists
        }
        gauges {
            admin_overrides_active, deprecated_feature_seen_since_process_start, num_keys, num_layers
        }
    }
}

/// Loads runtimes.
#[derive(Debug)]
pub(crate) struct RuntimeLoader {
    /// What the admin layer holds. Outlives reloads.
    overrides: RefCell<Entries>,
    stats: RuntimeStats,
}

impl RuntimeLoader {
    pub(crate) fn new(store: &Store) -> Self {
        let stats = RuntimeStats::new(store, Scope::new("runtime", &[]));
        Self { overrides: RefCell::default(), stats }
    }

    /// What the layers of `bootstrap` hold now.
    ///
    /// # Errors
    /// A directory that cannot be read, or a link whose own directory is not there.
    pub(crate) fn load(&self, bootstrap: &Bootstrap) -> Result<Runtime, Problem> {
        self.load_with(bootstrap, &self.overrides.borrow())
    }

    /// The same with other values of the admin server.
    ///
    /// # Errors
    /// As [`RuntimeLoader::load`].
    pub(crate) fn load_with(&self, bootstrap: &Bootstrap, overrides: &Entries) -> Result<Runtime, Problem> {
        let loaded = self.layers(bootstrap, overrides);
        match &loaded {
            Ok(_) => self.stats.load_success().inc(),
            Err(_) => self.stats.load_error().inc(),
        }
        loaded
    }

    fn layers(&self, bootstrap: &Bootstrap, overrides: &Entries) -> Result<Runtime, Problem> {
        let mut layers = Vec::new();
        let mut directories = 0;
        for layer in &bootstrap.layered_runtime.layers {
            let entries = match &layer.source {
                LayerSource::Static(entries) => entries.clone(),
                LayerSource::Admin => overrides.clone(),
                LayerSource::Disk(disk) => match directory(layer, disk, &bootstrap.node.cluster)? {
                    Some(entries) => {
                        directories += 1;
                        entries
                    }
                    // As in Envoy, the layer is not there.
                    None => continue,
                },
            };
            layers.push((layer.name.clone(), entries));
        }
        // Envoy calls every directory after the first an override.
        match directories > 1 {
            true => self.stats.override_dir_exists().inc(),
            false => self.stats.override_dir_not_exists().inc(),
        }
        Ok(Runtime::new(layers))
    }

    /// What the admin layer holds once these values are set; an empty one removes the key.
    pub(crate) fn overrides_with(&self, pairs: &[(String, String)]) -> Entries {
        let mut overrides = self.overrides.borrow().clone();
        for (key, text) in pairs {
            match text.as_str() {
                "" => drop(overrides.remove(key)),
                text => drop(overrides.insert(key.clone(), Entry::of_text(text))),
            }
        }
        overrides
    }

    pub(crate) fn set_overrides(&self, overrides: Entries) {
        *self.overrides.borrow_mut() = overrides;
    }

    /// `runtime` is served from now on.
    pub(crate) fn serves(&self, bootstrap: &Bootstrap) {
        let overridden = bootstrap.layered_runtime.has_admin_layer() && !self.overrides.borrow().is_empty();
        self.stats.admin_overrides_active().set(overridden.into());
        self.stats.num_keys().set(bootstrap.runtime.values.len() as i64);
        self.stats.num_layers().set(bootstrap.runtime.layers.len() as i64);
    }
}

/// `None`: there is no such directory below the link.
fn directory(layer: &RuntimeLayer, disk: &DiskLayer, cluster: &str) -> Result<Option<Entries>, Problem> {
    let problem = |message| Problem::new(layer.path.field("disk_layer"), Span::default(), message);
    // Envoy does not start either: a link may come later, but the directory that it will be in is watched.
    let home = disk.symlink_root.parent().filter(|home| !home.as_os_str().is_empty());
    if let Err(error) = std::fs::metadata(home.unwrap_or(Path::new("."))) {
        return Err(problem(format!("symlink_root `{}`: {error}", disk.symlink_root.display())));
    }
    disk::read(&disk.directory(cluster)).map_err(problem)
}

#[cfg(test)]
mod tests;

//! `layered_runtime`: where runtime values come from.

use std::path::PathBuf;

use tidegate_types::json::{JsonPath, Kind, Node};

use super::value::{Entries, Entry, is_fraction};
use crate::reader::{Message, Reader, Space};

/// `LayeredRuntime`: of a key that several layers have, the last one's value holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayeredRuntime {
    /// `layers`.
    pub layers: Vec<RuntimeLayer>,
}

/// `RuntimeLayer`.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeLayer {
    /// `name`, unique; empty only in the layer that stands in for none.
    pub name: String,
    /// Where its values are.
    pub source: LayerSource,
    /// Where it stands in the configuration.
    pub path: JsonPath,
}

/// What kind of layer it is.
#[derive(Debug, Clone, PartialEq)]
pub enum LayerSource {
    /// `static_layer`.
    Static(Entries),
    /// `disk_layer`.
    Disk(DiskLayer),
    /// `admin_layer`: values that are set through the admin server. At most one layer is of this kind.
    Admin,
}

/// `RuntimeLayer.DiskLayer`: files, of which each is a value, and its path the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskLayer {
    /// `symlink_root`: the link that is swapped to change the values, never empty.
    pub symlink_root: PathBuf,
    /// `subdirectory` of it that holds the files; empty for none.
    pub subdirectory: String,
    /// `append_service_cluster`: the files are in a directory below, with the name of `--service-cluster`.
    pub append_service_cluster: bool,
}

impl DiskLayer {
    /// The directory that holds the files, for a proxy that belongs to `cluster`.
    pub fn directory(&self, cluster: &str) -> PathBuf {
        let mut path = self.symlink_root.clone();
        let below = if self.append_service_cluster { cluster } else { "" };
        path.extend([self.subdirectory.as_str(), below].iter().filter(|part| !part.is_empty()));
        path
    }
}

impl LayeredRuntime {
    /// What it is in force as: one that names no layers has one that the admin server sets, as in Envoy.
    pub(crate) fn or_admin_layer(mut self) -> Self {
        if self.layers.is_empty() {
            let path = JsonPath::root().field("layered_runtime");
            self.layers.push(RuntimeLayer { name: String::new(), source: LayerSource::Admin, path });
        }
        self
    }

    /// Whether there is an admin layer.
    pub fn has_admin_layer(&self) -> bool {
        self.layers.iter().any(|layer| layer.source == LayerSource::Admin)
    }

    /// The layers that are directories.
    pub fn disk_layers(&self) -> impl Iterator<Item = &DiskLayer> {
        self.layers.iter().filter_map(|layer| match &layer.source {
            LayerSource::Disk(disk) => Some(disk),
            LayerSource::Static(_) | LayerSource::Admin => None,
        })
    }
}

impl Message for LayeredRuntime {
    const NAME: &'static str = "envoy.config.bootstrap.v3.LayeredRuntime";

    fn read(r: &Reader<'_>) -> Self {
        let layers: Vec<_> =
            r.repeated::<Option<RuntimeLayer>>("layers").or_default().into_iter().flatten().collect();
        if layers.iter().filter(|layer| layer.source == LayerSource::Admin).count() > 1 {
            r.problem("more than one layer is an `admin_layer`");
        }
        Self { layers }
    }
}

impl Message for Option<RuntimeLayer> {
    const NAME: &'static str = "envoy.config.bootstrap.v3.RuntimeLayer";

    fn read(r: &Reader<'_>) -> Self {
        let name = r.string("name").unique(Space::RuntimeLayer).required_non_empty();
        let entries = r.structure("static_layer").convert(|node| {
            let mut entries = Entries::new();
            flatten("", &node, &mut entries)?;
            Ok(entries)
        });
        let disk = r.message::<DiskLayer>("disk_layer").optional();
        let admin = r.message::<AdminLayer>("admin_layer").optional();
        r.exactly_one(&["static_layer", "disk_layer", "admin_layer"]);
        let source = match (entries.optional(), disk, admin) {
            (Some(entries), ..) => LayerSource::Static(entries),
            (_, Some(disk), _) => LayerSource::Disk(disk),
            (_, _, Some(AdminLayer)) => LayerSource::Admin,
            // Reported.
            _ => return None,
        };
        Some(RuntimeLayer { name, source, path: r.path.clone() })
    }
}

impl Message for DiskLayer {
    const NAME: &'static str = "envoy.config.bootstrap.v3.RuntimeLayer.DiskLayer";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            symlink_root: r.string("symlink_root").required_non_empty().into(),
            subdirectory: r.string("subdirectory").or_default(),
            append_service_cluster: r.bool("append_service_cluster").or_default(),
        }
    }
}

/// `RuntimeLayer.AdminLayer`.
struct AdminLayer;

impl Message for AdminLayer {
    const NAME: &'static str = "envoy.config.bootstrap.v3.RuntimeLayer.AdminLayer";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

fn flatten(prefix: &str, node: &Node, entries: &mut Entries) -> Result<(), String> {
    for member in node.members() {
        let key = if prefix.is_empty() { member.key.to_string() } else { format!("{prefix}.{}", member.key) };
        match (&member.value.kind, Entry::of_node(&member.value)) {
            (Kind::Object(_), _) if !is_fraction(&member.value) => flatten(&key, &member.value, entries)?,
            (_, Some(entry)) => {
                entries.insert(key, entry);
            }
            (_, None) => return Err(format!("runtime key `{key}` holds {}", member.value.describe())),
        }
    }
    Ok(())
}

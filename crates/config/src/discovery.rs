//! Where resources come from that are not in the bootstrap: `envoy.config.core.v3.ConfigSource` and the messages
//! that hold one.
//!
//! Only files are supported ([`ConfigSource`]); what is in such a file is read by [`response`].
//! Source: Envoy docs, "xDS configuration API overview".

use std::path::PathBuf;
use std::time::Duration;

use crate::reader::{Message, Reader};
use crate::values::WatchedDirectory;

pub mod response;

/// `ConfigSource`: a file that is watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigSource {
    /// `path_config_source.path`, or the deprecated `path`.
    pub path: PathBuf,
    /// `path_config_source.watched_directory`: any move within it means that the file is to be read again.
    pub watched_directory: Option<PathBuf>,
    /// `initial_fetch_timeout`, 15 s when unset: how long a start may wait for a first answer. A file has it at once,
    /// be it that it cannot be read: so this bounds nothing.
    pub initial_fetch_timeout: Duration,
}

/// `dynamic_resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DynamicResources {
    /// `lds_config`: listeners.
    pub lds: Option<ConfigSource>,
    /// `cds_config`: clusters.
    pub cds: Option<ConfigSource>,
}

/// `rds`: a connection manager's route table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rds {
    /// `route_config_name`, never empty.
    pub name: String,
    /// `config_source`.
    pub source: ConfigSource,
}

/// `eds_cluster_config`: a cluster's hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Eds {
    /// `service_name`; `None`: the cluster's name.
    pub service_name: Option<String>,
    /// `eds_config`.
    pub source: ConfigSource,
}

impl Message for Option<ConfigSource> {
    const NAME: &'static str = "envoy.config.core.v3.ConfigSource";

    fn read(r: &Reader<'_>) -> Self {
        for elsewhere in ["api_config_source", "ads", "self"] {
            r.refuse(elsewhere, "only files are supported as a source: use `path_config_source`");
        }
        r.enumeration("resource_api_version", &[("AUTO", 0, ()), ("V3", 2, ())], &[("V2", 1)]).or_default();
        let timeout = r.duration("initial_fetch_timeout").or(Duration::from_secs(15));
        let file = r.message::<PathSource>("path_config_source").optional();
        let deprecated = r.string("path").non_empty();
        r.exactly_one(&["path_config_source", "path"]);
        let (path, watched_directory) = match (file, deprecated) {
            (Some(file), _) => (file.path, file.watched_directory),
            (None, Some(path)) => (path.into(), None),
            (None, None) => return None,
        };
        Some(ConfigSource { path, watched_directory, initial_fetch_timeout: timeout })
    }
}

struct PathSource {
    path: PathBuf,
    watched_directory: Option<PathBuf>,
}

impl Message for PathSource {
    const NAME: &'static str = "envoy.config.core.v3.PathConfigSource";

    fn read(r: &Reader<'_>) -> Self {
        let directory = r.message::<WatchedDirectory>("watched_directory").optional();
        Self {
            path: r.string("path").required_non_empty().into(),
            watched_directory: directory.map(|directory| directory.0.into()),
        }
    }
}

impl Message for DynamicResources {
    const NAME: &'static str = "envoy.config.bootstrap.v3.Bootstrap.DynamicResources";

    fn read(r: &Reader<'_>) -> Self {
        r.refuse("ads_config", "only files are supported as a source: use `lds_config` and `cds_config`");
        Self {
            lds: r.message::<Option<ConfigSource>>("lds_config").optional().flatten(),
            cds: r.message::<Option<ConfigSource>>("cds_config").optional().flatten(),
        }
    }
}

impl Message for Option<Rds> {
    const NAME: &'static str = "envoy.extensions.filters.network.http_connection_manager.v3.Rds";

    fn read(r: &Reader<'_>) -> Self {
        let name = r.string("route_config_name").required_non_empty();
        let source = r.required_message::<Option<ConfigSource>>("config_source");
        Some(Rds { name, source: source? })
    }
}

impl Message for Option<Eds> {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.EdsClusterConfig";

    fn read(r: &Reader<'_>) -> Self {
        let service_name = r.string("service_name").check(|name| match name.starts_with("xdstp:") {
            true => Err("`xdstp:` names are not supported by this build".to_owned()),
            false => Ok(()),
        });
        let service_name = service_name.non_empty();
        let source = r.required_message::<Option<ConfigSource>>("eds_config");
        Some(Eds { service_name, source: source? })
    }
}

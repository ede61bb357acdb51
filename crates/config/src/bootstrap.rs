//! `envoy.config.bootstrap.v3.Bootstrap`: the whole file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_types::Address;

use crate::access_log::AccessLogConfig;
use crate::{ClusterConfig, ListenerConfig};

/// The validated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// `node`: who this proxy says it is.
    pub node: Node,
    /// `admin`; `None` starts no admin server.
    pub admin: Option<AdminConfig>,
    /// `static_resources.listeners`, in file order, names unique.
    pub listeners: Vec<Arc<ListenerConfig>>,
    /// `static_resources.clusters`, in file order, names unique.
    pub clusters: Vec<Arc<ClusterConfig>>,
    /// `layered_runtime` flattened: the last layer that names a key wins.
    pub runtime: Runtime,
    /// Most downstream connections of all listeners that do not set `ignore_global_conn_limit`: the
    /// `envoy.resource_monitors.global_downstream_max_connections` resource monitor or, when absent, the
    /// runtime key `overload.global_downstream_max_connections`. `None`: no limit.
    pub global_downstream_max_connections: Option<u64>,
    /// `stats_flush_interval`, 5 s when unset.
    pub stats_flush_interval: Duration,
}

/// `node`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// `id`.
    pub id: String,
    /// `cluster`.
    pub cluster: String,
    /// `locality`.
    pub locality: Locality,
}

/// `envoy.config.core.v3.Locality`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// `region`.
    pub region: String,
    /// `zone`.
    pub zone: String,
    /// `sub_zone`.
    pub sub_zone: String,
}

/// `admin`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminConfig {
    /// `address`.
    pub address: Address,
    /// `access_log`.
    pub access_log: Vec<AccessLogConfig>,
    /// `profile_path`, kept for `/server_info`.
    pub profile_path: Option<String>,
    /// `ignore_global_conn_limit`: admin connections do not count against the global limit.
    pub ignore_global_conn_limit: bool,
}

/// Runtime values from `layered_runtime`'s static layers. Nested structs are joined with dots.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    /// Key to value, as the number, boolean or string was written.
    pub values: BTreeMap<String, RuntimeValue>,
}

/// One runtime value.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeValue {
    /// A number, or a string that reads as one.
    Number(f64),
    /// A boolean, or the strings `true` and `false`.
    Bool(bool),
    /// Any other string.
    Text(String),
}

impl Runtime {
    /// The key's value as an unsigned integer; `None` when unset or of another kind.
    pub fn integer(&self, key: &str) -> Option<u64> {
        match self.values.get(key)? {
            RuntimeValue::Number(n) if *n >= 0.0 && n.fract() == 0.0 => Some(*n as u64),
            _ => None,
        }
    }

    /// The key's value as a number; `None` when unset or of another kind.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.values.get(key)? {
            RuntimeValue::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// The key's value as a boolean; `None` when unset or of another kind.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.values.get(key)? {
            RuntimeValue::Bool(b) => Some(*b),
            _ => None,
        }
    }
}

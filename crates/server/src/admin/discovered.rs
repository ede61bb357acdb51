//! `/config_dump`: what watched files brought.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::redact::redact;
use crate::control::Control;
use crate::discovered::{Collection, Found, Refusal};
use crate::logging::line::rfc3339;
use crate::snapshot::Snapshot;

/// A list of discovered resources.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    ActiveClusters,
    WarmingClusters,
    Listeners,
    Routes,
}

/// The entries of `part` whose names `shown` takes, in Envoy's shape.
pub(super) fn entries(
    part: Part,
    control: &Control,
    snapshot: &Snapshot,
    shown: &dyn Fn(&str) -> bool,
) -> Vec<Value> {
    let discovered = &snapshot.discovered;
    match part {
        Part::ActiveClusters | Part::WarmingClusters => {
            let warming = control.warming.borrow();
            let found = discovered.cds.iter().flat_map(|cds| &cds.found);
            let found = found.filter(|found| {
                let is_warming = warming.contains_key(found.config.name.as_str());
                is_warming == (part == Part::WarmingClusters) && shown(&found.config.name)
            });
            found.map(|found| dynamic("cluster", CLUSTER, found)).collect()
        }
        Part::Listeners => discovered.lds.iter().flat_map(|lds| listeners(lds, shown)).collect(),
        Part::Routes => {
            let tables = discovered.rds.values().filter_map(|single| single.found());
            let tables = tables.filter(|found| shown(&found.config.name));
            tables.map(|found| dynamic("route_config", ROUTES, &found)).collect()
        }
    }
}

/// Each in its active state; an update that was refused stands beside what it was to replace.
fn listeners(
    lds: &Arc<Collection<tidegate_config::ListenerConfig>>,
    shown: &dyn Fn(&str) -> bool,
) -> Vec<Value> {
    let error = |name: &str| lds.refused.iter().find(|refusal| refusal.name == name).map(error_state);
    let active = lds.found.iter().filter(|found| shown(&found.config.name)).map(|found| {
        let name = &found.config.name;
        let mut entry = json!({"name": name, "active_state": dynamic("listener", LISTENER, found)});
        if let Some(error) = error(name) {
            entry["error_state"] = error;
        }
        entry
    });
    let is_active = |name: &str| lds.found.iter().any(|found| found.config.name == name);
    let only_refused = lds.refused.iter().filter(|refusal| !is_active(&refusal.name) && shown(&refusal.name));
    let refused =
        only_refused.map(|refusal| json!({"name": refusal.name, "error_state": error_state(refusal)}));
    active.chain(refused).collect()
}

fn error_state(refusal: &Refusal) -> Value {
    json!({
        "failed_configuration": resource(LISTENER, &refusal.text),
        "last_update_attempt": rfc3339(refusal.at),
        "details": refusal.details,
    })
}

fn dynamic<T>(key: &str, type_url: &str, found: &Found<T>) -> Value {
    let mut entry = Map::new();
    if !found.version.is_empty() {
        entry.insert("version_info".to_owned(), (*found.version).into());
    }
    entry.insert(key.to_owned(), resource(type_url, &found.text));
    entry.insert("last_updated".to_owned(), rfc3339(found.at).into());
    Value::Object(entry)
}

/// A resource as it was written, without its secrets.
fn resource(type_url: &str, text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap_or_default();
    redact(&mut value);
    if value.is_object() {
        value["@type"] = type_url.into();
    }
    value
}

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

//! `/config_dump`: the configuration as it was loaded, in Envoy's shape, and how reloads went.

use std::rc::Rc;

use http::StatusCode;
use regex::Regex;
use serde_json::{Map, Value, json};
use tidegate_types::json::lower_camel;

use super::Reply;
use super::discovered::{self, Part};
use super::endpoints;
use super::mask::Mask;
use super::query::Query;
use super::redact::redact;
use crate::control::Control;
use crate::logging::line::rfc3339;
use crate::snapshot::Snapshot;

/// `/config_dump[?resource=FIELD][&mask=PATH,..][&name_regex=REGEX][&include_eds]`
pub(super) fn config_dump(control: &Rc<Control>, query: &Query) -> Reply {
    let names = match query.value("name_regex").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match Regex::new(text) {
            Ok(names) => Some(names),
            Err(error) => {
                let place = format!("INVALID_ARGUMENT: Error while parsing name_regex from {text}");
                return refuse(StatusCode::BAD_REQUEST, format!("{place}: {error}"));
            }
        },
    };
    let mask = query.value("mask").and_then(Mask::parse);
    let snapshot = control.snapshot();
    let mut dump = Dump::new(control, &snapshot, names.as_ref());
    dump.with_hosts = query.has("include_eds");
    let resource = query.value("resource").filter(|field| !field.is_empty());
    let answer = match (resource, &mask) {
        (None, None) => {
            let mut answer = json!({"configs": dump.all()});
            answer["tidegate"] = reload_state(control, &snapshot);
            Ok(answer)
        }
        (None, Some(mask)) => dump.masked(mask, query.value("mask").unwrap_or_default()).map(configs),
        (Some(field), mask) => dump.resource(field, mask.as_ref()).map(configs),
    };
    answer.map_or_else(|(status, why)| refuse(status, why), |answer| Reply::json(&answer))
}

/// As protobuf prints it: no list without entries.
fn configs(found: Vec<Value>) -> Value {
    if found.is_empty() { json!({}) } else { json!({"configs": found}) }
}

/// Envoy's refusals of this page have no charset.
fn refuse(status: StatusCode, why: String) -> Reply {
    Reply { content_type: "text/plain", ..Reply::with(status, why) }
}

/// What is Tidegate's own: which configuration this is, and why the last one was refused.
fn reload_state(control: &Control, snapshot: &Snapshot) -> Value {
    let mut state = json!({
        "generation": snapshot.generation,
        "source": control.source.name(),
        "last_updated": rfc3339(snapshot.base.loaded_at),
    });
    if let Some(failure) = &*control.last_failure.borrow() {
        state["error_state"] = json!({
            "last_update_attempt": rfc3339(failure.at),
            "details": failure.details.lines().collect::<Vec<_>>(),
        });
    }
    state
}

struct Dump<'a> {
    control: &'a Control,
    snapshot: &'a Snapshot,
    with_hosts: bool,
    root: Value,
    updated: String,
    names: Option<&'a Regex>,
}

impl<'a> Dump<'a> {
    fn new(control: &'a Control, snapshot: &'a Snapshot, names: Option<&'a Regex>) -> Self {
        let mut root =
            tidegate_config::loader::tree(&snapshot.base.text, snapshot.base.format).unwrap_or_default();
        redact(&mut root);
        let updated = rfc3339(snapshot.base.loaded_at);
        Self { control, snapshot, with_hosts: false, root, updated, names }
    }

    /// Envoy's parts in its order.
    fn all(&self) -> Vec<Value> {
        let mut parts = vec![json!({
            "@type": format!("{ADMIN}BootstrapConfigDump"),
            "bootstrap": self.root,
            "last_updated": self.updated,
        })];
        let hosts = ("EndpointsConfigDump", &["static_endpoint_configs", "dynamic_endpoint_configs"][..]);
        let discovered = &self.snapshot.discovered;
        for (message, fields) in [
            (
                "ClustersConfigDump",
                &["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"][..],
            ),
            hosts,
            ("ListenersConfigDump", &["static_listeners", "dynamic_listeners"]),
            ("ScopedRoutesConfigDump", &[]),
            ("RoutesConfigDump", &["static_route_configs", "dynamic_route_configs"]),
            ("SecretsConfigDump", &["static_secrets"]),
        ] {
            if message == hosts.0 && !self.with_hosts {
                continue;
            }
            let mut part = Map::new();
            part.insert("@type".to_owned(), format!("{ADMIN}{message}").into());
            let version = match message {
                "ClustersConfigDump" => discovered.cds.as_ref().map(|cds| &cds.version),
                "ListenersConfigDump" => discovered.lds.as_ref().map(|lds| &lds.version),
                _ => None,
            };
            if let Some(version) = version.filter(|version| !version.is_empty()) {
                part.insert("version_info".to_owned(), (**version).into());
            }
            for field in fields {
                let entries = self.entries(field).unwrap_or_default();
                if !entries.is_empty() {
                    part.insert((*field).to_owned(), entries.into());
                }
            }
            parts.push(Value::Object(part));
        }
        parts
    }

    /// What `mask` leaves of the parts that have every field of it.
    fn masked(&self, mask: &Mask<'_>, text: &str) -> Result<Vec<Value>, (StatusCode, String)> {
        let left: Vec<_> = self.all().iter().filter_map(|part| mask.all_of(part)).collect();
        if left.is_empty() {
            let why = format!("FieldMask {text} could not be successfully applied to any configs.");
            return Err((StatusCode::BAD_REQUEST, why));
        }
        Ok(left)
    }

    /// The entries of one repeated field, each with its type.
    fn resource(&self, field: &str, mask: Option<&Mask<'_>>) -> Result<Vec<Value>, (StatusCode, String)> {
        if field == "bootstrap" {
            let why = "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field";
            return Err((StatusCode::BAD_REQUEST, why.to_owned()));
        }
        let entries = self.typed_entries(field);
        let entries =
            entries.ok_or_else(|| (StatusCode::NOT_FOUND, format!("{field} not found in config dump")))?;
        let Some(mask) = mask else { return Ok(entries) };
        let refused = || {
            let mask = mask.debug();
            (StatusCode::BAD_REQUEST, format!("FieldMask {mask} could not be successfully used."))
        };
        mask.of_each(&entries).ok_or_else(refused)
    }

    fn typed_entries(&self, field: &str) -> Option<Vec<Value>> {
        let message = match field {
            "static_secrets" => "SecretsConfigDump.StaticSecret",
            "static_clusters" => "ClustersConfigDump.StaticCluster",
            "static_listeners" => "ListenersConfigDump.StaticListener",
            "static_route_configs" => "RoutesConfigDump.StaticRouteConfig",
            "dynamic_active_clusters" | "dynamic_warming_clusters" => "ClustersConfigDump.DynamicCluster",
            "dynamic_listeners" => "ListenersConfigDump.DynamicListener",
            "dynamic_route_configs" => "RoutesConfigDump.DynamicRouteConfig",
            "static_endpoint_configs" => "EndpointsConfigDump.StaticEndpointConfig",
            "dynamic_endpoint_configs" => "EndpointsConfigDump.DynamicEndpointConfig",
            _ => return None,
        };
        let mut entries = self.entries(field)?;
        for entry in &mut entries {
            entry["@type"] = format!("{ADMIN}{message}").into();
        }
        Some(entries)
    }

    fn entries(&self, field: &str) -> Option<Vec<Value>> {
        let shown = |name: &str| self.names.is_none_or(|names| names.is_match(name));
        let found = match field {
            "dynamic_active_clusters" => Part::ActiveClusters,
            "dynamic_warming_clusters" => Part::WarmingClusters,
            "dynamic_listeners" => Part::Listeners,
            "dynamic_route_configs" => Part::Routes,
            "static_endpoint_configs" => return Some(self.hosts(Origin::Static)),
            "dynamic_endpoint_configs" => return Some(self.hosts(Origin::Discovered)),
            _ => return self.static_entries(field),
        };
        Some(discovered::entries(found, self.control, self.snapshot, &shown))
    }

    /// The hosts of clusters from there.
    fn hosts(&self, origin: Origin) -> Vec<Value> {
        let clusters = self.snapshot.clusters.iter().filter(|cluster| {
            self.snapshot.is_discovered(cluster) == (origin == Origin::Discovered)
                && self.names.is_none_or(|names| names.is_match(cluster.name()))
        });
        clusters.map(|cluster| endpoints::assignment(cluster)).collect()
    }

    fn static_entries(&self, field: &str) -> Option<Vec<Value>> {
        let resources = member(&self.root, "static_resources");
        // One stands for a list of it.
        let list = |name| match resources.and_then(|r| member(r, name)) {
            Some(Value::Array(items)) => items.as_slice(),
            Some(Value::Null) | None => &[],
            Some(one) => std::slice::from_ref(one),
        };
        let (key, message, values): (_, _, Vec<&Value>) = match field {
            "static_clusters" => ("cluster", "config.cluster.v3.Cluster", list("clusters").iter().collect()),
            "static_secrets" => ("secret", TLS_SECRET, by_kind(list("secrets"))),
            "static_listeners" => {
                ("listener", "config.listener.v3.Listener", list("listeners").iter().collect())
            }
            "static_route_configs" => {
                let mut routes = Vec::new();
                list("listeners").iter().for_each(|l| route_configs(l, &mut routes));
                ("route_config", "config.route.v3.RouteConfiguration", routes)
            }
            _ => return None,
        };
        let name = |value: &Value| value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let shown = |value: &&Value| self.names.is_none_or(|names| names.is_match(&name(value)));
        let entry = |value: &Value| {
            let mut value = value.clone();
            if value.is_object() {
                value["@type"] = format!("type.googleapis.com/envoy.{message}").into();
            }
            match key {
                // Static secrets have no time, as in Envoy.
                "secret" => json!({"name": value["name"], key: value}),
                _ => json!({key: value, "last_updated": self.updated}),
            }
        };
        Some(values.into_iter().filter(shown).map(entry).collect())
    }
}

/// Where a cluster is from: the bootstrap, or a watched file.
#[derive(PartialEq)]
enum Origin {
    Static,
    Discovered,
}

/// Secrets in Envoy's order: a kind after the other.
fn by_kind(secrets: &[Value]) -> Vec<&Value> {
    const KINDS: [&str; 3] = ["tls_certificate", "validation_context", "session_ticket_keys"];
    let mut secrets: Vec<_> = secrets.iter().collect();
    secrets.sort_by_key(|secret| KINDS.iter().position(|kind| member(secret, kind).is_some()).unwrap_or(3));
    secrets
}

/// A field under either of its proto3-JSON names.
fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.get(name).or_else(|| value.get(lower_camel(name)))
}

/// All `route_config`s inside `value`.
fn route_configs<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "route_config" | "routeConfig" => found.push(value),
                    _ => route_configs(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| route_configs(item, found)),
        _ => {}
    }
}

const TLS_SECRET: &str = "extensions.transport_sockets.tls.v3.Secret";
const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

//! `/listeners`.

use std::rc::Rc;

use serde_json::{Value, json};
use tidegate_types::Address;

use super::Reply;
use super::query::Query;
use crate::control::Control;

/// `/listeners[?format=json]`: names and addresses as bound, in file order.
pub(super) fn listeners(control: &Rc<Control>, query: &Query) -> Reply {
    let snapshot = control.snapshot();
    let listeners = snapshot.listeners.iter().map(|listener| {
        let name = listener.config.name.clone();
        let address = control.bound_address(&name).unwrap_or_else(|| listener.config.address.clone());
        (name, address)
    });
    if query.value("format") != Some("json") {
        return Reply::text(
            listeners.map(|(name, address)| format!("{name}::{address}\n")).collect::<String>(),
        );
    }
    let statuses: Vec<_> = listeners
        .map(|(name, address)| json!({"name": name, "local_address": address_json(&address)}))
        .collect();
    let mut answer = serde_json::Map::new();
    if !statuses.is_empty() {
        answer.insert("listener_statuses".to_owned(), statuses.into());
    }
    Reply::json(&Value::Object(answer))
}

/// `envoy.config.core.v3.Address`.
pub(super) fn address_json(address: &Address) -> Value {
    match address {
        Address::Ip(ip) => {
            json!({"socket_address": {"address": ip.ip().to_string(), "port_value": ip.port()}})
        }
        Address::Unix(path) => json!({"pipe": {"path": path.display().to_string()}}),
    }
}

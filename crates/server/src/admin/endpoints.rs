//! `/config_dump?include_eds`: the hosts that clusters have now, resolved and with their health.

use serde_json::{Map, Value, json};
use tidegate_cluster::lb::Health;
use tidegate_cluster::{ClusterShared, HostAttributes, HostShared};
use tidegate_config::loader;

use super::listeners::address_json;

/// The hosts of `cluster` as Envoy shows them: one entry for each priority and locality, in the order in which
/// they were found.
pub(super) fn assignment(cluster: &ClusterShared) -> Value {
    let mut places: Vec<(u32, Value, Map<String, Value>)> = Vec::new();
    for host in &cluster.hosts().hosts {
        let attributes = host.attributes();
        let locality = locality_json(&attributes);
        let same = |place: &&mut (u32, Value, _)| place.0 == attributes.priority && place.1 == locality;
        match places.iter_mut().find(same) {
            Some((_, _, place)) => push(place, host_json(host, &attributes)),
            None => {
                let mut place = place_json(&attributes, locality.clone());
                push(&mut place, host_json(host, &attributes));
                places.push((attributes.priority, locality, place));
            }
        }
    }
    // By priority, and in one as they came.
    places.sort_by_key(|(priority, ..)| *priority);
    let config = cluster.config();
    let service = config.eds.as_ref().and_then(|eds| eds.service_name.as_deref());
    let mut assignment = json!({
        "@type": ASSIGNMENT,
        "cluster_name": service.unwrap_or(cluster.name()),
        "policy": {"overprovisioning_factor": config.overprovisioning_factor},
    });
    if let Some(drop) = cluster.drop_overload() {
        let share = json!({"numerator": drop.per_million, "denominator": "MILLION"});
        assignment["policy"]["drop_overloads"] =
            json!([{"category": drop.category, "drop_percentage": share}]);
    }
    if !places.is_empty() {
        assignment["endpoints"] = places.into_iter().map(|(_, _, place)| Value::Object(place)).collect();
    }
    json!({"endpoint_config": assignment})
}

fn push(place: &mut Map<String, Value>, host: Value) {
    if let Some(hosts) = place.get_mut("lb_endpoints").and_then(Value::as_array_mut) {
        hosts.push(host);
    }
}

fn place_json(attributes: &HostAttributes, locality: Value) -> Map<String, Value> {
    let mut place = Map::new();
    place.insert("locality".to_owned(), locality);
    place.insert("lb_endpoints".to_owned(), Value::Array(Vec::new()));
    place.insert("load_balancing_weight".to_owned(), attributes.locality_weight.unwrap_or(0).into());
    if attributes.priority > 0 {
        place.insert("priority".to_owned(), attributes.priority.into());
    }
    place
}

fn locality_json(attributes: &HostAttributes) -> Value {
    let locality = &attributes.locality;
    let parts = [("region", &locality.region), ("zone", &locality.zone), ("sub_zone", &locality.sub_zone)];
    let set = parts.into_iter().filter(|(_, name)| !name.is_empty());
    set.map(|(key, name)| (key.to_owned(), name.as_str().into())).collect::<Map<_, _>>().into()
}

fn host_json(host: &HostShared, attributes: &HostAttributes) -> Value {
    let mut check = Map::new();
    if !attributes.health_check.hostname.is_empty() {
        check.insert("hostname".to_owned(), attributes.health_check.hostname.as_str().into());
    }
    if let Some(port) = attributes.health_check.port {
        check.insert("port_value".to_owned(), port.into());
    }
    let mut endpoint = json!({"address": address_json(&host.address()), "health_check_config": check});
    if !attributes.hostname.is_empty() {
        endpoint["hostname"] = attributes.hostname.as_str().into();
    }
    let others = host.addresses().all();
    let others: Vec<_> = others.iter().skip(1).map(|other| json!({"address": address_json(other)})).collect();
    if !others.is_empty() {
        endpoint["additional_addresses"] = others.into();
    }
    let health = match host.health() {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
    };
    let mut json = json!({
        "endpoint": endpoint,
        "health_status": health,
        "load_balancing_weight": attributes.weight,
    });
    if let Some(labels) = &attributes.metadata {
        json["metadata"] = json!({"filter_metadata": loader::value(labels)});
    }
    json
}

const ASSIGNMENT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

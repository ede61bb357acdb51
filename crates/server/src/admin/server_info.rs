//! `/server_info`, `/memory`, `/runtime`.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidegate_config::RuntimeValue;

use super::Reply;
use super::query::Query;
use crate::control::Control;
use crate::gauges::Memory;

/// `/server_info`
pub(super) fn info(control: &Rc<Control>, _: &Query) -> Reply {
    let snapshot = control.snapshot();
    let node = &snapshot.bootstrap.node;
    let uptime = seconds(Duration::from_secs(control.started.elapsed().as_secs()));
    let version: Vec<u32> = env!("CARGO_PKG_VERSION").split('.').filter_map(|n| n.parse().ok()).collect();
    Reply::json(&json!({
        "version": concat!("tidegate/", env!("CARGO_PKG_VERSION")),
        "state": control.state().as_str(),
        "hot_restart_version": "disabled",
        "hot_restart_initializing": false,
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "command_line_options": options(control),
        "node": {
            "id": node.id,
            "cluster": node.cluster,
            "locality": {
                "region": node.locality.region,
                "zone": node.locality.zone,
                "sub_zone": node.locality.sub_zone,
            },
            "user_agent_name": "tidegate",
            "user_agent_build_version": {"version": {
                "major_number": version.first(),
                "minor_number": version.get(1),
                "patch": version.get(2),
            }},
        },
    }))
}

fn options(control: &Control) -> Value {
    let options = &control.options;
    let path = |path: Option<&Path>| path.map(|path| path.display().to_string()).unwrap_or_default();
    json!({
        "admin_address_path": path(options.admin_address_path.as_deref()),
        "base_id": options.base_id.to_string(),
        "component_log_level": options.component_log_level.as_str(),
        "concurrency": options.workers(),
        "config_path": path(options.config_path.as_deref()),
        "config_yaml": options.config_yaml.as_deref().unwrap_or_default(),
        "disable_hot_restart": options.disable_hot_restart,
        "drain_strategy": "Immediate",
        "drain_time": seconds(options.drain_time()),
        "file_flush_interval": seconds(Duration::from_millis(options.file_flush_interval_msec)),
        "log_format": options.log_format.as_str(),
        "log_level": options.log_level.as_str(),
        "log_path": path(options.log_path.as_deref()),
        "mode": options.mode.as_str(),
        "parent_shutdown_time": seconds(Duration::from_secs(options.parent_shutdown_time_s)),
        "restart_epoch": options.restart_epoch,
        "service_cluster": options.service_cluster,
        "service_node": options.service_node,
        "service_zone": options.service_zone,
        "use_dynamic_base_id": options.use_dynamic_base_id,
    })
}

/// Protobuf's JSON form of a duration.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}.{millis:03}s", duration.as_secs()),
    }
}

/// `/memory`: what the kernel says; the allocator's own books are not open.
pub(super) fn memory(_: &Rc<Control>, _: &Query) -> Reply {
    let memory = Memory::now();
    Reply::json(&json!({
        "allocated": memory.private.to_string(),
        "heap_size": memory.private.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.resident.to_string(),
    }))
}

/// `/runtime`: the flattened layers, shown as one.
pub(super) fn runtime(control: &Rc<Control>, _: &Query) -> Reply {
    let snapshot = control.snapshot();
    let values = &snapshot.bootstrap.runtime.values;
    let layers: &[&str] = if values.is_empty() { &[] } else { &["static"] };
    let entry = |(key, value): (&String, &RuntimeValue)| {
        let text = match value {
            RuntimeValue::Number(number) => number.to_string(),
            RuntimeValue::Bool(flag) => flag.to_string(),
            RuntimeValue::Text(text) => text.clone(),
        };
        (key.clone(), json!({"final_value": text, "layer_values": [text]}))
    };
    let entries: Map<_, _> = values.iter().map(entry).collect();
    Reply::json(&json!({"entries": entries, "layers": layers}))
}

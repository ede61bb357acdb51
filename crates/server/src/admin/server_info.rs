//! `/server_info`, `/memory`.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Reply;
use super::query::Query;
use tidegate_types::DrainStrategy;

use crate::control::Control;
use crate::gauges::Memory;

/// `/server_info`
pub(super) fn info(control: &Rc<Control>, _: &Query) -> Reply {
    let snapshot = control.snapshot();
    let node = &snapshot.base.bootstrap.node;
    let uptime = seconds(Duration::from_secs(control.started.elapsed().as_secs()));
    let version: Vec<u32> = env!("CARGO_PKG_VERSION").split('.').filter_map(|n| n.parse().ok()).collect();
    let mut info = json!({
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
            "dynamic_parameters": {},
            "user_agent_name": "tidegate",
            "user_agent_build_version": {
                "version": {
                    "major_number": version.first(),
                    "minor_number": version.get(1),
                    "patch": version.get(2),
                },
                "metadata": {},
            },
            "extensions": [],
            "client_features": [],
            "listening_addresses": [],
        },
    });
    // An unset message is left out, as protobuf's JSON form has it.
    if node.locality != Default::default() {
        info["node"]["locality"] = json!({
            "region": node.locality.region,
            "zone": node.locality.zone,
            "sub_zone": node.locality.sub_zone,
        });
    }
    Reply::json(&info)
}

/// All of Envoy's options: tools read some of them, and those that this build does not have are at the
/// values that say what it does.
fn options(control: &Control) -> Value {
    let options = &control.options;
    let path = |path: Option<&Path>| path.map(|path| path.display().to_string()).unwrap_or_default();
    let mut all = fixed_options();
    let ours = json!({
        "admin_address_path": path(options.admin_address_path.as_deref()),
        "base_id": options.base_id.to_string(),
        "component_log_level": options.component_log_level.as_str(),
        "concurrency": options.workers(),
        "config_path": path(options.config_path.as_deref()),
        "config_yaml": options.config_yaml.as_deref().unwrap_or_default(),
        "disable_hot_restart": options.disable_hot_restart,
        "drain_strategy": match options.drain_strategy {
            DrainStrategy::Gradual => "Gradual",
            DrainStrategy::Immediate => "Immediate",
        },
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
    });
    if let (Some(all), Value::Object(ours)) = (all.as_object_mut(), ours) {
        all.extend(ours);
    }
    all
}

/// Options of Envoy's that this build does not have.
fn fixed_options() -> Value {
    json!({
        "allow_unknown_static_fields": false,
        "base_id_path": "",
        "cpuset_threads": false,
        "disabled_extensions": [],
        "enable_core_dump": false,
        "enable_fine_grain_logging": false,
        "enable_mutex_tracing": false,
        "file_flush_min_size": 0,
        "ignore_unknown_dynamic_fields": false,
        "local_address_ip_version": "v4",
        "log_format_escaped": false,
        "log_stacktrace_single_entry": false,
        "reject_unknown_dynamic_fields": false,
        "skip_deprecated_logs": false,
        "skip_hot_restart_on_no_parent": false,
        "skip_hot_restart_parent_stats": false,
        "socket_mode": 0,
        "socket_path": "",
        "stats_tag": [],
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

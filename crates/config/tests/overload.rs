//! The overload manager: what is read, and what Envoy refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::overload::{OverloadConfig, Resource, TriggerKind};
use tidegate_config::{Format, from_str};
use tidegate_types::overload::{OverloadAction, ScaledTimer, TimerMinimum};

const FILE: &str = r#"{"name": "file", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig", "filename": "/tmp/p"}}"#;
const SCALE: &str = "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig";

fn load(manager: &str) -> Result<OverloadConfig, Vec<String>> {
    let text = format!(r#"{{"overload_manager": {manager}}}"#);
    let bootstrap = from_str(&text, "f", Format::Json).map_err(|errors| {
        let without_place = |error: &tidegate_config::ConfigError| {
            let text = error.to_string();
            text.split_once(": ").unwrap().1.replace("overload_manager", "M")
        };
        errors.iter().map(without_place).collect::<Vec<_>>()
    })?;
    Ok(bootstrap.overload)
}

fn with_action(action: &str) -> Result<OverloadConfig, Vec<String>> {
    load(&format!(r#"{{"resource_monitors": [{FILE}], "actions": [{action}]}}"#))
}

fn action(name: &str, more: &str) -> String {
    format!(r#"{{"name": "envoy.overload_actions.{name}", {more}}}"#)
}

const TRIGGERS: &str = r#""triggers": [{"name": "file", "threshold": {"value": 0.5}}]"#;

#[test]
fn all_of_it_is_read() {
    let heap = r#"{"name": "heap", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig", "max_heap_size_bytes": 1000}}"#;
    let connections = r#"{"name": "cx", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig", "max_active_downstream_connections": 7}}"#;
    let factors = r#"[{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}, {"timer": "TRANSPORT_SOCKET_CONNECT", "min_scale": {"value": 50}}]"#;
    let reduce = action(
        "reduce_timeouts",
        &format!(
            r#""triggers": [{{"name": "heap", "scaled": {{"scaling_threshold": 0.8, "saturation_threshold": 0.9}}}}], "typed_config": {{"@type": "{SCALE}", "timer_scale_factors": {factors}}}"#
        ),
    );
    let config = load(&format!(
        r#"{{"refresh_interval": "0.25s", "resource_monitors": [{connections}, {heap}, {FILE}], "actions": [{reduce}, {}]}}"#,
        action("disable_http_keepalive", TRIGGERS)
    ))
    .unwrap();
    assert_eq!(config.refresh_interval, Duration::from_millis(250));
    assert_eq!(config.max_downstream_connections, Some(7));
    let resources: Vec<_> = config.monitors.iter().map(|monitor| &monitor.resource).collect();
    assert_eq!(resources, [&Resource::Heap { max: 1000 }, &Resource::File("/tmp/p".into())]);
    let [reduce, keepalive] = &config.actions[..] else { panic!("{:?}", config.actions) };
    assert_eq!(
        (reduce.action, keepalive.action),
        (OverloadAction::ReduceTimeouts, OverloadAction::DisableHttpKeepalive)
    );
    assert_eq!(reduce.triggers[0].monitor, 0);
    assert_eq!(reduce.triggers[0].kind, TriggerKind::Scaled { from: 0.8, to: 0.9 });
    assert_eq!(keepalive.triggers[0].monitor, 1);
    assert_eq!(keepalive.triggers[0].kind, TriggerKind::Threshold(0.5));
    let minimum = |timer: ScaledTimer| reduce.minima[timer as usize];
    assert_eq!(minimum(ScaledTimer::ConnectionIdle), Some(TimerMinimum::Timeout(Duration::from_secs(2))));
    assert_eq!(minimum(ScaledTimer::TransportSocketConnect), Some(TimerMinimum::Scale(0.5)));
    assert_eq!(minimum(ScaledTimer::StreamIdle), None);
}

#[test]
fn without_it_nothing_is_measured() {
    let bootstrap = from_str("{}", "f", Format::Json).unwrap();
    assert_eq!(bootstrap.overload, OverloadConfig::default());
}

#[test]
fn what_envoy_refuses_is_refused() {
    let refused = |manager: &str, expected: &str| {
        let errors = load(manager).err().unwrap_or_default();
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{manager}: {errors:?}");
    };
    refused("{}", "M.resource_monitors: missing field `resource_monitors`");
    refused(
        &format!(r#"{{"resource_monitors": [{FILE}, {FILE}]}}"#),
        "M.resource_monitors[1].name: duplicate resource monitor `file`",
    );
    let refused = |action: &str, expected: &str| {
        let errors = with_action(action).err().unwrap_or_default();
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{action}: {errors:?}");
    };
    let keepalive = action("disable_http_keepalive", TRIGGERS);
    refused(&format!("{keepalive}, {keepalive}"), "M.actions[1].name: duplicate overload action");
    refused(
        &action("foo", TRIGGERS),
        "M.actions[0].name: unknown overload action `envoy.overload_actions.foo`",
    );
    refused(
        &action("shrink_heap", TRIGGERS),
        "M.actions[0].name: `envoy.overload_actions.shrink_heap` is known to Envoy",
    );
    let of = |triggers: &str| action("disable_http_keepalive", &format!(r#""triggers": [{triggers}]"#));
    let threshold = r#"{"name": "file", "threshold": {"value": 0.5}}"#;
    refused(
        &of(&threshold.replace("file", "x")),
        "M.actions[0].triggers[0].name: unknown trigger resource `x`",
    );
    refused(
        &of(&format!("{threshold}, {threshold}")),
        "M.actions[0].triggers[1].name: duplicate trigger resource",
    );
    refused(&of(r#"{"name": "file"}"#), "M.actions[0].triggers[0]: nothing is chosen");
    refused(&of(&threshold.replace("0.5", "1.5")), "M.actions[0].triggers[0].threshold.value: ");
    let scaled = r#"{"name": "file", "scaled": {"scaling_threshold": 0.5, "saturation_threshold": 0.5}}"#;
    refused(
        &of(scaled),
        "M.actions[0].triggers[0].scaled: scaling_threshold must be less than saturation_threshold",
    );
    refused(
        &action("reduce_timeouts", TRIGGERS),
        "M.actions[0].typed_config: `envoy.overload_actions.reduce_timeouts` requires",
    );
    let reduce = |factors: &str| {
        action(
            "reduce_timeouts",
            &format!(
                r#"{TRIGGERS}, "typed_config": {{"@type": "{SCALE}", "timer_scale_factors": [{factors}]}}"#
            ),
        )
    };
    let timer = r#"{"timer": "TRANSPORT_SOCKET_CONNECT", "min_timeout": "1s"}"#;
    refused(
        &reduce(&format!("{timer}, {timer}")),
        "M.actions[0].typed_config.timer_scale_factors[1].timer: duplicate entry",
    );
    refused(
        &reduce(&timer.replace("TRANSPORT_SOCKET_CONNECT", "UNSPECIFIED")),
        "M.actions[0].typed_config.timer_scale_factors[0].timer: ",
    );
    refused(
        &reduce(r#"{"timer": "TRANSPORT_SOCKET_CONNECT"}"#),
        "M.actions[0].typed_config.timer_scale_factors[0]: nothing is chosen",
    );
    refused(
        &keepalive.replace(TRIGGERS, &format!(r#"{TRIGGERS}, "typed_config": {{"@type": "{SCALE}"}}"#)),
        "M.actions[0].typed_config: ",
    );
}

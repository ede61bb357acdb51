//! `envoy.config.overload.v3.OverloadManager`: what is measured, and what the proxy does under pressure.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_types::json::{JsonPath, Problem, Span};
use tidegate_types::overload::{OverloadAction, ScaledTimer, TimerMinima, TimerMinimum};

use crate::reader::{Message, Reader};
use crate::values::Percent;

/// `overload_manager`.
#[derive(Debug, Clone, PartialEq)]
pub struct OverloadConfig {
    /// `refresh_interval`, how often pressure is measured; 1 s when unset, or 0.
    pub refresh_interval: Duration,
    /// `resource_monitors` that measure a pressure, names unique.
    pub monitors: Vec<MonitorConfig>,
    /// The `envoy.resource_monitors.global_downstream_max_connections` monitor, which is no pressure but a limit.
    pub max_downstream_connections: Option<u64>,
    /// `actions`, each at most once.
    pub actions: Vec<ActionConfig>,
}

/// One of `resource_monitors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorConfig {
    /// `name`, as in statistics and triggers.
    pub name: String,
    /// What is measured.
    pub resource: Resource,
}

/// A source of pressure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// `FixedHeapConfig.max_heap_size_bytes`, not 0: pressure is the heap's share of it.
    Heap {
        /// In bytes.
        max: u64,
    },
    /// `InjectedResourceConfig.filename`: a file that holds the pressure, 0 to 1, as text.
    File(PathBuf),
}

/// One of `actions`.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionConfig {
    /// `name`.
    pub action: OverloadAction,
    /// `triggers`: the strongest one counts.
    pub triggers: Vec<TriggerConfig>,
    /// `typed_config` of `reduce_timeouts`.
    pub minima: TimerMinima,
}

/// One of `triggers`.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerConfig {
    /// The place of its monitor in [`OverloadConfig::monitors`].
    pub monitor: usize,
    /// When it fires.
    pub kind: TriggerKind,
}

/// When a trigger fires, by pressures of 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TriggerKind {
    /// `threshold.value`: fully, from this pressure on.
    Threshold(f64),
    /// `scaled`: from the first pressure on ever more, fully from the second.
    Scaled {
        /// `scaling_threshold`.
        from: f64,
        /// `saturation_threshold`.
        to: f64,
    },
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self {
            refresh_interval: DEFAULT_REFRESH,
            monitors: Vec::new(),
            max_downstream_connections: None,
            actions: Vec::new(),
        }
    }
}

const DEFAULT_REFRESH: Duration = Duration::from_secs(1);

impl Message for OverloadConfig {
    const NAME: &'static str = "envoy.config.overload.v3.OverloadManager";

    fn read(r: &Reader<'_>) -> Self {
        let refresh_interval = r.duration("refresh_interval").zero_is_off(None).unwrap_or(DEFAULT_REFRESH);
        let read = r.repeated::<Monitor>("resource_monitors").required_non_empty();
        let mut monitors: Vec<MonitorConfig> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        let mut max_downstream_connections = None;
        for monitor in &read {
            if names.contains(&monitor.name.text.as_str()) {
                monitor.name.report(r, format!("duplicate resource monitor `{}`", monitor.name.text));
            }
            names.push(&monitor.name.text);
            match &monitor.kind {
                Some(MonitorKind::Connections(max)) => max_downstream_connections = Some(*max),
                Some(MonitorKind::Pressure(resource)) => monitors
                    .push(MonitorConfig { name: monitor.name.text.clone(), resource: resource.clone() }),
                None => {}
            }
        }
        let actions = actions(r, &monitors);
        Self { refresh_interval, monitors, max_downstream_connections, actions }
    }
}

fn actions(r: &Reader<'_>, monitors: &[MonitorConfig]) -> Vec<ActionConfig> {
    let mut actions: Vec<ActionConfig> = Vec::new();
    for Action { name, action, triggers, minima } in r.repeated::<Action>("actions").or_default() {
        let Some(action) = action else { continue };
        if actions.iter().any(|other| other.action == action) {
            name.report(r, format!("duplicate overload action `{}`", name.text));
        }
        let mut known: Vec<TriggerConfig> = Vec::new();
        for Trigger { name, kind } in triggers {
            let Some(monitor) = monitors.iter().position(|monitor| monitor.name == name.text) else {
                name.report(r, format!("unknown trigger resource `{}`", name.text));
                continue;
            };
            if known.iter().any(|other| other.monitor == monitor) {
                name.report(r, format!("duplicate trigger resource `{}`", name.text));
            }
            known.extend(kind.map(|kind| TriggerConfig { monitor, kind }));
        }
        actions.push(ActionConfig { action, triggers: known, minima });
    }
    actions
}

/// A `name` and where it stands, to be reported when the whole is known.
struct Name {
    text: String,
    path: JsonPath,
    span: Span,
}

impl Name {
    fn read(r: &Reader<'_>) -> Self {
        let field = r.string("name");
        let path = field.path();
        Self { text: field.required_non_empty(), path, span: r.place("name") }
    }

    fn report(&self, r: &Reader<'_>, message: String) {
        r.cx.report(Problem::new(self.path.clone(), self.span, message));
    }
}

struct Monitor {
    name: Name,
    kind: Option<MonitorKind>,
}

enum MonitorKind {
    Pressure(Resource),
    Connections(u64),
}

impl Message for Monitor {
    const NAME: &'static str = "envoy.config.overload.v3.ResourceMonitor";

    fn read(r: &Reader<'_>) -> Self {
        let name = Name::read(r);
        r.may_be::<DownstreamConnections>();
        r.may_be::<FixedHeap>();
        r.may_be::<InjectedResource>();
        let field = r.any("typed_config");
        if !r.has("typed_config") {
            field.report("missing field `typed_config`", None);
        }
        let expected = || {
            let names = [FixedHeap::NAME, InjectedResource::NAME, DownstreamConnections::NAME];
            format!("one of {}", names.map(|name| format!("type.googleapis.com/{name}")).join(", "))
        };
        let known = field.peek().is_none_or(|any| {
            any.is::<DownstreamConnections>() || any.is::<FixedHeap>() || any.is::<InjectedResource>()
        });
        if !known {
            field.report("this resource monitor is not supported by this build", Some(expected()));
        }
        let kind = field.optional().and_then(|any| {
            if any.is::<FixedHeap>() {
                let FixedHeap(max) = any.read(r);
                Some(MonitorKind::Pressure(Resource::Heap { max }))
            } else if any.is::<InjectedResource>() {
                let InjectedResource(path) = any.read(r);
                Some(MonitorKind::Pressure(Resource::File(path)))
            } else if any.is::<DownstreamConnections>() {
                let DownstreamConnections(max) = any.read(r);
                Some(MonitorKind::Connections(max))
            } else {
                None
            }
        });
        Self { name, kind }
    }
}

struct DownstreamConnections(u64);

impl Message for DownstreamConnections {
    const NAME: &'static str =
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";

    fn read(r: &Reader<'_>) -> Self {
        let most = r.i64("max_active_downstream_connections").within(1..=i64::MAX);
        Self(most.required().unsigned_abs())
    }
}

struct FixedHeap(u64);

impl Message for FixedHeap {
    const NAME: &'static str = "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.u64("max_heap_size_bytes").within(1..=u64::MAX).required().max(1))
    }
}

struct InjectedResource(PathBuf);

impl Message for InjectedResource {
    const NAME: &'static str =
        "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.string("filename").required_non_empty().into())
    }
}

struct Action {
    name: Name,
    action: Option<OverloadAction>,
    triggers: Vec<Trigger>,
    minima: TimerMinima,
}

impl Message for Action {
    const NAME: &'static str = "envoy.config.overload.v3.OverloadAction";

    fn read(r: &Reader<'_>) -> Self {
        let name = Name::read(r);
        let action = OverloadAction::ALL.into_iter().find(|action| action.name() == name.text);
        if action.is_none() && !name.text.is_empty() {
            let message = match KNOWN_TO_ENVOY.contains(&name.text.as_str()) {
                true => format!("`{}` is known to Envoy, but not supported by this build", name.text),
                false => format!("unknown overload action `{}`", name.text),
            };
            let names = OverloadAction::ALL.map(OverloadAction::name).join(", ");
            r.cx.report(Problem {
                expected: Some(format!("one of {names}")),
                ..Problem::new(name.path.clone(), name.span, message)
            });
        }
        r.may_be::<ScaleTimers>();
        let config = r.any("typed_config");
        let reduces = action == Some(OverloadAction::ReduceTimeouts);
        if reduces && !r.has("typed_config") {
            config.report("`envoy.overload_actions.reduce_timeouts` requires `typed_config`", None);
        }
        if !reduces && r.has("typed_config") && action.is_some() {
            config.report(format!("`{}` has no `typed_config`", name.text), None);
        }
        let minima = config.optional().filter(|_| reduces).map(|any| {
            if !any.is::<ScaleTimers>() {
                let expected = format!("type.googleapis.com/{}", ScaleTimers::NAME);
                let span = r.place("typed_config");
                let problem = Problem::new(any.path.clone(), span, "unknown message".to_owned());
                r.cx.report(Problem { expected: Some(expected), ..problem });
                return TimerMinima::default();
            }
            any.read::<ScaleTimers>(r).0
        });
        Self {
            name,
            action,
            triggers: r.repeated("triggers").required_non_empty(),
            minima: minima.unwrap_or_default(),
        }
    }
}

/// Actions that have no counterpart here.
const KNOWN_TO_ENVOY: [&str; 3] = [
    "envoy.overload_actions.shrink_heap",
    "envoy.overload_actions.reset_high_memory_stream",
    "envoy.overload_actions.close_idle_http_connections",
];

struct Trigger {
    name: Name,
    kind: Option<TriggerKind>,
}

impl Message for Trigger {
    const NAME: &'static str = "envoy.config.overload.v3.Trigger";

    fn read(r: &Reader<'_>) -> Self {
        let name = Name::read(r);
        let threshold = r.message::<Threshold>("threshold").optional().map(|threshold| threshold.0);
        let scaled = r.message::<Scaled>("scaled").optional().map(|scaled| scaled.0);
        r.exactly_one(&["threshold", "scaled"]);
        Self { name, kind: threshold.or(scaled) }
    }
}

struct Threshold(TriggerKind);

impl Message for Threshold {
    const NAME: &'static str = "envoy.config.overload.v3.ThresholdTrigger";

    fn read(r: &Reader<'_>) -> Self {
        Self(TriggerKind::Threshold(r.f64("value").within(0.0..=1.0).or_default()))
    }
}

struct Scaled(TriggerKind);

impl Message for Scaled {
    const NAME: &'static str = "envoy.config.overload.v3.ScaledTrigger";

    fn read(r: &Reader<'_>) -> Self {
        let from = r.f64("scaling_threshold").within(0.0..=1.0).or_default();
        let to = r.f64("saturation_threshold").within(0.0..=1.0).or_default();
        if from >= to {
            r.problem("scaling_threshold must be less than saturation_threshold");
        }
        Self(TriggerKind::Scaled { from, to })
    }
}

struct ScaleTimers(TimerMinima);

impl Message for ScaleTimers {
    const NAME: &'static str = "envoy.config.overload.v3.ScaleTimersOverloadActionConfig";

    fn read(r: &Reader<'_>) -> Self {
        let mut minima = TimerMinima::default();
        for ScaleTimer { timer, minimum, path, span } in
            r.repeated::<ScaleTimer>("timer_scale_factors").required_non_empty()
        {
            let slot = &mut minima[timer as usize];
            if slot.is_some() {
                r.cx.report(Problem::new(path, span, "duplicate entry for this timer".to_owned()));
            }
            *slot = minimum;
        }
        Self(minima)
    }
}

struct ScaleTimer {
    timer: ScaledTimer,
    minimum: Option<TimerMinimum>,
    path: JsonPath,
    span: Span,
}

impl Message for ScaleTimer {
    const NAME: &'static str = "envoy.config.overload.v3.ScaleTimersOverloadActionConfig.ScaleTimer";

    fn read(r: &Reader<'_>) -> Self {
        const TIMERS: &[(&str, u32, ScaledTimer)] = &[
            ("HTTP_DOWNSTREAM_CONNECTION_IDLE", 1, ScaledTimer::ConnectionIdle),
            ("HTTP_DOWNSTREAM_STREAM_IDLE", 2, ScaledTimer::StreamIdle),
            ("TRANSPORT_SOCKET_CONNECT", 3, ScaledTimer::TransportSocketConnect),
            ("HTTP_DOWNSTREAM_CONNECTION_MAX", 4, ScaledTimer::ConnectionMax),
            ("HTTP_DOWNSTREAM_STREAM_FLUSH", 5, ScaledTimer::StreamFlush),
        ];
        let timer = r.enumeration("timer", TIMERS, &[]);
        let path = timer.path();
        if !r.has("timer") {
            timer.report("missing field `timer`", None);
        }
        let timeout = r.duration("min_timeout").optional().map(TimerMinimum::Timeout);
        let share = r.message::<Percent>("min_scale").optional();
        r.exactly_one(&["min_timeout", "min_scale"]);
        Self {
            timer: timer.or(ScaledTimer::ConnectionIdle),
            minimum: timeout.or(share.map(|share| TimerMinimum::Scale(share.0 / 100.0))),
            path,
            span: r.place("timer"),
        }
    }
}

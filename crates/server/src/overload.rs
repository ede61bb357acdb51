//! The overload manager: measures pressure, decides which actions are in force, and tells the workers.
//!
//! What an action does is up to those who look at [`tidegate_types::overload::Overload`]. Measuring costs the
//! workers nothing: it happens on the main thread, every `refresh_interval` (Envoy docs, "Overload manager").

mod monitor;

use std::sync::Arc;
use std::time::Duration;

use tidegate_config::overload::{OverloadConfig, TriggerKind};
use tidegate_stats::{Scope, Store, stat_block};
use tidegate_types::overload::OverloadLevels;
use tokio::time::Instant;

use crate::control::Control;
use crate::snapshot::Snapshot;

stat_block! {
    /// `overload.`
    struct ManagerStats {
        histograms { refresh_interval_delay }
    }
}

stat_block! {
    /// `overload.<monitor>.`
    struct MonitorStats {
        counters { failed_updates, skipped_updates }
        gauges { pressure }
    }
}

stat_block! {
    /// `overload.<action>.`
    struct ActionStats {
        gauges { active, scale_percent }
    }
}

/// What is measured now, and what the workers were told last.
pub(crate) struct Manager {
    /// Whose `overload_manager` this is.
    snapshot: Arc<Snapshot>,
    /// Pressures as measured last, 0 to 1; `None`: not yet.
    pressures: Vec<Option<f64>>,
    levels: OverloadLevels,
    measured: Instant,
    stats: Option<Stats>,
}

struct Stats {
    manager: ManagerStats,
    monitors: Vec<MonitorStats>,
    actions: Vec<ActionStats>,
}

impl Manager {
    /// For the configuration that is served.
    pub(crate) fn new(control: &Control) -> Self {
        Self {
            snapshot: control.snapshot(),
            pressures: Vec::new(),
            levels: OverloadLevels::default(),
            measured: Instant::now(),
            stats: None,
        }
        .reset(&control.store)
    }

    /// Begins anew with the snapshot's configuration.
    fn reset(mut self, store: &Store) -> Self {
        let config = &self.snapshot.base.bootstrap.overload;
        self.pressures = vec![None; config.monitors.len()];
        self.stats = (!config.monitors.is_empty()).then(|| Stats::new(store, config));
        self
    }

    /// Waits for the next measurement and makes it; for ever when nothing is to be measured. Cancel-safe.
    pub(crate) async fn refresh(&mut self, control: &Control) {
        let snapshot = control.snapshot();
        if !Arc::ptr_eq(&snapshot, &self.snapshot) {
            self.adopt(snapshot, control);
        }
        if self.stats.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.measured + self.interval()).await;
        self.measure(control);
    }

    fn interval(&self) -> Duration {
        self.snapshot.base.bootstrap.overload.refresh_interval
    }

    /// A reload happened.
    fn adopt(&mut self, snapshot: Arc<Snapshot>, control: &Control) {
        let changed = snapshot.base.bootstrap.overload != self.snapshot.base.bootstrap.overload;
        self.snapshot = snapshot;
        if changed {
            let levels = self.levels;
            *self = Self::new(control);
            self.levels = levels;
            if self.stats.is_none() {
                self.tell(OverloadLevels::default(), control);
            }
        }
    }

    fn measure(&mut self, control: &Control) {
        let Some(stats) = &self.stats else { return };
        let now = Instant::now();
        let delay = u64::try_from((now - self.measured).as_millis()).unwrap_or(u64::MAX);
        stats.manager.refresh_interval_delay().record(delay);
        self.measured = now;
        let config = &self.snapshot.base.bootstrap.overload;
        for ((monitor, pressure), stats) in
            config.monitors.iter().zip(&mut self.pressures).zip(&stats.monitors)
        {
            match monitor::pressure(&monitor.resource) {
                Ok(measured) => {
                    *pressure = Some(measured);
                    stats.pressure().set((measured * 100.0) as i64);
                }
                // The last good measurement goes on.
                Err(error) => {
                    stats.failed_updates().inc();
                    tracing::info!(target: "main", monitor = %monitor.name, %error, "no resource pressure");
                }
            }
        }
        let levels = levels(config, &self.pressures);
        for (action, stats) in config.actions.iter().zip(&stats.actions) {
            let level = levels.actions[action.action as usize];
            stats.active().set(i64::from(level >= 1.0));
            stats.scale_percent().set((level * 100.0) as i64);
        }
        self.tell(levels, control);
    }

    /// Tells the workers what they do not know yet.
    fn tell(&mut self, levels: OverloadLevels, control: &Control) {
        if levels == self.levels {
            return;
        }
        self.levels = levels;
        control.workers.broadcast(move |worker| worker.set_overload(levels));
    }
}

impl Stats {
    fn new(store: &Store, config: &OverloadConfig) -> Self {
        let scope = Scope::new("overload", &[]);
        let monitor = |monitor: &tidegate_config::overload::MonitorConfig| {
            MonitorStats::new(store, scope.child(&monitor.name))
        };
        let action = |action: &tidegate_config::overload::ActionConfig| {
            ActionStats::new(store, scope.child(action.action.name()))
        };
        Self {
            manager: ManagerStats::new(store, scope.clone()),
            monitors: config.monitors.iter().map(monitor).collect(),
            actions: config.actions.iter().map(action).collect(),
        }
    }
}

/// What pressures mean by the configuration: the strongest trigger of an action counts.
fn levels(config: &OverloadConfig, pressures: &[Option<f64>]) -> OverloadLevels {
    let mut levels = OverloadLevels::default();
    for action in &config.actions {
        let triggered = action.triggers.iter().map(|trigger| {
            let pressure = pressures.get(trigger.monitor).copied().flatten();
            pressure.map_or(0.0, |pressure| level(trigger.kind, pressure))
        });
        levels.actions[action.action as usize] = triggered.fold(0.0, f64::max);
        if action.minima.iter().any(Option::is_some) {
            levels.minima = action.minima;
        }
    }
    levels
}

/// Envoy docs, "Overload manager: triggers".
fn level(kind: TriggerKind, pressure: f64) -> f64 {
    match kind {
        TriggerKind::Threshold(threshold) => f64::from(u8::from(pressure >= threshold)),
        TriggerKind::Scaled { from, to } => ((pressure - from) / (to - from)).clamp(0.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_config::overload::{ActionConfig, TriggerConfig};
    use tidegate_types::overload::OverloadAction;

    use super::*;

    #[test]
    fn triggers_fire_at_their_thresholds() {
        let threshold = TriggerKind::Threshold(0.9);
        assert_eq!([0.0, 0.89, 0.9, 1.0].map(|p| level(threshold, p)), [0.0, 0.0, 1.0, 1.0]);
        let scaled = TriggerKind::Scaled { from: 0.5, to: 1.0 };
        assert_eq!([0.0, 0.5, 0.75, 1.0, 1.2].map(|p| level(scaled, p)), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn the_strongest_trigger_of_an_action_counts() {
        let trigger =
            |monitor, at| TriggerConfig { monitor, kind: TriggerKind::Scaled { from: 0.0, to: at } };
        let config = OverloadConfig {
            actions: vec![ActionConfig {
                action: OverloadAction::DisableHttpKeepalive,
                triggers: vec![trigger(0, 1.0), trigger(1, 0.5)],
                minima: Default::default(),
            }],
            ..OverloadConfig::default()
        };
        let of = |pressures: &[Option<f64>]| {
            levels(&config, pressures).actions[OverloadAction::DisableHttpKeepalive as usize]
        };
        assert_eq!(of(&[None, None]), 0.0);
        assert_eq!(of(&[Some(0.25), None]), 0.25);
        assert_eq!(of(&[Some(0.25), Some(0.25)]), 0.5);
        assert_eq!(of(&[Some(0.25), Some(0.75)]), 1.0);
    }
}

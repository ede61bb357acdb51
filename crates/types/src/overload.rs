//! Whether the process is overloaded, and what that means: the actions in force and shortened timers.
//!
//! One [`Overload`] per worker. The control plane measures pressure and tells each worker; connections and streams
//! look at it when they decide something. It knows no monitors, no thresholds, no clock (Envoy docs, "Overload
//! manager").

use std::cell::Cell;
use std::time::Duration;

/// What an overloaded proxy does. Its number is its place in [`Overload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverloadAction {
    /// `envoy.overload_actions.stop_accepting_requests`: new requests are answered with 503.
    StopAcceptingRequests,
    /// `envoy.overload_actions.disable_http_keepalive`: responses announce the close.
    DisableHttpKeepalive,
    /// `envoy.overload_actions.stop_accepting_connections`: connections wait in the kernel.
    StopAcceptingConnections,
    /// `envoy.overload_actions.reject_incoming_connections`: connections are accepted and closed.
    RejectIncomingConnections,
    /// `envoy.overload_actions.reduce_timeouts`: timers are shortened.
    ReduceTimeouts,
}

impl OverloadAction {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::StopAcceptingRequests,
        Self::DisableHttpKeepalive,
        Self::StopAcceptingConnections,
        Self::RejectIncomingConnections,
        Self::ReduceTimeouts,
    ];

    /// Its name in configurations and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::StopAcceptingRequests => "envoy.overload_actions.stop_accepting_requests",
            Self::DisableHttpKeepalive => "envoy.overload_actions.disable_http_keepalive",
            Self::StopAcceptingConnections => "envoy.overload_actions.stop_accepting_connections",
            Self::RejectIncomingConnections => "envoy.overload_actions.reject_incoming_connections",
            Self::ReduceTimeouts => "envoy.overload_actions.reduce_timeouts",
        }
    }
}

/// A timer that [`OverloadAction::ReduceTimeouts`] can shorten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaledTimer {
    /// `idle_timeout` of downstream HTTP connections.
    ConnectionIdle,
    /// `stream_idle_timeout`, and the route's `idle_timeout`.
    StreamIdle,
    /// `transport_socket_connect_timeout`.
    TransportSocketConnect,
    /// `max_connection_duration` of downstream HTTP connections.
    ConnectionMax,
    /// `stream_flush_timeout`.
    StreamFlush,
}

/// How short a timer may become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TimerMinimum {
    /// `min_timeout`: no shorter than this, unless the timer is configured shorter.
    Timeout(Duration),
    /// `min_scale`, as a fraction of the configured time, 0 to 1.
    Scale(f64),
}

/// The minimum of each timer, by [`ScaledTimer`]; `None`: it is never shortened.
pub type TimerMinima = [Option<TimerMinimum>; 5];

/// How overloaded a worker is told to be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OverloadLevels {
    /// By [`OverloadAction`]: 0 is off, 1 is saturated.
    pub actions: [f64; 5],
    /// What `ReduceTimeouts` may do.
    pub minima: TimerMinima,
}

/// A worker's view of the process's overload.
#[derive(Debug, Default)]
pub struct Overload {
    actions: [Cell<f64>; 5],
    minima: Cell<TimerMinima>,
    generation: Cell<u32>,
}

impl Overload {
    /// What holds from now on.
    pub fn set(&self, levels: OverloadLevels) {
        self.actions.iter().zip(levels.actions).for_each(|(action, level)| action.set(level));
        self.minima.set(levels.minima);
        self.generation.set(self.generation.get().wrapping_add(1));
    }

    /// Changes whenever something else holds.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// From 0, off, to 1, saturated.
    #[inline]
    pub fn level(&self, action: OverloadAction) -> f64 {
        self.actions[action as usize].get()
    }

    /// Whether the action is fully in force.
    #[inline]
    pub fn is_saturated(&self, action: OverloadAction) -> bool {
        self.level(action) >= 1.0
    }

    /// `configured`, as short as the pressure makes it: the minimum plus what is above it times one less the scale.
    #[inline]
    pub fn scale(&self, timer: ScaledTimer, configured: Duration) -> Duration {
        let pressure = self.level(OverloadAction::ReduceTimeouts);
        if pressure <= 0.0 {
            return configured;
        }
        let shortest = match self.minima.get()[timer as usize] {
            None => return configured,
            Some(TimerMinimum::Timeout(shortest)) => shortest.min(configured),
            Some(TimerMinimum::Scale(scale)) => configured.mul_f64(scale.clamp(0.0, 1.0)),
        };
        shortest + (configured - shortest).mul_f64(1.0 - pressure.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pressure: f64, minimum: TimerMinimum) -> Overload {
        let mut levels = OverloadLevels::default();
        levels.actions[OverloadAction::ReduceTimeouts as usize] = pressure;
        levels.minima[ScaledTimer::ConnectionIdle as usize] = Some(minimum);
        let overload = Overload::default();
        overload.set(levels);
        overload
    }

    /// idle.md §11: 6 s, at least 1 s.
    #[test]
    fn timers_shrink_linearly_to_their_minimum() {
        for (pressure, ms) in [(0.0, 6000), (0.5, 3500), (0.8, 2000), (1.0, 1000)] {
            let overload = at(pressure, TimerMinimum::Timeout(Duration::from_secs(1)));
            let scaled = overload.scale(ScaledTimer::ConnectionIdle, Duration::from_secs(6));
            assert_eq!(scaled.as_micros().div_ceil(1000), ms, "at {pressure}");
            // Others are left alone.
            assert_eq!(overload.scale(ScaledTimer::StreamIdle, Duration::from_secs(6)).as_secs(), 6);
        }
    }

    #[test]
    fn a_minimum_can_be_a_share_and_never_lengthens() {
        let share = at(1.0, TimerMinimum::Scale(0.1));
        assert_eq!(share.scale(ScaledTimer::ConnectionIdle, Duration::from_secs(10)).as_secs(), 1);
        let long = at(1.0, TimerMinimum::Timeout(Duration::from_secs(20)));
        assert_eq!(long.scale(ScaledTimer::ConnectionIdle, Duration::from_secs(10)).as_secs(), 10);
    }

    #[test]
    fn actions_are_apart() {
        let overload = at(1.0, TimerMinimum::Scale(0.5));
        assert!(overload.is_saturated(OverloadAction::ReduceTimeouts));
        assert!(!overload.is_saturated(OverloadAction::StopAcceptingRequests));
        for (place, action) in OverloadAction::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, place);
        }
    }
}

//! When to send a PING and when to give a peer up (Envoy's `connection_keepalive`).
//!
//! [`Keepalive`] is sans-IO: `now` and randomness are arguments. [`Keepalive::handle_time`] at
//! [`Keepalive::deadline`], [`Keepalive::handle_bytes`] when anything came, [`Keepalive::handle_ack`] for an
//! answered PING. [`Pinger`] is it with a timer.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::options::KeepaliveOptions;

/// The clock of one connection.
#[derive(Debug)]
pub(crate) struct Keepalive {
    options: KeepaliveOptions,
    state: State,
    last_bytes: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No PING is due.
    Idle,
    /// The next PING.
    Ping(Instant),
    /// A PING is out: the peer is given up then.
    Ack(Instant),
}

/// What time demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// A PING.
    Ping,
    /// The peer is dead: close without a word.
    GiveUp,
}

impl Keepalive {
    pub(crate) fn new(options: KeepaliveOptions, now: Instant, random: f64) -> Self {
        let mut keepalive = Self { options, state: State::Idle, last_bytes: now };
        keepalive.rest(now, random);
        keepalive
    }

    /// When to call [`Keepalive::handle_time`] next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::Ping(at) | State::Ack(at) => Some(at),
        }
    }

    /// Ping => Ack; Ack => given up.
    pub(crate) fn handle_time(&mut self, now: Instant) -> Due {
        match self.state {
            State::Ping(at) if at <= now => {
                self.state = State::Ack(now + self.options.timeout);
                Due::Ping
            }
            State::Ack(at) if at <= now => Due::GiveUp,
            _ => Due::Nothing,
        }
    }

    /// Anything came: a peer that is busy sending may be late with its answer.
    pub(crate) fn handle_bytes(&mut self, now: Instant) {
        self.last_bytes = now;
        if let State::Ack(_) = self.state {
            self.state = State::Ack(now + self.options.timeout);
        }
    }

    /// Ack => (Ping | Idle)
    pub(crate) fn handle_ack(&mut self, now: Instant, random: f64) {
        if let State::Ack(_) = self.state {
            self.rest(now, random);
        }
    }

    /// A stream is about to be opened: whether a PING goes before it, since nobody knows whether the peer is
    /// still there.
    pub(crate) fn handle_stream(&mut self, now: Instant) -> Due {
        let silent = now.saturating_duration_since(self.last_bytes);
        let long = self.options.connection_idle_interval.is_some_and(|limit| silent >= limit);
        if !long || matches!(self.state, State::Ack(_)) {
            return Due::Nothing;
        }
        self.state = State::Ack(now + self.options.timeout);
        Due::Ping
    }

    fn rest(&mut self, now: Instant, random: f64) {
        self.state = match self.options.interval {
            None => State::Idle,
            Some(interval) => State::Ping(now + jittered(interval, self.options.interval_jitter, random)),
        };
    }
}

/// [`Keepalive`] with its timer.
pub(crate) struct Pinger {
    clock: Keepalive,
    sleep: Pin<Box<Sleep>>,
}

impl Pinger {
    pub(crate) fn new(options: KeepaliveOptions) -> Box<Self> {
        let now = Instant::now();
        let clock = Keepalive::new(options, now, fastrand::f64());
        let sleep = Box::pin(tokio::time::sleep_until(clock.deadline().unwrap_or(now)));
        Box::new(Self { clock, sleep })
    }

    /// What is due; bytes, or the answer to a PING, may have come since the last call.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, bytes_came: bool, answered: bool) -> Due {
        if bytes_came {
            self.clock.handle_bytes(Instant::now());
        }
        if answered {
            self.clock.handle_ack(Instant::now(), fastrand::f64());
        }
        loop {
            let Some(deadline) = self.clock.deadline() else { return Due::Nothing };
            if self.sleep.deadline() != deadline {
                self.sleep.as_mut().reset(deadline);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Due::Nothing;
            }
            let due = self.clock.handle_time(Instant::now());
            if due != Due::Nothing {
                return due;
            }
        }
    }

    /// [`Keepalive::handle_stream`] now.
    pub(crate) fn handle_stream(&mut self) -> Due {
        self.clock.handle_stream(Instant::now())
    }
}

/// `interval` and up to `percent` of it; `random` lies in 0..1.
fn jittered(interval: Duration, percent: f64, random: f64) -> Duration {
    let extra = (percent / 100.0 * random).clamp(0.0, 1.0);
    interval.saturating_add(Duration::try_from_secs_f64(interval.as_secs_f64() * extra).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_ping_is_answered_or_the_peer_given_up() {
        let start = Instant::now();
        let options = KeepaliveOptions::new(Some(10 * SECOND), 2 * SECOND);
        let mut keepalive = Keepalive::new(options, start, 0.5);
        // 15 % jitter, half of it.
        assert_eq!(keepalive.deadline(), Some(start + Duration::from_millis(10_750)));
        assert_eq!(keepalive.handle_time(start + 5 * SECOND), Due::Nothing);
        let sent = start + 11 * SECOND;
        assert_eq!(keepalive.handle_time(sent), Due::Ping);
        keepalive.handle_bytes(sent + SECOND);
        assert_eq!(keepalive.handle_time(sent + 2 * SECOND), Due::Nothing);
        keepalive.handle_ack(sent + 2 * SECOND, 0.0);
        assert_eq!(keepalive.deadline(), Some(sent + 12 * SECOND));
        assert_eq!(keepalive.handle_time(sent + 12 * SECOND), Due::Ping);
        assert_eq!(keepalive.handle_time(sent + 14 * SECOND), Due::GiveUp);
    }

    #[test]
    fn a_stream_after_a_long_silence_goes_behind_a_ping() {
        let start = Instant::now();
        let mut options = KeepaliveOptions::new(None, SECOND);
        options.connection_idle_interval = Some(5 * SECOND);
        let mut keepalive = Keepalive::new(options, start, 0.0);
        assert_eq!((keepalive.handle_stream(start + SECOND), keepalive.deadline()), (Due::Nothing, None));
        assert_eq!(keepalive.handle_stream(start + 5 * SECOND), Due::Ping);
        assert_eq!(keepalive.handle_stream(start + 5 * SECOND), Due::Nothing);
        keepalive.handle_ack(start + 6 * SECOND, 0.0);
        assert_eq!(keepalive.deadline(), None);
    }
}

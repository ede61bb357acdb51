//! A token bucket that all workers share: one atomic word, no lock, no timer. For every filter that limits a rate.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

/// `envoy.type.v3.TokenBucket`, filled continuously: `tokens_per_fill / fill_interval` a second, as Envoy
/// does since 1.31.
///
/// The word is the virtual time, in nanoseconds, at which the bucket was (or will have been) empty: what
/// has passed since is what it holds. Taking a token moves it on by the time that one token takes.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Message")]
pub(crate) struct TokenBucket {
    empty_at: AtomicU64,
    max_tokens: u32,
    /// `tokens_per_fill` and `fill_interval` as configured.
    fill: (u32, Duration),
    /// Nanoseconds in which one token is filled.
    token: f64,
}

impl TokenBucket {
    fn new(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> Self {
        let token = fill_interval.as_nanos() as f64 / f64::from(tokens_per_fill);
        Self { empty_at: AtomicU64::new(0), max_tokens, fill: (tokens_per_fill, fill_interval), token }
    }

    /// Takes a token if there is one. `now` counts from [`EPOCH`] before the first call, so that the
    /// bucket begins full.
    pub(crate) fn take(&self, now: Duration) -> Taken {
        let now = nanos(now);
        let (full, token) = (self.full(), self.token.round() as u64);
        // A bucket holds no more than `max_tokens`, however long ago it was empty.
        let since = |empty_at: u64| empty_at.max(now.saturating_sub(full));
        let taken = self.empty_at.fetch_update(Relaxed, Relaxed, |empty_at| {
            let next = since(empty_at).saturating_add(token);
            (next <= now && self.max_tokens > 0).then_some(next)
        });
        if taken.is_ok() { Taken::Yes } else { Taken::No }
    }

    /// What the bucket holds.
    pub(crate) fn level(&self, now: Duration) -> Level {
        let now = nanos(now);
        let held = now.saturating_sub(self.empty_at.load(Relaxed)).min(self.full());
        let tokens = (held as f64 / self.token + ROUNDING).floor();
        let next = ((tokens + 1.0) * self.token - held as f64).max(0.0);
        let next = if tokens >= 1.0 { Duration::ZERO } else { Duration::from_nanos(next as u64) };
        Level { max: self.max_tokens, remaining: tokens as u64, next }
    }

    /// Whether `other` fills alike: what may share a bucket.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.max_tokens == other.max_tokens && self.fill == other.fill
    }

    /// The time that an empty bucket takes to fill.
    fn full(&self) -> u64 {
        (self.token * f64::from(self.max_tokens)).round() as u64
    }
}

/// Time before the first use of any bucket: longer than any takes to fill.
pub(crate) const EPOCH: Duration = Duration::from_secs(200 * 365 * 24 * 3600);

/// The time that buckets count in; tokio's clock, so that tests can pause it.
pub(crate) fn since_epoch() -> Duration {
    // A minute back: a test's paused clock may stand before the moment at which another test asked first.
    static START: LazyLock<Instant> = LazyLock::new(|| {
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(60)).unwrap_or(now)
    });
    EPOCH + START.elapsed()
}

/// Half a nanosecond of a token that takes a second: what rounding may lose must not lose a token.
const ROUNDING: f64 = 1e-9;

/// Whether there was a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    No,
}

/// What a bucket holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) max: u32,
    pub(crate) remaining: u64,
    /// Until there is a token: zero if there is one.
    pub(crate) next: Duration,
}

/// The message as it stands in the file.
#[derive(Deserialize)]
struct Message {
    max_tokens: u32,
    #[serde(default = "one")]
    tokens_per_fill: u32,
    #[serde(deserialize_with = "tidegate_types::json::duration")]
    fill_interval: Duration,
}

fn one() -> u32 {
    1
}

impl TryFrom<Message> for TokenBucket {
    type Error = &'static str;

    fn try_from(message: Message) -> Result<Self, Self::Error> {
        if message.tokens_per_fill == 0 {
            return Err("`tokens_per_fill` must be greater than 0");
        }
        if message.fill_interval < MIN_FILL_INTERVAL {
            return Err("local rate limit token bucket fill timer must be >= 50ms");
        }
        Ok(Self::new(message.max_tokens, message.tokens_per_fill, message.fill_interval))
    }
}

/// Envoy's own bound, kept so that files are valid on both.
const MIN_FILL_INTERVAL: Duration = Duration::from_millis(50);

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn begins_full_and_fills_continuously() {
        let bucket = TokenBucket::new(2, 1, Duration::from_secs(1));
        assert_eq!(bucket.level(at(0)), Level { max: 2, remaining: 2, next: Duration::ZERO });
        let taken = [0, 0, 0, 999, 1000, 1001].map(|millis| bucket.take(at(millis)));
        assert_eq!(taken, [Taken::Yes, Taken::Yes, Taken::No, Taken::No, Taken::Yes, Taken::No]);
        let level = bucket.level(at(1200));
        assert_eq!((level.remaining, level.next), (0, Duration::from_millis(800)));
        // However long it rests, it holds two.
        let taken = [90_000, 90_000, 90_000].map(|millis| bucket.take(at(millis)));
        assert_eq!(taken, [Taken::Yes, Taken::Yes, Taken::No]);
    }

    #[test]
    fn an_empty_bucket_gives_nothing() {
        let bucket = TokenBucket::new(0, 1, Duration::from_secs(1));
        assert_eq!(bucket.take(at(5000)), Taken::No);
    }

    #[test]
    fn many_threads_never_take_more_than_there_is() {
        let bucket = TokenBucket::new(1000, 3, Duration::from_secs(1));
        let taken = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let got = (0..500).filter(|_| bucket.take(at(0)) == Taken::Yes).count();
                    taken.fetch_add(got, Relaxed);
                });
            }
        });
        assert_eq!(taken.into_inner(), 1000);
    }
}

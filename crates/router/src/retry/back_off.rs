//! How long to wait before a retry.

use std::time::Duration;

use http::HeaderName;
use tidegate_config::route::{BackOff, RateLimitedBackOff, ResetHeaderFormat};
use tidegate_types::ResponseHead;

/// Exponential with full jitter: retry number `made` (from 0) waits less than `base * 2^made`, at most
/// `max_interval`.
pub(super) fn exponential(back_off: &BackOff, made: u32, seed: u64) -> Duration {
    let base = millis(back_off.base_interval).max(1);
    let max = millis(back_off.max_interval).max(base);
    let interval = base.checked_mul(1u64.checked_shl(made).unwrap_or(u64::MAX)).map_or(max, |ms| ms.min(max));
    Duration::from_millis(seed % interval)
}

/// `rate_limited_retry_back_off`: the upstream says when to come back.
#[derive(Clone, Debug)]
pub struct RateLimited {
    headers: Box<[(HeaderName, ResetHeaderFormat)]>,
    max_interval: Duration,
}

impl RateLimited {
    pub(super) fn compile(config: &RateLimitedBackOff) -> Result<Self, String> {
        let headers = config.reset_headers.iter().map(|header| {
            let name = header.name.parse().map_err(|_| format!("`{}` is no header name", header.name))?;
            Ok((name, header.format))
        });
        Ok(Self { headers: headers.collect::<Result<_, String>>()?, max_interval: config.max_interval })
    }

    /// The wait that the response asks for, and up to half as long again, so that clients do not all
    /// come back at once. `None` when it asks for none, or for more than the maximum.
    pub(super) fn wait(&self, head: &ResponseHead, seed: u64, unix_now: u64) -> Option<Duration> {
        let asked = self.headers.iter().find_map(|(name, format)| {
            let number: u64 = head.headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
            let seconds = match format {
                ResetHeaderFormat::Seconds => number,
                ResetHeaderFormat::UnixTimestamp => number.checked_sub(unix_now)?,
            };
            let wait = Duration::from_secs(seconds);
            (wait <= self.max_interval && !wait.is_zero()).then_some(wait)
        })?;
        Some(asked + Duration::from_millis(seed % (millis(asked) / 2).max(1)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

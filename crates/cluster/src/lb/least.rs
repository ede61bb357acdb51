//! The host with the fewest requests in hand.

use super::roster::{Facts, Roster};
use super::terms::Method;

/// Of `choices` hosts drawn, the same maybe twice; of all, if that is `None`. Equals draw lots only there.
#[inline]
pub(super) fn choose(
    facts: &Facts,
    hosts: &[u32],
    choices: Option<u32>,
    chance: &mut impl FnMut() -> u64,
) -> Option<u32> {
    let Some(choices) = choices else { return fewest_of_all(facts, hosts, chance) };
    // Their high bits: cheaper than a remainder, and as even.
    let mut draw = || {
        let place = (u128::from(chance()) * hosts.len() as u128) >> 64;
        hosts.get(place as usize).copied()
    };
    let mut best = draw()?;
    let mut fewest = facts.active(best);
    for _ in 1..choices {
        let host = draw()?;
        let active = facts.active(host);
        if active < fewest {
            (best, fewest) = (host, active);
        }
    }
    Some(best)
}

fn fewest_of_all(facts: &Facts, hosts: &[u32], chance: &mut impl FnMut() -> u64) -> Option<u32> {
    let (first, rest) = hosts.split_first()?;
    let mut best = *first;
    let mut fewest = facts.active(best);
    let mut equals = 1;
    for host in rest {
        let active = facts.active(*host);
        if active < fewest {
            (best, fewest, equals) = (*host, active, 1);
        } else if active == fewest {
            equals += 1;
            // Each of the equals is left with the same probability.
            if chance().is_multiple_of(equals) {
                best = *host;
            }
        }
    }
    Some(best)
}

impl Roster {
    /// What a host counts in a schedule now.
    #[inline]
    pub(super) fn weight(&self, host: u32, now_ms: u64) -> f64 {
        let index = host as usize;
        let weight = f64::from(self.hosts.weights.get(index).copied().unwrap_or(1));
        let weight = match self.method {
            Method::LeastRequest { bias, .. } if bias != 0.0 => {
                let active = (self.hosts.active(host) + 1) as f64;
                weight / if bias == 1.0 { active } else { active.powf(bias) }
            }
            _ => weight,
        };
        match (&self.ramp, self.hosts.since.get(index)) {
            (Some(ramp), Some(since)) if *since > 0 => weight * ramp.factor(now_ms.saturating_sub(*since)),
            _ => weight,
        }
    }
}

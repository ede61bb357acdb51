//! How many of 6,000 requests each host got from Envoy 1.40.0 (one worker, one request after the other), against ours:
//! where chance decides by a chi-square test of both samples, elsewhere but for where the schedule begins.

use super::*;

const REQUESTS: usize = 6000;

/// Method, weights, and Envoy's requests by host.
type Recorded = (Method, &'static [u32], &'static [usize]);

const LEAST: Method = Method::LeastRequest { choices: Some(2), bias: 1.0 };

/// Nothing is left to chance there.
const EXACT: [Recorded; 4] = [
    (Method::RoundRobin, &[1, 1, 1], &[2000, 2000, 2000]),
    (Method::RoundRobin, &[1, 2, 3], &[1000, 2000, 3000]),
    (Method::RoundRobin, &[5, 1, 1, 7], &[2143, 429, 429, 2999]),
    // Where weights differ, least requests are in turn while nobody has any in hand.
    (LEAST, &[1, 2, 5], &[749, 1500, 3751]),
];

const BY_CHANCE: [Recorded; 4] = [
    (LEAST, &[1, 1, 1], &[1971, 1994, 2035]),
    (Method::LeastRequest { choices: Some(4), bias: 1.0 }, &[1, 1, 1, 1], &[1479, 1557, 1501, 1463]),
    (Method::Random, &[1, 1, 1, 1, 1], &[1210, 1163, 1200, 1184, 1243]),
    // Weights mean nothing there.
    (Method::Random, &[1, 1, 8], &[1997, 2009, 1994]),
];

/// Requests end before the next one begins.
fn ours((method, weights, _): Recorded) -> Vec<usize> {
    let (mut balancer, _loads) = loaded(method, weights);
    shares(&mut balancer, weights.len(), REQUESTS)
}

#[test]
fn weights_share_as_in_envoy() {
    for recorded in EXACT {
        let ours = ours(recorded);
        let close = ours.iter().zip(recorded.2).all(|(ours, envoys)| ours.abs_diff(*envoys) <= 2);
        assert!(close, "{recorded:?}: {ours:?}");
    }
}

#[test]
fn chance_shares_as_in_envoy() {
    // Quantiles of 0.999 with 2, 3 and 4 degrees of freedom.
    const LIMITS: [f64; 3] = [13.816, 16.266, 18.467];
    for recorded in BY_CHANCE {
        let (_, weights, envoys) = recorded;
        let ours = ours(recorded);
        // Both samples are of the same size.
        let distance: f64 = ours
            .iter()
            .zip(envoys)
            .map(|(ours, envoys)| (*ours as f64 - *envoys as f64).powi(2) / (ours + envoys) as f64)
            .sum();
        assert!(distance < LIMITS[weights.len() - 3], "{recorded:?}: {ours:?}, {distance}");
    }
}

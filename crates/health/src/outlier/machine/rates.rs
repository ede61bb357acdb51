//! Outliers by their share of good requests: against the other hosts', and against a fixed bound.

use tokio::time::Instant;

use super::{Average, Counts, Detector, Kind, Origin, Random};

/// A host's success rate in percent.
struct Rated {
    place: usize,
    rate: f64,
}

impl Detector {
    /// Judges by what the hosts did in the interval that is over.
    pub(super) fn judge_rates(
        &mut self,
        origin: Origin,
        windows: &[[Counts; 2]],
        now: Instant,
        random: Random<'_>,
    ) {
        self.averages[origin as usize] = None;
        let config = &self.settings.config;
        let (rates, percentages) = (config.success_rate.clone(), config.failure_percentage.clone());
        let least_hosts = rates.minimum_hosts.min(percentages.minimum_hosts);
        if self.hosts.len() < least_hosts as usize {
            return;
        }
        let (mut by_rate, mut by_percentage) = (Vec::new(), Vec::new());
        for (place, (host, windows)) in self.hosts.iter_mut().zip(windows).enumerate() {
            let Counts { total, good } = windows[origin as usize];
            if host.known.is_ejected || total == 0 {
                continue;
            }
            let rate = good as f64 * 100.0 / total as f64;
            if total >= u64::from(rates.request_volume.min(percentages.request_volume)) {
                host.rates[origin as usize] = rate;
            }
            if total >= u64::from(rates.request_volume) {
                by_rate.push(Rated { place, rate });
            }
            if total >= u64::from(percentages.request_volume) {
                by_percentage.push(Rated { place, rate });
            }
        }
        if by_rate.len() >= rates.minimum_hosts.max(1) as usize {
            let average = Average::of(&by_rate, f64::from(rates.stdev_factor) / 1000.0);
            self.averages[origin as usize] = Some(average);
            for host in by_rate.iter().filter(|host| host.rate < average.threshold) {
                self.eject(host.place, origin.success_rate(), now, random);
            }
        }
        if by_percentage.len() >= percentages.minimum_hosts.max(1) as usize {
            let threshold = f64::from(percentages.threshold);
            for host in by_percentage.iter().filter(|host| 100.0 - host.rate >= threshold) {
                self.eject(host.place, origin.failure_percentage(), now, random);
            }
        }
    }
}

impl Average {
    /// The threshold is so many standard deviations (of the population) below the mean.
    fn of(hosts: &[Rated], deviations: f64) -> Self {
        let count = hosts.len() as f64;
        let mean = hosts.iter().map(|host| host.rate).sum::<f64>() / count;
        let variance = hosts.iter().map(|host| (host.rate - mean).powi(2)).sum::<f64>() / count;
        Self { mean, threshold: mean - deviations * variance.sqrt() }
    }
}

impl Origin {
    fn success_rate(self) -> Kind {
        match self {
            Self::External => Kind::SuccessRate,
            Self::Local => Kind::SuccessRateLocalOrigin,
        }
    }

    fn failure_percentage(self) -> Kind {
        match self {
            Self::External => Kind::FailurePercentage,
            Self::Local => Kind::FailurePercentageLocalOrigin,
        }
    }
}

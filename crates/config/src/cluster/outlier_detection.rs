//! `envoy.config.cluster.v3.OutlierDetection`: when a host is taken out because of the requests that it got.

use std::time::Duration;

use crate::reader::{Message, Reader};
use crate::runtime::Runtime;

/// `outlier_detection`. Each number may be overridden by the runtime key `outlier_detection.<field>` (times with
/// `_ms` behind the name, in ms).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetectionConfig {
    /// `interval`, never 0, 10 s when unset: between two looks at all hosts.
    pub interval: Duration,
    /// `base_ejection_time`, never 0, 30 s when unset: how long a first ejection lasts.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`; unset, 300 s or `base_ejection_time`, whichever is longer.
    pub max_ejection_time: Duration,
    /// `max_ejection_time_jitter`, 0 when unset.
    pub max_ejection_time_jitter: Duration,
    /// `max_ejection_percent`, 10 when unset: the share of the hosts that may be out.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`: one may be, whatever that share is.
    pub always_eject_one_host: bool,
    /// `consecutive_5xx`, 5 when unset; 0 is off.
    pub consecutive_5xx: u32,
    /// `consecutive_gateway_failure`, 5 when unset; 0 is off: answers 502, 503 and 504.
    pub consecutive_gateway_failure: u32,
    /// `consecutive_local_origin_failure`, 5 when unset; 0 is off.
    pub consecutive_local_origin_failure: u32,
    /// `split_external_local_origin_errors`: failures to connect, resets and time-outs are counted apart from
    /// answers.
    pub split_local_origin: bool,
    /// `success_rate_*`.
    pub success_rate: SuccessRateConfig,
    /// `failure_percentage_*`.
    pub failure_percentage: FailurePercentageConfig,
    /// `enforcing_*`.
    pub enforcing: EnforcingConfig,
    /// `successful_active_health_check_uneject_host`, true when unset.
    pub check_unejects: bool,
    /// `detect_degraded_hosts`: a host that answers with `x-envoy-degraded` is degraded for a time.
    pub detect_degraded: bool,
}

/// Ejection of hosts whose success rate is far below the others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessRateConfig {
    /// `success_rate_minimum_hosts`, 5 when unset: with fewer hosts that got enough requests nobody is judged.
    pub minimum_hosts: u32,
    /// `success_rate_request_volume`, 100 when unset: requests of one interval.
    pub request_volume: u32,
    /// `success_rate_stdev_factor`, 1900 when unset: thousandths of a standard deviation below the mean.
    pub stdev_factor: u32,
}

/// Ejection of hosts by the share of requests that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailurePercentageConfig {
    /// `failure_percentage_threshold`, 85 when unset.
    pub threshold: u32,
    /// `failure_percentage_minimum_hosts`, 5 when unset.
    pub minimum_hosts: u32,
    /// `failure_percentage_request_volume`, 50 when unset: requests of one interval.
    pub request_volume: u32,
}

/// Of 100 detected outliers so many are ejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnforcingConfig {
    /// `enforcing_consecutive_5xx`, 100 when unset.
    pub consecutive_5xx: u32,
    /// `enforcing_consecutive_gateway_failure`, 0 when unset.
    pub consecutive_gateway_failure: u32,
    /// `enforcing_consecutive_local_origin_failure`, 100 when unset.
    pub consecutive_local_origin_failure: u32,
    /// `enforcing_success_rate`, 100 when unset.
    pub success_rate: u32,
    /// `enforcing_local_origin_success_rate`, 100 when unset.
    pub local_origin_success_rate: u32,
    /// `enforcing_failure_percentage`, 0 when unset.
    pub failure_percentage: u32,
    /// `enforcing_failure_percentage_local_origin`, 0 when unset.
    pub failure_percentage_local_origin: u32,
}

impl OutlierDetectionConfig {
    /// With the runtime keys `outlier_detection.*` applied (Envoy docs, "Cluster manager: runtime").
    #[must_use]
    pub fn under(&self, runtime: &Runtime) -> Self {
        let mut config = self.clone();
        let value = |key: &str| runtime.integer(&format!("outlier_detection.{key}"));
        let time = |key: &str, time: &mut Duration| {
            *time = value(key).map_or(*time, Duration::from_millis);
        };
        time("interval_ms", &mut config.interval);
        time("base_ejection_time_ms", &mut config.base_ejection_time);
        time("max_ejection_time_ms", &mut config.max_ejection_time);
        time("max_ejection_time_jitter_ms", &mut config.max_ejection_time_jitter);
        // A sweep without a pause would starve the main thread.
        config.interval = config.interval.max(Duration::from_millis(1));
        let enforcing = &mut config.enforcing;
        let rates = &mut config.success_rate;
        let percentages = &mut config.failure_percentage;
        for (key, number) in [
            ("consecutive_5xx", &mut config.consecutive_5xx),
            ("consecutive_gateway_failure", &mut config.consecutive_gateway_failure),
            ("consecutive_local_origin_failure", &mut config.consecutive_local_origin_failure),
            ("max_ejection_percent", &mut config.max_ejection_percent),
            ("success_rate_minimum_hosts", &mut rates.minimum_hosts),
            ("success_rate_request_volume", &mut rates.request_volume),
            ("success_rate_stdev_factor", &mut rates.stdev_factor),
            ("failure_percentage_threshold", &mut percentages.threshold),
            ("failure_percentage_minimum_hosts", &mut percentages.minimum_hosts),
            ("failure_percentage_request_volume", &mut percentages.request_volume),
            ("enforcing_consecutive_5xx", &mut enforcing.consecutive_5xx),
            ("enforcing_consecutive_gateway_failure", &mut enforcing.consecutive_gateway_failure),
            ("enforcing_consecutive_local_origin_failure", &mut enforcing.consecutive_local_origin_failure),
            ("enforcing_success_rate", &mut enforcing.success_rate),
            ("enforcing_local_origin_success_rate", &mut enforcing.local_origin_success_rate),
            ("enforcing_failure_percentage", &mut enforcing.failure_percentage),
            ("enforcing_failure_percentage_local_origin", &mut enforcing.failure_percentage_local_origin),
        ] {
            if let Some(value) = value(key) {
                *number = u32::try_from(value).unwrap_or(u32::MAX);
            }
        }
        config.max_ejection_percent = config.max_ejection_percent.min(100);
        config
    }
}

impl Message for OutlierDetectionConfig {
    const NAME: &'static str = "envoy.config.cluster.v3.OutlierDetection";

    fn read(r: &Reader<'_>) -> Self {
        let percent = |name, default| r.u32(name).within(0..=100).or(default);
        let base = r.duration("base_ejection_time").greater_than_zero().or(Duration::from_secs(30));
        let longest = r.duration("max_ejection_time").greater_than_zero().check(|longest| {
            if *longest < base { Err("is less than `base_ejection_time`".to_owned()) } else { Ok(()) }
        });
        Self {
            interval: r.duration("interval").greater_than_zero().or(Duration::from_secs(10)),
            base_ejection_time: base,
            max_ejection_time: longest.or(base.max(Duration::from_secs(300))),
            max_ejection_time_jitter: r.duration("max_ejection_time_jitter").or_default(),
            max_ejection_percent: percent("max_ejection_percent", 10),
            always_eject_one_host: r.bool("always_eject_one_host").or_default(),
            consecutive_5xx: r.u32("consecutive_5xx").or(5),
            consecutive_gateway_failure: r.u32("consecutive_gateway_failure").or(5),
            consecutive_local_origin_failure: r.u32("consecutive_local_origin_failure").or(5),
            split_local_origin: r.bool("split_external_local_origin_errors").or_default(),
            success_rate: SuccessRateConfig {
                minimum_hosts: r.u32("success_rate_minimum_hosts").or(5),
                request_volume: r.u32("success_rate_request_volume").or(100),
                stdev_factor: r.u32("success_rate_stdev_factor").or(1900),
            },
            failure_percentage: FailurePercentageConfig {
                threshold: percent("failure_percentage_threshold", 85),
                minimum_hosts: r.u32("failure_percentage_minimum_hosts").or(5),
                request_volume: r.u32("failure_percentage_request_volume").or(50),
            },
            enforcing: EnforcingConfig {
                consecutive_5xx: percent("enforcing_consecutive_5xx", 100),
                consecutive_gateway_failure: percent("enforcing_consecutive_gateway_failure", 0),
                consecutive_local_origin_failure: percent("enforcing_consecutive_local_origin_failure", 100),
                success_rate: percent("enforcing_success_rate", 100),
                local_origin_success_rate: percent("enforcing_local_origin_success_rate", 100),
                failure_percentage: percent("enforcing_failure_percentage", 0),
                failure_percentage_local_origin: percent("enforcing_failure_percentage_local_origin", 0),
            },
            check_unejects: r.bool("successful_active_health_check_uneject_host").or(true),
            detect_degraded: r.bool("detect_degraded_hosts").or_default(),
        }
    }
}

//! By what hosts are chosen: the cluster's configuration with the runtime's overrides.

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{
    LbPolicy, LocalityBasis, LocalityLb, MaglevConfig, RingHashConfig, SelectionMethod, ZoneAware,
};
use tidegate_config::runtime::Runtime;

/// All of it. Equal terms and hosts give equal choices.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The policy.
    pub method: Method,
    /// `CLUSTER_PROVIDED`: the cluster chooses, and there is nothing to balance.
    pub provided: bool,
    /// `healthy_panic_threshold`, whole per cent, 0 for never.
    pub panic_threshold: u32,
    /// `overprovisioning_factor`, per cent.
    pub overprovisioning: u32,
    /// `weighted_priority_health`: weights count, not hosts.
    pub weighted_priority_health: bool,
    /// `fail_traffic_on_panic`.
    pub fail_on_panic: bool,
    /// How the places of hosts count.
    pub places: Places,
    /// `slow_start_config`.
    pub ramp: Option<Ramp>,
}

/// How the places of hosts count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Places {
    /// Requests are kept in this proxy's zone, if the hosts of the local cluster are known.
    Zones(Zones),
    /// Each has its weight.
    Weighted,
}

/// When requests are kept in this proxy's zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zones {
    /// `routing_enabled`, per cent.
    pub enabled: u32,
    /// `min_cluster_size`.
    pub min_cluster_size: u64,
    /// `force_local_zone`: all, if there are so many healthy hosts.
    pub force_local: Option<u32>,
    /// `locality_basis`.
    pub basis: LocalityBasis,
}

/// How one of several hosts is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Method {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in hand.
    LeastRequest {
        /// Of so many that chance draws; `None`: of all.
        choices: Option<u32>,
        /// How much requests in hand count where weights differ.
        bias: f64,
    },
    /// By chance.
    Random,
    /// By a ring of hashes.
    Ring(RingHashConfig),
    /// By a table of hashes.
    Maglev(MaglevConfig),
}

/// How a host's weight grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// For so long, in ms, at least 1.
    pub window_ms: u64,
    /// Above 0: 1 is a straight line, more starts steeper.
    pub aggression: f64,
    /// No less than this share of its weight.
    pub least: f64,
}

impl Terms {
    /// The terms of `config` under `runtime`.
    pub fn new(config: &ClusterConfig, runtime: &Runtime) -> Self {
        let panic_threshold = runtime.integer("upstream.healthy_panic_threshold");
        let zones = match &config.locality_lb {
            LocalityLb::ZoneAware(zones) => zones.clone(),
            LocalityLb::Weighted => ZoneAware::default(),
        };
        Self {
            method: Method::new(&config.lb_policy, runtime),
            provided: config.lb_policy == LbPolicy::ClusterProvided,
            panic_threshold: match panic_threshold {
                Some(percent) => percent.min(100) as u32,
                None => config.healthy_panic_threshold.round() as u32,
            },
            overprovisioning: config.overprovisioning_factor,
            weighted_priority_health: config.weighted_priority_health,
            fail_on_panic: zones.fail_traffic_on_panic,
            places: match &config.locality_lb {
                // Subsets know weights of localities only if they are told to.
                LocalityLb::Weighted if config.subsets.as_ref().is_none_or(|s| s.locality_weight_aware) => {
                    Places::Weighted
                }
                LocalityLb::Weighted => Places::Zones(Zones::new(&zones, runtime)),
                LocalityLb::ZoneAware(zones) => Places::Zones(Zones::new(zones, runtime)),
            },
            ramp: config.lb_policy.slow_start().map(|slow| {
                let aggression = slow.aggression.as_ref().map_or(1.0, |double| double.value(runtime));
                Ramp {
                    window_ms: slow.window.as_millis() as u64,
                    // Envoy takes 1 for what makes no sense.
                    aggression: if aggression > 0.0 { aggression } else { 1.0 },
                    least: slow.min_weight_percent / 100.0,
                }
            }),
        }
    }
}

impl Default for Terms {
    /// Envoy's.
    fn default() -> Self {
        Self {
            method: Method::default(),
            provided: false,
            panic_threshold: 50,
            overprovisioning: 140,
            weighted_priority_health: false,
            fail_on_panic: false,
            places: Places::Zones(Zones::new(&ZoneAware::default(), &Runtime::default())),
            ramp: None,
        }
    }
}

impl Zones {
    fn new(zones: &ZoneAware, runtime: &Runtime) -> Self {
        let integer = |key: &str| runtime.integer(&format!("upstream.zone_routing.{key}"));
        let deprecated = zones.force_locality_direct_routing.then_some(1);
        let configured = zones.force_local_zone.map(|force| force.min_size).or(deprecated);
        let overridden = integer("force_local_zone.min_size").filter(|least| *least > 0);
        Self {
            enabled: integer("enabled").map_or(zones.routing_enabled, |percent| percent.min(100) as u32),
            min_cluster_size: integer("min_cluster_size").unwrap_or(zones.min_cluster_size),
            force_local: overridden.map(|least| least as u32).or(configured),
            basis: zones.basis,
        }
    }
}

impl Method {
    fn new(policy: &LbPolicy, runtime: &Runtime) -> Self {
        match policy {
            LbPolicy::RoundRobin { .. } => Self::RoundRobin,
            LbPolicy::LeastRequest(least) => {
                let bias = least.active_request_bias.as_ref().map_or(1.0, |bias| bias.value(runtime));
                let choices = Some(least.choice_count).filter(|_| least.method == SelectionMethod::Choices);
                Self::LeastRequest { choices, bias: if bias >= 0.0 { bias } else { 1.0 } }
            }
            // The balancer of such a cluster has no hosts to choose from.
            LbPolicy::Random | LbPolicy::ClusterProvided => Self::Random,
            LbPolicy::RingHash(ring) => Self::Ring(*ring),
            LbPolicy::Maglev(maglev) => Self::Maglev(*maglev),
        }
    }

    /// Whether keys decide.
    pub(crate) fn hashes(self) -> bool {
        matches!(self, Self::Ring(_) | Self::Maglev(_))
    }

    pub(super) fn counts_requests(self) -> bool {
        matches!(self, Self::LeastRequest { .. })
    }

    pub(super) fn heeds_weights(self) -> bool {
        !matches!(self, Self::Random)
    }
}

impl Ramp {
    /// What of its weight a host has that became eligible `age_ms` ago.
    pub(super) fn factor(&self, age_ms: u64) -> f64 {
        if age_ms >= self.window_ms {
            return 1.0;
        }
        let time = age_ms.max(1) as f64 / self.window_ms as f64;
        let grown = if self.aggression == 1.0 { time } else { time.powf(1.0 / self.aggression) };
        grown.max(self.least)
    }
}

//! Zone-aware routing: requests stay in their zone as far as that loads no host more than others.
//!
//! Envoy docs, "Zone aware routing". The proxies of all zones are hosts of the local cluster; how many there are in
//! each zone says how many requests come from there. Only the first priority is routed so.

use tidegate_config::bootstrap::Locality;
use tidegate_config::cluster::LocalityBasis;

use super::places::Places;
use super::terms::Zones;
use super::{Health, Member};

/// The hosts of the local cluster, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    /// Of the first priority; that of this proxy is in `home`.
    localities: Vec<Populace>,
    home: Option<Locality>,
    hosts: u32,
    usable: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Populace {
    locality: Locality,
    hosts: u32,
    healthy: u64,
    healthy_weight: u64,
}

/// What building the routes came to: for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneFault {
    /// The local cluster has no host where this proxy is (`lb_local_cluster_not_ok`).
    LocalClusterNotOk,
    /// The cluster has too few healthy hosts (`lb_zone_cluster_too_small`).
    ClusterTooSmall,
}

/// What a choice by zones came to: for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneChoice {
    /// All requests stay in the zone (`lb_zone_routing_all_directly`).
    AllDirectly,
    /// This one does (`lb_zone_routing_sampled`).
    Sampled,
    /// It goes to another zone (`lb_zone_routing_cross_zone`).
    CrossZone,
    /// The same, to any one: none has room (`lb_zone_no_capacity_left`).
    NoCapacityLeft,
    /// Too few of the local cluster's hosts are usable (`lb_local_cluster_not_ok`).
    LocalClusterNotOk,
}

/// Where requests of this zone go.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ZoneRoutes {
    pub(super) mode: Mode,
    /// Of 100 requests so many are routed by zones.
    pub(super) enabled: u32,
    /// Too few of the local cluster's hosts are usable to go by them.
    pub(super) local_panic: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mode {
    /// All to the first place, which is this proxy's.
    Direct,
    /// Of 10,000 so many to the first place, the others by what room each place has left, summed up over places.
    Residual { local: u64, room: Box<[u64]> },
}

impl Census {
    /// Counts `members`, seen from `home`.
    pub(crate) fn new(members: &[Member<'_>], home: &Locality) -> Self {
        let mut census = Self { home: Some(home.clone()), ..Self::default() };
        for member in members.iter().filter(|member| member.priority == 0) {
            let known = census.localities.iter().position(|populace| populace.locality == *member.place);
            let index = known.unwrap_or_else(|| {
                let locality = member.place.clone();
                census.localities.push(Populace { locality, hosts: 0, healthy: 0, healthy_weight: 0 });
                census.localities.len() - 1
            });
            census.hosts += u32::from(!member.excluded);
            census.usable += u32::from(member.health != Health::Unhealthy);
            if let Some(populace) = census.localities.get_mut(index) {
                let healthy = member.health == Health::Healthy;
                populace.hosts += 1;
                populace.healthy += u64::from(healthy);
                populace.healthy_weight += if healthy { u64::from(member.weight) } else { 0 };
            }
        }
        census
    }

    fn counted(&self, locality: &Locality, basis: LocalityBasis) -> u64 {
        let populace = self.localities.iter().find(|populace| populace.locality == *locality);
        populace.map_or(0, |populace| populace.counted(basis))
    }

    fn has_home(&self) -> bool {
        let home = |populace: &Populace| Some(&populace.locality) == self.home.as_ref() && populace.hosts > 0;
        self.localities.iter().any(home)
    }

    fn is_panicking(&self, threshold: u32) -> bool {
        let usable = 100.0 * f64::from(self.usable) / f64::from(self.hosts.max(1));
        usable < f64::from(threshold)
    }
}

impl Populace {
    fn counted(&self, basis: LocalityBasis) -> u64 {
        match basis {
            LocalityBasis::Hosts => self.healthy,
            LocalityBasis::Weights => self.healthy_weight,
        }
    }
}

impl ZoneRoutes {
    /// Where requests go to hosts in these `places`; `None` without a fault: there is nothing to choose between.
    pub(super) fn new(
        zones: &Zones,
        panic_threshold: u32,
        census: &Census,
        places: &Places<'_>,
    ) -> Result<Option<Self>, ZoneFault> {
        if places.count() < 2 || (zones.force_local.is_none() && census.localities.len() < 2) {
            return Ok(None);
        }
        if !census.has_home() {
            return Err(ZoneFault::LocalClusterNotOk);
        }
        let healthy: Vec<Vec<&Member<'_>>> = places.of(Health::Healthy).collect();
        if (healthy.iter().map(Vec::len).sum::<usize>() as u64) < zones.min_cluster_size {
            return Err(ZoneFault::ClusterTooSmall);
        }
        let mode = mode(zones, census, places, &healthy);
        Ok(Some(Self { mode, enabled: zones.enabled, local_panic: census.is_panicking(panic_threshold) }))
    }
}

fn mode(zones: &Zones, census: &Census, places: &Places<'_>, healthy: &[Vec<&Member<'_>>]) -> Mode {
    let weight = |members: &Vec<&Member<'_>>| match zones.basis {
        LocalityBasis::Hosts => members.len() as u64,
        LocalityBasis::Weights => members.iter().map(|member| u64::from(member.weight)).sum(),
    };
    let upstream_total: u64 = healthy.iter().map(weight).sum();
    let local_total: u64 = census.localities.iter().map(|populace| populace.counted(zones.basis)).sum();
    // Of 10,000: the requests that come from there, and those that its hosts are to get.
    let shares: Vec<(u64, u64)> = places
        .localities()
        .zip(healthy)
        .map(|(locality, members)| {
            if members.is_empty() {
                return (0, 0);
            }
            let local = 10_000 * census.counted(locality, zones.basis);
            let upstream = 10_000 * weight(members);
            (local.checked_div(local_total).unwrap_or(0), upstream.checked_div(upstream_total).unwrap_or(0))
        })
        .collect();
    let home = shares.first().copied().filter(|_| places.starts_at_home());
    if let Some((local, upstream)) = home {
        let enough =
            zones.force_local.is_some_and(|least| healthy.first().is_some_and(|m| m.len() >= least as usize));
        if (upstream > 0 && upstream >= local) || enough {
            return Mode::Direct;
        }
    }
    let local = home.and_then(|(local, upstream)| (upstream * 10_000).checked_div(local)).unwrap_or(0);
    let mut sum = 0;
    let room = shares.iter().enumerate().map(|(index, (local, upstream))| {
        // What home has room for stays there already.
        if index > 0 || home.is_none() {
            sum += upstream.saturating_sub(*local);
        }
        sum
    });
    Mode::Residual { local, room: room.collect() }
}

impl Mode {
    /// The place of a request.
    #[inline]
    pub(super) fn choose(&self, chance: &mut impl FnMut() -> u64) -> (usize, ZoneChoice) {
        let Self::Residual { local, room } = self else { return (0, ZoneChoice::AllDirectly) };
        if chance() % 10_000 < *local {
            return (0, ZoneChoice::Sampled);
        }
        match room.last() {
            None | Some(0) => {
                let place = chance().checked_rem(room.len() as u64).unwrap_or(0);
                (place as usize, ZoneChoice::NoCapacityLeft)
            }
            Some(all) => {
                let number = chance() % all;
                (room.partition_point(|sum| *sum <= number), ZoneChoice::CrossZone)
            }
        }
    }
}

#[cfg(test)]
mod tests;

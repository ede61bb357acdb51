//! Who may be chosen, of one host set: built once on the main thread, shared by all workers.
//!
//! A worker adds its cursors to it ([`super::Balancer`]).

use std::sync::Arc;

use tidegate_config::bootstrap::Locality;
use tidegate_pool::host::HostLoad;
use tidegate_types::recent::Recent;

use super::places::{ByPlace, Places};
use super::terms::{Method, Ramp, Terms};
use super::zone::ZoneRoutes;
use super::{Census, HashTables, Health, Level, Member, PlaceTerms, Priorities, ZoneFault};

/// The hosts of one set as load balancers see them, by their index.
#[derive(Debug, Default)]
pub struct Roster {
    pub(super) method: Method,
    pub(super) priorities: Priorities,
    /// By priority.
    pub(super) tiers: Box<[Tier]>,
    pub(super) hosts: Facts,
    /// Hosts are new: what they get grows.
    pub(super) ramp: Option<Ramp>,
    /// Why requests are not routed by zones, if they ought to be.
    zone_fault: Option<ZoneFault>,
    /// In panic no host is chosen at all.
    pub(super) fails_on_panic: bool,
    hashed: Option<HashTables>,
}

/// What is known of each host, by its index; empty where the method does not ask.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) weights: Box<[u32]>,
    pub(super) loads: Box<[Arc<HostLoad>]>,
    /// When it became eligible, in ms; 0: it does not start slowly.
    pub(super) since: Box<[u64]>,
}

/// The hosts of one priority.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) all: Group,
    pub(super) healthy: Group,
    pub(super) degraded: Group,
    /// Where places have weights, or requests are routed by zones.
    pub(super) places: Option<ByPlace>,
    /// `None`: by the weights of places.
    pub(super) zones: Option<ZoneRoutes>,
}

/// Hosts among which one is chosen.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) hosts: Box<[u32]>,
    /// Whether weights differ, or hosts start slowly: a schedule is needed.
    pub(super) scheduled: bool,
}

/// What a roster is built in, beside hosts and terms.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// On the clock of [`Member::since_ms`].
    pub now_ms: u64,
    /// Where this proxy is.
    pub home: &'a Locality,
    /// The hosts of the local cluster, if there is one.
    pub census: Option<&'a Census>,
}

impl Roster {
    /// The roster of `members`.
    pub fn build(terms: &Terms, members: &[Member<'_>], scene: Scene<'_>) -> Self {
        let now_ms = scene.now_ms;
        let levels = levels(members, terms.weighted_priority_health);
        let priorities = Priorities::new(&levels, terms.overprovisioning, f64::from(terms.panic_threshold));
        let hashed = HashTables::build(terms, &priorities, members, scene.home);
        let ramp =
            terms.ramp.filter(|ramp| members.iter().any(|member| member.is_ramping(now_ms, ramp.window_ms)));
        let mut zone_fault = None;
        let mut tiers: Box<[Tier]> = match hashed {
            Some(_) => Box::default(),
            None => (0..levels.len())
                .map(|priority| Tier::new(terms, members, priority, ramp.is_some()))
                .collect(),
        };
        for (priority, tier) in tiers.iter_mut().enumerate() {
            if let Err(fault) = tier.place(priority, terms, members, scene, ramp.is_some()) {
                zone_fault = Some(fault);
            }
        }
        let counts = terms.method.counts_requests() || hashed.as_ref().is_some_and(HashTables::is_bounded);
        let load = |member: &Member<'_>| member.load.cloned().unwrap_or_default();
        let since = |member: &Member<'_>| if member.health == Health::Healthy { member.since_ms } else { 0 };
        let hosts = Facts {
            weights: members.iter().map(|member| member.weight).collect(),
            loads: if counts { members.iter().map(load).collect() } else { Box::default() },
            since: if ramp.is_some() { members.iter().map(since).collect() } else { Box::default() },
        };
        Self {
            method: terms.method,
            priorities,
            tiers,
            hosts,
            ramp,
            zone_fault,
            fails_on_panic: terms.fail_on_panic,
            hashed,
        }
    }

    /// One that was made lately on this thread, if it is the same: most of many clusters have one healthy host, and
    /// the same policy.
    pub(crate) fn shared(self) -> Arc<Self> {
        thread_local! {
            static RECENT: Recent<Roster> = const { Recent::new() };
        }
        RECENT.with(|recent| recent.share(self, Self::equals))
    }

    /// Whether the choices are the same. False for what depends on more than numbers.
    fn equals(&self, other: &Self) -> bool {
        let depends = |roster: &Self| {
            let has_places = |tier: &Tier| tier.places.is_some() || tier.zones.is_some();
            roster.hashed.is_some() || !roster.hosts.loads.is_empty() || roster.tiers.iter().any(has_places)
        };
        let same_groups = |(one, other): (&Tier, &Tier)| {
            (&one.all, &one.healthy, &one.degraded) == (&other.all, &other.healthy, &other.degraded)
        };
        !depends(self)
            && !depends(other)
            && self.tiers.len() == other.tiers.len()
            && self.tiers.iter().zip(&other.tiers).all(same_groups)
            && (&self.hosts.weights, &self.hosts.since) == (&other.hosts.weights, &other.hosts.since)
            && (self.method, self.ramp, self.zone_fault) == (other.method, other.ramp, other.zone_fault)
            && self.fails_on_panic == other.fails_on_panic
            && self.priorities == other.priorities
    }

    /// The tables of a hashing method.
    pub fn hashed(&self) -> Option<&HashTables> {
        self.hashed.as_ref()
    }

    /// The priorities of its hosts.
    pub fn priorities(&self) -> &Priorities {
        &self.priorities
    }

    /// Why requests are not routed by zones, if they ought to be.
    pub(crate) fn zone_fault(&self) -> Option<ZoneFault> {
        self.zone_fault
    }

    /// Whether choices depend on the time.
    pub(crate) fn needs_time(&self) -> bool {
        self.ramp.is_some()
    }

    /// Whether choices depend on what all hosts together have in hand.
    pub(crate) fn needs_active(&self) -> bool {
        self.hashed.as_ref().is_some_and(HashTables::is_bounded)
    }
}

impl Facts {
    /// The requests that a host has in hand.
    #[inline]
    pub(super) fn active(&self, host: u32) -> u64 {
        self.loads.get(host as usize).map_or(0, |load| load.active())
    }
}

impl Tier {
    fn new(terms: &Terms, members: &[Member<'_>], priority: usize, ramping: bool) -> Self {
        let group = |wanted: fn(Health) -> bool| {
            let chosen = members.iter().enumerate().filter(|(_, host)| host.priority as usize == priority);
            Group::new(
                terms,
                members,
                ramping,
                chosen.filter(|(_, host)| wanted(host.health)).map(|(index, _)| index),
            )
        };
        Self {
            all: group(|_| true),
            healthy: group(|health| health == Health::Healthy),
            degraded: group(|health| health == Health::Degraded),
            places: None,
            zones: None,
        }
    }

    /// Groups its hosts by where they are, if that matters.
    fn place(
        &mut self,
        priority: usize,
        terms: &Terms,
        members: &[Member<'_>],
        scene: Scene<'_>,
        ramping: bool,
    ) -> Result<(), ZoneFault> {
        match (terms.places, scene.census) {
            (PlaceTerms::Weighted, _) => {
                let places = Places::new(members, priority, scene.home);
                self.places = Some(places.grouped(terms, members, ramping));
            }
            (PlaceTerms::Zones(zones), Some(census)) if priority == 0 => {
                let places = Places::new(members, priority, scene.home);
                self.zones = ZoneRoutes::new(&zones, terms.panic_threshold, census, &places)?;
                self.places = self.zones.is_some().then(|| places.grouped(terms, members, ramping));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Group {
    pub(super) fn new(
        terms: &Terms,
        members: &[Member<'_>],
        ramping: bool,
        indices: impl Iterator<Item = usize>,
    ) -> Self {
        let hosts: Box<[u32]> = indices.map(|index| index as u32).collect();
        let weight = |host: &u32| members.get(*host as usize).map(|member| member.weight);
        let unequal =
            hosts.first().is_some_and(|first| hosts.iter().any(|host| weight(host) != weight(first)));
        let scheduled = terms.method.heeds_weights() && hosts.len() > 1 && (unequal || ramping);
        Self { hosts, scheduled }
    }
}

/// How many hosts of which health each priority has; one priority at least.
fn levels(members: &[Member<'_>], weighted: bool) -> Vec<Level> {
    let mut levels = vec![Level::default()];
    for member in members {
        let priority = member.priority as usize;
        if levels.len() <= priority {
            levels.resize(priority + 1, Level::default());
        }
        levels[priority].add(member.health, weighted.then_some(member.weight), member.excluded);
    }
    levels
}

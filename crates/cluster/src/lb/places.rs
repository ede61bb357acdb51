//! The hosts of one priority by where they are.
//!
//! Places are in the order of their names, this proxy's own first, as in Envoy.

use std::collections::BTreeMap;

use tidegate_config::bootstrap::Locality;

use super::roster::Group;
use super::terms::Terms;
use super::{Health, Member};

/// The hosts of a priority, grouped.
pub(super) struct Places<'m> {
    places: Vec<Place<'m>>,
    starts_at_home: bool,
}

struct Place<'m> {
    locality: &'m Locality,
    /// With their index in the host set.
    hosts: Vec<(usize, &'m Member<'m>)>,
}

/// One place is chosen, then one of its hosts.
#[derive(Debug, Default)]
pub(super) struct ByPlace {
    pub(super) healthy: Lot,
    pub(super) degraded: Lot,
}

/// The hosts of one health.
#[derive(Debug, Default)]
pub(super) struct Lot {
    /// By place.
    pub(super) groups: Box<[Group]>,
    /// Places that have a weight, with what of it they are worth now.
    pub(super) weights: Box<[(u32, f64)]>,
}

impl<'m> Places<'m> {
    pub(super) fn new(members: &'m [Member<'m>], priority: usize, home: &Locality) -> Self {
        let mut by_name: BTreeMap<&Locality, Vec<_>> = BTreeMap::new();
        for (index, member) in members.iter().enumerate() {
            if member.priority as usize == priority {
                by_name.entry(member.place).or_default().push((index, member));
            }
        }
        let at_home = by_name.remove_entry(home);
        let starts_at_home = at_home.is_some();
        let places = at_home.into_iter().chain(by_name).map(|(locality, hosts)| Place { locality, hosts });
        Self { places: places.collect(), starts_at_home }
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Whether the first is this proxy's own.
    pub(super) fn starts_at_home(&self) -> bool {
        self.starts_at_home
    }

    pub(super) fn localities(&self) -> impl Iterator<Item = &Locality> {
        self.places.iter().map(|place| place.locality)
    }

    /// The hosts of each place that have this health.
    pub(super) fn of(&self, health: Health) -> impl Iterator<Item = Vec<&Member<'m>>> {
        let some = move |place: &Place<'m>| {
            place.hosts.iter().map(|(_, host)| *host).filter(|host| host.health == health).collect()
        };
        self.places.iter().map(some)
    }

    pub(super) fn grouped(&self, terms: &Terms, members: &[Member<'_>], ramping: bool) -> ByPlace {
        let lot = |health| Lot {
            groups: self.places.iter().map(|place| place.group(health, terms, members, ramping)).collect(),
            weights: self.weights(health, terms.overprovisioning),
        };
        ByPlace { healthy: lot(Health::Healthy), degraded: lot(Health::Degraded) }
    }

    /// A place that has lost hosts keeps its weight as long as the others can take their part: a share of
    /// 1 / `overprovisioning_factor` (Envoy docs, "Locality weighted load balancing").
    fn weights(&self, health: Health, overprovisioning: u32) -> Box<[(u32, f64)]> {
        let worth = |place: &Place<'_>| {
            let usable = place.hosts.iter().filter(|(_, host)| host.health == health).count();
            let counted = place.hosts.iter().filter(|(_, host)| !host.excluded).count();
            let ratio = usable as f64 / counted.max(1) as f64;
            f64::from(place.weight()) * (f64::from(overprovisioning) / 100.0 * ratio).min(1.0)
        };
        let worths = self.places.iter().enumerate().map(|(index, place)| (index as u32, worth(place)));
        worths.filter(|(_, worth)| *worth > 0.0).collect()
    }

    /// For tables of hashes: the share of each host that gets keys, by its index.
    pub(super) fn shares(&self, gets_keys: impl Fn(&Member<'_>) -> bool) -> Vec<(usize, f64)> {
        let all: u64 = self.places.iter().map(|place| u64::from(place.weight())).sum();
        let share = |place: &Place<'m>| {
            let chosen: Vec<_> = place.hosts.iter().filter(|(_, host)| gets_keys(host)).copied().collect();
            let sum: u64 = chosen.iter().map(|(_, host)| u64::from(host.weight)).sum();
            let of_place = f64::from(place.weight()) / all as f64;
            let shares = chosen
                .into_iter()
                .map(move |(index, host)| (index, f64::from(host.weight) * of_place / sum as f64));
            shares.collect::<Vec<_>>()
        };
        self.places.iter().filter(|place| place.weight() > 0).flat_map(share).collect()
    }
}

impl Place<'_> {
    fn group(&self, health: Health, terms: &Terms, members: &[Member<'_>], ramping: bool) -> Group {
        let hosts = self.hosts.iter().filter(|(_, host)| host.health == health).map(|(index, _)| *index);
        Group::new(terms, members, ramping, hosts)
    }

    /// `load_balancing_weight` of the locality, which all of its hosts carry.
    fn weight(&self) -> u32 {
        self.hosts.first().map_or(0, |(_, host)| host.place_weight)
    }
}

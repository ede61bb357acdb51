//! A worker's load balancer: a [`Roster`] that all share, and cursors of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use super::places::ByPlace;
use super::roster::{Group, Roster};
use super::terms::Method;
use super::zone::ZoneRoutes;
use super::{Among, Edf, Loads, Pick, Wish, ZoneChoice, least};

/// The load balancer of one worker.
#[derive(Debug)]
pub struct Balancer {
    roster: Arc<Roster>,
    /// By priority.
    turns: Vec<Turns>,
    seed: u64,
    /// Choices that were looked at and are still to be made.
    peeked: VecDeque<Pick>,
}

/// Whose turn it is, in each group of a priority.
#[derive(Debug, Default)]
struct Turns {
    all: Turn,
    healthy: Turn,
    degraded: Turn,
    healthy_places: PlaceTurns,
    degraded_places: PlaceTurns,
}

/// Whose turn it is among places, and in each of them.
#[derive(Debug, Default)]
struct PlaceTurns {
    /// Of those that have a weight.
    schedule: Option<Edf>,
    groups: Vec<Turn>,
}

/// Whose turn it is in a group.
#[derive(Debug, Default)]
struct Turn {
    chosen: u64,
    /// Made at the first choice that needs it.
    schedule: Option<Edf>,
}

/// What choices depend on beside hosts and the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// On the clock of [`super::Member::since_ms`]; only hosts that start slowly need it.
    pub ms: u64,
    /// The requests that all hosts have in hand; only bounded loads need it.
    pub active: u64,
}

impl Balancer {
    /// `seed` decides where rotation starts: workers and proxies that start at once should not all begin with the
    /// same host.
    pub fn new(roster: Arc<Roster>, seed: u64) -> Self {
        let mut balancer = Self { roster, turns: Vec::new(), seed, peeked: VecDeque::new() };
        balancer.fit();
        balancer
    }

    /// Goes on with other hosts, or with the same whose health changed: rotation stays where it was, schedules start
    /// anew, as in Envoy.
    pub fn follow(&mut self, roster: Arc<Roster>) {
        self.roster = roster;
        self.peeked.clear();
        self.fit();
    }

    fn fit(&mut self) {
        self.turns.truncate(self.roster.tiers.len());
        for turns in &mut self.turns {
            for turn in [&mut turns.all, &mut turns.healthy, &mut turns.degraded] {
                turn.schedule = None;
            }
            for places in [&mut turns.healthy_places, &mut turns.degraded_places] {
                places.schedule = None;
                places.groups.iter_mut().for_each(|turn| turn.schedule = None);
            }
        }
        self.turns.resize_with(self.roster.tiers.len(), Turns::default);
    }

    /// Chooses a host; without a key at random where keys decide, as in Envoy.
    #[inline]
    pub fn choose(&mut self, wish: Wish<'_>, moment: Moment, chance: &mut impl FnMut() -> u64) -> Pick {
        if let Some(tables) = self.roster.hashed() {
            let hash = wish.hash.unwrap_or_else(chance);
            return tables.choose(hash, wish.loads, &self.roster.hosts, moment.active);
        }
        if wish.loads.is_none()
            && let Some(pick) = self.peeked.pop_front()
        {
            return pick;
        }
        self.draw(wish.loads, moment, chance)
    }

    /// A choice to come, later with every call; `None` after as many as there are healthy hosts, and where there is
    /// no telling: where keys decide, or the requests in hand. All as in Envoy.
    pub fn peek(&mut self, moment: Moment, chance: &mut impl FnMut() -> u64) -> Option<Pick> {
        let healthy: usize = self.roster.tiers.iter().map(|tier| tier.healthy.hosts.len()).sum();
        if self.peeked.len() >= healthy || self.roster.hashed().is_some() || !self.is_foreseeable() {
            return None;
        }
        let pick = self.draw(None, moment, chance);
        self.peeked.push_back(pick);
        Some(pick)
    }

    fn is_foreseeable(&self) -> bool {
        let scheduled = || self.roster.tiers.iter().all(|tier| tier.healthy.scheduled);
        !self.roster.method.counts_requests() || scheduled()
    }

    /// Whom it chooses from.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    #[inline]
    fn draw(&mut self, loads: Option<&Loads>, moment: Moment, chance: &mut impl FnMut() -> u64) -> Pick {
        let roster = &*self.roster;
        let random = chance();
        let (priority, among) = match loads {
            None => roster.priorities.choose(random),
            Some(loads) => roster.priorities.choose_by(loads, random),
        };
        let panic = among == Among::All;
        let none = Pick { host: None, panic, zone: None };
        if panic && roster.fails_on_panic {
            return none;
        }
        let (Some(tier), Some(turns)) = (roster.tiers.get(priority), self.turns.get_mut(priority)) else {
            return none;
        };
        let draw = Draw { seed: self.seed, random, moment };
        if let Some(places) = &tier.places
            && !panic
            && let Some(pick) = turns.by_place(roster, tier.zones.as_ref(), places, among, draw, chance)
        {
            return pick;
        }
        let (group, turn) = match among {
            Among::Healthy => (&tier.healthy, &mut turns.healthy),
            Among::Degraded => (&tier.degraded, &mut turns.degraded),
            Among::All => (&tier.all, &mut turns.all),
        };
        let host = turn.choose(roster, group, draw, chance);
        Pick { host: host.map(|host| host as usize), panic, zone: None }
    }
}

impl Turns {
    /// Chooses a place and one of its hosts; `None`: this choice does not go by places.
    fn by_place(
        &mut self,
        roster: &Roster,
        zones: Option<&ZoneRoutes>,
        places: &ByPlace,
        among: Among,
        draw: Draw,
        chance: &mut impl FnMut() -> u64,
    ) -> Option<Pick> {
        let (lot, turns) = match among {
            Among::Degraded => (&places.degraded, &mut self.degraded_places),
            Among::Healthy | Among::All => (&places.healthy, &mut self.healthy_places),
        };
        let (place, zone) = match zones {
            None => (turns.scheduled(&lot.weights, draw.seed)?, None),
            Some(zones) if zones.enabled < 100 && chance() % 100 >= u64::from(zones.enabled) => return None,
            Some(zones) if zones.local_panic => {
                let zone = Some(ZoneChoice::LocalClusterNotOk);
                if roster.fails_on_panic {
                    return Some(Pick { host: None, panic: false, zone });
                }
                let (group, turn) = match among {
                    Among::Degraded => (&roster.tiers.first()?.degraded, &mut self.degraded),
                    Among::Healthy | Among::All => (&roster.tiers.first()?.healthy, &mut self.healthy),
                };
                let host = turn.choose(roster, group, draw, chance);
                return Some(Pick { host: host.map(|host| host as usize), panic: false, zone });
            }
            Some(zones) => {
                let (place, zone) = zones.mode.choose(chance);
                (place, Some(zone))
            }
        };
        let group = lot.groups.get(place)?;
        if turns.groups.len() <= place {
            turns.groups.resize_with(lot.groups.len(), Turn::default);
        }
        let host = turns.groups.get_mut(place)?.choose(roster, group, draw, chance);
        Some(Pick { host: host.map(|host| host as usize), panic: false, zone })
    }
}

impl PlaceTurns {
    fn scheduled(&mut self, weights: &[(u32, f64)], seed: u64) -> Option<usize> {
        let schedule = self.schedule.get_or_insert_with(|| {
            Edf::new(weights.iter().map(|(_, weight)| *weight), (seed >> 8) as u32 & MAX_PICKS)
        });
        let next = schedule.next(|index| weights.get(index).map_or(1.0, |(_, weight)| *weight))?;
        weights.get(next).map(|(place, _)| *place as usize)
    }
}

/// What one choice goes by.
#[derive(Clone, Copy)]
struct Draw {
    seed: u64,
    /// What decided on the priority.
    random: u64,
    moment: Moment,
}

impl Turn {
    #[inline]
    fn choose(
        &mut self,
        roster: &Roster,
        group: &Group,
        draw: Draw,
        chance: &mut impl FnMut() -> u64,
    ) -> Option<u32> {
        if group.scheduled {
            return self.scheduled(roster, group, draw);
        }
        let hosts = &group.hosts;
        match roster.method {
            Method::LeastRequest { choices, .. } => least::choose(&roster.hosts, hosts, choices, chance),
            // Other bits than those that decided on the priority.
            Method::Random => at(hosts, draw.random >> 7),
            Method::RoundRobin | Method::Ring(_) | Method::Maglev(_) => {
                let number = draw.seed.wrapping_add(self.chosen);
                self.chosen = self.chosen.wrapping_add(1);
                at(hosts, number)
            }
        }
    }

    fn scheduled(&mut self, roster: &Roster, group: &Group, draw: Draw) -> Option<u32> {
        let weight =
            |place: usize| group.hosts.get(place).map_or(1.0, |host| roster.weight(*host, draw.moment.ms));
        let schedule = self.schedule.get_or_insert_with(|| {
            Edf::new((0..group.hosts.len()).map(weight), (draw.seed >> 8) as u32 & MAX_PICKS)
        });
        schedule.next(weight).and_then(|place| group.hosts.get(place)).copied()
    }
}

#[inline]
fn at(hosts: &[u32], number: u64) -> Option<u32> {
    let place = number.checked_rem(hosts.len() as u64)?;
    hosts.get(place as usize).copied()
}

/// Schedules start after fewer than so many picks: the more, the less exact are deadlines.
const MAX_PICKS: u32 = (1 << 20) - 1;

//! Load balancing: pure functions from hosts, a cursor and a random number to a pick.
//!
//! Follows Envoy's `RoundRobinLoadBalancer` and `RandomLoadBalancer`: rotation starts anywhere; unequal
//! weights are scheduled earliest deadline first; `RANDOM` ignores weights. Which priority a request goes to, and
//! whether to its healthy, its degraded or (in panic) all hosts, [`Priorities`] decide. Hashing policies look a key
//! up in the [`HashTable`] of that priority. Start from [`Balancer`].

mod edf;
pub mod hash;
mod hashed;
mod priority;

use std::collections::VecDeque;
use std::sync::Arc;

pub use edf::Edf;
pub use hashed::{HashTable, HashTables, NamedHost, Spread};
pub use priority::{Among, Level, Loads, Priorities};
use tidegate_config::cluster::LbPolicy;

/// How a host may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Freely.
    Healthy,
    /// When healthy hosts do not suffice.
    Degraded,
    /// Only in panic.
    Unhealthy,
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index of the host, if there is one.
    pub host: Option<usize>,
    /// Chosen in panic mode, that is among all hosts whatever their health (`lb_healthy_panic`).
    pub panic: bool,
}

/// A host, as its weight and its health show it to the load balancer.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// `load_balancing_weight`.
    pub weight: u32,
    /// How it may be used.
    pub health: Health,
    /// 0 is the first to be used.
    pub priority: u32,
}

/// What a request wants of its choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// What a `hash_policy` found; only hashing policies look at it.
    pub hash: Option<u64>,
    /// What each priority gets of requests like this, where that differs from the others.
    pub loads: Option<&'a Loads>,
}

/// The settings that every policy has.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    /// `healthy_panic_threshold`, per cent.
    pub panic_threshold: f64,
    /// `overprovisioning_factor`, per cent.
    pub overprovisioning: u32,
}

impl Default for Common {
    /// Envoy's.
    fn default() -> Self {
        Self { panic_threshold: 50.0, overprovisioning: 140 }
    }
}

/// The load balancer of one worker.
#[derive(Debug)]
pub struct Balancer {
    policies: Policies,
    /// Choices that were looked at and are still to be made.
    peeked: VecDeque<Pick>,
    /// Those are no more than this.
    healthy: usize,
}

#[derive(Debug)]
enum Policies {
    /// Its own cursors, a table for each priority.
    Own(Priorities, Box<[Table]>),
    /// Tables that all workers share.
    Hashed(Arc<HashTables>),
}

impl Balancer {
    /// Rotation or chance among `hosts`. `seed` decides where rotation starts.
    pub fn new(policy: LbPolicy, common: Common, hosts: &[Member], seed: u64) -> Self {
        let health = hosts.iter().map(|host| (host.priority, host.health));
        let levels = levels(health.clone());
        let priorities = Priorities::new(&levels, common.overprovisioning, common.panic_threshold);
        let tables = (0..levels.len()).map(|priority| Table::new(policy, hosts, priority, seed)).collect();
        let healthy = health.filter(|(_, health)| *health == Health::Healthy).count();
        Self { policies: Policies::Own(priorities, tables), peeked: VecDeque::new(), healthy }
    }

    /// By the hash of what is asked for.
    pub fn hashed(tables: Arc<HashTables>) -> Self {
        Self { policies: Policies::Hashed(tables), peeked: VecDeque::new(), healthy: 0 }
    }

    /// Chooses a host; without a key at random where keys decide, as in Envoy.
    #[inline]
    pub fn choose(&mut self, wish: Wish<'_>, random: u64) -> Pick {
        match &mut self.policies {
            Policies::Hashed(tables) => tables.choose(wish.hash.unwrap_or(random), wish.loads),
            Policies::Own(..) if !self.peeked.is_empty() && wish.loads.is_none() => {
                self.peeked.pop_front().unwrap_or(Pick { host: None, panic: false })
            }
            Policies::Own(priorities, tables) => draw(priorities, tables, wish.loads, random),
        }
    }

    /// A choice to come, later with every call; `None` after as many as there are healthy hosts, and where keys
    /// decide, since then there is no telling, as in Envoy.
    pub fn peek(&mut self, random: u64) -> Option<Pick> {
        let Policies::Own(priorities, tables) = &mut self.policies else { return None };
        if self.peeked.len() >= self.healthy {
            return None;
        }
        let pick = draw(priorities, tables, None, random);
        self.peeked.push_back(pick);
        Some(pick)
    }

    /// The priorities of its hosts.
    pub fn priorities(&self) -> &Priorities {
        match &self.policies {
            Policies::Own(priorities, _) => priorities,
            Policies::Hashed(tables) => tables.priorities(),
        }
    }
}

fn draw(priorities: &Priorities, tables: &mut [Table], loads: Option<&Loads>, random: u64) -> Pick {
    let (priority, among) = match loads {
        None => priorities.choose(random),
        Some(loads) => priorities.choose_by(loads, random),
    };
    let host = tables.get_mut(priority).and_then(|table| table.choose(among, random));
    Pick { host, panic: among == Among::All }
}

/// How many hosts of which health each priority has; one priority at least.
fn levels(hosts: impl Iterator<Item = (u32, Health)>) -> Vec<Level> {
    let mut levels = vec![Level::default()];
    for (priority, health) in hosts {
        let priority = priority as usize;
        if levels.len() <= priority {
            levels.resize(priority + 1, Level::default());
        }
        let level = &mut levels[priority];
        level.hosts += 1;
        match health {
            Health::Healthy => level.healthy += 1,
            Health::Degraded => level.degraded += 1,
            Health::Unhealthy => {}
        }
    }
    levels
}

/// Rotation or chance among the hosts of one priority: who may be chosen, and the cursors.
#[derive(Debug)]
struct Table {
    policy: LbPolicy,
    all: Group,
    healthy: Group,
    degraded: Group,
}

impl Table {
    fn new(policy: LbPolicy, hosts: &[Member], priority: usize, seed: u64) -> Self {
        let group = |wanted: fn(Health) -> bool| {
            let members = hosts.iter().enumerate();
            let members =
                members.filter(|(_, host)| host.priority as usize == priority && wanted(host.health));
            Group::new(members.map(|(index, host)| (index, host.weight)).collect(), seed)
        };
        Self {
            policy,
            all: group(|_| true),
            healthy: group(|health| health == Health::Healthy),
            degraded: group(|health| health == Health::Degraded),
        }
    }

    #[inline]
    fn choose(&mut self, among: Among, random: u64) -> Option<usize> {
        let group = match among {
            Among::All => &mut self.all,
            Among::Healthy => &mut self.healthy,
            Among::Degraded => &mut self.degraded,
        };
        match self.policy {
            LbPolicy::RoundRobin => group.next(),
            // Hashing without a key is chance.
            LbPolicy::Random | LbPolicy::RingHash(_) | LbPolicy::Maglev(_) => group.at(random >> 7),
        }
    }
}

/// Hosts among which one is chosen.
#[derive(Debug)]
struct Group {
    members: Vec<(usize, u32)>,
    cursor: u64,
    /// Only if weights differ.
    edf: Option<Edf>,
}

impl Group {
    fn new(members: Vec<(usize, u32)>, seed: u64) -> Self {
        let unequal = members.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let edf = unequal.then(|| {
            let mut edf = Edf::new(members.iter().map(|(_, weight)| *weight));
            // Many workers and proxies start at once: they should not all begin with the same host.
            for _ in 0..seed % members.len() as u64 {
                let _ = edf.next();
            }
            edf
        });
        Self { members, cursor: seed, edf }
    }

    fn next(&mut self) -> Option<usize> {
        if let Some(edf) = &mut self.edf {
            return edf.next().and_then(|member| self.members.get(member)).map(|(index, _)| *index);
        }
        let cursor = self.cursor;
        self.cursor = cursor.wrapping_add(1);
        self.at(cursor)
    }

    fn at(&self, n: u64) -> Option<usize> {
        let place = n.checked_rem(self.members.len() as u64)?;
        self.members.get(place as usize).map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests;

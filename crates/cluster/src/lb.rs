//! Load balancing: pure functions from hosts, a cursor and a random number to a pick.
//!
//! Follows Envoy's `RoundRobinLoadBalancer` and `RandomLoadBalancer`: rotation starts anywhere; unequal
//! weights are scheduled earliest deadline first; `RANDOM` ignores weights. Panic mode ("Panic threshold" in
//! Envoy docs) and the share of degraded hosts are decided in [`Table::choose`]. Hashing policies look a key up in
//! a [`HashTable`]; a [`Balancer`] is one or the other.

mod edf;
pub mod hash;
mod hashed;

use std::collections::VecDeque;
use std::sync::Arc;

pub use edf::Edf;
pub use hashed::{HashTable, NamedHost, Spread};
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

/// The load balancer of one worker.
#[derive(Debug)]
pub enum Balancer {
    /// Its own cursors.
    Own(Box<Table>),
    /// A table that all workers share.
    Hashed(Arc<HashTable>),
}

impl Balancer {
    /// Chooses a host for a key; without one at random, as in Envoy. Only hashing policies look at keys.
    #[inline]
    pub fn choose(&mut self, hash: Option<u64>, random: u64) -> Pick {
        match self {
            Self::Own(table) => table.choose(random),
            Self::Hashed(table) => table.choose(hash.unwrap_or(random)),
        }
    }

    /// See [`Table::peek`]; where keys decide there is no telling, as in Envoy.
    pub fn peek(&mut self, random: u64) -> Option<Pick> {
        match self {
            Self::Own(table) => table.peek(random),
            Self::Hashed(_) => None,
        }
    }
}

/// Rotation or chance, of one worker for one host set: who may be chosen, and the cursors.
#[derive(Debug)]
pub struct Table {
    policy: LbPolicy,
    all: Group,
    healthy: Group,
    degraded: Group,
    panic: bool,
    /// Selections of 100 that go to healthy hosts.
    healthy_load: u64,
    /// Choices that were looked at and are still to be made.
    peeked: VecDeque<Pick>,
}

impl Table {
    /// A balancer for hosts given as (weight, health). `seed` decides where rotation starts.
    pub fn new(policy: LbPolicy, panic_threshold: f64, hosts: &[(u32, Health)], seed: u64) -> Self {
        let group = |wanted: fn(Health) -> bool| {
            let members = hosts.iter().enumerate().filter(|(_, (_, health))| wanted(*health));
            Group::new(members.map(|(index, (weight, _))| (index, *weight)).collect(), seed)
        };
        let healthy = group(|health| health == Health::Healthy);
        let degraded = group(|health| health == Health::Degraded);
        let total = hosts.len().max(1) as f64;
        let percent = |group: &Group| 100.0 * group.members.len() as f64 / total;
        let healthy_load = (percent(&healthy) * OVERPROVISIONING).min(100.0) as u64;
        Self {
            policy,
            panic: in_panic(panic_threshold, hosts.iter().map(|(_, health)| *health)),
            healthy_load: if degraded.members.is_empty() { 100 } else { healthy_load },
            peeked: VecDeque::new(),
            all: group(|_| true),
            healthy,
            degraded,
        }
    }

    /// Chooses a host.
    pub fn choose(&mut self, random: u64) -> Pick {
        self.peeked.pop_front().unwrap_or_else(|| self.draw(random))
    }

    /// A choice to come, later with every call; `None` after as many as there are healthy hosts, as in Envoy.
    pub fn peek(&mut self, random: u64) -> Option<Pick> {
        if self.peeked.len() >= self.healthy.members.len() {
            return None;
        }
        let pick = self.draw(random);
        self.peeked.push_back(pick);
        Some(pick)
    }

    fn draw(&mut self, random: u64) -> Pick {
        let group = if self.panic {
            &mut self.all
        } else if self.healthy_load == 100 || random % 100 < self.healthy_load {
            &mut self.healthy
        } else {
            &mut self.degraded
        };
        let host = match self.policy {
            LbPolicy::RoundRobin => group.next(),
            // Hashing without a key is chance.
            LbPolicy::Random | LbPolicy::RingHash(_) | LbPolicy::Maglev(_) => group.at(random >> 7),
        };
        Pick { host, panic: self.panic }
    }
}

/// Whether fewer than `threshold` percent of hosts can be used.
fn in_panic(threshold: f64, hosts: impl ExactSizeIterator<Item = Health> + Clone) -> bool {
    let percent = |wanted| {
        let count = hosts.clone().filter(|health| *health == wanted).count();
        100.0 * count as f64 / hosts.len().max(1) as f64
    };
    hosts.len() == 0 || percent(Health::Healthy) + percent(Health::Degraded) < threshold
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

/// Envoy's default `overprovisioning_factor`, 140 %.
const OVERPROVISIONING: f64 = 1.4;

#[cfg(test)]
mod tests;

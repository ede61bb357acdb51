//! Consistent hashing: a key always gets the same host, and a host that leaves moves only its own keys.
//!
//! Both tables choose what Envoy 1.40 chooses for the same hosts (Envoy docs, "Ring hash" and "Maglev"). They
//! are built once, on the main thread, and shared by all workers.

use tidegate_config::bootstrap::Locality;
use tidegate_config::cluster::{HashFunction, MaglevConfig, RingHashConfig};
use xxhash_rust::xxh64::xxh64;

use super::bound::Bound;
use super::hash::{murmur2, xx64};
use super::places::Places;
use super::roster::Facts;
use super::{Among, Health, Loads, Member, Method, Pick, PlaceTerms, Priorities, Terms};

/// The tables of one host set, one for each priority.
#[derive(Debug)]
pub struct HashTables {
    priorities: Priorities,
    tables: Box<[HashTable]>,
    bounded: bool,
}

impl HashTables {
    /// The tables of `members`; `None` if the method does not hash.
    pub(super) fn build(
        terms: &Terms,
        priorities: &Priorities,
        members: &[Member<'_>],
        home: &Locality,
    ) -> Option<Self> {
        let bound = match terms.method {
            Method::Ring(ring) => ring.balance_factor,
            Method::Maglev(maglev) => maglev.balance_factor,
            _ => return None,
        };
        let table = |priority| {
            let all = priorities.is_panicking(priority);
            let gets_keys = |host: &Member<'_>| all || host.health == Health::Healthy;
            let places = Places::new(members, priority, home);
            let shares = match terms.places {
                PlaceTerms::Weighted => places.shares(gets_keys),
                PlaceTerms::Zones(_) => {
                    shares(members, |host| host.priority as usize == priority && gets_keys(host))
                }
            };
            HashTable::build(terms, members, bound, &shares)
        };
        let tables = (0..priorities.count()).map(table).collect::<Option<_>>()?;
        let bounded = bound.is_some();
        Some(Self { priorities: priorities.clone(), tables, bounded })
    }

    /// The host of a key. The key decides on the priority, too, as in Envoy. `active`: the requests in hand of all.
    #[inline]
    pub(super) fn choose(&self, hash: u64, loads: Option<&Loads>, hosts: &Facts, active: u64) -> Pick {
        let (priority, among) = match loads {
            None => self.priorities.choose(hash),
            Some(loads) => self.priorities.choose_by(loads, hash),
        };
        let host = self.tables.get(priority).and_then(|table| table.choose(hash, hosts, active));
        Pick { host, panic: among == Among::All, zone: None }
    }

    /// Whether a host's load is bounded (`hash_balance_factor`).
    pub(super) fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// How evenly the hosts of the last priority share their table, as Envoy's gauges have it.
    pub fn spread(&self) -> Spread {
        self.tables.last().map(|table| table.spread).unwrap_or_default()
    }
}

/// The table of one priority.
#[derive(Debug)]
struct HashTable {
    slots: Slots,
    spread: Spread,
    bound: Option<Bound>,
}

/// How evenly hosts share the table: numbers for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Entries in all.
    pub size: u64,
    /// Entries of the host with the fewest.
    pub min: u64,
    /// Entries of the host with the most.
    pub max: u64,
}

/// Hosts are indices of the host set.
#[derive(Debug)]
enum Slots {
    /// Sorted by hash; hashes and hosts apart, since the search reads only hashes.
    Ring {
        hashes: Box<[u64]>,
        hosts: Box<[u32]>,
    },
    Maglev(Box<[u32]>),
}

/// The share of each host that gets keys, by its index: its weight's of all.
fn shares(members: &[Member<'_>], gets_keys: impl Fn(&Member<'_>) -> bool) -> Vec<(usize, f64)> {
    let chosen = || members.iter().enumerate().filter(|(_, host)| gets_keys(host));
    let total: u64 = chosen().map(|(_, host)| u64::from(host.weight)).sum();
    chosen().map(|(index, host)| (index, f64::from(host.weight) / total as f64)).collect()
}

/// A host that gets keys.
struct Keeper<'a> {
    host: u32,
    name: &'a str,
    /// Its share of all weights.
    share: f64,
}

impl HashTable {
    /// The table of those of `members` that have `shares`; `None` if the method does not hash.
    fn build(
        terms: &Terms,
        members: &[Member<'_>],
        bound: Option<u32>,
        shares: &[(usize, f64)],
    ) -> Option<Self> {
        let keeper = |(index, share): &(usize, f64)| {
            let member = members.get(*index)?;
            Some(Keeper { host: *index as u32, name: &member.name, share: *share })
        };
        let keepers: Vec<_> = shares.iter().filter_map(keeper).collect();
        let bound =
            bound.map(|factor| Bound::new(factor, keepers.iter().map(|keeper| (keeper.host, keeper.share))));
        let (slots, spread) = match &terms.method {
            Method::RoundRobin | Method::LeastRequest { .. } | Method::Random => return None,
            Method::Ring(config) => ring(config, &keepers),
            Method::Maglev(config) => maglev(config, keepers),
        };
        Some(Self { slots, spread, bound })
    }

    /// The host of a key.
    #[inline]
    fn choose(&self, hash: u64, hosts: &Facts, active: u64) -> Option<usize> {
        let host = match &self.slots {
            Slots::Ring { hashes, hosts } => {
                let at = hashes.partition_point(|entry| *entry < hash);
                hosts.get(at).or(hosts.first())
            }
            Slots::Maglev(hosts) => {
                hash.checked_rem(hosts.len() as u64).and_then(|at| hosts.get(at as usize))
            }
        };
        match &self.bound {
            None => host.map(|host| *host as usize),
            Some(bound) => bound.choose(*host?, hash, hosts, active).map(|host| host as usize),
        }
    }
}

/// Each host's name is hashed with `_0`, `_1`, ... as often as its share of the ring allows. Shares need not be
/// whole numbers: a running sum over all hosts, in `f64` as in Envoy, decides who gets one more.
fn ring(config: &RingHashConfig, members: &[Keeper<'_>]) -> (Slots, Spread) {
    let least = members.iter().map(|member| member.share).fold(1.0, f64::min);
    let scale = ((least * config.minimum_size as f64).ceil() / least).min(config.maximum_size as f64);
    let scale = if members.is_empty() { 0.0 } else { scale };
    let mut spread = Spread { size: scale.ceil() as u64, min: scale.ceil() as u64, max: 0 };
    let mut entries = Vec::with_capacity(spread.size as usize);
    let mut target = 0.0;
    let mut name = Vec::new();
    for member in members {
        target += scale * member.share;
        name.clear();
        name.extend_from_slice(member.name.as_bytes());
        name.push(b'_');
        let stem = name.len();
        let mut count = 0;
        while (entries.len() as f64) < target {
            name.truncate(stem);
            name.extend_from_slice(count.to_string().as_bytes());
            let hash = match config.hash_function {
                HashFunction::XxHash => xx64(&name),
                HashFunction::MurmurHash2 => murmur2(&name),
            };
            entries.push((hash, member.host));
            count += 1;
        }
        spread = Spread { min: spread.min.min(count), max: spread.max.max(count), ..spread };
    }
    entries.sort_by_key(|(hash, _)| *hash);
    let hashes = entries.iter().map(|(hash, _)| *hash).collect();
    (Slots::Ring { hashes, hosts: entries.into_iter().map(|(_, host)| host).collect() }, spread)
}

/// Hosts in the order of their names take free slots in turn, each along its own permutation of the table; a
/// light host sits out turns. Source: "Maglev: A Fast and Reliable Software Network Load Balancer", listing 1.
fn maglev(config: &MaglevConfig, mut members: Vec<Keeper<'_>>) -> (Slots, Spread) {
    const FREE: u32 = u32::MAX;
    let size = if members.is_empty() { 0 } else { config.table_size };
    let most = members.iter().map(|member| member.share).fold(0.0, f64::max);
    members.sort_by(|a, b| a.name.cmp(b.name));
    let mut walks: Vec<_> = members
        .iter()
        .map(|member| Walk {
            place: xx64(member.name.as_bytes()) % config.table_size,
            skip: xxh64(member.name.as_bytes(), 1) % (config.table_size - 1).max(1) + 1,
            target: 0.0,
            count: 0,
        })
        .collect();
    let mut slots = vec![FREE; size as usize].into_boxed_slice();
    let mut filled = 0;
    let mut turn = 0.0;
    while filled < size {
        turn += 1.0;
        for (member, walk) in members.iter().zip(&mut walks) {
            if filled == size {
                break;
            }
            if turn * member.share < walk.target {
                continue;
            }
            walk.target += most;
            while slots[walk.place as usize] != FREE {
                walk.place = (walk.place + walk.skip) % size;
            }
            slots[walk.place as usize] = member.host;
            walk.count += 1;
            filled += 1;
        }
    }
    let counts = || walks.iter().map(|walk| walk.count);
    let spread = Spread { size, min: counts().min().unwrap_or(0), max: counts().max().unwrap_or(0) };
    (Slots::Maglev(slots), spread)
}

/// A host's way through the Maglev table.
struct Walk {
    place: u64,
    skip: u64,
    /// It sits out turns until its share, summed over them, comes to this.
    target: f64,
    count: u64,
}

#[cfg(test)]
mod tests;

//! Subsets of a cluster's hosts by their labels (Envoy docs, "Load Balancer Subsets").
//!
//! [`Subsets`] are found once for all workers, with a [`Roster`] each, when hosts or their health change; a worker
//! adds its cursors in [`Seats`]. Where a request goes is a [`Way`]: by its labels and the fallback policies.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_config::bootstrap::Locality;
use tidegate_config::cluster::{SelectorFallback, SubsetConfig, SubsetFallback, SubsetSelector};
use tidegate_types::json::{Kind, Node};

use super::labels::{self, Asked, Label, LabelMatch};
use super::terms::Places;
use super::{Balancer, Member, Pick, Roster, Scene, Terms};

/// The subsets of one host set.
#[derive(Debug, Default)]
pub struct Subsets {
    /// By the hash of their labels.
    parts: Box<[Part]>,
    /// The hosts of `default_subset`, if any policy goes there.
    default: Option<Hosts>,
    /// How many hosts were left out by `single_host_per_subset`.
    duplicates: u64,
}

/// One subset.
#[derive(Debug)]
struct Part {
    hash: u64,
    labels: Box<[Label]>,
    who: Who,
}

/// The hosts of a subset.
#[derive(Debug)]
enum Who {
    /// `single_host_per_subset`: this one, however it is.
    One(u32),
    Some(Hosts),
}

/// Some hosts, with their indices among all.
#[derive(Debug)]
struct Hosts {
    indices: Box<[u32]>,
    roster: Arc<Roster>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a subset, by its place.
    Subset(usize),
    /// As the cluster's fallback says.
    Fallback,
    /// As a selector's fallback says.
    SelectorFallback(SubsetFallback),
}

impl Subsets {
    /// The subsets of `members`, whose labels are `labels`.
    pub fn build(
        config: &SubsetConfig,
        terms: &Terms,
        members: &[Member<'_>],
        labels: &[Option<&Node>],
        scene: Scene<'_>,
    ) -> Self {
        let mut gathered = Gathered::default();
        for (index, node) in labels.iter().enumerate() {
            let Some(node) = node else { continue };
            let priority = members.get(index).map_or(0, |member| member.priority);
            for selector in config.selectors.iter().filter(|selector| !selector.keys.is_empty()) {
                for labels in combinations(&selector.keys, node, config.list_as_any) {
                    gathered.add(labels, index as u32, priority, selector.single_host_per_subset);
                }
            }
        }
        let scale =
            (config.scale_locality_weight && terms.places == Places::Weighted).then(|| census(members));
        let hosts = |indices: Vec<u32>| Hosts::new(indices, terms, members, scale.as_ref(), scene);
        let part = |heap: Heap| Part {
            hash: labels::hash(heap.labels.iter()),
            who: match (heap.single, heap.hosts.iter().min_by_key(|(priority, _)| *priority)) {
                (true, Some((_, host))) => Who::One(*host),
                _ => Who::Some(hosts(heap.hosts.into_iter().map(|(_, host)| host).collect())),
            },
            labels: heap.labels,
        };
        let duplicates = gathered.duplicates;
        let mut parts: Box<[Part]> = gathered.heaps.into_iter().map(part).collect();
        parts.sort_by_key(|part| part.hash);
        let wanted: Vec<_> =
            config.default_subset.iter().map(|(key, value)| Label::new(key, value)).collect();
        let is_default =
            |labels: &Option<&Node>| wanted.iter().all(|label| has(*labels, label, config.list_as_any));
        let default = goes_to_default(config).then(|| {
            let indices = labels.iter().enumerate().filter(|(_, labels)| is_default(labels));
            hosts(indices.map(|(index, _)| index as u32).collect())
        });
        Self { parts, default, duplicates }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// How many hosts `single_host_per_subset` left out.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// How many of its subsets `other` has not.
    pub fn count_beyond(&self, other: &Self) -> usize {
        self.parts.iter().filter(|part| other.find(part.labels.iter()).is_none()).count()
    }

    /// Where a request goes that wants these labels.
    pub fn way(&self, config: &SubsetConfig, wanted: Option<&LabelMatch>) -> Way {
        let Some(wanted) = wanted else { return Way::Fallback };
        let mut asked = wanted.asked();
        loop {
            if config.allow_redundant_keys {
                asked = without_redundant(config, asked);
            }
            if let Some(part) = self.find(asked.labels()) {
                return Way::Subset(part);
            }
            let named = |keys: &[String]| !keys.is_empty() && asked.has_keys(keys);
            let selector = config.selectors.iter().find(|selector| named(&selector.keys));
            match selector.and_then(|selector| selector.fallback.as_ref()) {
                None => return Way::Fallback,
                Some(SelectorFallback::To(fallback)) => return Way::SelectorFallback(*fallback),
                // Each time there are fewer.
                Some(SelectorFallback::Keys(keys)) => asked = asked.only(keys),
            }
        }
    }

    /// The place of the subset with exactly these labels.
    fn find<'a>(&self, labels: impl Iterator<Item = &'a Label> + Clone) -> Option<usize> {
        let hash = labels::hash(labels.clone());
        let first = self.parts.partition_point(|part| part.hash < hash);
        let same = self.parts[first..].iter().take_while(|part| part.hash == hash);
        same.zip(first..).find(|(part, _)| part.labels.iter().eq(labels.clone())).map(|(_, place)| place)
    }

    /// Whom a request chooses from that went this way; `None`: from nobody, or `all`.
    pub(crate) fn roster(&self, config: &SubsetConfig, way: Way) -> Option<&Roster> {
        match way {
            Way::Subset(part) => match &self.parts.get(part)?.who {
                Who::One(_) => None,
                Who::Some(hosts) => Some(&hosts.roster),
            },
            Way::Fallback if config.fallback == SubsetFallback::DefaultSubset => {
                Some(&self.default.as_ref()?.roster)
            }
            Way::SelectorFallback(SubsetFallback::DefaultSubset) => Some(&self.default.as_ref()?.roster),
            Way::Fallback | Way::SelectorFallback(_) => None,
        }
    }
}

/// The keys of the selector with most of those that a request has all of, if there is one; the first of several.
fn without_redundant<'a>(config: &'a SubsetConfig, asked: Asked<'a>) -> Asked<'a> {
    let fits = |selector: &&SubsetSelector| !selector.keys.is_empty() && asked.contains(&selector.keys);
    // Of equals the last is taken.
    let selector = config.selectors.iter().rev().filter(fits).max_by_key(|selector| selector.keys.len());
    selector.map_or(asked, |selector| asked.only(&selector.keys))
}

fn goes_to_default(config: &SubsetConfig) -> bool {
    let to_default = Some(SelectorFallback::To(SubsetFallback::DefaultSubset));
    config.fallback == SubsetFallback::DefaultSubset
        || config.selectors.iter().any(|selector| selector.fallback == to_default)
}

/// Subsets while their hosts come together.
#[derive(Default)]
struct Gathered {
    places: HashMap<Box<[Label]>, usize>,
    heaps: Vec<Heap>,
    duplicates: u64,
}

struct Heap {
    labels: Box<[Label]>,
    /// Priorities and indices.
    hosts: Vec<(u32, u32)>,
    single: bool,
}

impl Gathered {
    /// The first selector that leads to a subset decides whether it has one host, as in Envoy.
    fn add(&mut self, labels: Vec<Label>, host: u32, priority: u32, single: bool) {
        let labels: Box<[Label]> = labels.into();
        let place = match self.places.get(&labels) {
            Some(place) => *place,
            None => {
                self.heaps.push(Heap { labels: labels.clone(), hosts: Vec::new(), single });
                self.places.insert(labels, self.heaps.len() - 1);
                self.heaps.len() - 1
            }
        };
        let Some(heap) = self.heaps.get_mut(place) else { return };
        if heap.single && heap.hosts.iter().any(|(other, _)| *other == priority) {
            self.duplicates += 1;
        } else if heap.hosts.last() != Some(&(priority, host)) {
            heap.hosts.push((priority, host));
        }
    }
}

/// The labels of a host by which a selector groups it: none, one set of them, or where lists are, one for each value.
fn combinations(keys: &[String], node: &Node, list_as_any: bool) -> Vec<Vec<Label>> {
    let mut all = vec![Vec::with_capacity(keys.len())];
    for key in keys {
        let Some(value) = node.member(key) else { return Vec::new() };
        all = match &value.kind {
            Kind::Array(values) if list_as_any => {
                let with = |labels: &Vec<Label>, value| {
                    let mut labels = labels.clone();
                    labels.push(Label::new(key, value));
                    labels
                };
                all.iter().flat_map(|labels| values.iter().map(move |value| with(labels, value))).collect()
            }
            _ => {
                all.iter_mut().for_each(|labels| labels.push(Label::new(key, value)));
                all
            }
        };
    }
    all
}

fn has(labels: Option<&Node>, label: &Label, list_as_any: bool) -> bool {
    let Some(value) = labels.and_then(|labels| labels.member(&label.key)) else { return false };
    let is = |value: &Node| Label::new(&label.key, value) == *label;
    match &value.kind {
        Kind::Array(values) if list_as_any => values.iter().any(is),
        _ => is(value),
    }
}

/// How many hosts each priority has in each locality.
type Census<'m> = HashMap<(u32, &'m Locality), u32>;

fn census<'m>(members: impl IntoIterator<Item = &'m Member<'m>>) -> Census<'m> {
    let mut census = Census::new();
    members.into_iter().for_each(|member| *census.entry((member.priority, member.place)).or_default() += 1);
    census
}

impl Hosts {
    fn new(
        indices: Vec<u32>,
        terms: &Terms,
        members: &[Member<'_>],
        scale: Option<&Census<'_>>,
        scene: Scene<'_>,
    ) -> Self {
        let chosen = indices.iter().filter_map(|index| members.get(*index as usize));
        let mut chosen: Vec<Member<'_>> = chosen.map(Member::reborrow).collect();
        if let Some(whole) = scale {
            let mut part = HashMap::<(u32, &Locality), u32>::new();
            chosen.iter().for_each(|member| *part.entry((member.priority, member.place)).or_default() += 1);
            for member in &mut chosen {
                let count = |census: &Census<'_>| census.get(&(member.priority, member.place)).copied();
                let share =
                    f64::from(count(&part).unwrap_or(0)) / f64::from(count(whole).unwrap_or(1).max(1));
                member.place_weight = (f64::from(member.place_weight) * share).round() as u32;
            }
        }
        let roster = Arc::new(Roster::build(terms, &chosen, scene));
        Self { indices: indices.into(), roster }
    }

    fn index(&self, pick: Pick) -> Option<usize> {
        self.indices.get(pick.host?).map(|index| *index as usize)
    }
}

/// A worker's cursors in subsets.
#[derive(Debug)]
pub struct Seats {
    subsets: Arc<Subsets>,
    /// By the place of the subset, each made at its first use.
    parts: Vec<Option<Balancer>>,
    default: Option<Balancer>,
    seed: u64,
}

impl Seats {
    /// Those of `subsets`. `seed`: as [`Balancer::new`] has it.
    pub fn new(subsets: Arc<Subsets>, seed: u64) -> Self {
        let parts = subsets.parts.iter().map(|_| None).collect();
        Self { subsets, parts, default: None, seed }
    }

    /// Goes on with other subsets, as [`Balancer::follow`]; those that stay keep their cursors.
    pub fn follow(&mut self, subsets: Arc<Subsets>) {
        let old = std::mem::replace(self, Self::new(subsets, self.seed));
        for (part, balancer) in old.subsets.parts.iter().zip(old.parts) {
            if let Some(mut balancer) = balancer
                && let Some(place) = self.subsets.find(part.labels.iter())
                && let (Some(Who::Some(hosts)), Some(seat)) =
                    (self.subsets.parts.get(place).map(|part| &part.who), self.parts.get_mut(place))
            {
                balancer.follow(hosts.roster.clone());
                *seat = Some(balancer);
            }
        }
        self.default = old.default.zip(self.subsets.default.as_ref()).map(|(mut balancer, hosts)| {
            balancer.follow(hosts.roster.clone());
            balancer
        });
    }

    /// Whose they are.
    pub fn subsets(&self) -> &Arc<Subsets> {
        &self.subsets
    }

    /// The index of the host that `choose` takes in the subset at `place`.
    pub fn choose(&mut self, place: usize, choose: impl FnOnce(&mut Balancer) -> Pick) -> Option<usize> {
        match &self.subsets.parts.get(place)?.who {
            Who::One(host) => Some(*host as usize),
            Who::Some(hosts) => {
                let seat = self.parts.get_mut(place)?;
                let balancer = seat.get_or_insert_with(|| Balancer::new(hosts.roster.clone(), self.seed));
                hosts.index(choose(balancer))
            }
        }
    }

    /// The same in `default_subset`.
    pub fn choose_default(&mut self, choose: impl FnOnce(&mut Balancer) -> Pick) -> Option<usize> {
        let hosts = self.subsets.default.as_ref()?;
        let balancer = self.default.get_or_insert_with(|| Balancer::new(hosts.roster.clone(), self.seed));
        hosts.index(choose(balancer))
    }
}

#[cfg(test)]
mod tests;

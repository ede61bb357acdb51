//! A choice in a cluster that has subsets.

use tidegate_config::cluster::{SubsetConfig, SubsetFallback};

use super::Cluster;
use crate::lb::{Balancer, LabelMatch, Roster, Seats, Way, Wish};

impl Cluster {
    /// The index of the host that a request with these wishes gets; `all` balances all hosts.
    pub(super) fn choose_in_subsets(
        &self,
        seats: &mut Seats,
        all: &mut Balancer,
        wish: Wish<'_>,
    ) -> Option<usize> {
        let config = self.config().subsets.as_deref()?;
        match wish.labels.filter(|_| config.fallback_list).and_then(LabelMatch::fallbacks) {
            None => self.choose_in_subset(config, seats, all, wish),
            // Each with all the fallback policies, as in Envoy.
            Some(lists) => lists.iter().find_map(|labels| {
                self.choose_in_subset(config, seats, all, Wish { labels: Some(labels), ..wish })
            }),
        }
    }

    fn choose_in_subset(
        &self,
        config: &SubsetConfig,
        seats: &mut Seats,
        all: &mut Balancer,
        wish: Wish<'_>,
    ) -> Option<usize> {
        let stats = &self.stats().balance;
        let fallback = match seats.subsets().way(config, wish.labels) {
            Way::Subset(place) => {
                stats.lb_subsets_selected().inc();
                return seats.choose(place, |balancer| self.pick(balancer, wish));
            }
            // Neither counted nor followed by `panic_mode_any`, as in Envoy.
            Way::SelectorFallback(to) => return self.fall_back(to, seats, all, wish),
            Way::Fallback => config.fallback,
        };
        if let Some(host) = self.fall_back(fallback, seats, all, wish) {
            stats.lb_subsets_fallback().inc();
            return Some(host);
        }
        if !config.panic_mode_any || fallback == SubsetFallback::None {
            return None;
        }
        let host = self.pick(all, wish).host?;
        stats.lb_subsets_fallback_panic().inc();
        Some(host)
    }

    fn fall_back(
        &self,
        to: SubsetFallback,
        seats: &mut Seats,
        all: &mut Balancer,
        wish: Wish<'_>,
    ) -> Option<usize> {
        match to {
            SubsetFallback::None => None,
            SubsetFallback::AnyEndpoint => self.pick(all, wish).host,
            SubsetFallback::DefaultSubset => seats.choose_default(|balancer| self.pick(balancer, wish)),
        }
    }

    /// Whom a request with these labels chooses from, if it is not from all hosts.
    pub(super) fn subset_roster<'s>(
        &self,
        seats: &'s Seats,
        labels: Option<&LabelMatch>,
    ) -> Option<&'s Roster> {
        let config = self.config().subsets.as_deref()?;
        let subsets = seats.subsets();
        let first = labels.filter(|_| config.fallback_list).and_then(LabelMatch::fallbacks);
        let labels = first.and_then(<[_]>::first).or(labels);
        subsets.roster(config, subsets.way(config, labels))
    }
}

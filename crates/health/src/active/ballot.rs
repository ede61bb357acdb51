//! What several checks of one cluster say of its hosts together: a host works when all of them find that it does
//! (Envoy docs, "Multiple Health Checkers").

use std::cell::RefCell;
use std::collections::HashMap;

use tidegate_cluster::HostShared;
use tidegate_stats::{Scope, Store, stat_block};

use super::session::Standing;

stat_block! {
    /// `cluster.<name>.health_check.` of clusters with several checks: hosts, and not results of one check.
    pub struct BallotStats {
        gauges {
            /// Hosts that all checks find well.
            healthy,
            /// Hosts that some check finds degraded.
            degraded,
        }
    }
}

/// The checks' votes. On the main thread.
pub(super) struct Ballot {
    checks: usize,
    votes: RefCell<HashMap<HostKey, Votes>>,
    stats: BallotStats,
}

/// A host is known by its place in memory, where it stays as long as a check has it.
pub(super) type HostKey = *const HostShared;

/// How a host stands with each check.
struct Votes {
    standings: Vec<Standing>,
    /// How many checks have it.
    voters: usize,
}

impl Votes {
    fn all(&self) -> Standing {
        let any = |has: fn(&Standing) -> bool| self.standings.iter().any(has);
        Standing {
            failing: any(|one| one.failing),
            degraded: any(|one| one.degraded),
            pending: any(|one| one.pending),
            timed_out: any(|one| one.timed_out),
        }
    }
}

impl Ballot {
    /// Of so many checks of the cluster with that scope.
    pub(super) fn new(checks: usize, store: &Store, cluster: &Scope) -> Self {
        let stats = BallotStats::new(store, cluster.child("health_check"));
        Self { checks, votes: RefCell::default(), stats }
    }

    /// Check number `check` begins with `host`, which stood like this before there was any result; how it stands with
    /// the check.
    pub(super) fn join(&self, host: HostKey, check: usize, before: Standing) -> Standing {
        let mut votes = self.votes.borrow_mut();
        let votes = votes.entry(host).or_insert_with(|| {
            self.count(before, 1);
            Votes { standings: vec![before; self.checks], voters: 0 }
        });
        votes.voters += 1;
        votes.standings.get(check).copied().unwrap_or(before)
    }

    /// A check is done with `host`.
    pub(super) fn leave(&self, host: HostKey) {
        let mut all = self.votes.borrow_mut();
        let Some(votes) = all.get_mut(&host) else { return };
        votes.voters -= 1;
        if votes.voters == 0 {
            self.count(votes.all(), -1);
            all.remove(&host);
        }
    }

    /// The host stands so with a check now; how it stood with all of them, and how it stands.
    pub(super) fn vote(&self, host: HostKey, check: usize, standing: Standing) -> (Standing, Standing) {
        let mut all = self.votes.borrow_mut();
        let Some(votes) = all.get_mut(&host) else { return (standing, standing) };
        let before = votes.all();
        if let Some(vote) = votes.standings.get_mut(check) {
            *vote = standing;
        }
        let after = votes.all();
        self.count(before, -1);
        self.count(after, 1);
        (before, after)
    }

    fn count(&self, standing: Standing, by: i64) {
        self.stats.healthy().add(by * i64::from(!standing.failing));
        self.stats.degraded().add(by * i64::from(standing.degraded));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Standing = Standing { failing: true, degraded: false, pending: true, timed_out: false };
    const WELL: Standing = Standing { failing: false, degraded: false, pending: false, timed_out: false };

    #[test]
    fn a_host_works_when_all_find_so() {
        let store = Store::new(1);
        let ballot = Ballot::new(2, &store, &Scope::cluster("c"));
        let host = std::ptr::null();
        assert_eq!(ballot.join(host, 0, NEW), NEW);
        assert_eq!(ballot.vote(host, 0, WELL), (NEW, NEW));
        // Whoever comes later does not take the others' results for its own.
        assert_eq!(ballot.join(host, 1, WELL), NEW);
        let gauges = || (ballot.stats.healthy().value(), ballot.stats.degraded().value());
        assert_eq!(gauges(), (0, 0));
        let degraded = Standing { degraded: true, ..WELL };
        assert_eq!(ballot.vote(host, 1, degraded), (NEW, degraded));
        assert_eq!(gauges(), (1, 1));
        let late = Standing { failing: true, timed_out: true, ..WELL };
        let both = Standing { failing: true, timed_out: true, degraded: true, pending: false };
        assert_eq!(ballot.vote(host, 0, late), (degraded, both));
        assert_eq!(gauges(), (0, 1));
        ballot.leave(host);
        assert_eq!(gauges(), (0, 1));
        ballot.leave(host);
        assert_eq!(gauges(), (0, 0));
    }
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use tidegate_stats::Store;
use tidegate_types::Address;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::tests::{build, config};
use crate::{ClusterShared, Failing};

const MS: Duration = Duration::from_millis(1);

fn cluster(window: Option<Duration>, store: &Store) -> Arc<ClusterShared> {
    let hosts: Vec<_> = (1..5).map(|port| Address::Ip(([127, 0, 0, 1], port).into())).collect();
    let mut config = config("c", &hosts);
    config.update_merge_window = window;
    build(config, store, None)
}

/// Lets the host of that number fail; how many times load balancers were told since the cluster was built.
fn fail(shared: &Arc<ClusterShared>, host: usize) -> u64 {
    shared.hosts().hosts[host].set_failing(Failing::Outlier, true);
    shared.health_changed();
    shared.generation() - 1
}

#[tokio::test(start_paused = true)]
async fn what_follows_within_the_window_is_told_together() {
    let store = Store::new(1);
    let test = async {
        let shared = cluster(Some(1000 * MS), &store);
        sleep(1500 * MS).await;
        assert_eq!(fail(&shared, 0), 1, "the first at once");
        sleep(100 * MS).await;
        assert_eq!((fail(&shared, 1), fail(&shared, 2)), (1, 1));
        assert_eq!(shared.stats().members.membership_healthy().value(), 1, "the numbers are those of now");
        sleep(999 * MS).await;
        assert_eq!(shared.generation(), 2);
        sleep(2 * MS).await;
        assert_eq!(shared.generation(), 3);
        let manager = &shared.manager;
        assert_eq!(manager.update_out_of_merge_window().value(), 1);
        assert_eq!((manager.cluster_updated().value(), manager.cluster_updated_via_merge().value()), (1, 1));

        // A host that leaves takes along what waits.
        sleep(10 * MS).await;
        assert_eq!(fail(&shared, 3), 2);
        let one = vec![shared.hosts().hosts[0].clone()];
        shared.set_hosts(crate::HostSet::new(one));
        assert_eq!((shared.generation(), manager.update_merge_cancelled().value()), (4, 1));
        sleep(2000 * MS).await;
        assert_eq!(shared.generation(), 4);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_window_nothing_waits() {
    let store = Store::new(1);
    let shared = cluster(None, &store);
    assert_eq!((fail(&shared, 0), fail(&shared, 1)), (1, 2));
    assert_eq!(shared.manager.cluster_updated().value(), 2);
}

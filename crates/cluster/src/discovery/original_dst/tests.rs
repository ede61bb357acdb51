#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::time::Duration;

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{Discovery, LbPolicy};
use tidegate_stats::Store;
use tidegate_types::ConnectionInfo;
use tokio::task::LocalSet;

use super::*;
use crate::attend::Attendant;
use crate::tests::{build, config};
use crate::{Cluster, Directory, Host};

const S: Duration = Duration::from_secs(1);

/// A cluster that takes a header, under its main thread's care, with two workers.
struct Lab {
    shared: Arc<ClusterShared>,
    directories: [Rc<Directory>; 2],
    _attendant: Attendant,
}

fn lab(port: Option<u16>, previous: Option<&Arc<ClusterShared>>) -> Lab {
    let original = OriginalDstConfig { cleanup_interval: 5 * S, header: Some("x-to".into()), port };
    let mut config = ClusterConfig { endpoints: Vec::new(), ..config("c", &[]) };
    config.discovery = Discovery::OriginalDst(Box::new(original.clone()));
    config.lb_policy = LbPolicy::ClusterProvided;
    let shared = build(config, &Store::new(3), previous);
    let peers = Arc::new(Peers::default());
    let directories = [(); 2].map(|()| Directory::new(&peers));
    directories.iter().for_each(|directory| directory.apply(std::slice::from_ref(&shared)));
    let attendant = Attendant::spawn(tend(shared.clone(), original, peers));
    Lab { shared, directories, _attendant: attendant }
}

impl Lab {
    fn cluster(&self, worker: usize) -> Rc<Cluster> {
        self.directories[worker].cluster("c").unwrap()
    }

    fn go(&self, worker: usize, to: &'static str) -> Option<Rc<Host>> {
        self.cluster(worker).choose_host_at(|name| (name == "x-to").then_some(to.as_bytes()), None)
    }

    fn published(&self) -> Vec<String> {
        self.shared.hosts().hosts.iter().map(|host| host.attributes().hostname.clone()).collect()
    }

    fn counts(&self) -> [u64; 3] {
        let stats = self.shared.stats();
        [
            stats.balance.original_dst_host_invalid().value(),
            stats.upstream.upstream_cx_none_healthy().value(),
            stats.members.membership_change().value(),
        ]
    }
}

fn test<F: Future<Output = ()>>(run: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    LocalSet::new().block_on(&runtime.unwrap(), async { run().await });
}

async fn after(time: Duration) {
    tokio::time::sleep(time).await;
    tokio::task::yield_now().await;
}

#[test]
fn workers_make_hosts_at_once_and_the_main_thread_publishes_them() {
    test(|| async {
        let lab = lab(None, None);
        let host = lab.go(0, "127.0.0.1:80").unwrap();
        assert!(lab.published().is_empty());
        // Before and after it is published, and on all workers, it is one.
        assert!(Rc::ptr_eq(&host, &lab.go(0, "127.0.0.1:80").unwrap()));
        assert!(Arc::ptr_eq(host.shared(), lab.go(1, "127.0.0.1:80").unwrap().shared()));
        after(S).await;
        assert_eq!(lab.published(), ["c127.0.0.1:80"]);
        assert!(Rc::ptr_eq(&host, &lab.go(0, "127.0.0.1:80").unwrap()));
        lab.go(1, "[::1]:80").unwrap();
        after(S).await;
        assert_eq!(lab.published(), ["c127.0.0.1:80", "c[::1]:80"]);
        assert_eq!(lab.shared.stats().members.membership_total().value(), 2);
        assert_eq!(lab.counts(), [0, 0, 2]);
        // What it never chose itself, the first worker knows by now.
        let other = lab.go(0, "[::1]:80").unwrap();
        assert!(Arc::ptr_eq(other.shared(), &lab.shared.hosts().hosts[1]));
    });
}

#[test]
fn hosts_that_nobody_uses_leave() {
    test(|| async {
        let lab = lab(None, None);
        let (stays, leaves) = (lab.go(0, "127.0.0.1:1").unwrap(), lab.go(0, "127.0.0.1:2").unwrap());
        // New ones were used.
        after(5 * S).await;
        assert_eq!(lab.published().len(), 2);
        lab.go(1, "127.0.0.1:1").unwrap();
        after(5 * S).await;
        assert_eq!(lab.published(), ["c127.0.0.1:1"]);
        assert!(Rc::ptr_eq(&stays, &lab.go(0, "127.0.0.1:1").unwrap()));
        // It comes back as another one.
        assert!(!Rc::ptr_eq(&leaves, &lab.go(0, "127.0.0.1:2").unwrap()));
        after(11 * S).await;
        assert!(lab.published().is_empty());
        assert_eq!(lab.shared.stats().members.membership_total().value(), 0);
    });
}

#[test]
fn what_is_no_address_leads_nowhere() {
    test(|| async {
        let lab = lab(None, None);
        for bad in ["nonsense", "127.0.0.1", "a.test:80", "127.0.0.1:65536", "127.0.0.1:80, 127.0.0.2:80"] {
            assert!(lab.go(0, bad).is_none(), "{bad}");
        }
        assert!(lab.go(0, "").is_none());
        assert_eq!(lab.counts(), [5, 6, 0]);
        // Nor does a load balancer choose among those that others made.
        lab.go(0, "127.0.0.1:80").unwrap();
        after(S).await;
        assert!(lab.cluster(0).choose_host().is_none());
    });
}

#[test]
fn the_connection_decides_where_no_header_does() {
    test(|| async {
        let lab = lab(Some(8080), None);
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        let mut info = ConnectionInfo::new(1, address("192.0.2.1:80"), address("127.0.0.1:9"), "l".into());
        let cluster = lab.cluster(0);
        assert!(cluster.choose_host_at(|_| None, Some(&info)).is_none());
        info.is_redirected = true;
        let host = cluster.choose_host_at(|_| Some(b"bad".as_slice()), Some(&info)).unwrap();
        assert_eq!(*host.address(), address("192.0.2.1:8080"));
        let host = cluster.choose_host_at(|_| Some(b"192.0.2.2:1".as_slice()), Some(&info)).unwrap();
        assert_eq!(*host.address(), address("192.0.2.2:8080"));
    });
}

#[test]
fn a_changed_cluster_keeps_the_numbers_of_hosts() {
    test(|| async {
        let old = lab(None, None);
        let host = old.go(0, "127.0.0.1:80").unwrap();
        after(S).await;
        let new = lab(Some(80), Some(&old.shared));
        assert!(!Arc::ptr_eq(&old.shared, &new.shared));
        let heir = new.go(0, "127.0.0.1:1").unwrap();
        assert!(Arc::ptr_eq(&heir.shared().stats, &host.shared().stats));
    });
}

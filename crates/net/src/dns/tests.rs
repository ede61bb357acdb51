//! Against a scripted server on this machine; and, for who is waited for how long, in virtual time without sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tidegate_testkit::dns::{DnsServer, Say};
use tokio::time::Instant;

use super::*;

const S: Duration = Duration::from_secs(1);

fn system(resolv_conf: &'static str) -> Box<dyn Fn() -> System> {
    Box::new(move || System::parse(resolv_conf, "10.0.0.7 printer printer.lan # and a scanner\n::7 printer"))
}

fn options(servers: &[SocketAddr]) -> ResolverOptions {
    ResolverOptions { servers: servers.to_vec(), tries: 1, ..ResolverOptions::default() }
}

fn resolver(server: &DnsServer) -> (Resolver, DnsStats) {
    let stats = DnsStats::detached();
    let options = options(&[server.address()]);
    (Resolver::with(options, stats.clone(), Box::new(Sockets), system("")), stats)
}

fn ips(found: Result<Vec<Found>, ResolveError>) -> Vec<String> {
    found.unwrap().iter().map(|found| found.ip.to_string()).collect()
}

fn one(ip: &str) -> Vec<IpAddr> {
    vec![ip.parse().unwrap()]
}

#[tokio::test]
async fn families_are_asked_for_as_configured() {
    let server = DnsServer::start();
    server.has("both.test", &["10.0.0.1", "10.0.0.2", "::1"]);
    server.has("four.test", &["10.0.0.1"]);
    let (resolver, stats) = resolver(&server);
    for (families, both, four) in [
        (Families::V4, vec!["10.0.0.1", "10.0.0.2"], vec!["10.0.0.1"]),
        (Families::V6, vec!["::1"], vec![]),
        (Families::V4ThenV6, vec!["10.0.0.1", "10.0.0.2"], vec!["10.0.0.1"]),
        (Families::V6ThenV4, vec!["::1"], vec!["10.0.0.1"]),
        (Families::Both, vec!["10.0.0.1", "10.0.0.2", "::1"], vec!["10.0.0.1"]),
    ] {
        assert_eq!(ips(resolver.resolve("both.test", families).await), both, "{families:?}");
        assert_eq!(ips(resolver.resolve("four.test", families).await), four, "{families:?}");
    }
    assert_eq!(stats.resolve_total().value(), 11);
    assert_eq!((stats.not_found().value(), stats.pending_resolutions().value()), (2, 0));
    let found = resolver.resolve("four.test", Families::V4).await.unwrap();
    assert_eq!(found[0].ttl, 60 * S);
}

#[tokio::test]
async fn failures_are_told_from_answers_without_addresses() {
    let server = DnsServer::start();
    server.say("fails.test", Say::Failure);
    server.say("refuses.test", Say::Refused);
    server.say("empty.test", Say::Addresses(Vec::new(), 60));
    let (resolver, stats) = resolver(&server);
    for name in ["fails.test", "refuses.test"] {
        assert_eq!(resolver.resolve(name, Families::V4).await, Err(ResolveError::Server));
    }
    for name in ["empty.test", "nowhere.test"] {
        assert_eq!(resolver.resolve(name, Families::V4).await, Ok(Vec::new()));
    }
    assert_eq!((stats.get_addr_failure().value(), stats.not_found().value()), (2, 2));
    assert_eq!(resolver.resolve("a..b", Families::V4).await, Err(ResolveError::BadName));
}

#[tokio::test]
async fn large_answers_come_over_tcp_and_old_servers_are_asked_without_edns() {
    let server = DnsServer::start();
    let many: Vec<IpAddr> =
        (0..1000).map(|n| IpAddr::from([10, 1, (n / 250) as u8, (n % 250) as u8])).collect();
    server.say("many.test", Say::OnlyOverTcp(many));
    server.say("old.test", Say::WithoutEdns(one("10.0.0.1")));
    let (resolver, _) = resolver(&server);
    assert_eq!(resolver.resolve("many.test", Families::V4).await.unwrap().len(), 1000);
    assert_eq!(ips(resolver.resolve("old.test", Families::V4).await), ["10.0.0.1"]);
}

#[tokio::test]
async fn aliases_are_followed_and_other_records_ignored() {
    let server = DnsServer::start();
    server.say("a.test", Say::Alias("b.test", one("10.0.0.1")));
    let (resolver, _) = resolver(&server);
    let found = resolver.resolve("a.test", Families::V4).await.unwrap();
    assert_eq!(found, [Found { ip: [10, 0, 0, 1].into(), ttl: 5 * S }]);
}

#[tokio::test]
async fn answers_that_may_be_forged_are_ignored() {
    let server = DnsServer::start();
    server.say("id.test", Say::OtherId(one("10.6.6.6")));
    server.say("question.test", Say::OtherQuestion(one("10.6.6.6")));
    server.say("source.test", Say::OtherSource(one("10.6.6.6")));
    let stats = DnsStats::detached();
    let options = ResolverOptions { timeout: S / 20, ..options(&[server.address()]) };
    let resolver = Resolver::with(options, stats.clone(), Box::new(Sockets), system(""));
    for name in ["id.test", "question.test", "source.test"] {
        assert_eq!(resolver.resolve(name, Families::V4).await, Err(ResolveError::Timeout), "{name}");
    }
    assert_eq!((stats.timeouts().value(), stats.resolve_total().value()), (3, 3));
}

#[tokio::test]
async fn what_the_system_knows_is_not_asked_for() {
    let server = DnsServer::start();
    let (resolver, _) = resolver(&server);
    for (name, families, wanted) in [
        ("printer", Families::V4, "10.0.0.7"),
        ("Printer.LAN", Families::V6ThenV4, "10.0.0.7"),
        ("printer", Families::V6, "::7"),
        ("localhost", Families::V6, "::1"),
        ("a.localhost", Families::V4, "127.0.0.1"),
        ("10.1.2.3", Families::V6ThenV4, "10.1.2.3"),
        ("fe80::1", Families::Both, "fe80::1"),
    ] {
        assert_eq!(ips(resolver.resolve(name, families).await), [wanted], "{name}");
    }
    assert!(server.questions().iter().all(|(name, _)| name == "printer.lan"));
}

#[tokio::test]
async fn search_domains_are_tried_in_order() {
    let server = DnsServer::start();
    server.has("web.two.test", &["10.0.0.2"]);
    server.has("a.b.one.test", &["10.0.0.3"]);
    let stats = DnsStats::detached();
    let conf = "search one.test two.test\noptions ndots:2 rotate\nnameserver 10.255.255.1";
    let options = options(&[server.address()]);
    let searching = Resolver::with(options.clone(), stats.clone(), Box::new(Sockets), system(conf));
    assert_eq!(ips(searching.resolve("web", Families::V4).await), ["10.0.0.2"]);
    assert_eq!(ips(searching.resolve("a.b", Families::V4).await), ["10.0.0.3"]);
    assert_eq!(ips(searching.resolve("web.", Families::V4).await), [""; 0]);
    let asked: Vec<_> = server.questions().into_iter().map(|(name, _)| name).collect();
    assert_eq!(asked, ["web.one.test", "web.two.test", "a.b.one.test", "web"]);
    let plain = Resolver::with(
        ResolverOptions { no_search: true, ..options },
        stats,
        Box::new(Sockets),
        system(conf),
    );
    assert_eq!(ips(plain.resolve("web", Families::V4).await), [""; 0]);
}

#[tokio::test]
async fn https_records_name_endpoints_by_preference() {
    let server = DnsServer::start();
    let (alpn, port) = ((1, b"\x02h3\x02h2".to_vec()), (3, 8443_u16.to_be_bytes().to_vec()));
    let (v4, v6) = ((4, vec![10, 0, 0, 1, 10, 0, 0, 2]), (6, [[0; 15].as_slice(), &[1]].concat()));
    let (unknown, demands) = ((9, vec![7]), (0, 9_u16.to_be_bytes().to_vec()));
    let records = vec![
        (2, "", vec![alpn.clone()]),
        (3, "", vec![demands, alpn.clone(), unknown]),
        (1, "other.test", vec![alpn.clone(), port, v4, v6]),
    ];
    server.say("a.test", Say::Services(records.clone(), 60));
    server.say("_8443._https.a.test", Say::Services(vec![(0, "c.test", Vec::new())], 60));
    server.say("c.test", Say::Services(vec![(1, "", vec![alpn])], 7));
    server.has("old.test", &["10.0.0.1"]);
    server.say("loop.test", Say::Services(vec![(0, "loop.test", Vec::new())], 60));
    server.say("fails.test", Say::Failure);
    let (resolver, stats) = resolver(&server);
    let ids = vec![b"h3".to_vec(), b"h2".to_vec()];
    let other = ServiceEndpoint {
        target: Some("other.test".into()),
        port: Some(8443),
        alpn: ids.clone(),
        hints: ["10.0.0.1", "10.0.0.2", "::1"].map(|ip| ip.parse().unwrap()).to_vec(),
        ttl: 60 * S,
    };
    let plain = ServiceEndpoint { target: None, port: None, alpn: ids, hints: Vec::new(), ttl: 60 * S };
    assert_eq!(resolver.services("a.test", 443).await, Ok(vec![other, plain.clone()]));
    let alias = ServiceEndpoint { target: Some("c.test".into()), ttl: 7 * S, ..plain };
    assert_eq!(resolver.services("a.test", 8443).await, Ok(vec![alias]));
    for name in ["old.test", "nowhere.test", "loop.test", "localhost", "printer", "10.0.0.1"] {
        assert_eq!(resolver.services(name, 443).await, Ok(Vec::new()), "{name}");
    }
    assert_eq!(resolver.services("fails.test", 443).await, Err(ResolveError::Server));
    // As Envoy counts.
    assert_eq!(stats.resolve_total().value(), 0);
}

/// Notes who is asked when; nobody answers.
struct Nobody(Rc<RefCell<Vec<(u16, Duration)>>>, Instant);

impl Exchange for Nobody {
    fn exchange<'a>(
        &'a self,
        server: SocketAddr,
        _: Via,
        _: &'a [u8],
        _: &'a mut dyn FnMut(&[u8]) -> bool,
    ) -> Exchanging<'a> {
        self.0.borrow_mut().push((server.port(), self.1.elapsed()));
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn servers_are_asked_in_rounds_with_more_patience_in_each() {
    let (asked, start) = (Rc::<RefCell<Vec<_>>>::default(), Instant::now());
    let servers: [SocketAddr; 2] = [([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into()];
    let options = ResolverOptions { timeout: S, tries: 3, rotate: true, ..options(&servers) };
    let stats = DnsStats::detached();
    let resolver = Resolver::with(options, stats.clone(), Box::new(Nobody(asked.clone(), start)), system(""));
    assert_eq!(resolver.resolve("a.test", Families::V4).await, Err(ResolveError::Timeout));
    let ports: Vec<_> = asked.borrow().iter().map(|(port, _)| *port).collect();
    assert_eq!(ports, [1, 2, 1, 2, 1, 2]);
    let waits: Vec<_> = asked.borrow().windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    for (wait, bounds) in waits.iter().zip([S..=S, S..=S, S..=2 * S, S..=2 * S, 2 * S..=4 * S]) {
        // The clock counts whole milliseconds.
        assert!(bounds.contains(&(*wait - S / 500)) || bounds.contains(wait), "{waits:?}");
    }
    assert_eq!(stats.timeouts().value(), 3);
    asked.borrow_mut().clear();
    let _ = resolver.resolve("a.test", Families::V4).await;
    assert_eq!(asked.borrow()[0].0, 2, "they take turns");
}

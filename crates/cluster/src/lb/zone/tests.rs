use std::sync::Arc;

use super::*;
use crate::lb::{Balancer, Moment, PlaceTerms, Roster, Scene, Terms, Wish};

fn zone(name: &str) -> Locality {
    Locality { zone: name.to_owned(), ..Locality::default() }
}

fn members<'a>(hosts: &[(&'a Locality, Health)]) -> Vec<Member<'a>> {
    hosts.iter().map(|(place, health)| Member { place, ..Member::of(0, *health) }).collect()
}

/// So many healthy hosts in each of these places.
fn healthy<'a>(counts: &[(&'a Locality, usize)]) -> Vec<Member<'a>> {
    let hosts: Vec<_> = counts.iter().flat_map(|(place, n)| vec![(*place, Health::Healthy); *n]).collect();
    members(&hosts)
}

fn terms(zones: impl FnOnce(&mut Zones)) -> Terms {
    let mut terms = Terms::default();
    if let PlaceTerms::Zones(of_terms) = &mut terms.places {
        zones(of_terms);
    }
    terms
}

fn roster(terms: &Terms, local: &[Member<'_>], upstream: &[Member<'_>], home: &Locality) -> Roster {
    let census = Census::new(local, home);
    Roster::build(terms, upstream, Scene { now_ms: 0, home, census: Some(&census) })
}

/// How many of 100,000 go to each place, by the places of `upstream`; and the choices made.
fn shares(roster: Roster, upstream: &[Member<'_>], names: &[&Locality]) -> (Vec<usize>, Vec<ZoneChoice>) {
    let mut balancer = Balancer::new(Arc::new(roster), 0);
    let mut rng = fastrand::Rng::with_seed(3);
    let mut counts = vec![0; names.len()];
    let mut choices = Vec::new();
    for _ in 0..100_000 {
        let pick = balancer.choose(Wish::default(), Moment::default(), &mut || rng.u64(..));
        let place = upstream[pick.host.unwrap()].place;
        counts[names.iter().position(|name| *name == place).unwrap()] += 1;
        if let Some(zone) = pick.zone.filter(|zone| !choices.contains(zone)) {
            choices.push(zone);
        }
    }
    (counts, choices)
}

fn near(counts: &[usize], expected: &[usize]) -> bool {
    counts.iter().zip(expected).all(|(count, expected)| count.abs_diff(*expected) < 1000)
}

#[test]
fn a_zone_with_enough_hosts_keeps_its_requests() {
    let (a, b) = (zone("a"), zone("b"));
    let upstream = healthy(&[(&b, 3), (&a, 3)]);
    let local = healthy(&[(&a, 2), (&b, 2)]);
    let roster = roster(&Terms::default(), &local, &upstream, &a);
    assert_eq!(shares(roster, &upstream, &[&a, &b]), (vec![100_000, 0], vec![ZoneChoice::AllDirectly]));
}

/// Envoy docs, "Zone aware routing": home has half the proxies and a quarter of the hosts, so half of its requests
/// stay; the rest goes where there is room.
#[test]
fn what_the_zone_cannot_take_goes_where_there_is_room() {
    let (a, b, c) = (zone("a"), zone("b"), zone("c"));
    let upstream = healthy(&[(&a, 2), (&b, 4), (&c, 2)]);
    let local = healthy(&[(&a, 2), (&b, 1), (&c, 1)]);
    let built = roster(&Terms::default(), &local, &upstream, &a);
    assert_eq!(
        built.tiers[0].zones.as_ref().unwrap().mode,
        Mode::Residual { local: 5000, room: [0, 2500, 2500].into() }
    );
    let (counts, mut choices) = shares(built, &upstream, &[&a, &b, &c]);
    assert!(near(&counts, &[50_000, 50_000, 0]), "{counts:?}");
    choices.sort_by_key(|choice| *choice as u8);
    assert_eq!(choices, [ZoneChoice::Sampled, ZoneChoice::CrossZone]);
    // The more hosts there are at home, the more a host may be forced to take.
    let forced = roster(&terms(|zones| zones.force_local = Some(2)), &local, &upstream, &a);
    assert_eq!(shares(forced, &upstream, &[&a, &b, &c]).0, [100_000, 0, 0]);
    let too_few = roster(&terms(|zones| zones.force_local = Some(3)), &local, &upstream, &a);
    assert!(near(&shares(too_few, &upstream, &[&a, &b, &c]).0, &[50_000, 50_000, 0]));
    // By weights home has 8 of 14.
    let mut heavy = healthy(&[(&a, 2), (&b, 4), (&c, 2)]);
    heavy.iter_mut().take(2).for_each(|host| host.weight = 4);
    let by_weight = roster(&terms(|zones| zones.basis = LocalityBasis::Weights), &local, &heavy, &a);
    assert_eq!(by_weight.tiers[0].zones.as_ref().unwrap().mode, Mode::Direct);
}

#[test]
fn a_share_of_requests_may_be_left_out() {
    let (a, b) = (zone("a"), zone("b"));
    let upstream = healthy(&[(&a, 5), (&b, 5)]);
    let local = healthy(&[(&a, 1), (&b, 1)]);
    let roster = roster(&terms(|zones| zones.enabled = 40), &local, &upstream, &a);
    let (counts, _) = shares(roster, &upstream, &[&a, &b]);
    assert!(near(&counts, &[70_000, 30_000]), "{counts:?}");
}

#[test]
fn zones_do_not_count_where_they_cannot() {
    let (a, b) = (zone("a"), zone("b"));
    let upstream = healthy(&[(&a, 5), (&b, 5)]);
    let both = healthy(&[(&a, 1), (&b, 1)]);
    let of = |local: &[Member<'_>], upstream: &[Member<'_>]| {
        let roster = roster(&Terms::default(), local, upstream, &a);
        (roster.tiers[0].zones.is_some(), roster.zone_fault())
    };
    assert_eq!(of(&both, &upstream), (true, None));
    assert_eq!(of(&both, &healthy(&[(&b, 10)])), (false, None));
    assert_eq!(of(&healthy(&[(&a, 3)]), &upstream), (false, None));
    let c = zone("c");
    let others = healthy(&[(&b, 1), (&c, 1)]);
    assert_eq!(of(&others, &upstream), (false, Some(ZoneFault::LocalClusterNotOk)));
    assert_eq!(of(&both, &healthy(&[(&a, 2), (&b, 3)])), (false, Some(ZoneFault::ClusterTooSmall)));
}

#[test]
fn a_sick_local_cluster_is_not_gone_by() {
    let (a, b) = (zone("a"), zone("b"));
    let upstream = healthy(&[(&a, 5), (&b, 5)]);
    let (well, sick) = (Health::Healthy, Health::Unhealthy);
    let local = members(&[(&a, well), (&a, sick), (&b, sick), (&b, sick)]);
    let built = roster(&Terms::default(), &local, &upstream, &a);
    let (counts, choices) = shares(built, &upstream, &[&a, &b]);
    assert!(near(&counts, &[50_000, 50_000]), "{counts:?}");
    assert_eq!(choices, [ZoneChoice::LocalClusterNotOk]);
    let failing = roster(&Terms { fail_on_panic: true, ..Terms::default() }, &local, &upstream, &a);
    let pick = Balancer::new(Arc::new(failing), 0).choose(Wish::default(), Moment::default(), &mut || 7);
    assert_eq!(pick.host, None);
}

#[test]
fn in_panic_requests_may_be_failed() {
    let a = zone("a");
    let hosts = members(&[(&a, Health::Unhealthy), (&a, Health::Unhealthy)]);
    let scene = Scene { now_ms: 0, home: &a, census: None };
    let fails = Terms { fail_on_panic: true, ..Terms::default() };
    let pick = |terms: &Terms| {
        let roster = Arc::new(Roster::build(terms, &hosts, scene));
        Balancer::new(roster, 0).choose(Wish::default(), Moment::default(), &mut || 7)
    };
    assert_eq!((pick(&fails).host, pick(&fails).panic), (None, true));
    assert!(pick(&Terms::default()).host.is_some());
}

/// Envoy docs, "Locality weighted load balancing": weights 1 and 2, and the table of what a locality that has lost
/// hosts gets.
#[test]
fn places_share_by_weight_as_far_as_their_hosts_can() {
    let (x, y) = (zone("x"), zone("y"));
    let weighted = Terms { places: PlaceTerms::Weighted, ..Terms::default() };
    for (sick, expected) in [(0, 33_333), (3, 32_886), (5, 25_926), (9, 6_542)] {
        let mut hosts = healthy(&[(&x, 10), (&y, 10)]);
        for host in &mut hosts {
            host.place_weight = if *host.place == x { 1 } else { 2 };
        }
        hosts.iter_mut().take(sick).for_each(|host| host.health = Health::Unhealthy);
        let roster = Roster::build(&weighted, &hosts, Scene { now_ms: 0, home: &zone(""), census: None });
        let (counts, _) = shares(roster, &hosts, &[&x, &y]);
        assert!(counts[0].abs_diff(expected) < 50, "{sick}: {counts:?}");
    }
    // Without weights every host counts; with a weight of 0 a place gets nothing.
    let hosts = healthy(&[(&x, 1), (&y, 3)]);
    let roster = Roster::build(&weighted, &hosts, Scene { now_ms: 0, home: &x, census: None });
    assert_eq!(shares(roster, &hosts, &[&x, &y]).0, [25_000, 75_000]);
}

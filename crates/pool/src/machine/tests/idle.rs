//! Learned idle limits, in virtual time.

use super::*;

/// A pool with one idle connection.
fn idle() -> (Lab, Arc<IdleLimit>) {
    pool(settings(), &open_limits(), 1)
}

/// A pool with `count` idle connections, to a host from which a round trip takes 5 ms.
fn pool(settings: Settings, limits: &Arc<Limits>, count: usize) -> (Lab, Arc<IdleLimit>) {
    let learned = Arc::new(IdleLimit::default());
    let shared = Shared {
        limits: limits.clone(),
        host_connections: None,
        stats: UpstreamStats::detached(),
        host: HostCounters::detached(),
        idle_limit: Some(learned.clone()),
        tally: None,
    };
    let machine = Machine::new(Rc::new(settings), shared);
    let mut lab = Lab { machine, now: Instant::now(), next: 0, log: Vec::new() };
    lab.ask_times(count);
    lab.wait(5);
    (0..count).for_each(|conn| lab.connected(conn));
    (0..count).for_each(|conn| lab.end(conn, StreamEnd::Complete));
    lab.events();
    (lab, learned)
}

fn peer_closes(lab: &mut Lab, conn: usize) {
    lab.machine.handle_closed(lab.now, ConnKey(conn), CloseReason::PeerFin);
    lab.drain();
}

/// Another pool saw a close at that age.
fn teach(lab: &mut Lab, learned: &IdleLimit, ms: u64) {
    learned.closed(lab.now, Duration::from_millis(ms), None);
    lab.machine.arm_idle();
}

fn learned_ms(learned: &IdleLimit) -> Option<u128> {
    learned.learned().map(|limit| limit.as_millis())
}

#[test]
fn a_close_of_an_idle_connection_teaches_the_pool_to_close_before() {
    let (mut lab, learned) = pool(settings(), &open_limits(), 3);
    lab.wait(200);
    peer_closes(&mut lab, 0);
    assert_eq!(learned_ms(&learned), Some(200));
    lab.ask();
    let closed = close(2, CloseReason::IdleTimeout);
    assert_eq!(lab.events(), [close(0, CloseReason::PeerFin), closed, open(2)], "the other one is a probe");
    lab.wait(1);
    peer_closes(&mut lab, 1);
    assert_eq!(learned_ms(&learned), Some(200));
}

#[test]
fn a_connection_past_the_learned_limit_is_not_used_though_the_timer_is_late() {
    let (mut lab, learned) = idle();
    teach(&mut lab, &learned, 200);
    lab.now += Duration::from_millis(196);
    assert_eq!(lab.machine.first_ready(lab.now, Care::Any), None);
    assert_eq!(lab.ask(), Asked::Waits(1));
    assert_eq!(lab.machine.connections(), 2, "a probe and another one");
}

#[test]
fn a_stream_that_cannot_be_repeated_takes_a_connection_in_its_first_half() {
    let (mut lab, learned) = idle();
    teach(&mut lab, &learned, 200);
    lab.now += Duration::from_millis(85);
    assert!(lab.machine.first_ready(lab.now, Care::Fresh).is_some());
    lab.now += Duration::from_millis(15);
    assert!(lab.machine.first_ready(lab.now, Care::Fresh).is_none());
    assert!(lab.machine.first_ready(lab.now, Care::Any).is_some());
}

#[test]
fn a_probe_shows_that_the_limit_is_higher() {
    let (mut lab, learned) = idle();
    teach(&mut lab, &learned, 3);
    lab.wait(3);
    assert_eq!(lab.machine.connections(), 1, "kept as a probe");
    assert_eq!(lab.machine.first_ready(lab.now, Care::Any), None, "and not used");
    assert_eq!(lab.machine.load().capacity, 0);
    lab.wait(3);
    assert_eq!(learned_ms(&learned), Some(6));
    lab.wait(1_000);
    assert!(learned_ms(&learned) > Some(500));
    lab.wait(3_600_000);
    assert_eq!(learned_ms(&learned), None, "it lived as long as the configuration lets it");
    assert!(lab.machine.is_empty());
    assert_eq!(lab.stats().upstream_cx_idle_timeout().value(), 1);
    assert_eq!(lab.stats().upstream_cx_idle().value(), 0);
}

#[test]
fn a_host_that_closes_at_once_is_probed_step_by_step() {
    let (mut lab, learned) = idle();
    teach(&mut lab, &learned, 0);
    lab.wait(0);
    assert_eq!((lab.machine.connections(), learned_ms(&learned)), (1, Some(0)));
    lab.wait(1);
    assert_eq!(learned_ms(&learned), Some(1));
    lab.wait(1);
    assert_eq!(learned_ms(&learned), Some(2));
}

#[test]
fn a_stream_that_needs_the_place_of_a_probe_gets_it() {
    let limits = limits(1, 1024);
    let (mut lab, learned) = pool(settings(), &limits, 1);
    teach(&mut lab, &learned, 200);
    lab.wait(250);
    assert_eq!(lab.machine.connections(), 1);
    assert_eq!(lab.ask(), Asked::Waits(1));
    assert_eq!(lab.events(), [close(0, CloseReason::Overflow), open(0)]);
    assert!(!learned.begin_probe(lab.now), "the next one may begin later");
    assert!(learned.begin_probe(lab.now + Duration::from_secs(1)));
}

#[test]
fn another_pool_takes_the_place_of_a_probe_first() {
    let (mut lab, learned) = pool(settings(), &open_limits(), 2);
    teach(&mut lab, &learned, 200);
    lab.now += Duration::from_millis(100);
    assert_eq!(lab.ask(), Asked::On(1));
    lab.end(1, StreamEnd::Complete);
    lab.wait(110);
    assert_eq!(lab.machine.oldest_idle().map(|(key, _)| key), Some(ConnKey(0)));
    assert!(lab.machine.handle_reclaim(lab.now));
    assert_eq!(lab.machine.connections(), 1);
}

#[test]
fn a_request_that_met_a_closed_connection_teaches() {
    let (mut lab, learned) = idle();
    lab.now += Duration::from_millis(200);
    assert_eq!(lab.ask(), Asked::On(0));
    lab.now += Duration::from_millis(5);
    lab.end(0, StreamEnd::PeerClosed(CloseReason::PeerRst));
    assert_eq!(learned_ms(&learned), Some(200));
}

#[test]
fn a_request_that_the_server_died_of_teaches_nothing() {
    let (mut lab, learned) = idle();
    lab.now += Duration::from_millis(200);
    assert_eq!(lab.ask(), Asked::On(0));
    lab.now += Duration::from_millis(50);
    lab.end(0, StreamEnd::PeerClosed(CloseReason::PeerFin));
    assert_eq!(learned_ms(&learned), None);
}

#[test]
fn what_was_never_used_or_is_in_use_teaches_nothing() {
    let (mut lab, learned) = pool(Settings { concurrency: 2, ..settings() }, &open_limits(), 1);
    lab.ask();
    lab.wait(100);
    peer_closes(&mut lab, 0);
    lab.ask();
    lab.machine.handle_announced(lab.now, ConnKey(0));
    assert_eq!(learned_ms(&learned), None);
}

#[test]
fn goaway_and_stray_bytes_on_an_idle_connection_teach() {
    for end in [Machine::handle_announced, Machine::handle_unexpected_data] {
        let (mut lab, learned) = idle();
        lab.wait(300);
        end(&mut lab.machine, lab.now, ConnKey(0));
        assert!(lab.machine.is_empty());
        assert_eq!(learned_ms(&learned), Some(300));
    }
}

#[test]
fn the_configured_timeout_bounds_what_a_host_announces() {
    let settings = Settings { idle_timeout: Some(Duration::from_secs(2)), ..settings() };
    let (mut lab, _) = pool(settings, &open_limits(), 1);
    lab.machine.handle_idle_announced(Duration::from_secs(75));
    lab.wait(1_999);
    assert_eq!(lab.machine.connections(), 1);
    lab.wait(1);
    assert!(lab.machine.is_empty());
}

#[test]
fn a_pool_that_goes_takes_its_probe_along() {
    let (mut lab, learned) = idle();
    teach(&mut lab, &learned, 200);
    lab.wait(200);
    lab.machine.handle_drain(lab.now, CloseReason::Drained);
    assert!(lab.machine.is_empty());
    assert!(learned.begin_probe(lab.now + Duration::from_secs(1)));
}

/// Shown in the issue: an upstream that closes after 200 ms, 5 ms away, and requests of random pace.
#[test]
fn after_the_first_close_no_request_meets_a_closing_connection() {
    let (mut lab, learned) = idle();
    lab.wait(200);
    peer_closes(&mut lab, 0);
    // When the host's side closes, by its clock: it answers 2.5 ms after we ask, and hears us as late.
    let mut closes: std::collections::BTreeMap<usize, Instant> = Default::default();
    let (one_way, limit) = (Duration::from_micros(2_500), Duration::from_millis(200));
    let (mut random, mut reused) = (1_u64, 0);
    for _ in 0..10_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pause = Duration::from_micros((random >> 33) % 260_000);
        let (until, care) = (lab.now + pause, if random & 1 << 40 == 0 { Care::Any } else { Care::Fresh });
        // What arrives meanwhile: the host's FINs, and our timer.
        while lab.now < until {
            lab.now = (lab.now + Duration::from_millis(1)).min(until);
            for conn in
                Vec::from_iter(closes.iter().filter(|(_, at)| **at + one_way <= lab.now).map(|(c, _)| *c))
            {
                closes.remove(&conn);
                peer_closes(&mut lab, conn);
            }
            lab.wait(0);
        }
        let conn = match lab.machine.try_attach(lab.now, care) {
            Some(Attached::To(key)) => {
                reused += 1;
                assert!(closes[&key.index()] > lab.now + one_way, "a request met a closed connection");
                key.index()
            }
            Some(Attached::Overflow) => panic!("refused"),
            None => {
                assert!(matches!(lab.machine.enqueue(lab.now, 0), Queued::Waiting(_)));
                let opened = lab.events().into_iter().find_map(|event| match event {
                    Event::Open(key) => Some(key.index()),
                    _ => None,
                });
                lab.now += one_way * 2;
                lab.connected(opened.unwrap());
                opened.unwrap()
            }
        };
        closes.insert(conn, lab.now + one_way + limit);
        lab.now += one_way * 2;
        lab.end(conn, StreamEnd::Complete);
        for event in lab.events() {
            if let Event::Close(key, _) = event {
                closes.remove(&key.index());
            }
        }
    }
    assert!(reused > 5_000, "{reused} reused");
    assert!(learned_ms(&learned) >= Some(190));
}

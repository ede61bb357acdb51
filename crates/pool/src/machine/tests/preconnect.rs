//! The table of "Preconnect" (Envoy 1.40, measured), and what limits make of it.

use super::*;

fn ratio(ratio: f32) -> Settings {
    Settings { preconnect_ratio: ratio, ..settings() }
}

fn sessions(ratio: f32) -> Settings {
    Settings { max_streams: Some(1), carries: Carries::Sessions, ..self::ratio(ratio) }
}

/// Answers every attempt with a connection.
fn connect_all(lab: &mut Lab) {
    let opens = lab.events().into_iter().filter_map(|event| match event {
        Event::Open(key) => Some(key.index()),
        _ => None,
    });
    opens.for_each(|conn| lab.connected(conn));
}

/// Connections open after so many requests at a time, all answered in between.
fn opened(settings: Settings, rounds: &[usize]) -> Vec<usize> {
    let mut lab = Lab::new(settings, &open_limits());
    let opened = rounds.iter().map(|requests| {
        lab.ask_times(*requests);
        for _ in 0..4 {
            connect_all(&mut lab);
        }
        let busy: Vec<_> =
            lab.machine.keys().into_iter().filter(|key| lab.machine.conns[key.0].active > 0).collect();
        busy.into_iter().for_each(|key| lab.end(key.0, StreamEnd::Complete));
        lab.machine.connections()
    });
    opened.collect()
}

#[test]
fn as_many_connections_as_envoy_opens() {
    assert_eq!(opened(ratio(2.0), &[1, 2]), [2, 4]);
    assert_eq!(opened(ratio(3.0), &[1]), [3]);
    assert_eq!(opened(ratio(1.5), &[1, 2, 4]), [2, 3, 6]);
    for each in [1.1, 1.5, 2.0] {
        assert_eq!(opened(ratio(each), &[1; 12]), [2; 12], "{each}");
    }
    assert_eq!(opened(settings(), &[1, 2, 4]), [1, 2, 4]);
    let many = Settings { concurrency: 1024, ..ratio(2.0) };
    assert_eq!(opened(many, &[1]), [1]);
}

#[test]
fn a_connection_is_wanted_when_there_are_too_few_places() {
    let load = |active, capacity| Load { pending: 0, active, capacity };
    assert!(!wants_connection(load(10, 1), 1.1, 0));
    assert!(wants_connection(load(11, 1), 1.1, 0));
    assert!(wants_connection(load(0, 1), 2.0, 1) && !wants_connection(load(0, 2), 2.0, 1));
    assert!(!wants_connection(load(5, 0), 1.0, 0));
}

#[test]
fn a_spare_connection_is_used_next_and_idles_out_like_any() {
    let settings = Settings { idle_timeout: Some(Duration::from_secs(1)), ..ratio(2.0) };
    let mut lab = Lab::new(settings, &open_limits());
    assert_eq!(lab.ask(), Asked::Waits(0));
    assert_eq!(lab.events(), [open(0), open(1)]);
    lab.connected(0);
    lab.connected(1);
    assert_eq!(lab.events(), [attach(0, 0)]);
    assert_eq!(lab.stats().upstream_cx_total().value(), 2);
    assert_eq!((lab.stats().upstream_cx_active().value(), lab.stats().upstream_cx_idle().value()), (2, 1));
    lab.wait(999);
    assert_eq!(lab.events(), []);
    lab.wait(1);
    assert_eq!(lab.events(), [close(1, CloseReason::IdleTimeout)]);
    assert_eq!(lab.stats().upstream_cx_idle_timeout().value(), 1);
    // Nothing is opened in its place before the next stream.
    assert_eq!(lab.ask(), Asked::Waits(1));
    assert_eq!(lab.events(), [open(1), open(2), open(3)]);
    lab.connected(2);
    assert_eq!(lab.events(), [attach(1, 2)]);
    // One that finds a connection ready opens the next one.
    lab.connected(1);
    assert_eq!(lab.ask(), Asked::On(1));
    assert_eq!(lab.events(), [open(4), open(5)]);
}

#[test]
fn a_failed_spare_fails_nobody_and_is_not_tried_again() {
    let mut lab = Lab::new(ratio(2.0), &open_limits());
    lab.ask();
    assert_eq!(lab.events(), [open(0), open(1)]);
    lab.machine.handle_connect_failed(lab.now, ConnKey(0), refused());
    assert_eq!(lab.events(), [close(0, CloseReason::ConnectFailed)]);
    lab.connected(1);
    assert_eq!(lab.events(), [attach(0, 1)]);
    assert_eq!(lab.stats().upstream_cx_connect_fail().value(), 1);
    assert_eq!(lab.stats().upstream_rq_pending_failure_eject().value(), 0);
}

#[test]
fn limits_stop_spare_connections_first() {
    let limits = limits(1, 1024);
    let host = Arc::new(Limit::new(8, None, None));
    let mut lab = Lab::with_host(ratio(3.0), &limits, Some(host.clone()));
    lab.ask();
    assert_eq!(lab.events(), [open(0)]);
    assert_eq!((limits.connections.used(), host.used()), (1, 1));
    assert_eq!(lab.stats().upstream_cx_overflow().value(), 1);
    // Those who wait for a place are before them when one comes.
    lab.ask();
    assert_eq!(lab.events(), []);
    limits.connections.set_max(3);
    lab.grant();
    assert_eq!(lab.events(), [open(1)]);
}

#[test]
fn a_spare_connection_or_attempt_gives_way_to_a_pool_without_any() {
    for connect in [true, false] {
        let limits = limits(2, 1024);
        let mut rich = Lab::new(ratio(2.0), &limits);
        let mut poor = Lab::new(ratio(2.0), &limits);
        rich.ask();
        rich.connected(0);
        if connect {
            rich.connected(1);
        }
        rich.events();
        assert_eq!(poor.ask(), Asked::Waits(0));
        assert_eq!(poor.events(), [Event::Reclaim]);
        assert!(rich.machine.oldest_idle().is_some() && rich.machine.handle_reclaim(rich.now));
        assert_eq!(rich.events(), [close(1, CloseReason::Overflow)]);
        poor.grant();
        assert_eq!(poor.events(), [open(0)]);
        assert_eq!(limits.connections.used(), 2);
        assert!(!rich.machine.handle_reclaim(rich.now), "the stream's own connection stays");
    }
}

#[test]
fn sessions_take_spare_connections_and_attempts() {
    let limits = limits(2, 1024);
    let mut lab = Lab::new(sessions(2.0), &limits);
    assert_eq!(lab.ask(), Asked::Waits(0));
    assert_eq!(lab.events(), [open(0), open(1)]);
    assert!(!lab.machine.wants_room());
    // The limit is reached, but the second attempt is for whoever comes.
    assert_eq!(lab.ask(), Asked::Waits(1));
    assert!(lab.machine.wants_room());
    assert_eq!(lab.ask(), Asked::PoolOverflow);
    lab.connected(1);
    lab.connected(0);
    assert_eq!(lab.events(), [attach(0, 1), attach(1, 0)]);
    lab.end(0, StreamEnd::Session(CloseReason::PeerFin));
    lab.end(1, StreamEnd::Session(CloseReason::PeerFin));
    assert!(lab.machine.is_empty());
    assert_eq!(limits.connections.used(), 0);
    lab.events();
    lab.ask();
    connect_all(&mut lab);
    assert_eq!(lab.ask(), Asked::On(0));
    assert_eq!(limits.connections.used(), 2);
}

#[test]
fn a_session_that_gives_up_takes_one_attempt_along() {
    let mut lab = Lab::new(sessions(2.0), &open_limits());
    let Queued::Waiting(first) = lab.machine.enqueue(lab.now, 0) else { panic!("refused") };
    assert_eq!(lab.events(), [open(0), open(1)]);
    lab.machine.handle_cancel(lab.now, first);
    assert_eq!(lab.events(), [close(1, CloseReason::RequestReset)]);
    assert_eq!(lab.machine.connections(), 1);
}

#[test]
fn an_anticipated_stream_opens_a_connection_under_the_limits() {
    let limits = limits(2, 1024);
    let tally = Rc::new(Tally::default());
    let shared = Shared {
        limits: limits.clone(),
        host_connections: None,
        stats: UpstreamStats::detached(),
        host: HostCounters::detached(),
        idle_limit: None,
        tally: Some(tally.clone()),
    };
    let now = Instant::now();
    let mut here = Machine::new(Rc::new(settings()), shared.clone());
    let mut there = Machine::new(Rc::new(settings()), shared);
    assert!(here.handle_anticipated(now, 2.0) && there.handle_anticipated(now, 2.0));
    assert!(!here.handle_anticipated(now, 3.0), "the limit is reached");
    assert_eq!(tally.load(), Load { pending: 0, active: 0, capacity: 2 });
    assert!(matches!(here.enqueue(now, 0), Queued::Waiting(_)));
    assert_eq!(tally.load(), Load { pending: 1, active: 0, capacity: 2 });
    here.handle_connected(now, ConnKey(0), 1);
    assert_eq!(tally.load(), Load { pending: 0, active: 1, capacity: 1 });
    drop(there);
    assert_eq!(tally.load(), Load { pending: 0, active: 1, capacity: 0 });
    drop(here);
    assert_eq!((tally.load(), limits.connections.used()), (Load::default(), 0));
}

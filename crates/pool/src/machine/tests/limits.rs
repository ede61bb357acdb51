//! The matrix of "Circuit breakers" (Envoy 1.40, measured), adapted by exact limits.

use super::*;

#[test]
fn the_second_request_waits_for_the_only_connection_and_the_third_is_refused() {
    let limits = limits(1, 1);
    let mut lab = Lab::new(settings(), &limits);
    lab.ask();
    lab.connected(0);
    lab.wait(50);
    assert_eq!(lab.ask(), Asked::Waits(1));
    lab.wait(50);
    assert_eq!(lab.ask(), Asked::Overflow);
    assert_eq!(lab.ask(), Asked::Overflow);
    lab.events();
    lab.end(0, StreamEnd::Complete);
    assert_eq!(lab.events(), [attach(1, 0)]);
    lab.end(0, StreamEnd::Complete);
    let stats = lab.stats();
    assert_eq!(stats.upstream_cx_overflow().value(), 1);
    assert_eq!(stats.upstream_rq_pending_overflow().value(), 2);
    assert_eq!(stats.upstream_rq_pending_total().value(), 2);
    assert_eq!(stats.upstream_rq_total().value(), 2);
}

#[test]
fn no_pending_request_allowed_refuses_every_request_of_a_cold_pool() {
    let mut lab = Lab::new(settings(), &limits(1, 0));
    assert_eq!([lab.ask(), lab.ask(), lab.ask()], [Asked::Overflow, Asked::Overflow, Asked::Overflow]);
    assert_eq!(lab.stats().upstream_rq_pending_overflow().value(), 3);
    assert_eq!(lab.stats().upstream_cx_total().value(), 0);
}

#[test]
fn a_limit_of_requests_refuses_at_attachment_and_keeps_the_connection() {
    let maxima = Maxima { requests: 1, ..Maxima::default() };
    let limits = Arc::new(Limits::detached(&maxima));
    let mut lab = Lab::new(settings(), &limits);
    lab.ask();
    lab.connected(0);
    assert_eq!(lab.ask(), Asked::Waits(1));
    lab.events();
    lab.connected(1);
    assert_eq!(lab.events(), [Event::Fail { token: 1, error: PoolError::RequestOverflow }]);
    assert_eq!(lab.ask(), Asked::Overflow);
    assert_eq!(lab.stats().upstream_rq_active_overflow().value(), 2);
    assert_eq!(lab.stats().upstream_rq_pending_overflow().value(), 0);
    assert_eq!(lab.stats().upstream_cx_active().value(), 2);
}

#[test]
fn two_hosts_under_one_connection_take_turns_in_order_of_arrival() {
    let limits = limits(1, 10);
    let (mut a, mut b) = (Lab::new(settings(), &limits), Lab::new(settings(), &limits));
    b.now = a.now;
    a.ask();
    a.connected(0);
    a.wait(50);
    b.wait(50);
    b.ask();
    assert_eq!(b.events(), [Event::Reclaim], "no connection, so it asks for idle ones");
    a.wait(50);
    b.wait(50);
    assert_eq!(a.ask(), Asked::Waits(1));
    a.events();
    // B's request is older than A's: A's only connection makes room.
    a.end(0, StreamEnd::Complete);
    assert_eq!(a.events(), [close(0, CloseReason::Overflow), Event::Reclaim]);
    b.grant();
    assert_eq!(b.events(), [open(0)]);
    assert!(limits.connections.used() <= 1);
    b.connected(0);
    b.end(0, StreamEnd::Complete);
    assert_eq!(b.events(), [attach(0, 0), close(0, CloseReason::Overflow)]);
    a.grant();
    a.connected(0);
    assert_eq!(a.events(), [open(0), attach(1, 0)]);
}

#[test]
fn an_idle_connection_of_another_host_is_reclaimed() {
    let limits = limits(1, 10);
    let (mut a, mut b) = (Lab::new(settings(), &limits), Lab::new(settings(), &limits));
    a.ask();
    a.connected(0);
    a.end(0, StreamEnd::Complete);
    b.ask();
    assert_eq!(b.events(), [Event::Reclaim]);
    assert!(a.machine.handle_reclaim(a.now));
    b.grant();
    assert_eq!(b.events(), [open(0)]);
    assert_eq!(a.machine.connections(), 0);
    assert_eq!(a.stats().upstream_cx_destroy_local().value(), 1);
}

#[test]
fn envoys_exception_lets_each_empty_pool_open_one() {
    let maxima = Maxima { connections: 0, connection_per_host: true, ..Maxima::default() };
    let limits = Arc::new(Limits::detached(&maxima));
    let mut lab = Lab::new(settings(), &limits);
    lab.ask();
    assert_eq!(lab.events(), [open(0)]);
    lab.ask();
    assert_eq!(lab.events(), []);
    assert_eq!(lab.stats().upstream_cx_overflow().value(), 2);
}

#[test]
fn exactly_no_connection_means_that_requests_wait() {
    let mut lab = Lab::new(settings(), &limits(0, 10));
    assert_eq!(lab.ask(), Asked::Waits(0));
    assert_eq!(lab.events(), [Event::Reclaim]);
    assert_eq!(lab.stats().upstream_cx_total().value(), 0);
}

#[test]
fn a_host_limit_counts_beside_the_clusters() {
    let host = Arc::new(Limit::new(1, None, None));
    let limits = open_limits();
    let mut lab = Lab::with_host(settings(), &limits, Some(host.clone()));
    lab.ask();
    lab.connected(0);
    assert_eq!(lab.ask(), Asked::Waits(1));
    assert_eq!((host.used(), limits.connections.used()), (1, 1));
    assert_eq!(lab.stats().upstream_cx_overflow().value(), 1);
    lab.events();
    lab.end(0, StreamEnd::PeerClosed(CloseReason::PeerFin));
    // The closed connection's unit is the waiting stream's.
    assert_eq!(lab.events(), [close(0, CloseReason::PeerFin), open(0)]);
    assert_eq!((host.used(), limits.connections.used()), (1, 1));
}

#[test]
fn pools_are_limited_while_they_are_in_use() {
    let maxima = Maxima { pools: 1, ..Maxima::default() };
    let limits = Arc::new(Limits::detached(&maxima));
    let (mut a, mut b) = (Lab::new(settings(), &limits), Lab::new(settings(), &limits));
    a.ask();
    a.connected(0);
    assert_eq!(b.ask(), Asked::PoolOverflow);
    a.end(0, StreamEnd::CompleteAndAnnounced);
    assert_eq!(b.ask(), Asked::Waits(1));
    assert_eq!(b.stats().upstream_cx_pool_overflow().value(), 1);
}

#[test]
fn at_most_three_connections_are_opened_per_call() {
    let limits = limits(0, 100);
    let mut lab = Lab::new(settings(), &limits);
    lab.ask_times(5);
    lab.events();
    limits.set_maxima(&Maxima { connections: 10, ..Maxima::default() });
    lab.grant();
    assert_eq!(lab.events().iter().filter(|event| matches!(event, Event::Open(_))).count(), 3);
}

#[test]
fn connections_being_established_are_capped_whatever_waits() {
    let limits = Arc::new(Limits::detached(&Maxima { connecting: 2, ..Maxima::default() }));
    let mut lab = Lab::new(settings(), &limits);
    let mut other = Lab::new(settings(), &limits);
    lab.ask_times(4);
    assert_eq!(lab.events(), [open(0), open(1)]);
    other.ask();
    assert_eq!(other.events(), [], "the cap is everybody's");
    assert_eq!(limits.connecting.used(), 2);
    lab.connected(0);
    assert!(!other.machine.waiters().is_granted(), "first come, first served");
    assert_eq!(lab.events(), [attach(0, 0), open(2)]);
    lab.machine.handle_connect_failed(lab.now, ConnKey(1), refused());
    lab.drain();
    lab.machine.handle_connect_failed(lab.now, ConnKey(2), refused());
    lab.drain();
    lab.wait(500);
    if other.machine.waiters().is_granted() {
        other.grant();
    }
    assert_eq!(other.events(), [open(0)]);
    assert!(limits.connecting.used() <= 2);
    drop((lab, other));
    assert_eq!((limits.connecting.used(), limits.connections.used()), (0, 0));
}

#[test]
fn a_stream_that_gives_up_while_it_waits_to_connect_leaves_its_units() {
    let limits = Arc::new(Limits::detached(&Maxima { connecting: 1, connections: 2, ..Maxima::default() }));
    let host = Arc::new(Limit::new(2, None, None));
    let mut lab = Lab::with_host(settings(), &limits, Some(host.clone()));
    let mut other = Lab::with_host(settings(), &limits, Some(host.clone()));
    lab.ask();
    assert_eq!(other.machine.try_attach(other.now, Care::Any), None);
    let Queued::Waiting(key) = other.machine.enqueue(other.now, 1) else { panic!("refused") };
    assert_eq!((limits.connections.used(), host.used()), (2, 2), "in hand while it waits");
    other.machine.handle_cancel(other.now, key);
    assert_eq!((limits.connections.used(), host.used()), (1, 1));
    assert!(other.machine.is_empty());
}

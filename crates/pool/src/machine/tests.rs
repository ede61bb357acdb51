//! The laboratory of all tests: a pool in virtual time. Here: what becomes of requests, attempts and connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_types::ResetReason;

use super::*;
use crate::limits::Maxima;

mod fresh;
mod idle;
mod limits;
mod preconnect;

/// A pool in virtual time, one token per request.
struct Lab {
    machine: Machine,
    now: Instant,
    next: usize,
    log: Vec<Event>,
}

fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_millis(500),
        idle_timeout: Some(Duration::from_secs(3600)),
        max_connection_duration: None,
        max_streams: None,
        concurrency: 1,
        preconnect_ratio: 1.0,
        carries: Carries::Requests,
        timeout_text: None,
    }
}

fn limits(connections: u64, pending: u64) -> Arc<Limits> {
    let maxima = Maxima { connections, pending, track_remaining: true, ..Maxima::default() };
    Arc::new(Limits::detached(&maxima))
}

fn open_limits() -> Arc<Limits> {
    limits(1024, 1024)
}

/// What became of a request.
#[derive(Debug, PartialEq)]
enum Asked {
    On(usize),
    Waits(usize),
    Overflow,
    PoolOverflow,
}

impl Lab {
    fn new(settings: Settings, limits: &Arc<Limits>) -> Self {
        Self::with_host(settings, limits, None)
    }

    fn with_host(settings: Settings, limits: &Arc<Limits>, host: Option<Arc<Limit>>) -> Self {
        let shared = Shared {
            limits: limits.clone(),
            host_connections: host,
            stats: UpstreamStats::detached(),
            host: HostCounters::detached(),
            idle_limit: None,
            tally: None,
        };
        let machine = Machine::new(Rc::new(settings), shared);
        Self { machine, now: Instant::now(), next: 0, log: Vec::new() }
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        while self.machine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.machine.handle_timeout(self.now);
        }
        self.drain();
    }

    fn ask(&mut self) -> Asked {
        let token = self.next;
        self.next += 1;
        let asked = match self.machine.try_attach(self.now, Care::Any) {
            Some(Attached::To(key)) => Asked::On(key.index()),
            Some(Attached::Overflow) => Asked::Overflow,
            None => match self.machine.enqueue(self.now, token) {
                Queued::Waiting(_) => Asked::Waits(token),
                Queued::Overflow => Asked::Overflow,
                Queued::PoolOverflow | Queued::ConnectionOverflow => Asked::PoolOverflow,
            },
        };
        self.drain();
        asked
    }

    fn ask_times(&mut self, n: usize) {
        for _ in 0..n {
            self.ask();
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            self.log.push(event);
        }
    }

    fn events(&mut self) -> Vec<Event> {
        self.drain();
        let mut events = std::mem::take(&mut self.log);
        for event in &mut events {
            if let Event::Close(_, closed) = event {
                closed.idle_ms = None;
            }
        }
        events
    }

    fn connected(&mut self, conn: usize) {
        self.machine.handle_connected(self.now, ConnKey(conn), 1);
        self.drain();
    }

    fn end(&mut self, conn: usize, end: StreamEnd) {
        self.machine.handle_stream_end(self.now, ConnKey(conn), end);
        self.drain();
    }

    fn grant(&mut self) {
        assert!(self.machine.waiters().is_granted(), "nothing was granted");
        self.machine.handle_grant(self.now);
        self.drain();
    }

    fn stats(&self) -> &UpstreamStats {
        self.machine.stats()
    }
}

fn open(conn: usize) -> Event {
    Event::Open(ConnKey(conn))
}

fn attach(token: usize, conn: usize) -> Event {
    Event::Attach { token, conn: ConnKey(conn) }
}

fn close(conn: usize, reason: CloseReason) -> Event {
    let is_failure = |reason| matches!(reason, CloseReason::ConnectFailed | CloseReason::ConnectTimeout);
    Event::Close(ConnKey(conn), Closed { reason, idle_ms: None, attempt: is_failure(reason) })
}

fn refused() -> PoolError {
    PoolError::Connect { reason: ResetReason::RemoteConnectionFailure, transport: None }
}

fn timed_out() -> PoolError {
    PoolError::Connect { reason: ResetReason::ConnectionTimeout, transport: None }
}

#[test]
fn one_request_opens_uses_and_keeps_a_connection() {
    let limits = limits(1, 1);
    let mut lab = Lab::new(settings(), &limits);
    assert_eq!(lab.ask(), Asked::Waits(0));
    assert_eq!(lab.events(), [open(0)]);
    lab.connected(0);
    assert_eq!(lab.events(), [attach(0, 0)]);
    lab.end(0, StreamEnd::Complete);
    assert_eq!(lab.ask(), Asked::On(0));
    lab.end(0, StreamEnd::Complete);
    let stats = lab.stats();
    assert_eq!(stats.upstream_cx_total().value(), 1);
    assert_eq!(stats.upstream_rq_pending_total().value(), 1);
    assert_eq!(stats.upstream_rq_total().value(), 2);
    assert_eq!(stats.upstream_rq_active().value(), 0);
    // An idle connection holds the limit.
    assert_eq!(limits.connections.used(), 1);
}

#[test]
fn ready_connections_are_used_last_in_first_out_and_the_rest_idle_out() {
    let limits = open_limits();
    let idle = Settings { idle_timeout: Some(Duration::from_secs(10)), ..settings() };
    let mut lab = Lab::new(idle, &limits);
    lab.ask_times(3);
    (0..3).for_each(|conn| lab.connected(conn));
    for conn in [1, 0, 2] {
        lab.wait(1000);
        lab.end(conn, StreamEnd::Complete);
    }
    for _ in 0..4 {
        assert_eq!(lab.ask(), Asked::On(2));
        lab.wait(1000);
        lab.end(2, StreamEnd::Complete);
    }
    lab.events();
    lab.wait(9_500);
    let gone = [close(0, CloseReason::IdleTimeout), close(1, CloseReason::IdleTimeout)];
    assert_eq!(lab.events(), gone);
    lab.wait(500);
    assert_eq!(lab.events(), [close(2, CloseReason::IdleTimeout)]);
    assert_eq!(lab.stats().upstream_cx_idle_timeout().value(), 3);
    assert_eq!(limits.connections.used(), 0);
    assert_eq!(lab.machine.poll_timeout(), None);
}

#[test]
fn each_request_fails_with_the_attempt_it_waited_for() {
    let mut lab = Lab::new(settings(), &open_limits());
    for _ in 0..3 {
        lab.ask();
        lab.wait(200);
    }
    // Envoy fails all three at 500 ms.
    let failed = |token| Event::Fail { token, error: timed_out() };
    assert_eq!(lab.events()[3..], [close(0, CloseReason::ConnectTimeout), failed(0)]);
    lab.wait(99);
    assert_eq!(lab.events(), []);
    lab.connected(2);
    assert_eq!(lab.events(), [attach(1, 2)], "first come, first served");
    lab.wait(1);
    assert_eq!(lab.events(), [close(1, CloseReason::ConnectTimeout), failed(2)]);
    assert_eq!(lab.stats().upstream_cx_connect_timeout().value(), 2);
    assert_eq!(lab.stats().upstream_cx_connect_fail().value(), 2);
    assert_eq!(lab.stats().upstream_rq_pending_failure_eject().value(), 2);
    assert_eq!(lab.stats().upstream_cx_destroy_local().value(), 2);
}

#[test]
fn a_refusal_counts_as_remote_and_leaves_those_who_wait_for_a_limit() {
    let limits = limits(1, 10);
    let mut lab = Lab::new(settings(), &limits);
    lab.ask();
    lab.ask();
    lab.events();
    lab.machine.handle_connect_failed(lab.now, ConnKey(0), refused());
    // The second had no attempt yet: the unit is free for it now.
    let failed = Event::Fail { token: 0, error: refused() };
    assert_eq!(lab.events(), [close(0, CloseReason::ConnectFailed), failed, open(0)]);
    lab.machine.handle_connect_failed(lab.now, ConnKey(0), refused());
    let failed = Event::Fail { token: 1, error: refused() };
    assert_eq!(lab.events(), [close(0, CloseReason::ConnectFailed), failed]);
    let stats = lab.stats();
    assert_eq!(stats.upstream_cx_destroy_remote().value(), 2);
    assert_eq!(stats.upstream_rq_pending_failure_eject().value(), 2);
    assert_eq!(stats.upstream_rq_total().value(), 0);
    assert_eq!(stats.upstream_rq_pending_active().value(), 0);
    assert_eq!((limits.connections.used(), limits.pending.used()), (0, 0));
}

#[test]
fn a_cancelled_request_leaves_its_attempt_to_finish() {
    let mut lab = Lab::new(settings(), &open_limits());
    let Queued::Waiting(key) = lab.machine.enqueue(lab.now, 0) else { panic!() };
    lab.machine.handle_cancel(lab.now, key);
    assert_eq!(lab.events(), [open(0)]);
    lab.connected(0);
    assert_eq!(lab.events(), []);
    assert_eq!(lab.ask(), Asked::On(0));
    assert_eq!(lab.stats().upstream_rq_cancelled().value(), 1);
    assert_eq!(lab.stats().upstream_cx_active().value(), 1);
}

#[test]
fn a_request_relies_on_the_attempt_of_a_cancelled_one() {
    let mut lab = Lab::new(settings(), &open_limits());
    let Queued::Waiting(key) = lab.machine.enqueue(lab.now, 0) else { panic!() };
    lab.machine.handle_cancel(lab.now, key);
    lab.next = 1;
    lab.ask();
    assert_eq!(lab.events(), [open(0)], "the attempt under way is enough for one");
    lab.machine.handle_connect_failed(lab.now, ConnKey(0), refused());
    assert_eq!(lab.events().len(), 2);
    assert_eq!(lab.stats().upstream_rq_pending_failure_eject().value(), 1);
}

#[test]
fn lifetime_limits_retire_connections() {
    let once = Settings { max_streams: Some(1), ..settings() };
    let mut lab = Lab::new(once, &open_limits());
    lab.ask();
    lab.connected(0);
    lab.events();
    lab.end(0, StreamEnd::Complete);
    assert_eq!(lab.events(), [close(0, CloseReason::MaxRequests)]);
    assert_eq!(lab.stats().upstream_cx_max_requests().value(), 1);
    assert_eq!(lab.stats().upstream_cx_destroy_local().value(), 1);
    assert_eq!(lab.stats().upstream_cx_destroy_with_active_rq().value(), 0);

    let short = Settings { max_connection_duration: Some(Duration::from_secs(1)), ..settings() };
    let mut lab = Lab::new(short, &open_limits());
    lab.ask_times(2);
    (0..2).for_each(|conn| lab.connected(conn));
    lab.end(0, StreamEnd::Complete);
    lab.events();
    lab.wait(1000);
    assert_eq!(lab.events(), [close(0, CloseReason::MaxDuration)]);
    assert_eq!(lab.stats().upstream_cx_max_duration_reached().value(), 2);
    lab.end(1, StreamEnd::Complete);
    assert_eq!(lab.events(), [close(1, CloseReason::MaxDuration)]);
}

#[test]
fn ends_are_counted_by_who_closed_and_with_what() {
    use CloseReason as R;
    // (end, reason, announced, protocol error, local, remote, with a request)
    let rows = [
        (StreamEnd::CompleteAndAnnounced, R::Announced, 1, 0, 1, 0, 0),
        (StreamEnd::CompleteAtClose, R::PeerFin, 0, 0, 0, 1, 0),
        (StreamEnd::RequestIncomplete, R::RequestReset, 0, 0, 1, 0, 1),
        (StreamEnd::TimedOut, R::RequestTimeout, 0, 0, 1, 0, 1),
        (StreamEnd::Unused, R::Drained, 0, 0, 1, 0, 0),
        (StreamEnd::Aborted, R::RequestReset, 0, 0, 1, 0, 1),
        (StreamEnd::PeerClosed(R::PeerFin), R::PeerFin, 0, 0, 0, 1, 1),
        (StreamEnd::PeerClosedInMessage(R::PeerRst), R::PeerRst, 0, 1, 0, 1, 1),
        (StreamEnd::ProtocolError, R::ProtocolError, 0, 1, 1, 0, 1),
    ];
    for (end, reason, announced, protocol, local, remote, with) in rows {
        let limits = open_limits();
        let mut lab = Lab::new(settings(), &limits);
        lab.ask();
        lab.connected(0);
        lab.end(0, end);
        lab.machine.handle_drain(lab.now, R::Drained);
        let stats = lab.stats();
        let got = (
            end,
            stats.upstream_cx_close_notify().value(),
            stats.upstream_cx_protocol_error().value(),
            stats.upstream_cx_destroy_local().value(),
            stats.upstream_cx_destroy_remote().value(),
            stats.upstream_cx_destroy_with_active_rq().value(),
        );
        assert_eq!(got, (end, announced, protocol, local, remote, with));
        assert_eq!(stats.upstream_cx_destroy().value(), 1);
        let reasons = stats.upstream_cx_close_reason();
        assert_eq!((reasons.of(reason).value(), reasons.total()), (1, 1), "{end:?}");
        assert_eq!(stats.upstream_cx_idle().value(), 0);
        assert_eq!(stats.upstream_cx_active().value(), 0);
        assert_eq!(stats.upstream_rq_active().value(), 0);
        assert_eq!((limits.connections.used(), limits.requests.used()), (0, 0));
    }
}

#[test]
fn an_idle_connection_closed_by_its_peer_is_never_used() {
    let mut lab = Lab::new(settings(), &open_limits());
    lab.ask();
    lab.connected(0);
    lab.end(0, StreamEnd::Complete);
    lab.machine.handle_closed(lab.now, ConnKey(0), CloseReason::PeerFin);
    assert_eq!(lab.ask(), Asked::Waits(1));
    assert_eq!(lab.stats().upstream_cx_destroy_remote().value(), 1);
    assert_eq!(lab.stats().upstream_cx_destroy_with_active_rq().value(), 0);
}

#[test]
fn a_drained_pool_closes_idle_connections_and_serves_what_waits() {
    let limits = limits(2, 10);
    let mut lab = Lab::new(settings(), &limits);
    lab.ask_times(2);
    (0..2).for_each(|conn| lab.connected(conn));
    lab.end(0, StreamEnd::Complete);
    lab.events();
    lab.machine.handle_drain(lab.now, CloseReason::Drained);
    assert_eq!(lab.events(), [close(0, CloseReason::Drained)]);
    lab.end(1, StreamEnd::Complete);
    assert_eq!(lab.events(), [close(1, CloseReason::Drained)]);

    let mut lab = Lab::new(settings(), &limits);
    lab.ask();
    lab.machine.handle_drain(lab.now, CloseReason::Drained);
    lab.connected(0);
    lab.end(0, StreamEnd::Complete);
    assert_eq!(lab.events(), [open(0), attach(0, 0), close(0, CloseReason::Drained)]);

    let mut lab = Lab::new(settings(), &limits);
    let Queued::Waiting(key) = lab.machine.enqueue(lab.now, 0) else { panic!() };
    lab.machine.handle_drain(lab.now, CloseReason::Drained);
    lab.machine.handle_cancel(lab.now, key);
    assert_eq!(lab.events(), [open(0), close(0, CloseReason::Drained)]);
    assert!(lab.machine.is_empty());
}

#[test]
fn a_dropped_pool_gives_everything_back() {
    let limits = limits(2, 10);
    let mut lab = Lab::new(settings(), &limits);
    lab.ask_times(4);
    lab.connected(0);
    drop(lab);
    assert_eq!((limits.connections.used(), limits.requests.used(), limits.pending.used()), (0, 0, 0));
    assert_eq!(limits.pools.used(), 0);
}

#[test]
fn one_connection_carries_many_streams_where_the_protocol_can() {
    let many = Settings { concurrency: 100, ..settings() };
    let mut lab = Lab::new(many, &open_limits());
    lab.ask_times(3);
    assert_eq!(lab.events(), [open(0)]);
    lab.machine.handle_connected(lab.now, ConnKey(0), 2);
    assert_eq!(lab.events(), [attach(0, 0), attach(1, 0), open(1)], "the peer takes fewer than expected");
    lab.machine.handle_concurrency(lab.now, ConnKey(0), 5);
    assert_eq!(lab.events(), [attach(2, 0)]);
    assert_eq!(lab.ask(), Asked::On(0));
    lab.machine.handle_announced(lab.now, ConnKey(0));
    assert_eq!(lab.ask(), Asked::Waits(4));
    (0..4).for_each(|_| lab.end(0, StreamEnd::Complete));
    assert_eq!(lab.events(), [close(0, CloseReason::Announced)]);
}

/// GOAWAY comes in two steps (RFC 9113 §6.8): one announcement.
#[test]
fn an_announced_close_counts_once() {
    let mut lab = Lab::new(Settings { concurrency: 100, ..settings() }, &open_limits());
    lab.ask();
    lab.connected(0);
    lab.machine.handle_concurrency(lab.now, ConnKey(0), 100);
    (0..2).for_each(|_| lab.machine.handle_announced(lab.now, ConnKey(0)));
    lab.end(0, StreamEnd::Complete);
    assert_eq!(lab.stats().upstream_cx_close_notify().value(), 1);
}

#[test]
fn the_streams_of_a_violated_connection_are_reset_before_it_closes() {
    let violated: fn(&mut Machine, Instant, ConnKey) = Machine::handle_violated;
    // A malformed message is not counted as the connection's fault.
    for (fault, counted) in [(violated, 1), (Machine::handle_malformed, 0)] {
        let mut lab = Lab::new(Settings { concurrency: 100, ..settings() }, &open_limits());
        lab.ask();
        lab.ask();
        lab.machine.handle_connected(lab.now, ConnKey(0), 100);
        fault(&mut lab.machine, lab.now, ConnKey(0));
        let stats = lab.stats();
        assert_eq!(stats.upstream_cx_destroy_local().value(), 1);
        assert_eq!(stats.upstream_cx_destroy_with_active_rq().value(), 0);
        assert_eq!(stats.upstream_cx_protocol_error().value(), counted);
        assert_eq!((stats.upstream_rq_active().value(), lab.machine.streams()), (0, 0));
    }
}

#[test]
fn idle_times_are_recorded_at_reuse_and_at_close() {
    let mut lab = Lab::new(settings(), &open_limits());
    lab.ask();
    lab.connected(0);
    assert_eq!(lab.stats().upstream_cx_idle().value(), 0);
    lab.end(0, StreamEnd::Complete);
    assert_eq!(lab.stats().upstream_cx_idle().value(), 1);
    lab.wait(70);
    lab.ask();
    assert_eq!(lab.stats().upstream_cx_idle().value(), 0);
    assert_eq!(lab.stats().upstream_cx_idle_age_at_reuse_ms().count(), 1);
    lab.end(0, StreamEnd::Complete);
    lab.wait(30);
    lab.log.clear();
    lab.machine.handle_closed(lab.now, ConnKey(0), CloseReason::PeerRst);
    lab.drain();
    let closed = Closed { reason: CloseReason::PeerRst, idle_ms: Some(30), attempt: false };
    assert_eq!(lab.log, [Event::Close(ConnKey(0), closed)]);
    assert_eq!(lab.stats().upstream_cx_idle().value(), 0);
    assert_eq!(lab.stats().upstream_cx_idle_age_at_close_ms().count(), 1);
    assert_eq!(lab.stats().upstream_cx_close_reason().of(CloseReason::PeerRst).value(), 1);
    // A request under way when its connection ends: it did not idle.
    lab.ask();
    lab.connected(0);
    lab.end(0, StreamEnd::PeerClosed(CloseReason::PeerFin));
    assert_eq!(lab.stats().upstream_cx_idle_age_at_close_ms().count(), 1);
}

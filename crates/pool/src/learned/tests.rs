use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Lab {
    limit: IdleLimit,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        Self { limit: IdleLimit::default(), now: Instant::now() }
    }

    /// A connection is closed by the host after so many ms, with no other beside it.
    fn closed(&mut self, age: u64) {
        self.now += ms(5_000);
        self.limit.closed(self.now, ms(age), None);
    }

    fn learned(&self) -> Option<u64> {
        self.limit.learned().map(|limit| limit.as_millis() as u64)
    }

    fn usable(&self) -> Option<u64> {
        self.limit.usable().map(|limit| limit.as_millis() as u64)
    }
}

#[test]
fn one_close_teaches_and_a_round_trip_is_kept_off() {
    let mut lab = Lab::new();
    assert_eq!((lab.learned(), lab.usable()), (None, None));
    lab.limit.connected(ms(10));
    lab.closed(200);
    assert_eq!((lab.learned(), lab.usable()), (Some(200), Some(190)));
    lab.closed(203);
    assert_eq!(lab.learned(), Some(200), "later closes say nothing");
    lab.closed(180);
    assert_eq!(lab.learned(), Some(180));
}

#[test]
fn the_margin_is_the_longer_of_connect_and_fastest_exchange_but_a_quarter_at_most() {
    let mut lab = Lab::new();
    lab.closed(200);
    assert_eq!(lab.usable(), Some(199));
    lab.limit.connected(ms(1));
    lab.limit.exchanged(ms(12));
    lab.limit.exchanged(ms(40));
    assert_eq!(lab.usable(), Some(188));
    let mut slow = Lab::new();
    slow.limit.exchanged(ms(900));
    slow.closed(200);
    assert_eq!(slow.usable(), Some(150));
}

#[test]
fn the_smaller_of_what_was_announced_and_seen_counts() {
    let mut lab = Lab::new();
    lab.limit.announced(ms(5_000));
    assert_eq!(lab.usable(), Some(4_999));
    lab.closed(700);
    assert_eq!(lab.learned(), Some(700));
    lab.limit.announced(ms(500));
    assert_eq!(lab.learned(), Some(500));
    lab.limit.announced(Duration::ZERO);
    assert_eq!(lab.learned(), Some(500), "zero is no limit");
}

#[test]
fn a_restart_that_closes_connections_of_all_ages_teaches_nothing_but_the_highest() {
    let lab = Lab::new();
    // The eldest is still there, or went a moment ago.
    lab.limit.closed(lab.now, ms(3), Some(ms(9_000)));
    assert_eq!(lab.learned(), None);
    lab.limit.closed(lab.now, ms(9_000), Some(ms(40)));
    lab.limit.closed(lab.now, ms(40), None);
    assert_eq!(lab.learned(), Some(9_000));
}

#[test]
fn a_limit_learned_too_low_doubles_while_a_probe_lives() {
    let mut lab = Lab::new();
    lab.closed(3);
    assert!(lab.limit.begin_probe(lab.now), "a first close is looked into at once");
    assert!(!lab.limit.begin_probe(lab.now), "one at a time");
    lab.limit.probe_lives(ms(5));
    assert_eq!(lab.learned(), Some(3));
    for age in [6, 12, 24, 48] {
        lab.limit.probe_lives(ms(age));
        assert_eq!(lab.learned(), Some(age));
    }
    lab.now += ms(60);
    lab.limit.probe_closed(lab.now, ms(60));
    assert_eq!(lab.learned(), Some(48), "confirmed: about right");
}

/// A connection that idles for as long as the host announced is closed before the host does.
#[test]
fn what_the_host_announced_is_doubted_rarely() {
    let mut lab = Lab::new();
    lab.limit.announced(ms(1_000));
    assert!(!lab.limit.begin_probe(lab.now));
    assert!(!lab.limit.begin_probe(lab.now + LONGEST_PAUSE - ms(1)));
    assert!(lab.limit.begin_probe(lab.now + LONGEST_PAUSE));
    lab = Lab::new();
    lab.limit.announced(ms(1_000));
    assert!(!lab.limit.begin_probe(lab.now));
    lab.closed(200);
    assert!(lab.limit.begin_probe(lab.now), "what was seen is looked into at once");
}

#[test]
fn a_probe_that_reaches_the_configured_timeout_ends_what_was_learned() {
    let mut lab = Lab::new();
    lab.limit.announced(ms(1_000));
    lab.closed(3);
    assert!(lab.limit.begin_probe(lab.now));
    lab.limit.probe_outlived();
    assert_eq!((lab.learned(), lab.usable()), (None, None));
}

#[test]
fn each_confirmed_limit_is_looked_into_half_as_often() {
    let mut lab = Lab::new();
    lab.closed(200);
    let mut pause = ms(2_000);
    for _ in 0..10 {
        assert!(lab.limit.begin_probe(lab.now));
        lab.now += ms(200);
        lab.limit.probe_closed(lab.now, ms(200));
        assert!(!lab.limit.begin_probe(lab.now + pause - ms(1)));
        lab.now += pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    assert_eq!(lab.learned(), Some(200));
}

#[test]
fn what_a_lost_probe_did_not_tell_the_next_one_may() {
    let mut lab = Lab::new();
    lab.closed(200);
    assert!(lab.limit.begin_probe(lab.now));
    lab.limit.probe_lost(lab.now);
    assert!(!lab.limit.begin_probe(lab.now));
    assert!(lab.limit.begin_probe(lab.now + FIRST_PAUSE));
}

#[test]
fn a_failure_as_fast_as_a_round_trip_is_stale() {
    let lab = Lab::new();
    lab.limit.exchanged(ms(10));
    assert!(lab.limit.is_stale(ms(15)));
    assert!(!lab.limit.is_stale(ms(17)));
}

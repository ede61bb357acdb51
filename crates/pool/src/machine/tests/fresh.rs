//! Streams that want a connection of little use or none ([`Care`]).

use super::*;

#[test]
fn a_stream_that_cannot_be_repeated_prefers_a_connection_of_its_own() {
    let mut lab = Lab::new(settings(), &open_limits());
    lab.ask();
    lab.connected(0);
    lab.end(0, StreamEnd::Complete);
    lab.wait(1_799_000);
    assert_eq!(lab.machine.try_attach(lab.now, Care::Fresh), Some(Attached::To(ConnKey(0))), "young enough");
    lab.end(0, StreamEnd::Complete);
    lab.wait(1_800_000);
    assert_eq!(lab.machine.try_attach(lab.now, Care::Fresh), None, "half of its time is over");
    let Queued::Waiting(_) = lab.machine.enqueue(lab.now, 7) else { panic!("refused") };
    lab.drain();
    assert_eq!(lab.machine.connections(), 2);
    assert!(matches!(lab.machine.try_attach(lab.now, Care::Any), Some(Attached::To(ConnKey(0)))));
}

#[test]
fn a_stream_that_was_lost_already_wants_a_connection_that_carried_nothing() {
    let mut lab = Lab::new(settings(), &open_limits());
    lab.ask();
    lab.connected(0);
    lab.end(0, StreamEnd::Complete);
    assert_eq!(lab.machine.try_attach(lab.now, Care::New), None, "it served before");
    let Queued::Waiting(_) = lab.machine.enqueue(lab.now, 7) else { panic!("refused") };
    lab.drain();
    assert_eq!(lab.machine.connections(), 2);
}

#[test]
fn without_room_for_another_any_connection_is_better_than_none() {
    for (limits, host) in [
        (limits(1, 1024), None),
        (limits(1024, 0), None),
        (open_limits(), Some(Arc::new(Limit::new(1, None, None)))),
    ] {
        let pending = limits.pending.max();
        limits.pending.set_max(1);
        let mut lab = Lab::with_host(settings(), &limits, host);
        lab.ask();
        lab.connected(0);
        lab.end(0, StreamEnd::Complete);
        limits.pending.set_max(pending);
        lab.wait(3_000_000);
        for care in [Care::Fresh, Care::New] {
            assert!(matches!(lab.machine.try_attach(lab.now, care), Some(Attached::To(ConnKey(0)))));
            lab.end(0, StreamEnd::Complete);
            lab.wait(3_000_000);
        }
    }
}

#[test]
fn a_limit_reached_meanwhile_leaves_the_old_connection() {
    let limits = limits(2, 1024);
    let mut lab = Lab::new(settings(), &limits);
    lab.ask();
    lab.connected(0);
    lab.end(0, StreamEnd::Complete);
    lab.wait(3_000_000);
    assert_eq!(lab.machine.try_attach(lab.now, Care::Fresh), None);
    // Another worker was faster.
    assert!(limits.connections.try_reserve());
    let Queued::Waiting(_) = lab.machine.enqueue(lab.now, 7) else { panic!("refused") };
    lab.drain();
    assert_eq!(lab.log.last(), Some(&Event::Attach { token: 7, conn: ConnKey(0) }));
    limits.connections.release();
}

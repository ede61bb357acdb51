//! Races on a virtual clock.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

/// What happened, and at which millisecond.
#[derive(Clone)]
struct Log {
    begun: Instant,
    lines: Rc<RefCell<Vec<String>>>,
}

impl Log {
    fn new() -> Self {
        Self { begun: Instant::now(), lines: Rc::default() }
    }

    fn add(&self, what: &str, name: &str) {
        let line = format!("{} {what} {name}", self.begun.elapsed().as_millis());
        self.lines.borrow_mut().push(line);
    }

    fn lines(&self) -> String {
        self.lines.borrow().join(", ")
    }
}

/// Says when it is dropped: its socket closes then.
struct Socket(Log, &'static str);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.add("closed", self.1);
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Connects(u64),
    Fails(u64),
    Hangs,
}
use Fate::{Connects, Fails, Hangs};

async fn run(fates: &[(&'static str, Fate)]) -> (Result<Won<&'static str>, Option<&'static str>>, String) {
    let log = Log::new();
    let attempts = fates.iter().map(|&(name, fate)| {
        let log = log.clone();
        log.add("started", name);
        async move {
            let socket = Socket(log, name);
            let ms = match fate {
                Connects(ms) | Fails(ms) => ms,
                Hangs => std::future::pending().await,
            };
            if ms > 0 {
                sleep(Duration::from_millis(ms)).await;
            }
            match fate {
                Connects(_) => {
                    // It lives on in the winner.
                    std::mem::forget(socket);
                    Ok(name)
                }
                _ => Err(name),
            }
        }
    });
    let result = race(attempts).await;
    log.add("done", "");
    let lines = log.lines();
    (result, lines.trim_end().to_owned())
}

fn won(value: &'static str, after_ms: u64) -> Result<Won<&'static str>, Option<&'static str>> {
    Ok(Won { value, after: Duration::from_millis(after_ms) })
}

#[tokio::test(start_paused = true)]
async fn the_first_address_is_alone_while_it_is_quick() {
    let (result, log) = run(&[("a", Connects(299)), ("b", Connects(0))]).await;
    assert_eq!(result, won("a", 0));
    assert_eq!(log, "0 started a, 299 done");
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_costs_300_ms_and_is_closed_when_another_one_connects() {
    let (result, log) = run(&[("a", Hangs), ("b", Connects(5))]).await;
    assert_eq!(result, won("b", 300));
    assert_eq!(log, "0 started a, 300 started b, 305 closed a, 305 done");
    let (result, log) = run(&[("a", Hangs), ("b", Hangs), ("c", Connects(0))]).await;
    assert_eq!(result, won("c", 600));
    assert_eq!(log, "0 started a, 300 started b, 600 started c, 600 closed a, 600 closed b, 600 done");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_costs_nothing() {
    let (result, log) = run(&[("a", Fails(0)), ("b", Fails(0)), ("c", Connects(7))]).await;
    assert_eq!(result, won("c", 0));
    assert_eq!(log, "0 started a, 0 closed a, 0 started b, 0 closed b, 0 started c, 7 done");
}

#[tokio::test(start_paused = true)]
async fn a_failure_starts_the_next_at_once_and_the_delay_anew() {
    let (result, log) = run(&[("a", Fails(100)), ("b", Hangs), ("c", Connects(10))]).await;
    assert_eq!(result, won("c", 400));
    assert_eq!(log, "0 started a, 100 closed a, 100 started b, 400 started c, 410 closed b, 410 done");
}

#[tokio::test(start_paused = true)]
async fn a_failure_beside_another_attempt_starts_one_more() {
    let (result, log) = run(&[("a", Fails(350)), ("b", Hangs), ("c", Connects(10))]).await;
    assert_eq!(result, won("c", 350));
    assert_eq!(log, "0 started a, 300 started b, 350 closed a, 350 started c, 360 closed b, 360 done");
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_address_may_still_win() {
    let (result, log) = run(&[("a", Connects(310)), ("b", Connects(20))]).await;
    assert_eq!(result, won("a", 0));
    assert_eq!(log, "0 started a, 300 started b, 310 closed b, 310 done");
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_told() {
    let (result, _) = run(&[("a", Fails(0)), ("b", Fails(0))]).await;
    assert_eq!(result, Err(Some("b")));
    // The last in time, not in place.
    let (result, log) = run(&[("a", Fails(500)), ("b", Fails(10))]).await;
    assert_eq!(result, Err(Some("a")));
    assert_eq!(log, "0 started a, 300 started b, 310 closed b, 500 closed a, 500 done");
    let (result, _) = run(&[]).await;
    assert_eq!(result, Err(None));
}

#[tokio::test(start_paused = true)]
async fn two_that_fail_at_once_start_two() {
    let (result, log) = run(&[("a", Fails(400)), ("b", Fails(100)), ("c", Hangs), ("d", Connects(1))]).await;
    assert_eq!(result, won("d", 400));
    assert!(log.contains("400 started c") && log.contains("400 started d"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn giving_the_race_up_closes_all() {
    let log = Log::new();
    let attempts = ["a", "b"].into_iter().map(|name| {
        let socket = Socket(log.clone(), name);
        async move {
            let _socket = socket;
            std::future::pending::<Result<(), ()>>().await
        }
    });
    // `connect_timeout`.
    let result = tokio::time::timeout(Duration::from_millis(301), race(attempts)).await;
    assert!(result.is_err());
    assert_eq!(log.lines(), "301 closed a, 301 closed b");
}

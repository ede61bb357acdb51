#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;

use super::*;
use crate::WorkerLost;

fn block_on<F: Future>(future: F) -> F::Output {
    Builder::new_current_thread().build().unwrap().block_on(future)
}

fn workers(count: usize) -> Workers<Cell<usize>> {
    Workers::start(count, Tuning::default(), Cell::new).unwrap()
}

#[test]
fn every_worker_has_applied_it_when_the_broadcast_returns() {
    let workers = workers(3);
    workers.mailboxes().broadcast(|state| state.set(state.get() + 10));
    let states = block_on(workers.mailboxes().broadcast_and_wait(|state| {
        let name = std::thread::current().name().map(str::to_owned);
        (state.get(), tidegate_stats::worker_index(), name.unwrap_or_default())
    }))
    .unwrap();
    assert_eq!(
        states,
        [(10, 1, "worker_0".to_owned()), (11, 2, "worker_1".to_owned()), (12, 3, "worker_2".to_owned())]
    );
    workers.stop();
}

#[test]
fn a_panicking_task_or_job_leaves_the_worker_alive() {
    let workers = workers(1);
    let mailbox = workers.mailboxes().iter().next().unwrap().clone();
    block_on(async {
        let lost = mailbox
            .ask(|_| {
                if true {
                    panic!("a job's panic, expected")
                }
            })
            .await;
        assert_eq!(lost, Err(WorkerLost(0)));
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        mailbox.send(move |_| {
            tokio::task::spawn_local(async move {
                let _dropped_by_the_panic = ended;
                panic!("a task's panic, expected");
            });
        });
        assert!(end.await.is_err());
        assert_eq!(mailbox.ask(|state| state.get()).await, Ok(0));
    });
    workers.stop();
    assert_eq!(block_on(mailbox.ask(|_| ())), Err(WorkerLost(0)));
}

//! The threads and their runtimes.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::mailbox::{Mailbox, Mailboxes, Message};

/// The runtime's knobs, for measurements; the defaults are tokio's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tuning {
    /// How many tasks are polled before the worker looks for I/O events again; `None`: 61.
    pub event_interval: Option<u32>,
    /// How many tasks are polled before the worker looks for wake-ups from other threads; `None`: 31.
    pub global_queue_interval: Option<u32>,
}

/// The running worker threads.
pub struct Workers<S> {
    mailboxes: Mailboxes<S>,
    threads: Vec<JoinHandle<()>>,
}

impl<S: 'static> Workers<S> {
    /// Starts `count` threads named `worker_N` (at least one). Each binds itself to its stat shard, builds
    /// its state with `init` inside its runtime, and then runs what arrives in its mailbox.
    ///
    /// A panic in a task or in a mailbox job ends that task or job, not the worker.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be created; threads already started are stopped.
    pub fn start(
        count: usize,
        tuning: Tuning,
        init: impl Fn(usize) -> S + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let init = Arc::new(init);
        let mut boxes = Vec::new();
        let mut threads = Vec::new();
        for worker in 0..count.max(1) {
            let (mailbox, jobs) = Mailbox::new(worker);
            let init = init.clone();
            let (started, start) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new().name(format!("worker_{worker}")).spawn(move || {
                tidegate_stats::set_worker(worker + 1);
                let runtime = match runtime(tuning) {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
                drop(started.send(Ok(())));
                runtime.block_on(run(worker, &*init, jobs));
            })?;
            boxes.push(mailbox);
            threads.push(thread);
            // A thread that dies before it reports drops its end: that is an error too.
            start.recv().unwrap_or_else(|_| Err(io::Error::other("a worker thread died at its start")))?;
        }
        Ok(Self { mailboxes: Mailboxes::new(boxes), threads })
    }

    /// How to reach the workers.
    pub fn mailboxes(&self) -> &Mailboxes<S> {
        &self.mailboxes
    }

    /// Ends every worker after the jobs already sent, dropping its tasks and state, and waits for the threads.
    pub fn stop(mut self) {
        self.stop_threads();
    }

    fn stop_threads(&mut self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.stop();
        }
        for thread in self.threads.drain(..) {
            // A worker thread does not panic; if it did, its message was printed already.
            let _ = thread.join();
        }
    }
}

impl<S> std::fmt::Debug for Workers<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

fn runtime(tuning: Tuning) -> io::Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    if let Some(interval) = tuning.event_interval {
        builder.event_interval(interval.max(1));
    }
    if let Some(interval) = tuning.global_queue_interval {
        builder.global_queue_interval(interval.max(1));
    }
    builder.build_local(LocalOptions::default())
}

async fn run<S>(worker: usize, init: &dyn Fn(usize) -> S, mut jobs: UnboundedReceiver<Message<S>>) {
    let state = Rc::new(init(worker));
    while let Some(Message::Run(job)) = jobs.recv().await {
        if catch_unwind(AssertUnwindSafe(|| job(&state))).is_err() {
            tracing::error!(target: "main", worker, "a control-plane job panicked");
        }
    }
}

#[cfg(test)]
mod tests;

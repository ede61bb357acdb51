//! How the control plane makes workers do something: closures, run in order on the worker's thread.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// The worker did not answer: it has stopped, or the closure panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} did not answer")]
pub struct WorkerLost(
    /// The worker's number.
    pub usize,
);

type Job<S> = Box<dyn FnOnce(&Rc<S>) + Send>;

pub(crate) enum Message<S> {
    Run(Job<S>),
    Stop,
}

/// One worker's mailbox. Never blocks the sender; control-plane traffic only, hence no bound.
pub struct Mailbox<S> {
    worker: usize,
    sender: UnboundedSender<Message<S>>,
}

impl<S> Clone for Mailbox<S> {
    fn clone(&self) -> Self {
        Self { worker: self.worker, sender: self.sender.clone() }
    }
}

impl<S: 'static> Mailbox<S> {
    pub(crate) fn new(worker: usize) -> (Self, UnboundedReceiver<Message<S>>) {
        let (sender, receiver) = unbounded_channel();
        (Self { worker, sender }, receiver)
    }

    /// The worker's number, from 0.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Runs `job` on the worker, which may spawn local tasks. Lost without a word if the worker has stopped.
    pub fn send(&self, job: impl FnOnce(&Rc<S>) + Send + 'static) {
        // A stopped worker has nothing left that a job could change.
        let _ = self.sender.send(Message::Run(Box::new(job)));
    }

    /// Runs `job` on the worker and returns its answer.
    ///
    /// # Errors
    /// [`WorkerLost`] when the worker has stopped or the job panicked.
    pub async fn ask<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Rc<S>) -> R + Send + 'static,
    ) -> Result<R, WorkerLost> {
        self.start_ask(job).await.map_err(|_| WorkerLost(self.worker))
    }

    fn start_ask<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Rc<S>) -> R + Send + 'static,
    ) -> oneshot::Receiver<R> {
        let (answer, answered) = oneshot::channel();
        self.send(move |state| {
            // The asker may have given up.
            let _ = answer.send(job(state));
        });
        answered
    }

    pub(crate) fn stop(&self) {
        let _ = self.sender.send(Message::Stop);
    }
}

/// The mailboxes of all workers. Cheap to clone.
pub struct Mailboxes<S> {
    boxes: Arc<[Mailbox<S>]>,
}

impl<S> Clone for Mailboxes<S> {
    fn clone(&self) -> Self {
        Self { boxes: self.boxes.clone() }
    }
}

impl<S: 'static> Mailboxes<S> {
    pub(crate) fn new(boxes: Vec<Mailbox<S>>) -> Self {
        Self { boxes: boxes.into() }
    }

    /// Each worker's mailbox, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Mailbox<S>> {
        self.boxes.iter()
    }

    /// Number of workers.
    pub fn len(&self) -> usize {
        self.boxes.len()
    }

    /// Never: there is at least one worker.
    pub fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    /// Runs `job` on every worker.
    pub fn broadcast(&self, job: impl Fn(&Rc<S>) + Send + Sync + 'static) {
        let job = Arc::new(job);
        for mailbox in self.iter() {
            let job = job.clone();
            mailbox.send(move |state| job(state));
        }
    }

    /// Runs `job` on every worker at the same time; returns when all are done, with the answers by worker.
    ///
    /// # Errors
    /// [`WorkerLost`] for the first worker that has stopped or whose job panicked.
    pub async fn broadcast_and_wait<R: Send + 'static>(
        &self,
        job: impl Fn(&Rc<S>) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, WorkerLost> {
        let job = Arc::new(job);
        let asked: Vec<_> = self
            .iter()
            .map(|mailbox| {
                let job = job.clone();
                mailbox.start_ask(move |state| job(state))
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (worker, answer) in asked.into_iter().enumerate() {
            answers.push(answer.await.map_err(|_| WorkerLost(worker))?);
        }
        Ok(answers)
    }
}

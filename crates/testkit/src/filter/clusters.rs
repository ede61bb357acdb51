//! Clusters that answer callouts from a script.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tidegate_filter::{CalloutError, CalloutResponse, Clusters, HttpCallout, LocalFuture, Presence};
use tidegate_types::{RequestHead, ResponseHead};

/// What a fake cluster does with a callout.
#[derive(Debug)]
pub enum Answer {
    /// Answers.
    Respond {
        /// The head.
        head: ResponseHead,
        /// The body.
        body: Bytes,
        /// How long that takes.
        after: Duration,
    },
    /// Fails at once.
    Fail(CalloutError),
    /// Never answers: the callout's timeout ends it.
    Hang,
}

impl Answer {
    /// An empty response, at once.
    pub fn status(status: StatusCode) -> Self {
        Self::Respond { head: ResponseHead::new(status), body: Bytes::new(), after: Duration::ZERO }
    }
}

/// A callout that was made.
#[derive(Clone, Debug)]
pub struct Call {
    /// The head that the filter sent.
    pub head: RequestHead,
    /// The body that the filter sent.
    pub body: Bytes,
    /// How long the filter would have waited.
    pub timeout: Duration,
}

/// A cluster with scripted answers. Clones share the script and the record.
#[derive(Clone, Debug, Default)]
pub struct FakeCluster {
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    calls: Vec<Call>,
}

impl FakeCluster {
    /// A cluster with one answer for each callout, in order. When there is none left, callouts fail.
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let state = State { answers: answers.into_iter().collect(), calls: Vec::new() };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// The callouts made so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.borrow().calls.clone()
    }
}

impl HttpCallout for FakeCluster {
    fn send(
        &self,
        head: RequestHead,
        body: Bytes,
        timeout: Duration,
    ) -> LocalFuture<'static, Result<CalloutResponse, CalloutError>> {
        let mut state = self.state.borrow_mut();
        state.calls.push(Call { head, body, timeout });
        let answer =
            state.answers.pop_front().unwrap_or(Answer::Fail(CalloutError::Failed("no scripted answer")));
        Box::pin(async move {
            match answer {
                Answer::Respond { head, body, after } if after < timeout => {
                    tokio::time::sleep(after).await;
                    Ok(CalloutResponse { head, body })
                }
                Answer::Respond { .. } | Answer::Hang => {
                    tokio::time::sleep(timeout).await;
                    Err(CalloutError::TimedOut)
                }
                Answer::Fail(error) => Err(error),
            }
        })
    }
}

/// The clusters of a configuration, by name.
#[derive(Debug, Default)]
pub struct FakeClusters {
    clusters: RefCell<HashMap<String, FakeCluster>>,
    presences: RefCell<HashMap<String, Presence>>,
    fails_checks: Cell<bool>,
}

impl FakeClusters {
    /// Says how many hosts a cluster has.
    pub fn set_presence(&self, name: &str, presence: Presence) {
        self.presences.borrow_mut().insert(name.to_owned(), presence);
    }

    /// Lets the server fail health checks, or pass them.
    pub fn set_fails_checks(&self, fails: bool) {
        self.fails_checks.set(fails);
    }

    /// Adds a cluster, or puts it in the place of a former one.
    pub fn insert(&self, name: &str, cluster: FakeCluster) {
        self.clusters.borrow_mut().insert(name.to_owned(), cluster);
    }
}

impl Clusters for FakeClusters {
    fn http(&self, cluster: &str) -> Option<Rc<dyn HttpCallout>> {
        let cluster = self.clusters.borrow().get(cluster)?.clone();
        Some(Rc::new(cluster))
    }

    fn presence(&self, cluster: &str) -> Option<Presence> {
        self.presences.borrow().get(cluster).copied()
    }

    fn server_fails_checks(&self) -> bool {
        self.fails_checks.get()
    }
}

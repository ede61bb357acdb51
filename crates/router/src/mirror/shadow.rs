//! Sending a copy.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use tidegate_cluster::judged::Verdict;
use tidegate_cluster::stats::Origin;
use tidegate_cluster::stream::{BodyFrame, ResponseFrame, StreamError};
use tidegate_cluster::{Ask, Cluster, Failed, Host, HostStat, Lease, Priority};
use tidegate_stats::CodePrefix;
use tidegate_types::{EndStream, RequestHead, ResetReason};
use tokio::time::Instant;

use super::Copy;
use crate::upstream::send_frame;

/// A whole request, to be sent to a mirror cluster.
pub struct Shadow {
    /// Where it goes, and its head.
    pub copy: Copy,
    /// Its body, trailers included; empty: the head is all.
    pub body: Vec<BodyFrame>,
    /// The route's priority.
    pub priority: Priority,
    /// The route's time.
    pub timeout: Option<Duration>,
}

impl Shadow {
    /// Sends it, in a task of its own. To be called on a worker.
    pub fn spawn(self) {
        tokio::task::spawn_local(self.run());
    }

    async fn run(self) {
        let Self { copy: Copy { cluster, head }, body, priority, timeout } = self;
        // Set while an answer is awaited.
        let asked = Cell::new(None);
        let exchange = exchange(&cluster, &head, body, priority, &asked);
        let late = match timeout {
            Some(limit) => tokio::time::timeout(limit, exchange).await.is_err(),
            None => {
                exchange.await;
                false
            }
        };
        if late {
            // The exchange is gone, and with it its connection.
            if let Some(host) = asked.take() {
                host.judge(Verdict::TimedOut(504));
            }
            cluster.stats().router.upstream_rq_timeout().inc();
            count(&cluster, StatusCode::GATEWAY_TIMEOUT);
        }
    }
}

async fn exchange(
    cluster: &Rc<Cluster>,
    head: &RequestHead,
    body: Vec<BodyFrame>,
    priority: Priority,
    asked: &Cell<Option<Rc<Host>>>,
) {
    let started = Instant::now();
    let header = |name: &str| Some(head.headers.get(name)?.as_bytes());
    let chosen = match cluster.original_dst() {
        Some(_) => cluster.choose_host_at(header, None),
        None => cluster.choose_host(),
    };
    let Some(host) = chosen else {
        return count(cluster, StatusCode::SERVICE_UNAVAILABLE);
    };
    // Nobody is waiting for it: a stale connection costs nobody anything.
    let lease = cluster.acquire(&host, Ask::new(priority, started)).await;
    let mut lease = match lease {
        Ok(lease) => lease,
        Err(error) => {
            if error.reached_host() {
                host.counters().inc(HostStat::RqError);
            }
            if error.reason() != ResetReason::Overflow {
                host.judge(Verdict::Failed);
            }
            return count(cluster, StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    host.judge(Verdict::Connected);
    asked.set(Some(host.clone()));
    let answered = |status: StatusCode| {
        asked.set(None);
        host.judge(Verdict::Answer(status.as_u16()));
    };
    match converse(&mut lease, head, body, answered).await {
        Ok(status) => {
            lease.finish();
            let answer = if status.is_server_error() { HostStat::RqError } else { HostStat::RqSuccess };
            host.counters().inc(answer);
            count(cluster, status);
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            cluster.stats().record_time(Some(Origin::Internal), ms);
        }
        Err(error) => {
            host.counters().inc(HostStat::RqError);
            host.judge(Verdict::Failed);
            lease.failed(Failed::of(&error, false));
            count(cluster, StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}

/// Sends everything and reads everything, whatever it is.
async fn converse(
    lease: &mut Lease,
    head: &RequestHead,
    body: Vec<BodyFrame>,
    answered: impl FnOnce(StatusCode),
) -> Result<StatusCode, StreamError> {
    let stream = lease.stream();
    stream.send_head(head, EndStream::from_last(body.is_empty()));
    for frame in body {
        send_frame(stream, frame);
    }
    let (status, mut end) = loop {
        // A failure to write is told by what can be read.
        let frame = poll_fn(|cx| {
            let _ = stream.poll_flush(cx);
            stream.poll_head(cx)
        });
        if let ResponseFrame::Head(head, end) = frame.await? {
            break (head.status, end);
        }
    };
    answered(status);
    while !end.is_end() {
        let frame = poll_fn(|cx| {
            let _ = stream.poll_flush(cx);
            stream.poll_body(cx)
        });
        end = match frame.await? {
            BodyFrame::Data(_, end) => end,
            BodyFrame::Trailers(_) => EndStream::Yes,
        };
    }
    Ok(status)
}

fn count(cluster: &Cluster, status: StatusCode) {
    let codes = &cluster.stats().codes;
    codes.record(status.as_u16());
    codes.record_as(CodePrefix::Internal, status.as_u16());
}

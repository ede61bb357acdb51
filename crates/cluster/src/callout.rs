//! Requests that filters make themselves.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use tidegate_config::route::Priority;
use tidegate_filter::{CalloutError, CalloutResponse, HttpCallout, LocalFuture};
use tidegate_pool::Failed;
use tidegate_pool::host::HostStat;
use tidegate_pool::stream::{BodyFrame, ClientStream, ResponseFrame, StreamError};
use tidegate_types::{BodyBuf, EndStream, RequestHead, ResetReason, ResponseHead};
use tokio::time::{Instant, timeout};

use crate::cluster::{Ask, Cluster};
use crate::host::Host;
use crate::judged::Verdict;

/// Largest response body. Stops an upstream from filling our memory through a filter.
const MAX_BODY: usize = 1024 * 1024;

pub(crate) struct Callout(Rc<Cluster>);

impl Callout {
    pub(crate) fn new(cluster: Rc<Cluster>) -> Self {
        Self(cluster)
    }
}

impl HttpCallout for Callout {
    fn send(
        &self,
        request: RequestHead,
        body: Bytes,
        limit: Duration,
    ) -> LocalFuture<'static, Result<CalloutResponse, CalloutError>> {
        let cluster = self.0.clone();
        Box::pin(async move {
            // Set while an answer is awaited.
            let asked = Cell::new(None);
            match timeout(limit, exchange(&cluster, request, body, &asked)).await {
                Ok(result) => result,
                Err(_) => {
                    if let Some(host) = asked.take() {
                        host.judge(Verdict::TimedOut(504));
                    }
                    cluster.stats().router.upstream_rq_timeout().inc();
                    cluster.stats().codes.record(504);
                    Err(CalloutError::TimedOut)
                }
            }
        })
    }
}

async fn exchange(
    cluster: &Cluster,
    mut request: RequestHead,
    body: Bytes,
    asked: &Cell<Option<Rc<Host>>>,
) -> Result<CalloutResponse, CalloutError> {
    let started = Instant::now();
    let chosen = match cluster.original_dst() {
        Some(_) => cluster.choose_host_at(|name| Some(request.headers.get(name)?.as_bytes()), None),
        None => cluster.choose_host(),
    };
    let Some(host) = chosen else {
        cluster.stats().codes.record(503);
        return Err(CalloutError::Failed("no healthy upstream"));
    };
    let mut lease = cluster.acquire(&host, Ask::new(Priority::Default, started)).await.map_err(|error| {
        cluster.stats().codes.record(503);
        host.counters().inc(HostStat::RqError);
        if error.reason() != ResetReason::Overflow {
            host.judge(Verdict::Failed);
        }
        CalloutError::Failed(error.reason().as_str())
    })?;
    if !body.is_empty() && !request.headers.contains_key(CONTENT_LENGTH) {
        request.headers.insert(CONTENT_LENGTH, (body.len() as u64).into());
    }
    host.judge(Verdict::Connected);
    asked.set(Some(host.clone()));
    let mut head_seen = false;
    let result = converse(lease.stream(), &request, body, &mut head_seen).await;
    asked.set(None);
    let response = match result {
        Ok(response) => response,
        Err(Broken::Stream(error)) => {
            lease.failed(Failed::of(&error, head_seen));
            cluster.stats().codes.record(503);
            host.counters().inc(HostStat::RqError);
            host.judge(Verdict::Failed);
            return Err(CalloutError::Failed("the upstream connection failed"));
        }
        // Dropping the lease closes the connection in the middle of the body.
        Err(Broken::TooLarge) => return Err(CalloutError::TooLarge),
    };
    lease.finish();
    let status = response.head.status.as_u16();
    host.judge(Verdict::Answer(status));
    cluster.stats().codes.record(status);
    cluster.stats().record_time(None, started.elapsed().as_millis() as u64);
    host.counters().inc(if status >= 500 { HostStat::RqError } else { HostStat::RqSuccess });
    Ok(response)
}

enum Broken {
    Stream(StreamError),
    TooLarge,
}

async fn converse(
    stream: &mut dyn ClientStream,
    request: &RequestHead,
    body: Bytes,
    head_seen: &mut bool,
) -> Result<CalloutResponse, Broken> {
    stream.send_head(request, EndStream::from_last(body.is_empty()));
    if !body.is_empty() {
        stream.send_data(body, EndStream::Yes);
    }
    poll_fn(|cx| stream.poll_flush(cx)).await.map_err(Broken::Stream)?;
    let (head, end) = final_head(stream).await.map_err(Broken::Stream)?;
    *head_seen = true;
    let mut collected = BodyBuf::new();
    let mut end = end.is_end();
    while !end {
        match poll_fn(|cx| stream.poll_body(cx)).await.map_err(Broken::Stream)? {
            BodyFrame::Data(data, last) => {
                collected.push(data);
                end = last.is_end();
            }
            BodyFrame::Trailers(_) => end = true,
        }
        if collected.len() > MAX_BODY {
            return Err(Broken::TooLarge);
        }
    }
    Ok(CalloutResponse { head, body: collected.to_bytes() })
}

async fn final_head(stream: &mut dyn ClientStream) -> Result<(ResponseHead, EndStream), StreamError> {
    loop {
        if let ResponseFrame::Head(head, end) = poll_fn(|cx| stream.poll_head(cx)).await? {
            return Ok((head, end));
        }
    }
}

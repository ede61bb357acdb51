//! What `track_cluster_stats` asks to be measured of each attempt: its size, and the share of its time that it took.
//!
//! A [`Tally`] is made with its attempt, where the cluster wants one at all, and recorded when it is dropped: an
//! attempt ends in many ways, and Envoy records it in all of them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tidegate_cluster::Cluster;
use tidegate_cluster::stream::BodyFrame;
use tidegate_types::{RequestHead, ResponseHead};
use tokio::time::Instant;

use super::Upstream;
use crate::clock::PollClock;

/// One attempt's measurements.
pub(super) struct Tally<'r> {
    cluster: Rc<Cluster>,
    clock: &'r PollClock,
    began: Instant,
    /// `None`: none of its own, and no share of it is used.
    per_try: Option<Duration>,
    request: HeadSize,
    sent: Cell<u64>,
    response: Cell<Option<HeadSize>>,
    received: Cell<u64>,
    ended: Cell<Ended>,
}

/// What ended an attempt, as far as that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    ByItself,
    /// The route's time was over before a response: the share of the try's own says nothing.
    ByRouteTimeout,
}

/// Fields, and the bytes of their names and values; no separators. Pseudo-header fields count on every version, as
/// in Envoy; the connection fields of HTTP/1 do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct HeadSize {
    bytes: u64,
    fields: u64,
}

impl HeadSize {
    fn of_request(head: &RequestHead) -> Self {
        let mut size = Self::of_fields(&head.headers);
        size.add(":method", head.method.as_str().len());
        size.add(":scheme", head.scheme.as_str().len());
        if !head.authority.is_empty() {
            size.add(":authority", head.authority.len());
        }
        if !head.path.is_empty() {
            size.add(":path", head.path.len());
        }
        size
    }

    fn of_response(head: &ResponseHead) -> Self {
        let mut size = Self::of_fields(&head.headers);
        size.add(":status", StatusCode::as_str(&head.status).len());
        size
    }

    fn of_fields(headers: &HeaderMap) -> Self {
        let mut size = Self::default();
        for (name, value) in headers {
            size.add(name.as_str(), value.len());
        }
        size
    }

    fn add(&mut self, name: &str, value: usize) {
        self.bytes += (name.len() + value) as u64;
        self.fields += 1;
    }
}

impl Tally<'_> {
    /// A frame of the request was sent.
    pub(super) fn sent(&self, frame: &BodyFrame) {
        self.sent.set(self.sent.get() + data_len(frame));
    }

    /// The response's final head came.
    pub(super) fn answered(&self, head: &ResponseHead) {
        self.response.set(Some(HeadSize::of_response(head)));
    }

    /// A frame of the response came.
    pub(super) fn received(&self, frame: &BodyFrame) {
        self.received.set(self.received.get() + data_len(frame));
    }

    /// The route's time is over.
    pub(super) fn out_of_time(&self) {
        if self.response.get().is_none() {
            self.ended.set(Ended::ByRouteTimeout);
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let stats = self.cluster.stats();
        if let Some(budgets) = &stats.budgets
            && self.ended.get() == Ended::ByItself
        {
            let took = self.clock.now().saturating_duration_since(self.began);
            budgets.upstream_rq_timeout_budget_per_try_percent_used().record(share(took, self.per_try));
        }
        let Some(sizes) = &stats.sizes else { return };
        sizes.upstream_rq_headers_size().record(self.request.bytes);
        sizes.upstream_rq_headers_count().record(self.request.fields);
        sizes.upstream_rq_body_size().record(self.sent.get());
        if let Some(response) = self.response.get() {
            sizes.upstream_rs_headers_size().record(response.bytes);
            sizes.upstream_rs_headers_count().record(response.fields);
            sizes.upstream_rs_body_size().record(self.received.get());
        }
    }
}

impl<'r> Upstream<'r> {
    /// The measurements of the attempt that begins, where anyone wants them.
    pub(super) fn measure(&self, host: &tidegate_cluster::Host) -> Option<Box<Tally<'r>>> {
        let stats = self.facts.cluster.stats();
        if stats.budgets.is_none() && stats.sizes.is_none() {
            return None;
        }
        let head = self.stream.request().map(|head| self.head_for_attempt(head, host));
        Some(Box::new(Tally {
            cluster: self.facts.cluster.clone(),
            clock: self.facts.clock,
            began: self.now(),
            per_try: self.facts.timeouts.per_try,
            request: head.map(|head| HeadSize::of_request(&head)).unwrap_or_default(),
            sent: Cell::default(),
            response: Cell::default(),
            received: Cell::default(),
            ended: Cell::new(Ended::ByItself),
        }))
    }

    /// A request was answered in full, or too late: how much of the route's time it took.
    pub(super) fn record_budget(&self) {
        if let Some(budgets) = &self.facts.cluster.stats().budgets {
            let used = share(self.elapsed(), self.facts.timeouts.global);
            budgets.upstream_rq_timeout_budget_percent_used().record(used);
        }
    }
}

/// Whole percents of whole ms, as Envoy; without a limit nothing of it is used.
fn share(took: Duration, limit: Option<Duration>) -> u64 {
    let limit = limit.map_or(0, |limit| limit.as_millis());
    let share = (took.as_millis() * 100).checked_div(limit);
    u64::try_from(share.unwrap_or(0)).unwrap_or(u64::MAX)
}

fn data_len(frame: &BodyFrame) -> u64 {
    match frame {
        BodyFrame::Data(data, _) => data.len() as u64,
        BodyFrame::Trailers(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    /// The figures are Envoy's for the same heads.
    #[test]
    fn heads_are_as_large_as_their_names_and_values() {
        let mut head = RequestHead::new(Method::GET, "a.test", "/x");
        head.headers.append("x-foo", HeaderValue::from_static("bar"));
        head.headers.append("x-foo", HeaderValue::from_static("baz"));
        assert_eq!(HeadSize::of_request(&head), HeadSize { bytes: 60, fields: 6 });
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers.insert("content-length", HeaderValue::from_static("2"));
        head.headers.insert("x-a", HeaderValue::from_static("b"));
        assert_eq!(HeadSize::of_response(&head), HeadSize { bytes: 29, fields: 3 });
    }

    #[test]
    fn shares_are_percents_of_whole_milliseconds() {
        let ms = Duration::from_millis;
        assert_eq!(share(ms(500), Some(ms(1000))), 50);
        assert_eq!(share(ms(1500), Some(ms(1000))), 150);
        assert_eq!(share(Duration::from_micros(900), Some(ms(1))), 0);
        assert_eq!((share(ms(5), None), share(ms(5), Some(Duration::ZERO))), (0, 0));
    }
}

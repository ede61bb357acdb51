//! A request and its response, collected as far as it is looked at.

use std::task::{Context, Poll, ready};

use ::http::HeaderMap;
use bytes::BytesMut;
use tidegate_cluster::solo::HttpLine;
use tidegate_cluster::stream::{BodyFrame, ClientStream, ResponseFrame, StreamError};
use tidegate_types::ResponseHead;

use super::{Answer, grpc, http};
use crate::active::plan::Plan;

/// See the module.
#[derive(Default)]
pub(super) struct Exchange {
    flushed: bool,
    response: Response,
}

/// What came of a response.
#[derive(Default)]
pub(super) struct Response {
    pub(super) head: Option<ResponseHead>,
    pub(super) body: BytesMut,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) complete: bool,
}

impl Exchange {
    /// Ready with the check's result.
    pub(super) fn poll(&mut self, plan: &Plan, line: &mut HttpLine, cx: &mut Context<'_>) -> Poll<Answer> {
        let stream = line.stream();
        loop {
            match ready!(self.poll_part(plan, stream, cx)) {
                Err(_) => return Poll::Ready(Answer::NETWORK),
                Ok(()) => {
                    let answer = match plan {
                        Plan::Http(plan) => http::judge(plan, &self.response),
                        Plan::Grpc(_) => grpc::judge(&self.response),
                        Plan::Tcp(_) => None,
                    };
                    if let Some(answer) = answer {
                        return Poll::Ready(answer);
                    }
                }
            }
        }
    }

    /// Writes what is left, and reads on; ready when there is more of the response.
    fn poll_part(
        &mut self,
        plan: &Plan,
        stream: &mut dyn ClientStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        if !self.flushed {
            // A response may come before the whole request is written.
            if let Poll::Ready(written) = stream.poll_flush(cx) {
                written?;
                self.flushed = true;
            }
        }
        let response = &mut self.response;
        if response.head.is_none() {
            return match ready!(stream.poll_head(cx))? {
                ResponseFrame::Informational(_) => Poll::Ready(Ok(())),
                ResponseFrame::Head(head, end) => {
                    response.head = Some(head);
                    response.complete = end.is_end();
                    Poll::Ready(Ok(()))
                }
            };
        }
        match ready!(stream.poll_body(cx))? {
            BodyFrame::Data(data, end) => {
                let room = plan_room(plan, response.body.len());
                response.body.extend_from_slice(&data[..data.len().min(room)]);
                response.complete = end.is_end();
            }
            BodyFrame::Trailers(trailers) => {
                response.trailers = Some(trailers);
                response.complete = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// How much more of the body is looked at.
fn plan_room(plan: &Plan, held: usize) -> usize {
    match plan {
        Plan::Http(plan) if plan.check.receive.is_empty() => 0,
        Plan::Http(plan) => match plan.check.response_buffer_size {
            Some(most) => usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(held),
            None => usize::MAX,
        },
        // A longer answer than this is not the one that was asked for.
        Plan::Grpc(_) => grpc::MOST.saturating_sub(held),
        Plan::Tcp(_) => 0,
    }
}

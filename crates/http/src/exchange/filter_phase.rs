//! The request's way through the filters, up to the router.

use std::future::poll_fn;
use std::ops::Range;

use http::StatusCode;
use tidegate_codec::{BodyFrame, StreamError};
use tidegate_filter::LocalReply;
use tidegate_types::{BodyBuf, EndStream, RequestHead, ResponseFlags, details};

use super::{Abort, Exchange, HeldBody, WatchClient};
use crate::chain::{HeadStep, RequestChain};

impl Exchange<'_> {
    /// Shows the head to the filters, collecting the body for those that ask for it.
    pub(super) async fn filter_head(
        &self,
        filters: &mut RequestChain,
        head: &mut RequestHead,
        held: &mut HeldBody,
    ) -> Result<(), Abort> {
        let mut end = EndStream::from_last(held.end.is_end() && held.is_empty());
        // The filters up to this index have seen the head, and what is held.
        let mut seen = 0;
        while filters.len() > seen {
            let step = self.guard(filters.head(seen, head, end), WatchClient::Yes).await??;
            let HeadStep::Buffer { index, limit } = step else { break };
            // Boxed, as all that few exchanges need: it is no room in those that do not.
            Box::pin(self.buffer_for(filters, head, held, seen..index, limit)).await?;
            seen = index + 1;
            end = EndStream::from_last(held.is_empty());
        }
        if seen < filters.len() && !held.body.is_empty() {
            Box::pin(filters.data(seen..filters.len(), &mut held.body, held.end)).await?;
        }
        Ok(())
    }

    /// Shows the whole body to the filter at the end of `unseen`, and to those of `unseen` before.
    async fn buffer_for(
        &self,
        filters: &mut RequestChain,
        head: &mut RequestHead,
        held: &mut HeldBody,
        unseen: Range<usize>,
        limit: usize,
    ) -> Result<(), Abort> {
        let index = unseen.end;
        if !held.end.is_end() {
            self.collect(filters, index, limit, held).await?;
        } else if !unseen.is_empty() {
            filters.data(unseen, &mut held.body, held.end).await?;
        }
        self.guard(filters.buffered(index, head, &mut held.body), WatchClient::Yes).await??;
        Ok(())
    }

    /// Reads the rest of the body into `held`, showing it to the filters before the one that wants it.
    async fn collect(
        &self,
        filters: &mut RequestChain,
        index: usize,
        limit: usize,
        held: &mut HeldBody,
    ) -> Result<(), Abort> {
        while !held.end.is_end() {
            match self.next_frame().await? {
                BodyFrame::Data(data, end) => {
                    let mut part = BodyBuf::from(data);
                    let seen = self.guard(filters.data(0..index, &mut part, end), WatchClient::Yes).await?;
                    seen?;
                    held.body.append(&mut part);
                    held.end = end;
                    if held.body.len() > limit {
                        return Err(Abort::Reply(Box::new(self.too_large())));
                    }
                }
                BodyFrame::Trailers(trailers) => {
                    held.trailers = Some(Box::new(trailers));
                    held.end = EndStream::Yes;
                }
            }
        }
        Ok(())
    }

    fn too_large(&self) -> LocalReply {
        self.hcm.shared.stats.downstream_rq_too_large().inc();
        // As Envoy: refused in the middle, also when the last byte was in the same read.
        self.request_ended.set(false);
        LocalReply::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
            details::REQUEST_PAYLOAD_TOO_LARGE,
        )
    }

    /// Reads the next part of the request's body.
    pub(super) async fn next_frame(&self) -> Result<BodyFrame, Abort> {
        let frame = self.guard(poll_fn(|cx| self.server.borrow_mut().poll_body(cx)), WatchClient::No).await?;
        self.account_frame(frame)
    }

    /// Counts a part of the request's body and notes its end.
    pub(super) fn account_frame(&self, frame: Result<BodyFrame, StreamError>) -> Result<BodyFrame, Abort> {
        let now = self.now();
        self.timers.touch(now);
        let frame = frame.map_err(|error| match error {
            StreamError::Closed | StreamError::Truncated | StreamError::Io(_) | StreamError::Reset { .. } => {
                Abort::Gone
            }
            StreamError::Protocol { details } if !self.cx.is_alone() => {
                Abort::Cut { flag: ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, details }
            }
            StreamError::Protocol { details } => {
                self.note_protocol_error();
                Abort::BadRequest(details)
            }
        })?;
        match &frame {
            BodyFrame::Data(data, end) => {
                let info = self.stream.info();
                info.bytes_received.set(info.bytes_received.get() + data.len() as u64);
                if end.is_end() {
                    self.request_complete(now);
                }
            }
            BodyFrame::Trailers(_) => self.request_complete(now),
        }
        Ok(frame)
    }
}

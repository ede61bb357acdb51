//! A stream's filters, walked in order for the request and in reverse for the response.
//!
//! Only the halves that exist are kept; one that answered `Skip` is left out of the body.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use tidegate_config::runtime::Answers;
use tidegate_filter::{
    Cx, Flow, HeadFlow, HttpFilterFactory, LocalReply, RequestFilter, ResponseFilter, RouteView, Step, Stream,
};
use tidegate_types::{BodyBuf, EndStream, RequestHead, ResponseHead};

/// One filter of a connection manager's configuration.
#[derive(Clone)]
pub(crate) struct ConfiguredFilter {
    pub(crate) factory: Arc<dyn HttpFilterFactory>,
    pub(crate) disabled: bool,
    /// What the factory asked of the runtime.
    pub(crate) answers: Answers,
}

/// Why a walk stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Answer the client.
    Reply(Box<LocalReply>),
    /// End the stream.
    Reset,
}

struct Slot<F: ?Sized> {
    cx: Cx,
    skip: bool,
    half: Box<F>,
}

/// The request halves.
#[derive(Default)]
pub(crate) struct RequestChain {
    slots: Vec<Slot<dyn RequestFilter>>,
}

/// The response halves, the last filter of the chain first.
#[derive(Default)]
pub(crate) struct ResponseChain {
    slots: Vec<Slot<dyn ResponseFilter>>,
}

/// Opens the filters that `route` does not disable.
pub(crate) fn open(
    filters: &[ConfiguredFilter],
    stream: &Rc<Stream>,
    route: Option<&RouteView>,
) -> (RequestChain, ResponseChain) {
    let (mut request, mut response) = (RequestChain::default(), ResponseChain::default());
    for (slot, filter) in filters.iter().enumerate() {
        let disabled =
            route.map_or(filter.disabled, |route| route.per_filter.disabled(slot, filter.disabled));
        if disabled {
            continue;
        }
        let halves = filter.factory.open(stream);
        let cx = || Cx::new(stream.clone(), slot);
        request.slots.extend(halves.request.map(|half| Slot { cx: cx(), skip: false, half }));
        response.slots.extend(halves.response.map(|half| Slot { cx: cx(), skip: false, half }));
    }
    response.slots.reverse();
    (request, response)
}

macro_rules! step {
    ($step:expr) => {
        match $step {
            Step::Now(value) => value,
            Step::Later(future) => future.await,
        }
    };
}

fn go(flow: Flow) -> Result<(), Stop> {
    match flow {
        Flow::Continue => Ok(()),
        Flow::Reply(reply) => Err(Stop::Reply(reply)),
        Flow::Reset(_) => Err(Stop::Reset),
    }
}

/// What the head hook of one filter wants of the engine.
pub(crate) enum HeadStep {
    /// All filters have seen the head.
    Done,
    /// The filter at this index wants the whole body, at most so many bytes.
    Buffer { index: usize, limit: usize },
}

macro_rules! chain {
    ($chain:ident, $head:ty) => {
        impl $chain {
            /// Whether a filter wants to see the body.
            pub(crate) fn wants_body(&self) -> bool {
                self.slots.iter().any(|slot| !slot.skip)
            }

            /// Shows the head to the filters from index `from` on, until one wants the body first.
            pub(crate) async fn head(
                &mut self,
                from: usize,
                head: &mut $head,
                end: EndStream,
            ) -> Result<HeadStep, Stop> {
                for (index, slot) in self.slots.iter_mut().enumerate().skip(from) {
                    match step!(slot.half.on_head(&slot.cx, head, end)) {
                        HeadFlow::Continue => {}
                        HeadFlow::Skip => slot.skip = true,
                        HeadFlow::Reply(reply) => return Err(Stop::Reply(reply)),
                        HeadFlow::Buffer { limit } => return Ok(HeadStep::Buffer { index, limit }),
                    }
                }
                Ok(HeadStep::Done)
            }

            /// Shows a part of the body to the filters with an index in `range`.
            pub(crate) async fn data(
                &mut self,
                range: std::ops::Range<usize>,
                data: &mut BodyBuf,
                end: EndStream,
            ) -> Result<(), Stop> {
                for slot in self.slots[range].iter_mut().filter(|slot| !slot.skip) {
                    go(step!(slot.half.on_data(&slot.cx, data, end)))?;
                }
                Ok(())
            }

            /// Gives the whole body to the filter at `index`, which asked for it.
            pub(crate) async fn buffered(
                &mut self,
                index: usize,
                head: &mut $head,
                body: &mut BodyBuf,
            ) -> Result<(), Stop> {
                let slot = &mut self.slots[index];
                go(step!(slot.half.on_buffered(&slot.cx, head, body)))
            }

            /// Shows the trailers to the filters.
            pub(crate) async fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), Stop> {
                for slot in self.slots.iter_mut().filter(|slot| !slot.skip) {
                    go(step!(slot.half.on_trailers(&slot.cx, trailers)))?;
                }
                Ok(())
            }

            /// Number of halves.
            pub(crate) fn len(&self) -> usize {
                self.slots.len()
            }
        }
    };
}

chain!(RequestChain, RequestHead);
chain!(ResponseChain, ResponseHead);

impl ResponseChain {
    /// Shows a 1xx head to the filters.
    pub(crate) async fn informational(&mut self, head: &mut ResponseHead) -> Result<(), Stop> {
        for slot in &mut self.slots {
            go(step!(slot.half.on_informational(&slot.cx, head)))?;
        }
        Ok(())
    }
}

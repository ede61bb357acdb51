//! Filters that only touch heads, written as closures.

use tidegate_types::{EndStream, RequestHead, ResponseHead};

use crate::{Cx, HeadFlow, HttpFilter, RequestFilter, ResponseFilter, Step};

/// A filter that sees request heads.
pub fn from_request_fn(hook: impl FnMut(&Cx, &mut RequestHead) -> HeadFlow + 'static) -> HttpFilter {
    HttpFilter::request(HeadFn(hook))
}

/// A filter that sees response heads.
pub fn from_response_fn(hook: impl FnMut(&Cx, &mut ResponseHead) -> HeadFlow + 'static) -> HttpFilter {
    HttpFilter::response(HeadFn(hook))
}

struct HeadFn<F>(F);

/// A closure has no body hook: `Continue` means `Skip`.
fn skip_body(flow: HeadFlow) -> HeadFlow {
    match flow {
        HeadFlow::Continue => HeadFlow::Skip,
        other => other,
    }
}

impl<F: FnMut(&Cx, &mut RequestHead) -> HeadFlow> RequestFilter for HeadFn<F> {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut RequestHead, _: EndStream) -> Step<'a, HeadFlow> {
        Step::Now(skip_body((self.0)(cx, head)))
    }
}

impl<F: FnMut(&Cx, &mut ResponseHead) -> HeadFlow> ResponseFilter for HeadFn<F> {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut ResponseHead, _: EndStream) -> Step<'a, HeadFlow> {
        Step::Now(skip_body((self.0)(cx, head)))
    }
}

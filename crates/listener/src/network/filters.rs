//! The filters of one connection, and bytes on their way through them.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tidegate_filter::{LocalFuture, NetworkClose, NetworkFilter, NetworkFlow, Step, Wants};
use tidegate_types::{CloseReason, ConnectionInfo, EndStream};

/// The filters that a connection was opened with, in the chain's order. Dropping it is the connection's end.
pub(super) struct OpenFilters {
    info: Rc<ConnectionInfo>,
    filters: Vec<OpenFilter>,
    /// Why the connection ends, once it is known.
    pub(super) reason: Option<CloseReason>,
}

struct OpenFilter {
    filter: Box<dyn NetworkFilter>,
    /// `None`: done with the connection's bytes.
    wants: Option<Wants>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client, through the filters in order.
    Read,
    /// To the client, in reverse order.
    Write,
}

impl OpenFilters {
    pub(super) fn new(info: Rc<ConnectionInfo>) -> Self {
        Self { info, filters: Vec::new(), reason: None }
    }

    /// Adds a filter and asks it about the connection. It sees no bytes before [`OpenFilters::admitted`].
    pub(super) fn open(&mut self, mut filter: Box<dyn NetworkFilter>) -> Step<'static, NetworkFlow> {
        let step = filter.on_open(&self.info);
        self.filters.push(OpenFilter { filter, wants: None });
        step
    }

    /// The last filter let the connection go on and wants its bytes.
    pub(super) fn admitted(&mut self) {
        if let Some(last) = self.filters.last_mut() {
            last.wants = Some(last.filter.wants());
        }
    }

    /// Whether any filter sees bytes of that direction.
    pub(super) fn any(&self, direction: Direction) -> bool {
        self.filters.iter().any(|open| open.sees(direction))
    }

    /// Notes what a filter that closes the connection says of it, and the bytes that were read and go no further:
    /// the access log counts them, as Envoy's does.
    pub(super) fn refuse(&mut self, close: NetworkClose, unserved: usize) {
        tracing::debug!(target: "connection", id = self.info.id, reason = &*close.reason,
            "closed by a network filter");
        self.info.state.flag(close.flags);
        self.info.state.bytes_received.update(|received| received + unserved as u64);
        *self.info.state.local_close_reason.borrow_mut() = Some(close.reason);
        self.reason = Some(CloseReason::Refused);
    }

    /// The hook of the filter at `step` of the way, if it sees these bytes.
    fn hook(
        &mut self,
        direction: Direction,
        step: usize,
        data: &mut BytesMut,
        end: EndStream,
    ) -> Option<Step<'static, NetworkFlow>> {
        let info = &self.info;
        let open = at(&mut self.filters, direction, step)?;
        open.sees(direction).then(|| match direction {
            Direction::Read => open.filter.on_read(info, data, end),
            Direction::Write => open.filter.on_write(info, data, end),
        })
    }

    fn skip(&mut self, direction: Direction, step: usize) {
        if let Some(open) = at(&mut self.filters, direction, step) {
            open.wants = None;
        }
    }
}

/// The filter at `step` of the way in `direction`.
fn at(filters: &mut [OpenFilter], direction: Direction, step: usize) -> Option<&mut OpenFilter> {
    let index = match direction {
        Direction::Read => step,
        Direction::Write => filters.len().checked_sub(step + 1)?,
    };
    filters.get_mut(index)
}

impl OpenFilter {
    fn sees(&self, direction: Direction) -> bool {
        match (self.wants, direction) {
            (None, _) => false,
            (Some(Wants::Both), _) => true,
            (Some(Wants::Reads), direction) => direction == Direction::Read,
            (Some(Wants::Writes), direction) => direction == Direction::Write,
        }
    }
}

impl OpenFilters {
    /// The connection's end, for them.
    pub(super) fn end(&mut self) {
        for mut open in self.filters.drain(..) {
            open.filter.on_close(&self.info, self.reason);
        }
    }
}

impl Drop for OpenFilters {
    fn drop(&mut self) {
        self.end();
    }
}

/// Bytes of one direction on their way through the filters.
pub(super) struct Walk {
    direction: Direction,
    step: usize,
    /// How many bytes it began with.
    len: usize,
    /// What the filters left of the bytes so far.
    pub(super) data: BytesMut,
    /// Whether nothing follows.
    pub(super) end: EndStream,
    waiting: Option<LocalFuture<'static, NetworkFlow>>,
}

impl Walk {
    pub(super) fn new(direction: Direction, data: BytesMut, end: EndStream) -> Self {
        Self { direction, step: 0, len: data.len(), data, end, waiting: None }
    }

    /// Bytes from the client that began this walk.
    pub(super) fn received(&self) -> usize {
        match self.direction {
            Direction::Read => self.len,
            Direction::Write => 0,
        }
    }

    /// Goes on through the filters that see these bytes; ready when all have, or when one closes.
    pub(super) fn poll(
        &mut self,
        filters: &mut OpenFilters,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NetworkClose>> {
        while self.step < filters.filters.len() {
            let flow = match &mut self.waiting {
                Some(future) => ready!(future.as_mut().poll(cx)),
                None => match filters.hook(self.direction, self.step, &mut self.data, self.end) {
                    None => NetworkFlow::Continue,
                    Some(Step::Now(flow)) => flow,
                    Some(Step::Later(future)) => {
                        self.waiting = Some(future);
                        continue;
                    }
                },
            };
            self.waiting = None;
            match flow {
                NetworkFlow::Continue => {}
                NetworkFlow::Skip => filters.skip(self.direction, self.step),
                NetworkFlow::Close(close) => return Poll::Ready(Err(close)),
            }
            self.step += 1;
        }
        Poll::Ready(Ok(()))
    }
}

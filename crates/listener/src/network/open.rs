//! Asks the network filters about a new connection, before the terminal filter sees it.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tidegate_filter::{LocalFuture, NetworkFilter, NetworkFlow, Step};
use tidegate_net::BoxIo;
use tidegate_types::{CloseReason, ConnectionInfo, EndStream};

use super::NetworkFilters;
use super::filters::OpenFilters;
use super::io::FilteredIo;
use crate::{Connection, HalfClose, Presence};

/// Opens a filter of each factory on the connection.
pub(super) async fn open(
    factories: &NetworkFilters,
    connection: Connection,
    half_close: HalfClose,
) -> Result<Connection, Presence> {
    let info = connection.info.clone();
    open_all(factories.iter().map(|factory| factory.open(&info)), connection, half_close).await
}

/// Asks each filter about a connection of which it sees no bytes.
///
/// # Errors
/// One of them closes the connection: why.
pub(super) async fn admit(
    factories: &NetworkFilters,
    info: &Rc<ConnectionInfo>,
) -> Result<OpenFilters, Cow<'static, str>> {
    let mut filters = OpenFilters::new(info.clone());
    for factory in factories.iter() {
        let flow = match filters.open(factory.open(info)) {
            Step::Now(flow) => flow,
            Step::Later(future) => future.await,
        };
        if let NetworkFlow::Close(close) = flow {
            let reason = close.reason.clone();
            filters.refuse(close, 0);
            return Err(reason);
        }
    }
    Ok(filters)
}

/// Asks each filter in order; none is made before those in front of it have let the connection go on.
///
/// # Errors
/// The connection is closed, by one of them or by the client: what is left of it.
pub(super) async fn open_all(
    opening: impl Iterator<Item = Box<dyn NetworkFilter>>,
    connection: Connection,
    half_close: HalfClose,
) -> Result<Connection, Presence> {
    let Connection { mut io, info, buffer_limit, presence } = connection;
    let mut filters = OpenFilters::new(info.clone());
    let limit = buffer_limit as usize;
    let mut early = Early { data: BytesMut::new(), end: EndStream::No, limit, half_close };
    for filter in opening {
        let flow = match filters.open(filter) {
            Step::Now(flow) => flow,
            Step::Later(future) => match early.wait(&mut io, future).await {
                Ok(flow) => flow,
                Err(gone) => {
                    filters.reason = Some(gone);
                    return Err(presence);
                }
            },
        };
        match flow {
            NetworkFlow::Continue => filters.admitted(),
            NetworkFlow::Skip => {}
            NetworkFlow::Close(close) => {
                // What came meanwhile was looked at by nobody.
                filters.refuse(close, 0);
                io.before_close(CloseReason::Refused);
                return Err(presence);
            }
        }
    }
    let io = Box::new(FilteredIo::new(io, filters, half_close, (early.data, early.end)));
    Ok(Connection { io, info, buffer_limit, presence })
}

/// What the client sends while a filter thinks: kept for the filters and the terminal behind it. Reading on is
/// how a client that goes away is noticed.
struct Early {
    data: BytesMut,
    end: EndStream,
    /// Stops a client from filling the memory meanwhile: `per_connection_buffer_limit_bytes`.
    limit: usize,
    half_close: HalfClose,
}

impl Early {
    /// The filter's answer, or how the client went away before.
    async fn wait(
        &mut self,
        io: &mut BoxIo,
        mut future: LocalFuture<'static, NetworkFlow>,
    ) -> Result<NetworkFlow, CloseReason> {
        poll_fn(|cx| {
            if let Poll::Ready(flow) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(flow));
            }
            match self.poll_fill(io, cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(FilteredIo::reason_of(&error))),
                Poll::Ready(Ok(())) | Poll::Pending if self.is_over() => {
                    Poll::Ready(Err(CloseReason::PeerFin))
                }
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// The client's FIN ends the connection.
    fn is_over(&self) -> bool {
        self.end == EndStream::Yes && self.half_close == HalfClose::Ends
    }

    /// Ready when there is no more to read for now.
    fn poll_fill(&mut self, io: &mut BoxIo, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.end == EndStream::No && self.data.len() < self.limit {
            // No buffer before there is something for it.
            std::task::ready!(io.poll_read_ready(cx))?;
            self.data.reserve(READ.min(self.limit - self.data.len()));
            if std::task::ready!(io.poll_read(cx, &mut self.data))? == 0 {
                self.end = EndStream::Yes;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Bytes per read.
const READ: usize = 4096;

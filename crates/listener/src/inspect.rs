//! Listener filters at work: one after the other looks at a connection that is not one yet.

use std::future::poll_fn;
use std::io;
use std::time::Instant;

use bytes::BytesMut;
use tidegate_filter::listener::MOST_BYTES;
use tidegate_filter::{Arrival, ListenerFilter, ListenerFlow};
use tidegate_net::options::original_destination;
use tidegate_net::{BoxIo, Peek, Peeked};

use crate::ListenerStats;
use crate::listener::ListenerOptions;

/// What becomes of a connection that listener filters have seen.
pub(crate) enum Inspected {
    /// It goes on to the filter-chain match.
    Passed(BoxIo, Arrival),
    /// It is closed: by a filter, by the client, or for want of time.
    Closed(Arrival),
}

/// Runs the listener's filters. Bounded by `listener_filters_timeout` altogether.
pub(crate) async fn inspect(
    options: &ListenerOptions,
    stats: &ListenerStats,
    mut io: BoxIo,
    mut arrival: Arrival,
) -> Inspected {
    let _waiting = stats.pre_connection();
    let begun = Instant::now();
    let accepted = arrival.local_address.clone();
    let filters = run(options, &mut io, &mut arrival);
    let end = match options.filters_timeout {
        None => filters.await,
        Some(time) => tokio::time::timeout(time, filters).await.unwrap_or(Err(Stop::TimeOut)),
    };
    let restored = arrival.local_address != accepted;
    arrival.original_destination = restored.then(|| arrival.local_address.clone());
    let Err(stop) = end else { return Inspected::Passed(io, arrival) };
    match stop {
        Stop::TimeOut => {
            stats.pre_connection_timeout();
            // The bytes that nobody could make sense of are the terminal's now. One whose descriptor cannot be
            // watched any more is closed.
            let renewed = io.peek().is_some_and(|peek| peek.give_up().is_ok());
            if options.continue_on_filters_timeout && renewed {
                return Inspected::Passed(io, arrival);
            }
        }
        Stop::Refused => {}
        Stop::RemoteClose => stats.listener_filter_remote_close(),
        Stop::Broken => stats.listener_filter_error(),
    }
    // It has no number: it never became a connection. The fields are those of the lines about connections.
    tracing::debug!(
        target: "conn_handler",
        kind = "listener filters",
        peer = %arrival.remote_address,
        reason = stop.name(),
        idle_ms = begun.elapsed().as_millis() as u64,
        "closing a downstream connection: {}",
        stop.words(),
    );
    Inspected::Closed(arrival)
}

/// Why filters did not come to an end.
enum Stop {
    Refused,
    TimeOut,
    /// The client ended the connection before a filter had what it needs.
    RemoteClose,
    /// The client reset it.
    Broken,
}

impl Stop {
    /// As the close reasons of connections are called.
    fn name(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimeOut => "listener_filters_timeout",
            Self::RemoteClose => "peer_fin",
            Self::Broken => "peer_rst",
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Refused => "refused by a listener filter",
            Self::TimeOut => "listener filters timeout",
            Self::RemoteClose => "closed by the peer",
            Self::Broken => "reset by the peer",
        }
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

async fn run(options: &ListenerOptions, io: &mut BoxIo, arrival: &mut Arrival) -> Result<(), Stop> {
    let mut bytes = BytesMut::new();
    for factory in &options.filters {
        let mut filter = factory.open();
        if filter.wants_original_destination() && arrival.original_destination.is_none() {
            arrival.original_destination = original_destination(&**io).map(Into::into);
        }
        let consume = run_one(&mut *filter, io, arrival, &mut bytes).await?;
        if consume > 0 {
            // It said so of bytes that it was shown.
            let consume = consume.min(bytes.len());
            peek(io)?.discard(consume)?;
            let _ = bytes.split_to(consume);
        }
    }
    Ok(())
}

/// Asks one filter until it is done: how many bytes it takes away.
async fn run_one(
    filter: &mut dyn ListenerFilter,
    io: &mut BoxIo,
    arrival: &mut Arrival,
    bytes: &mut BytesMut,
) -> Result<usize, Stop> {
    let most = filter.most_bytes().min(MOST_BYTES);
    loop {
        // A filter before this one may have looked further than this one wants to.
        let seen = bytes.len().min(most);
        match filter.inspect(arrival, &bytes[..seen]) {
            ListenerFlow::Done { consume } => return Ok(consume),
            ListenerFlow::Refuse => return Err(Stop::Refused),
            ListenerFlow::NeedMore if seen >= most => return Err(Stop::Refused),
            ListenerFlow::NeedMore => {}
        }
        let peek = peek(io)?;
        match poll_fn(|cx| peek.poll_peek(cx, bytes, seen, most)).await? {
            Peeked::More => {}
            Peeked::End => return Err(Stop::RemoteClose),
        }
    }
}

fn peek(io: &mut BoxIo) -> Result<&mut dyn Peek, Stop> {
    io.peek().ok_or(Stop::Broken)
}

#[cfg(test)]
mod tests;

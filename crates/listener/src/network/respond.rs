//! Serves connections with a terminal filter that answers by itself.
//!
//! No idle timeout, as in Envoy's echo. What such a filter writes goes out before more is read, so a client that
//! does not read stops being read.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tidegate_filter::{RespondFlow, ResponderFactory};
use tidegate_net::BoxIo;
use tidegate_types::{CloseReason, CloseType, ConnectionInfo, ConnectionState, Drain, DrainPhase, EndStream};

use crate::{Connection, HalfClose, Serving, Terminal};

/// A [`Terminal`] of responders.
pub struct RespondTerminal {
    factory: Arc<dyn ResponderFactory>,
    drain: Rc<Drain>,
}

impl RespondTerminal {
    /// Opens a responder of `factory` for each connection. They live until `drain` closes all: a connection
    /// without requests is never known to be idle.
    pub fn new(factory: Arc<dyn ResponderFactory>, drain: Rc<Drain>) -> Self {
        Self { factory, drain }
    }
}

impl Terminal for RespondTerminal {
    fn serve(&self, connection: Connection) -> Serving {
        let (factory, watch) = (self.factory.clone(), self.drain.watch());
        let Connection { io, info, buffer_limit, presence } = connection;
        Box::pin(async move {
            let served = tokio::select! {
                served = run(&*factory, io, &info, buffer_limit) => served,
                () = poll_fn(|cx| watch.poll_reached(cx, DrainPhase::CloseAll)) => Ok(()),
            };
            // An error means that the client is gone: nobody is left to tell.
            if let Err(error) = served {
                if error.kind() == io::ErrorKind::ConnectionReset {
                    info.state.close_type.set(CloseType::RemoteReset);
                }
                tracing::debug!(target: "connection", %error, "connection failed");
            }
            drop(presence);
        })
    }

    /// As Envoy's echo and direct_response.
    fn half_close(&self) -> HalfClose {
        HalfClose::Ends
    }
}

async fn run(
    factory: &dyn ResponderFactory,
    mut io: BoxIo,
    info: &Rc<ConnectionInfo>,
    buffer_limit: u32,
) -> io::Result<()> {
    let mut responder = factory.open(info);
    let mut out = BytesMut::new();
    let mut flow = responder.on_open(info, &mut out);
    let mut end = EndStream::No;
    loop {
        write_all(&mut io, &mut out, &info.state).await?;
        if flow == RespondFlow::Close || end == EndStream::Yes {
            break;
        }
        // The buffer lives from here to the loop's end: an idle connection has none.
        let mut data = read(&mut io, (buffer_limit as usize).clamp(1, READ)).await?;
        info.state.bytes_received.update(|received| received + data.len() as u64);
        end = EndStream::from_last(data.is_empty());
        flow = responder.on_read(info, &mut data, end, &mut out);
    }
    io.before_close(if end == EndStream::Yes { CloseReason::PeerFin } else { CloseReason::Announced });
    poll_fn(|cx| io.poll_shutdown(cx)).await?;
    // For everybody else the connection is over.
    if end == EndStream::No {
        tokio::task::spawn_local(discard(io));
    }
    Ok(())
}

/// Reads once; empty at the client's FIN.
async fn read(io: &mut BoxIo, size: usize) -> io::Result<BytesMut> {
    poll_fn(|cx| {
        // No buffer before there is something for it.
        ready!(io.poll_read_ready(cx))?;
        let mut data = BytesMut::with_capacity(size);
        ready!(io.poll_read(cx, &mut data))?;
        Poll::Ready(Ok(data))
    })
    .await
}

async fn write_all(io: &mut BoxIo, out: &mut BytesMut, state: &ConnectionState) -> io::Result<()> {
    while !out.is_empty() {
        let written = poll_fn(|cx| io.poll_write(cx, &[IoSlice::new(out)])).await?;
        state.bytes_sent.update(|sent| sent + written as u64);
        out.advance(written);
    }
    // Not kept for a connection that may idle.
    *out = BytesMut::new();
    Ok(())
}

/// Reads what the client sends across our FIN and drops it, so that the close does not become an RST that takes
/// the answer with it.
async fn discard(mut io: BoxIo) {
    let gone = async { while read(&mut io, READ).await.is_ok_and(|data| !data.is_empty()) {} };
    // Over by then or not, the connection ends.
    let _ = tokio::time::timeout(DISCARD, gone).await;
}

/// Bytes per read.
const READ: usize = 16 * 1024;

/// How long to wait for the client's FIN after ours: a client that never sends one cannot hold the
/// connection.
const DISCARD: Duration = Duration::from_secs(1);

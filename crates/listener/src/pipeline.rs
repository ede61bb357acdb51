//! What a connection passes from `accept` to its end.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use tidegate_filter::LogContext;
use tidegate_net::BoxIo;
use tidegate_net::listen::Accepted;
use tidegate_types::{Address, ConnectionInfo, StreamInfo};

use crate::Reservation;
use crate::listener::Listener;

/// An established connection.
pub struct Connection {
    /// Its bytes.
    pub io: BoxIo,
    /// Its facts.
    pub info: Rc<ConnectionInfo>,
    /// `per_connection_buffer_limit_bytes`.
    pub buffer_limit: u32,
}

/// A connection being served.
pub type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// What owns connections behind the last network filter: the HTTP connection manager, a TCP proxy, an echo.
pub trait Terminal {
    /// Serves the connection to its end. Dropping the future closes the connection.
    fn serve(&self, connection: Connection) -> Serving;
}

/// A connection's places under the process's limit, if it counts there, and its listener's.
pub(crate) type Places = (Option<Reservation>, Reservation);

/// The pipeline of one connection. Each further kind of step is a line here.
pub(crate) async fn run(listener: Rc<Listener>, accepted: Accepted, places: Places) {
    // Listener filters would peek here, before there is a connection: they may set addresses and SNI.
    let connection = establish(&listener, accepted);
    // The filter chain is the listener's only one; a match by address, SNI and ALPN would choose it here.
    let open = Open::begin(listener, connection.info.clone(), places);
    // Network filters would wrap the terminal filter here.
    let serving = open.listener.terminal().serve(connection);
    serving.await;
}

fn establish(listener: &Listener, accepted: Accepted) -> Connection {
    // A Unix-domain client has no name of its own: it is called after the socket, as in Envoy.
    let peer = match accepted.peer_address {
        Address::Unix(path) if path.as_os_str().is_empty() => accepted.local_address.clone(),
        named => named,
    };
    let info = Rc::new(ConnectionInfo::new(
        NEXT_ID.fetch_add(1, Ordering::Relaxed),
        accepted.local_address,
        peer,
        listener.name().clone(),
    ));
    Connection { io: accepted.io, info, buffer_limit: listener.options().buffer_limit }
}

/// Counts the connection while it lives, also when its task panics or is dropped.
struct Open {
    listener: Rc<Listener>,
    info: Rc<ConnectionInfo>,
    since: Instant,
    _places: Places,
}

impl Open {
    fn begin(listener: Rc<Listener>, info: Rc<ConnectionInfo>, places: Places) -> Self {
        listener.stats().opened();
        listener.count_connection(1);
        Self { listener, info, since: Instant::now(), _places: places }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let length = self.since.elapsed();
        self.listener.stats().closed(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        self.listener.count_connection(-1);
        let logs = &self.listener.options().access_logs;
        if !logs.is_empty() {
            let stream = StreamInfo::new(self.info.clone(), SystemTime::now() - length);
            stream.ended.set(Some(length));
            let cx = LogContext {
                request: None,
                response: None,
                response_trailers: None,
                local_reply_body: "",
                info: &stream,
            };
            logs.iter().for_each(|log| log.log(&cx));
        }
    }
}

/// Connection numbers, unique in the process (`%CONNECTION_ID%`).
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

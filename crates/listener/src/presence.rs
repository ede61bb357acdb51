//! A connection's place in its listener's counts and access log.
//!
//! Whoever serves a connection holds its [`Presence`] until it is over: parting from the client in good order
//! may take longer and counts no more.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tidegate_filter::LogContext;
use tidegate_types::{ConnectionInfo, StreamInfo};

use crate::Reservation;
use crate::listener::Listener;

/// Counts the connection while it lives, also when its task panics or is dropped. Dropping it writes the
/// listener's access log, unless [`Presence::log`] has.
#[derive(Default)]
pub struct Presence(Option<Present>);

struct Present {
    listener: Rc<Listener>,
    info: Rc<ConnectionInfo>,
    since: Instant,
    logged: bool,
    _places: Places,
}

/// A connection's places under the process's limit, if it counts there, and its listener's.
pub(crate) type Places = (Option<Reservation>, Reservation);

impl Presence {
    /// Of a connection that counts nowhere.
    pub fn nowhere() -> Self {
        Self::default()
    }

    pub(crate) fn begin(listener: Rc<Listener>, info: Rc<ConnectionInfo>, places: Places) -> Self {
        listener.stats().opened();
        listener.count_connection(1);
        let since = Instant::now();
        Self(Some(Present { listener, info, since, logged: false, _places: places }))
    }

    /// Writes the listener's access log at the connection's end, with what `facts` adds: for a terminal filter
    /// that has a line of its own to write after it, as in Envoy.
    pub fn log(&mut self, facts: impl FnOnce(&StreamInfo)) {
        if let Some(present) = &mut self.0 {
            present.log(facts);
        }
    }
}

impl Present {
    fn log(&mut self, facts: impl FnOnce(&StreamInfo)) {
        if self.logged || self.listener.options().access_logs.is_empty() {
            return;
        }
        self.logged = true;
        let length = self.since.elapsed();
        let stream = StreamInfo::new(self.info.clone(), SystemTime::now() - length);
        let state = &self.info.state;
        stream.protocol.set(state.protocol.get());
        stream.details.replace(state.details.take());
        stream.bytes_received.set(state.bytes_received.get());
        stream.bytes_sent.set(state.bytes_sent.get());
        facts(&stream);
        stream.flag(state.flags.get());
        log(&self.listener, &stream, length);
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let length = self.since.elapsed();
        self.listener.stats().closed(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        self.listener.count_connection(-1);
        self.log(|_| {});
    }
}

/// The listener's access log.
pub(crate) fn log(listener: &Listener, stream: &StreamInfo, length: Duration) {
    stream.ended.set(Some(length));
    stream.log_type.set("NotSet");
    let cx = LogContext {
        request: None,
        response: None,
        response_trailers: None,
        local_reply_body: "",
        info: stream,
    };
    listener.options().access_logs.iter().for_each(|log| log.log(&cx));
}

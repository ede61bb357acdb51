//! The facts of one connection and one stream, gathered on the way and printed by access logs.
//!
//! Single-threaded: cells with short accessors, shared by the two directions of a stream.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Version;

use crate::{Address, ResponseFlags};

/// Facts of a downstream connection, the same for all its streams.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Unique in the process (`%CONNECTION_ID%`).
    pub id: u64,
    /// The address that the client connected to.
    pub local_address: Address,
    /// The peer of the socket, before any header is believed.
    pub direct_remote_address: Address,
    /// The listener's name.
    pub listener: Arc<str>,
}

/// Facts of the upstream that served the last attempt.
#[derive(Clone, Debug)]
pub struct UpstreamInfo {
    /// The host's address, shared with the host set.
    pub host: Arc<Address>,
    /// Where the connection really goes (happy eyeballs may have chosen another address).
    pub remote_address: Option<Rc<Address>>,
    /// Our end of the connection.
    pub local_address: Option<Rc<Address>>,
    /// The connection's number, unique in the process.
    pub connection_id: Option<u64>,
    /// The protocol spoken.
    pub protocol: Option<Version>,
}

/// Facts of one stream. Durations count from [`StreamInfo::start_time`].
#[derive(Debug)]
pub struct StreamInfo {
    /// The connection.
    pub connection: Rc<ConnectionInfo>,
    /// Wall clock at the first byte of the request.
    pub start_time: SystemTime,
    /// The protocol of the downstream.
    pub protocol: Cell<Option<Version>>,
    /// The client, after `x-forwarded-for` was taken into account.
    pub remote_address: RefCell<Address>,
    /// The status sent downstream; 0 before any.
    pub response_code: Cell<u16>,
    /// What happened.
    pub flags: Cell<ResponseFlags>,
    /// Where the response came from, or why there is none.
    pub details: RefCell<Option<Cow<'static, str>>>,
    /// Why the connection ended, where the stream's end was not its own.
    pub connection_termination_details: Cell<Option<&'static str>>,
    /// Why the last upstream connection failed.
    pub upstream_transport_failure: RefCell<Option<String>>,
    /// Body bytes from the client.
    pub bytes_received: Cell<u64>,
    /// Body bytes to the client.
    pub bytes_sent: Cell<u64>,
    /// The name of the matched route.
    pub route_name: RefCell<Option<Arc<str>>>,
    /// The name of the matched virtual host.
    pub virtual_host: RefCell<Option<Arc<str>>>,
    /// The cluster.
    pub cluster: RefCell<Option<Arc<str>>>,
    /// The upstream of the last attempt.
    pub upstream: RefCell<Option<UpstreamInfo>>,
    /// Attempts made upstream.
    pub attempts: Cell<u32>,
    /// When the request's last byte arrived.
    pub request_complete: Cell<Option<Duration>>,
    /// When the request's first byte went upstream.
    pub first_upstream_tx: Cell<Option<Duration>>,
    /// When the response's first byte came from upstream.
    pub first_upstream_rx: Cell<Option<Duration>>,
    /// When the response's last byte came from upstream.
    pub last_upstream_rx: Cell<Option<Duration>>,
    /// When the response's first byte went downstream.
    pub first_downstream_tx: Cell<Option<Duration>>,
    /// When the stream ended.
    pub ended: Cell<Option<Duration>>,
}

impl StreamInfo {
    /// A stream that begins now.
    pub fn new(connection: Rc<ConnectionInfo>, start_time: SystemTime) -> Self {
        let remote_address = RefCell::new(connection.direct_remote_address.clone());
        Self {
            connection,
            start_time,
            protocol: Cell::default(),
            remote_address,
            response_code: Cell::default(),
            flags: Cell::default(),
            details: RefCell::default(),
            connection_termination_details: Cell::default(),
            upstream_transport_failure: RefCell::default(),
            bytes_received: Cell::default(),
            bytes_sent: Cell::default(),
            route_name: RefCell::default(),
            virtual_host: RefCell::default(),
            cluster: RefCell::default(),
            upstream: RefCell::default(),
            attempts: Cell::default(),
            request_complete: Cell::default(),
            first_upstream_tx: Cell::default(),
            first_upstream_rx: Cell::default(),
            last_upstream_rx: Cell::default(),
            first_downstream_tx: Cell::default(),
            ended: Cell::default(),
        }
    }

    /// Adds a response flag.
    pub fn flag(&self, flag: ResponseFlags) {
        self.flags.set(self.flags.get().with(flag));
    }

    /// Sets the response-code details.
    pub fn detail(&self, details: impl Into<Cow<'static, str>>) {
        *self.details.borrow_mut() = Some(details.into());
    }
}

//! The facts of one connection and one stream, gathered on the way and printed by access logs.
//!
//! Single-threaded: cells with short accessors, shared by the two directions of a stream.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Version;

use crate::{Address, ConnectionState, ResponseFlags, Scheme, TlsInfo};

/// Facts of a downstream connection, the same for all its streams. Made by [`ConnectionInfo::new`]; what is
/// learned later (by listener filters before anybody else sees it, by the handshake) is filled in.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Unique in the process (`%CONNECTION_ID%`).
    pub id: u64,
    /// The address that the client connected to; the original destination if a listener filter restored it.
    pub local_address: Address,
    /// The peer of the socket, before any header is believed.
    pub direct_remote_address: Address,
    /// The client: the peer, or who a PROXY header says it speaks for.
    pub remote_address: Address,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The name of the filter chain that matched (`%FILTER_CHAIN_NAME%`); may be empty.
    pub filter_chain: Arc<str>,
    /// The server name that the client asked for, once it is known (`%REQUESTED_SERVER_NAME%`).
    pub requested_server_name: RefCell<Option<Arc<str>>>,
    /// Whether the transport socket is TLS, whatever became of the handshake.
    pub secure: bool,
    /// Whether `local_address` was restored by a listener filter: the socket has another one.
    pub is_redirected: bool,
    /// The TLS session, after the handshake.
    pub tls: OnceCell<Rc<TlsInfo>>,
    /// Why the transport failed (`%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub transport_failure: RefCell<Option<Box<str>>>,
    /// Why a filter ended the connection (`%CONNECTION_TERMINATION_DETAILS%`).
    pub termination_details: RefCell<Option<Box<str>>>,
    /// What the connection's filters set for those after them.
    pub state: ConnectionState,
}

impl ConnectionInfo {
    /// A plain connection from `peer`.
    pub fn new(id: u64, local_address: Address, peer: Address, listener: Arc<str>) -> Self {
        Self {
            id,
            local_address,
            direct_remote_address: peer.clone(),
            remote_address: peer,
            listener,
            filter_chain: Arc::from(""),
            requested_server_name: RefCell::default(),
            secure: false,
            is_redirected: false,
            tls: OnceCell::new(),
            transport_failure: RefCell::default(),
            termination_details: RefCell::default(),
            state: ConnectionState::default(),
        }
    }
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
    /// The TLS session with it, if there is one.
    pub tls: Option<Rc<TlsInfo>>,
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
    /// The name of the virtual cluster, where it has one.
    pub virtual_cluster: RefCell<Option<Arc<str>>>,
    /// The cluster.
    pub cluster: RefCell<Option<Arc<str>>>,
    /// The upstream of the last attempt.
    pub upstream: RefCell<Option<UpstreamInfo>>,
    /// The scheme that upstreams are told, where it is another one than the head's: `match_upstream` goes by the
    /// host that is asked first.
    pub upstream_scheme: Cell<Option<Scheme>>,
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
    /// At which event a log line is written (`%ACCESS_LOG_TYPE%`), `DownstreamEnd` by default.
    pub log_type: Cell<&'static str>,
    /// The request is a health check of the proxy itself: it counts in no numbers of responses.
    pub health_check: Cell<bool>,
    /// When the stream ended.
    pub ended: Cell<Option<Duration>>,
}

impl StreamInfo {
    /// The [`log_type`](Self::log_type) of a request's end.
    pub const REQUEST_END: &'static str = "DownstreamEnd";

    /// A stream that begins now.
    pub fn new(connection: Rc<ConnectionInfo>, start_time: SystemTime) -> Self {
        let remote_address = RefCell::new(connection.remote_address.clone());
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
            virtual_cluster: RefCell::default(),
            cluster: RefCell::default(),
            upstream: RefCell::default(),
            upstream_scheme: Cell::default(),
            attempts: Cell::default(),
            request_complete: Cell::default(),
            first_upstream_tx: Cell::default(),
            first_upstream_rx: Cell::default(),
            last_upstream_rx: Cell::default(),
            first_downstream_tx: Cell::default(),
            log_type: Cell::new(Self::REQUEST_END),
            health_check: Cell::default(),
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

//! `listener.<address>.`, under Envoy's names.

use tidegate_stats::{EndedBy, GaugeHold, OwnedCounter, QuicCodes, Scope, Store, stat_block};

stat_block! {
    struct Totals {
        counters {
            downstream_cx_total, downstream_cx_destroy, downstream_pre_cx_timeout,
            downstream_cx_transport_socket_connect_timeout, downstream_cx_overflow,
            downstream_global_cx_overflow, downstream_cx_overload_reject,
            downstream_listener_filter_error, downstream_listener_filter_remote_close,
            no_filter_chain_match,
            /// Not in Envoy: `accept` failed, mostly for want of descriptors.
            downstream_accept_error
        }
        gauges { downstream_cx_active, downstream_pre_cx_active }
        histograms { downstream_cx_length_ms, connections_accepted_per_socket_event }
    }
}

stat_block! {
    struct PerWorker {
        counters { downstream_cx_total }
        gauges { downstream_cx_active }
    }
}

stat_block! {
    struct Datagrams {
        counters {
            /// Datagrams that were too long, or no QUIC.
            downstream_rx_datagram_dropped = "udp.downstream_rx_datagram_dropped",
            /// Answers to packets of connections that are not there any more.
            stateless_reset_packets_sent = "quic.dispatcher.stateless_reset_packets_sent",
            /// There is no preferred address.
            num_packets_rx_on_preferred_address = "quic.connection.num_packets_rx_on_preferred_address",
            /// Nor does a server migrate.
            num_server_migration_detected = "quic.connection.num_server_migration_detected",
        }
    }
}

/// What one listener counts on one worker.
#[derive(Debug, Clone)]
pub struct ListenerStats {
    totals: Totals,
    worker: PerWorker,
    /// Of QUIC.
    datagrams: Option<(Datagrams, QuicCodes)>,
}

impl ListenerStats {
    /// The statistics `listener.<address>.` and `listener.<address>.worker_<worker>.`.
    pub fn new(store: &Store, address: &str, worker: usize) -> Self {
        Self {
            totals: Totals::new(store, Scope::listener(address)),
            worker: PerWorker::new(store, Scope::listener_worker(address, worker)),
            datagrams: None,
        }
    }

    /// The same of a QUIC listener, which has some more.
    pub fn of_quic(store: &Store, address: &str, worker: usize) -> Self {
        let datagrams =
            (Datagrams::new(store, Scope::listener(address)), QuicCodes::downstream(store, address));
        Self { datagrams: Some(datagrams), ..Self::new(store, address, worker) }
    }

    /// The main thread's listener (the admin's), which has no worker.
    pub fn main_thread(store: &Store, address: &str) -> Self {
        Self {
            totals: Totals::new(store, Scope::listener(address)),
            worker: PerWorker::new(store, Scope::listener(address).child("main_thread")),
            datagrams: None,
        }
    }

    /// The counter `downstream_cx_transport_socket_connect_timeout` of the listener at `address`: the
    /// transport's own to count.
    pub fn handshake_timeouts(store: &Store, address: &str) -> OwnedCounter {
        let totals = Totals::new(store, Scope::listener(address));
        totals.downstream_cx_transport_socket_connect_timeout().owned()
    }

    pub(crate) fn opened(&self) {
        self.totals.downstream_cx_total().inc();
        self.totals.downstream_cx_active().inc();
        self.worker.downstream_cx_total().inc();
        self.worker.downstream_cx_active().inc();
    }

    pub(crate) fn closed(&self, length_ms: u64) {
        self.totals.downstream_cx_destroy().inc();
        self.totals.downstream_cx_active().dec();
        self.totals.downstream_cx_length_ms().record(length_ms);
        self.worker.downstream_cx_active().dec();
    }

    /// Counts a connection that listener filters look at, until the hold is dropped.
    pub(crate) fn pre_connection(&self) -> GaugeHold {
        self.totals.downstream_pre_cx_active().hold()
    }

    pub(crate) fn pre_connection_timeout(&self) {
        self.totals.downstream_pre_cx_timeout().inc();
    }

    pub(crate) fn listener_filter_remote_close(&self) {
        self.totals.downstream_listener_filter_remote_close().inc();
    }

    pub(crate) fn listener_filter_error(&self) {
        self.totals.downstream_listener_filter_error().inc();
    }

    pub(crate) fn no_filter_chain_match(&self) {
        self.totals.no_filter_chain_match().inc();
    }

    pub(crate) fn overflow(&self) {
        self.totals.downstream_cx_overflow().inc();
    }

    pub(crate) fn overload_reject(&self) {
        self.totals.downstream_cx_overload_reject().inc();
    }

    pub(crate) fn global_overflow(&self) {
        self.totals.downstream_global_cx_overflow().inc();
    }

    pub(crate) fn accept_error(&self) {
        self.totals.downstream_accept_error().inc();
    }

    pub(crate) fn datagram_dropped(&self) {
        if let Some((stats, _)) = &self.datagrams {
            stats.downstream_rx_datagram_dropped().inc();
        }
    }

    /// A QUIC connection that had no terminal yet was closed by us, for what Envoy calls `name`.
    pub(crate) fn closed_for(&self, name: &str) {
        if let Some((_, codes)) = &self.datagrams {
            codes.connection(EndedBy::Us, name);
        }
    }

    pub(crate) fn accepted_together(&self, connections: u64) {
        self.totals.connections_accepted_per_socket_event().record(connections);
    }

    /// Connections of all workers.
    pub fn active(&self) -> i64 {
        self.totals.downstream_cx_active().value()
    }
}

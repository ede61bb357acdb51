//! What an endpoint and a connection have counted.

use std::time::Duration;

/// Counts of one endpoint since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Datagrams that came.
    pub datagrams_received: u64,
    /// Bytes in them.
    pub bytes_received: u64,
    /// Datagrams sent, those of all connections included.
    pub datagrams_sent: u64,
    /// Bytes in them.
    pub bytes_sent: u64,
    /// System calls (or what stands for them in tests) that brought datagrams.
    pub receives: u64,
    /// System calls that took datagrams.
    pub sends: u64,
    /// Times that the socket took nothing and sending waited.
    pub blocked: u64,
    /// Datagrams that were lost on the way into the socket by an error other than a full buffer.
    pub send_errors: u64,
    /// Datagrams that belonged to nobody and got no answer.
    pub dropped: u64,
    /// Answers that no connection gave: version negotiation, stateless reset, refusals, Retry.
    pub answers: u64,
    /// Retry packets among them.
    pub retries: u64,
    /// Connections refused because too many handshakes were under way, or by [`Incoming::refuse`](crate::Incoming::refuse).
    pub refused: u64,
    /// Attempts ignored because too many waited to be accepted.
    pub overflowed: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Datagrams of other workers' connections that went to the hook.
    pub handed_over: u64,
    /// Handshakes under way now.
    pub half_open: usize,
    /// Connections now, with those that linger after their end.
    pub connections: usize,
}

/// Counts of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnStats {
    /// UDP payload bytes received, also of packets that were no good.
    pub rx_bytes: u64,
    /// UDP payload bytes sent.
    pub tx_bytes: u64,
    /// Datagrams received.
    pub rx_datagrams: u64,
    /// Datagrams sent.
    pub tx_datagrams: u64,
    /// Packets sent that count as lost.
    pub lost_packets: u64,
    /// Bytes in them.
    pub lost_bytes: u64,
    /// Times that the congestion controller cut its window, ECN marks included.
    pub congestion_events: u64,
    /// Packets of ours that were sent again as a probe or with another content are not counted here: this is the
    /// number of datagrams that the path took after all when its MTU shrank.
    pub black_holes: u64,
    /// Bytes that may be under way.
    pub congestion_window: u64,
    /// The largest UDP payload that the path takes, in bytes.
    pub mtu: u16,
    /// Smoothed round-trip time.
    pub rtt: Duration,
}

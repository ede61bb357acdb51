//! `transport_socket_matches`: hosts that speak something else than the rest of their cluster (Envoy docs,
//! `Cluster.TransportSocketMatch`).

use tidegate_types::json::Node;

use super::UpstreamProtocol;
use crate::reader::{Message, Reader};
use crate::transport::UpstreamTransport;

/// What hosts with certain labels speak.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportMatch {
    /// `name`, never empty: what statistics call it. Several may have the same.
    pub name: String,
    /// `match`: labels that a host's metadata must have under [`TRANSPORT_LABELS`], or else its locality's; none are
    /// had by every host.
    pub labels: Vec<(String, Node)>,
    /// `transport_socket`.
    pub socket: UpstreamTransport,
}

/// The part of `filter_metadata` that is compared.
pub const TRANSPORT_LABELS: &str = "envoy.transport_socket_match";

impl TransportMatch {
    /// As [`UpstreamTransport::same_but_content`].
    pub(super) fn same_but_content(&self, other: &Self) -> bool {
        self.name == other.name && self.labels == other.labels && self.socket.same_but_content(&other.socket)
    }
}

impl Message for TransportMatch {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.TransportSocketMatch";

    fn read(r: &Reader<'_>) -> Self {
        let labels = r.structure("match").optional();
        let members = labels.as_ref().map(Node::members).unwrap_or_default();
        Self {
            name: r.string("name").required_non_empty(),
            labels: members.iter().map(|member| (member.key.to_string(), member.value.clone())).collect(),
            socket: r.required_message("transport_socket"),
        }
    }
}

/// The field, with what `protocol` demands of each of them.
pub(super) fn read(r: &Reader<'_>, protocol: &UpstreamProtocol) -> Vec<TransportMatch> {
    let matches = r.repeated::<TransportMatch>("transport_socket_matches").check(|matches| {
        let fails = |why: &dyn Fn(&UpstreamTransport) -> bool| matches.iter().find(|one| why(&one.socket));
        if protocol.http3().is_some()
            && let Some(one) = fails(&|socket| !matches!(socket, UpstreamTransport::Quic(_)))
        {
            return Err(format!("`{}` is no QUIC, which HTTP/3 needs of all hosts", one.name));
        }
        if matches!(protocol, UpstreamProtocol::Auto(_))
            && let Some(one) = fails(&|socket| socket.tls().is_none())
        {
            return Err(format!("`auto_config` chooses by ALPN, which `{}` does not negotiate", one.name));
        }
        Ok(())
    });
    matches.or_default()
}

//! `envoy.config.core.v3.TransportSocket`: how bytes travel on a connection.
//!
//! One message of Envoy's, two types here: what a filter chain may hold and what a cluster may hold.

use std::sync::Arc;

use crate::reader::{Any, Message, Reader};
use crate::tls::{DownstreamTls, OwnTls, UpstreamTls};

mod proxy_protocol;
mod quic;

pub(crate) use proxy_protocol::Header as ProxyHeader;
pub use proxy_protocol::{AddedTlv, PassThroughTlvs, ProxyProtocolUpstream, ProxyVersion};
pub(crate) use quic::BELOW_1_3;
pub use quic::QuicDownstream;

use quic::QuicUpstream;

/// How bytes travel between a client and a listener.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum TransportSocket {
    /// Plain text: no `transport_socket`, or `envoy.transport_sockets.raw_buffer`.
    #[default]
    Raw,
    /// `envoy.transport_sockets.tls` with a `DownstreamTlsContext`, or `tidegate.transport_sockets.tls`.
    Tls(Arc<DownstreamTls>),
    /// `envoy.transport_sockets.quic` with a `QuicDownstreamTransport`: of listeners with
    /// [`udp`](crate::ListenerConfig::udp), all of whose chains have it.
    Quic(Arc<QuicDownstream>),
}

/// How bytes travel between a cluster and its hosts.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum UpstreamTransport {
    /// Plain text: no `transport_socket`, or `envoy.transport_sockets.raw_buffer`.
    #[default]
    Raw,
    /// `envoy.transport_sockets.tls` with an `UpstreamTlsContext`, or `tidegate.transport_sockets.tls`.
    Tls(Arc<UpstreamTls>),
    /// `envoy.transport_sockets.upstream_proxy_protocol`: a PROXY header, then the inner transport.
    ProxyProtocol(Arc<ProxyProtocolUpstream>),
    /// `envoy.transport_sockets.quic` with a `QuicUpstreamTransport`: QUIC where the cluster speaks HTTP/3, and
    /// TLS over TCP where it speaks anything else.
    Quic(Arc<UpstreamTls>),
}

impl TransportSocket {
    /// Whether a connection of `other` speaks this one after a reload: all is the same but what files of
    /// certificates hold, which a context takes over by itself.
    pub fn same_but_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tls(one), Self::Tls(other)) => one.same_but_content(other),
            (Self::Quic(one), Self::Quic(other)) => {
                (one.early_data, one.resumption) == (other.early_data, other.resumption)
                    && one.tls.same_but_content(&other.tls)
            }
            _ => self == other,
        }
    }

    /// The TLS context of TCP or QUIC, if there is one.
    pub fn tls(&self) -> Option<&Arc<DownstreamTls>> {
        match self {
            Self::Tls(context) => Some(context),
            Self::Quic(quic) => Some(&quic.tls),
            Self::Raw => None,
        }
    }
}

impl UpstreamTransport {
    /// As [`TransportSocket::same_but_content`].
    pub fn same_but_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tls(one), Self::Tls(other)) | (Self::Quic(one), Self::Quic(other)) => {
                one.same_but_content(other)
            }
            (Self::ProxyProtocol(one), Self::ProxyProtocol(other)) => one.same_but_content(other),
            _ => self == other,
        }
    }

    /// The TLS context that it is, that lies under a PROXY header, or that QUIC and TCP share.
    pub fn tls(&self) -> Option<&Arc<UpstreamTls>> {
        match self {
            Self::Tls(context) | Self::Quic(context) => Some(context),
            Self::ProxyProtocol(proxy) => proxy.transport_socket.tls(),
            Self::Raw => None,
        }
    }
}

/// Everything that a `TransportSocket` may be; where it stands decides what is right.
enum Kind {
    Raw,
    Downstream(DownstreamTls),
    Upstream(UpstreamTls),
    ProxyProtocol(ProxyProtocolUpstream),
    QuicDownstream(QuicDownstream),
    QuicUpstream(UpstreamTls),
}

impl Message for TransportSocket {
    const NAME: &'static str = "envoy.config.core.v3.TransportSocket";

    fn read(r: &Reader<'_>) -> Self {
        let expected = &[DownstreamTls::NAME, QuicDownstream::NAME, OwnTls::NAME, RawBuffer::NAME];
        match read_any(r, Side::Downstream, expected) {
            Some(Kind::Downstream(context)) => Self::Tls(Arc::new(context)),
            Some(Kind::QuicDownstream(quic)) => Self::Quic(Arc::new(quic)),
            _ => Self::Raw,
        }
    }
}

impl Message for UpstreamTransport {
    const NAME: &'static str = "envoy.config.core.v3.TransportSocket";

    fn read(r: &Reader<'_>) -> Self {
        let expected = &[
            UpstreamTls::NAME,
            QuicUpstream::NAME,
            OwnTls::NAME,
            ProxyProtocolUpstream::NAME,
            RawBuffer::NAME,
        ];
        match read_any(r, Side::Upstream, expected) {
            Some(Kind::Upstream(context)) => Self::Tls(Arc::new(context)),
            Some(Kind::QuicUpstream(context)) => Self::Quic(Arc::new(context)),
            Some(Kind::ProxyProtocol(proxy)) => Self::ProxyProtocol(Arc::new(proxy)),
            _ => Self::Raw,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Downstream,
    Upstream,
}

fn read_any(r: &Reader<'_>, side: Side, expected: &[&str]) -> Option<Kind> {
    // Envoy goes by the type, not by the name.
    r.string("name").required_non_empty();
    let any = r.any("typed_config");
    // Both sides' messages whichever side this is: the schema describes this message once.
    r.may_be::<RawBuffer>();
    r.may_be::<DownstreamTls>();
    r.may_be::<UpstreamTls>();
    r.may_be::<OwnTls>();
    r.may_be::<ProxyProtocolUpstream>();
    r.may_be::<QuicDownstream>();
    r.may_be::<QuicUpstream>();
    let Some(typed) = any.peek() else {
        if !r.has("typed_config") {
            any.report("missing field `typed_config`", None);
        }
        return None;
    };
    let expected = expected.iter().map(|name| format!("type.googleapis.com/{name}")).collect::<Vec<_>>();
    let wrong = |message: &str| any.report(message, Some(format!("one of {}", expected.join(", "))));
    let kind = open(r, typed);
    match (&kind, side) {
        (Some(Kind::Upstream(_) | Kind::ProxyProtocol(_) | Kind::QuicUpstream(_)), Side::Downstream) => {
            wrong("this transport socket is for clusters, not for filter chains");
        }
        (Some(Kind::Downstream(_) | Kind::QuicDownstream(_)), Side::Upstream) => {
            wrong("this transport socket is for filter chains, not for clusters");
        }
        (Some(_), _) => {}
        (None, _) if typed.is::<OwnTls>() => {}
        (None, _) => wrong("this transport socket is not supported by this build"),
    }
    kind
}

fn open<'a>(r: &Reader<'a>, any: &Any<'a>) -> Option<Kind> {
    if any.is::<RawBuffer>() {
        any.read::<RawBuffer>(r);
        Some(Kind::Raw)
    } else if any.is::<DownstreamTls>() {
        Some(Kind::Downstream(any.read(r)))
    } else if any.is::<UpstreamTls>() {
        Some(Kind::Upstream(any.read(r)))
    } else if any.is::<ProxyProtocolUpstream>() {
        Some(Kind::ProxyProtocol(any.read(r)))
    } else if any.is::<QuicDownstream>() {
        Some(Kind::QuicDownstream(any.read(r)))
    } else if any.is::<QuicUpstream>() {
        Some(Kind::QuicUpstream(any.read::<QuicUpstream>(r).0))
    } else if any.is::<OwnTls>() {
        let own = any.read::<OwnTls>(r);
        own.downstream.map(Kind::Downstream).or(own.upstream.map(Kind::Upstream))
    } else {
        None
    }
}

struct RawBuffer;

impl Message for RawBuffer {
    const NAME: &'static str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

//! `ProxyProtocolUpstreamTransport`: a PROXY header in front of each upstream connection.
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>

use tidegate_types::json::decode_base64;

use super::UpstreamTransport;
use crate::reader::{Message, Reader};

/// The message with its `config`.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyProtocolUpstream {
    /// `config.version`, V1 when unset.
    pub version: ProxyVersion,
    /// `config.pass_through_tlvs`: which of the entries that a PROXY header brought from downstream go on.
    pub pass_through_tlvs: PassThroughTlvs,
    /// `config.added_tlvs`; only version 2 carries them.
    pub added_tlvs: Vec<AddedTlv>,
    /// `allow_unspecified_address`: what cannot be told of the downstream is told as unknown.
    pub allow_unspecified_address: bool,
    /// `transport_socket`: what follows the header.
    pub transport_socket: UpstreamTransport,
}

impl ProxyProtocolUpstream {
    /// As [`super::TransportSocket::same_but_content`].
    pub(super) fn same_but_content(&self, other: &Self) -> bool {
        let outer = |proxy: &Self| Self { transport_socket: UpstreamTransport::Raw, ..proxy.clone() };
        self.transport_socket.same_but_content(&other.transport_socket) && outer(self) == outer(other)
    }
}

/// `version`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// `pass_through_tlvs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PassThroughTlvs {
    /// Unset.
    #[default]
    None,
    /// `INCLUDE_ALL`.
    All,
    /// `INCLUDE`: these types.
    Types(Vec<u8>),
}

/// An entry of `added_tlvs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedTlv {
    /// `type`.
    pub kind: u8,
    /// `value`.
    pub value: Vec<u8>,
}

impl Message for ProxyProtocolUpstream {
    const NAME: &'static str =
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";

    fn read(r: &Reader<'_>) -> Self {
        let Header { version, pass_through_tlvs, added_tlvs } = r.message_or_defaults("config");
        Self {
            version,
            pass_through_tlvs,
            added_tlvs,
            allow_unspecified_address: r.bool("allow_unspecified_address").or_default(),
            transport_socket: r.required_message("transport_socket"),
        }
    }
}

/// `config`.
pub(crate) struct Header {
    pub(crate) version: ProxyVersion,
    pass_through_tlvs: PassThroughTlvs,
    added_tlvs: Vec<AddedTlv>,
}

impl Message for Header {
    const NAME: &'static str = "envoy.config.core.v3.ProxyProtocolConfig";

    fn read(r: &Reader<'_>) -> Self {
        const VERSIONS: &[(&str, u32, ProxyVersion)] =
            &[("V1", 0, ProxyVersion::V1), ("V2", 1, ProxyVersion::V2)];
        Self {
            version: r.enumeration("version", VERSIONS, &[]).or_default(),
            pass_through_tlvs: r.message("pass_through_tlvs").or_default(),
            added_tlvs: r.repeated("added_tlvs").or_default(),
        }
    }
}

impl Message for PassThroughTlvs {
    const NAME: &'static str = "envoy.config.core.v3.ProxyProtocolPassThroughTLVs";

    fn read(r: &Reader<'_>) -> Self {
        let all =
            r.enumeration("match_type", &[("INCLUDE_ALL", 0, true), ("INCLUDE", 1, false)], &[]).or(true);
        let types = r.u32s("tlv_type").convert(|types| types.into_iter().map(tlv_type).collect());
        let types = types.or_default();
        if all { Self::All } else { Self::Types(types) }
    }
}

impl Message for AddedTlv {
    const NAME: &'static str = "envoy.config.core.v3.TlvEntry";

    fn read(r: &Reader<'_>) -> Self {
        let value =
            r.string("value").convert(|text| decode_base64(&text).ok_or_else(|| "not base64".to_owned()));
        Self { kind: r.u32("type").convert(tlv_type).or_default(), value: value.or_default() }
    }
}

fn tlv_type(number: u32) -> Result<u8, String> {
    u8::try_from(number).map_err(|_| format!("{number} is out of range: a type is 0 to 255"))
}

//! What is asked: the oneof `health_checker`.

use crate::reader::{Message, Reader};
use crate::route::{HeaderMutations, HeaderToAdd};
use crate::transport::{ProxyHeader, ProxyVersion};

use super::http::HttpCheck;
use super::payload::Payload;

/// `health_checker`.
#[derive(Debug, Clone, PartialEq)]
pub enum Checker {
    /// `http_health_check`.
    Http(Box<HttpCheck>),
    /// `tcp_health_check`.
    Tcp(TcpCheck),
    /// `grpc_health_check`.
    Grpc(GrpcCheck),
}

/// `TcpHealthCheck`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpCheck {
    /// `send`; empty when unset.
    pub send: Vec<u8>,
    /// `receive`: what must come, in this order, with anything in between; empty: that a connection opens is enough.
    pub receive: Vec<Vec<u8>>,
    /// `proxy_protocol_config.version`: goes before `send`.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// `GrpcHealthCheck`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GrpcCheck {
    /// `service_name`; empty when unset.
    pub service_name: String,
    /// `authority`; empty when unset: the cluster's name.
    pub authority: String,
    /// `initial_metadata`: fields of the request.
    pub headers: HeaderMutations,
}

impl Checker {
    pub(super) fn read(r: &Reader<'_>) -> Self {
        let http = r.message::<HttpCheck>("http_health_check").optional();
        let tcp = r.message::<TcpCheck>("tcp_health_check").optional();
        let grpc = r.message::<GrpcCheck>("grpc_health_check").optional();
        r.exactly_one(&["http_health_check", "tcp_health_check", "grpc_health_check", "custom_health_check"]);
        match (http, tcp, grpc) {
            (Some(http), ..) => Self::Http(Box::new(http)),
            (_, _, Some(grpc)) => Self::Grpc(grpc),
            (_, tcp, _) => Self::Tcp(tcp.unwrap_or_default()),
        }
    }
}

impl Message for TcpCheck {
    const NAME: &'static str = "envoy.config.core.v3.HealthCheck.TcpHealthCheck";

    fn read(r: &Reader<'_>) -> Self {
        let receive = r.repeated::<Payload>("receive").or_default();
        Self {
            send: r.message::<Payload>("send").optional().map(|payload| payload.0).unwrap_or_default(),
            receive: receive.into_iter().map(|payload| payload.0).collect(),
            proxy_protocol: r.message::<ProxyHeader>("proxy_protocol_config").optional().map(|it| it.version),
        }
    }
}

impl Message for GrpcCheck {
    const NAME: &'static str = "envoy.config.core.v3.HealthCheck.GrpcHealthCheck";

    fn read(r: &Reader<'_>) -> Self {
        let request_add = r.repeated::<HeaderToAdd>("initial_metadata").or_default();
        Self {
            service_name: r.string("service_name").or_default(),
            authority: r.string("authority").check(|value| super::http::header_value(value)).or_default(),
            headers: HeaderMutations { request_add, ..HeaderMutations::default() },
        }
    }
}

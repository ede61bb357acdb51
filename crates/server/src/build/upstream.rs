//! The transports of clusters: TLS contexts with their keys loaded, PROXY headers.

use std::sync::Arc;

use tidegate_cluster::{HostTransports, TransportFactory, Transports};
use tidegate_config::ClusterConfig;
use tidegate_config::transport::{PassThroughTlvs, ProxyProtocolUpstream, ProxyVersion, UpstreamTransport};
use tidegate_pool::proxy_protocol::{Pass, ProxyHeader, ProxyTransports, Version};
use tidegate_stats::Scope;
use tidegate_tls::client::SharedContext;
use tidegate_tls::{ClientContext, TlsStats};
use tidegate_types::json::Problem;

use super::{Builder, quic};

/// Loads what the cluster names: what connections to it speak below their protocol, and the TLS contexts of it.
///
/// # Errors
/// Everything that is wrong with its TLS context.
pub(super) fn transports(
    cluster: &ClusterConfig,
    builder: &Builder<'_>,
) -> Result<(Transports, Vec<Arc<ClientContext>>), Vec<Problem>> {
    let mut contexts = Vec::new();
    let mut problems = Vec::new();
    let mut load = |socket: &UpstreamTransport| {
        let context = context(socket, cluster, builder).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
        contexts.extend(context.clone());
        HostTransports {
            stream: factory(socket, context.as_ref()),
            quic: quic::transports(cluster, context.as_ref()),
        }
    };
    let transports = Transports {
        rest: load(&cluster.transport_socket),
        matches: cluster.transport_matches.iter().map(|one| load(&one.socket)).collect(),
    };
    if problems.is_empty() { Ok((transports, contexts)) } else { Err(problems) }
}

/// The TLS context of `socket`, if it has one.
fn context(
    socket: &UpstreamTransport,
    cluster: &ClusterConfig,
    builder: &Builder<'_>,
) -> Result<Option<Arc<ClientContext>>, Vec<Problem>> {
    let Some(tls) = socket.tls() else { return Ok(None) };
    let scope = Scope::cluster(cluster.stat_name());
    let stats = match socket {
        UpstreamTransport::Quic(_) => TlsStats::quic_client(builder.store, &scope),
        _ => TlsStats::client(builder.store, &scope),
    };
    ClientContext::new(tls, stats).map(Some)
}

fn factory(
    socket: &UpstreamTransport,
    context: Option<&Arc<ClientContext>>,
) -> Option<Arc<dyn TransportFactory>> {
    match socket {
        UpstreamTransport::Raw => None,
        UpstreamTransport::Tls(_) | UpstreamTransport::Quic(_) => {
            Some(Arc::new(SharedContext(context?.clone())))
        }
        UpstreamTransport::ProxyProtocol(proxy) => {
            let inner = factory(&proxy.transport_socket, context);
            Some(Arc::new(ProxyTransports { header: Arc::new(header(proxy)), inner }))
        }
    }
}

fn header(proxy: &ProxyProtocolUpstream) -> ProxyHeader {
    ProxyHeader {
        version: match proxy.version {
            ProxyVersion::V1 => Version::V1,
            ProxyVersion::V2 => Version::V2,
        },
        added: proxy.added_tlvs.iter().map(|tlv| (tlv.kind, tlv.value.as_slice().into())).collect(),
        pass: match &proxy.pass_through_tlvs {
            PassThroughTlvs::None => Pass::None,
            PassThroughTlvs::All => Pass::All,
            PassThroughTlvs::Types(types) => Pass::Types(types.clone()),
        },
    }
}

/// What is said of a cluster that verifies who signed a certificate, and not for whom (deviations, row 20).
pub(super) fn unchecked_names(cluster: &ClusterConfig) -> impl Iterator<Item = String> {
    cluster.transports().filter_map(|socket| unchecked_names_of(socket, cluster))
}

fn unchecked_names_of(socket: &UpstreamTransport, cluster: &ClusterConfig) -> Option<String> {
    let tls = socket.tls()?;
    let validation = tls.common.validation.as_deref()?;
    let pinned = !validation.certificate_hashes.is_empty() || !validation.spki_hashes.is_empty();
    let named = !validation.names.is_empty()
        || tls.auto_sni_san_validation
        || cluster.auto_sni.auto_san_validation
        || pinned;
    (validation.trusted_ca.is_some() && !named).then(|| {
        format!(
            "cluster `{}` accepts any certificate that its `trusted_ca` signed, whatever its name: set \
             `match_typed_subject_alt_names` in `{}`, or `auto_sni_san_validation` beside `sni`",
            cluster.name, validation.place.path
        )
    })
}

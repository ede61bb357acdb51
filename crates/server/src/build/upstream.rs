//! The transports of clusters: TLS contexts with their keys loaded, PROXY headers.

use std::sync::Arc;

use tidegate_cluster::{TransportFactory, Transports};
use tidegate_config::ClusterConfig;
use tidegate_config::transport::{PassThroughTlvs, ProxyProtocolUpstream, ProxyVersion, UpstreamTransport};
use tidegate_pool::proxy_protocol::{Pass, ProxyHeader, ProxyTransports, Version};
use tidegate_stats::Scope;
use tidegate_tls::client::SharedContext;
use tidegate_tls::{ClientContext, TlsStats};
use tidegate_types::json::Problem;

use super::{Builder, quic};

/// Loads what the cluster names: what connections to it speak below their protocol, and the TLS context of it.
///
/// # Errors
/// Everything that is wrong with its TLS context.
pub(super) fn transports(
    cluster: &ClusterConfig,
    builder: &Builder<'_>,
) -> Result<(Transports, Option<Arc<ClientContext>>), Vec<Problem>> {
    let context = match cluster.transport_socket.tls() {
        Some(tls) => {
            let scope = Scope::cluster(cluster.stat_name());
            let stats = match cluster.transport_socket {
                UpstreamTransport::Quic(_) => TlsStats::quic_client(builder.store, &scope),
                _ => TlsStats::client(builder.store, &scope),
            };
            Some(ClientContext::new(tls, stats)?)
        }
        None => None,
    };
    let transports = Transports {
        stream: factory(&cluster.transport_socket, context.as_ref()),
        quic: quic::transports(cluster, context.as_ref()),
    };
    Ok((transports, context))
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
pub(super) fn unchecked_names(cluster: &ClusterConfig) -> Option<String> {
    let tls = cluster.transport_socket.tls()?;
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

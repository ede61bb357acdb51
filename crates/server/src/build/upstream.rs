//! The transports of clusters: TLS contexts with their keys loaded, PROXY headers.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_cluster::TransportFactory;
use tidegate_config::transport::{PassThroughTlvs, ProxyProtocolUpstream, ProxyVersion, UpstreamTransport};
use tidegate_config::{Bootstrap, ClusterConfig};
use tidegate_pool::proxy_protocol::{Pass, ProxyHeader, ProxyTransports, Version};
use tidegate_stats::Scope;
use tidegate_tls::client::SharedContext;
use tidegate_tls::{ClientContext, TlsStats};
use tidegate_types::json::Problem;

use super::Builder;
use crate::snapshot::Snapshot;

/// What clusters need of the transports that their configuration names.
#[derive(Default)]
pub(super) struct Transports {
    factories: HashMap<String, Arc<dyn TransportFactory>>,
    /// The TLS contexts among them.
    pub(super) contexts: HashMap<String, Arc<ClientContext>>,
}

impl Transports {
    /// Loads what the clusters of `bootstrap` name. A cluster that did not change keeps its context, with its
    /// sessions.
    pub(super) fn build(
        bootstrap: &Bootstrap,
        builder: &Builder<'_>,
        previous: Option<&Snapshot>,
    ) -> Result<Self, Vec<Problem>> {
        let mut all = Self::default();
        let mut problems = Vec::new();
        for cluster in &bootstrap.clusters {
            if let Some(context) = kept(cluster, previous) {
                all.contexts.insert(cluster.name.clone(), context);
            } else if let Some(tls) = cluster.transport_socket.tls() {
                let stats = TlsStats::client(builder.store, &Scope::cluster(cluster.stat_name()));
                match ClientContext::new(tls, stats) {
                    Ok(context) => {
                        all.contexts.insert(cluster.name.clone(), context);
                    }
                    Err(more) => problems.extend(more),
                }
            }
            let context = all.contexts.get(&cluster.name);
            if let Some(factory) = factory(&cluster.transport_socket, context) {
                all.factories.insert(cluster.name.clone(), factory);
            }
        }
        if problems.is_empty() { Ok(all) } else { Err(problems) }
    }

    /// The transports of the cluster `name`; `None`: plain text.
    pub(super) fn of(&self, name: &str) -> Option<Arc<dyn TransportFactory>> {
        self.factories.get(name).cloned()
    }
}

fn kept(cluster: &ClusterConfig, previous: Option<&Snapshot>) -> Option<Arc<ClientContext>> {
    let previous = previous?;
    let old = previous.bootstrap.clusters.iter().find(|old| old.name == cluster.name)?;
    let same = old.same_but_content(cluster);
    previous.client_contexts.get(&cluster.name).filter(|_| same).cloned()
}

fn factory(
    socket: &UpstreamTransport,
    context: Option<&Arc<ClientContext>>,
) -> Option<Arc<dyn TransportFactory>> {
    match socket {
        UpstreamTransport::Raw => None,
        UpstreamTransport::Tls(_) => Some(Arc::new(SharedContext(context?.clone()))),
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

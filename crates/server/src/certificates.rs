//! The certificates of the running configuration: their files, their expiry, and taking over new ones.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_tls::listing::Listing;
use tidegate_tls::{ClientContext, ServerContext};

use crate::control::Control;
use crate::snapshot::{Snapshot, TransportSnapshot};

/// Every TLS context towards clients, with its listener's name, each once.
fn server_contexts(snapshot: &Snapshot) -> Vec<(&str, &Arc<ServerContext>)> {
    let mut contexts: Vec<(&str, &Arc<ServerContext>)> = Vec::new();
    for listener in &snapshot.listeners {
        for chain in &listener.chains {
            if let TransportSnapshot::Tls(context) | TransportSnapshot::Quic(context) = &chain.transport
                && !contexts.iter().any(|(_, known)| Arc::ptr_eq(known, context))
            {
                contexts.push((&listener.config.name, context));
            }
        }
    }
    contexts
}

/// Every TLS context towards hosts, with its cluster's name.
fn client_contexts(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Arc<ClientContext>)> {
    let clusters = snapshot.clusters.iter().map(|cluster| &**cluster.name());
    let all = |name| snapshot.client_contexts.get(name).into_iter().flatten();
    clusters.flat_map(move |name| all(name).map(move |context| (name, context)))
}

/// The files that the contexts were made from.
pub(crate) fn files(snapshot: &Snapshot) -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<_> =
        server_contexts(snapshot).into_iter().flat_map(|(_, context)| context.files()).collect();
    files.extend(client_contexts(snapshot).flat_map(|(_, context)| context.files()));
    files
}

/// Takes over what changed in the files. New handshakes see it; connections and sessions go on. A context whose
/// new files are bad keeps the old ones.
pub(crate) fn refresh(control: &Control) {
    let snapshot = control.snapshot();
    for (listener, context) in server_contexts(&snapshot) {
        tell(&format!("listener `{listener}`"), context.refresh());
    }
    for (cluster, context) in client_contexts(&snapshot) {
        tell(&format!("cluster `{cluster}`"), context.refresh());
    }
    show_expiry(control);
}

fn tell(owner: &str, outcome: Result<bool, String>) {
    match outcome {
        Ok(false) => {}
        Ok(true) => tracing::info!(target: "config", "{owner}: changed certificate files taken over"),
        Err(error) => tracing::warn!(target: "config",
            "{owner}: changed certificate files refused, the old ones go on serving: {error}"),
    }
}

/// `server.days_until_first_cert_expiring`, as Envoy counts: whole days, 0 for an expired one, the largest
/// number of 32 bits without certificates.
pub(crate) fn show_expiry(control: &Control) {
    let listings = listings(&control.snapshot());
    let certificates = listings.iter().flat_map(|listing| listing.ca.iter().chain(&listing.chain));
    let first = certificates.map(|listed| days_until(listed.info.not_after)).min();
    let days = first.unwrap_or(u64::from(u32::MAX));
    control.stats.server.days_until_first_cert_expiring().set(i64::try_from(days).unwrap_or(i64::MAX));
}

/// The certificates of every context.
pub(crate) fn listings(snapshot: &Snapshot) -> Vec<Listing> {
    let downstream = server_contexts(snapshot).into_iter().map(|(_, context)| context.listing());
    downstream.chain(client_contexts(snapshot).map(|(_, context)| context.listing())).collect()
}

/// Whole days; 0 for what is past.
pub(crate) fn days_until(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::now()).map_or(0, |left| left.as_secs() / (24 * 60 * 60))
}

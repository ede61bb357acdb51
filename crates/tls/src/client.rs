//! TLS towards hosts: a cluster's `UpstreamTlsContext`, and the [`Transport`] that it makes of connections.
//!
//! A [`ClientContext`] is made once for a cluster and shared by all workers; each worker's pools take a
//! [`Transport`] from it. Which names are asked for, and which a certificate must carry, may differ between the
//! connections of a cluster: see [`tidegate_net::TransportOptions`].

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::{ClientConfig, Resumption, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tidegate_config::tls::UpstreamTls;
use tidegate_net::{Transport, TransportFactory};
use tidegate_types::json::Problem;

use crate::io::Settings;
use crate::listing::{Listing, listing, show_expiry};
use crate::stats::TlsStats;
use crate::verify::{HostNames, ServerVerifier, Trust};

mod identity;
mod params;
mod transport;

pub use identity::identity;
pub use params::{provider, versions};

use transport::ClientTransport;

/// A cluster's TLS.
pub struct ClientContext {
    stats: TlsStats,
    state: ArcSwap<State>,
}

/// A [`ClientContext`] as a cluster takes it.
#[derive(Clone, Debug)]
pub struct SharedContext(pub Arc<ClientContext>);

/// What a change of its files replaces.
struct State {
    config: Arc<UpstreamTls>,
    trust: Arc<Trust>,
    settings: Arc<Settings>,
    tls: Arc<ClientConfig>,
    /// Configurations whose verifier asks for names of a request's own. A session is resumed without a look at
    /// the certificate, so it must not be shared with connections that ask for others: rustls keeps sessions
    /// of different verifiers apart.
    by_names: Mutex<HashMap<Vec<Arc<str>>, Arc<ClientConfig>>>,
}

/// Sets of names for which sessions are kept. Clients choose them by their requests' hosts: this bounds what they
/// make us hold.
const MAX_NAME_SETS: usize = 256;

impl ClientContext {
    /// Loads keys and certificates. To be called when a configuration is built.
    ///
    /// # Errors
    /// What is wrong with the content of files and inline texts, with their places.
    pub fn new(config: &Arc<UpstreamTls>, stats: TlsStats) -> Result<Arc<Self>, Vec<Problem>> {
        let state = State::new(config.clone(), &stats)?;
        show_expiry(&config.common, &stats);
        Ok(Arc::new(Self { stats, state: ArcSwap::from_pointee(state) }))
    }

    /// Reads the files anew: whether anything changed. Handshakes that begin then see the new ones; connections
    /// go on.
    ///
    /// # Errors
    /// What is wrong with the new content; the old goes on serving.
    pub fn refresh(&self) -> Result<bool, String> {
        let old = self.state.load();
        let Some(common) = old.config.common.reread().map_err(|problem| problem.message)? else {
            return Ok(false);
        };
        let config = UpstreamTls { common, ..(*old.config).clone() };
        let new = State::new(Arc::new(config), &self.stats).map_err(|problems| {
            problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
        })?;
        show_expiry(&new.config.common, &self.stats);
        self.state.store(Arc::new(new));
        Ok(true)
    }

    /// The files that it was made from.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.state.load().config.common.files().map(PathBuf::from).collect()
    }

    /// Its certificates as they are now.
    pub fn listing(&self) -> Listing {
        listing(&self.state.load().config.common)
    }

    /// The configuration, with the files' content as it was last read.
    pub fn config(&self) -> Arc<UpstreamTls> {
        self.state.load().config.clone()
    }

    /// The transport of connections to one host. `hostname` is the endpoint's, for `auto_host_sni`; `fallback_alpn`
    /// is offered if nothing else is configured or asked for.
    pub fn transport(self: &Arc<Self>, hostname: &str, fallback_alpn: &[&[u8]]) -> Rc<dyn Transport> {
        Rc::new(ClientTransport::new(self.clone(), hostname, fallback_alpn))
    }
}

impl State {
    fn new(config: Arc<UpstreamTls>, stats: &TlsStats) -> Result<Self, Vec<Problem>> {
        let trust = Trust::new(config.common.validation.as_deref(), stats.clone());
        let key = config.common.certificates.first().map(identity).transpose();
        let (trust, key) = match (trust, key) {
            (Ok(trust), Ok(key)) => (trust, key),
            (trust, key) => return Err(trust.err().into_iter().flatten().chain(key.err()).collect()),
        };
        let local = key.as_ref().and_then(|key| crate::certificate::facts(&key.cert).ok()).map(Arc::new);
        let names = if config.auto_sni_san_validation { HostNames::AsAsked } else { HostNames::Any };
        let verifier = ServerVerifier::new(trust.clone(), names, config.enforce_rsa_key_usage);
        let builder = ClientConfig::builder_with_provider(Arc::new(provider(&config.common.params)))
            .with_protocol_versions(&versions(&config.common.params))
            .map_err(|error| vec![config.place.problem(format!("these TLS parameters do not fit: {error}"))])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut tls = match key {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        tls.resumption = resumption(&config);
        let settings = Settings {
            stats: stats.clone(),
            close_notify: config.close_notify,
            timed_out: None,
            peer_validated: trust.validates(),
            authorities: listing(&config.common).ca.into_iter().map(|listed| listed.info).collect(),
            local,
        };
        Ok(Self {
            config,
            trust,
            settings: Arc::new(settings),
            tls: Arc::new(tls),
            by_names: Mutex::default(),
        })
    }

    /// A connection that is yet to begin its handshake.
    fn session(
        &self,
        name: Option<ServerName<'static>>,
        alpn: Vec<Vec<u8>>,
        verify_names: &[Arc<str>],
    ) -> Result<UnbufferedClientConnection, rustls::Error> {
        let tls = if verify_names.is_empty() { self.tls.clone() } else { self.with_names(verify_names) };
        // An address is not sent, whatever it is.
        let name = name.unwrap_or_else(|| ServerName::from(std::net::Ipv4Addr::UNSPECIFIED));
        UnbufferedClientConnection::new_with_alpn(tls, name.to_owned(), alpn)
    }

    /// Takes a lock: once a connection.
    fn with_names(&self, names: &[Arc<str>]) -> Arc<ClientConfig> {
        let mut all = self.by_names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(names) {
            return known.clone();
        }
        let mut tls = (*self.tls).clone();
        let wanted = HostNames::OneOf(names.iter().map(|name| (**name).to_owned()).collect());
        let verifier = ServerVerifier::new(self.trust.clone(), wanted, self.config.enforce_rsa_key_usage);
        tls.dangerous().set_certificate_verifier(Arc::new(verifier));
        tls.resumption = resumption(&self.config);
        let tls = Arc::new(tls);
        if all.len() >= MAX_NAME_SETS {
            all.clear();
        }
        all.insert(names.to_vec(), tls.clone());
        tls
    }
}

/// `max_session_keys` counts server names here, each with what tickets its host sends.
fn resumption(config: &UpstreamTls) -> Resumption {
    match config.max_session_keys {
        0 => Resumption::disabled(),
        // The library rounds up to whole names of 8 tickets.
        keys => Resumption::in_memory_sessions((keys as usize).saturating_mul(8)),
    }
}

impl TransportFactory for SharedContext {
    fn of_host(&self, hostname: &str, fallback_alpn: &[&[u8]]) -> Rc<dyn Transport> {
        self.0.transport(hostname, fallback_alpn)
    }
}

impl std::fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientContext").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! TLS towards hosts: a cluster's `UpstreamTlsContext`, and the [`Transport`] that it makes of connections.
//!
//! A [`ClientContext`] is made once for a cluster and shared by all workers; each worker's pools take a
//! [`Transport`] from it. Which names are asked for, and which a certificate must carry, may differ between the
//! connections of a cluster: see [`tidegate_net::TransportOptions`].

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rustls::SupportedProtocolVersion;
use rustls::client::{ClientConfig, Resumption, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tidegate_config::tls::UpstreamTls;
use tidegate_net::{Transport, TransportFactory, TransportOptions};
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
    tcp: Sessions,
    /// Those inside QUIC, made for the first of them. They are kept apart from those of TCP: what the tickets of the
    /// one hold is of no use to the other.
    quic: OnceLock<Result<Sessions, rustls::Error>>,
    identity: Option<CertifiedKey>,
}

/// What sessions over one carrier begin with.
struct Sessions {
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

    /// The name that a connection asks for: the request's (`auto_sni`), the host's (`auto_host_sni`), or the
    /// configured one; `None` for an address.
    pub(crate) fn name_for(
        &self,
        options: &TransportOptions,
        hostname: Option<&ServerName<'static>>,
    ) -> Option<ServerName<'static>> {
        self.state.load().name_for(options, hostname)
    }

    /// What a session inside QUIC begins with.
    pub(crate) fn quic(
        &self,
        verify_names: &[Arc<str>],
    ) -> Result<(Arc<ClientConfig>, Arc<Settings>), rustls::Error> {
        let state = self.state.load();
        let tls = state.quic()?.for_names(verify_names, &state);
        Ok((tls, state.settings.clone()))
    }

    /// The configured protocols.
    pub(crate) fn alpn(&self) -> Vec<Vec<u8>> {
        let state = self.state.load();
        state.config.common.alpn_protocols.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    /// Whether a host's certificate is verified against authorities.
    pub fn verifies(&self) -> bool {
        self.state.load().trust.validates()
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
        let versions = versions(&config.common.params);
        let names = if config.auto_sni_san_validation { HostNames::AsAsked } else { HostNames::Any };
        let tcp = Sessions::new(&config, &trust, key.as_ref(), &versions, names);
        let tcp = tcp.map_err(|error| {
            vec![config.place.problem(format!("these TLS parameters do not fit: {error}"))]
        })?;
        let settings = Settings {
            stats: stats.clone(),
            close_notify: config.close_notify,
            timed_out: None,
            peer_validated: trust.validates(),
            authorities: listing(&config.common).ca.into_iter().map(|listed| listed.info).collect(),
            local,
        };
        Ok(Self { config, trust, settings: Arc::new(settings), tcp, quic: OnceLock::new(), identity: key })
    }

    fn name_for(
        &self,
        options: &TransportOptions,
        hostname: Option<&ServerName<'static>>,
    ) -> Option<ServerName<'static>> {
        let configured = || self.config.sni.as_deref().and_then(server_name);
        match &options.server_name {
            // An address takes the place of what is configured, too: nothing is asked for.
            Some(name) => server_name(name),
            None if self.config.auto_host_sni => hostname.cloned().or_else(configured),
            None => configured(),
        }
    }

    /// A connection that is yet to begin its handshake.
    fn session(
        &self,
        name: Option<ServerName<'static>>,
        alpn: Vec<Vec<u8>>,
        verify_names: &[Arc<str>],
    ) -> Result<UnbufferedClientConnection, rustls::Error> {
        let tls = self.tcp.for_names(verify_names, self);
        // An address is not sent, whatever it is.
        let name = name.unwrap_or_else(|| ServerName::from(std::net::Ipv4Addr::UNSPECIFIED));
        UnbufferedClientConnection::new_with_alpn(tls, name.to_owned(), alpn)
    }

    /// Those inside QUIC (RFC 9001 §4.2: TLS 1.3 or later).
    fn quic(&self) -> Result<&Sessions, rustls::Error> {
        let made = self.quic.get_or_init(|| {
            let versions = [&rustls::version::TLS13];
            // Inside QUIC, Envoy looks for the name that was asked for in every certificate that it verifies.
            let names = if self.trust.validates() { HostNames::AsAsked } else { HostNames::Any };
            let mut sessions =
                Sessions::new(&self.config, &self.trust, self.identity.as_ref(), &versions, names)?;
            Arc::make_mut(&mut sessions.tls).enable_early_data = true;
            Ok(sessions)
        });
        made.as_ref().map_err(Clone::clone)
    }
}

impl Sessions {
    fn new(
        config: &UpstreamTls,
        trust: &Arc<Trust>,
        key: Option<&CertifiedKey>,
        versions: &[&'static SupportedProtocolVersion],
        names: HostNames,
    ) -> Result<Self, rustls::Error> {
        let verifier = ServerVerifier::new(trust.clone(), names, config.enforce_rsa_key_usage);
        let builder = ClientConfig::builder_with_provider(Arc::new(provider(&config.common.params)))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut tls = match key {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone()))),
            None => builder.with_no_client_auth(),
        };
        tls.resumption = resumption(config);
        Ok(Self { tls: Arc::new(tls), by_names: Mutex::default() })
    }

    /// For connections whose host's certificate must carry one of `names`, unless there are none. Takes a lock: once
    /// a connection.
    fn for_names(&self, names: &[Arc<str>], state: &State) -> Arc<ClientConfig> {
        if names.is_empty() {
            return self.tls.clone();
        }
        let mut all = self.by_names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(names) {
            return known.clone();
        }
        let mut tls = (*self.tls).clone();
        let wanted = HostNames::OneOf(names.iter().map(|name| (**name).to_owned()).collect());
        let verifier = ServerVerifier::new(state.trust.clone(), wanted, state.config.enforce_rsa_key_usage);
        tls.dangerous().set_certificate_verifier(Arc::new(verifier));
        tls.resumption = resumption(&state.config);
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

/// A name as it can be asked for; `None` for an address or what is no name.
pub(crate) fn server_name(name: &str) -> Option<ServerName<'static>> {
    match ServerName::try_from(name.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => Some(name),
        _ => None,
    }
}

/// Stands for no name: an address is not sent, whatever it is (RFC 6066 §3).
pub(crate) const NO_NAME: &str = "0.0.0.0";

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

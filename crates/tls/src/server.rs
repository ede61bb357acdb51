//! [`ServerContext`]: TLS towards clients, made once from a `DownstreamTlsContext` and shared by the workers.
//!
//! Its files may change: [`ServerContext::refresh`] swaps what they hold in, for the handshakes that begin
//! then. Who watches them is not its business.

mod choice;
mod refused;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use rustls::SupportedProtocolVersion;
use rustls::quic;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig, UnbufferedServerConnection};
use tidegate_config::tls::{DownstreamTls, TicketKey, TlsConfig};
use tidegate_config::transport::QuicDownstream;
use tidegate_net::{BoxIo, ServerTransport};
use tidegate_stats::OwnedCounter;
use tidegate_types::ConnectionInfo;
use tidegate_types::json::Problem;

use crate::listing::{Listing, listing, show_expiry};
use crate::quic::Session;
use crate::sessions::Sessions;
use crate::tickets::Tickets;
use crate::verify::{ClientVerifier, Trust};
use crate::{Settings, TlsIo, TlsStats, client};
use choice::{Choice, Identity};

/// Everything that a listener's filter chain needs to speak TLS.
pub struct ServerContext {
    carrier: Carrier,
    stats: TlsStats,
    timed_out: Option<OwnedCounter>,
    current: ArcSwap<Current>,
}

/// What carries the TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Tcp,
    Quic { early_data: bool, resumption: bool },
}

/// What was made of the files.
struct Current {
    config: DownstreamTls,
    rustls: Arc<ServerConfig>,
    /// For clients that share no protocol; `None` without ALPN.
    without_alpn: Option<Arc<ServerConfig>>,
    settings: Arc<Settings>,
    tickets: Option<Arc<Tickets>>,
}

impl ServerContext {
    /// Makes the context. `timed_out` counts handshakes that took too long.
    ///
    /// # Errors
    /// What the content of certificates, keys and authorities has wrong, at its place in the configuration.
    pub fn new(
        config: &DownstreamTls,
        stats: TlsStats,
        timed_out: Option<OwnedCounter>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        Self::of(config, Carrier::Tcp, stats, timed_out)
    }

    /// Makes the context of a filter chain whose connections are QUIC's.
    ///
    /// # Errors
    /// As [`ServerContext::new`].
    pub fn quic(config: &QuicDownstream, stats: TlsStats) -> Result<Arc<Self>, Vec<Problem>> {
        let carrier = Carrier::Quic { early_data: config.early_data, resumption: config.resumption };
        Self::of(&config.tls, carrier, stats, None)
    }

    fn of(
        config: &DownstreamTls,
        carrier: Carrier,
        stats: TlsStats,
        timed_out: Option<OwnedCounter>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let current = Current::new(config.clone(), carrier, &stats, timed_out.as_ref(), None)?;
        show_expiry(&current.config.common, &stats);
        Ok(Arc::new(Self { carrier, stats, timed_out, current: ArcSwap::from_pointee(current) }))
    }

    /// A session of a QUIC connection; `None` of a context that is not QUIC's.
    pub(crate) fn quic_session(&self, suite: quic::Suite, parameters: Vec<u8>) -> Option<Session> {
        let current = self.current.load();
        let tls = quic::ServerConnection::new(current.rustls.clone(), quic::Version::V1, parameters).ok()?;
        Some(Session::new(quic::Connection::Server(tls), suite, current.settings.clone()))
    }

    /// A key of QUIC's stateless resets (RFC 9000 §10.3.2): made from the certificate's private key, so that a process
    /// that is started again, and any other with the same certificate, still ends the connections of this one.
    pub fn reset_key(&self) -> Option<[u8; 32]> {
        let current = self.current.load();
        let certificate = current.config.common.certificates.first()?;
        let secret = Salt::new(HKDF_SHA256, &[]).extract(&certificate.key.bytes);
        let mut key = [0; 32];
        secret.expand(&[b"tidegate stateless reset"], HKDF_SHA256).ok()?.fill(&mut key).ok()?;
        Some(key)
    }

    /// The context for the connections of one worker.
    pub fn transport(self: &Arc<Self>) -> Rc<dyn ServerTransport> {
        Rc::new(OnWorker(self.clone()))
    }

    /// The files that it was made from.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let current = self.current.load();
        let keys = current.config.ticket_keys.iter().filter_map(|key| key.source.filename.as_deref());
        current.config.common.files().chain(keys).map(PathBuf::from).collect()
    }

    /// Its certificates as they are now.
    pub fn listing(&self) -> Listing {
        listing(&self.current.load().config.common)
    }

    /// Reads the files anew: whether anything changed. Handshakes that begin then see the new ones;
    /// connections and sessions go on.
    ///
    /// # Errors
    /// What is wrong with the new content; the old goes on serving.
    pub fn refresh(&self) -> Result<bool, String> {
        let old = self.current.load_full();
        let common = old.config.common.reread().map_err(|problem| problem.message)?;
        let keys = old.config.ticket_keys.iter().map(TicketKey::reread);
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|problem| problem.message)?;
        if common.is_none() && keys == old.config.ticket_keys {
            return Ok(false);
        }
        let common = common.unwrap_or_else(|| old.config.common.clone());
        let config = DownstreamTls { common, ticket_keys: keys, ..old.config.clone() };
        let new = Current::new(config, self.carrier, &self.stats, self.timed_out.as_ref(), Some(&old));
        let new = new.map_err(|problems| {
            problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
        })?;
        show_expiry(&new.config.common, &self.stats);
        self.current.store(Arc::new(new));
        Ok(true)
    }
}

impl Current {
    fn new(
        config: DownstreamTls,
        carrier: Carrier,
        stats: &TlsStats,
        timed_out: Option<&OwnedCounter>,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<Problem>> {
        let common = &config.common;
        let provider = Arc::new(client::provider(&common.params));
        let mut problems = Vec::new();
        let mut identities = Vec::new();
        for certificate in &common.certificates {
            match client::identity(certificate) {
                Ok(key) => identities.extend(Identity::new(key)),
                Err(problem) => problems.push(problem),
            }
        }
        let trust = match Trust::new(common.validation.as_deref(), stats.clone()) {
            Ok(trust) if problems.is_empty() => trust,
            Ok(_) => return Err(problems),
            Err(more) => {
                problems.extend(more);
                return Err(problems);
            }
        };
        let internal = |error: rustls::Error| vec![config.place.problem(error.to_string())];
        let choice = Choice::new(identities, config.full_scan_certs_on_sni_mismatch, config.require_sni);
        let verifier = ClientVerifier::new(trust.clone(), config.require_client_certificate);
        let mut rustls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(common, carrier))
            .map_err(internal)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(choice));
        rustls.ignore_client_order = !common.params.cipher_suites.is_empty() && !config.prefer_client_ciphers;
        let tickets = match carrier {
            Carrier::Tcp => sessions(&config, &mut rustls, previous),
            Carrier::Quic { early_data, resumption } => {
                quic_sessions(&config, &mut rustls, early_data, resumption, previous)
            }
        };
        let without_alpn = (!common.alpn_protocols.is_empty()).then(|| Arc::new(rustls.clone()));
        rustls.alpn_protocols = common.alpn_protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        if let (Carrier::Quic { .. }, []) = (carrier, &*rustls.alpn_protocols) {
            rustls.alpn_protocols = vec![HTTP3.to_vec()];
        }
        let rustls = Arc::new(rustls);
        // What it refuses now it would refuse each client.
        match carrier {
            Carrier::Tcp => UnbufferedServerConnection::new(rustls.clone()).map(drop),
            Carrier::Quic { .. } => {
                quic::ServerConnection::new(rustls.clone(), quic::Version::V1, Vec::new()).map(drop)
            }
        }
        .map_err(internal)?;
        let settings = Arc::new(Settings {
            stats: stats.clone(),
            close_notify: config.close_notify,
            timed_out: timed_out.cloned(),
            peer_validated: trust.validates(),
            authorities: listing(&config.common).ca.into_iter().map(|listed| listed.info).collect(),
            local: None,
        });
        Ok(Self { config, rustls, without_alpn, settings, tickets })
    }
}

/// How sessions are resumed, as `disable_*_session_resumption` say. In TLS 1.3, without tickets there is no
/// resumption, as in Envoy.
fn sessions(
    config: &DownstreamTls,
    rustls: &mut ServerConfig,
    previous: Option<&Current>,
) -> Option<Arc<Tickets>> {
    rustls.session_storage = if config.disable_stateful_session_resumption {
        Arc::new(NoServerSessionStorage {})
    } else {
        Sessions::new(MAX_SESSIONS)
    };
    let tickets = match previous {
        _ if config.disable_stateless_session_resumption => None,
        // A new certificate is no reason to forget sessions.
        Some(previous)
            if previous.config.ticket_keys == config.ticket_keys
                && previous.config.common.validation == config.common.validation =>
        {
            previous.tickets.clone()
        }
        _ if config.ticket_keys.is_empty() => Tickets::own(config.session_timeout).map(Arc::new),
        _ => {
            let keys = config.ticket_keys.iter().map(|key| &key.source.bytes[..]);
            Tickets::configured(keys, &scope(config), config.session_timeout).map(Arc::new)
        }
    };
    match &tickets {
        Some(tickets) => rustls.ticketer = tickets.clone() as Arc<dyn ProducesTickets>,
        None => rustls.send_tls13_tickets = 0,
    }
    tickets
}

fn versions(common: &TlsConfig, carrier: Carrier) -> Vec<&'static SupportedProtocolVersion> {
    match carrier {
        Carrier::Tcp => client::versions(&common.params),
        // RFC 9001 §4.2.
        Carrier::Quic { .. } => vec![&rustls::version::TLS13],
    }
}

/// How sessions inside QUIC are resumed. Early data needs sessions that the server keeps: each is used once, so that
/// nobody can replay what came with it (RFC 8446 §8.1). Keys that proxies share, and tickets, go without.
fn quic_sessions(
    config: &DownstreamTls,
    rustls: &mut ServerConfig,
    early_data: bool,
    resumption: bool,
    previous: Option<&Current>,
) -> Option<Arc<Tickets>> {
    let kept = !config.disable_stateful_session_resumption && config.ticket_keys.is_empty();
    if !resumption {
        rustls.session_storage = Arc::new(NoServerSessionStorage {});
        rustls.send_tls13_tickets = 0;
        return None;
    }
    if !kept || !early_data && !config.disable_stateless_session_resumption {
        return sessions(config, rustls, previous);
    }
    let same = |previous: &&Current| previous.config.common.validation == config.common.validation;
    rustls.session_storage = match previous.filter(same) {
        // A new certificate is no reason to forget sessions.
        Some(previous) => previous.rustls.session_storage.clone(),
        None => Sessions::new(MAX_SESSIONS),
    };
    if early_data {
        // All or nothing, in QUIC (RFC 9001 §4.6.1).
        rustls.max_early_data_size = u32::MAX;
    }
    None
}

/// Whom a session may stand for: sessions are shared only among servers that ask the same of clients.
fn scope(config: &DownstreamTls) -> Vec<u8> {
    let mut scope = vec![u8::from(config.require_client_certificate)];
    if let Some(validation) = &config.common.validation {
        let content = |source: Option<&tidegate_config::values::DataSource>| {
            source.map(|source| source.bytes.clone()).unwrap_or_default()
        };
        scope.extend_from_slice(&content(validation.trusted_ca.as_ref()));
        scope.extend_from_slice(&content(validation.crl.as_ref()));
        let rules = (
            &validation.certificate_hashes,
            &validation.spki_hashes,
            &validation.names,
            validation.trust_chain,
            validation.allow_expired_certificate,
            validation.max_verify_depth,
        );
        scope.extend_from_slice(format!("{rules:?}").as_bytes());
    }
    scope
}

/// A context as a worker's chains hold it.
struct OnWorker(Arc<ServerContext>);

impl ServerTransport for OnWorker {
    fn accept(&self, io: BoxIo, connection: &Rc<ConnectionInfo>, timeout: Option<Duration>) -> BoxIo {
        let current = self.0.current.load();
        match UnbufferedServerConnection::new(current.rustls.clone()) {
            Ok(session) => Box::new(TlsIo::server(
                io,
                session,
                current.settings.clone(),
                current.without_alpn.clone(),
                connection.clone(),
                timeout,
            )),
            // It was tried when the context was made.
            Err(_) => Box::new(refused::Refused),
        }
    }
}

impl std::fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerContext").field("files", &self.files()).finish_non_exhaustive()
    }
}

/// What a QUIC context speaks unless it is told otherwise (RFC 9114 §3.1).
const HTTP3: &[u8] = b"h3";

/// Sessions that a context remembers for clients of TLS 1.2 without tickets (BoringSSL's
/// `SSL_SESSION_CACHE_MAX_SIZE_DEFAULT`): bounds what they make us hold, about 5 MB.
const MAX_SESSIONS: usize = 20 * 1024;

//! A cluster's QUIC: what connections to a host begin with.

use std::borrow::Cow;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Connection, Suite, Version};
use tidegate_config::protocol::Http3Options;
use tidegate_net::{TransportError, TransportOptions};
use tidegate_quic::proto::crypto;
use tidegate_quic::proto::transport_parameters::TransportParameters;
use tidegate_quic::proto::{ConnectError, TokenMemoryCache, TokenStore};
use tidegate_quic::{ClientConfig, TransportConfig};

use super::client_transport;
use super::session::{Session, initial_suite};
use crate::ClientContext;
use crate::client::{NO_NAME, server_name};
use crate::io::Settings;

/// The QUIC of connections to one host.
pub struct QuicClient {
    context: Arc<ClientContext>,
    hostname: Option<ServerName<'static>>,
    transport: Arc<TransportConfig>,
    /// Tokens that spare a Retry (RFC 9000 §8.1.3).
    tokens: Arc<dyn TokenStore>,
}

/// What a connection begins with.
pub struct Beginning {
    /// For [`tidegate_quic::connect`].
    pub config: ClientConfig,
    /// Likewise: the name that is asked for (SNI), an address where there is none.
    pub server_name: String,
}

impl QuicClient {
    /// `hostname` is the endpoint's, for `auto_host_sni`.
    pub fn new(context: Arc<ClientContext>, hostname: &str, options: &Http3Options) -> Self {
        Self {
            context,
            hostname: server_name(hostname),
            transport: Arc::new(client_transport(options)),
            tokens: Arc::new(TokenMemoryCache::default()),
        }
    }

    /// What a connection for streams that ask for `options` begins with.
    ///
    /// # Errors
    /// What TLS has against it.
    pub fn begin(&self, options: &TransportOptions) -> Result<Beginning, TransportError> {
        let (sessions, server_name) = self.sessions(options)?;
        let mut config = ClientConfig::new(sessions);
        config.transport_config(self.transport.clone()).token_store(self.tokens.clone());
        Ok(Beginning { config, server_name })
    }

    /// The TLS of a connection for streams that ask for `options`, and the name that it asks for.
    pub(super) fn sessions(
        &self,
        options: &TransportOptions,
    ) -> Result<(Arc<dyn crypto::ClientConfig>, String), TransportError> {
        let configured = self.context.alpn();
        let alpn = if !options.alpn.is_empty() {
            options.alpn.iter().map(|name| name.to_vec()).collect()
        } else if configured.is_empty() {
            vec![HTTP3.to_vec()]
        } else {
            configured
        };
        let failed = |error: &str| TransportError {
            reason: Cow::Owned(format!("TLS_error:|{error}:TLS_error_end").replace(' ', "_")),
            closed_by_peer: false,
        };
        let suite = initial_suite().ok_or_else(|| failed("no suite for QUIC"))?;
        let (tls, settings) =
            self.context.quic(&options.verify_names).map_err(|error| failed(&error.to_string()))?;
        let name = self.name(options);
        let server_name = name.as_ref().map_or(Cow::Borrowed(NO_NAME), ServerName::to_str).into_owned();
        Ok((Arc::new(Sessions { tls, settings, suite, alpn }), server_name))
    }

    /// The name that is asked for, for streams that ask for `options`: the host of the origin.
    pub fn server_name(&self, options: &TransportOptions) -> Option<Arc<str>> {
        self.name(options).map(|name| name.to_str().as_ref().into())
    }

    /// Whether certificates are verified against authorities: only then names in them mean something.
    pub fn verifies(&self) -> bool {
        self.context.verifies()
    }

    fn name(&self, options: &TransportOptions) -> Option<ServerName<'static>> {
        self.context.name_for(options, self.hostname.as_ref())
    }
}

/// Sessions of one connection's beginning.
struct Sessions {
    tls: Arc<rustls::ClientConfig>,
    settings: Arc<Settings>,
    suite: Suite,
    alpn: Vec<Vec<u8>>,
}

impl crypto::ClientConfig for Sessions {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let refused = || ConnectError::InvalidServerName(server_name.to_owned());
        if version != 1 {
            return Err(ConnectError::UnsupportedVersion);
        }
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| refused())?;
        let mut encoded = Vec::new();
        parameters.write(&mut encoded);
        let (tls, alpn) = (self.tls.clone(), self.alpn.clone());
        let tls = ClientConnection::new_with_alpn(tls, Version::V1, name, encoded, alpn);
        let tls = Connection::Client(tls.map_err(|_| refused())?);
        let asked = (server_name != NO_NAME).then(|| server_name.into());
        Ok(Box::new(Session::new(tls, self.suite, self.settings.clone()).asking(asked)))
    }
}

/// RFC 9114 §3.1.
const HTTP3: &[u8] = b"h3";

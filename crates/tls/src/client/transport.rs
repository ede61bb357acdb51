//! A handshake for each connection to one host.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tidegate_net::{BoxIo, Connecting, Io, Transport, TransportError, TransportOptions};

use super::{ClientContext, server_name};
use crate::io::TlsIo;

/// The transport of connections to one host.
pub(super) struct ClientTransport {
    context: Arc<ClientContext>,
    hostname: Option<ServerName<'static>>,
    fallback_alpn: Vec<Vec<u8>>,
}

impl ClientTransport {
    pub(super) fn new(context: Arc<ClientContext>, hostname: &str, fallback_alpn: &[&[u8]]) -> Self {
        Self {
            context,
            hostname: server_name(hostname),
            fallback_alpn: fallback_alpn.iter().map(|name| name.to_vec()).collect(),
        }
    }

    fn begin(&self, io: BoxIo, options: &TransportOptions) -> Result<TlsIo, rustls::Error> {
        let state = self.context.state.load();
        let config = &state.config;
        let name = state.name_for(options, self.hostname.as_ref());
        let alpn = if !options.alpn.is_empty() {
            options.alpn.iter().map(|name| name.to_vec()).collect()
        } else if !config.common.alpn_protocols.is_empty() {
            config.common.alpn_protocols.iter().map(|name| name.as_bytes().to_vec()).collect()
        } else {
            self.fallback_alpn.clone()
        };
        let asked = name.as_ref().map(|name| name.to_str().as_ref().into());
        let session = state.session(name, alpn, &options.verify_names)?;
        Ok(TlsIo::client(io, session, state.settings.clone()).asking(asked))
    }
}

impl Transport for ClientTransport {
    fn connect(&self, io: BoxIo, options: Rc<TransportOptions>) -> Connecting {
        let begun = self.begin(io, &options);
        Box::pin(async move {
            let mut tls = begun.map_err(|error| TransportError {
                reason: Cow::Owned(format!("TLS_error:|{error}:TLS_error_end").replace(' ', "_")),
                closed_by_peer: false,
            })?;
            match poll_fn(|cx| tls.poll_handshake(cx)).await {
                Ok(()) => Ok(Box::new(tls) as BoxIo),
                Err(error) => Err(TransportError {
                    reason: tls.failure().map_or(Cow::Borrowed(""), |text| text.replace(' ', "_").into()),
                    closed_by_peer: error.kind() != ErrorKind::InvalidData,
                }),
            }
        })
    }
}

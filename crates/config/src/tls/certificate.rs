//! `TlsCertificate` and session ticket keys: secrets and where they are read again.

use std::fmt;

use crate::reader::{Message, Reader};
use crate::values::{DataSource, Place, WatchedDirectory};

/// `TlsCertificate`: a chain with its private key, as PEM.
#[derive(Clone, PartialEq)]
pub struct CertificateConfig {
    /// `certificate_chain`, leaf first.
    pub chain: DataSource,
    /// `private_key`.
    pub key: DataSource,
    /// `watched_directory`: a move within it means that the files are to be read again.
    pub watched_directory: Option<String>,
    /// The message.
    pub place: Place,
}

/// Length of a key of `session_ticket_keys`: name (16), HMAC key (32), AES key (32).
pub const TICKET_KEY_BYTES: usize = 80;

/// One of `session_ticket_keys`.
#[derive(Clone, PartialEq)]
pub struct TicketKey {
    /// Where the bytes come from; there are [`TICKET_KEY_BYTES`] of them.
    pub source: DataSource,
}

impl TicketKey {
    pub(super) fn new(r: &Reader<'_>, source: DataSource) -> Option<Self> {
        // A source that could not be read was reported.
        let length = source.bytes.len();
        if length != TICKET_KEY_BYTES && length > 0 {
            let message = format!("a session ticket key has {TICKET_KEY_BYTES} bytes, not {length}");
            r.cx.report(source.place.problem(message));
        }
        (length == TICKET_KEY_BYTES).then_some(Self { source })
    }
}

// What is secret stays out of logs.
impl fmt::Debug for CertificateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateConfig")
            .field("chain", &self.chain.filename)
            .field("key", &self.key.filename)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("filename", &self.source.filename).finish_non_exhaustive()
    }
}

impl Message for Option<CertificateConfig> {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.TlsCertificate";

    fn read(r: &Reader<'_>) -> Self {
        let chain = r.message::<DataSource>("certificate_chain");
        let key = r.message::<DataSource>("private_key");
        let watched = r.message::<WatchedDirectory>("watched_directory").optional();
        // What this build does not support may hold the key: that gets its own report.
        let elsewhere = r.has("private_key_provider") || r.has("pkcs12");
        match (chain.peek(), key.peek()) {
            (None, None) if !elsewhere => r.problem("an empty certificate"),
            (None, Some(_)) => r.problem("missing field `certificate_chain`"),
            (Some(_), None) if !elsewhere => r.problem("missing field `private_key`"),
            _ => {}
        }
        Some(CertificateConfig {
            chain: chain.optional()?,
            key: key.optional()?,
            watched_directory: watched.map(|watched| watched.0),
            place: Place::of(r),
        })
    }
}

//! `forward_client_cert_details`: what becomes of `x-forwarded-client-cert`.

use crate::reader::{Message, Reader};

/// `forward_client_cert_details` and `set_current_client_cert_details`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCertConfig {
    /// What happens to the header.
    pub forward: ForwardClientCert,
    /// What it says of the client's certificate besides its hash.
    pub details: ClientCertDetails,
}

/// `forward_client_cert_details`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// `SANITIZE`: it is removed.
    #[default]
    Sanitize,
    /// `FORWARD_ONLY`: it is kept if the client showed a certificate, and removed otherwise.
    ForwardOnly,
    /// `APPEND_FORWARD`: our element is added if the client showed a certificate; otherwise it is removed.
    AppendForward,
    /// `SANITIZE_SET`: our element replaces it, or nothing does.
    SanitizeSet,
    /// `ALWAYS_FORWARD_ONLY`: it is kept.
    AlwaysForwardOnly,
}

/// `set_current_client_cert_details`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `subject`.
    pub subject: bool,
    /// `cert`: the certificate, PEM, percent-encoded.
    pub cert: bool,
    /// `chain`: likewise with all that the client sent.
    pub chain: bool,
    /// `dns`: the DNS names.
    pub dns: bool,
    /// `uri`: the URIs.
    pub uri: bool,
}

impl ClientCertConfig {
    /// Its fields of the manager that `r` reads.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        const FORWARD: &[(&str, u32, ForwardClientCert)] = &[
            ("SANITIZE", 0, ForwardClientCert::Sanitize),
            ("FORWARD_ONLY", 1, ForwardClientCert::ForwardOnly),
            ("APPEND_FORWARD", 2, ForwardClientCert::AppendForward),
            ("SANITIZE_SET", 3, ForwardClientCert::SanitizeSet),
            ("ALWAYS_FORWARD_ONLY", 4, ForwardClientCert::AlwaysForwardOnly),
        ];
        Self {
            forward: r.enumeration("forward_client_cert_details", FORWARD, &[]).or_default(),
            details: r.message_or_defaults("set_current_client_cert_details"),
        }
    }
}

impl Message for ClientCertDetails {
    const NAME: &'static str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            subject: r.bool("subject").or_default(),
            cert: r.bool("cert").or_default(),
            chain: r.bool("chain").or_default(),
            dns: r.bool("dns").or_default(),
            uri: r.bool("uri").or_default(),
        }
    }
}

//! [`Trust`] as rustls asks for it, on either side.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::chain::Purpose;
use super::{Expected, Trust};
use crate::observed::note_signature;

/// Judges hosts, for a client.
#[derive(Debug)]
pub struct ServerVerifier {
    trust: Arc<Trust>,
    names: HostNames,
    enforce_rsa_key_usage: bool,
    signatures: Signatures,
}

/// Which names a host's certificate must carry, beside the configured rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostNames {
    /// Any.
    #[default]
    Any,
    /// The name that the handshake asks for, if it asks for one (`auto_sni_san_validation`).
    AsAsked,
    /// One of these (`auto_san_validation`).
    OneOf(Vec<String>),
}

impl ServerVerifier {
    /// Judges by `trust`. With `enforce_rsa_key_usage`, an RSA certificate whose key usage excludes signatures
    /// (RFC 5280 §4.2.1.3) is refused.
    pub fn new(trust: Arc<Trust>, names: HostNames, enforce_rsa_key_usage: bool) -> Self {
        Self { trust, names, enforce_rsa_key_usage, signatures: Signatures::new() }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let expected = match (&self.names, server_name) {
            (HostNames::OneOf(names), _) => Expected::OneOf(names),
            (HostNames::AsAsked, ServerName::DnsName(name)) => Expected::ServerName(name.as_ref()),
            // An address is never asked for (RFC 6066 §3).
            (HostNames::AsAsked | HostNames::Any, _) => Expected::Any,
        };
        if self.enforce_rsa_key_usage && !may_sign(end_entity) {
            return Err(Error::General("KEY_USAGE_BIT_INCORRECT".to_owned()));
        }
        let chain = chain(end_entity, intermediates);
        self.trust.verify(&chain, Purpose::Server, &expected, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.0.supported_schemes()
    }
}

/// Judges clients, for a server.
#[derive(Debug)]
pub struct ClientVerifier {
    trust: Arc<Trust>,
    mandatory: bool,
    subjects: Vec<DistinguishedName>,
    signatures: Signatures,
}

impl ClientVerifier {
    /// Judges by `trust`; with `mandatory`, clients without a certificate are refused.
    pub fn new(trust: Arc<Trust>, mandatory: bool) -> Self {
        let subjects = trust.chain.iter().flat_map(|chain| chain.subjects()).collect();
        Self { trust, mandatory, subjects, signatures: Signatures::new() }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        // As Envoy: without anything to check, no certificate is asked for, even if one is required.
        self.trust.checks_anything()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        self.trust.verify(&chain, Purpose::Client, &Expected::Any, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.0.supported_schemes()
    }
}

/// The handshake's signatures, judged alike on either side.
#[derive(Debug)]
struct Signatures(WebPkiSupportedAlgorithms);

impl Signatures {
    fn new() -> Self {
        Self(aws_lc_rs::default_provider().signature_verification_algorithms)
    }

    fn verify_tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        note_signature(dss.scheme);
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        note_signature(dss.scheme);
        verify_tls13_signature(message, cert, dss, &self.0)
    }
}

/// False for an RSA certificate with a key usage that lacks signatures.
fn may_sign(der: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return true };
    let is_rsa = matches!(parsed.public_key().parsed(), Ok(PublicKey::RSA(_)));
    match parsed.key_usage() {
        Ok(Some(usage)) if is_rsa => usage.value.digital_signature(),
        _ => true,
    }
}

/// Borrowed copies: lists of a few pointers.
fn chain<'a>(leaf: &'a CertificateDer<'_>, others: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf)
        .chain(others)
        .map(|certificate| CertificateDer::from(certificate.as_ref()))
        .collect()
}

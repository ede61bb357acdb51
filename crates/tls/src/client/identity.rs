//! A certificate chain with its private key, from PEM.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use tidegate_config::tls::CertificateConfig;
use tidegate_config::values::DataSource;
use tidegate_types::json::Problem;

/// Reads the chain and the key, and sees that they belong together.
///
/// # Errors
/// What is wrong, at the place of the chain or the key.
pub fn identity(config: &CertificateConfig) -> Result<CertifiedKey, Problem> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&config.chain.bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&config.chain, "certificate chain", &format!("bad PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(&config.chain, "certificate chain", "there is no PEM certificate in it"));
    }
    crate::certificate::facts(&chain)
        .map_err(|error| wrong(&config.chain, "certificate chain", &error.to_string()))?;
    let private = |why: &str| wrong(&config.key, "private key", why);
    let key = PrivateKeyDer::from_pem_slice(&config.key.bytes).map_err(|error| {
        if is_encrypted(&config.key.bytes) {
            private("it is encrypted, which is not supported by this build: `openssl pkey` decrypts it")
        } else {
            private(&match error {
                rustls::pki_types::pem::Error::NoItemsFound => "there is no PEM private key in it".to_owned(),
                error => format!("bad PEM: {error}"),
            })
        }
    })?;
    let key = any_supported_type(&key).map_err(|error| private(&error.to_string()))?;
    let key = CertifiedKey::new(chain, Arc::clone(&key));
    match key.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(key),
        Err(_) => Err(private("it does not belong to the certificate")),
    }
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn wrong(source: &DataSource, what: &str, why: &str) -> Problem {
    let place = source.filename.as_ref().map_or_else(String::new, |path| format!(" `{path}`"));
    source.place.problem(format!("the {what}{place} cannot be used: {why}"))
}

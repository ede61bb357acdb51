//! The certificates of a context, as the admin's `/certs` lists them.
//! <https://www.envoyproxy.io/docs/envoy/latest/operations/admin#get--certs>

use std::time::UNIX_EPOCH;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tidegate_config::tls::TlsConfig;
use tidegate_config::values::DataSource;
use tidegate_types::CertificateInfo;

use crate::certificate;
use crate::stats::TlsStats;

/// The certificates of one context.
#[derive(Debug, Default)]
pub struct Listing {
    /// Authorities that it trusts.
    pub ca: Vec<Listed>,
    /// Certificates that it shows: the leaf of each chain.
    pub chain: Vec<Listed>,
}

impl Listing {
    /// Sets `ssl.certificate.<name>.expiration_unix_time_seconds`. Certificates from files have no name of their
    /// own: as in Envoy, those of a context share one gauge, which here shows the first to expire.
    pub(crate) fn show_expiry(&self, stats: &TlsStats) {
        for (name, certificates) in [(CERTIFICATE, &self.chain), (AUTHORITY, &self.ca)] {
            let expiry = certificates.iter().map(|listed| listed.info.not_after).min();
            if let Some(expiry) = expiry.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
                let seconds = i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX);
                stats.gauge(&format!("certificate.{name}.expiration_unix_time_seconds")).set(seconds);
            }
        }
    }
}

/// A certificate and where it is from.
#[derive(Debug)]
pub struct Listed {
    /// The file; `<inline>` for one that stands in the configuration.
    pub path: String,
    /// Its facts.
    pub info: CertificateInfo,
}

/// The certificates of `common`. What cannot be read is left out: it was refused when the context was made.
pub fn listing(common: &TlsConfig) -> Listing {
    let ca = common.validation.iter().filter_map(|validation| validation.trusted_ca.as_ref());
    Listing {
        ca: ca.filter_map(first).collect(),
        chain: common.certificates.iter().filter_map(|certificate| first(&certificate.chain)).collect(),
    }
}

fn first(source: &DataSource) -> Option<Listed> {
    let der = CertificateDer::from_pem_slice(&source.bytes).ok()?;
    let path = source.filename.clone().unwrap_or_else(|| "<inline>".to_owned());
    Some(Listed { path, info: certificate::facts(&[der]).ok()? })
}

/// What Envoy calls certificates without a name: the first digits of the SHA-256 of nothing.
const CERTIFICATE: &str = "unnamed_cert_e3b0c442";
const AUTHORITY: &str = "unnamed_ca_cert_e3b0c442";

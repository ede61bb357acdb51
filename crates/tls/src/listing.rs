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

/// Sets `ssl.certificate.<name>.expiration_unix_time_seconds`. Certificates from files have no name of their
/// own: as in Envoy, those of a context share one gauge, which here shows the first to expire.
pub(crate) fn show_expiry(common: &TlsConfig, stats: &TlsStats) {
    let show = |name: &str, seconds: i64| {
        stats.gauge(&format!("certificate.{name}.expiration_unix_time_seconds")).set(seconds);
    };
    let Listing { ca, chain } = listing(common);
    for (name, certificates) in [(CERTIFICATE, chain), (AUTHORITY, ca)] {
        let expiry = certificates.iter().map(|listed| listed.info.not_after).min();
        if let Some(expiry) = expiry.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
            show(name, i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX));
        }
    }
    if common.validation.as_ref().is_some_and(|validation| validation.trusted_ca.is_none()) {
        // Pinned hashes alone never expire.
        show(NO_AUTHORITY, i64::MAX);
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
        ca: ca.flat_map(all).collect(),
        chain: common.certificates.iter().filter_map(|certificate| all(&certificate.chain).next()).collect(),
    }
}

fn all(source: &DataSource) -> impl Iterator<Item = Listed> + '_ {
    CertificateDer::pem_slice_iter(&source.bytes).filter_map(|der| {
        let path = source.filename.clone().unwrap_or_else(|| "<inline>".to_owned());
        Some(Listed { path, info: certificate::facts(&[der.ok()?]).ok()? })
    })
}

/// What Envoy calls certificates without a name: the first digits of the SHA-256 of nothing.
const CERTIFICATE: &str = "unnamed_cert_e3b0c442";
const AUTHORITY: &str = "unnamed_ca_cert_e3b0c442";
/// What it calls the authority of a validation context that has none.
const NO_AUTHORITY: &str = "unnamed_ca_cert";

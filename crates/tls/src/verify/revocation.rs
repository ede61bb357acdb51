//! Revocation lists that webpki does not read: of version 1, or without the extensions that RFC 5280 §5.2 asks
//! for, as `openssl ca -gencrl` writes them unless told otherwise. Judged as BoringSSL does: every certificate of
//! the path needs a list of its issuer.

use rustls::pki_types::{CertificateRevocationListDer, SignatureVerificationAlgorithm};
use webpki::{Cert, VerifiedPath};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// A revocation list.
pub(super) struct PlainList {
    /// The name's content, without tag and length: as webpki gives names.
    issuer: Vec<u8>,
    /// Serial numbers without leading zeros.
    revoked: Vec<Vec<u8>>,
    signed: Vec<u8>,
    /// The signature's `AlgorithmIdentifier`, without tag and length.
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl PlainList {
    /// `None` of what is no revocation list.
    pub(super) fn read(der: &CertificateRevocationListDer<'_>) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        // RFC 5280 §5.1: the signed part, the algorithm, the signature.
        let signed: &[u8] = list.tbs_cert_list.as_ref();
        let (whole, _) = element(der)?;
        let (algorithm, _) = element(whole.get(signed.len()..)?)?;
        let (issuer, _) = element(list.issuer().as_raw())?;
        // A critical extension narrows what the list is about, which nobody here understands.
        if list.extensions().iter().any(|extension| extension.critical) {
            return None;
        }
        Some(Self {
            issuer: issuer.to_vec(),
            revoked: list.iter_revoked_certificates().map(|entry| number(entry.raw_serial())).collect(),
            signed: signed.to_vec(),
            algorithm: algorithm.to_vec(),
            signature: list.signature_value.data.to_vec(),
        })
    }

    fn is_signed_by(&self, key_info: &[u8], algorithms: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        let Some((key_algorithm, rest)) = element(key_info) else { return false };
        let Some(([0, key @ ..], _)) = element(rest) else { return false };
        algorithms.iter().any(|algorithm| {
            algorithm.signature_alg_id().as_ref() == self.algorithm
                && algorithm.public_key_alg_id().as_ref() == key_algorithm
                && algorithm.verify_signature(key, &self.signed, &self.signature).is_ok()
        })
    }
}

/// Judges the certificates of `path`, or only its leaf.
pub(super) fn check(
    lists: &[PlainList],
    path: &VerifiedPath<'_>,
    leaf_only: bool,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> Result<(), webpki::Error> {
    let leaf: &Cert<'_> = path.end_entity();
    let mut certificates: Vec<&Cert<'_>> = vec![leaf];
    certificates.extend(path.intermediate_certificates());
    for (index, certificate) in certificates.iter().enumerate().take(if leaf_only { 1 } else { usize::MAX }) {
        let issuer_key = match certificates.get(index + 1) {
            Some(issuer) => {
                let info = issuer.subject_public_key_info();
                element(&info).map(|(content, _)| content.to_vec()).unwrap_or_default()
            }
            None => path.anchor().subject_public_key_info.to_vec(),
        };
        let of_issuer = lists
            .iter()
            .filter(|list| list.issuer == certificate.issuer() && list.is_signed_by(&issuer_key, algorithms));
        let mut known = false;
        for list in of_issuer {
            known = true;
            if list.revoked.contains(&number(certificate.serial())) {
                return Err(webpki::Error::CertRevoked);
            }
        }
        if !known {
            return Err(webpki::Error::UnknownRevocationStatus);
        }
    }
    Ok(())
}

fn number(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// The first DER element of `bytes`: its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.get(1..)?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

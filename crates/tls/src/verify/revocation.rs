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

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use webpki::anchor_from_trusted_cert;

    use super::*;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/certs");

    #[test]
    fn only_the_issuers_signature_makes_a_list() {
        let algorithms = default_provider().signature_verification_algorithms.all;
        let key_of = |name: &str| {
            let der = CertificateDer::from_pem_file(format!("{FOLDER}/{name}.pem")).unwrap();
            anchor_from_trusted_cert(&der).unwrap().subject_public_key_info.to_vec()
        };
        let der = CertificateRevocationListDer::from_pem_file(format!("{FOLDER}/plain.crl")).unwrap();
        let mut list = PlainList::read(&der).unwrap();
        assert_eq!(list.revoked, [[0x10, 2]]);
        assert!(list.is_signed_by(&key_of("ca"), algorithms));
        assert!(!list.is_signed_by(&key_of("other-ca"), algorithms));
        *list.signed.last_mut().unwrap() ^= 1;
        assert!(!list.is_signed_by(&key_of("ca"), algorithms));
    }

    #[test]
    fn what_is_cut_is_no_list() {
        let der = CertificateRevocationListDer::from_pem_file(format!("{FOLDER}/plain.crl")).unwrap();
        for length in 0..der.len() {
            let cut = CertificateRevocationListDer::from(&der[..length]);
            assert!(PlainList::read(&cut).is_none(), "{length}");
        }
        assert_eq!(element(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(element(&[0x30, 0x80, 0, 0]), None);
    }
}

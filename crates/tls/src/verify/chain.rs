//! The chain from the peer's certificate to `trusted_ca`, with revocation lists.

use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use tidegate_config::tls::ValidationConfig;
use tidegate_config::values::DataSource;
use tidegate_types::json::Problem;
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, VerifiedPath, anchor_from_trusted_cert,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Refused;
use super::revocation::{self, PlainList};

/// `trusted_ca` and what belongs to it.
pub(super) struct Chain {
    /// Each certificate of the file is trusted for itself, also one that is not a root: BoringSSL's partial
    /// chains.
    anchors: Vec<TrustAnchor<'static>>,
    certificates: Vec<CertificateDer<'static>>,
    revoked: Lists,
    leaf_only: bool,
    allow_expired: bool,
    max_depth: Option<usize>,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

/// Revocation lists, as far as webpki reads all of them.
enum Lists {
    Strict(Vec<CertRevocationList<'static>>),
    Plain(Vec<PlainList>),
}

/// What the peer's certificate must be good for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Server,
    Client,
}

impl Chain {
    pub(super) fn new(config: &ValidationConfig) -> Result<Option<Self>, Vec<Problem>> {
        let Some(source) = &config.trusted_ca else { return Ok(None) };
        let mut problems = Vec::new();
        let certificates = certificates(source).unwrap_or_else(|why| {
            problems
                .push(source.place.problem(format!("trusted CA certificates of {}: {why}", name(source))));
            Vec::new()
        });
        let mut anchors = Vec::new();
        for (index, certificate) in certificates.iter().enumerate() {
            match anchor_from_trusted_cert(certificate) {
                Ok(anchor) => anchors.push(anchor.to_owned()),
                Err(error) => problems.push(source.place.problem(format!(
                    "certificate {} of {} cannot be an authority: {error}",
                    index + 1,
                    name(source)
                ))),
            }
        }
        let revoked = config.crl.as_ref().map_or(Ok(Lists::Strict(Vec::new())), revocations);
        let revoked = revoked.unwrap_or_else(|problem| {
            problems.push(problem);
            Lists::Strict(Vec::new())
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Some(Self {
            anchors,
            certificates,
            revoked,
            leaf_only: config.only_verify_leaf_cert_crl,
            allow_expired: config.allow_expired_certificate,
            max_depth: config.max_verify_depth.map(|depth| depth as usize),
            algorithms: rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all,
        }))
    }

    /// The authorities' names, for the list that a server sends (RFC 8446 §4.2.4).
    pub(super) fn subjects(&self) -> impl Iterator<Item = rustls::DistinguishedName> + '_ {
        self.anchors.iter().map(|anchor| rustls::DistinguishedName::in_sequence(anchor.subject.as_ref()))
    }

    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), Refused> {
        let error = match self.build(leaf, intermediates, purpose, now) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let of_time =
            matches!(error, webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. });
        if of_time && self.allow_expired {
            let then = common_time(leaf, intermediates).unwrap_or(now);
            if self.build(leaf, intermediates, purpose, then).is_ok() {
                return Ok(());
            }
        }
        // A certificate that is itself in the file is trusted although it may not sign itself, or may sign others.
        if self.certificates.iter().any(|trusted| trusted == leaf) && (!of_time || self.allow_expired) {
            return match validity(leaf) {
                Some((from, _)) if !self.allow_expired && now < from => {
                    Err(Refused::chain(0, NOT_YET, CertificateError::NotValidYet))
                }
                Some((_, to)) if !self.allow_expired && now > to => {
                    Err(Refused::chain(0, EXPIRED, CertificateError::Expired))
                }
                _ => Ok(()),
            };
        }
        Err(self.refused(&error, leaf))
    }

    fn build(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let usage = match purpose {
            Purpose::Server => KeyUsage::server_auth(),
            Purpose::Client => KeyUsage::client_auth(),
        };
        // BoringSSL counts the root too.
        let good = |path: &VerifiedPath<'_>| match (&self.revoked, self.max_depth) {
            (_, Some(most)) if path.intermediate_certificates().count() + 1 > most => {
                Err(webpki::Error::MaximumPathDepthExceeded)
            }
            (Lists::Plain(lists), _) => revocation::check(lists, path, self.leaf_only, self.algorithms),
            (Lists::Strict(_), _) => Ok(()),
        };
        let lists: Vec<&CertRevocationList<'_>> = match &self.revoked {
            Lists::Strict(lists) => lists.iter().collect(),
            Lists::Plain(_) => Vec::new(),
        };
        EndEntityCert::try_from(leaf)?
            .verify_for_usage(
                self.algorithms,
                &self.anchors,
                intermediates,
                now,
                usage,
                self.revocation(&lists),
                Some(&good),
            )
            .map(drop)
    }

    fn revocation<'a>(&self, lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
        let depth =
            if self.leaf_only { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
        Some(RevocationOptionsBuilder::new(lists).ok()?.with_depth(depth).build())
    }

    fn refused(&self, error: &webpki::Error, leaf: &CertificateDer<'_>) -> Refused {
        use webpki::Error as E;
        let (why, error) = match error {
            E::CertExpired { .. } | E::InvalidCertValidity => (EXPIRED, CertificateError::Expired),
            E::CertNotValidYet { .. } => (NOT_YET, CertificateError::NotValidYet),
            E::CertRevoked => (
                "certificate revocation check against provided CRLs failed: certificate revoked",
                CertificateError::Revoked,
            ),
            E::UnknownRevocationStatus | E::IssuerNotCrlSigner => (
                "certificate revocation check against provided CRLs failed: unable to get certificate CRL",
                // The alert is unknown_ca, as Envoy's.
                CertificateError::UnknownIssuer,
            ),
            E::RequiredEkuNotFoundContext(_) | E::CaUsedAsEndEntity | E::EndEntityUsedAsCa => {
                ("unsupported certificate purpose", CertificateError::InvalidPurpose)
            }
            E::MaximumPathDepthExceeded => {
                let depth = self.max_depth.unwrap_or_default().max(1);
                return Refused::chain(depth, NO_ISSUER, CertificateError::UnknownIssuer);
            }
            E::UnknownIssuer if is_self_signed(leaf) => {
                ("self signed certificate", CertificateError::UnknownIssuer)
            }
            E::UnknownIssuer => (NO_ISSUER, CertificateError::UnknownIssuer),
            E::InvalidSignatureForPublicKey => {
                ("certificate signature failure", CertificateError::UnknownIssuer)
            }
            E::NameConstraintViolation => ("permitted subtree violation", CertificateError::UnknownIssuer),
            _ => ("certificate rejected", CertificateError::BadEncoding),
        };
        Refused::chain(0, why, error)
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

const EXPIRED: &str = "certificate has expired";
const NOT_YET: &str = "certificate is not yet valid";
const NO_ISSUER: &str = "unable to get local issuer certificate";

fn certificates(source: &DataSource) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&source.bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err("there is no PEM certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("bad PEM: {error}")),
    }
}

fn revocations(source: &DataSource) -> Result<Lists, Problem> {
    let problem = |why: String| source.place.problem(format!("revocation lists of {}: {why}", name(source)));
    let lists = CertificateRevocationListDer::pem_slice_iter(&source.bytes).collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| problem(format!("bad PEM: {error}")))?;
    if lists.is_empty() {
        return Err(problem("there is no PEM revocation list in it".to_owned()));
    }
    let strict = lists.iter().map(|list| OwnedCertRevocationList::from_der(list).map(Into::into));
    match strict.collect::<Result<Vec<_>, _>>() {
        Ok(strict) => Ok(Lists::Strict(strict)),
        Err(error) => {
            let plain = lists.iter().map(PlainList::read).collect::<Option<Vec<_>>>();
            plain.map(Lists::Plain).ok_or_else(|| problem(error.to_string()))
        }
    }
}

/// How a problem calls the source.
fn name(source: &DataSource) -> String {
    source.filename.as_ref().map_or_else(|| "the inline text".to_owned(), |path| format!("`{path}`"))
}

fn is_self_signed(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, parsed)| parsed.issuer().as_raw() == parsed.subject().as_raw())
}

fn validity(der: &CertificateDer<'_>) -> Option<(UnixTime, UnixTime)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let at =
        |time: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time).unwrap_or_default()));
    let validity = parsed.validity();
    Some((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

/// A time at which all of them were valid, if there was one.
fn common_time(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Option<UnixTime> {
    let all = std::iter::once(leaf).chain(intermediates).filter_map(validity);
    let (from, to) = all.reduce(|(from, to), (later, sooner)| (from.max(later), to.min(sooner)))?;
    (from <= to).then_some(to)
}

//! `CertificateValidationContext`: whom to trust.

use tidegate_types::json::{Problem, decode_base64};

use crate::reader::{Context, Field, Message, Reader};
use crate::values::{DataSource, Place, StringMatcher, WatchedDirectory};

/// `CertificateValidationContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationConfig {
    /// `trusted_ca`, PEM; `None`: the chain is not verified.
    pub trusted_ca: Option<DataSource>,
    /// `watched_directory`: a move within it means that the files are to be read again.
    pub watched_directory: Option<String>,
    /// `verify_certificate_hash`: SHA-256 of the leaf's DER form, one of which must match.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// `verify_certificate_spki`: SHA-256 of the leaf's public key info; alternatives to the hashes.
    pub spki_hashes: Vec<[u8; 32]>,
    /// `match_typed_subject_alt_names`, one of which must match; empty: any name.
    pub names: Vec<SanMatcher>,
    /// `crl`, PEM; only with `trusted_ca`.
    pub crl: Option<DataSource>,
    /// `only_verify_leaf_cert_crl`.
    pub only_verify_leaf_cert_crl: bool,
    /// `allow_expired_certificate`; only with `trusted_ca`.
    pub allow_expired_certificate: bool,
    /// `trust_chain_verification`.
    pub trust_chain: TrustChain,
    /// `max_verify_depth`: intermediate certificates at most, 0 to 100.
    pub max_verify_depth: Option<u32>,
    /// The message.
    pub place: Place,
}

/// `trust_chain_verification`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrustChain {
    /// `VERIFY_TRUST_CHAIN`.
    #[default]
    Verify,
    /// `ACCEPT_UNTRUSTED`: a certificate that fails verification is accepted, and known as not validated.
    AcceptUntrusted,
}

/// `SubjectAltNameMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanMatcher {
    /// `san_type`.
    pub kind: SanKind,
    /// `matcher`.
    pub matcher: StringMatcher,
}

/// `san_type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SanKind {
    /// `EMAIL`.
    Email,
    /// `DNS`; an exact matcher heeds wildcards in the certificate.
    #[default]
    Dns,
    /// `URI`.
    Uri,
    /// `IP_ADDRESS`.
    IpAddress,
}

impl Message for ValidationConfig {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext";

    fn read(r: &Reader<'_>) -> Self {
        const TRUST: &[(&str, u32, TrustChain)] = &[
            ("VERIFY_TRUST_CHAIN", 0, TrustChain::Verify),
            ("ACCEPT_UNTRUSTED", 1, TrustChain::AcceptUntrusted),
        ];
        let trusted_ca = r.message::<DataSource>("trusted_ca");
        let names = r.repeated::<SanMatcher>("match_typed_subject_alt_names");
        let untyped = r.repeated::<StringMatcher>("match_subject_alt_names");
        let crl = r.message::<DataSource>("crl");
        let expired = r.bool("allow_expired_certificate");
        // Roots that this build lacks get their own report.
        let other_roots = r.has("system_root_certs") || r.has("ca_certificate_provider_instance");
        let untyped = untyped.or_default();
        let read = Self {
            trusted_ca: trusted_ca.optional(),
            watched_directory: r
                .message::<WatchedDirectory>("watched_directory")
                .optional()
                .map(|watched| watched.0),
            certificate_hashes: hashes(r.strings("verify_certificate_hash"), hexadecimal),
            spki_hashes: hashes(r.strings("verify_certificate_spki"), base64),
            names: names.or_default().into_iter().chain(any_kind(untyped)).collect(),
            crl: crl.optional(),
            only_verify_leaf_cert_crl: r.bool("only_verify_leaf_cert_crl").or_default(),
            allow_expired_certificate: expired.or_default(),
            trust_chain: r.enumeration("trust_chain_verification", TRUST, &[]).or_default(),
            max_verify_depth: r.u32("max_verify_depth").within(0..=100).optional(),
            place: Place::of(r),
        };
        if !other_roots && !r.cx.trust_later.get() {
            read.check_trust(r);
        }
        read
    }
}

impl ValidationConfig {
    /// As Envoy: what rests on a chain needs one.
    pub(super) fn check_trust(&self, r: &Reader<'_>) {
        if self.trusted_ca.is_some() {
            return;
        }
        // Of the message itself, or of one that names or completes it.
        let is_own = r.path == self.place.path;
        let names = match is_own && r.has("match_subject_alt_names") {
            true => "match_subject_alt_names",
            false => "match_typed_subject_alt_names",
        };
        let faults = [
            (!self.names.is_empty(), names, ANYBODY),
            (self.crl.is_some(), "crl", "a revocation list has no use without `trusted_ca`"),
            (
                self.allow_expired_certificate,
                "allow_expired_certificate",
                "without `trusted_ca`, expiry is never looked at",
            ),
        ];
        for (_, field, message) in faults.into_iter().filter(|(is_wrong, ..)| *is_wrong) {
            let span = if is_own { r.place(field) } else { self.place.span };
            r.cx.report(Problem { path: self.place.path.field(field), span, ..self.place.problem(message) });
        }
    }

    /// With the fields of `secret` merged in as protobuf does: lists go on, what is set replaces.
    pub(super) fn merged(self, secret: Self) -> Self {
        let both = |mut of: Vec<[u8; 32]>, more: Vec<[u8; 32]>| {
            of.extend(more);
            of
        };
        Self {
            trusted_ca: secret.trusted_ca.or(self.trusted_ca),
            watched_directory: secret.watched_directory.or(self.watched_directory),
            certificate_hashes: both(self.certificate_hashes, secret.certificate_hashes),
            spki_hashes: both(self.spki_hashes, secret.spki_hashes),
            names: self.names.into_iter().chain(secret.names).collect(),
            crl: secret.crl.or(self.crl),
            only_verify_leaf_cert_crl: self.only_verify_leaf_cert_crl || secret.only_verify_leaf_cert_crl,
            allow_expired_certificate: self.allow_expired_certificate || secret.allow_expired_certificate,
            trust_chain: match secret.trust_chain {
                TrustChain::Verify => self.trust_chain,
                TrustChain::AcceptUntrusted => TrustChain::AcceptUntrusted,
            },
            max_verify_depth: secret.max_verify_depth.or(self.max_verify_depth),
            place: self.place,
        }
    }
}

/// While part of a context is read: whether it trusts anybody is known when it is complete.
pub(super) struct TrustLater;

impl TrustLater {
    pub(super) fn during<T>(cx: &Context<'_>, read: impl FnOnce() -> T) -> T {
        let before = cx.trust_later.replace(true);
        let value = read();
        cx.trust_later.set(before);
        value
    }
}

const ANYBODY: &str = "matching names without `trusted_ca` is insecure: anybody can write any name";

/// The deprecated `match_subject_alt_names`: each matcher is tried on names of every kind.
fn any_kind(matchers: Vec<StringMatcher>) -> impl Iterator<Item = SanMatcher> {
    const KINDS: [SanKind; 4] = [SanKind::Dns, SanKind::Uri, SanKind::Email, SanKind::IpAddress];
    matchers.into_iter().flat_map(|matcher| KINDS.map(|kind| SanMatcher { kind, matcher: matcher.clone() }))
}

fn hashes(field: Field<'_, Vec<String>>, read: fn(&str) -> Result<[u8; 32], String>) -> Vec<[u8; 32]> {
    field.convert(|texts| texts.iter().map(|text| read(text)).collect()).or_default()
}

/// 64 digits, or 32 pairs with colons between them, as `openssl x509 -fingerprint` prints them.
fn hexadecimal(text: &str) -> Result<[u8; 32], String> {
    let wrong = || format!("`{text}` is no SHA-256 in hexadecimal");
    let digits: String = match text.len() {
        64 => text.to_owned(),
        95 if text.bytes().skip(2).step_by(3).all(|b| b == b':') => text.split(':').collect(),
        _ => return Err(wrong()),
    };
    let mut hash = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte =
            digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    Ok(hash)
}

fn base64(text: &str) -> Result<[u8; 32], String> {
    let bytes = Some(text).filter(|text| text.len() == 44).and_then(decode_base64);
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("`{text}` is no SHA-256 in base64"))
}

impl Message for SanMatcher {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher";

    fn read(r: &Reader<'_>) -> Self {
        const KINDS: &[(&str, u32, SanKind)] = &[
            ("EMAIL", 1, SanKind::Email),
            ("DNS", 2, SanKind::Dns),
            ("URI", 3, SanKind::Uri),
            ("IP_ADDRESS", 4, SanKind::IpAddress),
        ];
        Self {
            kind: r.enumeration("san_type", KINDS, &[("OTHER_NAME", 5)]).required(),
            matcher: r.required_message("matcher"),
        }
    }
}

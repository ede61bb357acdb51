//! `TlsParameters`: versions, cipher suites, curves.
//!
//! The names are BoringSSL's, as Envoy takes them; of those that the TLS library of this build lacks, the error
//! names the alternatives.

use crate::reader::{Message, Reader};

/// `TlsParameters`. No cipher suites mean all that the library offers, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsParams {
    /// `tls_minimum_protocol_version`, TLS 1.2 when unset.
    pub minimum: TlsVersion,
    /// `tls_maximum_protocol_version`, TLS 1.3 when unset, on both sides (Envoy: 1.2 upstream).
    pub maximum: TlsVersion,
    /// `cipher_suites`, for TLS 1.2 only: those of 1.3 cannot be chosen.
    pub cipher_suites: Vec<CipherSuite>,
    /// `ecdh_curves`; [`Curve::DEFAULT`] when unset.
    pub curves: Vec<Curve>,
    /// `compliance_policies`.
    pub compliance: Option<CompliancePolicy>,
}

/// A policy that overrides suites and curves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompliancePolicy {
    /// `FIPS_202205`: AES-GCM, P-256 and P-384 only, in every version.
    Fips202205,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// A cipher suite of TLS 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherSuite {
    /// `ECDHE-ECDSA-AES128-GCM-SHA256`.
    EcdsaAes128,
    /// `ECDHE-RSA-AES128-GCM-SHA256`.
    RsaAes128,
    /// `ECDHE-ECDSA-AES256-GCM-SHA384`.
    EcdsaAes256,
    /// `ECDHE-RSA-AES256-GCM-SHA384`.
    RsaAes256,
    /// `ECDHE-ECDSA-CHACHA20-POLY1305`.
    EcdsaChacha20,
    /// `ECDHE-RSA-CHACHA20-POLY1305`.
    RsaChacha20,
}

/// A group for the key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// `X25519`.
    X25519,
    /// `P-256`.
    P256,
    /// `P-384`.
    P384,
    /// `X25519MLKEM768`: post-quantum, TLS 1.3 only.
    X25519Mlkem768,
}

impl CipherSuite {
    /// All of them, in the order in which the library prefers them.
    pub const ALL: [Self; 6] = [
        Self::EcdsaAes256,
        Self::EcdsaAes128,
        Self::EcdsaChacha20,
        Self::RsaAes256,
        Self::RsaAes128,
        Self::RsaChacha20,
    ];

    /// The name that Envoy takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaAes128 => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::RsaAes128 => "ECDHE-RSA-AES128-GCM-SHA256",
            Self::EcdsaAes256 => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::RsaAes256 => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::EcdsaChacha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self::RsaChacha20 => "ECDHE-RSA-CHACHA20-POLY1305",
        }
    }

    /// The name in the IANA registry, which Envoy takes too.
    pub const fn iana_name(self) -> &'static str {
        match self {
            Self::EcdsaAes128 => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            Self::RsaAes128 => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            Self::EcdsaAes256 => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            Self::RsaAes256 => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            Self::EcdsaChacha20 => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            Self::RsaChacha20 => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name || suite.iana_name() == name)
    }
}

impl Curve {
    /// All of them, in the order in which the library prefers them.
    pub const ALL: [Self; 4] = [Self::X25519Mlkem768, Self::X25519, Self::P256, Self::P384];

    /// Envoy's default, with its order: P-384 must be asked for.
    pub const DEFAULT: [Self; 3] = [Self::X25519Mlkem768, Self::X25519, Self::P256];

    /// The name that Envoy takes and prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X25519 => "X25519",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::X25519Mlkem768 => "X25519MLKEM768",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let openssl = |curve| match curve {
            Self::P256 => "prime256v1",
            Self::P384 => "secp384r1",
            Self::X25519 => "x25519",
            Self::X25519Mlkem768 => "",
        };
        Self::ALL.into_iter().find(|curve| curve.name() == name || openssl(*curve) == name)
    }
}

impl Default for TlsParams {
    fn default() -> Self {
        Self {
            minimum: TlsVersion::V1_2,
            maximum: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            curves: Curve::DEFAULT.to_vec(),
            compliance: None,
        }
    }
}

impl Message for TlsParams {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.TlsParameters";

    fn read(r: &Reader<'_>) -> Self {
        const VERSIONS: &[(&str, u32, Option<TlsVersion>)] = &[
            ("TLS_AUTO", 0, None),
            ("TLSv1_2", 3, Some(TlsVersion::V1_2)),
            ("TLSv1_3", 4, Some(TlsVersion::V1_3)),
        ];
        // RFC 8996 forbids them.
        const OLD: &[(&str, u32)] = &[("TLSv1_0", 1), ("TLSv1_1", 2)];
        let default = Self::default();
        let minimum = r.enumeration("tls_minimum_protocol_version", VERSIONS, OLD).or_default();
        let maximum = r.enumeration("tls_maximum_protocol_version", VERSIONS, OLD);
        let at = maximum.path();
        let maximum = maximum.or_default();
        let (minimum, maximum) = (minimum.unwrap_or(default.minimum), maximum.unwrap_or(default.maximum));
        if minimum > maximum {
            let span = r.place("tls_maximum_protocol_version");
            let message = "the maximum lies below the minimum: no handshake could succeed";
            r.cx.report(tidegate_types::json::Problem::new(at, span, message));
        }
        Self {
            minimum,
            maximum,
            cipher_suites: cipher_suites(r),
            curves: curves(r),
            compliance: compliance(r),
        }
    }
}

fn compliance(r: &Reader<'_>) -> Option<CompliancePolicy> {
    let policies = r.strings("compliance_policies").convert(|names| match names.as_slice() {
        [] => Ok(None),
        [name] if name == "FIPS_202205" => Ok(Some(CompliancePolicy::Fips202205)),
        [name] => Err(format!("`{name}` is no compliance policy; FIPS_202205 is")),
        // Envoy's limit.
        [..] => Err("at most one compliance policy".to_owned()),
    });
    policies.or_default()
}

fn cipher_suites(r: &Reader<'_>) -> Vec<CipherSuite> {
    let names = r.strings("cipher_suites").convert(|lists| {
        let mut suites = Vec::new();
        let mut ignored = None;
        // An empty text stands for the default; rules as `ALL` and `!RSA` are BoringSSL's own language.
        for item in lists.iter().flat_map(|list| list.split(':')).filter(|item| !item.is_empty()) {
            for name in equals(item).split('|') {
                match CipherSuite::named(name) {
                    Some(suite) => suites.push(suite),
                    // As Envoy: beside others they are passed over.
                    None if TLS13_SUITES.contains(&name) => ignored = Some(name),
                    None => return Err(unknown_suite(name)),
                }
            }
        }
        match ignored {
            Some(name) if suites.is_empty() => Err(unknown_suite(name)),
            _ => Ok(suites),
        }
    });
    names.or_default()
}

/// The suites of a group of equal preference, `[A|B]`, which the library does not have: its first comes first.
fn equals(item: &str) -> &str {
    item.strip_prefix('[').and_then(|item| item.strip_suffix(']')).unwrap_or(item)
}

const TLS13_SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

fn unknown_suite(name: &str) -> String {
    let all = CipherSuite::ALL.map(CipherSuite::name).join(", ");
    format!(
        "cipher suite `{name}` is not supported by this build, which has {all}; those of TLS 1.3 cannot be chosen"
    )
}

fn curves(r: &Reader<'_>) -> Vec<Curve> {
    let names = r.strings("ecdh_curves").convert(|names| {
        let mut curves = Vec::new();
        for name in names.iter().flat_map(|names| names.split(':')) {
            let curve = Curve::named(name).ok_or_else(|| {
                let all = Curve::ALL.map(Curve::name).join(", ");
                format!("curve `{name}` is not supported by this build, which has {all}")
            })?;
            if curves.contains(&curve) {
                return Err(format!("curve `{name}` is there twice"));
            }
            curves.push(curve);
        }
        Ok(curves)
    });
    Some(names.or_default()).filter(|curves| !curves.is_empty()).unwrap_or_else(|| Curve::DEFAULT.to_vec())
}

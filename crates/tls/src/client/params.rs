//! `TlsParameters` as rustls takes them, for either side.

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use tidegate_config::tls::{CipherSuite, CompliancePolicy, Curve, TlsParams, TlsVersion};

/// The library with the chosen suites and groups, in the chosen order.
pub fn provider(params: &TlsParams) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !params.cipher_suites.is_empty() {
        // Those of TLS 1.3 cannot be chosen, so they stay.
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        provider.cipher_suites.extend(params.cipher_suites.iter().map(|suite| cipher_suite(*suite)));
    }
    // Connections inside QUIC are to be small while they idle.
    provider.cipher_suites.iter_mut().for_each(|suite| *suite = tidegate_quic::crypto::compact_suite(*suite));
    provider.kx_groups = params.curves.iter().map(|curve| group(*curve)).collect();
    match params.compliance {
        None => {}
        Some(CompliancePolicy::Fips202205) => {
            let of_aes = |suite: &SupportedCipherSuite| !format!("{:?}", suite.suite()).contains("CHACHA20");
            provider.cipher_suites.retain(of_aes);
            provider.kx_groups = vec![group(Curve::P256), group(Curve::P384)];
        }
    }
    provider
}

/// The versions from the minimum to the maximum.
pub fn versions(params: &TlsParams) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V1_3, &rustls::version::TLS13), (TlsVersion::V1_2, &rustls::version::TLS12)];
    let chosen = all.into_iter().filter(|(version, _)| (params.minimum..=params.maximum).contains(version));
    chosen.map(|(_, version)| version).collect()
}

fn cipher_suite(suite: CipherSuite) -> SupportedCipherSuite {
    use aws_lc_rs::cipher_suite as known;
    match suite {
        CipherSuite::EcdsaAes128 => known::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::RsaAes128 => known::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdsaAes256 => known::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::RsaAes256 => known::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdsaChacha20 => known::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::RsaChacha20 => known::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group(curve: Curve) -> &'static dyn SupportedKxGroup {
    match curve {
        Curve::X25519 => aws_lc_rs::kx_group::X25519,
        Curve::P256 => aws_lc_rs::kx_group::SECP256R1,
        Curve::P384 => aws_lc_rs::kx_group::SECP384R1,
        Curve::X25519Mlkem768 => aws_lc_rs::kx_group::X25519MLKEM768,
    }
}

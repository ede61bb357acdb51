//! Which certificate a client gets to see: by the name that it asks for, and by what it can verify.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SupportedCipherSuite};
use tidegate_types::CertificateInfo;

use crate::certificate;
use crate::observed::note_choice;

/// A certificate with its key and its facts.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) info: Arc<CertificateInfo>,
}

impl Identity {
    /// `None` if the certificate cannot be read, which was seen when it was loaded.
    pub(crate) fn new(key: CertifiedKey) -> Option<Self> {
        let info = Arc::new(certificate::facts(&key.cert).ok()?);
        Some(Self { key: Arc::new(key), info })
    }

    fn is_ecdsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::ECDSA
    }

    /// The names that it is found by. The common name counts only without any other (RFC 6125 §6.4.4).
    fn names(&self) -> Vec<String> {
        let info = &self.info;
        let none = info.dns_sans.is_empty()
            && info.uri_sans.is_empty()
            && info.ip_sans.is_empty()
            && info.email_sans.is_empty();
        let common = || info.chain.first().and_then(|der| certificate::common_name(der));
        let names = if none { common().into_iter().collect() } else { info.dns_sans.clone() };
        names.into_iter().map(|name| name.to_ascii_lowercase()).collect()
    }

    fn suits(&self, hello: &ClientHello<'_>) -> bool {
        self.key.key.choose_scheme(hello.signature_schemes()).is_some()
            && ALL_CIPHER_SUITES.iter().filter(|suite| hello.cipher_suites().contains(&suite.suite())).any(
                |suite| match suite {
                    SupportedCipherSuite::Tls13(_) => true,
                    SupportedCipherSuite::Tls12(suite) => self.key.key.choose_scheme(suite.sign).is_some(),
                },
            )
    }
}

/// The certificates of a server.
#[derive(Debug)]
pub(crate) struct Choice {
    /// In the order of the configuration.
    identities: Vec<Identity>,
    /// Lower-case names, wildcards as `*.example.com`, to the identities that carry them.
    names: HashMap<String, Vec<usize>>,
    /// `full_scan_certs_on_sni_mismatch`: an unknown name gets whatever suits, not just the first.
    full_scan: bool,
    /// `require_sni`: who asks for no name gets none.
    require_sni: bool,
}

impl Choice {
    pub(crate) fn new(identities: Vec<Identity>, full_scan: bool, require_sni: bool) -> Self {
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, identity) in identities.iter().enumerate() {
            for name in identity.names() {
                names.entry(name).or_default().push(index);
            }
        }
        Self { identities, names, full_scan, require_sni }
    }

    /// One that the client can verify, ECDSA before RSA; `None` if it can verify none of them.
    fn suitable<'a>(
        mut candidates: impl Iterator<Item = &'a Identity>,
        hello: &ClientHello<'_>,
    ) -> Option<&'a Identity> {
        let mut found = None;
        candidates.find(|identity| {
            if !identity.suits(hello) {
                return false;
            }
            found = found.or(Some(*identity));
            identity.is_ecdsa() && {
                found = Some(*identity);
                true
            }
        });
        found
    }

    fn choose(&self, hello: &ClientHello<'_>) -> Option<&Identity> {
        let Some(name) = hello.server_name() else {
            if self.require_sni {
                return None;
            }
            return Self::suitable(self.identities.iter(), hello).or(self.identities.first());
        };
        let name = name.to_ascii_lowercase();
        // A wildcard stands for one label (RFC 6125 §6.4.3).
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let known = self.names.get(&name).or_else(|| self.names.get(&wildcard?));
        match known {
            // A client that cannot use it gets an alert: another name's certificate would be no help.
            Some(indices) => {
                let carriers = || indices.iter().filter_map(|index| self.identities.get(*index));
                Self::suitable(carriers(), hello).or_else(|| carriers().next())
            }
            None if self.full_scan => {
                Self::suitable(self.identities.iter(), hello).or(self.identities.first())
            }
            None => self.identities.first(),
        }
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(&hello)?;
        note_choice(hello.server_name(), Some(chosen.info.clone()));
        Some(chosen.key.clone())
    }
}

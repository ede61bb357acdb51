//! Secrets that the bootstrap names once (`static_resources.secrets`), for TLS contexts to refer to.
//!
//! A reference is resolved where it is read: whoever builds a context finds what it would find had the secret been
//! written in its place. Start from [`Secrets`].

use std::collections::HashMap;

use tidegate_types::json::Problem;

use super::validation::TrustLater;
use super::{CertificateConfig, TicketKey, TicketKeys, ValidationConfig};
use crate::reader::{Message, Reader};
use crate::values::{DataSource, Place};

/// The static secrets; names are unique for each kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Secrets {
    certificates: HashMap<String, Option<CertificateConfig>>,
    validations: HashMap<String, ValidationConfig>,
    ticket_keys: HashMap<String, Vec<TicketKey>>,
    generic: HashMap<String, DataSource>,
}

/// A kind of secret, in Envoy's words.
#[derive(Clone, Copy)]
struct Kind {
    duplicate: &'static str,
    unknown: &'static str,
}

const CERTIFICATE: Kind = Kind { duplicate: "TlsCertificate", unknown: "static secret" };
const VALIDATION: Kind =
    Kind { duplicate: "CertificateValidationContext", unknown: "static certificate validation context" };
const TICKET_KEYS: Kind = Kind { duplicate: "TlsSessionTicketKeys", unknown: "tls session ticket keys" };
const GENERIC: Kind = Kind { duplicate: "GenericSecret", unknown: "static generic secret" };

impl Secrets {
    /// Takes `secrets` from the reader of `static_resources`.
    pub(crate) fn read(r: &Reader<'_>) -> Self {
        let mut all = Self::default();
        for Secret { name, value, place } in r.repeated::<Secret>("secrets").or_default() {
            let (known, kind) = match value {
                Value::Certificate(it) => (all.certificates.insert(name.clone(), *it).is_some(), CERTIFICATE),
                Value::Validation(it) => (all.validations.insert(name.clone(), *it).is_some(), VALIDATION),
                Value::TicketKeys(it) => (all.ticket_keys.insert(name.clone(), it).is_some(), TICKET_KEYS),
                Value::Generic(it) => (all.generic.insert(name.clone(), it).is_some(), GENERIC),
                Value::Missing => continue,
            };
            if known {
                let message = format!("Duplicate static {} secret name {name}", kind.duplicate);
                r.cx.report(place.problem(message));
            }
        }
        all
    }
}

/// `envoy.extensions.transport_sockets.tls.v3.Secret`.
struct Secret {
    name: String,
    value: Value,
    place: Place,
}

enum Value {
    Certificate(Box<Option<CertificateConfig>>),
    Validation(Box<ValidationConfig>),
    TicketKeys(Vec<TicketKey>),
    Generic(DataSource),
    Missing,
}

impl Message for Secret {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.Secret";

    fn read(r: &Reader<'_>) -> Self {
        const KINDS: &[&str] =
            &["tls_certificate", "session_ticket_keys", "validation_context", "generic_secret"];
        let certificate = r.message::<Option<CertificateConfig>>("tls_certificate").optional();
        let keys = r.message::<TicketKeys>("session_ticket_keys").optional();
        let validation = TrustLater::during(r.cx, || r.message("validation_context").optional());
        let generic = r.message::<Generic>("generic_secret").optional();
        r.exactly_one(KINDS);
        let value = match (certificate, keys, validation, generic) {
            (Some(certificate), ..) => Value::Certificate(Box::new(certificate)),
            (_, Some(TicketKeys(keys)), ..) => Value::TicketKeys(keys),
            (_, _, Some(validation), _) => Value::Validation(Box::new(validation)),
            (_, _, _, Some(Generic(Some(source)))) => Value::Generic(source),
            _ => Value::Missing,
        };
        Self { name: r.string("name").or_default(), value, place: Place::of(r) }
    }
}

/// `GenericSecret`.
struct Generic(Option<DataSource>);

impl Message for Generic {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.GenericSecret";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.message("secret").optional())
    }
}

/// `SdsSecretConfig`: the name of a static secret.
pub(super) struct SecretName {
    name: String,
    place: Place,
    fetched: bool,
}

impl Message for SecretName {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig";

    fn read(r: &Reader<'_>) -> Self {
        r.refuse("sds_config", NO_SDS);
        Self {
            name: r.string("name").required_non_empty(),
            place: Place::of(r),
            fetched: r.has("sds_config"),
        }
    }
}

impl SecretName {
    pub(super) fn certificate(&self, r: &Reader<'_>) -> Option<CertificateConfig> {
        self.find(r, CERTIFICATE, |all| &all.certificates).flatten()
    }

    pub(super) fn validation(&self, r: &Reader<'_>) -> Option<ValidationConfig> {
        self.find(r, VALIDATION, |all| &all.validations)
    }

    pub(super) fn ticket_keys(&self, r: &Reader<'_>) -> Vec<TicketKey> {
        self.find(r, TICKET_KEYS, |all| &all.ticket_keys).unwrap_or_default()
    }

    fn find<T: Clone>(
        &self,
        r: &Reader<'_>,
        kind: Kind,
        of_kind: impl Fn(&Secrets) -> &HashMap<String, T>,
    ) -> Option<T> {
        let secrets = r.cx.secrets.borrow();
        let found = of_kind(&secrets).get(&self.name).cloned();
        // What is to be fetched, and an empty name, were reported.
        if found.is_none() && !self.fetched && !self.name.is_empty() {
            let names = of_kind(&secrets);
            let suggestion = tidegate_types::json::nearest(&self.name, names.keys().map(String::as_str));
            r.cx.report(Problem {
                suggestion: suggestion.map(str::to_owned),
                ..self.place.problem(format!("Unknown {}: {}", kind.unknown, self.name))
            });
        }
        found
    }
}

const NO_SDS: &str = "only secrets of `static_resources.secrets` are found by name: this build has no secret discovery service (SDS)";

//! Envoy's TLS messages: the contexts of both sides, and what they share.
//!
//! What the messages alone can tell is checked here, files included as far as reading them. Whether a key
//! fits its certificate takes cryptography: that is the `tls` crate's, which blames the [`Place`]s kept here.
//! Start from [`DownstreamTls`] and [`UpstreamTls`].
//! <https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/transport_sockets/tls/v3/tls.proto>

use std::sync::Arc;
use std::time::Duration;

use crate::reader::{Message, Reader};
use crate::values::{DataSource, Place};

mod certificate;
mod own;
mod params;
mod reread;
mod secret;
mod validation;

pub use certificate::{CertificateConfig, TICKET_KEY_BYTES, TicketKey};
pub use own::CloseNotify;
pub use params::{CipherSuite, CompliancePolicy, Curve, TlsParams, TlsVersion};
pub use secret::Secrets;
pub use validation::{SanKind, SanMatcher, TrustChain, ValidationConfig};

pub(crate) use own::OwnTls;

use secret::SecretName;
use validation::TrustLater;

/// `DownstreamTlsContext`: TLS towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTls {
    /// `common_tls_context`; it has a certificate.
    pub common: TlsConfig,
    /// `require_client_certificate`.
    pub require_client_certificate: bool,
    /// `require_sni`.
    pub require_sni: bool,
    /// `session_ticket_keys`, the first one encrypts; empty: keys of the process's own.
    pub ticket_keys: Vec<TicketKey>,
    /// `disable_stateless_session_resumption`: no tickets.
    pub disable_stateless_session_resumption: bool,
    /// `disable_stateful_session_resumption`: no session cache.
    pub disable_stateful_session_resumption: bool,
    /// `session_timeout`, whole seconds; `None`: the library's.
    pub session_timeout: Option<Duration>,
    /// `full_scan_certs_on_sni_mismatch`.
    pub full_scan_certs_on_sni_mismatch: bool,
    /// `prefer_client_ciphers`.
    pub prefer_client_ciphers: bool,
    /// `close_notify` of Tidegate's own message around this one.
    pub close_notify: CloseNotify,
    /// That message: `--envoy-strict` refuses it.
    pub own: Option<Place>,
    /// The message.
    pub place: Place,
}

/// `UpstreamTlsContext`: TLS towards hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// `common_tls_context`; at most one certificate.
    pub common: TlsConfig,
    /// `sni`, at most 255 bytes.
    pub sni: Option<String>,
    /// `auto_host_sni`: the host's name takes the place of `sni`.
    pub auto_host_sni: bool,
    /// `auto_sni_san_validation`: the certificate must carry the name asked for.
    pub auto_sni_san_validation: bool,
    /// `max_session_keys`, 1 when unset; 0: no resumption.
    pub max_session_keys: u32,
    /// `enforce_rsa_key_usage`, true when unset: a host's RSA certificate must be good for signatures.
    pub enforce_rsa_key_usage: bool,
    /// `close_notify` of Tidegate's own message around this one.
    pub close_notify: CloseNotify,
    /// That message: `--envoy-strict` refuses it.
    pub own: Option<Place>,
    /// The message.
    pub place: Place,
}

/// `CommonTlsContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TlsConfig {
    /// `tls_params`.
    pub params: TlsParams,
    /// `tls_certificates`, or the secrets that `tls_certificate_sds_secret_configs` names.
    pub certificates: Vec<CertificateConfig>,
    /// `tls_certificate_sds_secret_configs` is what is written.
    pub names_certificates: bool,
    /// `validation_context`, or what the secret adds that it is said to be or to complete.
    pub validation: Option<Arc<ValidationConfig>>,
    /// `alpn_protocols`, each 1 to 255 bytes.
    pub alpn_protocols: Vec<String>,
}

impl Message for DownstreamTls {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

    fn read(r: &Reader<'_>) -> Self {
        let common = r.message_or_defaults::<TlsConfig>("common_tls_context");
        // A secret that is not found gets its own report.
        if common.certificates.is_empty() && !common.names_certificates {
            r.problem(
                "a downstream TLS context needs a certificate in `common_tls_context.tls_certificates`",
            );
        }
        r.at_most_one(&[
            "session_ticket_keys",
            "session_ticket_keys_sds_secret_config",
            "disable_stateless_session_resumption",
        ]);
        let named_keys = r.message::<SecretName>("session_ticket_keys_sds_secret_config").optional();
        r.enumeration(
            "ocsp_staple_policy",
            &[("LENIENT_STAPLING", 0, ())],
            &[("STRICT_STAPLING", 1), ("MUST_STAPLE", 2)],
        )
        .or_default();
        Self {
            require_client_certificate: r.bool("require_client_certificate").or_default(),
            require_sni: r.bool("require_sni").or_default(),
            ticket_keys: match named_keys {
                Some(name) => name.ticket_keys(r),
                None => r
                    .message::<TicketKeys>("session_ticket_keys")
                    .optional()
                    .map(|keys| keys.0)
                    .unwrap_or_default(),
            },
            disable_stateless_session_resumption: r.bool("disable_stateless_session_resumption").or_default(),
            disable_stateful_session_resumption: r.bool("disable_stateful_session_resumption").or_default(),
            session_timeout: r
                .duration("session_timeout")
                .at_most(Duration::from_secs(u64::from(u32::MAX)))
                .optional(),
            full_scan_certs_on_sni_mismatch: r.bool("full_scan_certs_on_sni_mismatch").or_default(),
            prefer_client_ciphers: r.bool("prefer_client_ciphers").or_default(),
            close_notify: CloseNotify::default(),
            own: None,
            place: Place::of(r),
            common,
        }
    }
}

impl Message for UpstreamTls {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

    fn read(r: &Reader<'_>) -> Self {
        let common = r.message_or_defaults::<TlsConfig>("common_tls_context");
        if common.certificates.len() > 1 {
            r.problem("an upstream TLS context takes one certificate at most");
        }
        let auto_sni_san = r.bool("auto_sni_san_validation");
        let trusts = common.validation.as_ref().is_some_and(|validation| validation.trusted_ca.is_some());
        if auto_sni_san.peek() == Some(&true) && !trusts {
            auto_sni_san
                .report("without `trusted_ca` in the validation context, a name proves nothing", None);
        }
        let renegotiation = r.bool("allow_renegotiation");
        if renegotiation.peek() == Some(&true) {
            renegotiation.report(
                "renegotiation is not supported: the TLS library refuses it, and TLS 1.3 has none",
                Some("false".to_owned()),
            );
        }
        let sni = r.string("sni").check(|name| match name.len() {
            0..=255 if name.contains('\0') => Err("a server name contains no NUL".to_owned()),
            0..=255 => Ok(()),
            _ => Err("a server name has at most 255 bytes".to_owned()),
        });
        Self {
            sni: sni.non_empty(),
            auto_host_sni: r.bool("auto_host_sni").or_default(),
            auto_sni_san_validation: auto_sni_san.or_default(),
            max_session_keys: r.u32("max_session_keys").or(1),
            enforce_rsa_key_usage: r.bool("enforce_rsa_key_usage").or(true),
            close_notify: CloseNotify::default(),
            own: None,
            place: Place::of(r),
            common,
        }
    }
}

impl Message for TlsConfig {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext";

    fn read(r: &Reader<'_>) -> Self {
        let validation = validation(r);
        let (certificates, names_certificates) = certificates(r);
        // Envoy joins the list with commas and splits it again: an element may hold several.
        let alpn = r.strings("alpn_protocols").check(|names| {
            let too_long = names.iter().flat_map(|names| names.split(',')).find(|name| name.len() > 255);
            too_long.map_or(Ok(()), |_| Err("a protocol's name has at most 255 bytes".to_owned()))
        });
        let alpn = alpn.or_default();
        let protocols = alpn.iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
        Self {
            params: r.message_or_defaults("tls_params"),
            certificates,
            names_certificates,
            validation: validation.map(Arc::new),
            alpn_protocols: protocols.map(str::to_owned).collect(),
        }
    }
}

/// The certificates, and whether they are named.
fn certificates(r: &Reader<'_>) -> (Vec<CertificateConfig>, bool) {
    let written = r.repeated::<Option<CertificateConfig>>("tls_certificates").or_default();
    let named = r.repeated::<SecretName>("tls_certificate_sds_secret_configs").or_default();
    if !written.is_empty() && !named.is_empty() {
        r.problem("SDS and non-SDS TLS certificates may not be mixed in server contexts");
    }
    let names = !named.is_empty();
    let found = named.iter().map(|name| name.certificate(r));
    (written.into_iter().chain(found).flatten().collect(), names)
}

fn validation(r: &Reader<'_>) -> Option<ValidationConfig> {
    r.at_most_one(&[
        "validation_context",
        "validation_context_sds_secret_config",
        "combined_validation_context",
    ]);
    let written = r.message::<ValidationConfig>("validation_context").optional();
    let named = r.message::<SecretName>("validation_context_sds_secret_config").optional();
    let combined = r.message::<Combined>("combined_validation_context").optional();
    let found = named.and_then(|name| name.validation(r)).or(combined.map(|combined| combined.0));
    if let Some(found) = &found {
        found.check_trust(r);
    }
    written.or(found)
}

/// `CombinedCertificateValidationContext`: defaults, and the secret whose fields are merged into them.
struct Combined(ValidationConfig);

impl Message for Combined {
    const NAME: &'static str =
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext";

    fn read(r: &Reader<'_>) -> Self {
        let default: ValidationConfig =
            TrustLater::during(r.cx, || r.required_message("default_validation_context"));
        let secret = r.message::<SecretName>("validation_context_sds_secret_config");
        if !r.has("validation_context_sds_secret_config") {
            secret.report("missing field `validation_context_sds_secret_config`", None);
        }
        match secret.optional().and_then(|name| name.validation(r)) {
            Some(secret) => Self(default.merged(secret)),
            None => Self(default),
        }
    }
}

struct TicketKeys(Vec<TicketKey>);

impl Message for TicketKeys {
    const NAME: &'static str = "envoy.extensions.transport_sockets.tls.v3.TlsSessionTicketKeys";

    fn read(r: &Reader<'_>) -> Self {
        let keys = r.repeated::<DataSource>("keys").required_non_empty();
        Self(keys.into_iter().filter_map(|source| TicketKey::new(r, source)).collect())
    }
}

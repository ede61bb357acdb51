//! Operators about TLS sessions and certificates, of either side.
//!
//! Envoy docs, "Access logging", "Command operators"; values checked on Envoy 1.40.

use std::time::SystemTime;

use tidegate_types::{CertificateInfo, CertificateMarks, StreamInfo, TlsInfo};

use super::super::time::TimeFormat;
use super::super::value::{Shown, Value};

/// `DOWNSTREAM_TLS_*`, `DOWNSTREAM_PEER_*`, `DOWNSTREAM_LOCAL_*` and what Envoy has of them upstream.
#[derive(Clone, Debug)]
pub(in crate::format) struct TlsOperator {
    side: Side,
    fact: Fact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Downstream,
    Upstream,
}

#[derive(Clone, Debug)]
enum Fact {
    Version,
    Cipher,
    Group,
    SessionId,
    Peer(Part),
    Local(Part),
}

#[derive(Clone, Debug)]
enum Part {
    Subject,
    Issuer,
    UriSans,
    DnsSans,
    IpSans,
    EmailSans,
    /// Names of kinds that are not gathered.
    OtherNames,
    Marks(Mark, Which),
    IssuerMark(Mark),
    Certificate,
    Begin(TimeFormat),
    End(TimeFormat),
}

#[derive(Clone, Copy, Debug)]
enum Mark {
    Serial,
    Sha256,
    Sha1,
}

/// Of which certificates of the chain.
#[derive(Clone, Copy, Debug)]
enum Which {
    Leaf,
    All,
}

impl TlsOperator {
    /// Finds an operator; the error is what is wrong with its argument.
    pub(super) fn parse(name: &str, argument: Option<&str>) -> Option<Result<Self, String>> {
        let (side, rest) = match name.split_once('_')? {
            ("DOWNSTREAM", rest) => (Side::Downstream, rest),
            ("UPSTREAM", rest) => (Side::Upstream, rest),
            _ => return None,
        };
        let fact = match rest {
            "TLS_VERSION" => Ok(Fact::Version),
            "TLS_CIPHER" => Ok(Fact::Cipher),
            "TLS_GROUP" => Ok(Fact::Group),
            "TLS_SESSION_ID" => Ok(Fact::SessionId),
            _ => match rest.split_once('_')? {
                ("PEER", part) => Part::parse(part, side, argument)?.map(Fact::Peer),
                ("LOCAL", part) if local_has(part, side) => Part::parse(part, side, None)?.map(Fact::Local),
                _ => return None,
            },
        };
        let takes_argument = rest.starts_with("PEER_CERT_V_");
        Some(match fact {
            Ok(_) if argument.is_some() && !takes_argument => Err("takes no argument".to_owned()),
            fact => fact.map(|fact| Self { side, fact }),
        })
    }

    pub(super) fn value<'a>(&'a self, info: &StreamInfo) -> Value<'a> {
        let tls = match self.side {
            Side::Downstream => info.connection.tls.get().cloned(),
            Side::Upstream => info.upstream.borrow().as_ref().and_then(|upstream| upstream.tls.clone()),
        };
        match (&self.fact, tls) {
            // What BoringSSL says before anything is agreed on.
            (Fact::Version, None) if self.side == Side::Downstream && info.connection.secure => {
                Value::text("TLSv1.2")
            }
            (_, None) => Value::Missing,
            (fact, Some(tls)) => fact.value(&tls),
        }
    }
}

/// Of our own certificate, Envoy prints less; upstream less again.
fn local_has(part: &str, side: Side) -> bool {
    match part {
        "URI_SAN" | "DNS_SAN" | "IP_SAN" => true,
        "SUBJECT" | "EMAIL_SAN" | "OTHERNAME_SAN" => side == Side::Downstream,
        _ => false,
    }
}

impl Part {
    fn parse(name: &str, side: Side, argument: Option<&str>) -> Option<Result<Self, String>> {
        let time = || match argument.filter(|text| !text.is_empty()) {
            None => Ok(TimeFormat::iso()),
            Some(text) => {
                TimeFormat::parse(text).map_err(|part| format!("`{part}` is not supported in a time format"))
            }
        };
        let part = match name {
            "SUBJECT" => Self::Subject,
            "ISSUER" => Self::Issuer,
            "URI_SAN" => Self::UriSans,
            "DNS_SAN" => Self::DnsSans,
            "IP_SAN" => Self::IpSans,
            "CERT" => Self::Certificate,
            "CERT_V_START" => return Some(time().map(Self::Begin)),
            "CERT_V_END" => return Some(time().map(Self::End)),
            _ if side == Side::Upstream => return None,
            "EMAIL_SAN" => Self::EmailSans,
            "OTHERNAME_SAN" => Self::OtherNames,
            "FINGERPRINT_256" => Self::Marks(Mark::Sha256, Which::Leaf),
            "FINGERPRINT_1" => Self::Marks(Mark::Sha1, Which::Leaf),
            "SERIAL" => Self::Marks(Mark::Serial, Which::Leaf),
            "CHAIN_FINGERPRINTS_256" => Self::Marks(Mark::Sha256, Which::All),
            "CHAIN_FINGERPRINTS_1" => Self::Marks(Mark::Sha1, Which::All),
            "CHAIN_SERIALS" => Self::Marks(Mark::Serial, Which::All),
            "ISSUER_FINGERPRINT_256" => Self::IssuerMark(Mark::Sha256),
            "ISSUER_FINGERPRINT_1" => Self::IssuerMark(Mark::Sha1),
            "ISSUER_SERIAL" => Self::IssuerMark(Mark::Serial),
            _ => return None,
        };
        Some(Ok(part))
    }

    fn value<'a>(&'a self, certificate: &CertificateInfo) -> Value<'a> {
        let time = |format, time: SystemTime| Value::Shown(Shown::Time(format, time));
        match self {
            Self::Subject => text(certificate.subject.clone()),
            Self::Issuer => text(certificate.issuer.clone()),
            Self::UriSans => text(certificate.uri_sans.join(",")),
            Self::DnsSans => text(certificate.dns_sans.join(",")),
            Self::IpSans => text(certificate.ip_sans.join(",")),
            Self::EmailSans => text(certificate.email_sans.join(",")),
            // The session knows it, not the certificate.
            Self::OtherNames | Self::IssuerMark(_) => Value::Missing,
            Self::Marks(mark, which) => {
                let marks: Vec<_> = which.of(&certificate.marks).iter().map(|marks| mark.of(marks)).collect();
                text(marks.join(","))
            }
            Self::Certificate => text(certificate.url_encoded_pem()),
            Self::Begin(format) => time(format, certificate.not_before),
            Self::End(format) => time(format, certificate.not_after),
        }
    }
}

impl Fact {
    fn value<'a>(&'a self, tls: &TlsInfo) -> Value<'a> {
        match self {
            Self::Version => Value::text(tls.version),
            Self::Cipher => Value::maybe_text(Some(tls.cipher).filter(|cipher| !cipher.is_empty())),
            Self::Group => Value::maybe_text(Some(tls.group).filter(|group| !group.is_empty())),
            Self::SessionId => text(tls.session_id.clone()),
            Self::Peer(Part::IssuerMark(mark)) => {
                text(tls.peer_issuer.as_ref().map(|issuer| mark.of(issuer).to_owned()).unwrap_or_default())
            }
            Self::Peer(part) => tls.peer.as_deref().map_or(Value::Missing, |peer| part.value(peer)),
            Self::Local(part) => tls.local.as_deref().map_or(Value::Missing, |local| part.value(local)),
        }
    }
}

impl Mark {
    fn of(self, marks: &CertificateMarks) -> &str {
        match self {
            Self::Serial => &marks.serial,
            Self::Sha256 => &marks.sha256,
            Self::Sha1 => &marks.sha1,
        }
    }
}

impl Which {
    fn of(self, chain: &[CertificateMarks]) -> &[CertificateMarks] {
        match self {
            Self::Leaf => chain.get(..1).unwrap_or_default(),
            Self::All => chain,
        }
    }
}

fn text(text: String) -> Value<'static> {
    Value::maybe_owned(Some(text).filter(|text| !text.is_empty()))
}

//! `%REQUESTED_SERVER_NAME(X:Y)%`: the name that the client asked for, in its hello or its request.

use tidegate_types::{RequestHead, StreamInfo};

use super::super::value::Value;
use crate::LogContext;

/// Which name is looked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum NameSource {
    Sni,
    SniThenHost,
    HostThenSni,
}

impl NameSource {
    /// The error is what is wrong with the argument.
    pub(super) fn parse(argument: &str) -> Result<Self, String> {
        let (first, of_host) = argument.split_once(':').unwrap_or((argument, "ORIG"));
        // Rewritten hosts are looked at nowhere: the original one is the only one.
        if of_host != "ORIG" {
            return Err(format!("`{of_host}` is not supported behind the colon: `ORIG` is"));
        }
        match first {
            "SNI_ONLY" => Ok(Self::Sni),
            "SNI_FIRST" => Ok(Self::SniThenHost),
            "HOST_FIRST" => Ok(Self::HostThenSni),
            other => Err(format!("`{other}` is none of SNI_ONLY, SNI_FIRST and HOST_FIRST")),
        }
    }

    pub(super) fn value<'a>(self, cx: &LogContext<'a>, info: &StreamInfo) -> Value<'a> {
        let sni = info.connection.requested_server_name.borrow().as_deref().map(host_name);
        let host =
            cx.request.map(RequestHead::authority_str).map(without_port).filter(|host| !host.is_empty());
        let host = host.map(str::to_owned);
        Value::maybe_owned(match self {
            Self::Sni => sni,
            Self::SniThenHost => sni.or(host),
            Self::HostThenSni => host.or(sni),
        })
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// A name as a client sent it; one that cannot be a host's is marked, and made harmless, as in Envoy.
fn host_name(name: &str) -> String {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if name.chars().all(valid) {
        return name.to_owned();
    }
    let harmless: String = name.chars().map(|c| if valid(c) { c } else { '_' }).collect();
    format!("invalid:{harmless}")
}

//! `envoy.filters.listener.tls_inspector`: tells TLS from plain text and finds the server name and the offered
//! protocols in the ClientHello, for `transport_protocol`, `server_names` and `application_protocols` of filter
//! chains.
//!
//! Configuration, as in Envoy's `TlsInspector` message:
//! - `max_client_hello_size` (256 to 16384 bytes, 16384 by default): a longer one is refused;
//! - `close_connection_on_client_hello_parsing_errors`: what is no ClientHello is refused, plain text too;
//! - `initial_read_buffer_size`: taken and not needed, a look takes what is there;
//! - `enable_ja3_fingerprinting`, `enable_ja4_fingerprinting`: only `false`.
//!
//! Counters `tls_inspector.`: `client_hello_too_large`, `tls_found`, `tls_not_found`, `alpn_found`,
//! `alpn_not_found`, `sni_found`, `sni_not_found`; histogram `bytes_processed`.

mod client_hello;

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use tidegate_filter::{Arrival, FactoryContext, ListenerFilter, ListenerFilterType, ListenerFlow};
use tidegate_stats::{Scope, stat_block};

use client_hello::{ClientHello, Fault};

/// The filter's type.
pub struct TlsInspector;

/// The configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(default = "longest", deserialize_with = "hello_size")]
    max_client_hello_size: usize,
    #[serde(default)]
    close_connection_on_client_hello_parsing_errors: bool,
    #[serde(default, rename = "initial_read_buffer_size", deserialize_with = "hello_size")]
    _initial_read_buffer_size: usize,
    #[serde(default, rename = "enable_ja3_fingerprinting", deserialize_with = "off")]
    _ja3: (),
    #[serde(default, rename = "enable_ja4_fingerprinting", deserialize_with = "off")]
    _ja4: (),
}

stat_block! {
    /// What was found.
    struct InspectorStats {
        counters {
            client_hello_too_large,
            tls_found,
            tls_not_found,
            alpn_found,
            alpn_not_found,
            sni_found,
            sni_not_found,
        }
        histograms { bytes_processed }
    }
}

/// The configuration and its statistics, which all workers share.
pub struct Inspector {
    longest: usize,
    close_on_errors: bool,
    stats: InspectorStats,
}

impl ListenerFilterType for TlsInspector {
    const NAME: &'static str = "envoy.filters.listener.tls_inspector";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    type Config = Config;
    type Factory = Inspector;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<Inspector, String> {
        Ok(Inspector {
            longest: config.max_client_hello_size,
            close_on_errors: config.close_connection_on_client_hello_parsing_errors,
            stats: InspectorStats::new(cx.stats, Scope::root().child("tls_inspector")),
        })
    }

    fn open(factory: &Arc<Inspector>) -> Box<dyn ListenerFilter> {
        Box::new(Connection { inspector: factory.clone() })
    }
}

struct Connection {
    inspector: Arc<Inspector>,
}

impl ListenerFilter for Connection {
    fn inspect(&mut self, arrival: &mut Arrival, bytes: &[u8]) -> ListenerFlow {
        let Inspector { longest, close_on_errors, stats } = &*self.inspector;
        match ClientHello::parse(bytes) {
            Ok(None) if bytes.len() >= *longest => {
                stats.client_hello_too_large().inc();
                ListenerFlow::Refuse
            }
            Ok(None) => ListenerFlow::NeedMore,
            Ok(Some(hello)) => {
                stats.bytes_processed().record(bytes.len() as u64);
                found(hello, arrival, stats);
                ListenerFlow::DONE
            }
            Err(fault) => {
                stats.bytes_processed().record(bytes.len() as u64);
                stats.tls_not_found().inc();
                arrival.transport_protocol = Some("raw_buffer".into());
                arrival.transport_failure = Some(boringssl(&fault, bytes).into());
                if *close_on_errors { ListenerFlow::Refuse } else { ListenerFlow::DONE }
            }
        }
    }

    fn most_bytes(&self) -> usize {
        self.inspector.longest
    }
}

fn found(hello: ClientHello, arrival: &mut Arrival, stats: &InspectorStats) {
    stats.tls_found().inc();
    arrival.transport_protocol = Some("tls".into());
    match hello.server_name {
        Some(name) => {
            stats.sni_found().inc();
            arrival.server_name = Some(name.into());
        }
        None => stats.sni_not_found().inc(),
    }
    if hello.protocols.is_empty() {
        stats.alpn_not_found().inc();
    } else {
        stats.alpn_found().inc();
        arrival.application_protocols = hello.protocols;
    }
}

/// What Envoy's TLS library says of such bytes: its inspector leaves that in the access log.
fn boringssl(fault: &Fault, bytes: &[u8]) -> &'static str {
    macro_rules! error {
        ($code:literal, $name:literal) => {
            concat!("TLS_error|error:", $code, ":SSL routines:OPENSSL_internal:", $name, ":TLS_error_end")
        };
    }
    let is_http = [&b"GET "[..], b"POST ", b"HEAD ", b"PUT "].iter().any(|method| bytes.starts_with(method));
    match fault {
        Fault::NotTls if is_http => error!("1000009c", "HTTP_REQUEST"),
        Fault::NotTls if bytes.starts_with(b"CONNE") => error!("1000009b", "HTTPS_PROXY_REQUEST"),
        Fault::NotTls => error!("100000f7", "WRONG_VERSION_NUMBER"),
        Fault::TooLong => error!("10000096", "EXCESSIVE_MESSAGE_SIZE"),
        Fault::NotAHello => error!("100000f4", "UNEXPECTED_MESSAGE"),
        Fault::Malformed => error!("10000083", "CLIENTHELLO_PARSE_FAILED"),
    }
}

fn longest() -> usize {
    LONGEST
}

/// Bounds what an unknown client can make the proxy hold and parse: Envoy's bound, the size of one TLS record
/// (RFC 8446 §5.1).
const LONGEST: usize = 16 * 1024;

fn hello_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let size = u32::deserialize(deserializer)? as usize;
    if !(256..=LONGEST).contains(&size) {
        return Err(serde::de::Error::custom(format!("must be between 256 and {LONGEST}")));
    }
    Ok(size)
}

fn off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match bool::deserialize(deserializer)? {
        false => Ok(()),
        true => Err(serde::de::Error::custom("fingerprints are not supported by this build")),
    }
}

#[cfg(test)]
mod tests;

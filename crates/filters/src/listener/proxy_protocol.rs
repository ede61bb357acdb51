//! `envoy.filters.listener.proxy_protocol`: takes the PROXY header (versions 1 and 2) off a connection and goes by
//! the addresses in it. Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.
//!
//! Configuration, as in Envoy's `ProxyProtocol` message:
//! - `rules {tlv_type, on_tlv_present {metadata_namespace, key}}`: TLVs to keep as metadata
//!   ([`ConnectionMetadata`], `%DYNAMIC_METADATA%`);
//! - `pass_through_tlvs {match_type, tlv_type}`: TLVs to keep for PROXY headers to upstreams ([`ProxyTlvs`]);
//! - `allow_requests_without_proxy_protocol`: clients without a header are served under their own address;
//! - `disallowed_versions`: `V1`, `V2`;
//! - `stat_prefix`.
//!
//! Counters `proxy_proto.[PREFIX.]`: `not_found_allowed`, `not_found_disallowed`, `versions.v1.found`,
//! `versions.v1.disallowed`, `versions.v1.error` and those of `v2`; `downstream_cx_proxy_proto_error`, the sum of
//! errors. Beyond Envoy, a wrong checksum and more than 4 KB of TLVs are errors.

mod config;
mod crc32c;
mod header;
mod stats;

use std::sync::Arc;

use tidegate_filter::{Arrival, FactoryContext, ListenerFilter, ListenerFilterType, ListenerFlow};
use tidegate_types::Address;
use tidegate_types::connection_state::{ConnectionMetadata, ProxyTlvs};

pub use config::Config;
use config::{Rule, Version};
use header::{Header, Parsed, Presence};
use stats::ProxyStats;

/// The filter's type.
pub struct ProxyProtocol;

/// The configuration and its statistics, which all workers share.
pub struct Settings {
    config: Config,
    stats: ProxyStats,
}

impl ListenerFilterType for ProxyProtocol {
    const NAME: &'static str = "envoy.filters.listener.proxy_protocol";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    type Config = Config;
    type Factory = Settings;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<Settings, String> {
        if [Version::V1, Version::V2].iter().all(|version| config.disallowed_versions.contains(version)) {
            return Err("all PROXY protocol versions are disallowed: nobody could connect".to_owned());
        }
        Ok(Settings { stats: ProxyStats::new(cx.stats, &config.stat_prefix), config })
    }

    fn open(factory: &Arc<Settings>) -> Box<dyn ListenerFilter> {
        Box::new(Connection { settings: factory.clone() })
    }
}

struct Connection {
    settings: Arc<Settings>,
}

impl ListenerFilter for Connection {
    fn inspect(&mut self, arrival: &mut Arrival, bytes: &[u8]) -> ListenerFlow {
        let Settings { config, stats } = &*self.settings;
        let version = match header::presence(bytes) {
            Presence::Unclear => return ListenerFlow::NeedMore,
            Presence::None => return self.without(bytes),
            Presence::V1 => Version::V1,
            Presence::V2 => Version::V2,
        };
        if config.disallowed_versions.contains(&version) {
            // As in Envoy, a version that is not spoken here is not a header then.
            if config.allow_requests_without_proxy_protocol {
                return self.without(bytes);
            }
            stats.found(version);
            stats.disallowed(version);
            return ListenerFlow::Refuse;
        }
        match header::parse(version, bytes) {
            Parsed::Incomplete => ListenerFlow::NeedMore,
            Parsed::NotFound => {
                stats.not_found_disallowed();
                ListenerFlow::Refuse
            }
            Parsed::Malformed => {
                stats.error(version);
                ListenerFlow::Refuse
            }
            Parsed::Header(header) => {
                stats.found(version);
                let consume = header.length;
                self.adopt(header, arrival);
                ListenerFlow::Done { consume }
            }
        }
    }

    fn most_bytes(&self) -> usize {
        header::LONGEST
    }
}

impl Connection {
    /// No header. As in Envoy, a client that must send one is judged when the shortest of version 2 could be there,
    /// or a line's end.
    fn without(&self, bytes: &[u8]) -> ListenerFlow {
        let Settings { config, stats } = &*self.settings;
        if config.allow_requests_without_proxy_protocol {
            stats.not_found_allowed();
            return ListenerFlow::DONE;
        }
        if bytes.len() < header::V2_FIXED {
            if !bytes.windows(2).any(|pair| pair == b"\r\n") {
                return ListenerFlow::NeedMore;
            }
            stats.error(Version::V1);
            return ListenerFlow::Refuse;
        }
        stats.not_found_disallowed();
        ListenerFlow::Refuse
    }

    fn adopt(&self, header: Header<'_>, arrival: &mut Arrival) {
        let config = &self.settings.config;
        let Some((source, destination)) = header.addresses else { return };
        arrival.remote_address = Address::Ip(source);
        arrival.local_address = Address::Ip(destination);
        let kept = |rule: &Rule| {
            let key = rule.on_tlv_present.as_ref()?;
            let (_, value) = header.tlvs.iter().find(|(kind, _)| u32::from(*kind) == rule.tlv_type)?;
            Some((key.namespace().to_owned(), key.key.clone(), printable(value)))
        };
        let metadata: Vec<_> = config.rules.iter().filter_map(kept).collect();
        if !metadata.is_empty() {
            arrival.state.set(ConnectionMetadata(metadata));
        }
        if let Some(pass) = &config.pass_through_tlvs {
            let passed = header.tlvs.iter().filter(|(kind, _)| pass.takes(*kind));
            arrival.state.set(ProxyTlvs(passed.map(|(kind, value)| (*kind, Box::from(*value))).collect()));
        }
    }
}

/// As text, with `!` for each byte that is none, as Envoy keeps it.
fn printable(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

#[cfg(test)]
mod tests;

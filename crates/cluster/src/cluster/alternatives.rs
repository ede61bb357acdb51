//! Which of a cluster's hosts take HTTP/3: the cache that it names, and what responses say.

use std::rc::Rc;
use std::time::Duration;

use tidegate_config::cluster::AlternateProtocols;
use tidegate_pool::TransportOptions;
use tidegate_pool::alternates::{Alternates, AlternatesOptions, FileOptions, Origin};
use tidegate_types::{Address, UpstreamInfo};
use tokio::time::Instant;

use super::Cluster;

impl Cluster {
    /// What is known of its hosts' origins.
    pub(super) fn alternates(&self) -> &Rc<Alternates> {
        let known = self.alternates.get();
        known.unwrap_or_else(|| {
            let made = self.alternates.get_or_init(|| {
                let named = self.config().protocol.alternate_protocols();
                self.caches.cache(named.map(|named| (named.name.as_str(), options(named))))
            });
            // What was said before there was a cache to put it in.
            self.hear_dns();
            made
        })
    }

    /// Takes up what DNS says of its hosts' names, once it has a use for that.
    pub(super) fn hear_dns(&self) {
        let (Some(services), Some(cache)) = (self.shared.services(), self.alternates.get()) else { return };
        let Some(transports) = &self.shared.transports().rest.quic else { return };
        for ((hostname, port), said) in services.all() {
            let asked = transports.of_host(&hostname).server_name(&TransportOptions::default());
            let origin = Origin::https(asked.as_deref().unwrap_or(&hostname), port);
            cache.learn_from_dns(Instant::now(), &origin, said.at, &said.services);
        }
    }

    /// A response of one of its hosts has these `alt-svc` fields.
    pub(crate) fn heard_alternatives(&self, from: &UpstreamInfo, fields: &[&[u8]], age: Duration) {
        if self.config().protocol.alternate_protocols().is_none() {
            return;
        }
        let Address::Ip(address) = *from.host else { return };
        // As in Envoy, the name that the connection asked for, and not the request's authority: requests are routed to
        // hosts, not to origins.
        let asked = from.tls.as_ref().and_then(|tls| tls.server_name.clone());
        let name = asked.or_else(|| self.hostname_of(&from.host).map(Into::into));
        let Some(name) = name else { return };
        let origin = Origin::https(&name, address.port());
        self.alternates().learn(Instant::now(), &origin, fields.iter().copied(), age);
    }

    fn hostname_of(&self, address: &Address) -> Option<String> {
        let members = self.members();
        let host = members.as_ref()?.hosts.iter().find(|host| *host.address() == *address)?;
        Some(host.attributes().hostname.clone())
    }
}

fn options(config: &AlternateProtocols) -> AlternatesOptions {
    AlternatesOptions {
        max_entries: config.max_entries as usize,
        hints: config.prepopulated.clone(),
        canonical_suffixes: config.canonical_suffixes.clone(),
        file: config.store.as_ref().map(|store| FileOptions {
            path: store.filename.clone().into(),
            flush_interval: store.flush_interval.unwrap_or_default(),
            max_entries: store.max_entries.map_or(usize::MAX, |most| most as usize),
        }),
    }
}

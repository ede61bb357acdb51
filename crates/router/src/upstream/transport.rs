//! What a request asks of the connection that carries it: names for TLS (`auto_sni`, `auto_san_validation`), the
//! downstream's addresses for a PROXY header.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_cluster::{Host, ProxyAddresses, TransportOptions};
use tidegate_config::cluster::AutoSni;
use tidegate_config::transport::UpstreamTransport;
use tidegate_types::RequestHead;

use super::Upstream;
use crate::host::without_port;

impl Upstream<'_> {
    /// `None`, at the cost of a look at the configuration, where requests ask for nothing.
    pub(super) fn transport_options(&self, host: &Host) -> Option<Rc<TransportOptions>> {
        let config = self.facts.cluster.config();
        let socket = self.facts.cluster.socket_of(host);
        let by_request = config.auto_sni.auto_sni || config.auto_sni.auto_san_validation;
        let asks_names = by_request && socket.tls().is_some();
        let tells_addresses = matches!(socket, UpstreamTransport::ProxyProtocol(_));
        if !asks_names && !tells_addresses {
            return None;
        }
        let mut options = TransportOptions::default();
        if let Some(head) = self.stream.request().filter(|_| asks_names) {
            name_the_server(&config.auto_sni, &self.head_for_attempt(head, host), &mut options);
        }
        if tells_addresses {
            options.proxy = ProxyAddresses::of(&self.stream.info().connection);
        }
        Some(Rc::new(options))
    }
}

/// The host after the route's rewrites, without its port; or the override header's value.
fn name_the_server(auto: &AutoSni, head: &RequestHead, options: &mut TransportOptions) {
    let header = auto.override_header.as_ref().and_then(|name| head.headers.get(name));
    let name = header.and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
    let host = || std::str::from_utf8(without_port(&head.authority)).unwrap_or_default();
    let name: Arc<str> = name.unwrap_or_else(host).into();
    if auto.auto_san_validation {
        options.verify_names.push(name.clone());
    }
    if auto.auto_sni {
        options.server_name = Some(name);
    }
}

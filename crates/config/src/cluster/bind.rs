//! `upstream_bind_config`: where connections to upstreams come from.

use std::net::SocketAddr;

use crate::address::Socket;
use crate::reader::{Any, Message, Reader};
use crate::socket_option::SocketOption;

/// See the module. Options are those of TCP sockets, in force before a socket is bound, as in Envoy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BindConfig {
    /// `source_address`, then the one of `extra_source_addresses` or `additional_source_addresses`: a connection
    /// takes the first of its family, or else the first. Empty: the kernel chooses.
    pub sources: Vec<Source>,
    /// The `socket_options` of connections without a source.
    pub options: Vec<SocketOption>,
    /// `freebind`: the source may be an address that this machine does not have (`IP_FREEBIND`).
    pub freebind: bool,
}

/// A source address.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Port 0: any.
    pub address: SocketAddr,
    /// Its own `socket_options`, or those of all.
    pub options: Vec<SocketOption>,
}

impl Message for BindConfig {
    const NAME: &'static str = "envoy.config.core.v3.BindConfig";

    fn read(r: &Reader<'_>) -> Self {
        let main = r.message::<Socket>("source_address").optional().map(|socket| socket.address);
        let options = of_streams(r.repeated("socket_options").or_default());
        let extra = r.repeated::<ExtraSource>("extra_source_addresses").or_default();
        let additional = r.repeated::<Socket>("additional_source_addresses").or_default();
        r.message::<Selector>("local_address_selector").optional();
        if !extra.is_empty() && !additional.is_empty() {
            r.problem("it has `extra_source_addresses` or `additional_source_addresses`, and not both");
        }
        let additional = additional.into_iter().map(|socket| ExtraSource(socket.address, None));
        let others: Vec<_> = extra.into_iter().chain(additional).collect();
        match (&*others, main) {
            ([], _) => {}
            (_, None) => r.problem("extra source addresses need a `source_address`"),
            ([other], Some(main)) if other.0.is_ipv4() == main.is_ipv4() => {
                r.problem("two source addresses are of different families");
            }
            ([_], Some(_)) => {}
            _ => r.problem("there is at most one extra source address"),
        }
        let main = main.map(|address| Source { address, options: options.clone() });
        let others = others.into_iter().map(|ExtraSource(address, own)| Source {
            address,
            options: own.unwrap_or_else(|| options.clone()),
        });
        Self {
            sources: main.into_iter().chain(others).collect(),
            freebind: r.bool("freebind").or_default(),
            options,
        }
    }
}

fn of_streams(options: Vec<SocketOption>) -> Vec<SocketOption> {
    use crate::socket_option::SocketState::Prebind;
    options.into_iter().filter(|option| option.kinds.has_stream() && option.state == Prebind).collect()
}

/// `ExtraSourceAddress`.
struct ExtraSource(SocketAddr, Option<Vec<SocketOption>>);

impl Message for ExtraSource {
    const NAME: &'static str = "envoy.config.core.v3.ExtraSourceAddress";

    fn read(r: &Reader<'_>) -> Self {
        let address = r.required_message::<Socket>("address").address;
        Self(address, r.message::<Override>("socket_options").optional().map(|own| of_streams(own.0)))
    }
}

/// `SocketOptionsOverride`.
struct Override(Vec<SocketOption>);

impl Message for Override {
    const NAME: &'static str = "envoy.config.core.v3.SocketOptionsOverride";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.repeated("socket_options").or_default())
    }
}

/// `local_address_selector`: the one there is.
struct Selector;

impl Message for Selector {
    const NAME: &'static str = "envoy.config.core.v3.TypedExtensionConfig";

    fn read(r: &Reader<'_>) -> Self {
        r.string("name").required_non_empty();
        r.may_be::<DefaultSelector>();
        let chosen = r.any("typed_config");
        if chosen.peek().is_none() && !r.has("typed_config") {
            chosen.report("missing field `typed_config`", None);
        }
        match chosen.optional() {
            Some(any) if any.is::<DefaultSelector>() => drop(any.read::<DefaultSelector>(r)),
            Some(Any { type_url, .. }) => {
                r.problem(format!("local address selector `{type_url}` is not supported by this build"));
            }
            None => {}
        }
        Self
    }
}

struct DefaultSelector;

impl Message for DefaultSelector {
    const NAME: &'static str = "envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

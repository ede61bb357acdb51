//! `envoy.filters.listener.original_dst`: a connection that the kernel redirected here (iptables `REDIRECT`) is
//! matched and logged under the address that it was going to.
//!
//! `OriginalDst` has no fields in Envoy.

use std::sync::Arc;

use serde::Deserialize;
use tidegate_filter::{Arrival, FactoryContext, ListenerFilter, ListenerFilterType, ListenerFlow};

/// The filter's type.
pub struct OriginalDst;

/// The configuration: nothing to configure.
#[derive(Debug, Deserialize)]
pub struct Config {}

impl ListenerFilterType for OriginalDst {
    const NAME: &'static str = "envoy.filters.listener.original_dst";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    type Config = Config;
    type Factory = ();

    fn build(_: Config, _: &FactoryContext<'_>) -> Result<(), String> {
        Ok(())
    }

    fn open(_: &Arc<()>) -> Box<dyn ListenerFilter> {
        Box::new(Connection)
    }
}

struct Connection;

impl ListenerFilter for Connection {
    fn inspect(&mut self, arrival: &mut Arrival, _: &[u8]) -> ListenerFlow {
        if let Some(original) = &arrival.original_destination {
            arrival.local_address = original.clone();
        }
        ListenerFlow::DONE
    }

    fn wants_original_destination(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tidegate_types::Address;

    #[test]
    fn the_original_destination_becomes_the_local_address() {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        let mut arrival = Arrival::new(address("127.0.0.1:15001"), address("10.0.0.1:999"));
        assert_eq!(Connection.inspect(&mut arrival, b""), ListenerFlow::DONE);
        assert_eq!(arrival.local_address, address("127.0.0.1:15001"));
        arrival.original_destination = Some(address("192.0.2.1:80"));
        Connection.inspect(&mut arrival, b"");
        assert_eq!(arrival.local_address, address("192.0.2.1:80"));
    }
}

//! Happy eyeballs: attempts at a host's addresses that race, their transport's handshake included, so that an address
//! which accepts a connection and then says nothing loses too.
//!
//! Envoy docs, "Upstream connection: happy eyeballs support". To pools it is one connection: they count it once, and
//! `connect_timeout` covers all attempts together.

use std::rc::Rc;

use tidegate_net::{Family, Order, race};
use tidegate_stats::stat_block;
use tidegate_types::{Address, ResetReason};

use crate::error::PoolError;

stat_block! {
    /// `cluster.<name>.happy_eyeballs.`: connections to hosts with several addresses.
    pub struct EyeballsStats {
        counters {
            /// Attempts started, each at one address.
            attempts,
            /// Connections won by an IPv4 address.
            won_ipv4,
            /// By an IPv6 address.
            won_ipv6,
            /// By a Unix-domain socket.
            won_pipe,
        }
        histograms {
            /// Milliseconds from the start of the first attempt to that of the one that won: what addresses before
            /// it cost.
            delay_ms,
        }
    }
}

/// How the addresses of a host that has several are tried.
#[derive(Clone)]
pub struct Eyeballs {
    order: Order,
    stats: Rc<dyn Fn() -> EyeballsStats>,
}

impl Eyeballs {
    /// In `order`. `stats` are asked for at the first race.
    pub fn new(order: Order, stats: impl Fn() -> EyeballsStats + 'static) -> Self {
        Self { order, stats: Rc::new(stats) }
    }

    /// Races what `attempt` does with each address.
    pub(crate) async fn race<T>(
        &self,
        addresses: &[Address],
        attempt: impl AsyncFn(&Address) -> Result<T, PoolError>,
    ) -> Result<T, PoolError> {
        let stats = (self.stats)();
        let addresses = self.order.sort(addresses);
        let attempt = &attempt;
        let attempts = addresses.iter().map(|address| {
            stats.attempts().inc();
            async move {
                let opened = attempt(address).await?;
                Ok((address, opened))
            }
        });
        match race(attempts).await {
            Ok(won) => {
                let (address, opened) = won.value;
                stats.delay_ms().record(won.after.as_millis() as u64);
                match Family::of(address) {
                    Family::V4 => stats.won_ipv4(),
                    Family::V6 => stats.won_ipv6(),
                    Family::Unix => stats.won_pipe(),
                }
                .inc();
                tracing::debug!(target: "pool", address = %address, after = ?won.after, "won the race of a host's addresses");
                Ok(opened)
            }
            Err(Some(error)) => Err(error),
            // Without an address there was nobody to ask.
            Err(None) => {
                Err(PoolError::Connect { reason: ResetReason::LocalConnectionFailure, transport: None })
            }
        }
    }
}

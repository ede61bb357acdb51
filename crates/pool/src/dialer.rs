//! How a pool of any protocol opens a connection: a socket, and the cluster's transport on it.
//!
//! What is spoken on the connection is the pool's matter; `connect_timeout`, which covers all of this, is the
//! machine's. A host with several addresses is reached through [`Eyeballs`].

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidegate_net::{BoxIo, DialError, DialOptions, Transport, TransportError, TransportOptions, dial};
use tidegate_types::{Address, ResetReason};

use crate::error::PoolError;
use crate::host::Addresses;
use crate::stats::UpstreamStats;

mod eyeballs;

pub use eyeballs::{Eyeballs, EyeballsStats};
pub use tidegate_net::{Family, Order};

/// Opens connections to one host.
pub struct Dialer {
    /// The host's addresses.
    pub addresses: Arc<Addresses>,
    /// Where the host may have several addresses that are to be tried.
    pub eyeballs: Option<Eyeballs>,
    /// Socket options.
    pub dial: Rc<DialOptions>,
    /// What connections speak below their protocol; `None`: plain text.
    pub transport: Option<Rc<dyn Transport>>,
    /// For `bind_errors`.
    pub stats: UpstreamStats,
}

/// A connection, its handshake done.
pub struct Opened {
    /// Its bytes.
    pub io: BoxIo,
    /// Unique in the process (`%UPSTREAM_CONNECTION_ID%`).
    pub id: u64,
    /// Our end, if it has a name.
    pub local_address: Option<Rc<Address>>,
    /// The end that answered.
    pub remote_address: Option<Rc<Address>>,
}

/// An attempt under way. Dropping it gives the attempt up.
pub type Opening = Pin<Box<dyn Future<Output = Result<Opened, PoolError>>>>;

impl Dialer {
    /// Starts an attempt for a stream that asks for `options`.
    pub fn open(&self, options: Rc<TransportOptions>) -> Opening {
        let attempt = Attempt {
            dial: self.dial.clone(),
            transport: self.transport.clone(),
            options,
            stats: self.stats.clone(),
        };
        let addresses = self.addresses.all();
        match &self.eyeballs {
            Some(eyeballs) if addresses.len() > 1 => {
                let eyeballs = eyeballs.clone();
                Box::pin(async move {
                    eyeballs.race(&addresses, async |address| attempt.run(address).await).await
                })
            }
            _ => {
                let address = self.addresses.primary();
                Box::pin(async move { attempt.run(&address).await })
            }
        }
    }
}

/// What attempts at all of a host's addresses have in common.
struct Attempt {
    dial: Rc<DialOptions>,
    transport: Option<Rc<dyn Transport>>,
    options: Rc<TransportOptions>,
    stats: UpstreamStats,
}

impl Attempt {
    /// A socket, and the transport's handshake on it.
    async fn run(&self, address: &Address) -> Result<Opened, PoolError> {
        let dialed = dial(address, &self.dial).await.map_err(|error| failure(&error, &self.stats))?;
        let io = match &self.transport {
            None => dialed.io,
            Some(transport) => transport.connect(dialed.io, self.options.clone()).await.map_err(refusal)?,
        };
        Ok(Opened {
            io,
            id: next_id(),
            local_address: dialed.local.map(Rc::new),
            remote_address: Some(Rc::new(dialed.remote)),
        })
    }
}

fn failure(error: &DialError, stats: &UpstreamStats) -> PoolError {
    let reason = match error {
        DialError::Remote { .. } => ResetReason::RemoteConnectionFailure,
        DialError::Local { bind, .. } => {
            if *bind {
                stats.bind_errors().inc();
            }
            ResetReason::LocalConnectionFailure
        }
    };
    let transport = Some(error.transport()).filter(|said| !said.is_empty()).cloned();
    PoolError::Connect { reason, transport }
}

fn refusal(error: TransportError) -> PoolError {
    let transport = Some(error.reason).filter(|reason| !reason.is_empty());
    PoolError::Connect { reason: ResetReason::RemoteConnectionFailure, transport }
}

/// A number for a connection, unique in the process.
pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests;

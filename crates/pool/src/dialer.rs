//! How a pool of any protocol opens a connection: a socket, and the cluster's transport on it.
//!
//! What is spoken on the connection is the pool's matter; `connect_timeout`, which covers all of this, is the
//! machine's.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidegate_net::{BoxIo, DialError, DialOptions, Transport, TransportError, TransportOptions, dial};
use tidegate_types::{Address, ResetReason};

use crate::error::PoolError;
use crate::stats::UpstreamStats;

/// Opens connections to one host.
pub struct Dialer {
    /// The host's addresses, the primary one first.
    pub addresses: Arc<[Address]>,
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
        let addresses = self.addresses.clone();
        let dialing = self.dial.clone();
        let transport = self.transport.clone();
        let stats = self.stats.clone();
        Box::pin(async move {
            let dialed = dial(&addresses, &dialing).await.map_err(|error| failure(&error, &stats))?;
            let io = match transport {
                None => dialed.io,
                Some(transport) => transport.connect(dialed.io, options).await.map_err(refusal)?,
            };
            Ok(Opened {
                io,
                id: NEXT_ID.fetch_add(1, Relaxed),
                local_address: dialed.local.map(Rc::new),
                remote_address: Some(Rc::new(dialed.remote)),
            })
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
    PoolError::Connect { reason, transport: Some(error.transport().clone()) }
}

fn refusal(error: TransportError) -> PoolError {
    let transport = Some(error.reason).filter(|reason| !reason.is_empty());
    PoolError::Connect { reason: ResetReason::RemoteConnectionFailure, transport }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

//! Which servers are asked what, how often, and how long they are waited for.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::rr::{Record, RecordType};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::exchange::{Exchange, Sockets, Via};
use super::message::{Question, Reply};
use super::service::{self, Said};
use super::system::{System, with_port};
use super::{
    DnsStats, Families, Family, Found, Resolve, ResolveError, ResolverOptions, Resolving, ResolvingServices,
    ServiceEndpoint,
};

/// Questions at once in the process: each has a socket, and ten thousand clusters ask when it starts. It keeps other
/// users of descriptors from running out of them.
static PLACES: Semaphore = Semaphore::const_new(256);

/// More aliases of an origin are not followed.
const MAX_ALIASES: usize = 8;

/// Asks DNS servers. Cloning it is cheap.
#[derive(Clone)]
pub struct Resolver(Rc<Inner>);

struct Inner {
    options: ResolverOptions,
    stats: DnsStats,
    exchange: Box<dyn Exchange>,
    system: Box<dyn Fn() -> System>,
    /// Where the next look-up begins, where they rotate.
    first: Cell<usize>,
}

impl Resolver {
    /// Asks through this machine's sockets and reads its files at each look-up, since they change.
    pub fn new(options: ResolverOptions, stats: DnsStats) -> Self {
        Self::with(options, stats, Box::new(Sockets), Box::new(System::read))
    }

    /// Asks through `exchange` on a system like `system`.
    pub fn with(
        options: ResolverOptions,
        stats: DnsStats,
        exchange: Box<dyn Exchange>,
        system: Box<dyn Fn() -> System>,
    ) -> Self {
        Self(Rc::new(Inner { options, stats, exchange, system, first: Cell::new(0) }))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: &str, families: Families) -> Resolving {
        let (inner, name) = (self.0.clone(), name.to_owned());
        Box::pin(async move { inner.resolve(&name, families).await })
    }

    fn services(&self, name: &str, port: u16) -> ResolvingServices {
        let (inner, name) = (self.0.clone(), name.to_owned());
        Box::pin(async move { inner.services(&name, port).await })
    }
}

impl Inner {
    async fn resolve(&self, name: &str, families: Families) -> Result<Vec<Found>, ResolveError> {
        match families {
            Families::V4 => self.look_up(name, Family::V4).await,
            Families::V6 => self.look_up(name, Family::V6).await,
            Families::V4ThenV6 => self.one_after_the_other(name, [Family::V4, Family::V6]).await,
            Families::V6ThenV4 => self.one_after_the_other(name, [Family::V6, Family::V4]).await,
            // One look-up, as for c-ares.
            Families::Both => {
                let both = async {
                    let (v4, v6) = tokio::join!(self.find(name, Family::V4), self.find(name, Family::V6));
                    merge(v4, v6)
                };
                self.counted(both).await
            }
        }
    }

    async fn one_after_the_other(
        &self,
        name: &str,
        [first, second]: [Family; 2],
    ) -> Result<Vec<Found>, ResolveError> {
        let found = self.look_up(name, first).await;
        match &found {
            Ok(addresses) if !addresses.is_empty() => found,
            _ => merge(found, self.look_up(name, second).await),
        }
    }

    async fn look_up(&self, name: &str, family: Family) -> Result<Vec<Found>, ResolveError> {
        self.counted(self.find(name, family)).await
    }

    async fn counted(
        &self,
        find: impl Future<Output = Result<Vec<Found>, ResolveError>>,
    ) -> Result<Vec<Found>, ResolveError> {
        let stats = &self.stats;
        stats.pending_resolutions().inc();
        let pending = Pending(stats);
        let found = find.await;
        drop(pending);
        stats.resolve_total().inc();
        match &found {
            Ok(addresses) if addresses.is_empty() => stats.not_found().inc(),
            Ok(_) => {}
            Err(ResolveError::Timeout) => stats.timeouts().add(u64::from(self.options.tries)),
            Err(ResolveError::Server | ResolveError::Unreachable) => {
                stats.get_addr_failure().inc();
                stats.reinits().inc();
            }
            Err(ResolveError::BadName) => stats.get_addr_failure().inc(),
        }
        found
    }

    async fn find(&self, name: &str, family: Family) -> Result<Vec<Found>, ResolveError> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            let found = Found { ip, ttl: Duration::ZERO };
            return Ok(if Family::of(&ip) == family { vec![found] } else { Vec::new() });
        }
        if self.options.filter_unroutable_families && !is_routable(family) {
            return Ok(Vec::new());
        }
        let system = (self.system)();
        if let Some(found) = system.known(name, family) {
            return Ok(found);
        }
        let read = |question: &Question, answers: &[Record]| {
            let found = question.addresses(answers);
            (!found.is_empty()).then_some(found)
        };
        Ok(self.search(&system, name, Question::type_of(family), read).await?.unwrap_or_default())
    }

    /// What `read` finds in the answers for the first of the names that `name` may stand for; `None`: nothing.
    async fn search<T>(
        &self,
        system: &System,
        name: &str,
        asked: RecordType,
        read: impl Fn(&Question, &[Record]) -> Option<T>,
    ) -> Result<Option<T>, ResolveError> {
        let servers = self.servers(system);
        let mut result = Err(ResolveError::BadName);
        for candidate in system.candidates(name, self.options.no_search) {
            let Some(question) = Question::new(&candidate, asked) else { continue };
            // What a search domain does not have another one may.
            match read(&question, &self.ask_all(&servers, &question).await?) {
                Some(found) => return Ok(Some(found)),
                None => result = Ok(None),
            }
        }
        result
    }

    /// Not counted: Envoy asks for none.
    async fn services(&self, name: &str, port: u16) -> Result<Vec<ServiceEndpoint>, ResolveError> {
        let system = (self.system)();
        let is_known = |family| system.known(name, family).is_some();
        if name.parse::<IpAddr>().is_ok() || is_known(Family::V4) || is_known(Family::V6) {
            return Ok(Vec::new());
        }
        let read = |question: &Question, answers: &[Record]| match service::read(question, answers) {
            Said::Endpoints(endpoints) if endpoints.is_empty() => None,
            said => Some(said),
        };
        let (mut owner, mut alias) = (service::owner(name, port), None);
        for _ in 0..MAX_ALIASES {
            match self.search(&system, &owner, RecordType::HTTPS, read).await? {
                None => break,
                Some(Said::Alias(target)) => {
                    alias = Some(target.strip_suffix('.').unwrap_or(&target).to_owned());
                    owner = target;
                }
                Some(Said::Endpoints(mut endpoints)) => {
                    // "." is the name that was asked last.
                    endpoints.iter_mut().for_each(|endpoint| {
                        endpoint.target = endpoint.target.take().or_else(|| alias.clone());
                    });
                    return Ok(endpoints);
                }
            }
        }
        Ok(Vec::new())
    }

    fn servers(&self, system: &System) -> Vec<SocketAddr> {
        let options = &self.options;
        let systems_own = options.servers.is_empty() || options.servers_are_fallback;
        let mut servers = match systems_own && !system.servers.is_empty() {
            true => system.servers.clone(),
            false => options.servers.iter().copied().map(with_port).collect(),
        };
        if servers.is_empty() {
            // resolv.conf(5): the name server on this machine.
            servers.push(with_port(([127, 0, 0, 1], 0).into()));
        }
        if options.rotate {
            let first = self.first.get();
            self.first.set(first.wrapping_add(1));
            let count = servers.len();
            servers.rotate_left(first % count);
        }
        servers
    }

    /// Asks one server after the other, in rounds, until one tells.
    async fn ask_all(
        &self,
        servers: &[SocketAddr],
        question: &Question,
    ) -> Result<Vec<Record>, ResolveError> {
        let mut error = ResolveError::Unreachable;
        for round in 0..self.options.tries {
            let patience = patience(self.options.timeout, round);
            for server in servers {
                match self.ask(*server, question, patience).await {
                    Ok(found) => return Ok(found),
                    Err(other) => error = other,
                }
            }
        }
        tracing::debug!(target: "dns", ?question, %error, "a look-up failed");
        Err(error)
    }

    /// One server, over TCP too where the answer does not fit a datagram.
    async fn ask(
        &self,
        server: SocketAddr,
        question: &Question,
        patience: Duration,
    ) -> Result<Vec<Record>, ResolveError> {
        // Closed semaphores are the only error, and this one is never closed.
        let _place = PLACES.acquire().await;
        let mut via = if self.options.tcp { Via::Tcp } else { Via::Udp };
        let mut payload = Some(self.options.max_payload);
        loop {
            let once = self.ask_once(server, question, via, payload);
            match timeout(patience, once).await {
                Err(_) => return Err(ResolveError::Timeout),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Reply::Found(found))) => return Ok(found),
                Ok(Ok(Reply::Truncated)) if via == Via::Udp => via = Via::Tcp,
                Ok(Ok(Reply::Malformed)) if payload.is_some() => payload = None,
                Ok(Ok(Reply::Truncated | Reply::Malformed | Reply::Refused)) => {
                    return Err(ResolveError::Server);
                }
            }
        }
    }

    async fn ask_once(
        &self,
        server: SocketAddr,
        question: &Question,
        via: Via,
        payload: Option<u16>,
    ) -> Result<Reply, ResolveError> {
        let id = fastrand::u16(..);
        let message = question.encode(id, payload).ok_or(ResolveError::BadName)?;
        let mut reply = None;
        let mut accepts = |bytes: &[u8]| {
            reply = question.read(id, bytes);
            reply.is_some()
        };
        let exchanged = self.exchange.exchange(server, via, &message, &mut accepts).await;
        exchanged.map_err(|_| ResolveError::Unreachable)?;
        reply.ok_or(ResolveError::Server)
    }
}

/// A look-up that is under way, until it is over or given up.
struct Pending<'a>(&'a DnsStats);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending_resolutions().dec();
    }
}

/// What both families have. Where there is nothing, that one of them could not be told counts: that there is no
/// address at all is not known then.
fn merge(
    first: Result<Vec<Found>, ResolveError>,
    second: Result<Vec<Found>, ResolveError>,
) -> Result<Vec<Found>, ResolveError> {
    match (first, second) {
        (Ok(mut first), Ok(second)) => {
            first.extend(second);
            Ok(first)
        }
        (Ok(found), Err(error)) | (Err(error), Ok(found)) => {
            if found.is_empty() {
                Err(error)
            } else {
                Ok(found)
            }
        }
        (Err(_), Err(error)) => Err(error),
    }
}

/// Doubled in each round, and there less by up to half, so that many who began together do not go on together; as
/// c-ares.
fn patience(base: Duration, round: u32) -> Duration {
    let full = base.saturating_mul(1 << round.min(16));
    match round {
        0 => full,
        _ => full.mul_f64(1.0 - fastrand::f64() / 2.0).max(base),
    }
}

/// Whether this machine has a way to addresses of `family`. Nothing is sent: a datagram socket only learns its
/// route.
fn is_routable(family: Family) -> bool {
    // Addresses for documentation (RFC 5737, RFC 3849).
    let (any, target): (SocketAddr, SocketAddr) = match family {
        Family::V4 => (([0, 0, 0, 0], 0).into(), ([192, 0, 2, 1], 9).into()),
        Family::V6 => (([0_u16; 8], 0).into(), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9).into()),
    };
    std::net::UdpSocket::bind(any).and_then(|socket| socket.connect(target)).is_ok()
}

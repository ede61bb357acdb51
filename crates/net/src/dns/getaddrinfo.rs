//! The system's own resolver, on threads that may wait: Envoy's `envoy.network.dns_resolver.getaddrinfo`.
//!
//! Not the worker's threads, and not the main one. What the system keeps or asks is its own matter.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Families, Family, Found, Resolve, ResolveError, Resolving};

/// Nobody says how long the system's answers hold: Envoy's number.
const TTL: Duration = Duration::from_secs(60);

/// Before the system is asked again that could not tell for now. Without it, one that says so at once would be asked
/// without end.
const PAUSE: Duration = Duration::from_millis(250);

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Asks the system. Cloning it is cheap.
#[derive(Clone)]
pub struct SystemResolver {
    lookup: Arc<Lookup>,
    /// Look-ups at a time.
    places: Rc<Semaphore>,
    retries: Option<u32>,
}

impl SystemResolver {
    /// At most `at_once` look-ups at a time. Where the system cannot tell for now it is asked again so many times,
    /// `None`: until it can.
    pub fn new(at_once: u32, retries: Option<u32>) -> Self {
        Self::with(at_once, retries, |name| {
            Ok((name, 0).to_socket_addrs()?.map(|found| found.ip()).collect())
        })
    }

    /// As [`SystemResolver::new`], on a system that answers as `lookup` does, which may block.
    pub fn with(
        at_once: u32,
        retries: Option<u32>,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { lookup: Arc::new(lookup), places: Rc::new(Semaphore::new(at_once.max(1) as usize)), retries }
    }

    async fn find(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let mut left = self.retries;
        loop {
            let place = self.places.acquire().await.map_err(|_| ResolveError::Server)?;
            let (lookup, name) = (self.lookup.clone(), name.to_owned());
            let found = tokio::task::spawn_blocking(move || lookup(&name)).await;
            drop(place);
            match found.map_err(|_| ResolveError::Server)? {
                Ok(found) => return Ok(found),
                Err(error) => match Failure::of(&error) {
                    Failure::NoSuchName => return Ok(Vec::new()),
                    Failure::Other => return Err(ResolveError::Server),
                    Failure::ForNow if left == Some(0) => return Err(ResolveError::Server),
                    Failure::ForNow => left = left.map(|left| left - 1),
                },
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str, families: Families) -> Resolving {
        let (this, name) = (self.clone(), name.to_owned());
        Box::pin(async move {
            let all = this.find(&name).await?;
            let of = |family| {
                let ips = all.iter().filter(move |ip| Family::of(ip) == family);
                ips.map(|ip| Found { ip: *ip, ttl: TTL }).collect::<Vec<_>>()
            };
            let either = |first, second| {
                let found = of(first);
                if found.is_empty() { of(second) } else { found }
            };
            Ok(match families {
                Families::V4 => of(Family::V4),
                Families::V6 => of(Family::V6),
                Families::V4ThenV6 => either(Family::V4, Family::V6),
                Families::V6ThenV4 => either(Family::V6, Family::V4),
                // In the order that the system prefers (RFC 6724).
                Families::Both => all.iter().map(|ip| Found { ip: *ip, ttl: TTL }).collect(),
            })
        })
    }
}

/// What the system's `EAI_` codes come to. The standard library hands out their texts only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// `EAI_NONAME`, `EAI_NODATA`: an answer.
    NoSuchName,
    /// `EAI_AGAIN`.
    ForNow,
    Other,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        // glibc's and musl's; no locale is set.
        const NONE: [&str; 4] = [
            "Name or service not known",
            "No address associated with hostname",
            "Name does not resolve",
            "Name has no usable address",
        ];
        const AGAIN: [&str; 2] = ["Temporary failure in name resolution", "Try again"];
        let text = error.to_string();
        let ends = |texts: &[&str]| texts.iter().any(|end| text.ends_with(end));
        if ends(&NONE) {
            Self::NoSuchName
        } else if ends(&AGAIN) {
            Self::ForNow
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    fn ips(resolver: &SystemResolver, families: Families) -> Resolving {
        resolver.resolve("a.test", families)
    }

    #[tokio::test]
    async fn families_are_chosen_from_one_answer() {
        let system = SystemResolver::with(1, None, |_| {
            Ok(vec![IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), IpAddr::from([127, 0, 0, 1])])
        });
        for (families, expected) in [
            (Families::V4, &["127.0.0.1"][..]),
            (Families::V6, &["::1"]),
            (Families::V4ThenV6, &["127.0.0.1"]),
            (Families::V6ThenV4, &["::1"]),
            (Families::Both, &["::1", "127.0.0.1"]),
        ] {
            let found = ips(&system, families).await.unwrap();
            let found: Vec<_> = found.iter().map(|found| found.ip.to_string()).collect();
            assert_eq!(found, expected, "{families:?}");
        }
        let only_v4 = SystemResolver::with(1, None, |_| Ok(vec![IpAddr::from([127, 0, 0, 1])]));
        assert_eq!(ips(&only_v4, Families::V6ThenV4).await.unwrap()[0].ttl, TTL);
        assert_eq!(ips(&only_v4, Families::V6).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_asked_again_or_an_error() {
        let says = |text: &'static str, retries| {
            let asked = Arc::new(AtomicU32::new(0));
            let count = asked.clone();
            let system = SystemResolver::with(1, retries, move |_| {
                count.fetch_add(1, Relaxed);
                Err(io::Error::other(format!("failed to lookup address information: {text}")))
            });
            (system, asked)
        };
        for (text, expected, times) in [
            ("Name or service not known", Ok(Vec::new()), 1),
            ("No address associated with hostname", Ok(Vec::new()), 1),
            ("Temporary failure in name resolution", Err(ResolveError::Server), 3),
            ("Non-recoverable failure in name resolution", Err(ResolveError::Server), 1),
        ] {
            let (system, asked) = says(text, Some(2));
            assert_eq!(ips(&system, Families::V4).await, expected, "{text}");
            assert_eq!(asked.load(Relaxed), times, "{text}");
        }
    }
}

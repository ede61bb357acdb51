//! One origin: who else serves it, whether HTTP/3 works there, how far away it is.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::rc::Weak;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::alt_svc::{self, Advertised, Service};
use super::status::Http3Status;
use super::{Alternative, Listener};

/// The protocol that is understood here (RFC 9114 §3.1).
const HTTP3: &[u8] = b"h3";

/// RFC 9110 §4.2.2.
const HTTPS_PORT: u16 = 443;

/// Who is served: `https`, a name, a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    host: Arc<str>,
    port: u16,
}

impl Origin {
    /// Names are compared in lower case.
    pub fn https(host: &str, port: u16) -> Self {
        Self { host: host.to_ascii_lowercase().into(), port }
    }

    /// As it prints, or as RFC 6454 §6.2 has it: without a port it is 443.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let authority = std::str::from_utf8(text).ok()?.strip_prefix("https://")?;
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => Some(Self::https(host, port.parse().ok()?)),
            _ => Some(Self::https(authority, HTTPS_PORT)),
        }
    }

    /// Its name.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

/// An alternative service, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternate {
    service: Service,
    expires: Instant,
    source: Source,
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The origin, or the configuration for it.
    Origin,
    Dns,
}

impl Alternate {
    /// Advertised by a response that was made `age` before `now`.
    pub(super) fn of(service: Service, now: Instant, age: Duration) -> Self {
        let expires = now + service.max_age.saturating_sub(age);
        Self { service, expires, source: Source::Origin }
    }

    /// Found in DNS at a moment.
    pub(super) fn in_dns(service: Service, at: Instant) -> Self {
        Self { expires: at + service.max_age, service, source: Source::Dns }
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.expires > now
    }

    /// A configured one.
    pub(super) fn hint(port: u16, expires: Instant) -> Self {
        let max_age = Duration::ZERO;
        let service = Service { protocol: HTTP3.to_vec(), host: String::new(), port, max_age, persist: true };
        Self { service, expires, source: Source::Origin }
    }
}

/// See the module.
pub struct Record {
    pub(super) origin: Origin,
    /// `None`: nobody ever said anything.
    alternates: RefCell<Option<Vec<Alternate>>>,
    status: RefCell<Http3Status>,
    /// Smoothed, of the last connection; zero: not known.
    pub(super) round_trip: Cell<Duration>,
    /// Streams at a time that the peer took; 0: not known. Kept for Envoy, which may read the file.
    streams: Cell<u32>,
    /// When it was used last, in uses; 0: the cache does not have it.
    pub(super) used: Cell<u64>,
    listeners: RefCell<Vec<Weak<dyn Listener>>>,
}

impl Record {
    /// One that the cache does not have.
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            alternates: RefCell::default(),
            status: RefCell::default(),
            round_trip: Cell::default(),
            streams: Cell::default(),
            used: Cell::default(),
            listeners: RefCell::default(),
        }
    }

    /// Whose it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether HTTP/3 works.
    pub fn status(&self) -> RefMut<'_, Http3Status> {
        self.status.borrow_mut()
    }

    /// The smoothed round-trip time of the last connection; zero: not known.
    pub fn round_trip(&self) -> Duration {
        self.round_trip.get()
    }

    /// Tells `listener` when the origin begins to take HTTP/3.
    pub fn listen(&self, listener: Weak<dyn Listener>) {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|known| known.strong_count() > 0);
        if !listeners.iter().any(|known| known.ptr_eq(&listener)) {
            listeners.push(listener);
        }
    }

    pub(super) fn tell(&self) {
        let listeners = self.listeners.borrow().clone();
        listeners.iter().filter_map(Weak::upgrade).for_each(Listener::learned);
    }

    pub(super) fn is_known(&self) -> bool {
        self.used.get() != 0
    }

    /// The cache has no room for it.
    pub(super) fn forget(&self) {
        self.used.set(0);
        self.alternates.take();
    }

    pub(super) fn has_no_news(&self) -> bool {
        self.alternates.borrow().is_none()
    }

    pub(super) fn set(&self, alternates: Vec<Alternate>) {
        self.alternates.replace(Some(alternates));
    }

    /// Whether there were some.
    pub(super) fn drop_expired(&self, now: Instant) -> bool {
        self.retain(|alternate| alternate.is_live(now))
    }

    /// Drops those that are of this network only; whether there were some.
    pub(super) fn keep_persistent(&self) -> bool {
        self.retain(|alternate| alternate.service.persist)
    }

    fn retain(&self, keep: impl Fn(&Alternate) -> bool) -> bool {
        let mut alternates = self.alternates.borrow_mut();
        let Some(alternates) = alternates.as_mut() else { return false };
        let before = alternates.len();
        alternates.retain(keep);
        alternates.len() < before
    }

    pub(super) fn takes_http3(&self, now: Instant) -> bool {
        let alternates = self.alternates.borrow();
        alternates.iter().flatten().any(|a| a.service.protocol == HTTP3 && a.is_live(now))
    }

    /// Whether the origin itself names alternatives.
    pub(super) fn was_advertised(&self, now: Instant) -> bool {
        let alternates = self.alternates.borrow();
        alternates.iter().flatten().any(|one| one.source == Source::Origin && one.is_live(now))
    }

    /// Where, as a host with that port sees it: there, if HTTP/3 is spoken there; else where it is first said to be.
    pub(super) fn http3(&self, port: u16) -> Option<Alternative> {
        let alternates = self.alternates.borrow();
        let speaks = || alternates.iter().flatten().map(|a| &a.service).filter(|s| s.protocol == HTTP3);
        let is_own_host = |service: &Service| service.host.is_empty() || *service.host == *self.origin.host;
        let first = speaks().next()?;
        if speaks().any(|service| service.port == port && is_own_host(service)) {
            return Some(Alternative::Same);
        }
        let host = (!is_own_host(first)).then(|| first.host.as_str().into());
        Some(Alternative::Elsewhere { host, port: first.port })
    }

    /// As the file has it; `None`: there is nothing worth keeping.
    pub(super) fn stored(&self, seconds: impl Fn(Instant) -> u64) -> Option<String> {
        let alternates = self.alternates.borrow();
        // What DNS says is asked for anew.
        let listed = alternates.iter().flatten().filter(|alternate| alternate.source == Source::Origin);
        let listed: Vec<_> = listed.collect();
        let (srtt, streams) = (self.round_trip.get().as_micros(), self.streams.get());
        if listed.is_empty() && srtt == 0 && streams == 0 {
            return None;
        }
        let one = |Alternate { service, expires, .. }: &&Alternate| {
            let host = match service.host.contains(':') {
                true => format!("[{}]", service.host),
                false => service.host.clone(),
            };
            let persist = if service.persist { "; persist=1" } else { "" };
            let protocol = percent_encode(&service.protocol);
            // Not an age: the moment.
            format!("{protocol}=\"{host}:{}\"; ma={}{persist}", service.port, seconds(*expires))
        };
        let listed = match listed.is_empty() {
            true => "clear".to_owned(),
            false => listed.iter().map(one).collect::<Vec<_>>().join(","),
        };
        Some(format!("{listed}|{srtt}|{streams}"))
    }

    pub(super) fn restore(&self, stored: Stored, moment: impl Fn(u64) -> Instant) {
        let alternates = stored.services.into_iter().map(|service| {
            let expires = moment(service.max_age.as_secs());
            Alternate { service, expires, source: Source::Origin }
        });
        self.set(alternates.collect());
        self.round_trip.set(stored.round_trip);
        self.streams.set(stored.streams);
    }
}

/// What the file says of an origin.
pub(super) struct Stored {
    /// Their ages are moments, in seconds.
    services: Vec<Service>,
    round_trip: Duration,
    streams: u32,
}

impl Stored {
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split('|');
        let (services, srtt, streams) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let services = match alt_svc::parse(services.as_bytes()).ok()? {
            Advertised::Clear => Vec::new(),
            Advertised::Services(services) => services,
        };
        let round_trip = Duration::from_micros(srtt.parse().ok()?);
        Some(Self { services, round_trip, streams: streams.parse().ok()? })
    }
}

/// A protocol id as a token (RFC 7838 §3).
fn percent_encode(protocol: &[u8]) -> String {
    let encode = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(byte) => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    protocol.iter().map(encode).collect()
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("origin", &self.origin)
            .field("alternates", &self.alternates)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

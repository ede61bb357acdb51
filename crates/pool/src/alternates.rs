//! Which origins take HTTP/3, and whether it works: the cache of alternative services
//! (`alternate_protocols_cache_options`; RFC 7838; Envoy docs, "HTTP/3 upstream").
//!
//! One cache a name and worker, shared by the clusters that name it. It learns from responses ([`Alternates::learn`]),
//! from DNS, from configured hints, and from a file that survives the process. [`Alternates::find`] tells a pool where to try
//! QUIC; what became of that is kept beside, in the origin's [`Record`]. No I/O but the file's, and the caller tells
//! the time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub mod alt_svc;
mod file;
mod record;
mod status;

pub use file::{Damaged, File, FileOptions, Pairs};
pub use record::{Origin, Record};
pub use status::{Http3Status, Known};

use alt_svc::{Advertised, Service};
use record::Alternate;

/// Alternatives kept of an origin, as in Envoy. Stops a field from filling memory.
const MOST_ALTERNATES: usize = 10;

/// How long a configured hint holds, as in Envoy.
const HINT_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What is configured of a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternatesOptions {
    /// Origins that are remembered; of more the one used longest ago goes.
    pub max_entries: usize,
    /// Names and ports of origins that are known to take HTTP/3.
    pub hints: Vec<(String, u16)>,
    /// Origins that end alike, with one of these, with equal ports, are served alike. Only those that begin with a dot
    /// count, as in Envoy.
    pub canonical_suffixes: Vec<String>,
    /// Where it is kept beyond the process.
    pub file: Option<FileOptions>,
}

/// Where HTTP/3 is to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alternative {
    /// With the host itself.
    Same,
    /// Elsewhere: who answers must have the origin's certificate (RFC 7838 §2.1).
    Elsewhere {
        /// Its name or address; `None`: the origin's.
        host: Option<Arc<str>>,
        /// Its port.
        port: u16,
    },
}

/// Moments as seconds of a clock that other processes have, too.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// A moment.
    pub at: Instant,
    /// What the monotonic clock of the system showed then, in seconds.
    pub seconds: u64,
}

impl Clock {
    fn seconds_at(&self, moment: Instant) -> u64 {
        match moment.checked_duration_since(self.at) {
            Some(after) => self.seconds + after.as_secs(),
            None => self.seconds.saturating_sub((self.at - moment).as_secs()),
        }
    }

    fn moment_of(&self, seconds: u64) -> Instant {
        match seconds.checked_sub(self.seconds) {
            Some(after) => self.at + Duration::from_secs(after),
            // Past for those, too, who looked at the time before this clock was made.
            None => self.at.checked_sub(Duration::from_secs(self.seconds - seconds)).unwrap_or(self.at),
        }
    }
}

/// Hears of news about an origin.
pub trait Listener {
    /// It takes HTTP/3, which was not known.
    fn learned(self: Rc<Self>);
}

/// See the module.
pub struct Alternates {
    options: AlternatesOptions,
    clock: Clock,
    records: RefCell<HashMap<Origin, Rc<Record>>>,
    /// Of origins that are not known, but that pools ask about.
    asked: RefCell<HashMap<Origin, Weak<Record>>>,
    /// The origin that speaks for those with the suffix of that index and that port.
    canonical: RefCell<HashMap<(usize, u16), Origin>>,
    /// Counts uses.
    uses: Cell<u64>,
    file: Option<Rc<File>>,
    /// Without a cache every host is expected to take HTTP/3.
    everyone: bool,
}

impl Alternates {
    /// A cache with what its file and its hints say. Must be called on a thread whose runtime takes local tasks.
    pub fn new(options: AlternatesOptions, clock: Clock) -> Rc<Self> {
        let file = options.file.clone().map(File::open);
        let cache = Rc::new(Self { file, ..Self::empty(options, clock) });
        cache.load();
        for (host, port) in &cache.options.hints {
            let record = cache.insert(&Origin::https(host, *port));
            if record.has_no_news() {
                record.set(vec![Alternate::hint(*port, clock.at + HINT_MAX_AGE)]);
                cache.set_canonical(&record.origin);
                cache.save(&record);
            }
        }
        cache
    }

    /// What there is without a cache: HTTP/3 is tried with every host.
    pub fn everyone(clock: Clock) -> Rc<Self> {
        Rc::new(Self { everyone: true, ..Self::empty(AlternatesOptions::default(), clock) })
    }

    fn empty(options: AlternatesOptions, clock: Clock) -> Self {
        Self {
            options,
            clock,
            records: RefCell::default(),
            asked: RefCell::default(),
            canonical: RefCell::default(),
            uses: Cell::default(),
            file: None,
            everyone: false,
        }
    }

    /// As it was configured.
    pub fn options(&self) -> &AlternatesOptions {
        &self.options
    }

    /// How many origins are known.
    pub fn len(&self) -> usize {
        self.records.borrow().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.records.borrow().is_empty()
    }

    /// What is known of an origin, for a pool to keep: it is the same one as long as somebody keeps it.
    pub fn record(&self, origin: &Origin) -> Rc<Record> {
        if let Some(known) = self.records.borrow().get(origin) {
            return known.clone();
        }
        let asked = self.asked.borrow().get(origin).and_then(Weak::upgrade);
        asked.unwrap_or_else(|| {
            let record = Rc::new(Record::new(origin.clone()));
            self.remember_asked(&record);
            record
        })
    }

    fn remember_asked(&self, record: &Rc<Record>) {
        let mut asked = self.asked.borrow_mut();
        if asked.len() == asked.capacity() {
            asked.retain(|_, record| record.strong_count() > 0);
        }
        asked.insert(record.origin.clone(), Rc::downgrade(record));
    }

    /// Where HTTP/3 is to be tried for an origin.
    pub fn find(&self, now: Instant, record: &Rc<Record>) -> Option<Alternative> {
        if self.everyone {
            return Some(Alternative::Same);
        }
        if let Some(found) = self.live(now, record, record.origin.port()) {
            return Some(found);
        }
        let canonical = self.canonical_of(&record.origin)?;
        let speaker = self.records.borrow().get(&canonical).cloned()?;
        // What it says about ports it says of its own.
        self.live(now, &speaker, record.origin.port())
    }

    fn live(&self, now: Instant, record: &Record, port: u16) -> Option<Alternative> {
        if record.drop_expired(now) {
            self.save(record);
        }
        let found = record.http3(port)?;
        self.uses.set(self.uses.get() + 1);
        record.used.set(self.uses.get());
        Some(found)
    }

    /// The `alt-svc` fields of a response of `origin`, made `age` ago (RFC 7838 §3.1).
    pub fn learn<'a>(
        &self,
        now: Instant,
        origin: &Origin,
        fields: impl IntoIterator<Item = &'a [u8]>,
        age: Duration,
    ) {
        if self.everyone {
            return;
        }
        let mut alternates = Vec::new();
        let mut clear = false;
        for field in fields {
            match alt_svc::parse(field) {
                // What a response says replaces what others said, so `clear` leaves what else it says.
                Ok(Advertised::Clear) => clear = true,
                Ok(Advertised::Services(services)) => {
                    alternates.extend(services.into_iter().map(|service| Alternate::of(service, now, age)));
                }
                Err(_) => {
                    let field = String::from_utf8_lossy(field);
                    return tracing::trace!(target: "alternate_protocols", "Invalid Alt-Svc header received: '{field}'");
                }
            }
        }
        // "clear" among alternatives is of no meaning: the safer reading.
        if clear {
            alternates.clear();
        } else if alternates.is_empty() {
            return;
        }
        alternates.truncate(MOST_ALTERNATES);
        let record = self.insert(origin);
        let news = !record.takes_http3(now);
        record.set(alternates);
        self.set_canonical(origin);
        self.save(&record);
        if news && record.takes_http3(now) {
            record.tell();
        }
    }

    /// What DNS says of `origin` (RFC 9460), since a moment. The origin itself is believed before (RFC 9460 §9.3).
    pub fn learn_from_dns(&self, now: Instant, origin: &Origin, since: Instant, services: &[Service]) {
        if self.everyone {
            return;
        }
        let known = self.records.borrow().get(origin).cloned();
        if known.as_ref().is_some_and(|record| record.was_advertised(now)) {
            return;
        }
        let alternates = services.iter().map(|service| Alternate::in_dns(service.clone(), since));
        let alternates: Vec<_> = alternates.filter(|one| one.is_live(now)).take(MOST_ALTERNATES).collect();
        if alternates.is_empty() && known.is_none() {
            return;
        }
        let record = self.insert(origin);
        let news = !record.takes_http3(now);
        record.set(alternates);
        self.set_canonical(origin);
        if news && record.takes_http3(now) {
            record.tell();
        }
    }

    /// A connection's smoothed round-trip time, as it was at its end.
    pub fn set_round_trip(&self, record: &Rc<Record>, srtt: Duration) {
        if record.round_trip.replace(srtt) != srtt && record.is_known() {
            self.save(record);
        }
    }

    /// As [`Alternates::set_round_trip`], of a connection that lives: kept with the next news.
    pub fn note_round_trip(&self, record: &Record, srtt: Duration) {
        record.round_trip.set(srtt);
    }

    /// The network is another one: what was seen of HTTP/3 says nothing any more, and only alternatives said to persist
    /// are kept (RFC 7838 §2.2).
    pub fn network_changed(&self) {
        let records: Vec<_> = self.records.borrow().values().cloned().collect();
        for record in records {
            record.status().network_changed();
            if record.keep_persistent() {
                self.save(&record);
            }
        }
    }

    /// The record of an origin, made if there is none.
    fn insert(&self, origin: &Origin) -> Rc<Record> {
        if let Some(record) = self.records.borrow().get(origin) {
            return record.clone();
        }
        let mut records = self.records.borrow_mut();
        while records.len() >= self.options.max_entries.max(1) {
            let oldest = records.values().min_by_key(|record| record.used.get()).cloned();
            let Some(oldest) = oldest else { break };
            records.remove(&oldest.origin);
            oldest.forget();
            self.remember_asked(&oldest);
            if let Some(file) = &self.file {
                file.remove(&oldest.origin.to_string());
            }
        }
        self.uses.set(self.uses.get() + 1);
        let asked = self.asked.borrow_mut().remove(origin).and_then(|record| record.upgrade());
        let record = asked.unwrap_or_else(|| Rc::new(Record::new(origin.clone())));
        record.used.set(self.uses.get());
        records.insert(origin.clone(), record.clone());
        record
    }

    /// Which suffix of those configured an origin has.
    fn suffix_of(&self, origin: &Origin) -> Option<usize> {
        let fits = |suffix: &String| suffix.starts_with('.') && origin.host().ends_with(suffix.as_str());
        self.options.canonical_suffixes.iter().position(fits)
    }

    fn set_canonical(&self, origin: &Origin) {
        if let Some(suffix) = self.suffix_of(origin) {
            self.canonical.borrow_mut().insert((suffix, origin.port()), origin.clone());
        }
    }

    fn canonical_of(&self, origin: &Origin) -> Option<Origin> {
        let suffix = self.suffix_of(origin)?;
        self.canonical.borrow().get(&(suffix, origin.port())).filter(|speaker| *speaker != origin).cloned()
    }

    fn load(&self) {
        let Some(file) = &self.file else { return };
        let mut bad = None;
        for (key, value) in file.pairs().iter() {
            let read = Origin::parse(key.as_bytes()).zip(record::Stored::parse(value));
            let Some((origin, stored)) = read else {
                bad.get_or_insert_with(|| (key.to_owned(), value.to_owned()));
                continue;
            };
            let record = self.insert(&origin);
            record.restore(stored, |seconds| self.clock.moment_of(seconds));
            self.set_canonical(&origin);
        }
        if let Some((key, value)) = bad {
            tracing::warn!(target: "config", "Unable to parse cache entry with key: {key} value: {value}");
        }
    }

    fn save(&self, record: &Record) {
        let Some(file) = &self.file else { return };
        let key = record.origin.to_string();
        match record.stored(|moment| self.clock.seconds_at(moment)) {
            Some(value) => file.set(&key, value),
            None => file.remove(&key),
        }
    }
}

/// The caches of one worker, by their names.
pub struct Caches {
    clock: fn() -> Clock,
    named: RefCell<HashMap<String, Weak<Alternates>>>,
    /// Those with names are kept while the worker lives: what was learned outlives a cluster that changes.
    kept: RefCell<Vec<Rc<Alternates>>>,
}

impl Caches {
    /// None yet.
    pub fn new(clock: fn() -> Clock) -> Rc<Self> {
        Rc::new(Self { clock, named: RefCell::default(), kept: RefCell::default() })
    }

    /// The cache of that name; `None`: one for who asks, by which HTTP/3 is tried with every host. If it was configured
    /// otherwise before, it begins anew.
    pub fn cache(&self, named: Option<(&str, AlternatesOptions)>) -> Rc<Alternates> {
        let Some((name, options)) = named else { return Alternates::everyone((self.clock)()) };
        let known = self.named.borrow().get(name).and_then(Weak::upgrade);
        if let Some(known) = known {
            if *known.options() == options {
                return known;
            }
            // Its file may be the new one's.
            self.kept.borrow_mut().retain(|kept| !Rc::ptr_eq(kept, &known));
        }
        let cache = Alternates::new(options, (self.clock)());
        self.named.borrow_mut().insert(name.to_owned(), Rc::downgrade(&cache));
        self.kept.borrow_mut().push(cache.clone());
        cache
    }

    /// The network is another one.
    pub fn network_changed(&self) {
        let kept = self.kept.borrow().clone();
        kept.iter().for_each(|cache| cache.network_changed());
    }
}

#[cfg(test)]
mod tests;

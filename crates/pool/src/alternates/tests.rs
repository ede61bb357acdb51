//! The cache, in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tokio::task::LocalSet;

use super::*;

fn clock() -> Clock {
    Clock { at: Instant::now(), seconds: 1545 }
}

fn options() -> AlternatesOptions {
    AlternatesOptions { max_entries: 1024, ..AlternatesOptions::default() }
}

fn origin() -> Origin {
    Origin::https("Localhost", 443)
}

fn learn(cache: &Alternates, now: Instant, origin: &Origin, field: &str) {
    cache.learn(now, origin, [field.as_bytes()], Duration::ZERO);
}

fn find(cache: &Alternates, now: Instant, origin: &Origin) -> Option<Alternative> {
    cache.find(now, &cache.record(origin))
}

fn elsewhere(host: Option<&str>, port: u16) -> Option<Alternative> {
    Some(Alternative::Elsewhere { host: host.map(Into::into), port })
}

#[test]
fn an_origin_takes_http3_while_it_says_so() {
    let clock = clock();
    let now = clock.at;
    let cache = Alternates::new(options(), clock);
    assert_eq!(find(&cache, now, &origin()), None);
    learn(&cache, now, &origin(), "h3=\":443\"; ma=1");
    assert_eq!(find(&cache, now + Duration::from_millis(999), &origin()), Some(Alternative::Same));
    assert_eq!(find(&cache, now + Duration::from_secs(1), &origin()), None);
    learn(&cache, now, &origin(), "h3=\"localhost:443\"");
    assert_eq!(find(&cache, now, &origin()), Some(Alternative::Same));
    // A response says all there is to say.
    learn(&cache, now, &origin(), "h2=\":443\", h3-29=\":443\"");
    assert_eq!(find(&cache, now, &origin()), None);
    learn(&cache, now, &origin(), "h2=\":443\", h3=\":443\"; ma=100");
    assert_eq!(find(&cache, now, &origin()), Some(Alternative::Same));
    learn(&cache, now, &origin(), "h3=:443");
    assert_eq!(find(&cache, now, &origin()), Some(Alternative::Same), "malformed: as if it were not there");
    learn(&cache, now, &origin(), "clear");
    assert_eq!(find(&cache, now, &origin()), None);
    assert_eq!(find(&cache, now, &Origin::https("localhost", 444)), None);
}

#[test]
fn the_age_of_a_response_counts() {
    let clock = clock();
    let cache = Alternates::new(options(), clock);
    cache.learn(clock.at, &origin(), [b"h3=\":443\"; ma=10".as_slice()], Duration::from_secs(7));
    assert!(find(&cache, clock.at + Duration::from_millis(2999), &origin()).is_some());
    assert!(find(&cache, clock.at + Duration::from_secs(3), &origin()).is_none());
    cache.learn(clock.at, &origin(), [b"h3=\":443\"; ma=10".as_slice()], Duration::from_secs(11));
    assert!(find(&cache, clock.at, &origin()).is_none());
}

#[test]
fn other_hosts_and_ports_are_told() {
    let clock = clock();
    let cache = Alternates::new(options(), clock);
    learn(&cache, clock.at, &origin(), "h3=\":8443\"");
    assert_eq!(find(&cache, clock.at, &origin()), elsewhere(None, 8443));
    learn(&cache, clock.at, &origin(), "h2=\"a:1\", h3=\"Alt.example.com:443\"; ma=5, h3=\":8443\"");
    assert_eq!(find(&cache, clock.at, &origin()), elsewhere(Some("alt.example.com"), 443));
    // Where the origin itself is among them it is taken, as by Envoy, which takes no other.
    learn(&cache, clock.at, &origin(), "h3=\":1\", h3=\":443\"");
    assert_eq!(find(&cache, clock.at, &origin()), Some(Alternative::Same));
}

#[test]
fn at_most_ten_alternatives_are_kept() {
    let clock = clock();
    let cache = Alternates::new(options(), clock);
    let many = "h2=\":1\",".repeat(10);
    learn(&cache, clock.at, &origin(), &format!("{many}h3=\":443\""));
    assert_eq!(find(&cache, clock.at, &origin()), None);
    let nine = "h2=\":1\",".repeat(9);
    learn(&cache, clock.at, &origin(), &format!("{nine}h3=\":443\""));
    assert_eq!(find(&cache, clock.at, &origin()), Some(Alternative::Same));
}

#[test]
fn hints_are_as_if_they_had_been_received() {
    let clock = clock();
    let hints = vec![("Localhost".to_owned(), 443)];
    let cache = Alternates::new(AlternatesOptions { hints, ..options() }, clock);
    assert_eq!(find(&cache, clock.at, &origin()), Some(Alternative::Same));
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    assert_eq!(find(&cache, clock.at + week, &origin()), None);
}

#[test]
fn the_origin_used_longest_ago_makes_room() {
    let clock = clock();
    let now = clock.at;
    let cache = Alternates::new(AlternatesOptions { max_entries: 2, ..options() }, clock);
    let [a, b, c] = ["a", "b", "c"].map(|host| Origin::https(host, 443));
    learn(&cache, now, &a, "h3=\":443\"");
    let kept = cache.record(&b);
    learn(&cache, now, &b, "h3=\":443\"");
    assert!(find(&cache, now, &a).is_some());
    learn(&cache, now, &c, "h3=\":443\"");
    assert_eq!(cache.len(), 2);
    assert!(find(&cache, now, &a).is_some());
    assert!(find(&cache, now, &c).is_some());
    assert!(cache.find(now, &kept).is_none());
    // Learned anew it is the same record for a pool that kept it, with what was seen.
    kept.status().failed(now);
    learn(&cache, now, &b, "h3=\":443\"");
    assert!(cache.find(now, &kept).is_some());
    assert_eq!(kept.status().known(now), Known::Broken);
    assert!(Rc::ptr_eq(&kept, &cache.record(&b)));
}

#[test]
fn origins_with_a_common_suffix_share() {
    let clock = clock();
    let now = clock.at;
    let hints = vec![("a.example.com".to_owned(), 443), ("a.example.org".to_owned(), 443)];
    let canonical_suffixes = vec![".example.com".to_owned(), "example.org".to_owned()];
    let cache = Alternates::new(AlternatesOptions { hints, canonical_suffixes, ..options() }, clock);
    assert_eq!(find(&cache, now, &Origin::https("b.example.com", 443)), Some(Alternative::Same));
    assert_eq!(find(&cache, now, &Origin::https("b.example.com", 444)), None);
    assert_eq!(find(&cache, now, &Origin::https("b.example.org", 443)), None);
    // Its own word counts more.
    learn(&cache, now, &Origin::https("b.example.com", 443), "h3=\":5\"");
    assert_eq!(find(&cache, now, &Origin::https("b.example.com", 443)), elsewhere(None, 5));
}

#[test]
fn without_a_cache_every_host_is_tried() {
    let clock = clock();
    let cache = Alternates::everyone(clock);
    assert_eq!(find(&cache, clock.at, &origin()), Some(Alternative::Same));
    learn(&cache, clock.at, &origin(), "clear");
    assert_eq!(find(&cache, clock.at, &origin()), Some(Alternative::Same));
}

#[test]
fn another_network_leaves_what_persists() {
    let clock = clock();
    let cache = Alternates::new(options(), clock);
    learn(&cache, clock.at, &origin(), "h3=\":443\"");
    cache.record(&origin()).status().failed(clock.at);
    cache.network_changed();
    assert_eq!(cache.record(&origin()).status().known(clock.at), Known::Nothing);
    assert_eq!(find(&cache, clock.at, &origin()), None);
    learn(&cache, clock.at, &origin(), "h3=\":443\"; persist=1");
    cache.network_changed();
    assert_eq!(find(&cache, clock.at, &origin()), Some(Alternative::Same));
}

struct Counts(Cell<u32>);

impl Listener for Counts {
    fn learned(self: Rc<Self>) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn pools_hear_of_news_once() {
    let clock = clock();
    let cache = Alternates::new(options(), clock);
    learn(&cache, clock.at, &origin(), "h2=\":443\"");
    let counts = Rc::new(Counts(Cell::new(0)));
    let listener: Rc<dyn Listener> = counts.clone();
    cache.record(&origin()).listen(Rc::downgrade(&listener));
    cache.record(&origin()).listen(Rc::downgrade(&listener));
    for field in ["h3=\":443\"", "h3=\":443\"", "clear", "h3=\":443\"; ma=0"] {
        learn(&cache, clock.at, &origin(), field);
    }
    assert_eq!(counts.0.get(), 1);
}

#[tokio::test]
async fn what_was_learned_survives_in_envoys_format() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("alt-svc.kv");
    let file = FileOptions { path: path.clone(), flush_interval: Duration::from_secs(9), max_entries: 100 };
    let with_file = || AlternatesOptions { file: Some(file.clone()), ..options() };
    LocalSet::new()
        .run_until(async {
            let clock = clock();
            let cache = Alternates::new(with_file(), clock);
            learn(&cache, clock.at, &origin(), "h3=\":443\", h3-29=\"[::1]:1\"; ma=10");
            cache.set_round_trip(&cache.record(&origin()), Duration::from_micros(1500));
            let unknown = cache.record(&Origin::https("other", 1));
            cache.set_round_trip(&unknown, Duration::from_micros(1500));
            drop(cache);
            let value = "h3=\":443\"; ma=87945,h3-29=\"[::1]:1\"; ma=1555|1500|0";
            let contents = format!("21\nhttps://localhost:443{}\n{value}", value.len());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);

            let later = Clock { at: clock.at, seconds: 87_940 };
            let hints = vec![("localhost".to_owned(), 444), ("localhost".to_owned(), 443)];
            let cache = Alternates::new(AlternatesOptions { hints, ..with_file() }, later);
            assert_eq!(cache.record(&origin()).round_trip(), Duration::from_micros(1500));
            assert_eq!(find(&cache, clock.at, &origin()), Some(Alternative::Same));
            let expired = clock.at + Duration::from_secs(5);
            assert_eq!(find(&cache, expired, &origin()), None, "a hint never overwrites what was kept");
            learn(&cache, clock.at, &origin(), "clear");
            drop(cache);
            let kept = std::fs::read_to_string(&path).unwrap();
            assert!(kept.contains("12\nclear|1500|0"));

            std::fs::write(&path, b"\x00garbage\n\xff").unwrap();
            let cache = Alternates::new(with_file(), clock);
            assert!(cache.is_empty());
        })
        .await;
}

#[tokio::test]
async fn caches_are_shared_by_name() {
    let caches = Caches::new(clock);
    let a = caches.cache(Some(("a", options())));
    assert!(Rc::ptr_eq(&a, &caches.cache(Some(("a", options())))));
    assert!(!Rc::ptr_eq(&a, &caches.cache(Some(("b", options())))));
    assert!(!Rc::ptr_eq(&a, &caches.cache(Some(("a", AlternatesOptions { max_entries: 5, ..options() })))));
    assert!(!Rc::ptr_eq(&caches.cache(None), &caches.cache(None)));
}

#[test]
fn dns_is_believed_for_its_time_and_after_the_origin() {
    let clock = clock();
    let cache = Alternates::new(options(), clock);
    let (origin, now) = (origin(), clock.at);
    let at = |ms| now + Duration::from_millis(ms);
    let service = |port| Service {
        protocol: b"h3".to_vec(),
        host: String::new(),
        port,
        max_age: Duration::from_secs(2),
        persist: false,
    };
    cache.learn_from_dns(now, &origin, now, &[]);
    assert!(cache.is_empty());
    cache.learn_from_dns(at(500), &origin, now, &[service(8443)]);
    assert_eq!(find(&cache, at(1999), &origin), elsewhere(None, 8443));
    assert_eq!(find(&cache, at(2000), &origin), None, "since it was said, and not since it was heard");
    cache.learn_from_dns(at(2500), &origin, now, &[service(8443)]);
    assert_eq!(find(&cache, at(2500), &origin), None);
    cache.learn_from_dns(at(3000), &origin, at(3000), &[service(443)]);
    assert_eq!(find(&cache, at(3000), &origin), Some(Alternative::Same));
    cache.learn(at(3000), &origin, [b"h3=\":9443\"; ma=10".as_slice()], Duration::ZERO);
    cache.learn_from_dns(at(4000), &origin, at(4000), &[service(443)]);
    assert_eq!(find(&cache, at(4000), &origin), elsewhere(None, 9443));
    cache.learn_from_dns(at(14_000), &origin, at(14_000), &[service(443)]);
    assert_eq!(find(&cache, at(14_000), &origin), Some(Alternative::Same));
    // DNS says so no more.
    cache.learn_from_dns(at(14_100), &origin, at(14_100), &[]);
    assert_eq!(find(&cache, at(14_100), &origin), None);
}

#[test]
fn moments_of_the_past_are_past() {
    let clock = clock();
    let read = |seconds: u64| clock.moment_of(clock.seconds + 10 - seconds);
    assert_eq!(read(0), clock.at + Duration::from_secs(10));
    assert_eq!(read(10), clock.at);
    assert!(read(11) < clock.at);
    assert_eq!(clock.seconds_at(read(11)), clock.seconds - 1);
}

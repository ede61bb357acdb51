//! The race against hosts in memory and in virtual time; HTTP/2 stands in for HTTP/3, as it is the same pool.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::pin::Pin;
use std::sync::Arc;

use http::Version;
use tidegate_codec::h1::ClientConn;
use tidegate_codec::h2::client::connect;
use tidegate_testkit::io::{MemIo, pair};
use tidegate_types::ResetReason;
use tokio::task::LocalSet;

use super::*;
use crate::alternates::{AlternatesOptions, Clock};
use crate::driver::{Connect, Neighbours};
use crate::h1::ConnFacts;
use crate::h2::{self, CodecStats, Counting, Http2};
use crate::host::HostCounters;
use crate::limits::{Limits, Maxima};
use crate::machine::{Carries, Settings, Shared};

/// What becomes of attempts.
#[derive(Clone, Copy)]
enum Way {
    /// They are connected after so many ms.
    Open(u64),
    /// They fail after so many ms.
    Refused(u64),
    /// Nothing ever comes.
    Dropped,
}

/// One path to the host.
struct Path {
    way: Cell<Way>,
    attempts: Cell<u32>,
    far_ends: RefCell<Vec<MemIo>>,
}

impl Path {
    fn new(way: Way) -> Rc<Self> {
        Rc::new(Self { way: Cell::new(way), attempts: Cell::default(), far_ends: RefCell::default() })
    }

    async fn travel(&self, refusal: &'static str) -> Result<MemIo, PoolError> {
        self.attempts.set(self.attempts.get() + 1);
        let ms = |ms| tokio::time::sleep(Duration::from_millis(ms));
        match self.way.get() {
            Way::Open(after) => ms(after).await,
            Way::Refused(after) => {
                ms(after).await;
                let reason = ResetReason::RemoteConnectionFailure;
                return Err(PoolError::Connect { reason, transport: Some(refusal.into()) });
            }
            Way::Dropped => std::future::pending().await,
        }
        let (near, far) = pair();
        self.far_ends.borrow_mut().push(far);
        Ok(near)
    }
}

struct Quic(Rc<Path>);
struct Tcp(Rc<Path>);

impl Connect<multiplexed::Opened<Http2>> for Quic {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<h2::Opened, PoolError>>>> {
        let path = self.0.clone();
        Box::pin(async move {
            let near = path.travel("QUIC").await?;
            let facts = facts(Version::HTTP_3);
            let observer = Rc::new(Counting(CodecStats::detached()));
            let (conn, driver) = connect(Box::new(near), Rc::default(), observer).unwrap();
            Ok(h2::Opened { conn, driver, facts })
        })
    }
}

impl Connect<auto::Opened> for Tcp {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<auto::Opened, PoolError>>>> {
        let path = self.0.clone();
        Box::pin(async move {
            let near = path.travel("TCP").await?;
            let conn = Box::new(ClientConn::new(Box::new(near), Rc::default()));
            Ok(auto::Opened::H1(conn, facts(Version::HTTP_11)))
        })
    }
}

fn facts(protocol: Version) -> ConnFacts {
    ConnFacts { id: 1, local_address: None, remote_address: None, protocol, tls: None }
}

struct Alone;

impl Neighbours for Alone {
    fn reclaim(&self) {}
}

struct Lab {
    grid: Rc<Grid<Http2>>,
    quic: Rc<Path>,
    tcp: Rc<Path>,
    shared: Shared,
    cache: Rc<Alternates>,
    made: Rc<RefCell<Vec<Alternative>>>,
    address: Rc<Cell<u8>>,
    start: Instant,
}

const ORIGIN: (&str, u16) = ("localhost", 443);

fn hints() -> Vec<(String, u16)> {
    vec![(ORIGIN.0.to_owned(), ORIGIN.1)]
}

impl Lab {
    /// With a host that is known to take HTTP/3.
    fn new(quic: Way, tcp: Way) -> Self {
        Self::with(quic, tcp, hints())
    }

    fn with(quic: Way, tcp: Way, hints: Vec<(String, u16)>) -> Self {
        Self::of(quic, tcp, hints, Maxima::default(), 300)
    }

    /// TCP is tried after `tcp_delay` ms.
    fn of(quic: Way, tcp: Way, hints: Vec<(String, u16)>, maxima: Maxima, tcp_delay: u64) -> Self {
        let start = Instant::now();
        let options = AlternatesOptions { max_entries: 10, hints, ..AlternatesOptions::default() };
        let cache = Alternates::new(options, Clock { at: start, seconds: 0 });
        let (quic, tcp) = (Path::new(quic), Path::new(tcp));
        let settings = Rc::new(Settings {
            connect_timeout: Duration::from_secs(1),
            idle_timeout: None,
            max_connection_duration: None,
            max_streams: None,
            concurrency: 100,
            preconnect_ratio: 1.0,
            carries: Carries::Requests,
            timeout_text: Some("QUIC_NO_ERROR"),
        });
        let shared = Shared {
            limits: Arc::new(Limits::detached(&maxima)),
            host_connections: None,
            stats: UpstreamStats::detached(),
            host: HostCounters::detached(),
            idle_limit: None,
            tally: None,
        };
        let nobody: Weak<dyn Neighbours> = Weak::<Alone>::new();
        let made: Rc<RefCell<Vec<Alternative>>> = Rc::default();
        let make_quic = {
            let (settings, shared, nobody) = (settings.clone(), shared.clone(), nobody.clone());
            let (made, quic) = (made.clone(), quic.clone());
            move |to: &Alternative| {
                made.borrow_mut().push(to.clone());
                let connector = Rc::new(Quic(quic.clone()));
                Some(QuicPool::new(settings.clone(), shared.clone(), connector, nobody.clone()))
            }
        };
        let plain = Settings { timeout_text: None, ..Settings::clone(&settings) };
        let tcp_pool = auto::Pool::new(Rc::new(plain), shared.clone(), Rc::new(Tcp(tcp.clone())), nobody);
        let address: Rc<Cell<u8>> = Rc::default();
        let grid = Grid::new(Parts {
            tcp: tcp_pool,
            quic: Box::new(make_quic),
            cache: cache.clone(),
            origin: Origin::https(ORIGIN.0, ORIGIN.1),
            stats: shared.stats.clone(),
            tcp_delay: Duration::from_millis(tcp_delay),
            route: {
                let address = address.clone();
                Box::new(move || Some([192, 0, 2, address.get()].into()))
            },
        });
        Self { grid, quic, tcp, shared, cache, made, address, start }
    }

    fn acquire(&self) -> Acquire<Http2> {
        self.grid.acquire_at(Instant::now(), Care::Any, Ways::All)
    }

    /// What the next stream goes by, and how many ms it waited.
    async fn request(&self) -> (&'static str, u64) {
        let began = Instant::now();
        let lease = self.acquire().await.unwrap();
        let waited = began.elapsed().as_millis() as u64;
        let way = by(&lease);
        // Nothing was sent: a QUIC connection stays as it is, one of HTTP/1.1 is closed.
        drop(lease);
        (way, waited)
    }

    fn at(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn broken(&self) -> u64 {
        self.shared.stats.upstream_http3_broken().value()
    }

    fn known(&self) -> Known {
        self.cache.record(&Origin::https(ORIGIN.0, ORIGIN.1)).status().known(Instant::now())
    }

    fn attempts(&self) -> (u32, u32) {
        (self.quic.attempts.get(), self.tcp.attempts.get())
    }
}

fn by(lease: &Lease<Http2>) -> &'static str {
    match lease {
        Lease::Quic(_) => "QUIC",
        Lease::Tcp(_) => "TCP",
    }
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn quic_that_works_is_all_there_is() {
    run(async {
        for delay in [1, 100] {
            let lab = Lab::new(Way::Open(delay), Way::Open(1));
            assert_eq!(lab.request().await, ("QUIC", delay));
            assert_eq!(lab.request().await, ("QUIC", 0));
            sleep(1000).await;
            assert_eq!(lab.attempts(), (1, 0));
            assert_eq!(lab.known(), Known::Confirmed);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn tcp_is_tried_after_300_ms_and_quic_goes_on() {
    run(async {
        let lab = Lab::new(Way::Open(400), Way::Open(10));
        let first = lab.acquire().await.unwrap();
        assert_eq!((by(&first), lab.at()), ("TCP", 310));
        // While QUIC still tries, others do as the first one did.
        assert_eq!(by(&lab.acquire().await.unwrap()), "QUIC");
        assert_eq!(lab.at(), 400);
        assert_eq!(lab.request().await, ("QUIC", 0));
        assert_eq!((lab.broken(), lab.known()), (0, Known::Confirmed));
        assert_eq!(lab.attempts(), (1, 1));
        drop(first);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_configured() {
    run(async {
        for (delay, served) in [(0, 1), (20, 21), (1000, 1001)] {
            // A deadline of its own, beyond all of these, ends QUIC's attempt.
            let lab = Lab::of(Way::Dropped, Way::Open(1), hints(), Maxima::default(), delay);
            assert_eq!(lab.request().await, ("TCP", served));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_starts_tcp_at_once_and_breaks_quic() {
    run(async {
        let lab = Lab::new(Way::Refused(1), Way::Open(10));
        let first = lab.acquire().await.unwrap();
        assert_eq!((by(&first), lab.at()), ("TCP", 11));
        assert_eq!((lab.broken(), lab.known()), (1, Known::Broken));
        assert!(lab.grid.quic_pool().unwrap().report().h3_broken_until_ms.is_some());
        // Nothing is tried while it is broken.
        let second = lab.acquire().await.unwrap();
        assert_eq!((by(&second), lab.at(), lab.attempts()), ("TCP", 21, (1, 2)));
        drop(second);
        // Then it is, beside TCP, at once.
        sleep(1000).await;
        assert_eq!(lab.known(), Known::FailedRecently);
        lab.quic.way.set(Way::Open(30));
        let third = lab.acquire().await.unwrap();
        assert_eq!((by(&third), lab.at()), ("TCP", 1031));
        sleep(30).await;
        assert_eq!(lab.known(), Known::Confirmed);
        assert_eq!(lab.request().await, ("QUIC", 0));
        assert_eq!(lab.grid.quic_pool().unwrap().report().h3_broken_until_ms, None);
        drop((first, third));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_network_is_another_chance() {
    run(async {
        let lab = Lab::new(Way::Refused(1), Way::Open(10));
        let mut leases = vec![lab.acquire().await.unwrap()];
        // The next failures count longer.
        sleep(1000).await;
        leases.push(lab.acquire().await.unwrap());
        sleep(1).await;
        assert_eq!((lab.broken(), lab.known()), (2, Known::Broken));
        lab.quic.way.set(Way::Open(5));
        leases.push(lab.acquire().await.unwrap());
        assert_eq!((by(&leases[2]), lab.known()), ("TCP", Known::Broken));
        lab.address.set(7);
        sleep(1000).await;
        assert_eq!(lab.known(), Known::Broken);
        assert_eq!(by(&lab.acquire().await.unwrap()), "QUIC");
        assert_eq!(lab.known(), Known::Confirmed);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_costs_300_ms_once() {
    run(async {
        let lab = Lab::new(Way::Dropped, Way::Open(1));
        let (a, b, c) = tokio::join!(lab.acquire(), lab.acquire(), lab.acquire());
        let leases = [a.unwrap(), b.unwrap(), c.unwrap()];
        // The first connection was expected to carry all three.
        assert_eq!(lab.at(), 302);
        assert!(leases.iter().all(|lease| by(lease) == "TCP"));
        assert_eq!((lab.broken(), lab.known()), (0, Known::Nothing));
        // One for each stream that waited, as in Envoy, when the attempt is over.
        sleep(700).await;
        assert_eq!((lab.broken(), lab.known()), (3, Known::Broken));
        // The next one is as long as it takes, and counts twice.
        sleep(1000).await;
        let next = lab.acquire().await.unwrap();
        assert_eq!((by(&next), lab.at()), ("TCP", 2003));
        sleep(1000).await;
        assert_eq!((lab.broken(), lab.known()), (4, Known::Broken));
        sleep(1500).await;
        assert_eq!(lab.known(), Known::Broken);
        sleep(500).await;
        assert_eq!(lab.known(), Known::FailedRecently);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn all_that_fail_tell_of_the_last_and_break_nothing() {
    run(async {
        let lab = Lab::new(Way::Refused(1), Way::Refused(1));
        let error = lab.acquire().await.err().unwrap();
        assert_eq!(error.transport_failure(), Some("TCP"));
        lab.quic.way.set(Way::Dropped);
        let error = lab.acquire().await.err().unwrap();
        let text = "QUIC_NO_ERROR_(with_earlier_attempt_failure_reason_2,_TCP:_TCP)";
        assert_eq!((error.reason(), error.transport_failure()), (ResetReason::ConnectionTimeout, Some(text)));
        assert_eq!(lab.at(), 1002);
        assert_eq!((lab.broken(), lab.known()), (0, Known::Nothing));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn quic_that_comes_later_cancels_tcp() {
    run(async {
        let lab = Lab::new(Way::Open(350), Way::Open(500));
        assert_eq!(lab.request().await, ("QUIC", 350));
        assert_eq!(lab.shared.stats.upstream_rq_cancelled().value(), 1);
        // Its attempt goes on, for later.
        sleep(500).await;
        assert_eq!(lab.shared.stats.upstream_cx_active().value(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_says_nothing_is_asked_by_tcp_until_it_does() {
    run(async {
        let lab = Lab::with(Way::Open(5), Way::Open(1), Vec::new());
        let first = lab.acquire().await.unwrap();
        assert_eq!((by(&first), lab.attempts()), ("TCP", (0, 1)));
        let origin = Origin::https(ORIGIN.0, ORIGIN.1);
        let field = b"h3=\":443\"".as_slice();
        lab.cache.learn(Instant::now(), &origin, [field], Duration::ZERO);
        // In the background, for the next stream.
        sleep(6).await;
        assert_eq!(lab.attempts(), (1, 1));
        assert_eq!(lab.request().await, ("QUIC", 0));
        lab.cache.learn(Instant::now(), &origin, [b"clear".as_slice()], Duration::ZERO);
        let next = lab.acquire().await.unwrap();
        assert_eq!(by(&next), "TCP");
        drop((first, next));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_says_as_much_as_a_field_of_its_own_origin() {
    run(async {
        let lab = Lab::with(Way::Open(5), Way::Open(1), Vec::new());
        let said = |origin: Option<&'static str>, value: &'static str| {
            let origin = origin.map(|origin| origin.as_bytes().into());
            lab.grid.advertised(&AltSvc { origin, value: value.as_bytes().into() });
            lab.cache.find(Instant::now(), &lab.cache.record(&Origin::https(ORIGIN.0, ORIGIN.1))).is_some()
        };
        assert!(!said(Some("https://other.test"), "h3=\":443\""));
        assert!(!said(Some("https://localhost:444"), "h3=\":443\""));
        assert!(!said(Some("http://localhost"), "h3=\":443\""));
        assert!(said(Some("https://localhost"), "h3=\":443\""));
        assert!(!said(None, "clear"));
        assert!(said(Some("https://LocalHost:443"), "h3=\":443\""));
        assert_eq!(lab.request().await, ("QUIC", 5));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_background_attempt_that_fails_breaks_quic() {
    run(async {
        let lab = Lab::with(Way::Refused(5), Way::Open(1), Vec::new());
        let first = lab.acquire().await.unwrap();
        let origin = Origin::https(ORIGIN.0, ORIGIN.1);
        lab.cache.learn(Instant::now(), &origin, [b"h3=\":443\"".as_slice()], Duration::ZERO);
        sleep(6).await;
        assert_eq!((lab.attempts(), lab.broken(), lab.known()), ((1, 1), 1, Known::Broken));
        drop(first);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_met_a_failure_of_quic_goes_by_tcp() {
    run(async {
        let lab = Lab::new(Way::Open(1), Way::Open(1));
        assert_eq!(lab.request().await, ("QUIC", 1));
        let retried = lab.grid.acquire_at(Instant::now(), Care::Any, Ways::TcpOnly).await.unwrap();
        assert_eq!(by(&retried), "TCP");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_place_gets_another_pool() {
    run(async {
        let lab = Lab::new(Way::Open(1), Way::Open(1));
        assert_eq!(lab.request().await, ("QUIC", 1));
        let origin = Origin::https(ORIGIN.0, ORIGIN.1);
        let field = b"h3=\"alt.example.com:8443\"".as_slice();
        lab.cache.learn(Instant::now(), &origin, [field], Duration::ZERO);
        assert_eq!(lab.request().await, ("QUIC", 1));
        let elsewhere = Alternative::Elsewhere { host: Some("alt.example.com".into()), port: 8443 };
        assert_eq!(*lab.made.borrow(), [Alternative::Same, elsewhere]);
        sleep(1).await;
        assert_eq!(lab.shared.stats.upstream_cx_active().value(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_known_round_trip_shortens_the_wait() {
    run(async {
        let lab = Lab::new(Way::Dropped, Way::Open(1));
        let origin = Origin::https(ORIGIN.0, ORIGIN.1);
        lab.cache.set_round_trip(&lab.cache.record(&origin), Duration::from_micros(20_999));
        let first = lab.acquire().await.unwrap();
        assert_eq!((by(&first), lab.at()), ("TCP", 41));
        drop(first);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_grid_is_not_empty_between_quic_and_tcp() {
    run(async {
        let lab = Lab::new(Way::Refused(1), Way::Open(10));
        let empty = Rc::new(Cell::new(0));
        let count = empty.clone();
        lab.grid.on_empty(Box::new(move || count.set(count.get() + 1)));
        let first = lab.acquire().await.unwrap();
        assert_eq!((by(&first), empty.get()), ("TCP", 0));
        drop(first);
        sleep(1).await;
        assert_eq!(empty.get(), 1);
        // Nor is it kept when nothing came of it.
        lab.tcp.way.set(Way::Refused(1));
        assert!(lab.acquire().await.is_err());
        assert!(empty.get() > 1 && lab.grid.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_grid_is_dropped_when_both_pools_are() {
    run(async {
        let lab = Lab::new(Way::Open(350), Way::Open(10));
        let empty = Rc::new(Cell::new(0));
        let count = empty.clone();
        lab.grid.on_empty(Box::new(move || count.set(count.get() + 1)));
        let first = lab.acquire().await.unwrap();
        assert_eq!(by(&first), "TCP");
        sleep(100).await;
        assert_eq!(lab.grid.streams(), 1);
        drop(first);
        sleep(1).await;
        assert_eq!(empty.get(), 0);
        assert!(!lab.grid.is_empty());
        lab.grid.drain(CloseReason::Drained);
        assert!(lab.grid.is_empty());
        assert!(empty.get() > 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn quic_gives_way_where_there_is_no_room_for_both() {
    run(async {
        let one_connection = Maxima { connections: 1, ..Maxima::default() };
        let one_attempt = Maxima { connecting: 1, ..Maxima::default() };
        for maxima in [one_connection, one_attempt] {
            let lab = Lab::of(Way::Dropped, Way::Open(1), hints(), maxima, 300);
            let (limits, start) = (lab.shared.limits.clone(), lab.at());
            let (first, others) = (lab.acquire(), [lab.acquire(), lab.acquire()]);
            let lease = first.await.unwrap();
            assert_eq!((by(&lease), lab.at() - start), ("TCP", 301));
            assert_eq!((limits.connections.used(), lab.broken()), (1, 1));
            drop((others, lease));
            sleep(1000).await;
            // Then it is tried beside TCP, where there is room.
            assert_eq!(lab.known(), Known::FailedRecently);
            assert_eq!(lab.request().await, ("TCP", 1));
            assert_eq!((limits.connections.used(), lab.known()), (0, Known::Broken));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn quic_that_had_no_room_either_is_not_broken() {
    run(async {
        let maxima = Maxima { connections: 1, ..Maxima::default() };
        let lab = Lab::of(Way::Open(1), Way::Open(1), hints(), maxima, 300);
        let limits = lab.shared.limits.clone();
        assert!(limits.connections.try_reserve());
        let waiting = lab.acquire();
        let free = async {
            sleep(1000).await;
            limits.connections.release();
        };
        let (lease, ()) = tokio::join!(waiting, free);
        assert_eq!((by(&lease.unwrap()), lab.at(), lab.attempts()), ("TCP", 1001, (0, 1)));
        assert_eq!((lab.broken(), lab.known()), (0, Known::Nothing));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_works_gives_no_way() {
    run(async {
        let maxima = Maxima { connections: 1, ..Maxima::default() };
        let lab = Lab::of(Way::Open(1), Way::Open(1), hints(), maxima, 300);
        let mut leases = Vec::new();
        for _ in 0..100 {
            leases.push(lab.acquire().await.unwrap());
        }
        let (next, ()) = tokio::join!(lab.acquire(), async {
            sleep(1000).await;
            leases.pop();
        });
        assert_eq!((by(&next.unwrap()), lab.attempts()), ("QUIC", (1, 0)));
    })
    .await;
}

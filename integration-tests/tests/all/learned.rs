//! A learned idle timeout: an upstream that closes after 200 ms, far enough away that requests cross the close.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use integration_tests::origin::OK;
use integration_tests::stalls::Stalls;
use integration_tests::{Config, Origin, Proxy, Relay, Wire, wait};
use serde_json::json;

/// How long the upstream lets connections idle.
const IDLE: Duration = Duration::from_millis(200);

/// How long each way to it takes.
const WAY: Duration = Duration::from_millis(5);

/// Nobody can keep a promise of ten milliseconds on a machine that takes longer to run anything at all.
const STALL: Duration = Duration::from_millis(2);

/// Closes connections that idle.
fn impatient() -> Origin {
    Origin::script(|mut peer| {
        while !peer.wire.is_quiet_for(IDLE) && peer.request().is_some() {
            peer.send(OK);
        }
    })
}

/// A safe retry is a retry: by default three at a time may be under way, and here fifty connections may end at once.
fn many_retries(relay: &Relay) -> Config {
    Config::new(relay.address()).cluster(json!({"circuit_breakers": {"thresholds": [{"max_retries": 1000}]}}))
}

/// One request of the crowd.
struct Asked {
    path: String,
    status: u16,
    at: Instant,
}

impl Asked {
    fn is_post(&self) -> bool {
        self.path.starts_with("/post/")
    }
}

/// Every 200 ms each client asks, up to 20 ms sooner or later: GET and POST in turn.
fn crowd(proxy: &Proxy, clients: u64, rounds: u64) -> Vec<Asked> {
    let start = Instant::now() + Duration::from_millis(50);
    let ask = |client: u64, round: u64, wire: &mut Wire| {
        let jitter = (client * 7_919 + round * 104_729) % 41;
        let at = start + IDLE * round as u32 + Duration::from_millis(jitter);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let (method, folder) =
            if (client + round).is_multiple_of(2) { ("GET", "get") } else { ("POST", "post") };
        let path = format!("/{folder}/{client}/{round}");
        let at = Instant::now();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n");
        Asked { status: wire.ask(&request).status, path, at }
    };
    std::thread::scope(|scope| {
        let run = |client| {
            let mut wire = proxy.connect();
            (0..rounds).map(|round| ask(client, round, &mut wire)).collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..clients).map(|client| scope.spawn(move || run(client))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// How often each path came to the upstream.
fn arrivals(origin: &Origin) -> HashMap<String, usize> {
    let mut arrivals = HashMap::new();
    for request in origin.requests() {
        *arrivals.entry(request.path().to_owned()).or_default() += 1;
    }
    arrivals
}

/// No GET fails and no POST comes twice, whatever happens. No POST fails either, unless the machine stood still
/// while its connection idled.
#[allow(clippy::print_stdout)]
fn nobody_notices(clients: u64, rounds: u64) {
    let origin = impatient();
    let relay = Relay::new(origin.address(), WAY);
    let proxy = Proxy::start(&many_retries(&relay));
    assert_eq!(proxy.get("/").status, 200);
    // The first close teaches.
    let learned = wait::until_some("a lesson", || {
        proxy.admin.get("/pools").json()["clusters"][0]["hosts"][0]["learned_idle_ms"].as_u64()
    });
    let stalls = Stalls::watch(STALL);
    let asked = crowd(&proxy, clients, rounds);
    let arrivals = arrivals(&origin);
    let failed: Vec<&Asked> = asked.iter().filter(|asked| asked.status != 200).collect();
    let excused = |asked: &Asked| stalls.between(asked.at - IDLE * 2, asked.at + WAY * 4);
    let (excused, guilty): (Vec<&Asked>, Vec<&Asked>) =
        failed.iter().copied().partition(|asked| asked.is_post() && excused(asked));
    let stats = proxy.admin.stats();
    let count = |name: &str| stats.get(&format!("cluster.origin.{name}"));
    println!(
        "learned {learned} ms; {} requests, {} failed, of them {} when the machine stood still ({} times); \
         {} connections, {} reused, {} safe retries, {} denied",
        asked.len(),
        failed.len(),
        excused.len(),
        stalls.count(),
        origin.connections(),
        count("upstream_cx_reuse_hit"),
        count("upstream_rq_safe_retry"),
        count("upstream_rq_safe_retry_denied.method"),
    );
    for asked in &asked {
        let came = arrivals.get(&asked.path).copied().unwrap_or(0);
        assert!(came <= 1 || !asked.is_post(), "{} came {came} times", asked.path);
        assert!(came > 0 || asked.status != 200, "{} was answered and never came", asked.path);
    }
    let guilty: Vec<_> = guilty.iter().map(|asked| (&asked.path, asked.status)).collect();
    assert!(guilty.is_empty(), "{guilty:?}");
}

#[test]
fn once_a_close_has_taught_it_nothing_fails() {
    nobody_notices(30, 15);
}

/// `cargo test -p integration-tests --test all -- --ignored --nocapture ten_thousand_requests`, on a machine that
/// has nothing else to do.
#[test]
#[ignore = "takes 40 s and wants the machine for itself"]
fn ten_thousand_requests_and_none_fails() {
    nobody_notices(50, 200);
}

/// What the above is worth: without learning, POSTs do fail.
///
/// `cargo test -p integration-tests --test all -- --ignored --nocapture without_learning`
#[test]
#[ignore = "shows that a test can fail, and not that the proxy works"]
#[allow(clippy::print_stdout)]
fn without_learning_posts_fail() {
    let origin = impatient();
    let relay = Relay::new(origin.address(), WAY);
    let proxy = Proxy::start(&many_retries(&relay).cluster(json!({
        "typed_extension_protocol_options": {"tidegate.connection_reuse": {
            "@type": "type.googleapis.com/tidegate.upstreams.v1.ConnectionReuse", "learn_idle": false,
        }},
    })));
    let asked = crowd(&proxy, 50, 40);
    let failed: Vec<&Asked> = asked.iter().filter(|asked| asked.status != 200).collect();
    println!("{} of {} failed", failed.len(), asked.len());
    assert!(failed.iter().all(|asked| asked.is_post()), "a GET never fails");
    assert!(!failed.is_empty());
    assert!(arrivals(&origin).iter().all(|(path, count)| *count == 1 || !path.starts_with("/post/")));
}

/// `Keep-Alive: timeout=1`, which the upstream does not even keep: the connection is gone before that second is over.
#[test]
fn a_connection_is_closed_before_the_upstream_would() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok");
    let proxy = Proxy::start(&Config::new(origin.address()));
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle_timeout", 1);
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_cx_destroy_local"), 1);
    assert_eq!(stats.get("cluster.origin.upstream_cx_active"), 0);
    wait::until("the connection ends", || origin.open_connections() == 0);
}

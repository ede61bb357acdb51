//! `cargo xtask bench --host-death`: one of several origins is killed under load; how many requests fail?
//!
//! The bound to keep is what was under way on the dead host at that moment: requests that were written to it and got
//! no answer, as the proxy's `/clusters` counts them. Tidegate and Envoy run with the same configuration: active
//! health checks, outlier detection, and `retry_on: connect-failure`, since a refused connection carried no request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::h1::H1;
use super::load::{Client, Clients, Drive, Load, Pace};
use super::outcome::Outcome;
use super::process::{self, Server};
use super::proxies::{self, Kind, Proxy};
use super::{Bench, Origin};
use crate::failure::{Context, Failure};

const ORIGINS: usize = 4;
const CONNECTIONS: usize = 64;
/// Load before the kill, and after it.
const BEFORE: Duration = Duration::from_millis(1_500);
const AFTER: Duration = Duration::from_millis(2_500);
const PATH: &str = "/100";
const BODY: u64 = 100;

/// One run's numbers.
struct Death {
    outcome: Outcome,
    /// Requests on the dead host without an answer.
    in_flight: u64,
    refused: u64,
    ejections: u64,
}

/// Kills a host under each proxy in turn and prints a table.
pub(super) fn run(bench: &Bench) -> Result<(), Failure> {
    println!(
        "SIGKILL of one of {ORIGINS} origins under {} requests a second on {CONNECTIONS} connections",
        bench.dose.open_rate
    );
    println!(
        "{:<10} {:>9} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "proxy", "answered", "failed", "in flight", "refused", "ejections", "p99.9 ms", "max ms"
    );
    let mut worse = Vec::new();
    for round in 0..bench.rounds {
        let fitting = bench.proxies.iter().filter(|proxy| matches!(proxy.kind, Kind::Tidegate | Kind::Envoy));
        for proxy in fitting {
            let death = one(bench, proxy)?;
            let ms = |quantile| death.outcome.latency.value_at_quantile(quantile) as f64 / 1e6;
            println!(
                "{:<10} {:>9} {:>8} {:>9} {:>9} {:>9} {:>9.2} {:>8.2}",
                proxy.kind.name(),
                death.outcome.good,
                death.outcome.bad,
                death.in_flight,
                death.refused,
                death.ejections,
                ms(0.999),
                ms(1.0)
            );
            if proxy.kind == Kind::Tidegate && death.outcome.bad > death.in_flight {
                worse.push(format!("round {round}: {} of {}", death.outcome.bad, death.in_flight));
            }
        }
    }
    match worse.as_slice() {
        [] => Ok(()),
        worse => Err(Failure(format!("more failed than were in flight: {}", worse.join(", ")))),
    }
}

fn one(bench: &Bench, proxy: &Proxy) -> Result<Death, Failure> {
    let mut origins =
        (0..ORIGINS).map(|_| Origin::start(bench.cpus.load, &[])).collect::<Result<Vec<_>, _>>()?;
    let ports: Vec<u16> = origins.iter().map(|origin| origin.port).collect();
    let port = proxies::free_port()?;
    // The listener's is not bound yet.
    let admin = port + 1;
    let folder = bench.out.join(format!("{}-host-death", proxy.kind.name()));
    std::fs::create_dir_all(&folder).context(folder.display())?;
    let file = folder.join("proxy.json");
    std::fs::write(&file, config(port, admin, &ports).to_string()).context(file.display())?;
    let mut command = Command::new(&proxy.program);
    command.arg("-c").arg(&file).args(["--concurrency", "1", "-l", "error"]);
    if proxy.kind == Kind::Envoy {
        command.arg("--use-dynamic-base-id");
    }
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let log = folder.join("log");
    let server =
        Server::start(command, log, address, &Clients::Tcp(client()), bench.cpus.proxy, process::PATIENCE)
            .context(format_args!("{} did not start", proxy.kind.name()))?;
    let mut load = Load::connect(server.address, CONNECTIONS, client())?;
    load.run(Pace::Closed { duration: Duration::from_millis(500) })?;
    let victim = origins.swap_remove(0);
    let dead = victim.port;
    let killer = thread::spawn(move || {
        thread::sleep(BEFORE);
        // A process that is dropped is killed.
        drop(victim);
    });
    let outcome = load.run(Pace::Open { duration: BEFORE + AFTER, per_second: bench.dose.open_rate })?;
    killer.join().map_err(|_| Failure::new("the killer failed"))?;
    let admin = SocketAddr::from(([127, 0, 0, 1], admin));
    let clusters = page(admin, "/clusters")?;
    let of_dead = |name: &str| {
        let key = format!("origins::127.0.0.1:{dead}::{name}::");
        clusters.lines().find_map(|line| line.strip_prefix(&key)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let stats = page(admin, "/stats?filter=ejections_enforced_total")?;
    let ejections = stats.lines().find_map(|line| line.split_once(": ")?.1.parse().ok()).unwrap_or(0);
    let in_flight = of_dead("rq_total").saturating_sub(of_dead("rq_success"));
    Ok(Death { outcome, in_flight, refused: of_dead("cx_connect_fail"), ejections })
}

fn client() -> Client {
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: bench.test\r\n\r\n").into_bytes();
    Client { protocol: Box::new(move || Box::new(H1::new(&request, BODY))), tls: None }
}

/// A page of the admin server.
fn page(admin: SocketAddr, path: &str) -> Result<String, Failure> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut socket = TcpStream::connect(admin).context("connecting to the admin server")?;
    socket.set_read_timeout(Some(deadline - Instant::now())).context("admin server")?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
        .context("admin server")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).context("reading the admin server's answer")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn config(port: u16, admin: u16, origins: &[u16]) -> Value {
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let hosts: Vec<Value> =
        origins.iter().map(|port| json!({"endpoint": {"address": address(*port)}})).collect();
    let extension = "type.googleapis.com/envoy.extensions.filters";
    json!({
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{
                "name": "main",
                "address": address(port),
                "filter_chains": [{"filters": [{
                    "name": "http",
                    "typed_config": {
                        "@type": format!("{extension}.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "main",
                        "generate_request_id": false,
                        "route_config": {"virtual_hosts": [{
                            "name": "all",
                            "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {
                                "cluster": "origins",
                                "retry_policy": {"retry_on": "connect-failure", "num_retries": 3},
                            }}],
                        }]},
                        "http_filters": [{
                            "name": "router",
                            "typed_config": {"@type": format!("{extension}.http.router.v3.Router")},
                        }],
                    },
                }]}],
            }],
            "clusters": [{
                "name": "origins",
                "type": "STATIC",
                "connect_timeout": "1s",
                // The default of 3 retries at a time is less than what is refused in the first moment.
                "circuit_breakers": {"thresholds": [{"max_retries": 1024}]},
                "health_checks": [{
                    "timeout": "0.25s",
                    "interval": "0.25s",
                    "unhealthy_threshold": 2,
                    "healthy_threshold": 1,
                    "http_health_check": {"path": PATH},
                }],
                "outlier_detection": {"max_ejection_percent": 50, "interval": "1s", "base_ejection_time": "10s"},
                "load_assignment": {"cluster_name": "origins", "endpoints": [{"lb_endpoints": hosts}]},
            }],
        },
    })
}

//! `cargo xtask bench --scale`: what many clusters and many hosts cost, beside one of each.
//!
//! `clusters-10k`: CPU time of a start and of taking one changed cluster over, memory a cluster, and CPU time a
//! request; the clusters stand in the configuration itself, which Envoy does not reload, and in a file that
//! `cds_config` names. `hosts-1k`: CPU time a request with 1,000 hosts in the cluster, which are as many loopback
//! addresses of one origin. The small and the large proxy run side by side and are loaded in turn, so that a
//! machine that slows down slows both.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::h1::H1;
use super::load::{Client, Clients, Drive, Load, Pace};
use super::process::Server;
use super::proxies::{self, Kind, Proxy};
use super::sample::median;
use super::{Bench, Origin};
use crate::failure::{Context, Failure};

const CLUSTERS: usize = 10_000;
const HOSTS: usize = 1_000;
const CONNECTIONS: usize = 64;
/// The cluster that is asked, and the one that changes.
const ASKED: usize = 0;
const CHANGED: usize = 1;
/// A start of thousands of clusters takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// A proxy that used no CPU for this long has nothing to do any more.
const QUIET: Duration = Duration::from_millis(600);
/// Less CPU time than this in [`QUIET`] is its clock, not work.
const NOTHING_NS: u64 = 3_000_000;
/// Time for pools to open their connections to all hosts.
const WARM_UP: Duration = Duration::from_secs(2);

/// Where the clusters stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    /// `static_resources`.
    Bootstrap,
    /// The file of `cds_config`.
    File,
}

/// What a proxy is to serve.
#[derive(Clone, Copy)]
struct Size {
    clusters: usize,
    hosts: usize,
    home: Home,
}

/// A proxy of some size.
struct Running {
    server: Server,
    folder: PathBuf,
    port: u16,
    origin: u16,
    size: Size,
}

/// Measures Tidegate and Envoy, and HAProxy where it can, and prints both tables.
pub(super) fn run(bench: &Bench) -> Result<(), Failure> {
    let origin = Origin::start(bench.cpus.load, &["--everywhere"])?;
    println!("clusters-10k: {CLUSTERS} clusters beside 1; a start is the median of rounds, with the longest");
    println!(
        "  {:<10} {:<12} {:>9} {:>10} {:>10} {:>10} {:>11} {:>11} {:>12} {:>7}",
        "proxy",
        "clusters in",
        "start ms",
        "longest",
        "in kernel",
        "reload ms",
        "KiB/cluster",
        "us/req of 1",
        "us/req of all",
        "ratio"
    );
    let kinds = |kinds: &'static [Kind]| bench.proxies.iter().filter(|proxy| kinds.contains(&proxy.kind));
    for proxy in kinds(&[Kind::Tidegate, Kind::Envoy]) {
        for home in [Home::Bootstrap, Home::File] {
            clusters(bench, proxy, &origin, home)?;
        }
    }
    println!("hosts-1k: {HOSTS} hosts in one cluster beside 1");
    println!(
        "  {:<10} {:>11} {:>12} {:>7} {:>11} {:>12} {:>7}",
        "proxy", "us/req of 1", "us/req of all", "ratio", "user of 1", "user of all", "ratio"
    );
    for proxy in kinds(&[Kind::Tidegate, Kind::Haproxy, Kind::Envoy]) {
        let small = start(bench, proxy, &origin, Size { clusters: 1, hosts: 1, home: Home::Bootstrap })?;
        let large = start(bench, proxy, &origin, Size { clusters: 1, hosts: HOSTS, home: Home::Bootstrap })?;
        let [one, all] = costs(bench, [&small, &large])?;
        println!(
            "  {:<10} {:>11.2} {:>12.2} {:>7.3} {:>11.2} {:>12.2} {:>7.3}",
            proxy.kind.name(),
            one.all,
            all.all,
            all.all / one.all,
            one.user,
            all.user,
            all.user / one.user
        );
        if proxy.kind == Kind::Tidegate {
            println!("{}", goal("CPU of a request with all hosts, with one: ratio", all.all / one.all, 1.1));
        }
    }
    Ok(())
}

/// How a figure compares with what is wanted.
fn goal(figure: &str, measured: f64, at_most: f64) -> String {
    let verdict = if measured <= at_most { "met" } else { "MISSED" };
    let decimals = if at_most < 10.0 { 2 } else { 0 };
    format!("  goal: {figure} at most {at_most}: {measured:.decimals$}, {verdict}")
}

fn clusters(bench: &Bench, proxy: &Proxy, origin: &Origin, home: Home) -> Result<(), Failure> {
    let size = Size { clusters: CLUSTERS, hosts: 1, home };
    // Envoy takes seconds, which do not vary.
    let more_starts = if proxy.kind == Kind::Tidegate { bench.rounds.saturating_sub(1) } else { 0 };
    let mut starts = (0..more_starts)
        .map(|_| start(bench, proxy, origin, size).map(|running| running.settled()))
        .collect::<Result<Vec<_>, _>>()?;
    let small = start(bench, proxy, origin, Size { clusters: 1, ..size })?;
    let large = start(bench, proxy, origin, size)?;
    let [before, after] = [&small, &large].map(|running| running.settled());
    let memory = (after.rss_kib as f64 - before.rss_kib as f64) / (CLUSTERS - 1) as f64;
    starts.push(after);
    let [took, kernel] = [|start: &Settled| start.cpu_ms, |start: &Settled| start.kernel_ms]
        .map(|of| median(starts.iter().map(of).collect()));
    let longest = starts.iter().map(|start| start.cpu_ms).fold(0.0, f64::max);
    let [one, all] = costs(bench, [&small, &large])?.map(|cost| cost.all);
    let reload = match (home, proxy.kind) {
        (Home::Bootstrap, Kind::Envoy) => None,
        _ => {
            let took =
                (0..bench.rounds).map(|round| large.change(2 + round)).collect::<Result<Vec<_>, _>>()?;
            Some(median(took))
        }
    };
    println!(
        "  {:<10} {:<12} {took:>9.0} {longest:>10.0} {kernel:>10.0} {:>10} {memory:>11.1} {one:>11.2} {all:>12.2} {:>7.3}",
        proxy.kind.name(),
        match home {
            Home::Bootstrap => "bootstrap",
            Home::File => "CDS file",
        },
        reload.map_or_else(|| "none".to_owned(), |ms| format!("{ms:.0}")),
        all / one
    );
    if proxy.kind == Kind::Tidegate {
        println!("{}", goal("the longest start, ms", longest, 300.0));
        println!("{}", goal("reload, ms", reload.unwrap_or(0.0), 300.0));
        println!("{}", goal("memory a cluster, KiB", memory, 12.0));
        println!("{}", goal("CPU of a request with all clusters, with one: ratio", all / one, 1.1));
    }
    Ok(())
}

/// CPU time a request, in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    all: f64,
    /// The part that is the proxy's own, and not the kernel's for it.
    user: f64,
}

/// What a request costs each: the medians of rounds in turn.
fn costs(bench: &Bench, running: [&Running; 2]) -> Result<[Cost; 2], Failure> {
    let mut loads = Vec::new();
    for one in running {
        let mut load = Load::connect(one.server.address, CONNECTIONS, client())?;
        load.run(Pace::Closed { duration: WARM_UP })?;
        loads.push(load);
    }
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..bench.rounds {
        for ((one, load), samples) in running.iter().zip(&mut loads).zip(&mut samples) {
            let before = one.server.usage();
            let outcome = load.run(Pace::Closed { duration: bench.dose.duration })?;
            let usage = one.server.usage().since(before);
            if outcome.bad > 0 {
                return Err(Failure(format!("{} requests failed", outcome.bad)));
            }
            let requests = outcome.good.max(1) as f64 * 1e3;
            samples.push(Cost { all: usage.cpu_ns as f64 / requests, user: usage.user_ns() / requests });
        }
    }
    Ok(samples.map(|samples: Vec<Cost>| Cost {
        all: median(samples.iter().map(|cost| cost.all).collect()),
        user: median(samples.iter().map(|cost| cost.user).collect()),
    }))
}

/// What a proxy has used once it does nothing more.
struct Settled {
    cpu_ms: f64,
    kernel_ms: f64,
    rss_kib: u64,
}

impl Running {
    /// Waits until it does nothing.
    fn settled(&self) -> Settled {
        let deadline = Instant::now() + PATIENCE;
        let mut cpu = self.server.usage().cpu_ns;
        loop {
            thread::sleep(QUIET);
            let now = self.server.usage().cpu_ns;
            if now.saturating_sub(cpu) < NOTHING_NS || Instant::now() > deadline {
                let usage = self.server.usage();
                return Settled {
                    cpu_ms: now as f64 / 1e6,
                    kernel_ms: (usage.cpu_ns as f64 - usage.user_ns()) / 1e6,
                    rss_kib: self.server.rss_kib(),
                };
            }
            cpu = now;
        }
    }

    /// Changes one cluster's file and says how many ms of CPU time that cost.
    fn change(&self, connect_timeout_s: usize) -> Result<f64, Failure> {
        let before = self.settled().cpu_ms;
        write(&self.folder, self.port, self.origin, self.size, connect_timeout_s)?;
        Ok(self.settled().cpu_ms - before)
    }
}

fn start(bench: &Bench, proxy: &Proxy, origin: &Origin, size: Size) -> Result<Running, Failure> {
    let port = proxies::free_port()?;
    let name = proxy.kind.name();
    let folder = bench.out.join(format!("{name}-scale-{}-{}", size.clusters, size.hosts));
    fs::create_dir_all(&folder).context(folder.display())?;
    let mut command = Command::new(&proxy.program);
    if proxy.kind == Kind::Haproxy {
        let file = folder.join("haproxy.cfg");
        fs::write(&file, haproxy(port, origin.port, size.hosts)).context(file.display())?;
        command.arg("-db").arg("-f").arg(file);
    } else {
        write(&folder, port, origin.port, size, 1)?;
        command.arg("-c").arg(folder.join("proxy.json")).args(["--concurrency", "1", "-l", "error"]);
    }
    if proxy.kind == Kind::Envoy {
        command.arg("--use-dynamic-base-id");
    }
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let server = Server::start(
        command,
        folder.join("log"),
        address,
        &Clients::Tcp(client()),
        bench.cpus.proxy,
        PATIENCE,
    )
    .context(format_args!("{name} did not start"))?;
    Ok(Running { server, folder, port, origin: origin.port, size })
}

fn client() -> Client {
    let request = b"GET /100 HTTP/1.1\r\nhost: bench.test\r\n\r\n";
    Client { protocol: Box::new(move || Box::new(H1::new(request, 100))), tls: None }
}

/// Writes the configuration, or what of it a change touches, by renaming: watchers see whole files.
fn write(folder: &Path, port: u16, origin: u16, size: Size, changed_s: usize) -> Result<(), Failure> {
    let clusters: Vec<Value> = (0..size.clusters)
        .map(|index| cluster(index, origin, size.hosts, if index == CHANGED { changed_s } else { 1 }))
        .collect();
    let replace = |name: &str, text: String| {
        let (new, path) = (folder.join("new"), folder.join(name));
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).context(path.display())
    };
    let file = folder.join("clusters.json");
    match size.home {
        Home::Bootstrap => replace("proxy.json", bootstrap(port, &clusters, None).to_string()),
        Home::File => {
            let resources: Vec<Value> = clusters.into_iter().map(typed).collect();
            let response = json!({"version_info": changed_s.to_string(), "resources": resources});
            replace("clusters.json", response.to_string())?;
            replace("proxy.json", bootstrap(port, &[], Some(&file)).to_string())
        }
    }
}

fn typed(mut cluster: Value) -> Value {
    cluster["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
    cluster
}

fn cluster(index: usize, origin: u16, hosts: usize, connect_timeout_s: usize) -> Value {
    let name = format!("cluster_{index:05}");
    let endpoints: Vec<Value> = (0..hosts)
        .map(|host| {
            let address = json!({"socket_address": {"address": ip(host), "port_value": origin}});
            json!({"endpoint": {"address": address}})
        })
        .collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": format!("{connect_timeout_s}s"),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

/// One of the loopback addresses: 250 in each network of 256.
fn ip(host: usize) -> String {
    format!("127.0.{}.{}", host / 250, host % 250 + 1)
}

/// HAProxy with as many servers, whose connections are kept as Tidegate's are.
fn haproxy(port: u16, origin: u16, hosts: usize) -> String {
    let servers: String =
        (0..hosts).map(|host| format!("    server s{host} {}:{origin}\n", ip(host))).collect();
    format!(
        "global\n    maxconn 4000\n    nbthread 1\ndefaults\n    mode http\n    timeout client 60s\n    \
         timeout server 60s\n    timeout connect 5s\n    http-reuse always\nfrontend front\n    \
         bind 127.0.0.1:{port}\n    default_backend all\nbackend all\n    balance roundrobin\n{servers}"
    )
}

fn bootstrap(port: u16, clusters: &[Value], cds: Option<&Path>) -> Value {
    let extension = "type.googleapis.com/envoy.extensions.filters";
    let mut bootstrap = json!({
        "node": {"id": "bench", "cluster": "bench"},
        "static_resources": {
            "listeners": [{
                "name": "main",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{"filters": [{
                    "name": "http",
                    "typed_config": {
                        "@type": format!("{extension}.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "main",
                        "route_config": {
                            "validate_clusters": false,
                            "virtual_hosts": [{
                                "name": "all",
                                "domains": ["*"],
                                "routes": [{
                                    "match": {"prefix": "/"},
                                    "route": {"cluster": format!("cluster_{ASKED:05}")},
                                }],
                            }],
                        },
                        "http_filters": [{
                            "name": "router",
                            "typed_config": {"@type": format!("{extension}.http.router.v3.Router")},
                        }],
                    },
                }]}],
            }],
            "clusters": clusters,
        },
    });
    if let Some(file) = cds {
        bootstrap["dynamic_resources"] =
            json!({"cds_config": {"path_config_source": {"path": file}, "resource_api_version": "V3"}});
    }
    bootstrap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_addresses_of_their_own() {
        let value = cluster(7, 80, HOSTS, 1);
        let endpoints = value["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().unwrap();
        let mut addresses: Vec<String> = endpoints
            .iter()
            .map(|host| host["endpoint"]["address"]["socket_address"]["address"].to_string())
            .collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), HOSTS);
        assert!(
            addresses.iter().all(|address| address.trim_matches('"').parse::<std::net::Ipv4Addr>().is_ok())
        );
    }
}

//! Active health checks of 10,000 hosts: CPU time of the main thread for one check of each, over real sockets. At an
//! interval of 10 s, 100 ms a round are 1 % of a core.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, SamplingMode};
use tidegate_cluster::attend::AttendContext;
use tidegate_cluster::{BuildContext, ClusterShared, Failing, Peers, Transports};
use tidegate_config::{Bootstrap, Format, from_str};
use tidegate_stats::Store;
use tidegate_types::Compat;

const HOSTS: usize = 10_000;
/// The child that answers: one process has too few descriptors for both ends.
const ORIGIN: &str = "--origin";

fn main() {
    if std::env::args().any(|argument| argument == ORIGIN) {
        serve();
    }
    tidegate_benches::run(&[checks]);
}

fn checks(criterion: &mut Criterion) {
    let origin = Origin::start();
    let mut group = criterion.benchmark_group("health");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1));
    for (name, checker) in [
        ("http1", r#""http_health_check": {"path": "/healthz"}"#),
        ("tcp_connect", r#""tcp_health_check": {}"#),
    ] {
        let bootstrap = bootstrap(origin.port, checker);
        group.bench_function(format!("round_of_{HOSTS}_hosts/{name}"), |bencher| {
            bencher.iter_custom(|rounds| cpu_of(&bootstrap, rounds as u32));
        });
    }
}

/// CPU time of so many rounds, of a second each.
fn cpu_of(bootstrap: &Bootstrap, rounds: u32) -> Duration {
    let store = Store::new(2);
    let context = BuildContext {
        runtime: &bootstrap.runtime,
        home: &Arc::default(),
        store: &store,
        workers: 1,
        compat: Compat::Tidegate,
    };
    let peers = Arc::new(Peers::default());
    tidegate_benches::runtime().block_on(async {
        let cluster = ClusterShared::build(&bootstrap.clusters[0], Transports::default(), context, None);
        let cx = AttendContext {
            peers: &peers,
            store: &store,
            runtime: &bootstrap.runtime,
            outlier_event_log: None,
        };
        let attendants = tidegate_health::attend(&cluster, cx);
        cluster.warming().over().await;
        let before = cpu();
        tokio::time::sleep(Duration::from_secs(1) * rounds).await;
        let spent = cpu() - before;
        let healthy =
            cluster.hosts().hosts.iter().filter(|host| !host.is_failing(Failing::ActiveCheck)).count();
        assert_eq!(healthy, HOSTS, "all hosts work");
        drop(attendants);
        spent
    })
}

/// What this thread has used.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

fn bootstrap(port: u16, checker: &str) -> Bootstrap {
    let host = |number: usize| {
        let address = format!("127.1.{}.{}", number / 250, number % 250 + 1);
        format!(
            r#"{{"endpoint": {{"address": {{"socket_address": {{"address": "{address}", "port_value": {port}}}}}}}}}"#
        )
    };
    let hosts: Vec<_> = (0..HOSTS).map(host).collect();
    let text = format!(
        r#"{{"static_resources": {{"clusters": [{{"name": "origin", "load_assignment": {{"cluster_name": "origin",
        "endpoints": [{{"lb_endpoints": [{}]}}]}}, "health_checks": [{{"timeout": "20s", "interval": "1s",
        "no_traffic_interval": "1s", "initial_jitter": "1s", "unhealthy_threshold": 3, "healthy_threshold": 1,
        {checker}}}]}}]}}}}"#,
        hosts.join(",")
    );
    from_str(&text, "bench.json", Format::Json).expect("a valid configuration")
}

struct Origin {
    child: Child,
    port: u16,
}

impl Origin {
    fn start() -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child =
            Command::new(program).arg(ORIGIN).stdout(Stdio::piped()).spawn().expect("a second process");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        Self { child, port: line.trim().parse().expect("a port") }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers 200 on all addresses of loopback, by one thread that goes around: nobody measures it.
fn serve() -> ! {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    println!("{}", listener.local_addr().expect("its port").port());
    std::io::stdout().flush().expect("a reader");
    listener.set_nonblocking(true).expect("a socket");
    tidegate_benches::runtime().block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::task::spawn_local(answer(stream));
        }
    })
}

async fn answer(stream: tokio::net::TcpStream) {
    let mut buffer = [0; 1024];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {
                // A check's request comes in one piece, and its answer fits into the socket.
                if stream.try_write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

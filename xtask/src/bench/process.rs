//! A server under test: started on its core, watched through `/proc`, ended with all its children.
//!
//! [`Server`] owns the process; [`Usage`] is what it has consumed so far. CPU time comes from the process
//! clock (nanoseconds, ended threads included); its split into user and system from the kernel's ticks, which
//! are sampled and only good as a proportion.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::h3::QuicLoad;
use super::load::{Client, Clients, Drive, Pace};
use crate::failure::{Context, Failure};
use crate::sys;

/// A running server and the processes that it started.
pub(super) struct Server {
    child: Child,
    log: PathBuf,
    pub(super) address: SocketAddr,
}

/// What a server has consumed since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time in nanoseconds.
    pub(super) cpu_ns: u64,
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    /// Time in which a thread was ready to run but another program had its CPU, in nanoseconds.
    pub(super) waited_ns: u64,
}

impl Usage {
    /// What was consumed between `earlier` and now.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            waited_ns: self.waited_ns.saturating_sub(earlier.waited_ns),
        }
    }

    /// The part of the CPU time that was spent in user mode, in nanoseconds.
    pub(super) fn user_ns(self) -> f64 {
        let ticks = self.user_ticks + self.system_ticks;
        if ticks == 0 { 0.0 } else { self.cpu_ns as f64 * self.user_ticks as f64 / ticks as f64 }
    }
}

/// How long a server may take to start.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

impl Server {
    /// Starts `command` on `cpu` and waits until a request of `clients`' is answered as it should be.
    pub(super) fn start(
        mut command: Command,
        log: PathBuf,
        address: SocketAddr,
        clients: &Clients,
        cpu: Option<usize>,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let out = File::create(&log).context(log.display())?;
        let errors = out.try_clone().context(log.display())?;
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        sys::tie(&mut command, cpu);
        let child = command.spawn().context(format_args!("starting {}", command.get_program().display()))?;
        let mut server = Self { child, log, address };
        let deadline = Instant::now() + patience;
        while !answers(address, clients) {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(Failure(format!("ended with {status}{}", server.log_tail())));
            }
            if Instant::now() > deadline {
                return Err(Failure(format!("does not answer on {address}{}", server.log_tail())));
            }
            thread::sleep(Duration::from_millis(30));
        }
        Ok(server)
    }

    /// The process and all its descendants.
    pub(super) fn pids(&self) -> Vec<i32> {
        let root = self.child.id() as i32;
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            if let Some(stat) = read_stat(pid) {
                parents.push((pid, stat.parent));
            }
        }
        descendants(root, &parents)
    }

    /// Sums the consumption of all processes.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for pid in self.pids() {
            let stat = read_stat(pid).unwrap_or_default();
            usage.cpu_ns += sys::cpu_time(pid).unwrap_or(0);
            usage.user_ticks += stat.user_ticks;
            usage.system_ticks += stat.system_ticks;
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let schedstats = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
            usage.waited_ns += schedstats.filter_map(|text| schedstat_wait(&text)).sum::<u64>();
        }
        usage
    }

    /// Resident memory of all processes, in KiB. Shared pages count once for each process.
    pub(super) fn rss_kib(&self) -> u64 {
        let statuses =
            self.pids().into_iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        statuses.filter_map(|status| status_kib(&status, "VmRSS")).sum()
    }

    /// The last lines that the server wrote, to say why it failed.
    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = &lines[lines.len().saturating_sub(3)..];
        if tail.is_empty() { String::new() } else { format!(": {}", tail.join(" | ")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pids = self.pids();
        // Each of these may already be gone, which is what is wanted.
        let _ = sys::signal(self.child.id() as i32, libc::SIGTERM);
        let deadline = Instant::now() + Duration::from_millis(500);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let is_running = matches!(self.child.try_wait(), Ok(None));
        if is_running {
            let _ = self.child.kill();
        }
        for pid in pids.into_iter().skip(1).filter(|pid| read_stat(*pid).is_some()) {
            let _ = sys::signal(pid, libc::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Whether one request is answered as it should be.
fn answers(address: SocketAddr, clients: &Clients) -> bool {
    match clients {
        Clients::Tcp(client) => answers_tcp(address, client),
        Clients::Quic(caller) => QuicLoad::connect(address, 1, caller.clone())
            .and_then(|mut load| load.run(Pace::Count { requests: 1 }))
            .is_ok_and(|outcome| outcome.good == 1),
    }
}

fn answers_tcp(address: SocketAddr, client: &Client) -> bool {
    let Ok(socket) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) else {
        return false;
    };
    if socket.set_read_timeout(Some(Duration::from_secs(1))).is_err() {
        return false;
    }
    match &client.tls {
        None => is_answered(socket, client),
        Some(tls) => tls.stream(socket).is_ok_and(|stream| is_answered(stream, client)),
    }
}

fn is_answered(mut stream: impl Read + Write, client: &Client) -> bool {
    let mut protocol = (client.protocol)();
    let (mut out, mut buffer, mut answer) = (Vec::new(), vec![0; 64 * 1024], None);
    protocol.start(0, &mut out);
    while answer.is_none() {
        if stream.write_all(&out).is_err() {
            return false;
        }
        out.clear();
        let received = match stream.read(&mut buffer) {
            Ok(received) if received > 0 => &buffer[..received],
            _ => return false,
        };
        if protocol.receive(received, &mut out, &mut |exchange| answer = Some(exchange.is_good)).is_err() {
            return false;
        }
    }
    answer == Some(true)
}

/// The fields of `/proc/PID/stat` in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stat {
    parent: i32,
    user_ticks: u64,
    system_ticks: u64,
}

fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): the name in parentheses may itself hold blanks and parentheses, so fields count from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        user_ticks: fields.get(11)?.parse().ok()?,
        system_ticks: fields.get(12)?.parse().ok()?,
    })
}

/// `/proc/PID/task/TID/schedstat`: nanoseconds run, nanoseconds waited, slices.
fn schedstat_wait(text: &str) -> Option<u64> {
    text.split_whitespace().nth(1)?.parse().ok()
}

/// A `Name:  123 kB` line of `/proc/PID/status`.
fn status_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `root` first, then everything below it; `parents` are pairs of (process, parent).
fn descendants(root: i32, parents: &[(i32, i32)]) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(pid, of)| *of == parent && *pid != root).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_nasty_name() {
        let line = "12 (a) b (c) S 7 12 12 0 -1 4194560 5 0 0 0 42 17 3 4 20 0 1 0 99 8 9 1\n";
        assert_eq!(parse_stat(line), Some(Stat { parent: 7, user_ticks: 42, system_ticks: 17 }));
        assert_eq!(parse_stat("12 (a) S"), None);
    }

    #[test]
    fn own_stat_is_readable() {
        let own = std::process::id() as i32;
        assert!(read_stat(own).is_some());
        assert!(sys::cpu_time(own).unwrap() > 0);
    }

    #[test]
    fn a_status_field() {
        assert_eq!(status_kib("VmRSSx: 1 kB\nVmRSS:\t  123 kB\n", "VmRSS"), Some(123));
        assert_eq!(status_kib("Name: x\n", "VmRSS"), None);
    }

    #[test]
    fn a_schedstat_line() {
        assert_eq!(schedstat_wait("492041 17 1\n"), Some(17));
        assert_eq!(schedstat_wait(""), None);
    }

    #[test]
    fn a_family_of_processes() {
        assert_eq!(descendants(5, &[(5, 1), (6, 5), (7, 1), (8, 6), (9, 5)]), [5, 6, 9, 8]);
    }

    #[test]
    fn ticks_split_the_precise_time() {
        let usage = Usage { cpu_ns: 1_000, user_ticks: 1, system_ticks: 3, waited_ns: 5 };
        assert!((usage.user_ns() - 250.0).abs() < 1e-9);
        assert_eq!(usage.since(usage), Usage::default());
    }
}

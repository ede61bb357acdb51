//! `cargo xtask bench --strace`: which system calls each proxy makes for a request, by name.
//!
//! The connections are opened and warmed before strace attaches, so what is counted is the steady state and
//! not the set-up.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::load::Pace;
use super::process::Server;
use super::proxies::Proxy;
use super::scenario::Scenario;
use super::{Bench, Origins};
use crate::failure::{Context, Failure};
use crate::sys;

/// Enough that a timer's odd call disappears, few enough that strace's brake does not matter.
const REQUESTS: u64 = 20_000;

/// Counts for every proxy in turn and prints the tables.
pub(super) fn run(bench: &Bench, scenario: &Scenario, origins: &Origins) -> Result<(), Failure> {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        return Err(Failure::new("strace is not installed"));
    }
    println!("system calls a request, {}", scenario.title);
    let mut failures = Vec::new();
    let fitting = bench.proxies.iter().filter(|proxy| scenario.fits(proxy.kind, bench.dose));
    for proxy in fitting {
        match count(bench, origins, scenario, proxy) {
            Err(Failure(message)) => failures.push(format!("{}: {message}", proxy.kind.name())),
            Ok(calls) => {
                let total: f64 = calls.iter().map(|call| call.per_request).sum();
                println!("\n{} {}: {total:.3}", proxy.kind.name(), proxy.version);
                for call in calls.iter().filter(|call| call.per_request >= 0.0005) {
                    println!("  {:<16} {:>8.3}", call.name, call.per_request);
                }
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure(failures.join("\n"))) }
}

struct Call {
    name: String,
    per_request: f64,
}

fn count(bench: &Bench, origins: &Origins, scenario: &Scenario, proxy: &Proxy) -> Result<Vec<Call>, Failure> {
    let server = bench.start(proxy, origins, scenario)?;
    let mut load = scenario.connect(&server)?;
    load.run(Pace::Closed { duration: Duration::from_millis(500) })?;

    let table = bench.out.join(format!("{}.strace", proxy.kind.name()));
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o"]).arg(&table);
    for pid in server.pids() {
        command.arg("-p").arg(pid.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::tie(&mut command, bench.cpus.load);
    let mut strace = command.spawn().context("starting strace")?;
    wait_until_traced(&server)?;
    let outcome = load.run(Pace::Count { requests: REQUESTS })?;
    // On an interrupt strace detaches and writes its table.
    sys::signal(strace.id() as i32, libc::SIGINT).context("stopping strace")?;
    strace.wait().context("waiting for strace")?;

    let text = fs::read_to_string(&table).context(table.display())?;
    let requests = outcome.good.max(1) as f64;
    let calls = parse(&text).into_iter();
    Ok(calls.map(|(name, count)| Call { name, per_request: count as f64 / requests }).collect())
}

/// Waits until strace has attached to every thread.
fn wait_until_traced(server: &Server) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !server.pids().into_iter().all(is_traced) {
        if Instant::now() > deadline {
            return Err(Failure::new("strace could not attach (ptrace may be forbidden here)"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_traced(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default()).all(|status| {
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}

/// Reads the table of `strace -c`: (name, calls), most calls first.
fn parse(text: &str) -> Vec<(String, u64)> {
    // % time, seconds, usecs/call, calls, [errors,] syscall
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields.last().filter(|name| **name != "total")?;
        fields.first()?.parse::<f64>().ok()?;
        let calls = fields.get(3)?.parse().ok()?;
        Some(((*name).to_owned(), calls))
    };
    let mut calls: Vec<(String, u64)> = text.lines().filter_map(row).collect();
    calls.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    calls
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_table_of_strace() {
        let text = "% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 52.10    0.210000           5     40000           recvfrom
 46.90    0.190000           4     40001         3 sendto
  1.00    0.004000           4       900           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.404000                 80901         3 total
";
        let expected = [("sendto", 40_001), ("recvfrom", 40_000), ("epoll_wait", 900)];
        assert_eq!(parse(text), expected.map(|(name, calls)| (name.to_owned(), calls)));
    }
}

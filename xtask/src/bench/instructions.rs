//! `cargo xtask bench --instructions`: what each proxy executes for a request in user mode, by callgrind.
//!
//! Counts instead of times: a busy machine does not move them, and a change of one percent shows. The
//! connections are opened and warmed before counting begins. Beside the instructions it tells the calls to the
//! memory allocator, and the functions that take most (self cost; what was inlined counts for its caller).

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::load::Pace;
use super::proxies::Proxy;
use super::scenario::Scenario;
use super::{Bench, Origins};
use crate::failure::{Context, Failure};

/// Enough that what happens once a second does not matter: callgrind is some fifty times slower.
const REQUESTS: u64 = 5_000;
const WARM_UP: u64 = 2_000;

/// How long a server may take to start under callgrind.
const PATIENCE: Duration = Duration::from_secs(180);

/// Functions to name.
const TOP: usize = 25;

/// Counts for every proxy in turn and prints the tables.
pub(super) fn run(bench: &Bench, scenario: &Scenario, origins: &Origins) -> Result<(), Failure> {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        return Err(Failure::new("valgrind is not installed"));
    }
    println!("user instructions a request, {}", scenario.title);
    let mut failures = Vec::new();
    let fitting = bench.proxies.iter().filter(|proxy| scenario.fits(proxy.kind, bench.dose));
    for proxy in fitting {
        match count(bench, origins, scenario, proxy) {
            Err(Failure(message)) => failures.push(format!("{}: {message}", proxy.kind.name())),
            Ok((profile, requests)) => print(proxy, &profile, requests as f64),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure(failures.join("\n"))) }
}

fn print(proxy: &Proxy, profile: &Profile, requests: f64) {
    let of_each = |count: u64| count as f64 / requests;
    let total: u64 = profile.own.values().sum();
    println!(
        "\n{} {}: {:.0} instructions, {:.2} allocations",
        proxy.kind.name(),
        proxy.version,
        of_each(total),
        of_each(profile.allocations)
    );
    let mut functions: Vec<_> = profile.own.iter().collect();
    functions.sort_by_key(|(_, cost)| std::cmp::Reverse(**cost));
    for (name, cost) in functions.into_iter().take(TOP) {
        let percent = *cost as f64 / total.max(1) as f64 * 100.0;
        println!("  {:>8.1} {percent:>5.1} %  {name}", of_each(*cost));
    }
}

fn count(
    bench: &Bench,
    origins: &Origins,
    scenario: &Scenario,
    proxy: &Proxy,
) -> Result<(Profile, u64), Failure> {
    let stem = bench.out.join(format!("{}.callgrind", proxy.kind.name()));
    let server =
        bench.start_under(proxy, origins, scenario, |command| under_callgrind(&command, &stem), PATIENCE)?;
    let mut load = scenario.connect(&server)?;
    load.run(Pace::Count { requests: WARM_UP })?;
    let pids = server.pids();
    for pid in &pids {
        control("--zero", *pid)?;
    }
    let outcome = load.run(Pace::Count { requests: REQUESTS })?;
    let mut profile = Profile::default();
    for pid in &pids {
        control("--dump", *pid)?;
        let file = format!("{}.{pid}.1", stem.display());
        profile.add(&fs::read_to_string(&file).context(&file)?);
        fs::remove_file(&file).context(&file)?;
    }
    Ok((profile, outcome.good.max(1)))
}

/// The command as callgrind runs it; a dump goes to `STEM.PID.1`.
fn under_callgrind(command: &Command, stem: &Path) -> Command {
    let mut wrapped = Command::new("valgrind");
    wrapped
        .args(["--tool=callgrind", "--trace-children=yes", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}.%p", stem.display()))
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
}

fn control(what: &str, pid: i32) -> Result<(), Failure> {
    let output = Command::new("callgrind_control").arg(what).arg(pid.to_string()).output();
    let output = output.context("callgrind_control")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text.contains("OK") {
        return Ok(());
    }
    Err(Failure(format!("callgrind_control {what} {pid}: {}", text.trim())))
}

/// What callgrind counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Profile {
    /// Instructions by function.
    own: HashMap<String, u64>,
    allocations: u64,
}

impl Profile {
    /// Adds a dump in callgrind's format, names and positions not compressed.
    fn add(&mut self, text: &str) {
        let (mut caller, mut callee, mut is_inclusive) = ("", "", false);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                caller = name;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if let Some(call) = line.strip_prefix("calls=") {
                // The allocator's own inner calls are no allocations.
                if is_allocation(callee) && !is_allocation(caller) {
                    let count = call.split(' ').next().and_then(|count| count.parse().ok());
                    self.allocations += count.unwrap_or(0);
                }
                // The next line is the callee's cost, which it has itself.
                is_inclusive = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let cost = line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok());
                if !std::mem::take(&mut is_inclusive) {
                    *self.own.entry(caller.to_owned()).or_default() += cost.unwrap_or(0);
                }
            }
        }
    }
}

/// Entry points of the allocators in use: libc's, mimalloc, C++.
fn is_allocation(function: &str) -> bool {
    // Recursion shows as a number behind the name.
    let name = function.split('\'').next().unwrap_or_default();
    matches!(name, "malloc" | "calloc" | "realloc" | "posix_memalign" | "aligned_alloc")
        || (name.starts_with("mi_") && name.contains("alloc"))
        || name.starts_with("operator new")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_of_callgrind() {
        let dump = "# callgrind format\nversion: 1\nevents: Ir\nsummary: 31\n\n\
            fl=a.c\nfn=main\n10 5\n11 3\ncfn=malloc\ncalls=4 20\n11 20\n12 1\n\n\
            fl=b.c\nfn=malloc\n20 12\ncfn=mi_malloc\ncalls=2 30\n20 8\n\nfn=mi_malloc\n30 8\n\nfn=main\n13 2\n";
        let mut profile = Profile::default();
        profile.add(dump);
        let own = [("main", 11), ("malloc", 12), ("mi_malloc", 8)];
        assert_eq!(profile.own, own.map(|(name, cost)| (name.to_owned(), cost)).into());
        assert_eq!(profile.allocations, 4);
    }
}

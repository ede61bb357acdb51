//! A running proxy under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::admin::Admin;
use crate::binary;
use crate::config::Config;
use crate::process::Process;
use crate::wait;
use crate::wire::Wire;

/// The binary, serving. Killed on drop.
#[derive(Debug)]
pub struct Proxy {
    /// The process with its log.
    pub process: Process,
    /// Its admin server.
    pub admin: Admin,
    /// Where its listener `ingress` listens.
    pub address: SocketAddr,
    folder: TempDir,
}

/// How to start a proxy.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary.
    pub binary: PathBuf,
    /// Worker threads.
    pub concurrency: usize,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { binary: binary::tidegate(), concurrency: 1, arguments: Vec::new() }
    }
}

impl Options {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// With its log, when it does not get there.
    #[track_caller]
    pub fn start(&self, config: &Config) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.json");
        std::fs::write(&file, config.0.to_string()).unwrap();
        self.start_file(&file, folder)
    }

    /// Starts it on a file; `folder` is for its own files and lives as long as it.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[track_caller]
    pub fn start_file(&self, file: &Path, folder: TempDir) -> Proxy {
        let admin_file = folder.path().join("admin");
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(file).arg("--admin-address-path").arg(&admin_file);
        command.args(["--concurrency", &self.concurrency.to_string(), "--use-dynamic-base-id"]);
        command.args(&self.arguments);
        let mut process = Process::start(&mut command);
        let admin = wait::until_some("the admin address", || {
            if let Some(status) = process.try_exit() {
                panic!("{status}: {}", process.output());
            }
            std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok().map(Admin)
        });
        // Then the listeners are open and, once it answers again, the file is watched.
        wait::until("its loop", || process.output().contains("starting main dispatch loop"));
        wait::until("readiness", || {
            Wire::try_connect(admin.0).is_ok() && admin.get("/ready").text().starts_with("LIVE")
        });
        let address = admin.listener("ingress");
        Proxy { process, admin, address, folder }
    }
}

impl Proxy {
    /// Starts the standard binary with one worker.
    ///
    /// # Panics
    /// With its log, when it does not become ready.
    #[track_caller]
    pub fn start(config: &Config) -> Self {
        Options::default().start(config)
    }

    /// A new client connection.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// A GET on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> crate::Response {
        self.connect().ask(&format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n"))
    }

    /// One counter or gauge.
    ///
    /// # Panics
    /// When the admin server does not answer.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        self.admin.stat(name)
    }

    /// A folder that lives as long as the proxy.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file of [`Options::start`].
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("proxy.json")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.output()
    }
}

/// Waits for a file to have `count` lines, and reads them.
///
/// # Panics
/// When they do not come.
#[track_caller]
pub fn await_lines(path: &Path, count: usize) -> Vec<String> {
    wait::until_some("lines in the access log", || {
        let text = std::fs::read_to_string(path).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

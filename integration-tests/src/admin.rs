//! The admin server's client.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::message::Response;
use crate::wait;
use crate::wire::Wire;

/// The admin address of a running proxy.
#[derive(Clone, Copy, Debug)]
pub struct Admin(pub SocketAddr);

/// Counters and gauges by name. A name that is missing counts 0: the proxy may create it on first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats(pub BTreeMap<String, u64>);

impl Admin {
    /// A GET.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn get(self, path: &str) -> Response {
        self.ask("GET", path)
    }

    /// A POST without a body.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn post(self, path: &str) -> Response {
        self.ask("POST", path)
    }

    /// Any method.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn ask(self, method: &str, path: &str) -> Response {
        let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
        Wire::connect(self.0).ask(&format!("{method} {path} HTTP/1.1\r\nhost: admin\r\n{length}\r\n"))
    }

    /// All counters and gauges.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn stats(self) -> Stats {
        let text = self.get("/stats").text();
        let number = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Stats(text.lines().filter_map(number).collect())
    }

    /// One counter or gauge.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn stat(self, name: &str) -> u64 {
        self.stats().get(name)
    }

    /// Waits until a counter or gauge has a value: the sums are read from other threads.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn await_stat(self, name: &str, value: u64) {
        let mut last = 0;
        wait::until(&format!("{name} = {value}"), || {
            last = self.stat(name);
            last == value
        });
    }

    /// Where a listener listens.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn listener(self, name: &str) -> SocketAddr {
        let text = self.get("/listeners").text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}::")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

impl Stats {
    /// The value of a counter or gauge.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

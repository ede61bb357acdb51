//! The proxies that are measured: how to find each, configure it fairly, and start it.
//!
//! "Fair" is: one worker, keep-alive to the origin, no access log, connections never closed for having
//! served many requests, and the proxy's own defaults for everything else. Start from [`find`] and
//! [`Proxy::command`]; the configurations are in [`configs`].

use std::env;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::certificate;
use crate::failure::{Context, Failure};

mod configs;

/// A proxy on this machine.
pub(super) struct Proxy {
    pub(super) kind: Kind,
    pub(super) program: PathBuf,
    pub(super) version: String,
}

/// What a proxy is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) port: u16,
    pub(super) origin: u16,
    pub(super) front: Front,
    pub(super) upstream: Upstream,
    /// Close connections that idled this long, at once; otherwise the proxy's own default.
    pub(super) idle_timeout: Option<Duration>,
}

/// What the proxy speaks with its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    /// HTTP/1.1.
    Http,
    /// Bytes, whatever they mean.
    Tcp,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
    /// HTTP/2 over TLS, by ALPN.
    Http2Tls,
    /// HTTP/3, without a TCP listener beside it.
    Http3,
}

impl Front {
    pub(super) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Http2Tls | Self::Http3)
    }

    pub(super) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Tls)
    }

    /// The protocol that its clients offer by ALPN.
    pub(super) fn alpn(self) -> &'static str {
        match self {
            Self::Http3 => "h3",
            Self::Http2 | Self::Http2Tls => "h2",
            Self::Http | Self::Tcp | Self::Tls => "http/1.1",
        }
    }
}

/// What the proxy speaks with the origin, always without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstream {
    /// HTTP/1.1, or bytes.
    Plain,
    Http2,
}

/// Which proxy; the order is that of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tidegate,
    Nginx,
    Haproxy,
    Envoy,
}

/// The proxies that Tidegate is compared with.
pub(super) const PEERS: [Kind; 3] = [Kind::Nginx, Kind::Haproxy, Kind::Envoy];

impl Kind {
    /// The name in tables, reports and options.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// Whether the proxy can be set up for this: Debian's nginx has no TCP proxy in its base package, and
    /// speaks no HTTP/2 with upstreams, neither it nor Debian's HAProxy speaks HTTP/3, and the idle timeouts of nginx and HAProxy mean something else.
    pub(super) fn can(self, front: Front, upstream: Upstream, idle_timeout: Option<Duration>) -> bool {
        match self {
            Self::Tidegate | Self::Envoy => true,
            Self::Nginx => {
                !matches!(front, Front::Tcp | Front::Http3)
                    && upstream == Upstream::Plain
                    && idle_timeout.is_none()
            }
            Self::Haproxy => front != Front::Http3 && idle_timeout.is_none(),
        }
    }

    fn version_flag(self) -> &'static str {
        match self {
            Self::Tidegate | Self::Envoy => "--version",
            Self::Nginx | Self::Haproxy => "-v",
        }
    }
}

/// Finds a proxy at `path`, or else by its name in `PATH` and the folders that distributions keep servers in.
pub(super) fn find(kind: Kind, path: Option<&Path>) -> Option<Proxy> {
    let program = match path {
        Some(path) => path.is_file().then(|| path.to_path_buf())?,
        None => {
            let mut folders: Vec<PathBuf> =
                env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
            folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
            folders.into_iter().map(|folder| folder.join(kind.name())).find(|program| program.is_file())?
        }
    };
    let output = Command::new(&program).arg(kind.version_flag()).output().ok();
    let text = output.map(|o| [o.stdout, o.stderr].concat()).unwrap_or_default();
    let version = version_of(kind, &String::from_utf8_lossy(&text));
    Some(Proxy { kind, program, version })
}

impl Proxy {
    /// Writes the configuration into `folder` and answers the command that serves `setup`.
    pub(super) fn command(&self, folder: &Path, setup: Setup) -> Result<Command, Failure> {
        fs::create_dir_all(folder).context(folder.display())?;
        if setup.front.is_tls() {
            certificate::write(folder)?;
        }
        let (file, text) = match self.kind {
            Kind::Tidegate | Kind::Envoy => ("proxy.json", configs::envoy(folder, setup)),
            Kind::Nginx => ("nginx.conf", configs::nginx(folder, setup)),
            Kind::Haproxy => ("haproxy.cfg", configs::haproxy(folder, setup)),
        };
        let file = folder.join(file);
        fs::write(&file, text).context(file.display())?;
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Tidegate => command.arg("-c").arg(file).args(["--concurrency", "1", "-l", "error"]),
            Kind::Envoy => command.arg("-c").arg(file).args([
                "--concurrency",
                "1",
                "-l",
                "error",
                "--use-dynamic-base-id",
            ]),
            Kind::Nginx => command.arg("-p").arg(folder).arg("-c").arg(file),
            Kind::Haproxy => command.arg("-db").arg("-f").arg(file),
        };
        Ok(command)
    }
}

/// A port that is free now, outside the range from which the kernel gives ports to outgoing connections: the
/// load generator's own connections cannot take it before the server has bound it.
pub(super) fn free_port() -> Result<u16, Failure> {
    // Neighbouring runs start at different places.
    let start = 12_000 + (std::process::id() % 8_000) as u16;
    (start..32_000)
        .find(|port| {
            let address = ("127.0.0.1", *port);
            TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
        })
        .ok_or_else(|| Failure::new("no free port"))
}

/// The version out of what a proxy prints about itself.
fn version_of(kind: Kind, text: &str) -> String {
    // Wrappers may print lines of their own.
    let marker = if kind == Kind::Tidegate { "tidegate" } else { "version" };
    let line = text.lines().find(|line| line.contains(marker)).unwrap_or_default();
    let version = match kind {
        // envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL
        Kind::Envoy => line.split_once("version:").and_then(|(_, rest)| rest.split('/').nth(1)),
        // nginx version: nginx/1.22.1
        Kind::Nginx => line.split('/').nth(1),
        // HAProxy version 2.6.12-1+deb12u1 2023/12/16 - https://haproxy.org/
        Kind::Haproxy => line.split_whitespace().nth(2),
        Kind::Tidegate => line.split_whitespace().nth(1),
    };
    version.unwrap_or("?").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_cut_out() {
        assert_eq!(version_of(Kind::Nginx, "nginx version: nginx/1.22.1\n"), "1.22.1");
        assert_eq!(
            version_of(Kind::Haproxy, "HAProxy version 2.6.12-1+deb 2023/12/16 - https://x\n"),
            "2.6.12-1+deb"
        );
        assert_eq!(
            version_of(Kind::Envoy, "\nenvoy  version: 12ab/1.40.0/Clean/RELEASE/BoringSSL\n"),
            "1.40.0"
        );
        assert_eq!(version_of(Kind::Tidegate, "tidegate 0.1.0\n"), "0.1.0");
        assert_eq!(version_of(Kind::Envoy, ""), "?");
    }
}

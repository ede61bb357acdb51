//! The proxies that are measured: how to find each, configure it fairly, and start it.
//!
//! "Fair" is: one worker, keep-alive to the origin, no access log, connections never closed for having
//! served many requests, and the proxy's own defaults for everything else. Start from [`find`] and
//! [`Proxy::command`].

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Context, Failure};
use crate::sys;

/// A proxy on this machine.
pub(super) struct Proxy {
    pub(super) kind: Kind,
    pub(super) program: PathBuf,
    pub(super) version: String,
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
    /// Writes the configuration into `folder` and answers the command that serves `port` from `origin`.
    pub(super) fn command(&self, folder: &Path, port: u16, origin: u16) -> Result<Command, Failure> {
        fs::create_dir_all(folder).context(folder.display())?;
        let (file, text) = match self.kind {
            Kind::Tidegate | Kind::Envoy => ("proxy.json", envoy_config(port, origin)),
            Kind::Nginx => ("nginx.conf", nginx_config(folder, port, origin)),
            Kind::Haproxy => ("haproxy.cfg", haproxy_config(port, origin)),
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
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
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

fn nginx_config(folder: &Path, port: u16, origin: u16) -> String {
    let folder = folder.display();
    // Started by root, the worker would change to a user who cannot write below the target folder.
    let user = if sys::is_root() { "user root;" } else { "" };
    format!(
        "{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream origin {{
    server 127.0.0.1:{origin};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
    }}
  }}
}}
"
    )
}

fn haproxy_config(port: u16, origin: u16) -> String {
    // HAProxy refuses to start when the limit of open files cannot carry its `maxconn`.
    let connections = (sys::raise_open_files().saturating_sub(200) / 2).min(32_000);
    format!(
        "global
  nbthread 1
  maxconn {connections}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend ingress
  bind 127.0.0.1:{port}
  default_backend origin
backend origin
  server origin 127.0.0.1:{origin}
"
    )
}

/// Envoy's v3 configuration, which Tidegate reads too.
fn envoy_config(port: u16, origin: u16) -> String {
    let address =
        |port: u16| serde_json::json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let type_url = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let manager = serde_json::json!({
        "@type": type_url("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "ingress_http",
        "codec_type": "AUTO",
        "route_config": {
            "name": "routes",
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "origin" } }]
            }]
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": type_url("filters.http.router.v3.Router") }
        }]
    });
    let config = serde_json::json!({
        "static_resources": {
            "listeners": [{
                "name": "ingress",
                "address": address(port),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": manager
                }] }]
            }],
            "clusters": [{
                "name": "origin",
                "type": "STATIC",
                "connect_timeout": "1s",
                "load_assignment": {
                    "cluster_name": "origin",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(origin) } }] }]
                }
            }]
        }
    });
    format!("{config:#}\n")
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

    #[test]
    fn the_envoy_file_is_json_with_both_ports() {
        let config: serde_json::Value = serde_json::from_str(&envoy_config(1234, 5678)).unwrap();
        let resources = &config["static_resources"];
        assert_eq!(resources["listeners"][0]["address"]["socket_address"]["port_value"], 1234);
        let endpoint =
            &resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"]["socket_address"]["port_value"], 5678);
    }
}

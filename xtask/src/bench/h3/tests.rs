//! The client against servers of others, where they are installed: Caddy (`CADDY`, or `caddy` in `PATH`) and Envoy
//! (`ENVOY`, or `envoy`).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::super::load::{Clients, Pace};
use super::super::process::{PATIENCE, Server};
use super::super::proxies::{Front, Kind, Proxy, Setup, Upstream, free_port};
use super::*;

/// What the servers answer to `/100`.
const BODY: [u8; 100] = [b'x'; 100];

/// Servers share their port with whoever asks in the same way (`SO_REUSEPORT`): one at a time.
static PORTS: Mutex<()> = Mutex::new(());

/// The program that `variable` names, or else `name` in `PATH`.
fn installed(name: &str, variable: &str) -> Option<PathBuf> {
    let found = env::var_os(variable).map(PathBuf::from).or_else(|| {
        let folders = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&folders).map(|folder| folder.join(name)).find(|program| program.is_file())
    });
    if found.is_none() {
        eprintln!("skipped: needs {name} ({variable})");
    }
    found
}

/// 8 connections of 32 streams, and new ones: every response is as it should be.
fn load(mut command: Command, folder: &Path, port: u16) {
    command.env("HOME", folder);
    let clients = |streams, closes| {
        let request = Request::new("/100", 0, BODY.len() as u64);
        Clients::Quic(Caller::new(request, streams, closes).unwrap())
    };
    let address = ([127, 0, 0, 1], port).into();
    let server =
        Server::start(command, folder.join("log"), address, &clients(1, false), None, PATIENCE).unwrap();
    for (streams, closes, requests) in [(32, false, 2_000), (1, true, 20)] {
        let mut load = clients(streams, closes).connect(server.address, 8).unwrap();
        let outcome = load.run(Pace::Count { requests }).unwrap();
        assert_eq!((outcome.good, outcome.bad), (requests, 0));
        assert_eq!(outcome.reconnects > 0, closes);
    }
}

#[test]
fn caddy_understands_it() {
    let Some(program) = installed("caddy", "CADDY") else { return };
    let _alone = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
    certificate::write(folder.path()).unwrap();
    let at = folder.path().display();
    let body = String::from_utf8_lossy(&BODY);
    let file = folder.path().join("Caddyfile");
    let text = format!(
        "{{\n admin off\n auto_https off\n servers {{\n  protocols h3\n }}\n}}\nhttps://{}:{port} {{\n bind 127.0.0.1\n \
         tls {at}/cert.pem {at}/key.pem\n respond /100 \"{body}\"\n}}\n",
        certificate::NAME
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    load(command, folder.path(), port);
}

#[test]
fn envoy_understands_it() {
    let Some(program) = installed("envoy", "ENVOY") else { return };
    let _alone = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
    let origin = Proxy { kind: Kind::Envoy, program, version: String::new() };
    let setup = Setup { port, origin: 1, front: Front::Http3, upstream: Upstream::Plain, idle_timeout: None };
    let command = origin.command(folder.path(), setup).unwrap();
    // Nobody is behind it: it answers by itself.
    let file = folder.path().join("proxy.json");
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let manager =
        &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"]["virtual_hosts"][0]["routes"][0] = serde_json::json!({
        "match": { "prefix": "/" },
        "direct_response": { "status": 200, "body": { "inline_string": String::from_utf8_lossy(&BODY) } }
    });
    fs::write(&file, config.to_string()).unwrap();
    load(command, folder.path(), port);
}

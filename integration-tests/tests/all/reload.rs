//! Hot swap: every way to reload, what a reload leaves alone, and what a bad file does.

use std::path::Path;

use integration_tests::config::cluster;
use integration_tests::proxy::Options;
use integration_tests::{Config, End, Gate, Origin, Proxy, Wire, wait};
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// A configuration whose route tells its version.
fn version(origin: &Origin, version: &str) -> Config {
    Config::new(origin.address())
        .route(json!({"response_headers_to_add": [{"header": {"key": "x-version", "value": version}}]}))
}

/// By a rename, so that the watcher, which looks at the same time, never meets half a file.
fn write(proxy: &Proxy, config: &Config) {
    let fresh = proxy.folder().join("fresh");
    std::fs::write(&fresh, config.0.to_string()).unwrap();
    std::fs::rename(&fresh, proxy.config_file()).unwrap();
}

/// Asks on an open connection until it answers with that version.
#[track_caller]
fn await_version(client: &mut Wire, version: &str) {
    wait::until(&format!("version {version}"), || client.ask(GET).header("x-version") == Some(version));
}

#[track_caller]
fn has_version(client: &mut Wire, version: &str) {
    assert_eq!(client.ask(GET).header("x-version"), Some(version));
}

#[test]
fn sighup_reloads() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&version(&origin, "1"));
    let mut client = proxy.connect();
    has_version(&mut client, "1");
    write(&proxy, &version(&origin, "2"));
    proxy.process.signal("HUP");
    await_version(&mut client, "2");
}

#[test]
fn a_write_in_place_is_seen() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&version(&origin, "1"));
    let mut client = proxy.connect();
    for number in ["1", "2", "3"] {
        std::fs::write(proxy.config_file(), version(&origin, number).0.to_string()).unwrap();
        await_version(&mut client, number);
    }
}

#[test]
fn a_rename_over_the_file_is_seen() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&version(&origin, "1"));
    let mut client = proxy.connect();
    for number in ["2", "3"] {
        write(&proxy, &version(&origin, number));
        await_version(&mut client, number);
    }
}

/// As Kubernetes swaps a ConfigMap: `proxy.json -> ..data/proxy.json`, `..data -> ..one`, then a rename of a
/// new `..data` over the old.
#[test]
fn a_symlink_swap_is_seen() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let link = |to: &Path, at: &str| std::os::unix::fs::symlink(to, folder.path().join(at)).unwrap();
    let put = |number: &str| {
        let version_folder = folder.path().join(format!("..{number}"));
        std::fs::create_dir(&version_folder).unwrap();
        std::fs::write(version_folder.join("proxy.json"), version(&origin, number).0.to_string()).unwrap();
        version_folder
    };
    link(&put("1"), "..data");
    link(Path::new("..data/proxy.json"), "proxy.json");
    let file = folder.path().join("proxy.json");
    let proxy = Options::default().start_file(&file, tempfile::tempdir().unwrap());
    let mut client = proxy.connect();
    has_version(&mut client, "1");
    for number in ["2", "3"] {
        link(&put(number), "..fresh");
        std::fs::rename(folder.path().join("..fresh"), folder.path().join("..data")).unwrap();
        await_version(&mut client, number);
    }
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&version(&origin, "1"));
    let mut client = proxy.connect();
    std::fs::remove_file(proxy.config_file()).unwrap();
    assert_eq!(proxy.admin.post("/reload").status, 400);
    has_version(&mut client, "1");
    write(&proxy, &version(&origin, "2"));
    await_version(&mut client, "2");
}

#[test]
fn a_port_that_is_taken_refuses_the_whole_configuration() {
    let origin = Origin::ok();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(&version(&origin, "1"));
    let mut config = version(&origin, "2");
    let mut second = config.0["static_resources"]["listeners"][0].clone();
    second["name"] = json!("second");
    second["address"]["socket_address"]["port_value"] = json!(taken.local_addr().unwrap().port());
    config.0["static_resources"]["listeners"].as_array_mut().unwrap().push(second);
    write(&proxy, &config);
    let answer = proxy.admin.post("/reload");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("Address already in use"), "{}", answer.text());
    has_version(&mut proxy.connect(), "1");
}

#[test]
fn a_request_in_flight_ends_under_what_it_began_with() {
    let gate = Gate::default();
    let old = Origin::gated(&gate);
    let new = Origin::named("new");
    let proxy = Proxy::start(&version(&old, "1"));
    let mut flying = proxy.connect();
    flying.send(GET);
    old.await_requests(1);
    write(&proxy, &version(&new, "2"));
    assert_eq!(proxy.admin.post("/reload").status, 200);
    assert_eq!(proxy.get("/").text(), "new");
    gate.open(1);
    let response = flying.response();
    assert_eq!((response.text().as_str(), response.header("x-version")), ("ok", Some("1")));
    assert_eq!(flying.ask(GET).text(), "new");
    wait::until("the old cluster's end", || old.open_connections() == 0);
}

#[test]
fn listeners_come_and_go() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&version(&origin, "1"));
    let mut both = version(&origin, "1");
    let mut second = both.0["static_resources"]["listeners"][0].clone();
    second["name"] = json!("second");
    both.0["static_resources"]["listeners"].as_array_mut().unwrap().push(second);
    write(&proxy, &both);
    assert_eq!(proxy.admin.post("/reload").status, 200);
    let address = proxy.admin.listener("second");
    assert_eq!(Wire::connect(address).ask(GET).status, 200);
    assert_eq!(proxy.admin.listener("ingress"), proxy.address, "an unchanged listener keeps its port");

    let mut idle = Wire::connect(address);
    assert_eq!(idle.ask(GET).status, 200);
    write(&proxy, &version(&origin, "1"));
    assert_eq!(proxy.admin.post("/reload").status, 200);
    wait::until("the removed listener's end", || Wire::try_connect(address).is_err());
    assert_eq!(proxy.get("/").status, 200);
    // What is left of it announces its close.
    idle.send(GET);
    assert_ne!(idle.end(), End::Open);
}

#[test]
fn counters_and_unchanged_clusters_survive() {
    let (one, two) = (Origin::ok(), Origin::ok());
    let clusters =
        |second: &Origin| [cluster("origin", &[one.address()]), cluster("two", &[second.address()])];
    let proxy = Proxy::start(&Config::with_clusters(&clusters(&two)));
    proxy.get("/");
    let three = Origin::ok();
    write(&proxy, &Config::with_clusters(&clusters(&three)));
    assert_eq!(proxy.admin.post("/reload").status, 200);
    proxy.get("/");
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_rq_total"), 2);
    assert_eq!(one.connections(), 1);
    assert_eq!(stats.get("cluster_manager.cluster_modified"), 1);
}

#[test]
fn post_reload_answers_when_the_next_request_sees_it() {
    let origin = Origin::ok();
    let options = Options { concurrency: 2, ..Options::default() };
    let proxy = options.start(&version(&origin, "1"));
    let mut clients: Vec<Wire> = (0..8).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(|client| has_version(client, "1"));
    for number in 2..10 {
        let number = number.to_string();
        write(&proxy, &version(&origin, &number));
        let answer = proxy.admin.post("/reload");
        assert_eq!((answer.status, answer.text().as_str()), (200, "OK\n"));
        clients.iter_mut().for_each(|client| has_version(client, &number));
    }
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("http.ingress.downstream_cx_total"), 8, "a client's connection was closed");
    assert_eq!(stats.get("config.reload_failed"), 0);
    assert!(origin.connections() <= 2, "a reload must keep the pools: {}", origin.connections());
}

#[test]
fn a_bad_file_changes_nothing_and_is_reported_everywhere() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&version(&origin, "1"));
    let mut client = proxy.connect();
    has_version(&mut client, "1");
    let bad = version(&origin, "2").route(json!({"route": {"cluster": "orgin", "timeot": "1s"}}));
    write(&proxy, &bad);
    let answer = proxy.admin.post("/reload");
    assert_eq!(answer.status, 400);
    for part in ["timeot", "did you mean `timeout`", "orgin", "proxy.json:1:"] {
        assert!(answer.text().contains(part), "no {part} in {}", answer.text());
    }
    has_version(&mut client, "1");
    assert!(proxy.stat("config.reload_failed") >= 1);
    assert_eq!(proxy.stat("config.reload_success"), 0);
    let dump = proxy.admin.get("/config_dump").json();
    let details = dump["tidegate"]["error_state"]["details"].to_string();
    assert!(details.contains("timeot") && details.contains("orgin"), "{dump}");
    wait::until("the log", || proxy.log().contains("timeot"));

    write(&proxy, &version(&origin, "3"));
    assert_eq!(proxy.admin.post("/reload").status, 200);
    has_version(&mut client, "3");
    let dump = proxy.admin.get("/config_dump").json();
    assert!(dump["tidegate"]["error_state"].is_null(), "{dump}");
}

//! Clusters, listeners, routes and hosts from watched files: every way to change them, what an update leaves alone,
//! and what a bad file does. Counters as Envoy 1.40's on the same files.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use integration_tests::config::cluster;
use integration_tests::proxy::Options;
use integration_tests::{Config, Gate, Origin, Proxy, Wire, binary, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const TYPE: &str = "type.googleapis.com/envoy.";

/// A folder with the files of a control plane.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn source(&self, name: &str) -> Value {
        json!({"path_config_source": {"path": self.path(name)}, "resource_api_version": "V3"})
    }

    /// By a rename, as the documentation asks for.
    fn write(&self, name: &str, version: &str, resources: &[Value]) {
        self.write_text(name, &json!({"version_info": version, "resources": resources}).to_string());
    }

    fn write_text(&self, name: &str, text: &str) {
        std::fs::write(self.path("fresh"), text).unwrap();
        std::fs::rename(self.path("fresh"), self.path(name)).unwrap();
    }

    fn cds(&self, version: &str, clusters: &[Value]) {
        self.write("cds.json", version, &typed(clusters, "config.cluster.v3.Cluster"));
    }

    fn lds(&self, version: &str, listeners: &[Value]) {
        self.write("lds.json", version, &typed(listeners, "config.listener.v3.Listener"));
    }

    fn rds(&self, version: &str, tables: &[Value]) {
        self.write("rds.json", version, &typed(tables, "config.route.v3.RouteConfiguration"));
    }

    fn eds(&self, version: &str, cluster: &str, hosts: &[SocketAddr]) {
        let assignment = json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints(hosts)}]});
        self.write("eds.json", version, &typed(&[assignment], "config.endpoint.v3.ClusterLoadAssignment"));
    }

    /// A cluster whose hosts are in `eds.json` under `service`.
    fn eds_cluster(&self, name: &str, service: &str) -> Value {
        json!({"name": name, "type": "EDS", "connect_timeout": "5s",
            "eds_cluster_config": {"service_name": service, "eds_config": self.source("eds.json")}})
    }

    /// A listener whose table is in `rds.json`.
    fn rds_listener(&self, name: &str) -> Value {
        let rds = json!({"route_config_name": "routes", "config_source": self.source("rds.json")});
        listener(name, 0, json!({"rds": rds, "route_config": null}))
    }

    /// All from files.
    fn bootstrap(&self) -> Config {
        let dynamic = json!({"cds_config": self.source("cds.json"), "lds_config": self.source("lds.json")});
        Config(json!({
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": dynamic,
        }))
    }

    /// Listener `ingress`, table `routes`, cluster `origin`, host `origin`: each from its file.
    fn start(&self, origin: SocketAddr) -> Proxy {
        self.eds("e1", "service", &[origin]);
        self.cds("c1", &[self.eds_cluster("origin", "service")]);
        self.rds("r1", &[table("1", "origin")]);
        self.lds("l1", &[self.rds_listener("ingress")]);
        Proxy::start(&self.bootstrap())
    }
}

fn typed(resources: &[Value], message: &str) -> Vec<Value> {
    let with_type = |resource: &Value| {
        let mut resource = resource.clone();
        resource["@type"] = format!("{TYPE}{message}").into();
        resource
    };
    resources.iter().map(with_type).collect()
}

fn endpoints(hosts: &[SocketAddr]) -> Vec<Value> {
    let endpoint = |host: &SocketAddr| json!({"endpoint": {"address": {"socket_address": {"address": host.ip(), "port_value": host.port()}}}});
    hosts.iter().map(endpoint).collect()
}

/// A table that sends everything to `cluster` and tells its version.
fn table(version: &str, cluster: &str) -> Value {
    json!({"name": "routes",
        "response_headers_to_add": [{"header": {"key": "x-version", "value": version}}],
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]})
}

/// A listener as the bootstraps of the other tests have it, with what `hcm` changes.
fn listener(name: &str, port: u16, hcm: Value) -> Value {
    let config = Config::with_clusters(&[]).hcm(hcm).listener(json!({"name": name}));
    let mut listener = config.0["static_resources"]["listeners"][0].clone();
    listener["address"]["socket_address"]["port_value"] = port.into();
    listener
}

#[track_caller]
fn await_stat(proxy: &Proxy, name: &str, value: u64) {
    wait::until(&format!("{name}: {value}"), || proxy.stat(name) == value);
}

#[track_caller]
fn stats(proxy: &Proxy, expected: &[(&str, u64)]) {
    let found: Vec<_> = expected.iter().map(|(name, _)| (*name, proxy.stat(name))).collect();
    assert_eq!(found, expected);
}

fn version_of(client: &mut Wire) -> String {
    client.ask(GET).header("x-version").unwrap_or_default().to_owned()
}

/// What `/config_dump?resource=FIELD` has.
fn dump(proxy: &Proxy, field: &str) -> Vec<Value> {
    let text = proxy.admin.get(&format!("/config_dump?resource={field}")).text();
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    answer["configs"].as_array().cloned().unwrap_or_default()
}

#[test]
fn everything_comes_from_files() {
    let (origin, files) = (Origin::named("one"), Files::new());
    let proxy = files.start(origin.address());
    let response = proxy.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, "one"));
    stats(
        &proxy,
        &[
            ("cluster_manager.cds.update_attempt", 1),
            ("cluster_manager.cds.update_success", 1),
            ("cluster_manager.cds.config_reload", 1),
            // Hashes as Envoy's.
            ("cluster_manager.cds.version", 814_672_407_442_807_801),
            ("cluster_manager.active_clusters", 1),
            ("cluster.origin.update_attempt", 1),
            ("cluster.origin.update_success", 1),
            ("cluster.origin.version", 375_412_022_058_588_663),
            ("listener_manager.lds.update_success", 1),
            ("listener_manager.lds.version", 4_970_902_557_933_517_970),
            ("listener_manager.listener_added", 1),
            ("listener_manager.total_listeners_active", 1),
            ("http.ingress.rds.routes.update_success", 1),
            ("http.ingress.rds.routes.config_reload", 1),
        ],
    );
    let stats = proxy.admin.get("/stats").text();
    assert!(stats.contains("http.ingress.rds.routes.version_text: \"r1\"\n"), "{stats}");
    let clusters = proxy.admin.get("/clusters").text();
    assert!(
        clusters.contains("origin::added_via_api::true\norigin::eds_service_name::service\n"),
        "{clusters}"
    );
    let cluster = &dump(&proxy, "dynamic_active_clusters")[0];
    assert_eq!((&cluster["version_info"], &cluster["cluster"]["name"]), (&json!("c1"), &json!("origin")));
    let listener = &dump(&proxy, "dynamic_listeners")[0];
    assert_eq!(listener["active_state"]["version_info"], "l1");
    assert_eq!(dump(&proxy, "dynamic_route_configs")[0]["route_config"]["name"], "routes");
    let hosts = proxy.admin.get("/config_dump?include_eds").text();
    assert!(hosts.contains("\"cluster_name\": \"service\""), "{hosts}");
}

#[test]
fn routes_change_under_open_connections_and_bad_tables_do_nothing() {
    let (one, two, files) = (Origin::named("one"), Origin::named("two"), Files::new());
    let proxy = files.start(one.address());
    let mut client = proxy.connect();
    assert_eq!(version_of(&mut client), "1");
    // A cluster that does not exist is no reason to refuse the table.
    files.rds("r2", &[table("2", "later")]);
    await_stat(&proxy, "http.ingress.rds.routes.update_success", 2);
    assert_eq!(client.ask(GET).status, 503);
    files.cds("c2", &[files.eds_cluster("origin", "service"), cluster("later", &[two.address()])]);
    await_stat(&proxy, "cluster_manager.cds.update_success", 2);
    assert_eq!(client.ask(GET).text(), "two");

    files.write_text("rds.json", "{bad");
    await_stat(&proxy, "http.ingress.rds.routes.update_failure", 1);
    let mut other = table("3", "origin");
    other["name"] = "other".into();
    files.rds("r3", &[other]);
    await_stat(&proxy, "http.ingress.rds.routes.update_rejected", 1);
    files.rds("r3", &[table("3", "origin"), table("3", "origin")]);
    await_stat(&proxy, "http.ingress.rds.routes.update_rejected", 2);
    let mut checked = table("3", "nobody");
    checked["validate_clusters"] = true.into();
    files.rds("r3", &[checked]);
    await_stat(&proxy, "http.ingress.rds.routes.update_rejected", 3);
    files.rds("r4", &[]);
    await_stat(&proxy, "http.ingress.rds.routes.update_empty", 1);
    assert_eq!(version_of(&mut client), "2");
    // The same once more, and nothing was closed by any of it.
    files.rds("r5", &[table("2", "later")]);
    await_stat(&proxy, "http.ingress.rds.routes.update_success", 4);
    stats(
        &proxy,
        &[
            ("http.ingress.rds.routes.update_attempt", 8),
            ("http.ingress.rds.routes.config_reload", 2),
            ("http.ingress.downstream_cx_total", 1),
        ],
    );
    assert_eq!(version_of(&mut client), "2");
}

#[test]
fn hosts_change_by_address() {
    let (one, two, files) = (Origin::named("one"), Origin::named("two"), Files::new());
    let proxy = files.start(one.address());
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).text(), "one");
    // The same hosts: nothing happens. Another one joins: the connection to the first is kept.
    files.eds("e2", "service", &[one.address()]);
    await_stat(&proxy, "cluster.origin.update_no_rebuild", 1);
    files.eds("e3", "service", &[one.address(), two.address()]);
    await_stat(&proxy, "cluster.origin.membership_total", 2);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_destroy"), 0);
    let mut texts = [client.ask(GET).text(), client.ask(GET).text()];
    texts.sort();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!(one.connections(), 1);
    // The first leaves: its idle connection is closed.
    files.eds("e4", "service", &[two.address()]);
    await_stat(&proxy, "cluster.origin.upstream_cx_active", 1);
    assert_eq!(client.ask(GET).text(), "two");
    // Bad ones.
    files.eds("e5", "other", &[one.address()]);
    await_stat(&proxy, "cluster.origin.update_rejected", 1);
    files.write_text("eds.json", "[]");
    await_stat(&proxy, "cluster.origin.update_failure", 1);
    files.write("eds.json", "e6", &[]);
    await_stat(&proxy, "cluster.origin.update_empty", 1);
    assert_eq!(client.ask(GET).text(), "two");
    // None at all is what was asked for.
    files.eds("e7", "service", &[]);
    await_stat(&proxy, "cluster.origin.membership_total", 0);
    assert_eq!(client.ask(GET).status, 503);
    stats(
        &proxy,
        &[
            ("cluster_manager.cluster_updated", 3),
            ("cluster_manager.cluster_modified", 0),
            ("cluster.origin.update_attempt", 8),
            ("cluster.origin.update_success", 6),
            ("cluster_manager.cds.update_attempt", 1),
        ],
    );
}

#[test]
fn clusters_are_added_changed_and_removed() {
    let (one, two, files) = (Origin::named("one"), Origin::named("two"), Files::new());
    let origin = |timeout: &str, host: &Origin| {
        let mut origin = cluster("origin", &[host.address()]);
        origin["connect_timeout"] = timeout.into();
        origin
    };
    files.cds("c1", &[origin("1s", &one), cluster("idle", &[two.address()])]);
    files.rds("r1", &[table("1", "origin")]);
    files.lds("l1", &[files.rds_listener("ingress")]);
    let proxy = Proxy::start(&files.bootstrap());
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).text(), "one");
    files.cds(
        "c2",
        &[origin("2s", &two), cluster("idle", &[two.address()]), cluster("more", &[one.address()])],
    );
    await_stat(&proxy, "cluster_manager.cds.update_success", 2);
    assert_eq!(client.ask(GET).text(), "two");
    stats(
        &proxy,
        &[
            ("cluster_manager.cluster_added", 3),
            ("cluster_manager.cluster_modified", 1),
            ("cluster_manager.active_clusters", 3),
            ("cluster_manager.warming_clusters", 0),
        ],
    );
    let versions: Vec<_> = dump(&proxy, "dynamic_active_clusters")
        .iter()
        .map(|entry| format!("{} {}", entry["cluster"]["name"], entry["version_info"]))
        .collect();
    assert_eq!(versions, [r#""origin" "c2""#, r#""idle" "c1""#, r#""more" "c2""#]);
    // Each bad one is left out, its former self stays; the others are taken, and what is not named goes.
    let missing = json!({"name": "idle", "type": "EDS", "eds_cluster_config": {"eds_config": files.source("none.json")}});
    files.cds("c3", &[origin("3s", &one), origin("4s", &two), missing]);
    await_stat(&proxy, "cluster_manager.cds.update_rejected", 1);
    assert_eq!(client.ask(GET).text(), "one");
    stats(
        &proxy,
        &[
            ("cluster_manager.cluster_modified", 2),
            ("cluster_manager.cluster_removed", 1),
            ("cluster_manager.active_clusters", 2),
        ],
    );
    assert!(proxy.admin.get("/stats").text().contains("cluster_manager.cds.version_text: \"c2\"\n"));
    // One that is not valid refuses the whole file.
    files.cds("c4", &[origin("-1s", &two)]);
    await_stat(&proxy, "cluster_manager.cds.update_rejected", 2);
    assert_eq!(proxy.stat("cluster_manager.active_clusters"), 2);
    files.cds("c5", &[]);
    await_stat(&proxy, "cluster_manager.active_clusters", 0);
    // Each worker follows by itself.
    wait::until("no cluster is left", || client.ask(GET).status == 503);
    assert_eq!(proxy.stat("http.ingress.no_cluster"), 1);
}

#[test]
fn a_request_in_flight_keeps_its_route_and_its_cluster() {
    let (gate, files) = (Gate::default(), Files::new());
    let (one, two) = (Origin::gated(&gate), Origin::named("two"));
    let proxy = files.start(one.address());
    let mut client = proxy.connect();
    client.send(GET);
    one.await_requests(1);
    files.rds("r2", &[table("2", "other")]);
    files.cds("c2", &[cluster("other", &[two.address()])]);
    await_stat(&proxy, "cluster_manager.cluster_removed", 1);
    await_stat(&proxy, "http.ingress.rds.routes.update_success", 2);
    gate.open(1);
    let response = client.response();
    assert_eq!((response.status, response.header("x-version")), (200, Some("1")));
    let response = client.ask(GET);
    assert_eq!((response.text().as_str(), response.header("x-version")), ("two", Some("2")));
}

#[test]
fn listeners_are_added_changed_and_removed() {
    let (origin, files) = (Origin::named("one"), Files::new());
    let proxy = files.start(origin.address());
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    let second = |cluster: &str| {
        let mut second = listener("second", 0, json!({"stat_prefix": "second"}));
        let place =
            "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route/cluster";
        *second.pointer_mut(place).unwrap() = cluster.into();
        second
    };
    files.lds("l2", &[files.rds_listener("ingress"), second("origin")]);
    await_stat(&proxy, "listener_manager.lds.update_success", 2);
    let address = proxy.admin.listener("second");
    assert_eq!(Wire::connect(address).ask(GET).text(), "one");
    // A table inside a listener is checked: that listener is refused, what it was stays, the third comes.
    files.lds("l3", &[files.rds_listener("ingress"), second("nobody"), listener("third", 0, json!({}))]);
    await_stat(&proxy, "listener_manager.lds.update_rejected", 1);
    assert_eq!(Wire::connect(address).ask(GET).text(), "one");
    assert_eq!(Wire::connect(proxy.admin.listener("third")).ask(GET).text(), "one");
    let listeners = dump(&proxy, "dynamic_listeners");
    let refused = listeners.iter().find(|listener| listener["name"] == "second").unwrap();
    assert_eq!(refused["active_state"]["version_info"], "l2");
    assert_eq!(refused["error_state"]["details"], "route: unknown cluster 'nobody'");
    // Another route is adopted by the connections that are open.
    let mut kept = Wire::connect(address);
    assert_eq!(kept.ask(GET).status, 200);
    let mut changed = second("origin");
    *changed
        .pointer_mut("/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes")
        .unwrap() = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 418}}]);
    files.lds("l4", &[files.rds_listener("ingress"), changed]);
    await_stat(&proxy, "listener_manager.lds.update_success", 3);
    assert_eq!(kept.ask(GET).status, 418);
    stats(
        &proxy,
        &[
            ("listener_manager.listener_added", 3),
            ("listener_manager.listener_in_place_updated", 1),
            ("listener_manager.listener_removed", 1),
            ("listener_manager.total_listeners_active", 2),
        ],
    );
    files.lds("l5", &[files.rds_listener("ingress")]);
    await_stat(&proxy, "listener_manager.total_listeners_active", 1);
    wait::until("the listener's end", || Wire::try_connect(address).is_err());
    assert_eq!(client.ask(GET).status, 200);
}

/// Somebody else has the port: the listener is refused, and comes when the port is free.
#[test]
fn a_port_that_is_taken_refuses_its_listener_only() {
    let (origin, files) = (Origin::named("one"), Files::new());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    files.eds("e1", "service", &[origin.address()]);
    files.cds("c1", &[files.eds_cluster("origin", "service")]);
    files.rds("r1", &[table("1", "origin")]);
    files.lds("l1", &[listener("second", port, json!({})), files.rds_listener("ingress")]);
    let proxy = Proxy::start(&files.bootstrap());
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(proxy.stat("listener_manager.lds.update_rejected"), 1);
    drop(taken);
    files.lds("l2", &[listener("second", port, json!({})), files.rds_listener("ingress")]);
    await_stat(&proxy, "listener_manager.lds.update_success", 1);
    assert_eq!(Wire::connect(([127, 0, 0, 1], port).into()).ask(GET).status, 200);
}

#[test]
fn files_are_written_in_place_and_links_are_swapped() {
    let (origin, files) = (Origin::named("one"), Files::new());
    for version in ["v1", "v2", "v3"] {
        std::fs::create_dir(files.path(version)).unwrap();
        let text = json!({"version_info": version,
            "resources": typed(&[table(version, "origin")], "config.route.v3.RouteConfiguration")});
        std::fs::write(files.path(version).join("rds.json"), text.to_string()).unwrap();
    }
    let swap = |version: &str| {
        std::os::unix::fs::symlink(version, files.path("next")).unwrap();
        std::fs::rename(files.path("next"), files.path("current")).unwrap();
    };
    swap("v1");
    let mut watched = files.rds_listener("ingress");
    let source = json!({"path_config_source": {
        "path": files.path("current/rds.json"), "watched_directory": {"path": files.path("")}}});
    *watched.pointer_mut("/filter_chains/0/filters/0/typed_config/rds/config_source").unwrap() = source;
    files.cds("c1", &[cluster("origin", &[origin.address()])]);
    files.lds("l1", &[watched]);
    let proxy = Proxy::start(&files.bootstrap());
    let mut client = proxy.connect();
    assert_eq!(version_of(&mut client), "v1");
    swap("v2");
    wait::until("v2", || version_of(&mut client) == "v2");
    swap("v3");
    wait::until("v3", || version_of(&mut client) == "v3");
    let text = std::fs::read_to_string(files.path("v3/rds.json")).unwrap();
    std::fs::write(files.path("v3/rds.json"), text.replace("\"value\":\"v3\"", "\"value\":\"v4\"")).unwrap();
    wait::until("v4", || version_of(&mut client) == "v4");
}

#[test]
fn a_missing_file_ends_the_start_and_one_that_is_named_later_refuses_the_resource() {
    let files = Files::new();
    let file = files.path("proxy.json");
    std::fs::write(&file, files.bootstrap().0.to_string()).unwrap();
    let mut command = std::process::Command::new(binary::tidegate());
    let said = integration_tests::process::run(command.arg("-c").arg(&file));
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("dynamic_resources.cds_config: paths must refer to an existing path"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_reload_of_the_bootstrap_keeps_what_files_brought() {
    let (origin, files) = (Origin::named("one"), Files::new());
    let proxy = files.start(origin.address());
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    let more = json!({"static_resources": {"clusters": [cluster("static", &[origin.address()])]}});
    let text = files.bootstrap().bootstrap(more).0.to_string();
    std::fs::write(proxy.folder().join("fresh"), text).unwrap();
    std::fs::rename(proxy.folder().join("fresh"), proxy.config_file()).unwrap();
    await_stat(&proxy, "config.reload_success", 1);
    assert_eq!(client.ask(GET).status, 200);
    stats(
        &proxy,
        &[
            ("cluster_manager.active_clusters", 2),
            ("cluster_manager.cds.update_attempt", 1),
            ("http.ingress.downstream_cx_total", 1),
            ("cluster.origin.upstream_cx_total", 1),
        ],
    );
    // A cluster of the bootstrap is not to be changed by a file.
    files.cds("c2", &[files.eds_cluster("origin", "service"), cluster("static", &[])]);
    await_stat(&proxy, "cluster_manager.cds.update_success", 2);
    assert_eq!(proxy.stat("cluster_manager.cluster_modified"), 0);
    let clusters = proxy.admin.get("/clusters").text();
    assert!(clusters.contains("static::added_via_api::false\n"), "{clusters}");
}

#[test]
fn the_example_works() {
    let origin = Origin::named("one");
    let folder = tempfile::tempdir().unwrap();
    let examples = binary::root().join("config-examples/dynamic");
    let ours = folder.path().display().to_string();
    let adapted = |path: PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        text.replace("config-examples/dynamic/resources", &ours)
            .replace("\"port_value\": 18080", &format!("\"port_value\": {}", origin.address().port()))
            .replace("\"port_value\": 10000", "\"port_value\": 0")
            .replace("\"port_value\": 9901", "\"port_value\": 0")
    };
    for name in ["cds", "lds", "rds", "eds"] {
        let text = adapted(examples.join(format!("resources/{name}.json")));
        std::fs::write(folder.path().join(format!("{name}.json")), text).unwrap();
    }
    let file = folder.path().join("bootstrap.json");
    std::fs::write(&file, adapted(examples.join("bootstrap.json"))).unwrap();
    let proxy = Options::default().start_file(&file, folder);
    assert_eq!(proxy.get("/").text(), "one");
}

/// An unresponsive check keeps a cluster cold: nothing waits for it but itself, and a signal ends the process at once.
#[test]
fn a_cluster_that_warms_holds_up_nothing() {
    let (one, two, files) = (Origin::named("one"), Origin::named("two"), Files::new());
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut cold = cluster("origin", &[silent.local_addr().unwrap()]);
    cold["health_checks"] = json!([{"timeout": "60s", "interval": "60s", "unhealthy_threshold": 1,
        "healthy_threshold": 1, "http_health_check": {"path": "/"}}]);
    files.cds("c1", &[cluster("origin", &[one.address()])]);
    files.rds("r1", &[table("1", "origin")]);
    files.lds("l1", &[files.rds_listener("ingress")]);
    let mut proxy = Proxy::start(&files.bootstrap());
    let mut client = proxy.connect();
    files.cds("c2", &[cold.clone(), cluster("other", &[two.address()])]);
    await_stat(&proxy, "cluster_manager.warming_clusters", 1);
    assert_eq!(client.ask(GET).text(), "one");
    assert_eq!(dump(&proxy, "dynamic_warming_clusters")[0]["version_info"], "c2");
    files.rds("r2", &[table("2", "other")]);
    await_stat(&proxy, "http.ingress.rds.routes.update_success", 2);
    assert_eq!(client.ask(GET).text(), "two");
    // A reload waits for it, as for a part of the whole; the end does not wait for the reload.
    proxy.process.signal("HUP");
    await_stat(&proxy, "config.reload_attempt", 1);
    drop(client);
    proxy.process.signal("TERM");
    let begun = std::time::Instant::now();
    assert_eq!(proxy.process.exit().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn hosts_that_are_not_named_again_in_time_leave() {
    let (origin, files) = (Origin::ok(), Files::new());
    let stale = |version: &str, policy: Value| {
        let places = json!([{"lb_endpoints": endpoints(&[origin.address()])}]);
        let assignment = json!({"cluster_name": "service", "endpoints": places, "policy": policy});
        files.write("eds.json", version, &typed(&[assignment], "config.endpoint.v3.ClusterLoadAssignment"));
    };
    let proxy = files.start(origin.address());
    stale("2", json!({"endpoint_stale_after": "0.2s"}));
    proxy.admin.await_stat("cluster.origin.assignment_stale", 1);
    proxy.admin.await_stat("cluster.origin.membership_total", 0);
    assert_eq!(proxy.get("/").status, 503);
    // The same hosts again, for good.
    stale("3", json!({}));
    proxy.admin.await_stat("cluster.origin.membership_total", 1);
    assert_eq!(proxy.get("/").status, 200);
    let stats = proxy.admin.stats();
    let count = |name: &str| stats.get(&format!("cluster.origin.{name}"));
    assert_eq!((count("assignment_timeout_received"), count("assignment_stale")), (1, 1));
    assert_eq!((count("membership_change"), count("update_empty")), (3, 0));
}

#[test]
fn requests_are_dropped_as_hosts_come() {
    let (origin, files) = (Origin::ok(), Files::new());
    let drops = |version: &str, drops: Value| {
        let places = json!([{"lb_endpoints": endpoints(&[origin.address()])}]);
        let policy = json!({"drop_overloads": drops});
        let assignment = json!({"cluster_name": "service", "endpoints": places, "policy": policy});
        files.write("eds.json", version, &typed(&[assignment], "config.endpoint.v3.ClusterLoadAssignment"));
    };
    let proxy = files.start(origin.address());
    let all = json!({"category": "throttle", "drop_percentage": {"numerator": 100}});
    drops("2", json!([all]));
    proxy.admin.await_stat("cluster.origin.update_success", 2);
    assert_eq!(proxy.get("/").text(), "unconditional drop overload");
    drops("3", json!([all, all]));
    proxy.admin.await_stat("cluster.origin.update_rejected", 1);
    assert_eq!(proxy.get("/").status, 503);
    drops("4", json!([]));
    proxy.admin.await_stat("cluster.origin.update_success", 3);
    assert_eq!(proxy.get("/").status, 200);
}

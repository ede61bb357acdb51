//! `layered_runtime`: layers over layers, links that are swapped, values from the admin server, and what follows them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use integration_tests::process::run;
use integration_tests::proxy::Options;
use integration_tests::{Config, Gate, Origin, Proxy, binary, wait};
use serde_json::{Value, json};

/// Routes a share of requests, `k`, to a direct response.
fn split() -> Value {
    json!([
        {"match": {"prefix": "/", "runtime_fraction": {"runtime_key": "k", "default_value": {"numerator": 0}}},
         "direct_response": {"status": 201}},
        {"match": {"prefix": "/"}, "route": {"cluster": "origin"}},
    ])
}

fn layers(layers: Value) -> Value {
    json!({"layered_runtime": {"layers": layers}})
}

fn entries(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin.get("/runtime").text()).unwrap()
}

/// Makes `link` point at `target`, at once.
fn swap(link: &Path, target: &str) {
    let next = link.with_extension("next");
    symlink(target, &next).unwrap();
    fs::rename(&next, link).unwrap();
}

#[track_caller]
fn modify(proxy: &Proxy, query: &str) {
    let answer = proxy.admin.post(&format!("/runtime_modify?{query}"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK\n"));
}

#[test]
fn static_values_are_overridden_by_files_and_files_by_the_admin_server() {
    let folder = tempfile::tempdir().unwrap();
    for (version, value) in [("v1", "0"), ("v2", "# all\n100\n")] {
        fs::create_dir_all(folder.path().join(version).join("values")).unwrap();
        fs::write(folder.path().join(version).join("values/k"), value).unwrap();
    }
    let link = folder.path().join("now");
    symlink("v1", &link).unwrap();
    let origin = Origin::ok();
    let runtime = json!([
        {"name": "base", "static_layer": {"k": 100}},
        {"name": "disk", "disk_layer": {"symlink_root": link, "subdirectory": "values"}},
        {"name": "admin", "admin_layer": {}},
    ]);
    let config = Config::new(origin.address()).routes(split()).bootstrap(layers(runtime));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200, "the directory overrides the static layer");
    swap(&link, "v2");
    wait::until("the swap", || proxy.get("/").status == 201);
    modify(&proxy, "k=0&other=a%20b");
    assert_eq!(proxy.get("/").status, 200, "a value that is set holds once it is answered");
    let shown = json!({
        "entries": {
            "k": {"final_value": "0", "layer_values": ["100", "100", "0"]},
            "other": {"final_value": "a b", "layer_values": ["", "", "a b"]},
        },
        "layers": ["base", "disk", "admin"],
    });
    assert_eq!(entries(&proxy), shown);
    let stats = proxy.admin.stats();
    for (name, value) in [
        ("admin_overrides_active", 1),
        ("num_keys", 2),
        ("num_layers", 3),
        ("load_error", 0),
        ("override_dir_exists", 0),
    ] {
        assert_eq!(stats.get(&format!("runtime.{name}")), value, "{name}");
    }
    // What the admin layer holds outlives a reload.
    assert_eq!(proxy.admin.post("/reload").status, 200);
    assert_eq!(proxy.get("/").status, 200);
    modify(&proxy, "k=&other=");
    assert_eq!(proxy.get("/").status, 201);
    assert_eq!(proxy.stat("runtime.admin_overrides_active"), 0);
    assert!(proxy.log().contains("runtime key `other` has no effect"), "{}", proxy.log());
}

/// The texts of Envoy 1.40.
#[test]
fn the_admin_server_answers_as_envoys_does() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    assert_eq!(entries(&proxy), json!({"entries": {}, "layers": []}));
    let said = |proxy: &Proxy, path: &str| {
        let answer = proxy.admin.post(path);
        (answer.status, answer.text())
    };
    let usage = "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       or send the parameters as form values\nuse an empty value to remove a previously added override";
    assert_eq!(said(&proxy, "/runtime_modify"), (400, usage.to_owned()));
    assert_eq!(said(&proxy, "/runtime_modify?a=1"), (503, "No admin layer specified".to_owned()));
    let got = proxy.admin.get("/runtime_modify?a=1");
    assert_eq!((got.status, got.text().as_str()), (405, "Method GET not allowed, POST required."));
    // An empty list is an admin layer without a name.
    let proxy = Proxy::start(&Config::new(origin.address()).bootstrap(json!({"layered_runtime": {}})));
    assert_eq!(entries(&proxy), json!({"entries": {}, "layers": [""]}));
    assert_eq!(["runtime.load_success", "runtime.num_layers"].map(|name| proxy.stat(name)), [2, 1]);
    assert_eq!(said(&proxy, "/runtime_modify?a=1"), (200, "OK\n".to_owned()));
    let with_admin = layers(json!([{"name": "a", "admin_layer": {}}]));
    let proxy = Proxy::start(&Config::new(origin.address()).bootstrap(with_admin));
    assert_eq!(said(&proxy, "/runtime_modify?abc"), (200, "OK\n".to_owned()));
    assert_eq!(entries(&proxy), json!({"entries": {}, "layers": ["a"]}));
    let mut client = integration_tests::Wire::connect(proxy.admin.0);
    let form = "POST /runtime_modify HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 7\r\n\r\nx=1&y=2";
    assert_eq!(client.ask(form).status, 200);
    let expected = json!({"x": {"final_value": "1", "layer_values": ["1"]}, "y": {"final_value": "2", "layer_values": ["2"]}});
    assert_eq!(entries(&proxy)["entries"], expected);
}

#[test]
fn limits_follow_while_connections_and_filters_go_on() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let bucket = json!({
        "stat_prefix": "l",
        "token_bucket": {"max_tokens": 2, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
    });
    let limit = integration_tests::config::filter(
        "limit",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        bucket,
    );
    let config = Config::new(origin.address())
        .filters(json!([limit]))
        .bootstrap(layers(json!([{"name": "a", "admin_layer": {}}])));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    origin.await_requests(1);
    modify(&proxy, "circuit_breakers.origin.default.max_requests=1");
    let refused = proxy.get("/");
    assert_eq!((refused.status, refused.header("x-envoy-overloaded")), (503, Some("true")));
    modify(&proxy, "circuit_breakers.origin.default.max_requests=");
    gate.open(1);
    assert_eq!(client.response().status, 200, "it was under way all the time");
    // The bucket was not filled anew.
    assert_eq!(proxy.get("/").status, 429);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_destroy"), 0);
    // No listener had read the key.
    assert_eq!(proxy.stat("listener_manager.total_filter_chains_draining"), 0);
}

#[test]
fn a_key_of_a_route_leaves_filters_alone() {
    let origin = Origin::ok();
    let bucket = json!({
        "stat_prefix": "l",
        "token_bucket": {"max_tokens": 2, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
    });
    let limit = integration_tests::config::filter(
        "limit",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        bucket,
    );
    let config = Config::new(origin.address())
        .routes(split())
        .filters(json!([limit]))
        .bootstrap(layers(json!([{"name": "a", "admin_layer": {}}])));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    modify(&proxy, "k=100");
    assert_eq!(proxy.get("/").status, 201);
    modify(&proxy, "k=0");
    assert_eq!(proxy.get("/").status, 429, "the bucket is the same");
}

#[test]
fn a_share_of_a_filter_follows() {
    let origin = Origin::ok();
    let bucket = json!({
        "stat_prefix": "l",
        "token_bucket": {"max_tokens": 1, "fill_interval": "3600s"},
        "filter_enabled": {"runtime_key": "on", "default_value": {"numerator": 0}},
        "filter_enforced": {"default_value": {"numerator": 100}},
    });
    let limit = integration_tests::config::filter(
        "limit",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        bucket,
    );
    let config = Config::new(origin.address())
        .filters(json!([limit]))
        .bootstrap(layers(json!([{"name": "a", "admin_layer": {}}])));
    let proxy = Proxy::start(&config);
    let ask = || [proxy.get("/").status, proxy.get("/").status];
    assert_eq!(ask(), [200, 200]);
    modify(&proxy, "on=100");
    assert_eq!(ask(), [200, 429]);
    modify(&proxy, "on=");
    assert_eq!(ask(), [200, 200]);
}

#[test]
fn what_cannot_be_loaded_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("v1")).unwrap();
    fs::write(folder.path().join("v1/k"), "100").unwrap();
    fs::create_dir(folder.path().join("v2")).unwrap();
    symlink("nowhere", folder.path().join("v2/k")).unwrap();
    let link = folder.path().join("now");
    symlink("v1", &link).unwrap();
    let origin = Origin::ok();
    let runtime = json!([{"name": "disk", "disk_layer": {"symlink_root": link}}]);
    let config = Config::new(origin.address()).routes(split()).bootstrap(layers(runtime));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 201);
    swap(&link, "v2");
    proxy.admin.await_stat("runtime.load_error", 1);
    assert_eq!(proxy.get("/").status, 201);
    assert!(proxy.log().contains("runtime refused, the old one goes on"), "{}", proxy.log());
    swap(&link, "v1");
    // A layer whose directory is gone is not there.
    swap(&link, "v3");
    wait::until("the layer to go", || proxy.get("/").status == 200);
    assert_eq!(entries(&proxy), json!({"entries": {}, "layers": []}));
}

#[test]
fn mistakes_are_told() {
    let refused = |layers_of: Value| {
        let origin = Origin::ok();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.json");
        fs::write(&file, Config::new(origin.address()).bootstrap(layers(layers_of)).0.to_string()).unwrap();
        let said = run(std::process::Command::new(binary::tidegate()).arg("validate").arg(&file));
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        said.stderr
    };
    for (layers, said) in [
        (
            json!([{"name": "a", "admin_layer": {}}, {"name": "b", "admin_layer": {}}]),
            "more than one layer is an `admin_layer`",
        ),
        (json!([{"name": "a"}]), "nothing is chosen"),
        (json!([{"name": "a", "disk_layer": {}}]), "symlink_root"),
        (
            json!([{"name": "a", "disk_layer": {"symlink_root": "/nowhere/x"}}]),
            "symlink_root `/nowhere/x`: No such file",
        ),
        (json!([{"name": "a", "static_layer": {"k": [1]}}]), "runtime key `k` holds an array"),
        (json!([{"name": "a", "rtds_layer": {"name": "r"}}]), "not supported by this build"),
    ] {
        let stderr = refused(layers);
        assert!(stderr.contains(said), "{stderr}");
    }
}

#[test]
fn strict_refuses_keys_of_our_own_at_run_time_too() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).bootstrap(layers(json!([{"name": "a", "admin_layer": {}}])));
    let proxy = Options { arguments: vec!["--envoy-strict".into()], ..Options::default() }.start(&config);
    let answer = proxy.admin.post("/runtime_modify?tidegate.compat.connection_per_host=true");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(entries(&proxy)["entries"], json!({}));
}

//! The book: its configurations run, its links lead somewhere, its lists are the binary's.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use integration_tests::documents::{anchors, blocks, files, links};
use integration_tests::process::run;
use integration_tests::{Proxy, binary};
use serde_json::Value;

/// The `json` blocks that are whole configurations.
pub(crate) fn configurations(files: &[PathBuf]) -> Vec<String> {
    let all = files.iter().flat_map(|file| blocks(file));
    all.filter(|block| block.language == "json" && block.text.contains("\"static_resources\""))
        .map(|block| block.text)
        .collect()
}

#[test]
fn every_json_block_parses_and_whole_configurations_validate() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = Vec::new();
    for block in files(binary::root()).iter().flat_map(|file| blocks(file)) {
        if block.language != "json" {
            continue;
        }
        let place = format!("{}:{}", block.file.display(), block.line);
        // A fragment may be the inside of an object.
        let value: Value = serde_json::from_str(&block.text)
            .or_else(|_| serde_json::from_str(&format!("{{{}}}", block.text)))
            .unwrap_or_else(|error| panic!("{place}: {error}"));
        if value.get("static_resources").is_some() {
            let file = folder.path().join(format!("{}.json", whole.len()));
            std::fs::write(&file, &block.text).unwrap();
            whole.push(file);
        }
    }
    assert!(!whole.is_empty());
    let said = run(Command::new(binary::custom_proxy()).arg("validate").args(&whole));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[test]
fn the_filter_of_the_readme_is_the_built_one() {
    let readme = blocks(&binary::root().join("README.md"));
    let shown = readme.iter().find(|block| block.language.starts_with("rust")).unwrap();
    let source = binary::root().join("bin/custom-proxy/example-filter/src/greeting.rs");
    assert!(std::fs::read_to_string(source).unwrap().contains(&shown.text), "{}", shown.text);
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for file in files(binary::root()) {
        for link in links(&file) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let found = target.exists()
                && (anchor.is_empty() || anchors(&target).iter().any(|found| found == anchor));
            if !found {
                broken.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_page_is_in_the_summary() {
    let docs = binary::root().join("docs");
    let linked: BTreeSet<PathBuf> =
        links(&docs.join("SUMMARY.md")).iter().map(|link| docs.join(link).canonicalize().unwrap()).collect();
    for file in files(binary::root()) {
        if file.starts_with(&docs) && !file.ends_with("SUMMARY.md") {
            assert!(
                linked.contains(&file.canonicalize().unwrap()),
                "{} is not in the summary",
                file.display()
            );
        }
    }
}

/// The lines of `docs/configuration.md` that name a message's fields, against the schema.
#[test]
fn the_configuration_page_lists_the_fields_of_the_schema() {
    let schema: Value =
        serde_json::from_str(&run(Command::new(binary::tidegate()).arg("schema")).stdout).unwrap();
    let page = std::fs::read_to_string(binary::root().join("docs/configuration.md")).unwrap();
    let mut wrong = Vec::new();
    for (message, definition) in schema["$defs"].as_object().unwrap() {
        let Some(properties) = definition["properties"].as_object() else { continue };
        // JSON's other spelling of `consecutive_5xx` has no capital that would tell.
        let is_other_spelling = |field: &str| {
            field.chars().any(char::is_uppercase)
                || properties.keys().any(|other| other != field && other.replace('_', "") == field)
        };
        let fields: Vec<String> = properties
            .keys()
            .filter(|field| !field.starts_with('@') && !is_other_spelling(field))
            .map(|field| format!("`{field}`"))
            .collect();
        let short = message.strip_prefix("envoy.").unwrap_or(message);
        let line = format!("| `{short}` | {} |", fields.join(", "));
        if !fields.is_empty() && !page.lines().any(|found| found == line) {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "lines that docs/configuration.md must have:\n{}", wrong.join("\n"));
}

#[test]
fn the_statistics_page_names_only_what_exists() {
    let page = binary::root().join("docs/statistics.md");
    let origin = integration_tests::Origin::ok();
    // What is counted only where it is asked for.
    let endpoint = |at: std::net::SocketAddr| serde_json::json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let measured = serde_json::json!({"timeout_budgets": true, "request_response_sizes": true});
    let per_try = serde_json::json!({"retry_policy": {"retry_on": "5xx", "per_try_timeout": "5s"}});
    let (first, other) = (endpoint(origin.address()), endpoint(origin.address()));
    let first = serde_json::json!({"address": first, "additional_addresses": [{"address": other}]});
    let several_addresses = serde_json::json!({"load_assignment": {
        "cluster_name": "origin", "endpoints": [{"lb_endpoints": [{"endpoint": first}]}],
    }});
    let mut config = integration_tests::Config::new(origin.address())
        .cluster(serde_json::json!({"track_cluster_stats": measured}))
        .cluster(several_addresses)
        .route(serde_json::json!({"route": per_try}));
    let certificate = |end: &str| serde_json::json!({"filename": binary::root().join(format!("crates/testkit/certs/server.{end}"))});
    let tcp = serde_json::json!({
        "name": "tcp",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{
            "filters": [{"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "tcp",
                "cluster": "origin",
            }}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificates": [
                    {"certificate_chain": certificate("pem"), "private_key": certificate("key")},
                ]},
            }},
        }],
    });
    config.0["static_resources"]["listeners"].as_array_mut().unwrap().push(tcp);
    let proxy = Proxy::start(&config);
    proxy.get("/");
    let known: BTreeSet<String> = proxy
        .admin
        .get("/stats")
        .text()
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, _)| name.rsplit('.').next().unwrap().to_owned())
        .collect();
    let text = std::fs::read_to_string(page).unwrap();
    // First column of the tables.
    let rows =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name);
    let unknown: Vec<&str> = rows
        .filter(|name| !name.contains('<') && !known.contains(name.rsplit('.').next().unwrap()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?} in {known:?}");
}

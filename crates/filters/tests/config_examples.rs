//! Every filter and logger in `config-examples/filters` is built as a proxy would build it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_filter::{AccessLogContext, FactoryContext};
use tidegate_stats::{Scope, Store};
use tidegate_types::json::{self, JsonPath, Kind, Node, TypedConfig};

#[test]
fn examples_are_accepted() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config-examples/filters");
    let mut built = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let file = JsonPath::root().field(path.file_name().unwrap().to_str().unwrap());
        walk(&json::parse(&text).unwrap(), &file, &mut built);
    }
    assert!(built >= 6, "only {built} configurations were found");
}

/// Builds each `typed_config` below `node` that belongs to a built-in.
fn walk(node: &Node, path: &JsonPath, built: &mut usize) {
    if let Some(type_url) = node.member("@type").and_then(Node::as_str) {
        build(node, type_url, path, built);
    }
    match &node.kind {
        Kind::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| walk(item, &path.index(index), built));
        }
        _ => node.members().iter().for_each(|member| walk(&member.value, &path.field(&member.key), built)),
    }
}

fn build(node: &Node, type_url: &str, path: &JsonPath, built: &mut usize) {
    let mut value = node.clone();
    if let Kind::Object(members) = &mut value.kind {
        members.retain(|member| &*member.key != "@type");
    }
    let (value, span) = (Arc::new(value), node.span);
    let typed =
        TypedConfig { name: String::new(), type_url: type_url.into(), value, path: path.clone(), span };
    let registry = tidegate_filters::registry();
    let store = Store::new(1);
    let scope = Scope::http("test");
    let cx = FactoryContext { stats: &store, scope: &scope, runtime: &|_| None, local_cluster: "" };
    let problems = if registry.knows_http(type_url) {
        registry.build_http(&typed, &cx).err()
    } else if type_url.contains("access_loggers") {
        let cx = AccessLogContext { stats: &store, flush_interval: Duration::from_secs(1) };
        registry.build_access_log(&typed, &cx).err()
    } else if let Some(filter) = type_url.strip_suffix("PerRoute") {
        registry.build_route(filter, &typed, &cx).err()
    } else {
        return;
    };
    assert_eq!(problems.unwrap_or_default(), []);
    *built += 1;
}

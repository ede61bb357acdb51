//! The example file's filters are built by this binary's registry.

use std::sync::Arc;

use tidegate_filter::FactoryContext;
use tidegate_stats::{Scope, Store};
use tidegate_types::json::{self, JsonPath, Kind, Node, TypedConfig};

#[test]
fn the_example_file_is_accepted() {
    let file = json::parse(include_str!("../config-example.json")).unwrap();
    let mut found = Vec::new();
    typed_configs(&file, &JsonPath::root(), &mut found);
    let registry = super::registry();
    let store = Store::new(1);
    let scope = Scope::http("ingress");
    let cx = FactoryContext { stats: &store, scope: &scope, runtime: &|_| None, local_cluster: "" };
    for config in &found {
        let problems = match config.type_url.strip_suffix("PerRoute") {
            Some(filter) => registry.build_route(filter, config, &cx).err(),
            None => registry.build_http(config, &cx).err(),
        };
        assert_eq!(problems.unwrap_or_default(), []);
    }
    assert_eq!(found.len(), 3);
}

/// The typed configurations of this binary's own filters.
fn typed_configs(node: &Node, path: &JsonPath, found: &mut Vec<TypedConfig>) {
    if let Some(type_url) =
        node.member("@type").and_then(Node::as_str).filter(|url| url.contains("/example."))
    {
        let fields = node.members().iter().filter(|member| &*member.key != "@type").cloned().collect();
        let value = Arc::new(Node { kind: Kind::Object(fields), span: node.span });
        let (name, type_url) = (String::new(), type_url.to_owned());
        found.push(TypedConfig { name, type_url, value, path: path.clone(), span: node.span });
    }
    if let Kind::Array(items) = &node.kind {
        items.iter().enumerate().for_each(|(index, item)| typed_configs(item, &path.index(index), found));
    }
    for member in node.members() {
        typed_configs(&member.value, &path.field(&member.key), found);
    }
}

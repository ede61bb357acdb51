#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::symlink;

use tidegate_config::{Format, from_str};

use super::*;

fn bootstrap(layers: &str) -> Bootstrap {
    let text = format!("{{node: {{cluster: c}}, layered_runtime: {{layers: [{layers}]}}}}");
    from_str(&text, "test", Format::Yaml).unwrap()
}

#[test]
fn later_layers_win() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("v1/envoy")).unwrap();
    fs::create_dir_all(root.join("v1/over/c")).unwrap();
    fs::write(root.join("v1/envoy/a"), "2").unwrap();
    fs::write(root.join("v1/envoy/b"), "2").unwrap();
    fs::write(root.join("v1/over/c/b"), "3").unwrap();
    symlink("v1", root.join("now")).unwrap();
    let link = root.join("now");
    let link = link.display();
    let bootstrap = bootstrap(&format!(
        "{{name: s, static_layer: {{a: 1, d: {{e: 1}}}}}},
         {{name: disk, disk_layer: {{symlink_root: {link}, subdirectory: envoy}}}},
         {{name: over, disk_layer: {{symlink_root: {link}, subdirectory: over, append_service_cluster: true}}}},
         {{name: none, disk_layer: {{symlink_root: {link}, subdirectory: none}}}},
         {{name: admin, admin_layer: {{}}}}"
    ));
    let store = Store::new(1);
    let loader = RuntimeLoader::new(&store);
    let runtime = loader.load(&bootstrap).unwrap();
    let integers = |runtime: &Runtime| ["a", "b", "d.e"].map(|key| runtime.integer(key));
    assert_eq!(integers(&runtime), [Some(2), Some(3), Some(1)]);
    let names: Vec<_> = runtime.layers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["s", "disk", "over", "admin"]);
    let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
    loader.set_overrides(loader.overrides_with(&[pair("a", "9"), pair("d.e", "8"), pair("d.e", "")]));
    let runtime = loader.load(&bootstrap).unwrap();
    assert_eq!(integers(&runtime), [Some(9), Some(3), Some(1)]);
    assert_eq!((loader.stats.load_success().value(), loader.stats.override_dir_exists().value()), (2, 2));
}

#[test]
fn a_link_may_come_later_but_not_its_directory() {
    let later = tempfile::tempdir().unwrap();
    let link = later.path().join("link").display().to_string();
    let found = RuntimeLoader::new(&Store::new(1))
        .load(&bootstrap(&format!("{{name: d, disk_layer: {{symlink_root: {link}}}}}")))
        .unwrap();
    assert!(found.layers.is_empty());

    let bootstrap =
        bootstrap("{name: a, static_layer: {}}, {name: d, disk_layer: {symlink_root: /nowhere/x}}");
    let loader = RuntimeLoader::new(&Store::new(1));
    let problem = loader.load(&bootstrap).unwrap_err();
    assert_eq!(problem.path.as_str(), "layered_runtime.layers[1].disk_layer");
    assert_eq!(problem.message, "symlink_root `/nowhere/x`: No such file or directory (os error 2)");
    assert_eq!((loader.stats.load_error().value(), loader.stats.load_success().value()), (1, 0));
}

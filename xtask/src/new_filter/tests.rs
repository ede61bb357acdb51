//! Tests of the scaffold, among them one that compiles and tests what it writes.

use super::*;
use crate::workspace::cargo;

fn tidegate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The target folder that this test was built into.
fn target() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_path_buf()
}

#[test]
fn names_are_spelled_for_each_place() {
    let names = Names::new("tenant-header2", Kind::Http).unwrap();
    assert_eq!((&*names.krate, &*names.type_name), ("tenant_header2", "TenantHeader2"));
    for bad in ["", "Tenant", "a--b", "-a", "a_b", "2a", "a/b"] {
        assert!(Names::new(bad, Kind::Http).is_err(), "{bad}");
    }
}

#[test]
fn paths_lead_back_to_the_workspace() {
    assert_eq!(relative(Path::new("/a/b/c"), Path::new("/a/d")), Path::new("../../d"));
    assert_eq!(relative(Path::new("/a/t/bin/x"), Path::new("/a/t")), Path::new("../.."));
    assert!(is_member(Path::new("/a/bin/x"), Path::new("/a")));
    assert!(!is_member(Path::new("/a/target/x"), Path::new("/a")));
}

#[test]
fn the_scaffold_compiles_and_its_tests_pass() {
    compiles(Kind::Http, "tenant-header");
    compiles(Kind::Network, "byte-limit");
}

#[track_caller]
fn compiles(kind: Kind, name: &str) {
    let root = target().join("new-filter-test");
    let folder = root.join(name);
    // Left over from a former run; its target folder stays, to save the rebuild.
    let _ = fs::remove_dir_all(&folder);
    write(&Names::new(name, kind).unwrap(), &folder, &tidegate()).unwrap();
    assert!(write(&Names::new(name, kind).unwrap(), &folder, &tidegate()).is_err());

    let output = cargo()
        .args(["test", "--quiet", "--offline", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", root.join("target"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! The files of `config-examples/`: found, and made to run beside other tests.

use std::path::{Path, PathBuf};

use crate::binary::root;
use crate::origin::Origin;
use crate::proxy::{Options, Proxy};

/// All configurations of the proxy, those of filters too, sorted; not the files for other programs, nor what
/// configurations watch.
///
/// # Panics
/// When the folder cannot be read.
pub fn all() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("config-examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default();
            match path.is_dir() {
                true if ["prometheus", "grafana", "resources"].iter().any(|other| name == *other) => {}
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

/// An example running on free ports, with upstreams in the place of its ports 18080 and 18081.
#[derive(Debug)]
pub struct Running {
    /// The proxy.
    pub proxy: Proxy,
    /// What stands for port 18080; answers `one`.
    pub one: Origin,
    /// What stands for port 18081; answers `two`.
    pub two: Origin,
}

/// Starts an example by its file name; `replace` are more texts to replace.
///
/// # Panics
/// When there is no such example or it does not start.
#[track_caller]
pub fn start(name: &str, options: &Options, replace: &[(&str, &str)]) -> Running {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let mut text = std::fs::read_to_string(root().join("config-examples").join(name)).unwrap();
    let ports =
        [(10000, 0), (10001, 0), (9901, 0), (18080, one.address().port()), (18081, two.address().port())];
    for (fixed, free) in ports {
        for colon in ["\": ", ": "] {
            text = text.replace(&format!("port_value{colon}{fixed}"), &format!("port_value{colon}{free}"));
        }
    }
    for (from, to) in replace {
        assert!(text.contains(from), "no {from} in {name}");
        text = text.replace(from, to);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(Path::new(name).file_name().unwrap());
    std::fs::write(&file, text).unwrap();
    Running { proxy: options.start_file(&file, folder), one, two }
}

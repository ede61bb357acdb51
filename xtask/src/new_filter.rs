//! `cargo xtask new-filter NAME`: a filter in a crate of its own, ready to compile.
//!
//! Writes manifest, source, test, configuration example and documentation from the files in
//! `new_filter/template` (with `--network` from `new_filter/template_network`), and nothing outside the new
//! folder. Start from [`run`].

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::failure::{Context, Failure};
use crate::workspace::Workspace;

/// Options of `cargo xtask new-filter`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The crate's name in kebab-case, such as `tenant-header`
    name: String,
    /// The folder to create (default: the name, in the current folder)
    #[arg(long)]
    path: Option<PathBuf>,
    /// A network filter, which sees the bytes of connections, instead of an HTTP filter
    #[arg(long)]
    network: bool,
}

impl Arguments {
    fn kind(&self) -> Kind {
        if self.network { Kind::Network } else { Kind::Http }
    }
}

/// What the new filter sees.
#[derive(Clone, Copy)]
enum Kind {
    Http,
    Network,
}

impl Kind {
    /// The method of the registry, and a part of the filter's name.
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Network => "network",
        }
    }

    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Http => HTTP,
            Self::Network => NETWORK,
        }
    }
}

/// Creates the crate and says what to do next.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let workspace = Workspace::load()?;
    let folder = arguments.path.clone().unwrap_or_else(|| PathBuf::from(&arguments.name));
    let folder = std::path::absolute(&folder).context(folder.display())?;
    let names = Names::new(&arguments.name, arguments.kind())?;
    let files = write(&names, &folder, &workspace.workspace_root)?;
    format(&files);
    for file in files {
        println!("created {}", file.display());
    }
    println!("\nnext: cargo test --manifest-path {}", folder.join("Cargo.toml").display());
    let Names { kind, krate, type_name, .. } = &names;
    println!("then: .{}::<{krate}::{type_name}>() on the registry of a proxy of your own", kind.name());
    Ok(())
}

/// The spellings of one name.
struct Names {
    kind: Kind,
    /// `tenant-header`
    kebab: String,
    /// `tenant_header`
    krate: String,
    /// `TenantHeader`
    type_name: String,
}

impl Names {
    fn new(name: &str, kind: Kind) -> Result<Self, Failure> {
        let is_kebab = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.split('-').all(|word| !word.is_empty())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !is_kebab {
            return Err(Failure(format!("`{name}` is not a kebab-case crate name such as `tenant-header`")));
        }
        let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        Ok(Self {
            kind,
            kebab: name.to_owned(),
            krate: name.replace('-', "_"),
            type_name: name.split('-').map(capital).collect(),
        })
    }

    fn fill(&self, template: &str) -> String {
        template
            .replace("{name}", &self.kebab)
            .replace("{crate}", &self.krate)
            .replace("{type}", &self.type_name)
            .replace("{prefix}", &format!("tidegate.filters.{}.{}", self.kind.name(), self.krate))
    }
}

/// (path in the new crate, template)
const HTTP: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("new_filter/template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("new_filter/template/lib.rs.in")),
    ("tests/filter.rs", include_str!("new_filter/template/test.rs.in")),
    ("config-example.json", include_str!("new_filter/template/config-example.json.in")),
    ("README.md", include_str!("new_filter/template/docs.md.in")),
];

/// As [`HTTP`].
const NETWORK: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("new_filter/template_network/Cargo.toml.in")),
    ("src/lib.rs", include_str!("new_filter/template_network/lib.rs.in")),
    ("tests/filter.rs", include_str!("new_filter/template_network/test.rs.in")),
    ("config-example.json", include_str!("new_filter/template_network/config-example.json.in")),
    ("README.md", include_str!("new_filter/template_network/docs.md.in")),
];

/// Writes the crate into `folder`, which must not exist yet; `tidegate` is the root of the workspace.
fn write(names: &Names, folder: &Path, tidegate: &Path) -> Result<Vec<PathBuf>, Failure> {
    if folder.exists() {
        return Err(Failure(format!("{} exists already", folder.display())));
    }
    let is_member = is_member(folder, tidegate);
    let closing = if is_member { MEMBER } else { STANDALONE };
    let to_tidegate = relative(folder, tidegate);
    let mut written = Vec::new();
    for (path, template) in names.kind.files() {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).context(parent.display())?;
        let text = names.fill(template);
        let text = text.replace("{closing}\n", closing).replace("{tidegate}", &to_tidegate.to_string_lossy());
        fs::write(&path, text).context(path.display())?;
        written.push(path);
    }
    if !is_member {
        // Begin with the versions that Tidegate is tested with.
        let lock = folder.join("Cargo.lock");
        fs::copy(tidegate.join("Cargo.lock"), &lock).context("copying Cargo.lock")?;
        written.push(lock);
    }
    Ok(written)
}

/// Line widths depend on the name. Without rustfmt the files are only less pretty.
fn format(files: &[PathBuf]) {
    let sources = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let _ = Command::new("rustfmt").args(["--edition", "2024"]).args(sources).status();
}

const MEMBER: &str = "\n[lints]\nworkspace = true\n";

/// Cargo refuses a crate inside another workspace's folder that is neither its member nor a root.
const STANDALONE: &str =
    "\n# A workspace of its own: delete this to make it a member of yours.\n[workspace]\n";

/// Whether the workspace's `members` cover the folder.
fn is_member(folder: &Path, tidegate: &Path) -> bool {
    folder.parent().is_some_and(|parent| parent == tidegate.join("bin") || parent == tidegate.join("crates"))
}

/// The way from one absolute folder to another.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    up.chain(to.components().skip(common)).collect()
}

#[cfg(test)]
mod tests;

//! A disk layer: a directory in which each file is a value, and its path the key.

use std::fs;
use std::io;
use std::path::Path;

use tidegate_config::runtime::{Entries, Entry};

/// Directories within each other that are looked at. Stops a link that leads up again; Envoy's number.
const MAX_DEPTH: usize = 16;

/// What the files of `directory` hold; `None` if it is none.
///
/// # Errors
/// What cannot be read, with its path.
pub(super) fn read(directory: &Path) -> Result<Option<Entries>, String> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let mut entries = Entries::new();
    walk(directory, "", 1, &mut entries)?;
    Ok(Some(entries))
}

fn walk(directory: &Path, prefix: &str, depth: usize, entries: &mut Entries) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("{}: more than {MAX_DEPTH} directories deep", directory.display()));
    }
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let entry = entry.map_err(|error| failed(directory, error))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let key = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}.{name}") };
        // Through links: Kubernetes mounts files as links.
        let kind = fs::metadata(&path).map_err(|error| failed(&path, error))?;
        if kind.is_dir() {
            walk(&path, &key, depth + 1, entries)?;
        } else if kind.is_file() {
            let content = fs::read(&path).map_err(|error| failed(&path, error))?;
            entries.insert(key, Entry::of_file(&String::from_utf8_lossy(&content)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_are_values_and_directories_parts_of_keys() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("one"), "1\n").unwrap();
        fs::write(root.join("a/b/two"), "# two\n2").unwrap();
        std::os::unix::fs::symlink(root.join("one"), root.join("a/link")).unwrap();
        let entries = read(root).unwrap().unwrap();
        let found: Vec<_> = entries.iter().map(|(key, entry)| (key.as_str(), entry.text.as_str())).collect();
        assert_eq!(found, [("a.b.two", "2"), ("a.link", "1"), ("one", "1")]);
        assert_eq!(read(&root.join("nothing")), Ok(None));
        assert_eq!(read(&root.join("one")), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken");
        std::os::unix::fs::symlink("nowhere", &broken).unwrap();
        let error = read(folder.path()).unwrap_err();
        assert!(error.starts_with(&format!("{}: ", broken.display())), "{error}");
        fs::remove_file(&broken).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("up")).unwrap();
        assert!(read(folder.path()).unwrap_err().ends_with("more than 16 directories deep"));
    }
}

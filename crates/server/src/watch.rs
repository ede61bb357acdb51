//! Tells when the configuration file, or a certificate that it names, may have changed.
//!
//! *Directories* are watched, since a file that is renamed over the old one, or a symbolic link that is
//! swapped (as Kubernetes mounts do, with the link a directory above), leaves a watch on the old file blind.
//! Other files of those directories (logs) are nobody's business. Whether the content is new is for the
//! reader to see.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A running watch.
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    watcher: RecommendedWatcher,
    watched: Vec<PathBuf>,
    /// Names whose change may change the content; shared with the watcher's thread.
    trail: Arc<Mutex<HashSet<PathBuf>>>,
    events: UnboundedReceiver<()>,
    /// When the change began that has not settled yet.
    unsettled: Option<Instant>,
}

impl Watch {
    /// Watches `paths`, which need not exist.
    ///
    /// # Errors
    /// When the system has no watches left or a directory cannot be read.
    pub(crate) fn start(paths: impl IntoIterator<Item = PathBuf>) -> notify::Result<Self> {
        let (sender, events) = unbounded_channel();
        let trail = Arc::new(Mutex::new(HashSet::new()));
        let names = trail.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let names = names.lock().unwrap_or_else(PoisonError::into_inner);
            // An error (an overflowing queue) may hide a change: look.
            if event.map_or(true, |event| is_of_interest(&event, &names)) {
                // The receiver is gone when the process ends.
                let _ = sender.send(());
            }
        })?;
        let mut watch =
            Self { paths: absolute(paths), watcher, watched: Vec::new(), trail, events, unsettled: None };
        watch.follow()?;
        Ok(watch)
    }

    /// Watches `paths` from now on.
    ///
    /// # Errors
    /// As [`Watch::start`]; what could be watched is.
    pub(crate) fn set(&mut self, paths: impl IntoIterator<Item = PathBuf>) -> notify::Result<()> {
        let paths = absolute(paths);
        if paths == self.paths {
            return Ok(());
        }
        self.paths = paths;
        self.follow()
    }

    /// Lets the next [`Watch::changed`] return as if something had just happened: the file may have changed
    /// between its reading and the watch's start.
    pub(crate) fn suspect(&mut self) {
        self.unsettled = Some(Instant::now());
    }

    /// Waits until something happened and nothing more did for [`QUIET`], at most [`PATIENCE`]. Dropped half
    /// way and called again, it goes on where it was.
    pub(crate) async fn changed(&mut self) {
        let since = match self.unsettled {
            Some(since) => since,
            None => {
                if self.events.recv().await.is_none() {
                    // The watcher's thread is gone: never again.
                    std::future::pending::<()>().await;
                }
                *self.unsettled.insert(Instant::now())
            }
        };
        // A file that never settles is read all the same.
        while since.elapsed() < PATIENCE {
            match tokio::time::timeout(QUIET, self.events.recv()).await {
                Ok(Some(())) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.unsettled = None;
        if let Err(error) = self.follow() {
            tracing::warn!(target: "config", %error, "cannot watch a directory of the configuration");
        }
    }

    /// Watches the directories of the trail anew: one of the same name may be another by now.
    fn follow(&mut self) -> notify::Result<()> {
        let trail: Vec<_> = self.paths.iter().flat_map(|path| trail(path)).collect();
        for old in self.watched.drain(..) {
            // It may be gone already.
            let _ = self.watcher.unwatch(&old);
        }
        let directories: HashSet<_> = trail.iter().filter_map(|name| name.parent()).collect();
        let mut result = Ok(());
        for directory in directories {
            match self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => self.watched.push(directory.to_owned()),
                Err(error) => result = Err(error),
            }
        }
        *self.trail.lock().unwrap_or_else(PoisonError::into_inner) = trail.into_iter().collect();
        result
    }
}

fn absolute(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    paths.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
}

/// Every name on the way from `path` to the file's content: the links on the way, then the file.
fn trail(path: &Path) -> Vec<PathBuf> {
    let mut trail = Vec::new();
    let mut at = PathBuf::new();
    let mut rest = components(path);
    // As many links as the kernel follows.
    let mut links = 40;
    while let Some(component) = rest.pop() {
        match Path::new(&component).components().next() {
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::RootDir) => {
                at = PathBuf::from("/");
                continue;
            }
            _ => at.push(&component),
        }
        if let Ok(target) = std::fs::read_link(&at) {
            trail.push(at.clone());
            links -= 1;
            if links == 0 {
                return trail;
            }
            at.pop();
            rest.extend(components(&target));
        }
    }
    trail.push(at);
    trail
}

/// The components of `path`, the first one last.
fn components(path: &Path) -> Vec<OsString> {
    let mut components: Vec<_> = path.components().map(|c| c.as_os_str().to_owned()).collect();
    components.reverse();
    components
}

fn is_of_interest(event: &Event, names: &HashSet<PathBuf>) -> bool {
    may_change_content(&event.kind) && event.paths.iter().any(|path| names.contains(path))
}

/// Reading the file is an event too: answered by reading it, it would never end.
fn may_change_content(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// How long nothing must happen before the file is read: writers need a moment between truncating and
/// the last byte.
const QUIET: Duration = Duration::from_millis(75);

/// How long a file may go on changing before it is read as it is.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn seen(path: &Path, change: impl FnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::start([path.to_owned()]).unwrap();
            change();
            tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("no event");
        });
    }

    #[test]
    fn written_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.json");
        fs::write(&path, "1").unwrap();
        seen(&path, || fs::write(&path, "2").unwrap());
    }

    #[test]
    fn a_wait_that_was_dropped_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.json");
        fs::write(&path, "1").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::start([path.clone()]).unwrap();
            fs::write(&path, "2").unwrap();
            while watch.unsettled.is_none() {
                let _ = tokio::time::timeout(Duration::from_millis(1), watch.changed()).await;
            }
            tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("lost");
        });
    }

    #[test]
    fn a_change_before_the_watch_is_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::start([directory.path().join("c.json")]).unwrap();
            watch.suspect();
            tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("never looked");
        });
    }

    #[test]
    fn renamed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.json");
        fs::write(&path, "1").unwrap();
        seen(&path, || {
            fs::write(directory.path().join("new"), "2").unwrap();
            fs::rename(directory.path().join("new"), &path).unwrap();
        });
    }

    #[test]
    fn a_swapped_link_as_kubernetes_swaps_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("c.json"), version).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/c.json", at("c.json")).unwrap();
        seen(&at("c.json"), || {
            symlink("v2", at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        });
        assert_eq!(fs::read_to_string(at("c.json")).unwrap(), "v2");
    }

    #[test]
    fn a_swapped_directory_link_above() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("c.json"), version).unwrap();
        }
        symlink("v1", at("current")).unwrap();
        let path = at("current").join("c.json");
        assert_eq!(trail(&path), [at("current"), at("v1").join("c.json")]);
        seen(&path, || {
            symlink("v2", at("new")).unwrap();
            fs::rename(at("new"), at("current")).unwrap();
        });
    }

    #[test]
    fn a_neighbour_is_no_change() {
        let names = HashSet::from([PathBuf::from("/d/c.json")]);
        let event = |path: &str| Event::new(EventKind::Any).add_path(path.into());
        assert!(is_of_interest(&event("/d/c.json"), &names));
        assert!(!is_of_interest(&event("/d/access.log"), &names));
    }

    #[test]
    fn the_target_of_a_link_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let real = elsewhere.path().join("real.json");
        fs::write(&real, "1").unwrap();
        let path = directory.path().join("c.json");
        symlink(&real, &path).unwrap();
        seen(&path, || fs::write(&real, "2").unwrap());
    }

    #[test]
    fn reading_is_no_change() {
        assert!(!may_change_content(&EventKind::Access(AccessKind::Open(AccessMode::Read))));
        assert!(!may_change_content(&EventKind::Access(AccessKind::Close(AccessMode::Read))));
    }
}

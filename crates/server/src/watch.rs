//! Tells when the configuration file, or a certificate that it names, may have changed.
//!
//! *Directories* are watched, since a file that is renamed over the old one, or a symbolic link that is
//! swapped (as Kubernetes mounts do, with the link a directory above), leaves a watch on the old file blind.
//! Other files of those directories (logs) are nobody's business. Whether the content is new is for the
//! reader to see.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A file to watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Watched {
    /// The file.
    pub(crate) path: PathBuf,
    /// `watched_directory`: whatever is moved there is a change of the file.
    pub(crate) directory: Option<PathBuf>,
}

impl From<PathBuf> for Watched {
    fn from(path: PathBuf) -> Self {
        Self { path, directory: None }
    }
}

/// A running watch.
pub(crate) struct Watch {
    files: BTreeSet<Watched>,
    watcher: RecommendedWatcher,
    directories: Vec<PathBuf>,
    /// Shared with the watcher's thread.
    shared: Arc<Mutex<Shared>>,
    events: UnboundedReceiver<()>,
    /// When the change began that has not settled yet.
    unsettled: Option<Instant>,
}

#[derive(Default)]
struct Shared {
    /// Names whose change may change the content of the files behind them.
    names: HashMap<PathBuf, BTreeSet<PathBuf>>,
    /// Directories in which each move may.
    directories: HashMap<PathBuf, BTreeSet<PathBuf>>,
    /// Files that may have changed.
    touched: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches `files`, which need not exist.
    ///
    /// # Errors
    /// When the system has no watches left or a directory cannot be read.
    pub(crate) fn start(files: impl IntoIterator<Item = Watched>) -> notify::Result<Self> {
        let (sender, events) = unbounded_channel();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let ours = shared.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if lock(&ours).note(event.ok().as_ref()) {
                // The receiver is gone when the process ends.
                let _ = sender.send(());
            }
        })?;
        let files = files.into_iter().collect();
        let mut watch = Self { files, watcher, directories: Vec::new(), shared, events, unsettled: None };
        watch.follow(None)?;
        Ok(watch)
    }

    /// Watches `files` from now on; whether these are others than before.
    ///
    /// # Errors
    /// As [`Watch::start`]; what could be watched is.
    pub(crate) fn set(&mut self, files: impl IntoIterator<Item = Watched>) -> notify::Result<bool> {
        let files = files.into_iter().collect();
        if files == self.files {
            return Ok(false);
        }
        self.files = files;
        self.follow(None).map(|()| true)
    }

    /// Lets the next [`Watch::changed`] return as if something had just happened to `path`: the file may have
    /// changed between its reading and the watch's start.
    pub(crate) fn suspect(&mut self, path: PathBuf) {
        lock(&self.shared).touched.insert(path);
        self.unsettled = Some(Instant::now());
    }

    /// Waits until something happened and nothing more did for [`QUIET`], at most [`PATIENCE`]; the files that may
    /// have changed, as they were named. Dropped half way and called again, it goes on where it was.
    pub(crate) async fn changed(&mut self) -> BTreeSet<PathBuf> {
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
        let touched = std::mem::take(&mut lock(&self.shared).touched);
        if let Err(error) = self.follow(Some(&touched)) {
            tracing::warn!(target: "config", %error, "cannot watch a directory of the configuration");
        }
        touched
    }

    /// Looks anew how one gets to the files, or only to those of `paths`, and watches the directories on the way:
    /// one of the same name may be another by now.
    fn follow(&mut self, paths: Option<&BTreeSet<PathBuf>>) -> notify::Result<()> {
        let mut shared = lock(&self.shared);
        match paths {
            None => (shared.names, shared.directories) = Default::default(),
            Some(paths) => shared.names.values_mut().for_each(|of| of.retain(|path| !paths.contains(path))),
        }
        for file in self.files.iter().filter(|file| paths.is_none_or(|paths| paths.contains(&file.path))) {
            for name in trail(&absolute(&file.path)) {
                shared.names.entry(name).or_default().insert(file.path.clone());
            }
            if let Some(directory) = &file.directory {
                shared.directories.entry(absolute(directory)).or_default().insert(file.path.clone());
            }
        }
        shared.names.retain(|_, of| !of.is_empty());
        let parents = shared.names.keys().filter_map(|name| name.parent()).map(Path::to_owned);
        let directories: HashSet<_> = parents.chain(shared.directories.keys().cloned()).collect();
        drop(shared);
        // One that is still wanted is not let go of: what happens in it meanwhile would be lost.
        for old in self.directories.drain(..).filter(|old| !directories.contains(old)) {
            // It may be gone already.
            let _ = self.watcher.unwatch(&old);
        }
        let mut result = Ok(());
        for directory in directories {
            // Once more: one of the same name may be another by now.
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => self.directories.push(directory),
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

impl Shared {
    /// Whether the event, or what an overflowing queue may have lost (`None`), touches a file.
    fn note(&mut self, event: Option<&Event>) -> bool {
        let before = self.touched.len();
        let Some(event) = event else {
            let all = self.names.values().chain(self.directories.values()).flatten().cloned();
            self.touched.extend(all.collect::<Vec<_>>());
            return !self.touched.is_empty();
        };
        if !may_change_content(&event.kind) {
            return false;
        }
        let mut noted = false;
        for path in &event.paths {
            let moved = path.parent().filter(|_| is_move(&event.kind));
            let of_directory = moved.and_then(|parent| self.directories.get(parent));
            for of in self.names.get(path).into_iter().chain(of_directory) {
                self.touched.extend(of.iter().cloned());
                noted = true;
            }
        }
        noted || self.touched.len() > before
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether something got a name.
fn is_move(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)))
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
            let mut watch = Watch::start([path.to_owned().into()]).unwrap();
            change();
            let touched =
                tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("no event");
            assert_eq!(touched, BTreeSet::from([path.to_owned()]));
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
            let mut watch = Watch::start([path.clone().into()]).unwrap();
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
            let mut watch = Watch::start([directory.path().join("c.json").into()]).unwrap();
            watch.suspect(directory.path().join("c.json"));
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
        let mut shared = Shared::default();
        shared.names.insert(PathBuf::from("/d/c.json"), BTreeSet::from([PathBuf::from("c.json")]));
        let event = |path: &str| Event::new(EventKind::Any).add_path(path.into());
        assert!(!shared.note(Some(&event("/d/access.log"))));
        assert!(shared.note(Some(&event("/d/c.json"))));
        assert_eq!(shared.touched, BTreeSet::from([PathBuf::from("c.json")]));
    }

    #[test]
    fn a_move_within_a_watched_directory() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let path = elsewhere.path().join("c.json");
        fs::write(&path, "1").unwrap();
        fs::write(elsewhere.path().join("marker"), "").unwrap();
        let watched = Watched { path: path.clone(), directory: Some(directory.path().to_owned()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::start([watched]).unwrap();
            fs::rename(elsewhere.path().join("marker"), directory.path().join("..data")).unwrap();
            let touched =
                tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("no event");
            assert_eq!(touched, BTreeSet::from([path]));
        });
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

//! Files of events, one JSON object a line: what Envoy calls an event log.
//!
//! A thread for each file writes the lines, so that a slow disk keeps nobody waiting; lines that it cannot keep up with
//! are lost, and a warning says so. [`reopen_all`] is for rotated files.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

/// Lines held for one file: more than any burst of events, and little memory.
const QUEUE: usize = 4096;

/// An open event log. One for each path, whoever asks for it.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    lines: SyncSender<Line>,
}

#[derive(Debug)]
enum Line {
    Text(String),
    Reopen,
}

impl EventLog {
    /// Opens the file at `path`, to append to it.
    ///
    /// # Errors
    /// It cannot be opened, or there can be no thread for it.
    pub fn open(path: &str) -> io::Result<Arc<Self>> {
        let mut logs = lock(&LOGS);
        let path = PathBuf::from(path);
        if let Some(open) = logs.get(&path).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let file = open(&path)?;
        let (lines, queue) = sync_channel(QUEUE);
        let of = path.clone();
        std::thread::Builder::new().name("event-log".to_owned()).spawn(move || write(&of, file, &queue))?;
        let log = Arc::new(Self { path: path.clone(), lines });
        logs.retain(|_, log| log.strong_count() > 0);
        logs.insert(path, Arc::downgrade(&log));
        Ok(log)
    }

    /// Whether a file at `path` can be opened.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(path: &str) -> io::Result<()> {
        open(Path::new(path)).map(drop)
    }

    /// Appends a line; its end is added. Does not wait.
    pub fn write(&self, line: String) {
        if self.lines.try_send(Line::Text(line)).is_err() {
            tracing::warn!(target: "health", "an event was lost: {} is not written fast enough", self.path.display());
        }
    }
}

/// The files were rotated: opens them anew.
pub fn reopen_all() {
    for log in lock(&LOGS).values().filter_map(Weak::upgrade) {
        // A full queue is a stuck disk, and another signal will come.
        let _ = log.lines.try_send(Line::Reopen);
    }
}

static LOGS: LazyLock<Mutex<HashMap<PathBuf, Weak<EventLog>>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Until nobody holds the log any longer.
fn write(path: &Path, mut file: File, queue: &Receiver<Line>) {
    for line in queue {
        let result = match line {
            Line::Text(mut text) => {
                text.push('\n');
                file.write_all(text.as_bytes())
            }
            Line::Reopen => open(path).map(|new| file = new),
        };
        if let Err(error) = result {
            tracing::warn!(target: "health", "{}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_rotated_files_opened_anew() {
        let folder = std::env::temp_dir().join(format!("tidegate-event-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, rotated) = (folder.join("events"), folder.join("events.1"));
        std::fs::write(&path, "old\n").unwrap();
        let (name, queue) = (path.to_str().unwrap(), sync_channel(8));
        let log = EventLog { path: path.clone(), lines: queue.0 };
        log.write("one".to_owned());
        log.lines.send(Line::Reopen).unwrap();
        log.write("two".to_owned());
        drop(log);
        let file = open(&path).unwrap();
        std::fs::rename(&path, &rotated).unwrap();
        write(&path, file, &queue.1);
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "old\none\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        let (first, second) = (EventLog::open(name).unwrap(), EventLog::open(name).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(EventLog::check("/nowhere/at/all").is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

//! Where log lines go: one file handle per path, shared by all loggers, written by one background thread.
//!
//! A log call appends to a buffer under a short lock and never waits for the disk. When the disk cannot
//! keep up, lines are dropped and counted. It does not format.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use tidegate_filter::AccessLogContext;
use tidegate_stats::{Scope, stat_block};

/// Bytes held for one target before lines are dropped: seconds of a busy proxy, and it keeps a stuck disk
/// from eating the memory.
const QUEUE_LIMIT: usize = 8 << 20;

/// Bytes from which the writer is woken before its interval ends (Envoy's `MIN_FLUSH_SIZE`).
const WRITE_SIZE: usize = 64 << 10;

/// Bytes of buffer that an idle target keeps.
const BUFFER_KEPT: usize = 256 << 10;

/// How long a line may be held back, in ms: one value for the process, from its command line.
static FLUSH_INTERVAL_MS: AtomicU64 = AtomicU64::new(1000);

stat_block! {
    /// `filesystem.`: Envoy's names, and one of our own.
    struct FileStats {
        counters {
            /// Lines taken.
            write_buffered,
            /// Writes done, of all that was queued at that time.
            write_completed,
            /// Writes that failed; their lines are lost.
            write_failed,
            /// The flush interval ended.
            flushed_by_timer,
            /// A file could not be opened anew: the old one is written on.
            reopen_failed,
            /// Lines lost since the queue was full or their write failed (not in Envoy).
            write_dropped,
        }
        gauges {
            /// Bytes queued.
            write_total_buffered,
        }
    }
}

/// What a sink writes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
}

impl Target {
    /// `/dev/stdout` and `/dev/stderr` are the process's own streams: they cannot be opened by path where
    /// they are sockets, as under some supervisors.
    pub(super) fn of_path(path: &str) -> Self {
        match path {
            "/dev/stdout" => Self::Stdout,
            "/dev/stderr" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }

    fn open(&self) -> io::Result<Output> {
        match self {
            Self::Stdout => Ok(Output::Stdout),
            Self::Stderr => Ok(Output::Stderr),
            Self::File(path) => open_file(path).map(Output::File),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// One target's queue and handle.
pub(super) struct Sink {
    target: Target,
    stats: FileStats,
    /// Taken for the time of a copy, by workers.
    queue: Mutex<Queue>,
    /// Taken while writing, never by workers. Always before `queue`.
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: u64,
}

struct Writer {
    output: Output,
    /// The queue's other buffer: the two change places, so that neither grows anew each time.
    spare: Vec<u8>,
}

enum Output {
    Stdout,
    Stderr,
    File(File),
}

impl Sink {
    /// The sink of `target`: the living one, or a new one.
    ///
    /// # Errors
    /// The message for the user when the file cannot be opened.
    pub(super) fn open(target: Target, cx: &AccessLogContext<'_>) -> Result<Arc<Self>, String> {
        let millis = u64::try_from(cx.flush_interval.as_millis()).unwrap_or(u64::MAX).max(1);
        if FLUSH_INTERVAL_MS.swap(millis, Relaxed) != millis {
            wake_writer();
        }
        let mut sinks = lock(sinks());
        if let Some(sink) = sinks.get(&target).and_then(Weak::upgrade) {
            return Ok(sink);
        }
        let output = target.open().map_err(|error| match &target {
            Target::File(path) => format!("unable to open file '{}': {error}", path.display()),
            other => format!("unable to open {other:?}: {error}"),
        })?;
        let writer = Mutex::new(Writer { output, spare: Vec::new() });
        let stats = FileStats::new(cx.stats, Scope::new("filesystem", &[]));
        let sink = Arc::new(Self { target: target.clone(), stats, queue: Mutex::default(), writer });
        sinks.retain(|_, sink| sink.strong_count() > 0);
        sinks.insert(target, Arc::downgrade(&sink));
        start_writer()?;
        Ok(sink)
    }

    /// Queues one line, its end included.
    pub(super) fn append(&self, line: &str) {
        let mut queue = lock(&self.queue);
        let before = queue.bytes.len();
        if before + line.len() > QUEUE_LIMIT {
            drop(queue);
            self.stats.write_dropped().inc();
            return;
        }
        queue.bytes.extend_from_slice(line.as_bytes());
        queue.lines += 1;
        let crossed = before < WRITE_SIZE && queue.bytes.len() >= WRITE_SIZE;
        drop(queue);
        self.stats.write_buffered().inc();
        self.stats.write_total_buffered().add(size(line.len()));
        if crossed {
            wake_writer();
        }
    }

    /// Writes out what is queued.
    pub(super) fn flush(&self) {
        self.flush_with(&mut lock(&self.writer));
    }

    /// Opens the file anew, after what was queued went to the old one. If that fails, the old one stays.
    pub(super) fn reopen(&self) {
        let mut writer = lock(&self.writer);
        self.flush_with(&mut writer);
        match self.target.open() {
            Ok(new) => writer.output = new,
            Err(_) => self.stats.reopen_failed().inc(),
        }
    }

    fn flush_with(&self, writer: &mut Writer) {
        let lines = {
            let mut queue = lock(&self.queue);
            std::mem::swap(&mut queue.bytes, &mut writer.spare);
            std::mem::take(&mut queue.lines)
        };
        if lines == 0 {
            return;
        }
        let written = match &mut writer.output {
            Output::Stdout => write_all(io::stdout().lock(), &writer.spare),
            Output::Stderr => write_all(io::stderr().lock(), &writer.spare),
            Output::File(file) => file.write_all(&writer.spare),
        };
        self.stats.write_total_buffered().sub(size(writer.spare.len()));
        match written {
            Ok(()) => self.stats.write_completed().inc(),
            Err(_) => {
                self.stats.write_failed().inc();
                self.stats.write_dropped().add(lines);
            }
        }
        writer.spare.clear();
        // A burst's memory is given back.
        writer.spare.shrink_to(BUFFER_KEPT);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn write_all(mut stream: impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

fn sinks() -> &'static Mutex<HashMap<Target, Weak<Sink>>> {
    static SINKS: OnceLock<Mutex<HashMap<Target, Weak<Sink>>>> = OnceLock::new();
    SINKS.get_or_init(Mutex::default)
}

static WRITER: OnceLock<Thread> = OnceLock::new();

/// Starts the process's writer thread, once. Called under the lock of [`sinks`].
fn start_writer() -> Result<(), String> {
    if WRITER.get().is_none() {
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(write_for_ever)
            .map_err(|error| format!("cannot start the access-log writer: {error}"))?;
        WRITER.get_or_init(|| thread.thread().clone());
    }
    Ok(())
}

/// The writer was woken, and not by its timer.
static WOKEN: AtomicBool = AtomicBool::new(false);

fn wake_writer() {
    if let Some(writer) = WRITER.get() {
        WOKEN.store(true, Relaxed);
        writer.unpark();
    }
}

fn write_for_ever() {
    loop {
        // Woken early by a full queue; a wake-up during the flush below makes this return at once.
        std::thread::park_timeout(Duration::from_millis(FLUSH_INTERVAL_MS.load(Relaxed)));
        // Handles are collected first: writing must not hold up a configuration that opens a log.
        let living: Vec<_> = lock(sinks()).values().filter_map(Weak::upgrade).collect();
        let by_timer = !WOKEN.swap(false, Relaxed);
        for sink in living {
            if by_timer {
                sink.stats.flushed_by_timer().inc();
            }
            sink.flush();
        }
    }
}

/// Locks, ignoring poison: what the locks guard is valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tidegate_stats::Store;

    use super::*;

    fn open(target: Target) -> Result<Arc<Sink>, String> {
        let cx = AccessLogContext { stats: &Store::new(1), flush_interval: Duration::from_millis(200) };
        Sink::open(target, &cx)
    }

    fn file(path: &Path) -> Target {
        Target::of_path(path.to_str().unwrap())
    }

    #[test]
    fn one_path_is_one_sink_and_lines_stay_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (a, b) = (open(file(&path)).unwrap(), open(file(&path)).unwrap());
        assert!(Arc::ptr_eq(&a, &b));
        a.append("1\n");
        b.append("2\n");
        a.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n");
        b.append("3\n");
        drop((a, b));
        // The writer thread may hold the sink for a moment: a new handle flushes what is left either way.
        open(file(&path)).unwrap().flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n3\n");
    }

    #[test]
    fn a_rotated_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("b.log"), dir.path().join("b.log.1"));
        let sink = open(file(&path)).unwrap();
        sink.append("old\n");
        std::fs::rename(&path, &old).unwrap();
        sink.reopen();
        sink.append("new\n");
        sink.flush();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "old\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let sink = open(file(&dir.path().join("c.log"))).unwrap();
        // Keeps the writer out.
        let writer = lock(&sink.writer);
        let line = "x".repeat(1 << 20);
        (0..10).for_each(|_| sink.append(&line));
        assert_eq!(lock(&sink.queue).lines, 8);
        assert_eq!(sink.stats.write_dropped().value(), 2);
        assert_eq!(sink.stats.write_buffered().value(), 8);
        assert_eq!(sink.stats.write_total_buffered().value(), 8 << 20);
        drop(writer);
        sink.flush();
        assert_eq!(sink.stats.write_total_buffered().value(), 0);
        assert_eq!(sink.stats.write_failed().value(), 0);
    }

    #[test]
    fn a_missing_folder_is_said() {
        let error = open(Target::of_path("/nonexistent/a.log")).err().unwrap();
        assert!(error.starts_with("unable to open file '/nonexistent/a.log': No such file"), "{error}");
    }
}

//! The application log, by default `[time][thread][level][logger] message`, as Envoy's ([`Pattern`]).
//!
//! A small `tracing` subscriber instead of a general one: levels are per logger and change while the process
//! runs (`/logging`), and a line that is off costs one atomic load (tracing's global maximum, then the call
//! site's cached interest, which a change of levels rebuilds). Spans are not used.

pub(crate) mod line;
mod loggers;
mod pattern;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

pub(crate) use loggers::{ComponentLevels, Level, Loggers, UnknownLogger};
pub(crate) use pattern::Pattern;

/// The running log. A cheap handle.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    loggers: Loggers,
    sink: Mutex<Sink>,
    path: Option<PathBuf>,
    pattern: Pattern,
}

enum Sink {
    Stderr,
    File(File),
}

impl Log {
    /// Installs the process's log. Later calls keep the first one's sink and only set the level.
    ///
    /// # Errors
    /// When `path` cannot be opened for appending.
    pub(crate) fn start(level: Level, path: Option<&Path>, pattern: Pattern) -> io::Result<Self> {
        let sink = match path {
            Some(path) => Sink::File(open(path)?),
            None => Sink::Stderr,
        };
        let shared = Shared {
            loggers: Loggers::new(level),
            sink: Mutex::new(sink),
            path: path.map(Path::to_owned),
            pattern,
        };
        let log = Self { shared: Arc::new(shared) };
        // Fails only if a log was started before (tests in one process): its lines go there.
        let _ = tracing::subscriber::set_global_default(LogSubscriber(log.clone()));
        Ok(log)
    }

    /// Each logger's level, by name.
    pub(crate) fn levels(&self) -> Vec<(&'static str, Level)> {
        self.shared.loggers.levels()
    }

    /// Sets all loggers.
    pub(crate) fn set_all(&self, level: Level) {
        self.shared.loggers.set_all(level);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Sets some loggers.
    pub(crate) fn set_components(&self, levels: &ComponentLevels) {
        for (logger, level) in levels.iter() {
            // Their names were looked up when they were read.
            let _ = self.set(logger, level);
        }
    }

    /// Sets one logger.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn set(&self, logger: &str, level: Level) -> Result<(), UnknownLogger> {
        self.shared.loggers.set(logger, level)?;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// The file was rotated: open it anew (SIGUSR1).
    ///
    /// # Errors
    /// When it cannot be opened; lines go on to the old one.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        if let Some(path) = &self.shared.path {
            let file = open(path)?;
            *self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner) = Sink::File(file);
        }
        Ok(())
    }

    fn write(&self, line: &str) {
        let mut sink = self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nowhere left to report a log that cannot be written.
        let _ = match &mut *sink {
            Sink::Stderr => io::stderr().write_all(line.as_bytes()),
            Sink::File(file) => file.write_all(line.as_bytes()),
        };
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

struct LogSubscriber(Log);

impl Subscriber for LogSubscriber {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.0.shared.loggers.enabled(metadata.target(), *metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.shared.loggers.most_verbose())
    }

    fn event(&self, event: &Event<'_>) {
        self.0.write(&line::format(&self.0.shared.pattern, event));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

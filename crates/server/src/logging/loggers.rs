//! Loggers under Envoy's names, and their levels.

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;

/// A log level as Envoy spells them; `Critical` lines are errors that end the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    /// `trace`
    Trace,
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `warning`; `warn` is accepted.
    Warning,
    /// `error`
    Error,
    /// `critical`
    Critical,
    /// `off`
    Off,
}

impl Level {
    /// Every level, the most verbose first.
    pub(crate) const ALL: [Self; 7] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical, Self::Off];

    /// Reads Envoy's spelling.
    ///
    /// # Errors
    /// Envoy's words for an unknown one.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == text);
        let found = found.or((text == "warn").then_some(Self::Warning));
        found.ok_or_else(|| format!("error: invalid log level specified '{text}'"))
    }

    /// Envoy's spelling.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warning => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
            Self::Critical | Self::Off => LevelFilter::OFF,
        }
    }
}

/// No logger has this name.
#[derive(Debug, thiserror::Error)]
#[error("error: unknown logger name")]
pub(crate) struct UnknownLogger;

/// `--component-log-level`: levels of single loggers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ComponentLevels {
    text: String,
    levels: Vec<(&'static str, Level)>,
}

impl ComponentLevels {
    /// Reads `http:debug,router:trace`.
    ///
    /// # Errors
    /// Envoy's words for what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let one = |part: &str| {
            let (logger, level) =
                part.split_once(':').ok_or("error: component log level not correctly specified")?;
            let name = NAMES.iter().find(|name| **name == logger);
            let name =
                name.ok_or_else(|| format!("{UnknownLogger} '{logger}', known are {}", NAMES.join(" ")))?;
            Ok((*name, Level::parse(level)?))
        };
        let parts = text.split(',').filter(|part| !part.is_empty());
        Ok(Self { text: text.to_owned(), levels: parts.map(one).collect::<Result<_, String>>()? })
    }

    /// As the command line gave it.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Logger and level, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Level)> {
        self.levels.iter().copied()
    }
}

/// The levels of all loggers.
#[derive(Debug)]
pub(crate) struct Loggers {
    levels: [AtomicU8; NAMES.len()],
}

impl Loggers {
    pub(super) fn new(level: Level) -> Self {
        Self { levels: std::array::from_fn(|_| AtomicU8::new(level as u8)) }
    }

    pub(super) fn set_all(&self, level: Level) {
        self.levels.iter().for_each(|cell| cell.store(level as u8, Ordering::Relaxed));
    }

    pub(super) fn set(&self, logger: &str, level: Level) -> Result<(), UnknownLogger> {
        let index = NAMES.iter().position(|name| *name == logger).ok_or(UnknownLogger)?;
        if let Some(cell) = self.levels.get(index) {
            cell.store(level as u8, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn levels(&self) -> Vec<(&'static str, Level)> {
        NAMES.iter().zip(&self.levels).map(|(name, cell)| (*name, level_of(cell))).collect()
    }

    pub(super) fn enabled(&self, target: &str, level: tracing::Level) -> bool {
        let name = logger_of(target);
        let index = NAMES.iter().position(|known| *known == name);
        let limit = index.and_then(|i| self.levels.get(i)).map_or(Level::Info, level_of);
        level <= limit.filter()
    }

    pub(super) fn most_verbose(&self) -> LevelFilter {
        self.levels.iter().map(|cell| level_of(cell).filter()).max().unwrap_or(LevelFilter::OFF)
    }
}

fn level_of(cell: &AtomicU8) -> Level {
    let index = usize::from(cell.load(Ordering::Relaxed));
    Level::ALL.get(index).copied().unwrap_or(Level::Info)
}

/// The Envoy logger of a `tracing` target: the target itself where it names one, the crate's otherwise.
pub(super) fn logger_of(target: &str) -> &'static str {
    if let Some(name) = NAMES.iter().find(|name| **name == target) {
        return name;
    }
    let krate = target.split("::").next().unwrap_or_default();
    match krate.strip_prefix("tidegate_").unwrap_or_default() {
        "pool" => "pool",
        "cluster" => "upstream",
        "http" | "codec" => "http",
        "router" => "router",
        "listener" => "conn_handler",
        "net" => "connection",
        "config" => "config",
        "filter" | "filters" => "filter",
        "server" | "worker" => "main",
        _ => "misc",
    }
}

/// Known loggers, sorted.
const NAMES: [&str; 16] = [
    "admin",
    "client",
    "config",
    "conn_handler",
    "connection",
    "file",
    "filter",
    "health_checker",
    "http",
    "main",
    "misc",
    "pool",
    "rate_limit",
    "router",
    "runtime",
    "upstream",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_logger_can_be_more_verbose_than_the_rest() {
        let loggers = Loggers::new(Level::Warning);
        loggers.set("router", Level::Debug).unwrap();
        assert!(loggers.set("nope", Level::Debug).is_err());
        assert!(loggers.enabled("tidegate_router::retry", tracing::Level::DEBUG));
        assert!(!loggers.enabled("http", tracing::Level::INFO));
        assert!(loggers.enabled("http", tracing::Level::WARN));
        assert_eq!(loggers.most_verbose(), LevelFilter::DEBUG);
        loggers.set_all(Level::Off);
        assert!(!loggers.enabled("http", tracing::Level::ERROR));
    }

    #[test]
    fn names_are_sorted_and_levels_read_back() {
        assert!(NAMES.is_sorted());
        assert!(Level::ALL.into_iter().all(|level| Level::parse(level.as_str()) == Ok(level)));
        assert_eq!(Level::parse("warn"), Ok(Level::Warning));
        assert!(Level::parse("loud").is_err());
    }
}

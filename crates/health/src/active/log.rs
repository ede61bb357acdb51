//! The files that events go to.

use std::fs::{File, OpenOptions, metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tracing::warn;

/// One file. Opened at its first line, and anew when it was moved away: events are rare, so that looking costs
/// nothing, and rotation needs no signal.
#[derive(Debug)]
pub(super) struct EventLog {
    path: PathBuf,
    file: Option<File>,
    /// The last write failed, and that was said.
    failing: bool,
}

impl EventLog {
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.into(), file: None, failing: false }
    }

    /// Appends whole lines. A file that cannot be written is a warning, once.
    pub(super) fn append(&mut self, lines: &str) {
        let written = self.try_append(lines);
        if let Err(error) = &written
            && !self.failing
        {
            warn!(target: "health_checker", "cannot write events to {}: {error}", self.path.display());
        }
        self.failing = written.is_err();
    }

    fn try_append(&mut self, lines: &str) -> io::Result<()> {
        let same = |file: &File| {
            let (here, there) = (file.metadata().ok()?, metadata(&self.path).ok()?);
            Some((here.dev(), here.ino()) == (there.dev(), there.ino()))
        };
        if !self.file.as_ref().is_some_and(|file| same(file).unwrap_or(false)) {
            self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        match &mut self.file {
            Some(file) => file.write_all(lines.as_bytes()),
            None => Ok(()),
        }
    }
}

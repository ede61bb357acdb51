//! Where pressure comes from.

use std::io;
use std::path::Path;

use tidegate_config::overload::Resource;

use crate::gauges::Memory;

/// Why a resource could not be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unmeasured {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    File { path: String, error: io::Error },
    /// What it says is no pressure.
    #[error("{path}: `{text}` is no number from 0 to 1")]
    NoPressure { path: String, text: String },
}

/// The pressure on `resource` now: 0 is none; 1 and more, exhausted.
pub(super) fn pressure(resource: &Resource) -> Result<f64, Unmeasured> {
    match resource {
        Resource::Heap { max } => Ok(Memory::now().private as f64 / *max as f64),
        Resource::File(path) => injected(path),
    }
}

fn injected(path: &Path) -> Result<f64, Unmeasured> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| Unmeasured::File { path: name(), error })?;
    let pressure = text.trim().parse::<f64>().ok().filter(|pressure| (0.0..=1.0).contains(pressure));
    pressure
        .ok_or_else(|| Unmeasured::NoPressure { path: name(), text: text.trim().chars().take(32).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_holds_a_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let says = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            injected(file.path())
        };
        assert_eq!(says("0.75\n").ok(), Some(0.75));
        for text in ["", "1.5", "-1", "much", "NaN"] {
            assert!(says(text).is_err(), "{text}");
        }
        assert!(injected(Path::new("/no/such/file")).is_err());
    }

    #[test]
    fn the_heap_presses_by_its_share() {
        let pressure = pressure(&Resource::Heap { max: 1 }).ok();
        assert!(pressure.is_some_and(|pressure| pressure > 1.0));
    }
}

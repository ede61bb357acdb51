//! Why a task stopped: [`Failure`], one sentence for the terminal.
//!
//! Nothing branches on the kind of a failure here, so there is no enum: a task either held or it says why not.

use std::fmt::Display;

/// The sentence that `main` prints before it exits with code 1.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// A failure with this text.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being attempted when a lower-level error came up.
pub(crate) trait Context<T> {
    /// Turns the error into a [`Failure`] that reads `doing: error`.
    fn context(self, doing: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, doing: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{doing}: {error}")))
    }
}

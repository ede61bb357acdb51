//! The switch between Tidegate's behaviour and Envoy's where the two differ on purpose.

/// Whose behaviour holds (`--envoy-strict`): `docs/` lists the differences under "Coming from Envoy".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compat {
    /// Tidegate's.
    #[default]
    Tidegate,
    /// Envoy's, for comparisons and cautious migrations: how idle connections close, no default
    /// `request_headers_timeout`, no retries without a policy, and no extensions of the configuration.
    EnvoyStrict,
}

impl Compat {
    /// Whether Envoy's behaviour holds.
    pub fn is_strict(self) -> bool {
        self == Self::EnvoyStrict
    }
}

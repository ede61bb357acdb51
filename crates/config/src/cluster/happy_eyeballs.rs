//! `UpstreamConnectionOptions.HappyEyeballsConfig`: in which order a host's addresses are tried.

use crate::reader::{Message, Reader};

/// `happy_eyeballs_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HappyEyeballsConfig {
    /// `first_address_family_version`.
    pub first_family: FirstFamily,
    /// `first_address_family_count`: how many addresses of the first family come before one of each other; 1 when
    /// unset, never 0.
    pub first_count: u32,
}

/// `first_address_family_version`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FirstFamily {
    /// `DEFAULT`: that of the first address.
    #[default]
    OfFirstAddress,
    /// `V4`.
    V4,
    /// `V6`.
    V6,
    /// `PIPE`: Unix-domain sockets.
    Pipe,
}

impl Default for HappyEyeballsConfig {
    fn default() -> Self {
        Self { first_family: FirstFamily::default(), first_count: 1 }
    }
}

impl Message for HappyEyeballsConfig {
    const NAME: &'static str = "envoy.config.cluster.v3.UpstreamConnectionOptions.HappyEyeballsConfig";

    fn read(r: &Reader<'_>) -> Self {
        const FAMILIES: &[(&str, u32, FirstFamily)] = &[
            ("DEFAULT", 0, FirstFamily::OfFirstAddress),
            ("V4", 1, FirstFamily::V4),
            ("V6", 2, FirstFamily::V6),
            ("PIPE", 3, FirstFamily::Pipe),
        ];
        Self {
            first_family: r
                .enumeration("first_address_family_version", FAMILIES, &[("INTERNAL", 4)])
                .or_default(),
            first_count: r.u32("first_address_family_count").positive().or(1),
        }
    }
}

//! `upgrade_configs` of managers and routes.

use crate::reader::{Message, Reader, Space};

/// An entry of `upgrade_configs`, on the manager or a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// `upgrade_type`, lower case: `websocket`; `connect` is the method CONNECT.
    pub upgrade_type: String,
    /// `enabled`, true when unset.
    pub enabled: bool,
}

/// The two messages that [`UpgradeConfig`] is read from; they differ in what this build does not support.
pub(crate) struct HcmUpgrade(UpgradeConfig);

impl Message for HcmUpgrade {
    const NAME: &'static str =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(UpgradeConfig::read(r))
    }
}

pub(crate) struct RouteUpgrade(UpgradeConfig);

impl Message for RouteUpgrade {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.UpgradeConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(UpgradeConfig::read(r))
    }
}

impl From<HcmUpgrade> for UpgradeConfig {
    fn from(upgrade: HcmUpgrade) -> Self {
        upgrade.0
    }
}

impl From<RouteUpgrade> for UpgradeConfig {
    fn from(upgrade: RouteUpgrade) -> Self {
        upgrade.0
    }
}

impl UpgradeConfig {
    fn read(r: &Reader<'_>) -> Self {
        let kind = r.string("upgrade_type").convert(|kind| {
            if kind.eq_ignore_ascii_case("connect-udp") {
                Err(format!("the upgrade `{kind}` is known to Envoy, but not supported by this build"))
            } else {
                Ok(kind.to_ascii_lowercase())
            }
        });
        Self {
            upgrade_type: kind.unique(Space::Upgrade).required_non_empty(),
            enabled: r.bool("enabled").or(true),
        }
    }
}

/// The field `upgrade_configs`; types are unique in it.
pub(crate) fn upgrades<T: Message + Into<UpgradeConfig>>(r: &Reader<'_>) -> Vec<UpgradeConfig> {
    r.cx.forget(Space::Upgrade);
    r.repeated::<T>("upgrade_configs").or_default().into_iter().map(Into::into).collect()
}

//! `upgrade_configs` of managers and routes.

use crate::reader::{Message, Reader, Space};

/// An entry of `upgrade_configs`, on the manager or a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// `upgrade_type`, lower case: `websocket`; `connect` is the method CONNECT.
    pub upgrade_type: String,
    /// `enabled`, true when unset.
    pub enabled: bool,
    /// Where the tunnel of a CONNECT ends.
    pub tunnel: TunnelEnd,
}

/// Where the tunnel of a CONNECT ends (RFC 9110 §9.3.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TunnelEnd {
    /// The request is forwarded, and the upstream ends it.
    #[default]
    Upstream,
    /// `connect_config`: here. The upstream gets the tunnel's bytes over a TCP connection.
    Here,
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
        let mut upgrade = UpgradeConfig::read(r);
        let config = r.message::<ConnectConfig>("connect_config");
        let is_misplaced = config.peek().is_some() && upgrade.upgrade_type != "connect";
        if is_misplaced {
            config.report("only an upgrade of the type `CONNECT` has a `connect_config`", None);
        }
        if config.optional().is_some() {
            upgrade.tunnel = TunnelEnd::Here;
        }
        Self(upgrade)
    }
}

struct ConnectConfig;

impl Message for ConnectConfig {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig";

    fn read(_: &Reader<'_>) -> Self {
        Self
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
            tunnel: TunnelEnd::Upstream,
        }
    }
}

/// The field `upgrade_configs`; types are unique in it.
pub(crate) fn upgrades<T: Message + Into<UpgradeConfig>>(r: &Reader<'_>) -> Vec<UpgradeConfig> {
    r.cx.forget(Space::Upgrade);
    r.repeated::<T>("upgrade_configs").or_default().into_iter().map(Into::into).collect()
}

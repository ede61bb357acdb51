//! `envoy.filters.network.rbac`: lets a connection go on, or closes it, by who it is from and where it goes. Judged
//! when the client's first bytes arrive (so after the handshake of TLS), not before, as in Envoy.
//!
//! Configuration, as in Envoy's `RBAC` message:
//! - `stat_prefix` (required): counters `PREFIX.rbac.{allowed,denied}` and
//!   `PREFIX.rbac.[SHADOW_PREFIX.]{shadow_allowed,shadow_denied}`;
//! - `rules`: without them nobody is denied; `shadow_rules` are judged and counted, nothing more;
//! - `shadow_rules_stat_prefix`;
//! - `enforcement_type`: `ONE_TIME_ON_FIRST_BYTE` or `CONTINUOUS`, at each read;
//! - `delay_deny`: how long a denied connection is held before it is closed.
//!
//! A denial's policy is in `%CONNECTION_TERMINATION_DETAILS%`. The matching API (`matcher`), header, path and
//! metadata rules and CEL conditions are refused.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde::Deserialize;
use tidegate_filter::{FactoryContext, NetworkFilter, NetworkFilterType, NetworkFlow, Step, Wants};
use tidegate_stats::{Scope, stat_block};
use tidegate_types::{ConnectionInfo, EndStream};

use crate::rbac::{Access, Rules, Subject};

/// The filter's type.
pub struct Rbac;

/// The configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(deserialize_with = "crate::config::non_empty")]
    stat_prefix: String,
    #[serde(default)]
    rules: Option<Rules>,
    #[serde(default)]
    shadow_rules: Option<Rules>,
    #[serde(default)]
    shadow_rules_stat_prefix: String,
    #[serde(default)]
    enforcement_type: Enforcement,
    #[serde(default, deserialize_with = "tidegate_types::json::optional_duration")]
    delay_deny: Option<Duration>,
    #[serde(default, rename = "matcher", deserialize_with = "crate::config::unsupported")]
    _matcher: (),
    #[serde(default, rename = "shadow_matcher", deserialize_with = "crate::config::unsupported")]
    _shadow_matcher: (),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Enforcement {
    #[default]
    OneTimeOnFirstByte,
    Continuous,
}

stat_block! {
    /// What the rules said.
    struct Enforced {
        counters {
            /// Connections (or reads) that went on.
            allowed,
            /// Connections that were closed.
            denied,
        }
    }
}

stat_block! {
    /// What the shadow rules would have said.
    struct Shadow {
        counters {
            /// Connections (or reads) that would have gone on.
            shadow_allowed,
            /// Connections that would have been closed.
            shadow_denied,
        }
    }
}

/// The rules and their counters: shared by all workers.
pub struct Factory {
    config: Config,
    enforced: Enforced,
    shadow: Shadow,
}

impl NetworkFilterType for Rbac {
    const NAME: &'static str = "envoy.filters.network.rbac";
    const TYPE_URL: &'static str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
    type Config = Config;
    type Factory = Factory;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<Factory, String> {
        let scope = Scope::root().tagged("envoy_rbac_prefix", &config.stat_prefix).child("rbac");
        let shadow = match config.shadow_rules_stat_prefix.trim_end_matches('.') {
            "" => scope.clone(),
            prefix => scope.child(prefix),
        };
        Ok(Factory {
            config,
            enforced: Enforced::new(cx.stats, scope),
            shadow: Shadow::new(cx.stats, shadow),
        })
    }

    fn open(factory: &Arc<Factory>, _: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter> {
        Box::new(Connection { factory: factory.clone() })
    }
}

struct Connection {
    factory: Arc<Factory>,
}

impl NetworkFilter for Connection {
    fn on_open(&mut self, _: &Rc<ConnectionInfo>) -> Step<'static, NetworkFlow> {
        let Config { rules, shadow_rules, .. } = &self.factory.config;
        Step::Now(match rules.is_none() && shadow_rules.is_none() {
            true => NetworkFlow::Skip,
            false => NetworkFlow::Continue,
        })
    }

    fn on_read(
        &mut self,
        info: &Rc<ConnectionInfo>,
        _: &mut BytesMut,
        _: EndStream,
    ) -> Step<'static, NetworkFlow> {
        let config = &self.factory.config;
        if self.factory.judge(info) == Access::Allowed {
            return Step::Now(match config.enforcement_type {
                Enforcement::OneTimeOnFirstByte => NetworkFlow::Skip,
                Enforcement::Continuous => NetworkFlow::Continue,
            });
        }
        let denial = || NetworkFlow::close("rbac_deny_close");
        match config.delay_deny.filter(|delay| !delay.is_zero()) {
            None => Step::Now(denial()),
            Some(delay) => Step::later(async move {
                tokio::time::sleep(delay).await;
                denial()
            }),
        }
    }

    fn wants(&self) -> Wants {
        Wants::Reads
    }
}

impl Factory {
    fn judge(&self, info: &ConnectionInfo) -> Access {
        let subject = Subject::connection(info);
        if let Some(rules) = &self.config.shadow_rules {
            let verdict = rules.judge(&subject);
            let result = match verdict.access {
                Access::Allowed => {
                    self.shadow.shadow_allowed().inc();
                    "allowed"
                }
                Access::Denied => {
                    self.shadow.shadow_denied().inc();
                    "denied"
                }
            };
            let prefix = &self.config.shadow_rules_stat_prefix;
            let policy = verdict.policy.map(|policy| ("shadow_effective_policy_id", policy));
            let facts = policy.into_iter().chain([("shadow_engine_result", result)]);
            let facts = facts.map(|(key, value)| (format!("{prefix}{key}"), value.to_owned()));
            info.state.add_metadata(Rbac::NAME, facts);
        }
        let Some(rules) = &self.config.rules else { return Access::Allowed };
        let verdict = rules.judge(&subject);
        match verdict.access {
            Access::Allowed => self.enforced.allowed().inc(),
            Access::Denied => {
                self.enforced.denied().inc();
                *info.termination_details.borrow_mut() = Some(verdict.details().into());
            }
        }
        verdict.access
    }
}

#[cfg(test)]
mod tests;

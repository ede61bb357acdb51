//! What a filter may see of the route that a request matched.

use std::any::Any;
use std::sync::Arc;

/// Configuration of one filter at the levels of a route, erased.
pub type ErasedConfig = Arc<dyn Any + Send + Sync>;

/// A matched route, as filters see it.
#[derive(Debug, Default)]
pub struct RouteView {
    /// The route's `name`.
    pub name: Option<Arc<str>>,
    /// The virtual host's `name`.
    pub virtual_host: Option<Arc<str>>,
    /// The per-route configuration of each filter, by its slot in the chain.
    pub per_filter: PerFilterConfig,
}

/// `typed_per_filter_config` of a route and what encloses it, resolved to the chain's slots when the
/// configuration was loaded: a look-up is an array access.
#[derive(Debug, Default)]
pub struct PerFilterConfig {
    slots: Box<[Slot]>,
}

/// One filter's part of a route.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// From the least specific level (route configuration) to the most specific (weighted cluster).
    pub levels: Vec<ErasedConfig>,
    /// `FilterConfig.disabled` of the most specific level that says anything.
    pub disabled: Option<bool>,
}

impl PerFilterConfig {
    /// One entry per filter of the chain, in the chain's order.
    pub fn new(slots: Vec<Slot>) -> Self {
        Self { slots: slots.into() }
    }

    /// The entry of the filter at `slot`.
    pub fn slot(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)
    }

    /// Whether the filter at `slot` is left out of the stream, given what its own configuration says.
    pub fn disabled(&self, slot: usize, by_default: bool) -> bool {
        self.slot(slot).and_then(|slot| slot.disabled).unwrap_or(by_default)
    }
}

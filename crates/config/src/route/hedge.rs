//! `envoy.config.route.v3.HedgePolicy`: a second try beside one that is slow.

use crate::reader::{Message, Reader};
use crate::values::FractionalPercent;

/// `HedgePolicy`. What Envoy has fields for and never does is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HedgePolicy {
    /// `hedge_on_per_try_timeout`: a try that exceeds `per_try_timeout` goes on while the next is made; the first
    /// good answer wins. Needs a retry policy whose `retry_on` covers 504.
    pub on_per_try_timeout: bool,
}

impl Message for HedgePolicy {
    const NAME: &'static str = "envoy.config.route.v3.HedgePolicy";

    fn read(r: &Reader<'_>) -> Self {
        r.u32("initial_requests").positive().only(1);
        let chance = r.message::<FractionalPercent>("additional_request_chance");
        if chance.peek().is_some_and(|chance| chance.numerator > 0) {
            chance.report("Envoy accepts this field and makes no such requests; nor does this build", None);
        }
        Self { on_per_try_timeout: r.bool("hedge_on_per_try_timeout").or_default() }
    }
}

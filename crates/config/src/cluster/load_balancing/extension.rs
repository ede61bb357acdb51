//! `envoy.config.cluster.v3.LoadBalancingPolicy`: a list of policies of which the first known one holds.

use super::hashing::{Maglev, RingHash};
use super::least_request::LeastRequest;
use super::slow_start::RoundRobin;
use super::subsets::Subset;
use super::{Balancing, LbPolicy, LocalityLb};
use crate::reader::{Any, Message, Reader};

/// `load_balancing_policy`; `None` inside: none is known, which was reported.
pub(super) struct LoadBalancingPolicy(pub(super) Option<Balancing>);

impl Message for LoadBalancingPolicy {
    const NAME: &'static str = "envoy.config.cluster.v3.LoadBalancingPolicy";

    fn read(r: &Reader<'_>) -> Self {
        let policies = r.repeated::<Policy>("policies");
        let missing = policies.peek().is_none_or(Vec::is_empty);
        let mut entries = policies.or_default();
        let known = entries.iter().position(|policy| policy.known.is_some());
        if known.is_none() && !missing {
            let types = entries.iter().map(|policy| policy.type_name.as_str()).collect::<Vec<_>>().join(", ");
            r.problem(format!("no load balancing policy of the list is known to this build: {types}"));
        } else if missing {
            r.problem("`policies` must not be empty");
        }
        Self(known.and_then(|index| entries.swap_remove(index).known))
    }
}

/// `Policy`.
struct Policy {
    type_name: String,
    known: Option<Balancing>,
}

impl Message for Policy {
    const NAME: &'static str = "envoy.config.cluster.v3.LoadBalancingPolicy.Policy";

    fn read(r: &Reader<'_>) -> Self {
        r.required_message::<Extension>("typed_extension_config").0
    }
}

/// `TypedExtensionConfig` of a load balancing policy.
struct Extension(Policy);

impl Message for Extension {
    const NAME: &'static str = "envoy.config.core.v3.TypedExtensionConfig";

    fn read(r: &Reader<'_>) -> Self {
        // `may_be` describes what stands behind the `typed_config` that was taken last.
        let extension = r.extension_any();
        r.may_be::<RoundRobin>();
        r.may_be::<LeastRequest>();
        r.may_be::<Random>();
        r.may_be::<RingHash>();
        r.may_be::<Maglev>();
        r.may_be::<WrrLocality>();
        r.may_be::<Subset>();
        let Some(extension) = extension else {
            return Self(Policy { type_name: String::new(), known: None });
        };
        let type_name = extension.config.type_url.rsplit('/').next().unwrap_or_default().to_owned();
        Self(Policy { type_name, known: open(r, &extension.config) })
    }
}

fn open<'a>(r: &Reader<'a>, any: &Any<'a>) -> Option<Balancing> {
    let (policy, locality) = if any.is::<RoundRobin>() {
        let RoundRobin(slow_start, locality) = any.read(r);
        (LbPolicy::RoundRobin { slow_start }, locality)
    } else if any.is::<LeastRequest>() {
        let LeastRequest(config, locality) = any.read(r);
        (LbPolicy::LeastRequest(config), locality)
    } else if any.is::<Random>() {
        let Random(locality) = any.read(r);
        (LbPolicy::Random, locality)
    } else if any.is::<RingHash>() {
        let RingHash(config, locality) = any.read(r);
        (LbPolicy::RingHash(config), locality)
    } else if any.is::<Maglev>() {
        let Maglev(config, locality) = any.read(r);
        (LbPolicy::Maglev(config), locality)
    } else if any.is::<WrrLocality>() {
        let WrrLocality(inner) = any.read(r);
        (inner?.policy, LocalityLb::Weighted)
    } else if any.is::<Subset>() {
        let Subset(inner) = any.read(r);
        return inner;
    } else {
        return None;
    };
    Some(Balancing { policy, locality, subsets: None })
}

/// `envoy.extensions.load_balancing_policies.random.v3.Random`.
struct Random(LocalityLb);

impl Message for Random {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.random.v3.Random";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.message_or_defaults("locality_lb_config"))
    }
}

/// `envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality`: weights of localities, and another policy
/// within each.
struct WrrLocality(Option<Balancing>);

impl Message for WrrLocality {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality";

    fn read(r: &Reader<'_>) -> Self {
        let LoadBalancingPolicy(inner) = r.required_message("endpoint_picking_policy");
        if inner.as_ref().is_some_and(|inner| inner.subsets.is_some()) {
            r.problem(
                "`endpoint_picking_policy` is one of subsets, which go around localities, not into them",
            );
        }
        Self(inner)
    }
}

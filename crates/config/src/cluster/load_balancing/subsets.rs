//! Subsets of a cluster's hosts by their labels: `lb_subset_config`, or the extension `subset`.

use std::collections::BTreeSet;

use tidegate_types::json::Node;

use super::Balancing;
use super::extension::LoadBalancingPolicy;
use crate::reader::{Message, Reader};

/// How requests with a `metadata_match` choose among the hosts that have such labels.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetConfig {
    /// `fallback_policy`.
    pub fallback: SubsetFallback,
    /// `default_subset`: the labels of the hosts of [`SubsetFallback::DefaultSubset`].
    pub default_subset: Vec<(String, Node)>,
    /// `subset_selectors`; only the extension may have none.
    pub selectors: Vec<SubsetSelector>,
    /// `locality_weight_aware`: weights of localities count, if they count in the cluster.
    pub locality_weight_aware: bool,
    /// `scale_locality_weight`: by the share of the locality's hosts that the subset has.
    pub scale_locality_weight: bool,
    /// `panic_mode_any`: any host where the fallback has none.
    pub panic_mode_any: bool,
    /// `list_as_any`: a host whose label is a list has each of its values.
    pub list_as_any: bool,
    /// `metadata_fallback_policy` FALLBACK_LIST: a request's label `fallback_list` holds other labels that are tried in
    /// their order.
    pub fallback_list: bool,
    /// `allow_redundant_keys` of the extension: the selector with most keys, all of which a request has, decides, whatever else it
    /// has.
    pub allow_redundant_keys: bool,
}

/// Where requests go that no subset is for: `fallback_policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SubsetFallback {
    /// `NO_FALLBACK`: nowhere.
    #[default]
    None,
    /// `ANY_ENDPOINT`: to any host.
    AnyEndpoint,
    /// `DEFAULT_SUBSET`: to the hosts of `default_subset`.
    DefaultSubset,
}

/// `LbSubsetSelector`: hosts that have all these labels are in one subset where the values are equal.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetSelector {
    /// `keys`, sorted.
    pub keys: Vec<String>,
    /// `fallback_policy`; `None`: the cluster's.
    pub fallback: Option<SelectorFallback>,
    /// `single_host_per_subset`: the first host of each subset is the only one.
    pub single_host_per_subset: bool,
}

/// Where requests go that have the selector's keys, and values that no host has.
#[derive(Debug, Clone, PartialEq)]
pub enum SelectorFallback {
    /// As the cluster's that is so called.
    To(SubsetFallback),
    /// `KEYS_SUBSET` with `fallback_keys_subset`, sorted: as if the request had these keys only.
    Keys(Vec<String>),
}

/// `Cluster.LbSubsetConfig`.
pub(super) struct LegacySubsets(SubsetConfig);

impl LegacySubsets {
    /// `lb_subset_config`; as in Envoy it has no effect without a selector.
    pub(super) fn read_in(r: &Reader<'_>) -> Option<Box<SubsetConfig>> {
        let config = r.message::<Self>("lb_subset_config").optional().map(|config| config.0);
        config.filter(|config| !config.selectors.is_empty()).map(Box::new)
    }
}

impl Message for LegacySubsets {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.LbSubsetConfig";

    fn read(r: &Reader<'_>) -> Self {
        let selectors = r.repeated::<LegacySelector>("subset_selectors").or_default();
        Self(own(r, selectors.into_iter().map(|selector| selector.0).collect()))
    }
}

/// `envoy.extensions.load_balancing_policies.subset.v3.Subset`.
pub(super) struct Subset(pub(super) Option<Balancing>);

impl Message for Subset {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.subset.v3.Subset";

    fn read(r: &Reader<'_>) -> Self {
        let LoadBalancingPolicy(inner) = r.required_message("subset_lb_policy");
        if inner.as_ref().is_some_and(|inner| inner.subsets.is_some()) {
            r.problem("`subset_lb_policy` is itself one of subsets");
        }
        let selectors = r.repeated::<Selector>("subset_selectors").or_default();
        let config = own(r, selectors.into_iter().map(|selector| selector.0).collect());
        let allow_redundant_keys = r.bool("allow_redundant_keys").or_default();
        let subsets = Some(Box::new(SubsetConfig { allow_redundant_keys, ..config }));
        Self(inner.map(|inner| Balancing { subsets, ..inner }))
    }
}

/// What both have.
fn own(r: &Reader<'_>, selectors: Vec<SubsetSelector>) -> SubsetConfig {
    const POLICIES: &[(&str, u32, SubsetFallback)] = &[
        ("NO_FALLBACK", 0, SubsetFallback::None),
        ("ANY_ENDPOINT", 1, SubsetFallback::AnyEndpoint),
        ("DEFAULT_SUBSET", 2, SubsetFallback::DefaultSubset),
    ];
    let default_subset = r.structure("default_subset").or_default();
    let labels = default_subset.members().iter();
    const LISTS: &[(&str, u32, bool)] = &[("METADATA_NO_FALLBACK", 0, false), ("FALLBACK_LIST", 1, true)];
    SubsetConfig {
        fallback: r.enumeration("fallback_policy", POLICIES, &[]).or_default(),
        default_subset: labels.map(|label| (label.key.to_string(), label.value.clone())).collect(),
        selectors,
        locality_weight_aware: r.bool("locality_weight_aware").or_default(),
        scale_locality_weight: r.bool("scale_locality_weight").or_default(),
        panic_mode_any: r.bool("panic_mode_any").or_default(),
        list_as_any: r.bool("list_as_any").or_default(),
        fallback_list: r.enumeration("metadata_fallback_policy", LISTS, &[]).or_default(),
        allow_redundant_keys: false,
    }
}

/// `Cluster.LbSubsetConfig.LbSubsetSelector`.
struct LegacySelector(SubsetSelector);

impl Message for LegacySelector {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.LbSubsetConfig.LbSubsetSelector";

    fn read(r: &Reader<'_>) -> Self {
        Self(selector(r))
    }
}

/// The same of the extension.
struct Selector(SubsetSelector);

impl Message for Selector {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.subset.v3.Subset.LbSubsetSelector";

    fn read(r: &Reader<'_>) -> Self {
        Self(selector(r))
    }
}

fn selector(r: &Reader<'_>) -> SubsetSelector {
    /// The policies without their keys.
    #[derive(Clone, Copy, Default)]
    enum Policy {
        #[default]
        Cluster,
        To(SubsetFallback),
        Keys,
    }
    const POLICIES: &[(&str, u32, Policy)] = &[
        ("NOT_DEFINED", 0, Policy::Cluster),
        ("NO_FALLBACK", 1, Policy::To(SubsetFallback::None)),
        ("ANY_ENDPOINT", 2, Policy::To(SubsetFallback::AnyEndpoint)),
        ("DEFAULT_SUBSET", 3, Policy::To(SubsetFallback::DefaultSubset)),
        ("KEYS_SUBSET", 4, Policy::Keys),
    ];
    let sorted = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let keys: Vec<String> = sorted(r.strings("keys").or_default());
    let policy = r.enumeration("fallback_policy", POLICIES, &[]).or_default();
    let of_keys = r.strings("fallback_keys_subset");
    let fewer: Vec<String> = sorted(of_keys.peek().cloned().unwrap_or_default());
    match policy {
        Policy::Keys if fewer.is_empty() => of_keys.report("KEYS_SUBSET needs keys to fall back to", None),
        Policy::Keys if !fewer.iter().all(|key| keys.contains(key)) => {
            of_keys.report("these must be some of the selector's `keys`", None);
        }
        Policy::Keys if fewer == keys => {
            of_keys.report("these must not be all of the selector's `keys`", None);
        }
        Policy::Cluster | Policy::To(_) if !fewer.is_empty() => {
            of_keys.report("only the `fallback_policy` KEYS_SUBSET has it", None);
        }
        _ => {}
    }
    of_keys.or_default();
    SubsetSelector {
        keys,
        fallback: match policy {
            Policy::Cluster => None,
            Policy::To(policy) => Some(SelectorFallback::To(policy)),
            Policy::Keys => Some(SelectorFallback::Keys(fewer)),
        },
        single_host_per_subset: r.bool("single_host_per_subset").or_default(),
    }
}

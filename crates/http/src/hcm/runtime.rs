//! Runtime values that a route table names: they are part of the configuration here, so that a table is
//! compiled with them.

use std::sync::Arc;

use tidegate_config::route::{Action, ClusterSpecifier, Route, WeightedTarget};
use tidegate_config::values::FractionalPercent;
use tidegate_config::{RouteConfig, Runtime};

/// `config` with the runtime's values in place of the defaults of `runtime_fraction` and the weights of
/// `weighted_clusters`.
pub(super) fn resolve(config: &Arc<RouteConfig>, runtime: &Runtime) -> Arc<RouteConfig> {
    let mut config = config.clone();
    if runtime.values.is_empty() {
        return config;
    }
    for host in &mut Arc::make_mut(&mut config).virtual_hosts {
        for route in host.routes.iter_mut().filter(|route| names_runtime(route)) {
            resolve_route(Arc::make_mut(route), runtime);
        }
    }
    config
}

fn names_runtime(route: &Route) -> bool {
    let weighted = match &route.action {
        Action::Route(action) => match &action.cluster {
            ClusterSpecifier::Weighted(weighted) => !weighted.runtime_key_prefix.is_empty(),
            _ => false,
        },
        _ => false,
    };
    weighted || route.matcher.runtime_fraction.as_ref().is_some_and(|share| !share.runtime_key.is_empty())
}

fn resolve_route(route: &mut Route, runtime: &Runtime) {
    if let Some(share) = &mut route.matcher.runtime_fraction
        && let Some(percent) = runtime.integer(&share.runtime_key)
    {
        let numerator = u32::try_from(percent).unwrap_or(u32::MAX);
        share.default = FractionalPercent { numerator, denominator: 100 };
    }
    let Action::Route(action) = &mut route.action else { return };
    let ClusterSpecifier::Weighted(weighted) = &mut action.cluster else { return };
    let mut weights: Vec<u32> = weighted.clusters.iter().map(|cluster| cluster.weight).collect();
    for (weight, cluster) in weights.iter_mut().zip(&weighted.clusters) {
        let WeightedTarget::Name(name) = &cluster.cluster else { continue };
        let key = format!("{}.{name}", weighted.runtime_key_prefix);
        if let Some(value) = runtime.integer(&key) {
            *weight = u32::try_from(value).unwrap_or(u32::MAX);
        }
    }
    // Nothing could be picked: the file's weights are better than none.
    let sum = weights.iter().try_fold(0_u32, |sum, weight| sum.checked_add(*weight));
    if sum.is_some_and(|sum| sum > 0) {
        weighted.clusters.iter_mut().zip(weights).for_each(|(cluster, weight)| cluster.weight = weight);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tidegate_config::{Format, from_str, listener::NetworkFilterConfig};

    use super::*;

    const FILE: &str = r#"
layered_runtime: {layers: [{name: l, static_layer: {share: 30, weights: {a: 9}}}]}
static_resources:
  clusters: [{name: a}, {name: b}]
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: p
          http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - match: {prefix: /, runtime_fraction: {runtime_key: share, default_value: {numerator: 1, denominator: MILLION}}}
                route: {weighted_clusters: {runtime_key_prefix: weights, clusters: [{name: a, weight: 1}, {name: b, weight: 2}]}}
"#;

    #[test]
    fn runtime_values_take_the_place_of_defaults_and_weights() {
        let bootstrap = from_str(FILE, "x.yaml", Format::Yaml).unwrap();
        let NetworkFilterConfig::Http(hcm) = &bootstrap.listeners[0].filter_chains[0].filters[0] else {
            panic!("no HTTP")
        };
        let resolved = resolve(&hcm.route_config, &bootstrap.runtime);
        let route = &resolved.virtual_hosts[0].routes[0];
        let share = route.matcher.runtime_fraction.as_ref().unwrap().default;
        assert_eq!((share.numerator, share.denominator), (30, 100));
        let Action::Route(action) = &route.action else { panic!("no route") };
        let ClusterSpecifier::Weighted(weighted) = &action.cluster else { panic!("no weights") };
        let weights: Vec<_> = weighted.clusters.iter().map(|cluster| cluster.weight).collect();
        assert_eq!(weights, [9, 2]);
        assert!(Arc::ptr_eq(&resolve(&hcm.route_config, &Runtime::default()), &hcm.route_config));
    }
}

//! Runtime values that a route table names: they are part of the configuration here, so that a table is
//! compiled with them.

use std::sync::Arc;

use tidegate_config::route::{
    Action, ClusterSpecifier, ClusterWeight, MirrorPolicy, Route, WeightedClusters, WeightedTarget,
};
use tidegate_config::values::{FractionalPercent, RuntimeFraction};
use tidegate_config::{RouteConfig, Runtime};

/// `config` with the runtime's values in place of the defaults of `runtime_fraction`, of routes as of mirrors, and of
/// the weights of `weighted_clusters`.
pub(super) fn resolve(config: &Arc<RouteConfig>, runtime: &Runtime) -> Arc<RouteConfig> {
    let mut config = config.clone();
    if !has_news(&config, runtime) {
        return config;
    }
    let table = Arc::make_mut(&mut config);
    resolve_mirrors(&mut table.mirrors, runtime);
    for host in &mut table.virtual_hosts {
        resolve_mirrors(&mut host.mirrors, runtime);
        for route in host.routes.iter_mut().filter(|route| route_has_news(route, runtime)) {
            resolve_route(Arc::make_mut(route), runtime);
        }
    }
    config
}

/// Whether any key that the table names has a value. Asks for all of them: one that has none yet may get one.
fn has_news(config: &RouteConfig, runtime: &Runtime) -> bool {
    let of_hosts = config.virtual_hosts.iter().map(|host| {
        let of_routes = host.routes.iter().map(|route| route_has_news(route, runtime));
        // All of them, and not until the first.
        of_routes.fold(mirrors_have_news(&host.mirrors, runtime), |any, news| any | news)
    });
    of_hosts.fold(mirrors_have_news(&config.mirrors, runtime), |any, news| any | news)
}

fn mirrors_have_news(mirrors: &[MirrorPolicy], runtime: &Runtime) -> bool {
    let shares = mirrors.iter().filter_map(|mirror| mirror.runtime_fraction.as_ref());
    shares.fold(false, |any, share| any | value(share, runtime).is_some())
}

fn route_has_news(route: &Route, runtime: &Runtime) -> bool {
    let share = route.matcher.runtime_fraction.as_ref().and_then(|share| value(share, runtime)).is_some();
    let Action::Route(action) = &route.action else { return share };
    let mirrors = mirrors_have_news(&action.mirrors, runtime);
    let weights = match &action.cluster {
        ClusterSpecifier::Weighted(weighted) => weighted
            .clusters
            .iter()
            .fold(false, |any, cluster| any | weight(weighted, cluster, runtime).is_some()),
        _ => false,
    };
    share | mirrors | weights
}

fn resolve_route(route: &mut Route, runtime: &Runtime) {
    if let Some(share) = &mut route.matcher.runtime_fraction {
        resolve_share(share, runtime);
    }
    let Action::Route(action) = &mut route.action else { return };
    resolve_mirrors(&mut action.mirrors, runtime);
    let ClusterSpecifier::Weighted(weighted) = &mut action.cluster else { return };
    let weights =
        weighted.clusters.iter().map(|cluster| weight(weighted, cluster, runtime).unwrap_or(cluster.weight));
    let weights: Vec<u32> = weights.collect();
    // Nothing could be picked: the file's weights are better than none.
    let sum = weights.iter().try_fold(0_u32, |sum, weight| sum.checked_add(*weight));
    if sum.is_some_and(|sum| sum > 0) {
        weighted.clusters.iter_mut().zip(weights).for_each(|(cluster, weight)| cluster.weight = weight);
    }
}

fn resolve_mirrors(mirrors: &mut [MirrorPolicy], runtime: &Runtime) {
    mirrors
        .iter_mut()
        .filter_map(|mirror| mirror.runtime_fraction.as_mut())
        .for_each(|share| resolve_share(share, runtime));
}

fn resolve_share(share: &mut RuntimeFraction, runtime: &Runtime) {
    share.default = value(share, runtime).unwrap_or(share.default);
}

fn value(share: &RuntimeFraction, runtime: &Runtime) -> Option<FractionalPercent> {
    if share.runtime_key.is_empty() { None } else { runtime.share(&share.runtime_key) }
}

fn weight(weighted: &WeightedClusters, cluster: &ClusterWeight, runtime: &Runtime) -> Option<u32> {
    let WeightedTarget::Name(name) = &cluster.cluster else { return None };
    if weighted.runtime_key_prefix.is_empty() {
        return None;
    }
    let weight = runtime.integer(&format!("{}.{name}", weighted.runtime_key_prefix))?;
    Some(u32::try_from(weight).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tidegate_config::{Format, RuntimeValue, from_str, listener::NetworkFilterConfig};

    use super::*;

    const FILE: &str = r#"
layered_runtime: {layers: [{name: l, static_layer: {share: 30, weights: {a: 9}, copies: {numerator: 5, denominator: MILLION}}}]}
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
                route:
                  weighted_clusters: {runtime_key_prefix: weights, clusters: [{name: a, weight: 1}, {name: b, weight: 2}]}
                  request_mirror_policies: [{cluster: b, runtime_fraction: {runtime_key: copies, default_value: {}}}]
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
        let copies = action.mirrors[0].runtime_fraction.as_ref().unwrap().default;
        assert_eq!((copies.numerator, copies.denominator), (5, 1_000_000));
    }

    #[test]
    fn keys_without_a_value_are_asked_for_too() {
        let bootstrap = from_str(FILE, "x.yaml", Format::Yaml).unwrap();
        let NetworkFilterConfig::Http(hcm) = &bootstrap.listeners[0].filter_chains[0].filters[0] else {
            panic!("no HTTP")
        };
        let nothing = Runtime::default();
        let (same, answers) = nothing.recorded(|| resolve(&hcm.route_config, &nothing));
        assert!(Arc::ptr_eq(&same, &hcm.route_config));
        for key in ["share", "weights.a", "weights.b", "copies"] {
            let mut other = Runtime::default();
            other.values.insert(key.into(), RuntimeValue::Number(1.0));
            assert!(!answers.hold(&other), "{key}");
        }
    }
}

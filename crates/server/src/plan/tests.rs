#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_config::{Bootstrap, Format, from_str};

use super::*;

/// Listeners `(name, port, status)` that answer with a fixed status.
fn bootstrap(listeners: &[(&str, u16, u16)]) -> Bootstrap {
    let listeners: Vec<_> = listeners
        .iter()
        .map(|(name, port, status)| {
            serde_json::json!({
                "name": name,
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": concat!("type.googleapis.com/envoy.extensions.filters.network.",
                            "http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "p",
                        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                            {"match": {"prefix": "/"}, "direct_response": {"status": status}}]}]},
                        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                            "@type": concat!("type.googleapis.com/",
                                "envoy.extensions.filters.http.router.v3.Router")}}]
                    }
                }]}]
            })
        })
        .collect();
    let text = serde_json::json!({"static_resources": {"listeners": listeners}});
    from_str(&text.to_string(), "test.json", Format::Json).unwrap()
}

fn plan(old: &[(&str, u16, u16)], new: &[(&str, u16, u16)]) -> ListenerPlan {
    let old = bootstrap(old).listeners;
    // The kernel gave port 7 to those that asked for any.
    let bound = |address: &tidegate_types::Address| match address.port() {
        Some(0) => tidegate_types::Address::Ip(([127, 0, 0, 1], 7).into()),
        _ => address.clone(),
    };
    let held: Vec<_> = old.iter().map(|listener| bound(&listener.address)).collect();
    let held: Vec<_> = held.into_iter().map(|address| Place { address, udp: false }).collect();
    ListenerPlan::new(&old, &bootstrap(new).listeners, &held)
}

#[test]
fn the_same_configuration_is_kept_whatever_its_order() {
    let plan = plan(&[("a", 1, 200), ("b", 2, 200)], &[("b", 2, 200), ("a", 1, 200)]);
    assert_eq!(plan, ListenerPlan { steps: vec![Step::Keep, Step::Keep], removed: vec![] });
}

#[test]
fn a_route_change_keeps_the_socket() {
    assert_eq!(plan(&[("a", 1, 200)], &[("a", 1, 201)]).steps, [Step::Update]);
}

#[test]
fn another_address_is_opened_before_the_old_one_goes() {
    let plan = plan(&[("a", 1, 200)], &[("a", 2, 200), ("b", 3, 200)]);
    assert_eq!(
        plan.steps,
        [Step::Open(Opening::Replaces, Address::Free), Step::Open(Opening::Added, Address::Free)]
    );
    assert_eq!(plan.removed, [""; 0]);
}

#[test]
fn a_renamed_listener_takes_its_address_over() {
    let plan = plan(&[("a", 1, 200), ("z", 0, 200)], &[("b", 1, 200), ("y", 0, 200)]);
    assert_eq!(
        plan.steps,
        [Step::Open(Opening::Added, Address::TakenOver), Step::Open(Opening::Added, Address::Free)]
    );
    assert_eq!(plan.removed, ["a", "z"]);
}

#[test]
fn a_port_that_the_kernel_chose_can_be_taken_over_by_its_number() {
    let plan = plan(&[("z", 0, 200)], &[("y", 7, 200)]);
    assert_eq!(plan.steps, [Step::Open(Opening::Added, Address::TakenOver)]);
}

#[test]
fn sockets_that_were_told_something_else_are_opened_anew() {
    let old = bootstrap(&[("a", 1, 200)]).listeners;
    let mut new = (*old[0]).clone();
    new.freebind = true;
    let plan = ListenerPlan::new(&old, &[Arc::new(new)], &[]);
    assert_eq!(plan.steps, [Step::Open(Opening::Replaces, Address::Free)]);
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const CLUSTER: &str = r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a"}"#;

fn response(resources: &str) -> String {
    format!(r#"{{"version_info": "7", "nonce": "x", "resources": [{resources}]}}"#)
}

fn invalid<T: std::fmt::Debug>(read: Result<Response<T>, Refused>) -> Vec<String> {
    match read.unwrap_err() {
        Refused::Invalid(errors) => errors.iter().map(ToString::to_string).collect(),
        Refused::Unreadable(error) => panic!("{error}"),
    }
}

#[test]
fn clusters_with_their_texts() {
    let read = clusters(&response(CLUSTER), "f", Format::Json, &Arc::default()).unwrap();
    assert_eq!((read.version.as_str(), read.resources.len()), ("7", 1));
    assert_eq!((read.resources[0].value.name.as_str(), &*read.resources[0].text), ("a", CLUSTER));
    let yaml = "version_info: '7'\nresources:\n- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: a\n";
    let read = clusters(yaml, "f", Format::Yaml, &Arc::default()).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&read.resources[0].text).unwrap(),
        serde_json::from_str::<serde_json::Value>(CLUSTER).unwrap()
    );
    assert_eq!(clusters("{}", "f", Format::Json, &Arc::default()).unwrap().resources.len(), 0);
}

#[test]
fn a_wrapper_is_looked_through() {
    let wrapped = format!(
        r#"{{"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource", "name": "a", "version": "1", "resource": {CLUSTER}}}"#
    );
    let read = clusters(&response(&wrapped), "f", Format::Json, &Arc::default()).unwrap();
    assert_eq!(&*read.resources[0].text, CLUSTER);
    let empty = r#"{"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource"}"#;
    assert_eq!(
        invalid(clusters(&response(empty), "f", Format::Json, &Arc::default())),
        ["f:1:51: resources[0]: missing field `resource`"]
    );
}

#[test]
fn what_is_no_response_failed_and_what_is_wrong_in_one_is_rejected() {
    assert!(matches!(clusters("{", "f", Format::Json, &Arc::default()), Err(Refused::Unreadable(_))));
    assert!(matches!(clusters("[]", "f", Format::Json, &Arc::default()), Err(Refused::Unreadable(_))));
    let other = CLUSTER.replace("cluster.v3.Cluster", "listener.v3.Listener");
    let bad = CLUSTER.replace("\"a\"", "\"\"");
    let errors = invalid(clusters(
        &response(&format!("{other}, {bad}, {CLUSTER}")),
        "f",
        Format::Json,
        &Arc::default(),
    ));
    assert_eq!(errors.len(), 2);
    assert!(
        errors[0].contains("resources[0].@type: `type.googleapis.com/envoy.config.listener.v3.Listener`")
    );
    assert!(errors[1].contains("resources[1].name: must not be empty"), "{errors:?}");
}

#[test]
fn routes_of_a_file_may_name_clusters_that_do_not_exist_yet() {
    let table = |more: &str| {
        response(&format!(
            r#"{{"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "r"{more},
            "virtual_hosts": [{{"name": "v", "domains": ["*"],
            "routes": [{{"match": {{"prefix": "/"}}, "route": {{"cluster": "later"}}}}]}}]}}"#
        ))
    };
    let references = |text: &str| {
        let read = route_tables(text, "f", Format::Json).unwrap();
        read.resources[0].references.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert!(references(&table("")).is_empty());
    assert_eq!(references(&table(r#", "validate_clusters": true"#)), ["later"]);
}

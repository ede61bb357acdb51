//! Expected heads were taken from Envoy 1.40.

use std::rc::Rc;
use std::time::SystemTime;

use http::Method;
use tidegate_config::RouteConfig;
use tidegate_config::route::{
    self as config, Action, AppendAction, ClusterSpecifier, HeaderMutations, HeaderToAdd, PathMatch,
    SchemeRedirect,
};
use tidegate_config::values::{Pattern, RegexRewrite};
use tidegate_types::{Address, ConnectionInfo, Scheme, StreamInfo};

use super::*;
use crate::table::tests::{compile, config as table_config, host, route};

pub(crate) fn action(cluster: ClusterSpecifier) -> config::RouteAction {
    config::RouteAction {
        cluster,
        cluster_not_found_status: 503,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        timeout: Some(Duration::from_secs(15)),
        idle_timeout: TimeoutOverride::Inherit,
        flush_timeout: TimeoutOverride::Inherit,
        max_stream_duration: TimeoutOverride::Inherit,
        grpc_timeout_header_max: TimeoutOverride::Inherit,
        grpc_timeout_header_offset: None,
        max_grpc_timeout: TimeoutOverride::Inherit,
        grpc_timeout_offset: None,
        retry_policy: None,
        internal_redirect: None,
        hedge_policy: None,
        mirrors: Vec::new(),
        priority: Priority::Default,
        upgrades: Vec::new(),
        hash_policy: Vec::new(),
        metadata_match: Vec::new(),
    }
}

fn to_cluster() -> config::RouteAction {
    action(ClusterSpecifier::Cluster("u".to_owned()))
}

fn info() -> StreamInfo {
    let address = Address::Ip("127.0.0.1:1".parse().unwrap());
    let connection = ConnectionInfo::new(1, address.clone(), address, "l".into());
    StreamInfo::new(Rc::new(connection), SystemTime::UNIX_EPOCH)
}

fn request(host: &str, path: &str, headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, host.to_owned(), path.to_owned());
    for (name, value) in headers {
        head.headers.append(*name, HeaderValue::from_static(value));
    }
    head
}

fn table(path: PathMatch, action: Action) -> RouteConfig {
    let mut route = route("r", path);
    route.action = action;
    table_config(vec![host("v", &["*"], vec![route])])
}

/// Method line and headers of what goes upstream.
fn forwarded(config: &RouteConfig, mut head: RequestHead) -> String {
    let table = compile(config);
    let route = table.matches(&head, Scheme::Http, 0).unwrap().clone();
    let (original, info) = (head.clone(), info());
    let cx = LogContext {
        request: Some(&original),
        response: None,
        response_trailers: None,
        local_reply_body: "",
        info: &info,
    };
    route.finalize_request(&mut head, &cx, EnvoyHeaders::Add);
    let mut out = format!("{} {}", head.authority_str(), head.path_str());
    for (name, value) in &head.headers {
        out.push_str(&format!(" {name}={}", value.to_str().unwrap()));
    }
    out
}

fn regex(pattern: &str, substitution: &str) -> RegexRewrite {
    RegexRewrite { pattern: Pattern(pattern.to_owned()), substitution: substitution.to_owned() }
}

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.to_owned())
}

#[test]
fn paths_are_rewritten_and_keep_their_query() {
    let run = |matcher: PathMatch, rewrite: config::PathRewrite, path: &str| {
        let action = config::RouteAction { path_rewrite: Some(rewrite), ..to_cluster() };
        let config = table(matcher, Action::Route(Box::new(action)));
        forwarded(&config, request("a.test", path, &[]))
    };
    let to = |text: &str| config::PathRewrite::Prefix(text.to_owned());
    assert_eq!(run(prefix("/pre/"), to("/"), "/pre/abc?d"), "a.test /abc?d x-envoy-original-path=/pre/abc?d");
    assert_eq!(
        run(PathMatch::Exact("/x".to_owned()), to("/y"), "/x?q"),
        "a.test /y?q x-envoy-original-path=/x?q"
    );
    let whole = PathMatch::Regex(Pattern("/r.*".to_owned()));
    assert_eq!(run(whole, to("/y"), "/r/s?q"), "a.test /y?q x-envoy-original-path=/r/s?q");
    let rewrite = config::PathRewrite::Regex(regex("/re/(.)", r"/\1-\0"));
    assert_eq!(
        run(prefix("/re"), rewrite, "/re/x/re/y?/re/z"),
        "a.test /x-/re/x/y-/re/y?/re/z x-envoy-original-path=/re/x/re/y?/re/z"
    );
    let format = config::PathRewrite::Format("/new%REQ(:METHOD)%".to_owned());
    assert_eq!(run(prefix("/"), format, "/pf/a?b=c"), "a.test /newGET?b=c x-envoy-original-path=/pf/a?b=c");
    assert_eq!(run(prefix("/"), to(""), "/a"), "a.test /a");
}

#[test]
fn hosts_are_rewritten_and_kept() {
    let run = |rewrite: config::HostRewrite, append, path: &str, headers: &[(&'static str, &'static str)]| {
        let action = config::RouteAction {
            host_rewrite: Some(rewrite),
            append_x_forwarded_host: append,
            ..to_cluster()
        };
        let config = table(prefix("/"), Action::Route(Box::new(action)));
        forwarded(&config, request("a.test", path, headers))
    };
    let literal = || config::HostRewrite::Literal("new.test".to_owned());
    assert_eq!(run(literal(), false, "/", &[]), "new.test / x-envoy-original-host=a.test");
    assert_eq!(
        run(literal(), true, "/", &[("x-forwarded-host", "o.test")]),
        "new.test / x-forwarded-host=o.test,a.test x-envoy-original-host=a.test"
    );
    assert_eq!(
        run(literal(), true, "/", &[("x-forwarded-host", "a.test")]),
        "new.test / x-forwarded-host=a.test x-envoy-original-host=a.test"
    );
    let header = || config::HostRewrite::Header("x-h".to_owned());
    assert_eq!(run(header(), false, "/", &[]), "a.test /");
    assert_eq!(run(header(), false, "/", &[("x-h", "h")]), "h / x-h=h x-envoy-original-host=a.test");
    let from_path = config::HostRewrite::PathRegex(regex("^/hpr/(.+)$", r"\1.test"));
    assert_eq!(run(from_path, false, "/hpr/q?z", &[]), "q.test /hpr/q?z x-envoy-original-host=a.test");
    let format = config::HostRewrite::Format("h-%REQ(x-p)%.test".to_owned());
    assert_eq!(run(format, false, "/", &[("x-p", "P")]), "h-P.test / x-p=P x-envoy-original-host=a.test");
}

/// The same mutations at one level, marked with its name.
fn level(name: &str) -> HeaderMutations {
    let add = |key: &str, value: &str, action| HeaderToAdd {
        key: key.to_owned(),
        value: value.to_owned(),
        action,
        keep_empty_value: key.starts_with("z-"),
    };
    HeaderMutations {
        request_add: vec![
            add("x-app", name, AppendAction::AppendIfExistsOrAdd),
            add("x-ow", name, AppendAction::OverwriteIfExistsOrAdd),
            add("x-abs", name, AppendAction::AddIfAbsent),
            add("x-owe", name, AppendAction::OverwriteIfExists),
            add(&format!("y-{name}"), "%REQ(x-missing)%", AppendAction::AppendIfExistsOrAdd),
            add(&format!("z-{name}"), "%REQ(x-missing)%", AppendAction::AppendIfExistsOrAdd),
        ],
        request_remove: vec!["x-gone".to_owned()],
        ..HeaderMutations::default()
    }
}

#[test]
fn header_levels_run_in_envoys_order() {
    let weighted = ClusterSpecifier::Weighted(config::WeightedClusters {
        clusters: vec![config::ClusterWeight {
            metadata_match: Vec::new(),
            cluster: config::WeightedTarget::Name("u".to_owned()),
            weight: 1,
            headers: level("wc"),
            host_rewrite_literal: Some("wc.test".to_owned()),
            per_filter: Default::default(),
            router: Default::default(),
        }],
        runtime_key_prefix: String::new(),
        header_name: None,
    });
    let mut route = route("r", prefix("/"));
    route.action = Action::Route(Box::new(action(weighted)));
    route.headers = level("route");
    let mut config = table_config(vec![host("v", &["*"], vec![route])]);
    config.virtual_hosts[0].headers = level("vh");
    config.headers = level("rc");
    let head = || request("a.test", "/", &[("x-owe", "o"), ("x-ow", "o"), ("x-gone", "1")]);
    let sent = forwarded(&config, head());
    assert!(sent.starts_with("wc.test / "), "{sent}");
    for part in ["x-app=wc x-app=route x-app=vh x-app=rc", "x-ow=rc", "x-owe=rc", "x-abs=wc", "z-wc= "] {
        assert!(sent.contains(part), "{part}: {sent}");
    }
    assert!(!sent.contains("x-gone") && !sent.contains("y-wc") && !sent.contains("original-host"), "{sent}");
    config.most_specific_header_mutations_wins = true;
    let sent = forwarded(&config, head());
    for part in ["x-app=wc x-app=rc x-app=vh x-app=route", "x-ow=route", "x-owe=route", "x-abs=wc"] {
        assert!(sent.contains(part), "{part}: {sent}");
    }
}

#[test]
fn redirects_build_the_location() {
    let plain = || config::Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: 301,
        strip_query: false,
    };
    let run = |redirect: config::Redirect, host: &str, path: &str| {
        let table = compile(&table(prefix("/d"), Action::Redirect(redirect)));
        let mut head = request(host, path, &[]);
        let route = table.matches(&head, Scheme::Http, 0).unwrap().clone();
        let RouteAction::Redirect(redirect) = &route.action else { return String::new() };
        let info = info();
        let cx = LogContext {
            request: None,
            response: None,
            response_trailers: None,
            local_reply_body: "",
            info: &info,
        };
        redirect.location(&mut head, &cx, EnvoyHeaders::Add).unwrap().to_str().unwrap().to_owned()
    };
    let https = || config::Redirect { scheme: Some(SchemeRedirect::Https), ..plain() };
    let path = |path| config::Redirect { path: Some(path), ..plain() };
    let whole = |text: &str| path(config::RedirectPath::Path(text.to_owned()));
    let strip = |redirect| config::Redirect { strip_query: true, ..redirect };
    for (redirect, host, from, expected) in [
        (https(), "a.test:80", "/d?q", "https://a.test/d?q"),
        (https(), "a.test:99", "/d?q", "https://a.test:99/d?q"),
        (https(), "[::1]:80", "/d", "https://[::1]/d"),
        (whole("/x"), "a.test:80", "/d?q", "http://a.test:80/x?q"),
        (strip(whole("/x")), "a.test", "/d?q", "http://a.test/x"),
        (strip(whole("/x?y=1")), "a.test", "/d?q", "http://a.test/x?y=1"),
        (path(config::RedirectPath::Prefix("/new".to_owned())), "a.test", "/dx?q", "http://a.test/newx?q"),
        (strip(path(config::RedirectPath::Regex(regex("d", "D")))), "a.test", "/d/d?q", "http://a.test/D/D"),
        (config::Redirect { port: Some(80), ..plain() }, "a.test:99", "/d", "http://a.test:80/d"),
        (
            config::Redirect { host: Some("h.test".to_owned()), port: Some(8443), ..https() },
            "a.test:99",
            "/d",
            "https://h.test:8443/d",
        ),
    ] {
        assert_eq!(run(redirect, host, from), expected);
    }
}

#[test]
fn fixed_responses_have_a_location_when_their_status_does() {
    let direct = |status| DirectResponse {
        status: StatusCode::from_u16(status).unwrap(),
        body: Bytes::new(),
        body_format: None,
    };
    let head = request("a.test", "/x", &[]);
    assert_eq!(direct(304).location(&head).unwrap(), "http://a.test/x");
    assert!(direct(201).location(&head).is_some() && direct(200).location(&head).is_none());
}

#[test]
fn a_stream_duration_turns_the_timeout_off() {
    let timeout = |max_stream_duration| {
        let action = config::RouteAction { max_stream_duration, ..to_cluster() };
        let table = compile(&table(prefix("/"), Action::Route(Box::new(action))));
        match &table.matches(&request("a", "/", &[]), Scheme::Http, 0).unwrap().action {
            RouteAction::Forward(forward) => forward.timeouts.global,
            _ => None,
        }
    };
    assert_eq!(timeout(TimeoutOverride::Inherit), Some(Duration::from_secs(15)));
    assert_eq!(timeout(TimeoutOverride::After(Duration::from_secs(5))), None);
}

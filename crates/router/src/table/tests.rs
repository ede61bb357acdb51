use std::collections::BTreeMap;
use std::sync::LazyLock;

use http::{HeaderValue, Method};
use tidegate_config::route::{self as config, Action, DirectResponse, HeaderMatch, PathMatch};
use tidegate_config::values::{FractionalPercent, Pattern, RuntimeFraction, StringMatcher, StringPattern};

use super::*;
use crate::route::RouteAction;

static STORE: LazyLock<Store> = LazyLock::new(|| Store::new(1));

pub(crate) struct NoFilters;

impl FilterSlots for NoFilters {
    fn names(&self) -> &[String] {
        &[]
    }

    fn resolve(&self, _: usize, _: &TypedConfig) -> Result<ErasedConfig, Vec<Problem>> {
        Err(Vec::new())
    }

    fn store(&self) -> &Store {
        &STORE
    }
}

/// A route that answers with its number as the name.
pub(crate) fn route(name: impl ToString, path: PathMatch) -> config::Route {
    config::Route {
        name: name.to_string(),
        stat_prefix: String::new(),
        matcher: config::RouteMatch {
            path,
            case_sensitive: true,
            runtime_fraction: None,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            grpc: false,
        },
        action: Action::DirectResponse(DirectResponse { status: 200, body: None, body_format: None }),
        headers: config::HeaderMutations::default(),
        request_body_buffer_limit: None,
        per_filter: BTreeMap::new(),
        router: Default::default(),
        metadata: None,
    }
}

pub(crate) fn host(name: &str, domains: &[&str], routes: Vec<config::Route>) -> config::VirtualHost {
    config::VirtualHost {
        name: name.to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes: routes.into_iter().map(Arc::new).collect(),
        virtual_clusters: Vec::new(),
        require_tls: RequireTls::None,
        headers: config::HeaderMutations::default(),
        retry_policy: None,
        hedge_policy: None,
        mirrors: Vec::new(),
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        include_is_timeout_retry_header: false,
        request_body_buffer_limit: None,
        per_filter: BTreeMap::new(),
        router: Default::default(),
        metadata: None,
    }
}

pub(crate) fn config(virtual_hosts: Vec<config::VirtualHost>) -> RouteConfig {
    RouteConfig {
        name: "r".to_owned(),
        virtual_hosts,
        headers: config::HeaderMutations::default(),
        internal_only_headers: Vec::new(),
        most_specific_header_mutations_wins: false,
        ignore_port_in_host_matching: false,
        max_direct_response_body_size_bytes: 4096,
        mirrors: Vec::new(),
        validate_clusters: true,
        per_filter: BTreeMap::new(),
        router: Default::default(),
        metadata: None,
    }
}

pub(crate) fn compile(config: &RouteConfig) -> RouteTable {
    RouteTable::compile(config, &JsonPath::root(), &NoFilters).unwrap()
}

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.to_owned())
}

fn head(host: &str, path: &str) -> RequestHead {
    RequestHead::new(Method::GET, host.to_owned(), path.to_owned())
}

fn found(table: &RouteTable, head: &RequestHead, random: u64) -> Option<String> {
    let route = table.matches(head, Scheme::Http, random)?;
    Some(route.name().map(ToString::to_string).unwrap_or_default())
}

#[test]
fn hosts_are_found_as_envoy_finds_them() {
    let one = |name: &str, domain: &str| host(name, &[domain], vec![route(name, prefix("/"))]);
    let mut config = config(vec![
        one("exact", "www.Foo.com"),
        one("suffix", "*.foo.com"),
        one("longer", "*-bar.foo.com"),
        one("prefix", "foo.*"),
        one("port", "p.test:81"),
    ]);
    let table = compile(&config);
    let at = |host: &str| found(&table, &head(host, "/"), 0);
    for (host, expected) in [
        ("www.foo.com", Some("exact")),
        ("WWW.foo.COM", Some("exact")),
        ("x.foo.com", Some("suffix")),
        ("x-bar.foo.com", Some("longer")),
        (".foo.com", None),
        ("foo.com", Some("prefix")),
        ("foo.", None),
        ("foo.x", Some("prefix")),
        ("p.test", None),
        ("p.test:81", Some("port")),
        ("www.foo.com:80", None),
        ("", None),
    ] {
        assert_eq!(at(host).as_deref(), expected, "{host}");
    }
    config.ignore_port_in_host_matching = true;
    config.virtual_hosts.push(one("any", "*"));
    let table = compile(&config);
    assert_eq!(found(&table, &head("www.foo.com:80", "/"), 0).as_deref(), Some("exact"));
    assert_eq!(found(&table, &head("nowhere", "/"), 0).as_deref(), Some("any"));
    assert_eq!(found(&table, &head("", "/"), 0).as_deref(), Some("any"));
}

#[test]
fn tls_is_required_by_redirect() {
    let mut config = config(vec![host("v", &["*"], vec![route("r", prefix("/"))])]);
    config.virtual_hosts[0].require_tls = RequireTls::ExternalOnly;
    let table = compile(&config);
    let mut request = head("a", "/x");
    let redirects = |head: &RequestHead, scheme| {
        matches!(table.matches(head, scheme, 0).unwrap().action, RouteAction::Redirect(_))
    };
    assert!(redirects(&request, Scheme::Http) && !redirects(&request, Scheme::Https));
    request.headers.insert(INTERNAL, HeaderValue::from_static("true"));
    assert!(!redirects(&request, Scheme::Http));
}

#[test]
fn headers_match_line_by_line() {
    let matcher = |condition, invert, treat_missing_as_empty| {
        let config =
            config::HeaderMatcher { name: "x".to_owned(), condition, invert, treat_missing_as_empty };
        HeaderMatcher::compile(&config).unwrap()
    };
    let exact = |text: &str| {
        let pattern = StringPattern::Exact(text.to_owned());
        HeaderMatch::String(StringMatcher { pattern, ignore_case: false })
    };
    let with = |lines: &[&'static str]| {
        let mut request = head("a", "/");
        for line in lines {
            request.headers.append("x", HeaderValue::from_static(line));
        }
        request
    };
    // Requests: none, `a`, `a` and `b`, empty; as measured on Envoy 1.40.
    let requests = [with(&[]), with(&["a"]), with(&["a", "b"]), with(&[""])];
    for (matcher, expected) in [
        (matcher(exact("a"), true, false), [false, false, false, true]),
        (matcher(HeaderMatch::Present(true), true, false), [true, false, false, false]),
        (matcher(HeaderMatch::Present(false), false, false), [true, false, false, false]),
        (matcher(exact(""), false, true), [true, false, false, true]),
        (matcher(exact("a"), true, true), [true, false, false, true]),
        (matcher(exact("a,b"), false, false), [false; 4]),
        (matcher(exact("b"), false, false), [false, false, true, false]),
        (matcher(HeaderMatch::Present(true), false, true), [true; 4]),
    ] {
        assert_eq!(requests.each_ref().map(|head| matcher.matches_request(head)), expected, "{matcher:?}");
    }
    let range = matcher(HeaderMatch::Range { start: -5, end: 5 }, false, false);
    for (value, expected) in [("4", true), ("-5", true), ("5", false), ("+4", true), ("4x", false)] {
        assert_eq!(range.matches_request(&with(&[value])), expected, "{value}");
    }
}

#[test]
fn query_parameters_match_as_written() {
    let matcher = |value: Option<&str>, absent| {
        let value = value
            .map(|text| StringMatcher { pattern: StringPattern::Exact(text.to_owned()), ignore_case: false });
        QueryMatcher::compile(&config::QueryMatcher { name: "k".to_owned(), value, absent }).unwrap()
    };
    assert!(matcher(Some("a%20b"), false).matches(Some("k=a%20b")));
    assert!(!matcher(Some("a b"), false).matches(Some("k=a+b")));
    assert!(!matcher(Some("v"), false).matches(Some("k=x&k=v")));
    assert!(matcher(Some(""), false).matches(Some("k")) && matcher(None, false).matches(Some("j&k")));
    assert!(!matcher(None, false).matches(None) && matcher(None, true).matches(None));
}

#[test]
fn weights_pick_by_chance_or_by_header() {
    let cluster = |name: &str, weight| config::ClusterWeight {
        metadata_match: Vec::new(),
        cluster: config::WeightedTarget::Name(name.to_owned()),
        weight,
        headers: config::HeaderMutations::default(),
        host_rewrite_literal: None,
        per_filter: BTreeMap::new(),
        router: Default::default(),
    };
    let specifier = config::ClusterSpecifier::Weighted(config::WeightedClusters {
        clusters: vec![cluster("a", 1), cluster("b", 3)],
        runtime_key_prefix: String::new(),
        header_name: Some("x-pick".to_owned()),
    });
    let mut weighted = route("w", prefix("/"));
    weighted.action = Action::Route(Box::new(crate::route::tests::action(specifier)));
    let table = compile(&config(vec![host("v", &["*"], vec![weighted])]));
    let mut request = head("h", "/");
    let cluster =
        |head: &RequestHead, random| match &table.matches(head, Scheme::Http, random).unwrap().action {
            RouteAction::Forward(forward) => forward.cluster.name(head).unwrap().to_owned(),
            _ => String::new(),
        };
    assert_eq!([0, 1, 2, 3, 4].map(|random| cluster(&request, random)), ["a", "b", "b", "b", "a"]);
    request.headers.insert("x-pick", HeaderValue::from_static("4"));
    assert_eq!(cluster(&request, 1), "a");
}

#[test]
fn errors_are_all_reported_with_their_places() {
    let mut bad = route("bad", PathMatch::Regex(Pattern("(".to_owned())));
    bad.headers.request_remove.push("host".to_owned());
    let mut config = config(vec![host("v", &["*"], vec![route("ok", prefix("/")), bad])]);
    config.headers.response_add.push(config::HeaderToAdd {
        key: "x".to_owned(),
        value: "%NOPE%".to_owned(),
        action: config::AppendAction::default(),
        keep_empty_value: false,
    });
    let problems = RouteTable::compile(&config, &JsonPath::root().field("rc"), &NoFilters).unwrap_err();
    let mut places: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    places.sort_unstable();
    assert_eq!(
        places,
        [
            "rc.response_headers_to_add[0].header.value",
            "rc.virtual_hosts[0].routes[1].match",
            "rc.virtual_hosts[0].routes[1].request_headers_to_remove[0]",
        ]
    );
}

/// Two filters whose configurations are their texts; one text is wrong.
struct TwoFilters([String; 2]);

impl FilterSlots for TwoFilters {
    fn names(&self) -> &[String] {
        &self.0
    }

    fn resolve(&self, slot: usize, config: &TypedConfig) -> Result<ErasedConfig, Vec<Problem>> {
        if config.type_url == "wrong" {
            return Err(vec![Problem::new(config.path.clone(), config.span, "wrong")]);
        }
        Ok(Arc::new(format!("{slot} {}", config.type_url)))
    }

    fn store(&self) -> &Store {
        &STORE
    }
}

#[test]
fn per_filter_configurations_are_resolved_to_slots() {
    let per_filter = |name: &str, text: &str, disabled| {
        let typed = TypedConfig {
            name: name.to_owned(),
            type_url: text.to_owned(),
            value: Arc::default(),
            path: JsonPath::root().field(text),
            span: Default::default(),
        };
        let config = config::PerFilterConfig { config: Some(typed), disabled, is_optional: false };
        BTreeMap::from([(name.to_owned(), config)])
    };
    let mut route = route("r", prefix("/"));
    route.per_filter = per_filter("b", "route", false);
    let mut config = config(vec![host("v", &["*"], vec![route])]);
    config.virtual_hosts[0].per_filter = per_filter("b", "vh", true);
    let filters = TwoFilters(["a".to_owned(), "b".to_owned()]);
    let table = RouteTable::compile(&config, &JsonPath::root(), &filters).unwrap();
    let view = &table.matches(&head("h", "/"), Scheme::Http, 0).unwrap().view;
    let slot = view.per_filter.slot(1).unwrap();
    let levels: Vec<_> = slot.levels.iter().filter_map(|level| level.downcast_ref::<String>()).collect();
    assert_eq!(levels, ["1 vh", "1 route"]);
    assert_eq!((slot.disabled, view.per_filter.disabled(0, true)), (Some(false), true));
    assert_eq!(view.virtual_host.as_deref(), Some("v"));
    config.virtual_hosts[0].per_filter = per_filter("b", "wrong", true);
    let problems = RouteTable::compile(&config, &JsonPath::root(), &filters).unwrap_err();
    assert_eq!(problems.len(), 1);
}

/// The specification: try every route in order.
fn scan(routes: &[Arc<config::Route>], head: &RequestHead, random: u64) -> Option<String> {
    let path = head.path_only();
    let fits = |matcher: &config::RouteMatch| {
        let fold =
            |text: &str| if matcher.case_sensitive { text.to_owned() } else { text.to_ascii_lowercase() };
        let folded = fold(path);
        let path_fits = match &matcher.path {
            PathMatch::Prefix(prefix) => folded.starts_with(&fold(prefix)),
            PathMatch::Connect => false,
            PathMatch::Exact(exact) => folded == fold(exact),
            PathMatch::SeparatedPrefix(prefix) => folded
                .strip_prefix(&fold(prefix))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            // The patterns of these tests are text and at most one more character.
            PathMatch::Regex(pattern) => {
                let text = pattern.0.trim_end_matches(".?");
                path.strip_prefix(text).is_some_and(|rest| rest.len() <= 1)
            }
        };
        let chance = matcher
            .runtime_fraction
            .as_ref()
            .is_none_or(|fraction| random % 100 < u64::from(fraction.default.numerator));
        path_fits && chance && (matcher.headers.is_empty() || head.method == Method::POST)
    };
    routes.iter().find(|route| fits(&route.matcher)).map(|route| route.name.clone())
}

fn random_path(random: &mut fastrand::Rng) -> String {
    let mut path = String::new();
    for _ in 0..random.usize(0..5) {
        path.push_str(random.choice(["/", "/a", "/b", "a", "A", "/ab", "/a/", "c"]).unwrap());
    }
    if path.starts_with('/') { path } else { format!("/{path}") }
}

fn random_route(number: usize, random: &mut fastrand::Rng) -> config::Route {
    let text = random_path(random);
    let path = match random.u8(0..8) {
        0..3 => PathMatch::Prefix(if text == "/" && random.bool() { String::new() } else { text }),
        3..5 => PathMatch::Exact(text),
        5..7 => PathMatch::SeparatedPrefix(text.trim_end_matches('/').to_owned()),
        _ => PathMatch::Regex(Pattern(format!("{text}.?"))),
    };
    let mut route = route(number, path);
    route.matcher.case_sensitive = random.u8(0..5) > 0;
    if random.u8(0..3) == 0 {
        let pattern = StringPattern::Exact("POST".to_owned());
        route.matcher.headers.push(config::HeaderMatcher {
            name: ":method".to_owned(),
            condition: HeaderMatch::String(StringMatcher { pattern, ignore_case: false }),
            invert: false,
            treat_missing_as_empty: false,
        });
    }
    if random.u8(0..4) == 0 {
        let default = FractionalPercent { numerator: 50, denominator: 100 };
        route.matcher.runtime_fraction = Some(RuntimeFraction { default, runtime_key: String::new() });
    }
    route
}

#[test]
fn the_index_equals_the_scan() {
    for seed in 0..400 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let routes: Vec<_> = (0..random.usize(1..40)).map(|number| random_route(number, random)).collect();
        let config = config(vec![host("v", &["*"], routes)]);
        let table = compile(&config);
        for _ in 0..60 {
            let mut request = head("h", &(random_path(random) + random.choice(["", "?q=/a"]).unwrap()));
            if random.bool() {
                request.method = Method::POST;
            }
            let chance = random.u64(..);
            assert_eq!(
                found(&table, &request, chance),
                scan(&config.virtual_hosts[0].routes, &request, chance),
                "seed {seed}, {} {}",
                request.method,
                request.path_str()
            );
        }
    }
}

#[test]
fn connect_requests_match_only_what_asks_for_them() {
    let routes =
        vec![route("empty", prefix("")), route("tunnel", PathMatch::Connect), route("any", prefix("/"))];
    let table = compile(&config(vec![host("v", &["*"], routes)]));
    let connect = RequestHead::new(Method::CONNECT, "a:1".to_owned(), String::new());
    assert_eq!(found(&table, &connect, 0).as_deref(), Some("tunnel"));
    assert_eq!(found(&table, &head("a", "/x"), 0).as_deref(), Some("empty"));
    assert_eq!(found(&table, &head("a", ""), 0), None);
}

//! `envoy.filters.http.header_mutation`: adds, overwrites and removes header fields of requests and
//! responses. The template of a filter that touches heads (and trailers) only.
//!
//! Configuration, as in Envoy's `HeaderMutation` message:
//! - `mutations.request_mutations`, `mutations.response_mutations`: a list, applied in order, of
//!   `{"remove": NAME}`, `{"append": {"header": {"key", "value"}, "append_action", "keep_empty_value"}}` and
//!   `{"remove_on_match": {"key_matcher": STRING_MATCHER}}`; values may hold `%FORMAT%` operators;
//! - `mutations.request_trailers_mutations`, `mutations.response_trailers_mutations`: the same for trailers;
//! - `mutations.query_parameter_mutations`: `{"remove": KEY}` and `{"append": {"record": {"key", "value"},
//!   "action"}}`, after the request's header mutations;
//! - `most_specific_header_mutations_wins`: see [`Factory`].
//!
//! Per route (`HeaderMutationPerRoute`): `mutations`, applied after the filter's own, at every level.
//! It does not touch pseudo-header fields nor `host` (as in Envoy).

mod mutation;
mod query;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use serde::Deserialize;
use tidegate_filter::{
    Cx, FactoryContext, Flow, HeadFlow, HttpFilter, HttpFilterType, LogContext, RequestFilter,
    ResponseFilter, Step, Stream,
};
use tidegate_types::{EndStream, RequestHead, ResponseHead};

use mutation::MutationList;
use query::QueryMutations;

/// The filter's type.
pub struct HeaderMutation;

/// The configuration of a connection manager's filter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    mutations: Mutations,
    most_specific_header_mutations_wins: bool,
}

/// The configuration at a level of the route.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RouteConfig {
    mutations: Mutations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mutations {
    request_mutations: MutationList,
    query_parameter_mutations: QueryMutations,
    response_mutations: MutationList,
    request_trailers_mutations: MutationList,
    response_trailers_mutations: MutationList,
}

/// What lives as long as the configuration.
pub struct Factory {
    mutations: Mutations,
    order: Order,
}

/// In which order the levels of a route are applied, after the filter's own mutations. Later ones win.
#[derive(Clone, Copy)]
enum Order {
    MostSpecificFirst,
    /// `most_specific_header_mutations_wins`.
    MostSpecificLast,
}

impl HttpFilterType for HeaderMutation {
    const NAME: &'static str = "envoy.filters.http.header_mutation";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    const ROUTE_TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";
    type Config = Config;
    type RouteConfig = RouteConfig;
    type Factory = Factory;

    fn build(config: Config, _: &FactoryContext<'_>) -> Result<Factory, String> {
        let order = match config.most_specific_header_mutations_wins {
            true => Order::MostSpecificLast,
            false => Order::MostSpecificFirst,
        };
        Ok(Factory { mutations: config.mutations, order })
    }

    fn open(factory: &Arc<Factory>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::request(Request { factory: factory.clone() })
            .and_response(Response { factory: factory.clone() })
    }
}

impl Factory {
    /// The filter's own mutations, then those of the route.
    fn each(&self, cx: &Cx, mut apply: impl FnMut(&Mutations)) {
        apply(&self.mutations);
        let levels = cx.route_configs::<RouteConfig>();
        match self.order {
            Order::MostSpecificFirst => levels.iter().rev().for_each(|level| apply(&level.mutations)),
            Order::MostSpecificLast => levels.iter().for_each(|level| apply(&level.mutations)),
        }
    }
}

struct Request {
    factory: Arc<Factory>,
}

impl RequestFilter for Request {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut RequestHead, _: EndStream) -> Step<'a, HeadFlow> {
        let mut wants = Wants::Nothing;
        self.factory.each(cx, |mutations| {
            mutations.request_mutations.apply_to_request(head, cx);
            mutations.query_parameter_mutations.apply(head, cx);
            wants.trailers_if(&mutations.request_trailers_mutations);
        });
        Step::Now(wants.flow())
    }

    fn on_trailers<'a>(&'a mut self, cx: &'a Cx, trailers: &'a mut HeaderMap) -> Step<'a, Flow> {
        let context = context(cx, cx.stream().request(), None);
        self.factory.each(cx, |mutations| mutations.request_trailers_mutations.apply(trailers, &context));
        Step::Now(Flow::Continue)
    }
}

struct Response {
    factory: Arc<Factory>,
}

impl ResponseFilter for Response {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut ResponseHead, _: EndStream) -> Step<'a, HeadFlow> {
        let mut wants = Wants::Nothing;
        self.factory.each(cx, |mutations| {
            mutations.response_mutations.apply_to_response(head, cx);
            wants.trailers_if(&mutations.response_trailers_mutations);
        });
        Step::Now(wants.flow())
    }

    fn on_trailers<'a>(&'a mut self, cx: &'a Cx, trailers: &'a mut HeaderMap) -> Step<'a, Flow> {
        let context = context(cx, cx.stream().request(), None);
        self.factory.each(cx, |mutations| mutations.response_trailers_mutations.apply(trailers, &context));
        Step::Now(Flow::Continue)
    }
}

/// What of the message is still of interest once its head is done.
#[derive(Clone, Copy)]
enum Wants {
    Nothing,
    Trailers,
}

impl Wants {
    fn trailers_if(&mut self, list: &MutationList) {
        if !list.is_empty() {
            *self = Self::Trailers;
        }
    }

    fn flow(self) -> HeadFlow {
        match self {
            // Leaves body bytes to pass from codec to codec.
            Self::Nothing => HeadFlow::Skip,
            Self::Trailers => HeadFlow::Continue,
        }
    }
}

/// What `%FORMAT%` operators may print.
fn context<'a>(
    cx: &'a Cx,
    request: Option<&'a RequestHead>,
    response: Option<&'a ResponseHead>,
) -> LogContext<'a> {
    LogContext { request, response, response_trailers: None, local_reply_body: "", info: cx.stream().info() }
}

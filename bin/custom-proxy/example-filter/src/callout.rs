//! `example.filters.http.callout`: asks a service of the configuration whether a request may go on.
//!
//! Each request is held while `GET {path_prefix}{path}` goes to `cluster`, with the fields that
//! `forward_headers` names. An answer below 300 lets the request go on, any other is answered to the client
//! with `deny_status`. When the service cannot be asked, `fail_open` decides.
//!
//! Per route: `{"disabled": true}`. Counters: `callout.{allowed,denied,failed}` under the connection manager.

mod config;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use tidegate_filter::{
    CalloutError, CalloutResponse, Cx, FactoryContext, HeadFlow, HttpFilter, HttpFilterType, LocalReply,
    RequestFilter, Step, Stream,
};
use tidegate_stats::stat_block;
use tidegate_types::{EndStream, RequestHead, ResponseFlags};

use config::WhenFailed;
pub use config::{Config, RouteConfig};

/// The filter's type.
pub struct Callout;

// ANCHOR: stats
stat_block! {
    /// What became of the requests that were asked about.
    struct CalloutStats {
        counters {
            /// The service let them go on.
            allowed,
            /// The service refused them.
            denied,
            /// The service could not be asked.
            failed,
        }
    }
}
// ANCHOR_END: stats

// ANCHOR: factory
/// What lives as long as the configuration; shared by all workers.
pub struct Factory {
    config: Config,
    stats: CalloutStats,
}

impl HttpFilterType for Callout {
    const NAME: &'static str = "example.filters.http.callout";
    const TYPE_URL: &'static str = "type.googleapis.com/example.filters.http.callout.v1.Callout";
    const ROUTE_TYPE_URL: &'static str =
        "type.googleapis.com/example.filters.http.callout.v1.CalloutPerRoute";
    type Config = Config;
    type RouteConfig = RouteConfig;
    type Factory = Factory;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<Factory, String> {
        let stats = CalloutStats::new(cx.stats, cx.scope.child("callout"));
        Ok(Factory { config, stats })
    }

    fn open(factory: &Arc<Factory>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::request(Request { factory: factory.clone() })
    }
}
// ANCHOR_END: factory

struct Request {
    factory: Arc<Factory>,
}

// ANCHOR: hook
impl RequestFilter for Request {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut RequestHead, _: EndStream) -> Step<'a, HeadFlow> {
        if cx.route_config::<RouteConfig>().is_some_and(|route| route.disabled) {
            return Step::Now(HeadFlow::Skip);
        }
        let config = &self.factory.config;
        let Some(service) = cx.stream().clusters().http(&config.cluster) else {
            return Step::Now(self.factory.failed("callout_no_cluster"));
        };
        let question = service.send(config.question(head), Bytes::new(), config.timeout);
        // This direction of the stream stands still until the future is ready.
        Step::later(async { self.factory.decide(question.await) })
    }
}
// ANCHOR_END: hook

impl Factory {
    fn decide(&self, answer: Result<CalloutResponse, CalloutError>) -> HeadFlow {
        match answer {
            Ok(answer) if answer.head.status.as_u16() < 300 => {
                self.stats.allowed().inc();
                HeadFlow::Skip
            }
            Ok(answer) => {
                self.stats.denied().inc();
                reply(LocalReply::new(self.config.deny_status, answer.body, "callout_denied"))
            }
            Err(CalloutError::TimedOut) => self.failed("callout_timed_out"),
            Err(_) => self.failed("callout_failed"),
        }
    }

    fn failed(&self, details: &'static str) -> HeadFlow {
        self.stats.failed().inc();
        match self.config.fail_open {
            WhenFailed::Allow => HeadFlow::Skip,
            WhenFailed::Refuse => reply(
                LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "", details)
                    .with_flags(ResponseFlags::UNAUTHORIZED),
            ),
        }
    }
}

fn reply(reply: LocalReply) -> HeadFlow {
    HeadFlow::Reply(Box::new(reply))
}

impl Config {
    /// The request that asks about `head`.
    fn question(&self, head: &RequestHead) -> RequestHead {
        let path = [self.path_prefix.as_bytes(), &head.path].concat();
        let mut question = RequestHead::new(Method::GET, head.authority.clone(), path);
        for name in &self.forward_headers {
            for value in head.headers.get_all(name) {
                question.headers.append(name, value.clone());
            }
        }
        question
    }
}

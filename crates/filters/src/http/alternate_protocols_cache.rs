//! `envoy.filters.http.alternate_protocols_cache`: learns from the `alt-svc` fields of responses where hosts take
//! HTTP/3 (RFC 7838).
//!
//! What is learned goes into the cache that the upstream's cluster names (`alternate_protocols_cache_options`); a
//! cluster without one learns nothing. The response stays as it is. Configuration, as in Envoy's `FilterConfig`:
//! `alternate_protocols_cache_options` is accepted and means nothing, as in Envoy, which asks the cluster since 1.31.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, ALT_SVC};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tidegate_filter::{
    Cx, FactoryContext, HeadFlow, HttpFilter, HttpFilterType, ResponseFilter, Step, Stream,
};
use tidegate_types::{EndStream, ResponseHead};

/// The filter's type.
pub struct AlternateProtocolsCache;

/// The configuration of a connection manager's filter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    #[serde(rename = "alternate_protocols_cache_options")]
    _options: Option<IgnoredAny>,
}

impl HttpFilterType for AlternateProtocolsCache {
    const NAME: &'static str = "envoy.filters.http.alternate_protocols_cache";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.http.alternate_protocols_cache.v3.FilterConfig";
    type Config = Config;
    type RouteConfig = ();
    type Factory = ();

    fn build(_: Config, _: &FactoryContext<'_>) -> Result<(), String> {
        Ok(())
    }

    fn open(_: &Arc<()>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::response(Learner)
    }
}

struct Learner;

impl ResponseFilter for Learner {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut ResponseHead, _: EndStream) -> Step<'a, HeadFlow> {
        if head.headers.contains_key(ALT_SVC) {
            learn(cx.stream(), &head.headers);
        }
        Step::Now(HeadFlow::Skip)
    }
}

fn learn(stream: &Stream, headers: &HeaderMap) {
    let info = stream.info();
    let (cluster, upstream) = (info.cluster.borrow(), info.upstream.borrow());
    let (Some(cluster), Some(upstream)) = (cluster.as_ref(), upstream.as_ref()) else { return };
    let fields: Vec<_> = headers.get_all(ALT_SVC).iter().map(|field| field.as_bytes()).collect();
    // RFC 9111 §5.1: whole seconds; one that is none says nothing.
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
    let age = Duration::from_secs(age.unwrap_or(0));
    stream.clusters().heard_alternatives(cluster, upstream, &fields, age);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::cell::RefCell;

    use http::StatusCode;
    use tidegate_filter::{Clusters, HttpCallout};
    use tidegate_types::{Address, ConnectionInfo, StreamInfo, UpstreamInfo};

    use super::*;

    /// Cluster, host, fields, age.
    type Heard = (String, String, Vec<Vec<u8>>, u64);

    #[derive(Default)]
    struct Hears(RefCell<Vec<Heard>>);

    impl Clusters for Hears {
        fn http(&self, _: &str) -> Option<Rc<dyn HttpCallout>> {
            None
        }

        fn heard_alternatives(&self, cluster: &str, from: &UpstreamInfo, fields: &[&[u8]], age: Duration) {
            let fields = fields.iter().map(|field| field.to_vec()).collect();
            self.0.borrow_mut().push((cluster.into(), from.host.to_string(), fields, age.as_secs()));
        }
    }

    fn heard(reached: bool, fields: &[(&'static str, &'static str)]) -> Vec<Heard> {
        let hears = Rc::new(Hears::default());
        let address: Address = Address::Ip("127.0.0.1:443".parse().unwrap());
        let connection = Rc::new(ConnectionInfo::new(1, address.clone(), address.clone(), "l".into()));
        let info = StreamInfo::new(connection, std::time::SystemTime::UNIX_EPOCH);
        info.cluster.replace(Some("backend".into()));
        if reached {
            info.upstream.replace(Some(UpstreamInfo {
                host: Arc::new(address),
                remote_address: None,
                local_address: None,
                connection_id: None,
                protocol: None,
                tls: None,
            }));
        }
        let stream = Rc::new(Stream::new(info, hears.clone()));
        let mut head = ResponseHead::new(StatusCode::OK);
        for (name, value) in fields {
            head.headers.append(*name, value.parse().unwrap());
        }
        let cx = Cx::new(stream, 0);
        assert!(matches!(Learner.on_head(&cx, &mut head, EndStream::Yes), Step::Now(HeadFlow::Skip)));
        hears.0.take()
    }

    #[test]
    fn what_a_host_says_is_handed_on() {
        let fields = [("alt-svc", "h3=\":443\""), ("age", "7"), ("alt-svc", "clear")];
        let said = vec![b"h3=\":443\"".to_vec(), b"clear".to_vec()];
        assert_eq!(heard(true, &fields), [("backend".into(), "127.0.0.1:443".into(), said, 7)]);
        let fields = [("alt-svc", "h3=\":443\""), ("age", "old")];
        assert_eq!(heard(true, &fields)[0].3, 0);
    }

    #[test]
    fn a_response_without_a_host_or_without_the_field_says_nothing() {
        assert_eq!(heard(false, &[("alt-svc", "h3=\":443\"")]), []);
        assert_eq!(heard(true, &[("server", "x")]), []);
    }
}

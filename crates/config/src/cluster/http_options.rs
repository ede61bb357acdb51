//! `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`, and the cluster fields that it replaced.

use tidegate_types::json::{Problem, nearest};

use super::UpstreamProtocol;
use crate::protocol::{CommonHttpOptions, Http1Options};
use crate::reader::{Any, Message, Reader};

/// How the cluster speaks HTTP.
pub(super) struct HttpOptions {
    pub(super) protocol: UpstreamProtocol,
    pub(super) common: CommonHttpOptions,
}

impl HttpOptions {
    /// Takes `typed_extension_protocol_options` and the deprecated fields; Envoy refuses both together.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        r.may_be::<Extension>();
        let extensions = r.map("typed_extension_protocol_options", |name, node, path| {
            let any = Any::open(r, node, path)?;
            if name == Extension::NAME && any.is::<Extension>() {
                return Some(any.read::<Extension>(r));
            }
            r.cx.report(Problem {
                expected: Some(Extension::NAME.to_owned()),
                suggestion: nearest(name, [Extension::NAME]).map(str::to_owned),
                ..Problem::new(any.path, node.span, "these protocol options are not supported by this build")
            });
            None
        });
        let old_common = r.message::<CommonHttpOptions>("common_http_protocol_options");
        let old_http1 = r.message::<Http1Options>("http_protocol_options");
        let old_requests = r.u32("max_requests_per_connection");
        if !extensions.is_empty() && (old_common.peek().is_some() || old_http1.peek().is_some()) {
            r.problem(
                "`typed_extension_protocol_options` and the cluster's own HTTP options exclude each other",
            );
        }
        let extension = extensions.into_iter().find_map(|(_, options)| options);
        let mut options = extension.map(|extension| extension.0).unwrap_or_else(|| Self {
            protocol: UpstreamProtocol::Http1(old_http1.optional().unwrap_or_default()),
            common: old_common.optional().unwrap_or_default(),
        });
        let requests = old_requests.optional().filter(|requests| *requests > 0);
        let most = &mut options.common.max_requests_per_connection;
        *most = most.or(requests);
        options
    }
}

struct Extension(HttpOptions);

impl Message for Extension {
    const NAME: &'static str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        let explicit = r.message::<Explicit>("explicit_http_config").optional();
        r.exactly_one(&["explicit_http_config"]);
        Self(HttpOptions {
            protocol: explicit.map_or_else(|| UpstreamProtocol::Http1(Http1Options::default()), |e| e.0),
            common: r.message_or_defaults("common_http_protocol_options"),
        })
    }
}

struct Explicit(UpstreamProtocol);

impl Message for Explicit {
    const NAME: &'static str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig";

    fn read(r: &Reader<'_>) -> Self {
        let http1 = r.message::<Http1Options>("http_protocol_options").optional();
        r.exactly_one(&["http_protocol_options"]);
        Self(UpstreamProtocol::Http1(http1.unwrap_or_default()))
    }
}

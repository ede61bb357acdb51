//! `typed_extension_protocol_options`: `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`, with the
//! cluster fields that it replaced, and `envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions`.

use std::cell::Cell;
use std::time::Duration;

use tidegate_types::json::{Problem, nearest};

use super::{AlternateProtocols, ConnectionReuse, Http3Selection, ProtocolOptions, UpstreamProtocol};
use crate::protocol::{CommonHttpOptions, Http1Options, Http2Options, Http3Options};
use crate::reader::{Any, Message, Reader};
use crate::route::{MirrorPolicy, RetryPolicy, mirror_policies};

/// How the cluster speaks HTTP.
pub(super) struct HttpOptions {
    pub(super) protocol: UpstreamProtocol,
    pub(super) common: CommonHttpOptions,
    /// `idle_timeout` of `TcpProtocolOptions`; `None` is off (0).
    pub(super) tcp_idle_timeout: Option<Duration>,
    pub(super) auto_sni: AutoSni,
    pub(super) reuse: ConnectionReuse,
    pub(super) http3_selection: Http3Selection,
    pub(super) retry_policy: Option<RetryPolicy>,
    pub(super) mirrors: Vec<MirrorPolicy>,
}

/// `envoy.config.core.v3.UpstreamHttpProtocolOptions`: what a request decides about the TLS that carries it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AutoSni {
    /// `auto_sni`: the name asked for is the request's host.
    pub auto_sni: bool,
    /// `override_auto_sni_header`: taken in place of the host where the request has it.
    pub override_header: Option<http::HeaderName>,
    /// `auto_san_validation`: the certificate must carry that name.
    pub auto_san_validation: bool,
}

impl Message for AutoSni {
    const NAME: &'static str = "envoy.config.core.v3.UpstreamHttpProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        let header = r.string("override_auto_sni_header").convert(|name| match &*name {
            "" | ":authority" => Ok(None),
            name => {
                http::HeaderName::try_from(name).map(Some).map_err(|_| format!("`{name}` is no header name"))
            }
        });
        Self {
            auto_sni: r.bool("auto_sni").or_default(),
            override_header: header.or_default(),
            auto_san_validation: r.bool("auto_san_validation").or_default(),
        }
    }
}

/// Keys of `typed_extension_protocol_options`.
const OWN_NAMES: [&str; 4] = [Extension::NAME, TcpOptions::NAME, ConnectionReuse::KEY, Http3Selection::KEY];

impl HttpOptions {
    /// Takes `typed_extension_protocol_options` and the deprecated fields; Envoy refuses both together.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        r.may_be::<Extension>();
        r.may_be::<TcpOptions>();
        r.may_be::<ConnectionReuse>();
        r.may_be::<Http3Selection>();
        let (tcp, reuse, selection) = (Cell::new(None), Cell::new(None), Cell::new(None));
        let extensions = r.map("typed_extension_protocol_options", |name, node, path| {
            let any = Any::open(r, node, path)?;
            if name == TcpOptions::NAME && any.is::<TcpOptions>() {
                tcp.set(Some(any.read::<TcpOptions>(r).0));
                return None;
            }
            if name == ConnectionReuse::KEY && any.is::<ConnectionReuse>() {
                reuse.set(Some(any.read::<ConnectionReuse>(r)));
                return None;
            }
            if name == Http3Selection::KEY && any.is::<Http3Selection>() {
                selection.set(Some(any.read::<Http3Selection>(r)));
                return None;
            }
            if name == Extension::NAME && any.is::<Extension>() {
                return Some(any.read::<Extension>(r));
            }
            r.cx.report(Problem {
                expected: Some(Extension::NAME.to_owned()),
                suggestion: nearest(name, OWN_NAMES).map(str::to_owned),
                ..Problem::new(any.path, node.span, "these protocol options are not supported by this build")
            });
            None
        });
        let old_common = r.message::<CommonHttpOptions>("common_http_protocol_options");
        let old_http1 = r.message::<Http1Options>("http_protocol_options");
        let old_http2 = r.message::<Http2Options>("http2_protocol_options");
        let as_downstream = r.enumeration("protocol_selection", SELECTION, &[]).or_default();
        let old_requests = r.u32("max_requests_per_connection");
        let extension = extensions.into_iter().find_map(|(_, options)| options);
        let old = old_common.peek().is_some() || old_http1.peek().is_some() || old_http2.peek().is_some();
        if extension.is_some() && (old || as_downstream) {
            r.problem(
                "`typed_extension_protocol_options` and the cluster's own HTTP options exclude each other",
            );
        }
        let mut options = extension.map(|extension| extension.0).unwrap_or_else(|| Self {
            protocol: old_protocol(r, old_http1.optional(), old_http2.optional(), as_downstream),
            common: old_common.optional().unwrap_or_default(),
            tcp_idle_timeout: None,
            auto_sni: AutoSni::default(),
            reuse: ConnectionReuse::default(),
            http3_selection: Http3Selection::default(),
            retry_policy: None,
            mirrors: Vec::new(),
        });
        options.reuse = reuse.take().unwrap_or_default();
        options.http3_selection = selection.take().unwrap_or_default();
        options.check_selection(r);
        options.tcp_idle_timeout = tcp.get().unwrap_or(Some(TCP_IDLE_TIMEOUT));
        let requests = old_requests.optional().filter(|requests| *requests > 0);
        let most = &mut options.common.max_requests_per_connection;
        *most = most.or(requests);
        options
    }
}

impl HttpOptions {
    /// There is something to select from.
    fn check_selection(&self, r: &Reader<'_>) {
        let Some(own) = &self.http3_selection.own else { return };
        let selects = matches!(&self.protocol, UpstreamProtocol::Auto(options) if options.http3.is_some());
        if !selects {
            let needs = "`tidegate.http3_selection` needs `auto_config` with `http3_protocol_options`";
            r.cx.report(own.problem(needs));
        }
    }
}

/// `protocol_selection`: whether the protocol is the downstream's.
const SELECTION: &[(&str, u32, bool)] =
    &[("USE_CONFIGURED_PROTOCOL", 0, false), ("USE_DOWNSTREAM_PROTOCOL", 1, true)];

/// The protocol by the cluster's own, deprecated fields.
fn old_protocol(
    r: &Reader<'_>,
    http1: Option<Http1Options>,
    http2: Option<Http2Options>,
    as_downstream: bool,
) -> UpstreamProtocol {
    if as_downstream {
        return as_downstream_of(http1, http2, None);
    }
    r.at_most_one(&["http_protocol_options", "http2_protocol_options"]);
    match http2 {
        Some(http2) => UpstreamProtocol::Http2(http2),
        None => UpstreamProtocol::Http1(http1.unwrap_or_default()),
    }
}

fn as_downstream_of(
    http1: Option<Http1Options>,
    http2: Option<Http2Options>,
    http3: Option<Http3Options>,
) -> UpstreamProtocol {
    UpstreamProtocol::AsDownstream(Box::new(ProtocolOptions {
        http1: http1.unwrap_or_default(),
        http2: http2.unwrap_or_default(),
        http3,
        alternate_protocols: None,
    }))
}

struct Extension(HttpOptions);

impl Message for Extension {
    const NAME: &'static str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        let explicit = r.message::<Explicit>("explicit_http_config").optional().map(|explicit| explicit.0);
        let downstream =
            r.message::<AsDownstream>("use_downstream_protocol_config").optional().map(|as_| as_.0);
        let auto = r.message::<Auto>("auto_config").optional().map(|auto| auto.0);
        r.exactly_one(&["explicit_http_config", "use_downstream_protocol_config", "auto_config"]);
        let protocol = explicit.or(downstream).or(auto);
        let first_reference = r.cx.reference_count();
        let mirrors = mirror_policies(r);
        // Envoy does not look whether they exist.
        r.cx.drop_references(first_reference);
        Self(HttpOptions {
            protocol: protocol.unwrap_or_else(|| UpstreamProtocol::Http1(Http1Options::default())),
            common: r.message_or_defaults("common_http_protocol_options"),
            tcp_idle_timeout: None,
            auto_sni: r.message("upstream_http_protocol_options").or_default(),
            reuse: ConnectionReuse::default(),
            http3_selection: Http3Selection::default(),
            retry_policy: r.message("retry_policy").optional(),
            mirrors,
        })
    }
}

struct Explicit(UpstreamProtocol);

impl Message for Explicit {
    const NAME: &'static str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig";

    fn read(r: &Reader<'_>) -> Self {
        let http1 = r.message::<Http1Options>("http_protocol_options").optional();
        let http2 = r.message::<Http2Options>("http2_protocol_options").optional();
        let http3 = r.message::<Http3Options>("http3_protocol_options").optional();
        r.exactly_one(&["http_protocol_options", "http2_protocol_options", "http3_protocol_options"]);
        Self(match (http2, http3) {
            (_, Some(http3)) => UpstreamProtocol::Http3(Box::new(http3)),
            (Some(http2), None) => UpstreamProtocol::Http2(http2),
            (None, None) => UpstreamProtocol::Http1(http1.unwrap_or_default()),
        })
    }
}

struct AsDownstream(UpstreamProtocol);

impl Message for AsDownstream {
    const NAME: &'static str =
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig";

    fn read(r: &Reader<'_>) -> Self {
        let http1 = r.message("http_protocol_options").optional();
        let http2 = r.message("http2_protocol_options").optional();
        Self(as_downstream_of(http1, http2, r.message("http3_protocol_options").optional()))
    }
}

struct Auto(UpstreamProtocol);

impl Message for Auto {
    const NAME: &'static str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig";

    fn read(r: &Reader<'_>) -> Self {
        let cache = r.message::<AlternateProtocols>("alternate_protocols_cache_options");
        Self(UpstreamProtocol::Auto(Box::new(ProtocolOptions {
            http1: r.message_or_defaults("http_protocol_options"),
            http2: r.message_or_defaults("http2_protocol_options"),
            http3: r.message("http3_protocol_options").optional(),
            alternate_protocols: cache.optional().map(Box::new),
        })))
    }
}

/// `envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions`.
struct TcpOptions(Option<Duration>);

impl Message for TcpOptions {
    const NAME: &'static str = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.duration("idle_timeout").zero_is_off(Some(TCP_IDLE_TIMEOUT)))
    }
}

/// Envoy's default for connections of TCP pools that no session uses.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

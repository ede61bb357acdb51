//! What the manager does to a request's head before any filter sees it: path and host, the client's
//! address, what only insiders may say, the request's id.
//!
//! Order and rules follow Envoy docs, "HTTP header manipulation" and "HTTP header sanitizing", checked on
//! Envoy 1.40. Framing and hop-by-hop fields are
//! the codec's business and are already done.

mod client_address;
mod client_cert;
mod external;
mod id;
mod underscores;

use http::header::Entry;
use http::{HeaderName, HeaderValue, StatusCode, Version};
use tidegate_config::hcm::{SchemeTransformation, StripPort};
use tidegate_config::protocol::UnderscoreAction;
use tidegate_filter::LocalReply;
use tidegate_router::path::Normalized;
use tidegate_router::{host, path};
use tidegate_types::fields::take_in_order;
use tidegate_types::{Address, RequestHead, Scheme, StreamInfo, details};

use crate::hcm::Hcm;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const SERVICE_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");
const SERVICE_NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

/// What the rest of the exchange must know.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The request came from inside, by Envoy's rule.
    pub(crate) internal: bool,
    /// `x-request-id`, if the response is to repeat it.
    pub(crate) response_request_id: Option<HeaderValue>,
}

/// Which kinds of fields a head has at all: one pass instead of twenty look-ups.
#[derive(Debug, Default, Clone, Copy)]
struct Present {
    envoy: bool,
    forwarded_for: bool,
    client_cert: bool,
}

impl Present {
    fn of(head: &RequestHead) -> Self {
        let mut present = Self::default();
        for name in head.headers.keys() {
            let name = name.as_str();
            if name.starts_with("x-") {
                present.envoy |= name.starts_with("x-envoy-");
                present.forwarded_for |= name == "x-forwarded-for";
                present.client_cert |= name == "x-forwarded-client-cert";
            }
        }
        present
    }
}

/// Checks and rewrites `head`. The error is the answer to give instead.
pub(crate) fn prepare(
    hcm: &Hcm,
    head: &mut RequestHead,
    info: &StreamInfo,
) -> Result<Prepared, Box<LocalReply>> {
    let present = Present::of(head);
    // The codecs of HTTP/2 and HTTP/3 judge names themselves.
    let judged = head.version >= Version::HTTP_2;
    if !judged && hcm.config.common.headers_with_underscores_action != UnderscoreAction::Allow {
        underscores::apply(hcm, head)?;
    }
    normalize(hcm, head, info)?;
    if present.envoy {
        take_in_order(&mut head.headers, &X_ENVOY_INTERNAL);
    }
    if present.client_cert {
        client_cert::sanitize(&hcm.config.client_cert, head, &info.connection);
    }
    let client = client_address::resolve(hcm, head, info, present.forwarded_for);
    forwarded_proto(hcm, head, info);
    let mut prepared = Prepared { internal: client.internal, response_request_id: None };
    let edge = !client.internal && hcm.config.client.use_remote_address;
    let forced = client.internal && present.envoy && external::is_forced_trace(head);
    if !client.internal && (present.envoy || !hcm.config.route_config.internal_only_headers.is_empty()) {
        external::remove(head, edge, &hcm.config.route_config.internal_only_headers);
    }
    describe_sender(hcm, head);
    if client.internal {
        head.headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else if edge && let Some(ip) = client.address.ip() {
        set_text(head, X_ENVOY_EXTERNAL_ADDRESS, &ip.to_string());
    }
    *info.remote_address.borrow_mut() = client.address;
    prepared.response_request_id = id::apply(&hcm.config.request_id, head, edge, forced);
    client_cert::describe(&hcm.config.client_cert, head, &info.connection);
    Ok(prepared)
}

/// Path and host in their canonical form, as routes are to see them.
pub(crate) fn normalize(hcm: &Hcm, head: &mut RequestHead, info: &StreamInfo) -> Result<(), Box<LocalReply>> {
    let options = &hcm.config.normalization;
    if head.path.first() != Some(&b'/') && head.method != http::Method::CONNECT {
        hcm.stats.downstream_rq_non_relative_path().inc();
        return Err(refuse(StatusCode::NOT_FOUND, details::ABSOLUTE_PATH));
    }
    match path::normalize(&head.path, options) {
        Normalized::Unchanged => {}
        Normalized::Changed(path) => head.path = path,
        Normalized::Redirect(path) => {
            hcm.stats.downstream_rq_redirected_with_normalized_path().inc();
            let reply =
                LocalReply::new(StatusCode::TEMPORARY_REDIRECT, "", details::PATH_NORMALIZATION_FAILED);
            let location = HeaderValue::from_maybe_shared(path);
            return Err(Box::new(match location {
                Ok(location) => reply.with_header(http::header::LOCATION, location),
                Err(_) => *refuse(StatusCode::BAD_REQUEST, details::PATH_NORMALIZATION_FAILED),
            }));
        }
        Normalized::Rejected => {
            hcm.stats.downstream_rq_failed_path_normalization().inc();
            return Err(refuse(StatusCode::BAD_REQUEST, details::PATH_NORMALIZATION_FAILED));
        }
    }
    if (options.strip_port != StripPort::Keep || options.strip_trailing_host_dot)
        && let Some(authority) =
            host::normalize(&head.authority, options, info.connection.local_address.port())
    {
        head.authority = authority;
    }
    Ok(())
}

pub(crate) fn refuse(status: StatusCode, details: &'static str) -> Box<LocalReply> {
    Box::new(LocalReply::new(status, "", details))
}

/// `x-forwarded-proto` and `-port`: an untrusted peer's word is replaced.
fn forwarded_proto(hcm: &Hcm, head: &mut RequestHead, info: &StreamInfo) {
    let client = &hcm.config.client;
    let untrusted = client.use_remote_address && client.xff_num_trusted_hops == 0;
    // What the connection is, whatever an absolute target claims.
    let scheme = if info.connection.secure { Scheme::Https } else { Scheme::Http };
    if info.connection.secure && (untrusted || !head.headers.contains_key(&X_FORWARDED_PROTO)) {
        head.scheme = scheme;
    }
    match head.headers.entry(X_FORWARDED_PROTO) {
        Entry::Occupied(mut entry) if untrusted => _ = entry.insert(scheme_value(scheme)),
        // A client that names a scheme has its say.
        Entry::Occupied(_) if head.version >= Version::HTTP_2 => {}
        Entry::Occupied(entry) => match entry.get().as_bytes() {
            b"http" => head.scheme = Scheme::Http,
            b"https" => head.scheme = Scheme::Https,
            _ => {}
        },
        Entry::Vacant(entry) => _ = entry.insert(scheme_value(scheme)),
    }
    if let SchemeTransformation::Overwrite(scheme) = hcm.config.scheme {
        head.scheme = scheme;
        head.headers.insert(X_FORWARDED_PROTO, scheme_value(head.scheme));
    }
    if client.append_x_forwarded_port
        && (untrusted || !head.headers.contains_key(&X_FORWARDED_PORT))
        && let Address::Ip(local) = &info.connection.local_address
    {
        head.headers.insert(X_FORWARDED_PORT, HeaderValue::from(local.port()));
    }
}

fn scheme_value(scheme: Scheme) -> HeaderValue {
    HeaderValue::from_static(scheme.as_str())
}

/// `add_user_agent` and `via`.
fn describe_sender(hcm: &Hcm, head: &mut RequestHead) {
    if hcm.config.add_user_agent
        && let Some(cluster) = &hcm.node_cluster
    {
        head.headers.insert(SERVICE_CLUSTER, cluster.clone());
        head.headers.entry(http::header::USER_AGENT).or_insert_with(|| cluster.clone());
        if let Some(node) = &hcm.node_id {
            head.headers.insert(SERVICE_NODE, node.clone());
        }
    }
    if !hcm.config.via.is_empty() {
        append_text(&mut head.headers, &http::header::VIA, &hcm.config.via, ", ");
    }
}

/// Appends to a list-valued field, joining its lines into one.
pub(crate) fn append_text(headers: &mut http::HeaderMap, name: &HeaderName, value: &str, separator: &str) {
    let mut joined = Vec::new();
    for line in headers.get_all(name) {
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(line.as_bytes());
    }
    if !joined.is_empty() {
        joined.extend_from_slice(separator.as_bytes());
    }
    joined.extend_from_slice(value.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(name, value);
    }
}

fn set_text(head: &mut RequestHead, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        head.headers.insert(name, value);
    }
}

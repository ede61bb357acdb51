//! What the manager does to every response's head before it is written, from upstream or its own.

use std::cell::RefCell;
use std::time::Duration;

use http::header::{DATE, SERVER, VIA};
use http::{HeaderName, HeaderValue};
use tidegate_config::hcm::ServerHeader;
use tidegate_types::{ResponseHead, StreamInfo};

use crate::hcm::WorkerHcm;
use crate::request::append_text;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Removes what ends at this hop and adds what every response has. `connection` and framing are the
/// codec's business.
pub(crate) fn finish(
    hcm: &WorkerHcm,
    head: &mut ResponseHead,
    info: &StreamInfo,
    elapsed: Duration,
    request_id: &RefCell<Option<HeaderValue>>,
) {
    let headers = &mut head.headers;
    if headers.keys().any(|name| *name == KEEP_ALIVE || *name == PROXY_CONNECTION) {
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
    }
    let config = &hcm.shared.config;
    if !config.via.is_empty() {
        append_text(headers, &VIA, &config.via, ", ");
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, hcm.date.at(info.start_time + elapsed));
    }
    match config.server_header {
        ServerHeader::Overwrite => {
            headers.insert(SERVER, hcm.shared.server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            headers.entry(SERVER).or_insert_with(|| hcm.shared.server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if let Some(id) = request_id.borrow_mut().take() {
        headers.insert(X_REQUEST_ID, id);
    }
}

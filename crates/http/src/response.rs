//! What the manager does to every response's head before it is written, from upstream or its own.

use std::cell::RefCell;
use std::time::Duration;

use http::header::{DATE, SERVER, VIA};
use http::{HeaderName, HeaderValue};
use tidegate_config::hcm::ServerHeader;
use tidegate_types::{ResponseHead, StreamInfo};

use crate::hcm::WorkerHcm;
use crate::request::append_text;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Adds what every response has. Framing and fields that end at this hop are the codec's business.
pub(crate) fn finish(
    hcm: &WorkerHcm,
    head: &mut ResponseHead,
    info: &StreamInfo,
    elapsed: Duration,
    request_id: &RefCell<Option<HeaderValue>>,
) {
    let headers = &mut head.headers;
    let config = &hcm.shared.config;
    if !config.via.is_empty() {
        append_text(headers, &VIA, &config.via, ", ");
    }
    headers.entry(DATE).or_insert_with(|| hcm.date.at(info.start_time + elapsed));
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

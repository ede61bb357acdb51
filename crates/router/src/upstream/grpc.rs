//! Whether a gRPC call did well, as a host's `rq_success` and `rq_error` count it: by its status, which comes last.

use http::{HeaderMap, HeaderName};
use tidegate_cluster::HostStat;
use tidegate_cluster::stream::BodyFrame;
use tidegate_types::{EndStream, ResponseHead};

use super::Upstream;

impl Upstream<'_> {
    /// A response other than 5xx is passed on: what the host did is known now, or with the response's end.
    pub(super) fn count_answer(&self, head: &ResponseHead, end: EndStream) {
        if !self.is_grpc {
            self.count_host(HostStat::RqSuccess);
        } else if end.is_end() {
            self.count_host(by_status(&head.headers));
        } else {
            self.grpc_status_due.set(true);
        }
    }

    /// The end of the response tells what its head did not.
    pub(super) fn count_grpc_end(&self, frame: &BodyFrame) {
        let answer = match frame {
            BodyFrame::Data(_, EndStream::No) => return,
            BodyFrame::Data(_, EndStream::Yes) => HostStat::RqError,
            BodyFrame::Trailers(trailers) => by_status(trailers),
        };
        self.grpc_status_due.set(false);
        self.count_host(answer);
    }
}

/// By the HTTP status that Envoy takes `grpc-status` for: an error is one that would be 5xx, or unknown, or missing.
fn by_status(headers: &HeaderMap) -> HostStat {
    match headers.get(&GRPC_STATUS).map(|value| value.as_bytes()) {
        Some(b"0" | b"1" | b"3" | b"5" | b"6" | b"7" | b"8" | b"9" | b"10" | b"11" | b"16") => {
            HostStat::RqSuccess
        }
        Some(_) | None => HostStat::RqError,
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The lists are Envoy 1.40's answers.
    #[test]
    fn statuses_that_would_be_5xx_are_errors() {
        let of = |status| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
            by_status(&headers)
        };
        for status in ["0", "1", "3", "5", "16"] {
            assert_eq!(of(status), HostStat::RqSuccess, "{status}");
        }
        for status in ["2", "4", "12", "13", "14", "15", "99", "x", ""] {
            assert_eq!(of(status), HostStat::RqError, "{status}");
        }
        assert_eq!(by_status(&HeaderMap::new()), HostStat::RqError);
    }
}

//! A plain request-and-answer HTTP server on our own codec, for the admin endpoints and the demo upstream.
//!
//! No filters, no routes, no streaming: whole bodies in, whole bodies out.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode, header};
use tidegate_codec::h1::{Next, Readable, ServerConn};
use tidegate_codec::{BodyFrame, HeadError, ServerStream, StreamError};
use tidegate_types::{CloseReason, EndStream, RequestHead, ResponseHead};

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A body of `content_type`.
    pub(crate) fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
        Self { status, headers, body: body.into() }
    }
}

/// Serves `conn` until it ends; why it did.
pub(crate) async fn serve<H>(mut conn: ServerConn, handler: H) -> CloseReason
where
    H: AsyncFn(RequestHead, Bytes) -> Answer,
{
    loop {
        match poll_fn(|cx| conn.poll_readable(cx)).await {
            Readable::Bytes => {}
            Readable::Closed => return CloseReason::PeerFin,
            Readable::Broken(error) => return CloseReason::of_io(&error),
        }
        let exchange = tokio::time::timeout(REQUEST_TIMEOUT, exchange(&mut conn, &handler)).await;
        match exchange {
            Ok(Ok(Next::KeepAlive)) => {}
            Ok(Ok(Next::Close)) => break,
            // Gone, broken or too slow: there is nobody to tell.
            Ok(Err(_)) => return conn.ended().unwrap_or(CloseReason::ProtocolError),
            Err(_) => return CloseReason::RequestTimeout,
        }
    }
    // A failed shutdown means that the client has closed already.
    let _ = poll_fn(|cx| conn.poll_shutdown(cx)).await;
    CloseReason::Announced
}

async fn exchange<H>(conn: &mut ServerConn, handler: &H) -> Result<Next, StreamError>
where
    H: AsyncFn(RequestHead, Bytes) -> Answer,
{
    let (head, end) = match poll_fn(|cx| conn.poll_head(cx)).await {
        Ok(head) => head,
        Err(HeadError::Gone { .. } | HeadError::Malformed { .. }) => return Err(StreamError::Closed),
        Err(HeadError::Refused { status, body, .. }) => {
            conn.close_after_response();
            respond(conn, Answer::new(status, "text/plain", body), WithBody::Yes).await?;
            return Ok(Next::Close);
        }
    };
    let with_body = if head.method == Method::HEAD { WithBody::No } else { WithBody::Yes };
    let body = read_body(conn, end).await?;
    let answer = handler(*head, body).await;
    respond(conn, answer, with_body).await?;
    Ok(conn.finish_exchange())
}

#[derive(Clone, Copy, PartialEq)]
enum WithBody {
    Yes,
    No,
}

/// The body's first [`MAX_BODY`] bytes; the rest is read and dropped.
async fn read_body(conn: &mut ServerConn, end: EndStream) -> Result<Bytes, StreamError> {
    let mut body = BytesMut::new();
    let mut ended = end.is_end();
    while !ended {
        match poll_fn(|cx| conn.poll_body(cx)).await? {
            BodyFrame::Data(data, end) => {
                let room = MAX_BODY.saturating_sub(body.len()).min(data.len());
                body.extend_from_slice(data.get(..room).unwrap_or_default());
                ended = end.is_end();
            }
            BodyFrame::Trailers(_) => ended = true,
        }
    }
    Ok(body.freeze())
}

async fn respond(conn: &mut ServerConn, answer: Answer, with_body: WithBody) -> Result<(), StreamError> {
    let mut head = ResponseHead::new(answer.status);
    head.headers.extend(answer.headers.into_iter().map(|(name, value)| (Some(name), value)));
    let end = EndStream::from_last(with_body == WithBody::No);
    conn.send_head(&head, end);
    if with_body == WithBody::Yes {
        conn.send_data(answer.body, EndStream::Yes);
    }
    poll_fn(|cx| conn.poll_flush(cx)).await
}

/// Stops a client that sends its request, or takes its answer, a byte at a time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a request body that are kept. Stops a client that uploads into our memory.
const MAX_BODY: usize = 1024 * 1024;

//! Which HTTP a client speaks, by its first bytes (`codec_type: AUTO`): an HTTP/2 client begins with a fixed
//! preface (RFC 9113 §3.4), which no HTTP/1.1 request can be.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tidegate_net::BoxIo;

/// What an HTTP/2 client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/2: the whole preface is there.
    Http2,
    /// Something else, to be taken for HTTP/1.1.
    Http1,
    /// So far the beginning of a preface.
    Undecided,
}

/// Judges the first bytes of a connection; more than 24 are not looked at.
pub fn detect(bytes: &[u8]) -> Detected {
    let seen = bytes.len().min(PREFACE.len());
    if bytes.get(..seen) != PREFACE.get(..seen) {
        Detected::Http1
    } else if seen == PREFACE.len() {
        Detected::Http2
    } else {
        Detected::Undecided
    }
}

/// What [`poll_detect`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// HTTP/2; the bytes read so far are in the buffer.
    Http2,
    /// HTTP/1.1; the bytes read so far are in the buffer.
    Http1,
    /// The client ended the connection before it said anything, or within a preface.
    Closed,
}

/// Reads into `seen` until the protocol is known. The codec that goes on is given `seen`. Waits without a
/// buffer for the first byte.
///
/// # Errors
/// Those of reading from the connection.
pub fn poll_detect(io: &mut BoxIo, seen: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<Opening>> {
    loop {
        match detect(seen) {
            Detected::Http2 => return Poll::Ready(Ok(Opening::Http2)),
            Detected::Http1 => return Poll::Ready(Ok(Opening::Http1)),
            Detected::Undecided => {}
        }
        ready!(io.poll_read_ready(cx))?;
        seen.reserve(FIRST_READ);
        let read = io.poll_read(cx, seen);
        if read.is_pending() && seen.is_empty() {
            *seen = BytesMut::new();
        }
        if ready!(read)? == 0 {
            return Poll::Ready(Ok(Opening::Closed));
        }
    }
}

/// The first read usually holds a whole first flight: preface, SETTINGS, a request.
const FIRST_READ: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::future::poll_fn;

    use tidegate_testkit::io::{Link, pair_over};

    use super::*;

    #[test]
    fn one_byte_is_enough_to_tell_and_24_to_be_sure() {
        assert_eq!(detect(b""), Detected::Undecided);
        assert_eq!(detect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"), Detected::Undecided);
        assert_eq!(detect(PREFACE), Detected::Http2);
        assert_eq!(detect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"), Detected::Http2);
        assert_eq!(detect(b"POST"), Detected::Http1);
        assert_eq!(detect(b"PRI * HTTP/1.1"), Detected::Http1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_is_read_byte_by_byte_and_handed_on() {
        for (sent, expected) in [
            (&PREFACE[..], Opening::Http2),
            (b"GET / HTTP/1.1\r\n", Opening::Http1),
            (b"PRI * ", Opening::Closed),
            (b"", Opening::Closed),
        ] {
            let link = Link { max_read: 1, ..Link::default() };
            let (near, mut far) = pair_over(link);
            let mut io: BoxIo = Box::new(near);
            let mut seen = BytesMut::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(poll_detect(&mut io, &mut seen, &mut cx).is_pending());
            assert_eq!(seen.capacity(), 0);
            far.write_all(sent).await;
            drop(far);
            let found = poll_fn(|cx| poll_detect(&mut io, &mut seen, cx)).await.unwrap();
            assert_eq!(found, expected);
            assert!(sent.starts_with(&seen));
        }
    }
}

//! Streams that end by what came in them, and heads that take their time.

use std::cell::RefCell;

use super::*;
use crate::fields::Underscores;
use crate::stream::{ClientEnd, HeadError};

/// A literal field without indexing.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(value.len() as u8);
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// Reads each exchange to its end and notes how that came, with the name of the fields that it was told.
fn watch(near: MemIo, options: ServerOptions) -> (Served, Rc<RefCell<Vec<String>>>) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&seen);
    let served = serve(near, options, move |mut exchange| {
        let told = Rc::clone(&told);
        async move {
            let line = match poll_fn(|cx| exchange.poll_head(cx)).await {
                Err(error) => format!("{error:?}"),
                Ok((head, _)) => {
                    let end = match body_end(&mut exchange).await {
                        Ok(()) => {
                            exchange.send_head(&ok(), EndStream::Yes);
                            "complete".to_owned()
                        }
                        Err(_) => format!("{:?}", exchange.ended_by_client()),
                    };
                    format!("{} {end}", head.headers.len())
                }
            };
            told.borrow_mut().push(line);
        }
    });
    (served, seen)
}

#[tokio::test(start_paused = true)]
async fn bad_trailers_are_told_behind_a_head_that_was_good() {
    let connection = (field("connection", "close"), "http2.invalid.header.field", true);
    let long = (field("x-long", &"x".repeat(100)), "http2.header_list_size_too_large", false);
    let under = (field("x_y", "1"), "http2.unexpected_underscore", false);
    for (trailers, details, is_violation) in [connection, long, under] {
        local(async {
            let (near, mut far) = pair();
            let mut options = ServerOptions::default();
            options.common.messages.max_head_bytes = 64;
            options.common.messages.underscores = Underscores::Reject;
            let (served, seen) = watch(near, options);
            let mut bytes = hello(&[]);
            bytes.extend(frame(kind::HEADERS, OPEN, 1, POST));
            bytes.extend(frame(kind::DATA, 0, 1, b"body"));
            bytes.extend(frame(kind::HEADERS, WHOLE, 1, &trailers));
            let frames = answers(&mut far, &bytes).await;
            assert_eq!(reset_code(&frames[0]), (1, if is_violation { 1 } else { 2 }));
            let end = ClientEnd::Malformed { details, is_violation };
            assert_eq!(*seen.borrow(), [format!("0 {:?}", Some(end))]);
            assert_eq!(served.task.is_finished(), is_violation);
            assert_eq!((served.seer.count(Event::Trailers), served.conn.borrow().streams()), (1, 0));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_ends_its_stream_by_its_own_reset() {
    local(async {
        let (near, mut far) = pair();
        let (served, seen) = watch(near, ServerOptions::default());
        let mut bytes = hello(&[]);
        bytes.extend(frame(kind::HEADERS, OPEN, 1, &[POST, &field("content-length", "9")].concat()));
        bytes.extend(frame(kind::DATA, 1, 1, b"four"));
        let frames = answers(&mut far, &bytes).await;
        assert_eq!(reset_code(&frames[0]), (1, 1));
        let end = ClientEnd::Malformed { details: "http2.remote_reset", is_violation: true };
        assert_eq!(*seen.borrow(), [format!("1 {:?}", Some(end))]);
        assert!(!served.task.is_finished());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn names_with_underscores_are_left_out_of_heads_and_trailers() {
    local(async {
        let (near, mut far) = pair();
        let mut options = ServerOptions::default();
        options.common.messages.underscores = Underscores::Drop;
        let (served, seen) = watch(near, options);
        let mut bytes = hello(&[]);
        let head = [POST, &field("x_a", "1"), &field("x-b", "2")].concat();
        bytes.extend(frame(kind::HEADERS, OPEN, 1, &head));
        bytes.extend(frame(kind::HEADERS, WHOLE, 1, &[field("x_c", "1"), field("x_d", "1")].concat()));
        answers(&mut far, &bytes).await;
        assert_eq!(*seen.borrow(), ["1 complete"]);
        assert_eq!(served.seer.count(Event::UnderscoreDropped), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_exchange_begins_with_the_first_frame_of_its_head() {
    local(async {
        let (near, mut far) = pair();
        let served = serve(near, ServerOptions::default(), |mut exchange| async move {
            let head = tokio::time::timeout(Duration::from_secs(15), head_of(&mut exchange)).await;
            let status = if head.is_ok() { 200 } else { 408 };
            exchange.send_head(&ResponseHead::new(status.try_into().unwrap()), EndStream::Yes);
        });
        let mut bytes = hello(&[]);
        bytes.extend(frame(kind::HEADERS, 1, 1, GET));
        assert_eq!(answers(&mut far, &bytes).await.len(), 0);
        assert_eq!(served.conn.borrow().streams(), 1);
        tokio::time::advance(Duration::from_secs(16)).await;
        let frames = answers(&mut far, &[]).await;
        assert_eq!((frames[0].0, frames[0].2), (kind::HEADERS, 1));
        assert_eq!(reset_code(&frames[1]), (1, 0));
        assert_eq!(served.conn.borrow().streams(), 0);
        // The rest is read for the table's sake, and one that ends in time is served.
        bytes = frame(kind::CONTINUATION, 4, 1, &field("x-late", "1"));
        bytes.extend(frame(kind::HEADERS, 1, 3, GET));
        bytes.extend(frame(kind::CONTINUATION, 4, 3, &field("x-more", "1")));
        let frames = answers(&mut far, &bytes).await;
        assert_eq!(
            (frames.len(), frames[0].0, frames[0].2, &frames[0].3[..]),
            (1, kind::HEADERS, 3, &[0x88][..])
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_cannot_be_decoded_is_an_exchange_nevertheless() {
    local(async {
        let (near, mut far) = pair();
        let (served, seen) = watch(near, ServerOptions::default());
        let mut bytes = hello(&[]);
        bytes.extend(frame(kind::HEADERS, WHOLE, 1, &[0xff, 0xff, 0xff, 0xff, 0xff]));
        let frames = answers(&mut far, &bytes).await;
        assert_eq!((frames[0].0, frames[0].3[3], frames[0].3[7]), (kind::GOAWAY, 1, 9));
        assert_eq!(*seen.borrow(), [format!("{:?}", HeadError::Gone { partial: true })]);
        assert_eq!(served.seer.count(Event::StreamOpened), 1);
        assert!(served.task.is_finished());
    })
    .await;
}

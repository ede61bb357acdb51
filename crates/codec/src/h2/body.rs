//! A message's body over the library's streams, both directions; flow control is by pull.
//!
//! [`Incoming`] gives a part's window back when the next part is asked for: by then the caller has passed the
//! part on. [`Outgoing`] hands the library no more than the peer's windows take.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use tidegate_types::EndStream;

use super::heads;
use super::shared::StreamLink;
use crate::stream::{BodyFrame, ResetCode, StreamError};

/// The body that the peer sends.
#[derive(Default)]
pub(crate) struct Incoming {
    /// `None` when all of it was read, or nobody wants it.
    stream: Option<RecvStream>,
    /// Bytes handed on, whose window is still held.
    held: usize,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self { stream: (!ended).then_some(stream), held: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stream.is_none()
    }

    /// Nobody wants the rest.
    pub(crate) fn stop(&mut self) {
        self.release();
        self.stream = None;
    }

    fn release(&mut self) {
        if let (Some(stream), 1..) = (&mut self.stream, self.held) {
            // Fails only for a stream that is gone.
            let _ = stream.flow_control().release_capacity(self.held);
        }
        self.held = 0;
    }

    /// Reads the next part.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &StreamLink,
    ) -> Poll<Result<BodyFrame, StreamError>> {
        self.release();
        loop {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Ok(BodyFrame::Data(Bytes::new(), EndStream::Yes)));
            };
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    let end = EndStream::from_last(stream.is_end_stream());
                    if data.is_empty() && !end.is_end() {
                        continue;
                    }
                    self.held = data.len();
                    if end.is_end() {
                        self.stop();
                    }
                    return Poll::Ready(Ok(BodyFrame::Data(data, end)));
                }
                Some(Err(error)) => return Poll::Ready(Err(self.fail(&error, link))),
                None => {}
            }
            let trailers = ready!(stream.poll_trailers(cx));
            return Poll::Ready(match trailers {
                Ok(trailers) => {
                    self.stop();
                    Ok(match trailers {
                        Some(trailers) => BodyFrame::Trailers(heads::trailers(&trailers)),
                        None => BodyFrame::Data(Bytes::new(), EndStream::Yes),
                    })
                }
                Err(error) => Err(self.fail(&error, link)),
            });
        }
    }

    fn fail(&mut self, error: &h2::Error, link: &StreamLink) -> StreamError {
        self.stop();
        link.error(error)
    }
}

/// The body that we send, from its head on.
#[derive(Default)]
pub(crate) struct Outgoing {
    stream: Option<SendStream<Bytes>>,
    waiting: VecDeque<Part>,
    /// Bytes of `waiting`.
    buffered: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Parts may be added.
    #[default]
    Open,
    /// The end was added.
    Ended,
    /// The message has no body, or its stream is lost: parts are dropped.
    Closed,
}

enum Part {
    Data(Bytes, EndStream),
    Trailers(HeaderMap),
}

impl Outgoing {
    /// The head was sent.
    pub(crate) fn open(&mut self, stream: SendStream<Bytes>, end: EndStream) {
        self.stream = Some(stream);
        if end.is_end() {
            self.state = State::Closed;
        }
    }

    /// What is added is dropped.
    pub(crate) fn close(&mut self) {
        self.state = State::Closed;
        self.waiting = VecDeque::new();
        self.buffered = 0;
    }

    /// Whether the message was handed on to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.state != State::Open && self.waiting.is_empty()
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    pub(crate) fn data(&mut self, data: Bytes, end: EndStream, link: &StreamLink) {
        if self.state != State::Open || data.is_empty() && !end.is_end() {
            return;
        }
        self.buffered += data.len();
        self.waiting.push_back(Part::Data(data, end));
        if end.is_end() {
            self.state = State::Ended;
        }
        self.push(link);
    }

    pub(crate) fn trailers(&mut self, trailers: &HeaderMap, link: &StreamLink) {
        if self.state != State::Open {
            return;
        }
        self.waiting.push_back(Part::Trailers(heads::trailers(trailers)));
        self.state = State::Ended;
        self.push(link);
    }

    /// Hands on what the windows take now. An error is found again by [`Outgoing::poll_flush`].
    fn push(&mut self, link: &StreamLink) {
        let _ = self.poll_parts(&mut Context::from_waker(std::task::Waker::noop()), Wait::No, link);
    }

    /// Ready when the library has everything: what has window and does not fit the socket is bounded there.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        link: &StreamLink,
    ) -> Poll<Result<(), StreamError>> {
        self.poll_parts(cx, Wait::Yes, link)
    }

    fn poll_parts(
        &mut self,
        cx: &mut Context<'_>,
        wait: Wait,
        link: &StreamLink,
    ) -> Poll<Result<(), StreamError>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        while let Some(part) = self.waiting.pop_front() {
            let sent = match part {
                Part::Trailers(trailers) => stream.send_trailers(trailers),
                Part::Data(data, end) if data.is_empty() => stream.send_data(data, end.is_end()),
                Part::Data(mut data, end) => {
                    stream.reserve_capacity(data.len());
                    let window = stream.capacity().min(data.len());
                    if window == 0 {
                        self.waiting.push_front(Part::Data(data, end));
                        match poll_window(stream, cx, wait) {
                            Poll::Ready(Window::Opened) => continue,
                            Poll::Ready(Window::Lost) => return Poll::Ready(Err(self.lost(cx, link))),
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                    let now = data.split_to(window);
                    self.buffered -= now.len();
                    let last = end.is_end() && data.is_empty();
                    if !data.is_empty() {
                        self.waiting.push_front(Part::Data(data, end));
                    }
                    stream.send_data(now, last)
                }
            };
            if sent.is_err() {
                return Poll::Ready(Err(self.lost(cx, link)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The stream takes nothing any more: the peer's reset says why.
    fn lost(&mut self, cx: &mut Context<'_>, link: &StreamLink) -> StreamError {
        // What is left keeps the message incomplete, and fails again for whoever asks again.
        self.waiting.clear();
        self.buffered = 0;
        self.waiting.push_back(Part::Data(Bytes::new(), EndStream::Yes));
        let Some(stream) = &mut self.stream else { return StreamError::Closed };
        match stream.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => link.reset_by_peer(reason),
            Poll::Ready(Err(error)) => link.error(&error),
            Poll::Pending => StreamError::Reset { code: ResetCode::Internal, by_peer: false },
        }
    }

    /// Ends the stream with a code.
    pub(crate) fn reset(&mut self, code: ResetCode) {
        if let Some(stream) = &mut self.stream {
            stream.send_reset(code.into());
        }
    }

    /// Ready when the peer, or the connection, ended the stream: with this code, if there was one.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Option<h2::Reason>> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(Result::ok),
            None => Poll::Pending,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    /// Nobody waits: the stream's waker stays who it is.
    No,
}

enum Window {
    Opened,
    Lost,
}

fn poll_window(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>, wait: Wait) -> Poll<Window> {
    if wait == Wait::No {
        return Poll::Pending;
    }
    match ready!(stream.poll_capacity(cx)) {
        Some(Ok(_)) => Poll::Ready(Window::Opened),
        Some(Err(_)) | None => Poll::Ready(Window::Lost),
    }
}

//! What is to be written: text and, by reference, large body chunks, in order.
//!
//! Sans-IO. Small pieces are copied behind one another so that a head and a small body leave in one
//! `send`; large ones go out by `writev` from where they lie.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::buffers;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// All copied bytes, without the chunks between them.
    text: BytesMut,
    chunks: VecDeque<Chunk>,
    /// Bytes of `text` that lie before one of the chunks.
    before_chunks: usize,
    /// Bytes in `chunks`.
    in_chunks: usize,
}

#[derive(Debug)]
struct Chunk {
    /// Bytes of text between the chunk before and this one.
    text: usize,
    data: Bytes,
}

impl Output {
    /// The buffer to append text to, with room for `additional` bytes.
    #[inline]
    pub(crate) fn text(&mut self, additional: usize) -> &mut BytesMut {
        if self.text.capacity() == 0 {
            self.text = buffers::take_output(additional.max(MIN_RESERVE));
        } else if self.text.capacity() - self.text.len() < additional {
            self.text.reserve(additional.max(MIN_RESERVE));
        }
        &mut self.text
    }

    /// Appends body bytes, by copy or by reference.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() <= MAX_COPY {
            self.text(data.len() + CHUNK_END).extend_from_slice(&data);
            return;
        }
        let text = self.text.len() - self.before_chunks;
        self.before_chunks = self.text.len();
        self.in_chunks += data.len();
        self.chunks.push_back(Chunk { text, data });
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len() + self.in_chunks
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `slices` with what comes first: how many were filled.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut text: &[u8] = &self.text;
        let mut slots = slices.iter_mut();
        let mut put = |bytes: &'a [u8]| match bytes.is_empty() {
            true => true,
            false => slots.next().is_some_and(|slot| {
                *slot = IoSlice::new(bytes);
                filled += 1;
                true
            }),
        };
        for chunk in &self.chunks {
            let (before, after) = text.split_at(chunk.text.min(text.len()));
            text = after;
            if !put(before) || !put(&chunk.data) {
                return filled;
            }
        }
        put(text);
        filled
    }

    /// Forgets the first `written` bytes; with nothing left, the buffers too.
    pub(crate) fn advance(&mut self, mut written: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            let text = written.min(chunk.text);
            chunk.text -= text;
            self.before_chunks -= text;
            self.text.advance(text);
            written -= text;
            let data = written.min(chunk.data.len());
            chunk.data.advance(data);
            self.in_chunks -= data;
            written -= data;
            if !chunk.data.is_empty() {
                return;
            }
            self.chunks.pop_front();
        }
        self.text.advance(written.min(self.text.len()));
        if self.is_empty() {
            self.clear();
        }
    }

    /// Drops everything not yet written.
    pub(crate) fn clear(&mut self) {
        let Self { text, .. } = std::mem::take(self);
        buffers::give_output(text);
    }
}

/// Body chunks up to this size are copied: below it a copy is cheaper than a second element for `writev`
/// and keeps no read buffer alive.
const MAX_COPY: usize = 8 * 1024;

/// First allocation: a small response's head and body.
const MIN_RESERVE: usize = 1024;

/// Room for what follows a chunk's data, so that it does not make the buffer grow again.
const CHUNK_END: usize = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn text_and_chunks_leave_in_order_whatever_the_write_sizes() {
        for step in 1..200 {
            let mut output = Output::default();
            let mut expected = Vec::new();
            for round in 0..5_u8 {
                let text = [b't', b'0' + round];
                output.text(2).extend_from_slice(&text);
                expected.extend_from_slice(&text);
                let chunk = vec![b'a' + round; MAX_COPY + 1 + usize::from(round)];
                expected.extend_from_slice(&chunk);
                output.push(chunk.into());
            }
            output.push(Bytes::from_static(b"end"));
            expected.extend_from_slice(b"end");
            assert_eq!(output.len(), expected.len());

            let mut written = Vec::new();
            while !output.is_empty() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = output.gather(&mut slices);
                let all: Vec<u8> =
                    slices.iter().take(count).flat_map(|slice| slice.iter().copied()).collect();
                let take = all.len().min(step * 97);
                written.extend_from_slice(&all[..take]);
                output.advance(take);
            }
            assert_eq!(written, expected);
        }
    }
}

//! Body bytes on their way through a filter chain, without copying.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A run of body bytes held as reference-counted chunks.
///
/// The first chunk is stored inline: the common message of one chunk costs no allocation.
#[derive(Clone, Debug, Default)]
pub struct BodyBuf {
    first: Bytes,
    rest: VecDeque<Bytes>,
    len: usize,
}

impl BodyBuf {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a chunk; an empty one is dropped.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.len += chunk.len();
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = chunk;
        } else {
            self.rest.push_back(chunk);
        }
    }

    /// Takes the first chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.len == 0 {
            return None;
        }
        let next = self.rest.pop_front().unwrap_or_default();
        let chunk = std::mem::replace(&mut self.first, next);
        self.len -= chunk.len();
        Some(chunk)
    }

    /// Moves all chunks of `other` to the end of this buffer.
    pub fn append(&mut self, other: &mut Self) {
        while let Some(chunk) = other.pop() {
            self.push(chunk);
        }
    }

    /// Drops everything held.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        (!self.first.is_empty()).then_some(&self.first).into_iter().chain(self.rest.iter())
    }

    /// All bytes as one slice-able chunk; copies only when there are several chunks.
    pub fn to_bytes(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        let mut all = BytesMut::with_capacity(self.len);
        self.chunks().for_each(|chunk| all.extend_from_slice(chunk));
        all.freeze()
    }
}

impl From<Bytes> for BodyBuf {
    fn from(chunk: Bytes) -> Self {
        let mut body = Self::new();
        body.push(chunk);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_in_order_and_lengths_add_up() {
        let mut body = BodyBuf::new();
        for part in ["ab", "", "cde", "f"] {
            body.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!(body.len(), 6);
        assert_eq!(body.to_bytes(), "abcdef");
        let mut other = BodyBuf::from(Bytes::from_static(b"gh"));
        body.append(&mut other);
        assert!(other.is_empty());
        assert_eq!(body.pop().unwrap(), "ab");
        assert_eq!(body.to_bytes(), "cdefgh");
        assert_eq!(body.chunks().count(), 3);
        body.clear();
        assert!(body.is_empty() && body.pop().is_none());
    }
}

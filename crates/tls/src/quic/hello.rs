//! What a ClientHello asks for, read before a TLS session begins: for whom it is decides which one.

use std::net::SocketAddr;

/// A client's first words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The name asked for, in lower case (RFC 6066 §3).
    pub server_name: Option<String>,
    /// The protocols offered (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// The client's address and ours, where [`while_accepting`](super::while_accepting) told them.
    pub addresses: Option<Addresses>,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client's.
    pub remote: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

/// What came of a ClientHello so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// There is more to come.
    Partial,
    /// All of it.
    Whole(Hello),
    /// It is no ClientHello. TLS says it better.
    Garbage,
}

/// Reads the handshake message (RFC 8446 §4.1.2) as far as it is there.
pub(super) fn read(bytes: &[u8]) -> Reading {
    let Some(([kind, a, b, c], rest)) = bytes.split_first_chunk() else { return Reading::Partial };
    let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    if *kind != CLIENT_HELLO || length > LONGEST {
        return Reading::Garbage;
    }
    match rest.get(..length) {
        None => Reading::Partial,
        Some(body) => whole(body).map_or(Reading::Garbage, Reading::Whole),
    }
}

fn whole(body: &[u8]) -> Option<Hello> {
    let mut body = Bytes(body);
    // Version and random.
    body.take(2 + 32)?;
    let _session = body.vector(1)?;
    let _suites = body.vector(2)?;
    let _compression = body.vector(1)?;
    let mut extensions = body.vector(2)?;
    let mut hello = Hello::default();
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut data = extensions.vector(2)?;
        match kind {
            SERVER_NAME => hello.server_name = host_name(data.vector(2)?),
            ALPN => hello.alpn = protocols(data.vector(2)?)?,
            _ => {}
        }
    }
    Some(hello)
}

fn host_name(mut names: Bytes<'_>) -> Option<String> {
    while !names.0.is_empty() {
        let kind = names.number(1)?;
        let name = names.vector(2)?;
        if kind == 0 {
            return std::str::from_utf8(name.0).ok().map(str::to_ascii_lowercase);
        }
    }
    None
}

fn protocols(mut names: Bytes<'_>) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    while !names.0.is_empty() {
        all.push(names.vector(1)?.0.to_vec());
    }
    Some(all)
}

/// Bytes that are read from the front; `None` when they run out.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes, at most 4.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector whose length is a number of so many bytes.
    fn vector(&mut self, bytes: usize) -> Option<Self> {
        let length = self.number(bytes)?;
        self.take(length).map(Bytes)
    }
}

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: usize = 0;
const ALPN: usize = 16;

/// No hello is as long as this (BoringSSL's limit of a handshake message): bounds what a stranger makes us keep.
const LONGEST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn vector(prefix: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - prefix..], content].concat()
    }

    fn hello(extensions: &[u8]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &vector(1, &[]),
            &vector(2, &[0x13, 1]),
            &vector(1, &[0]),
            &vector(2, extensions),
        ]
        .concat();
        [&[1][..], &vector(3, &body)].concat()
    }

    fn extension(kind: u8, data: &[u8]) -> Vec<u8> {
        [&[0, kind][..], &vector(2, data)].concat()
    }

    #[test]
    fn a_hello_tells_name_and_protocols() {
        let name = [&[0][..], &vector(2, b"A.Test")].concat();
        let alpn = [vector(1, b"h3"), vector(1, b"h3-29")].concat();
        let all = [extension(0, &vector(2, &name)), extension(99, b"x"), extension(16, &vector(2, &alpn))];
        let bytes = hello(&all.concat());
        let expected = Hello {
            server_name: Some("a.test".to_owned()),
            alpn: vec![b"h3".to_vec(), b"h3-29".to_vec()],
            addresses: None,
        };
        assert_eq!(read(&bytes), Reading::Whole(expected));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Reading::Partial, "{cut}");
        }
        assert_eq!(read(&hello(&[])), Reading::Whole(Hello::default()));
    }

    #[test]
    fn what_is_no_hello_is_told_at_once() {
        assert_eq!(read(&[2, 0, 0, 1, 0]), Reading::Garbage);
        assert_eq!(read(&[1, 1, 0, 0]), Reading::Garbage);
        assert_eq!(read(&[1, 0, 0, 2, 3, 3]), Reading::Garbage);
        // Extensions that claim more than there is.
        assert_eq!(read(&hello(&[0, 0, 0, 9, 1])), Reading::Garbage);
    }
}

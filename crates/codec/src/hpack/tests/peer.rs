//! Against the `h2` crate: its encoder, with table and Huffman codes, and its decoder.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::{decoder, read};
use crate::fields::WriteFields;
use crate::hpack::Encoder;

/// What was written goes to a channel; what is to be read was put here.
struct Wire {
    input: Bytes,
    output: mpsc::UnboundedSender<Bytes>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Poll::Pending;
        }
        let len = self.input.len().min(buf.remaining());
        buf.put_slice(&self.input.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let _ = self.output.send(Bytes::copy_from_slice(buf));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn random_text(random: &mut fastrand::Rng, alphabet: &[u8], length: usize) -> String {
    (0..length).map(|_| char::from(*random.choice(alphabet).unwrap())).collect()
}

/// A request, and its fields as they should be read.
fn random_request(random: &mut fastrand::Rng) -> (Request<()>, Vec<String>) {
    const NAMES: [&str; 8] =
        ["accept", "cookie", "user-agent", "x-a", "x-request-id", "grpc-timeout", "date", "authorization"];
    let length = random.usize(..12);
    let path = format!("/{}", random_text(random, b"abcxyz019-_", length));
    let mut request = Request::builder()
        .method(*random.choice(&["GET", "POST", "PUT"]).unwrap())
        .uri(format!("https://{}.test{path}", random.u8(..4)))
        .version(Version::HTTP_2)
        .body(())
        .unwrap();
    for _ in 0..random.usize(..12) {
        let name = match random.bool() {
            true => (*random.choice(NAMES).unwrap()).to_owned(),
            false => format!("x-{}", random_text(random, b"abc-", 3)),
        };
        let alphabet: Vec<u8> = if random.u8(..8) == 0 { (b' '..=b'~').collect() } else { b"ab0".to_vec() };
        let length = if random.u8(..30) == 0 { random.usize(..3000) } else { random.usize(..6) };
        let mut value = HeaderValue::from_str(&random_text(random, &alphabet, length)).unwrap();
        value.set_sensitive(random.u8(..10) == 0);
        request.headers_mut().append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    let mut fields = vec![
        format!(":method: {}", request.method()),
        ":scheme: https".to_owned(),
        format!(":authority: {}", request.uri().authority().unwrap()),
        format!(":path: {path}"),
    ];
    fields.extend(
        request.headers().iter().map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii())),
    );
    fields.sort();
    (request, fields)
}

/// The blocks of all HEADERS and CONTINUATION frames.
fn blocks(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    while let Some((head, rest)) = wire.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, rest) = rest.split_at(length);
        match head[3] {
            1 => {
                assert_eq!(head[4] & 0x28, 0, "neither padding nor priority");
                blocks.push(payload.to_vec());
            }
            9 => blocks.last_mut().unwrap().extend(payload),
            _ => {}
        }
        wire = rest;
    }
    blocks
}

#[tokio::test]
async fn what_its_encoder_writes_is_read() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (output, mut written) = mpsc::unbounded_channel();
        let (mut client, mut connection) =
            h2::client::handshake(Wire { input: Bytes::new(), output }).await.unwrap();
        let mut expected = Vec::new();
        let mut responses = Vec::new();
        for _ in 0..60 {
            let (request, fields) = random_request(&mut random);
            expected.push(fields);
            responses.push(client.send_request(request, true).unwrap());
            let poll = std::future::poll_fn(|cx| {
                let _ = Pin::new(&mut connection).poll(cx);
                Poll::Ready(())
            });
            poll.await;
        }
        let mut wire = Vec::new();
        while let Ok(part) = written.try_recv() {
            wire.extend_from_slice(&part);
        }
        let wire = wire.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let blocks = blocks(wire);
        assert_eq!(blocks.len(), expected.len());
        let mut decoder = decoder();
        for (block, expected) in blocks.iter().zip(expected) {
            let fields = read(&mut decoder, block).unwrap();
            // It takes a sensitive field from the table if one that is not has put it there.
            let mut fields: Vec<_> = fields.iter().map(|field| field.trim_start_matches('!')).collect();
            fields.sort();
            assert_eq!(fields, expected);
        }
        assert!(decoder.table_len().0 > 10, "the table was used");
    }
}

#[tokio::test]
async fn its_decoder_reads_what_is_written() {
    let mut random = fastrand::Rng::with_seed(9113);
    let mut encoder = Encoder::new();
    encoder.set_peer_max(0);
    let mut wire = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..]);
    let mut sent = Vec::new();
    for index in 0..50_u32 {
        let (request, _) = random_request(&mut random);
        let mut block = BytesMut::new();
        encoder.begin(&mut block);
        encoder.method(&mut block, request.method());
        encoder.scheme(&mut block, b"https");
        encoder.authority(&mut block, request.uri().authority().unwrap().as_str().as_bytes());
        encoder.path(&mut block, request.uri().path().as_bytes());
        for (name, value) in request.headers() {
            encoder.field(&mut block, name, value.as_bytes(), value.is_sensitive());
        }
        wire.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
        wire.extend_from_slice(&[1, 5]);
        wire.extend_from_slice(&(2 * index + 1).to_be_bytes());
        wire.extend_from_slice(&block);
        sent.push(request);
    }
    let (output, _written) = mpsc::unbounded_channel();
    let mut server = h2::server::handshake(Wire { input: wire.freeze(), output }).await.unwrap();
    for expected in sent {
        let (request, _respond) = server.accept().await.unwrap().unwrap();
        assert_eq!((request.method(), request.uri()), (expected.method(), expected.uri()));
        assert_eq!(request.headers(), expected.headers());
    }
}

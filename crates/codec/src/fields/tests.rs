//! The header rules, by their verdicts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod requests;
mod responses;
mod written;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tidegate_types::EndStream;

use super::*;
use crate::fields::Asked;
use crate::h2::options::{Options, ServerOptions};
use crate::hpack::{Decoder, Encoder, Field};

type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

/// A block of literals, whatever they say.
fn block(fields: Fields<'_>) -> Bytes {
    let mut block = BytesMut::new();
    for (name, value) in fields {
        block.extend_from_slice(&[0]);
        for part in [name, value] {
            let len = part.len();
            if len < 127 {
                block.extend_from_slice(&[len as u8]);
            } else {
                let rest = len - 127;
                block.extend_from_slice(&[
                    127,
                    rest as u8 | 0x80,
                    (rest >> 7) as u8 | 0x80,
                    (rest >> 14) as u8,
                ]);
            }
            block.extend_from_slice(part);
        }
    }
    block.freeze()
}

fn decode(block: &Bytes, mut sink: impl FnMut(Field, usize)) {
    Decoder::new(4096).decode(block, &mut sink).unwrap();
}

/// `name: value` of each field of a written block.
fn lines(block: BytesMut) -> Vec<String> {
    let mut lines = Vec::new();
    decode(&block.freeze(), |field, _| {
        let name = match field.name {
            crate::hpack::Name::Header(name) => name.to_string(),
            pseudo => format!(":{pseudo:?}").to_lowercase(),
        };
        lines.push(format!("{name}: {}", field.value.escape_ascii()));
    });
    lines
}

fn map_lines(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii())).collect()
}

fn limits() -> Limits {
    Limits::from(&Options::default())
}

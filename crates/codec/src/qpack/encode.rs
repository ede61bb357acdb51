//! Fields to sections (RFC 9204 §4.5): the static table for names and for fields that stand there whole, literals
//! for all others, raw strings.
//!
//! No dynamic table and no Huffman codes, for the reasons of [`crate::hpack::Encoder`].

use bytes::BytesMut;
use http::{HeaderName, Method, StatusCode};

use super::table::{static_index, static_value};
use crate::fields::WriteFields;
use crate::hpack::integer;

/// Writes sections. Has no state: each stands for itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Encoder;

impl WriteFields for Encoder {
    const CRUMBS: bool = true;

    fn begin(&mut self, out: &mut BytesMut) {
        // No dynamic entry is required, and the base is 0 (RFC 9204 §4.5.1).
        out.extend_from_slice(&[0, 0]);
    }

    fn method(&self, out: &mut BytesMut, method: &Method) {
        let index = match *method {
            Method::CONNECT => 15,
            Method::DELETE => 16,
            Method::GET => 17,
            Method::HEAD => 18,
            Method::OPTIONS => 19,
            Method::POST => 20,
            Method::PUT => 21,
            _ => return referred(out, 0, 15, method.as_str().as_bytes()),
        };
        indexed(out, index);
    }

    fn scheme(&self, out: &mut BytesMut, scheme: &[u8]) {
        match scheme {
            b"http" => indexed(out, 22),
            b"https" => indexed(out, 23),
            _ => referred(out, 0, 22, scheme),
        }
    }

    fn authority(&self, out: &mut BytesMut, authority: &[u8]) {
        referred(out, 0, 0, authority);
    }

    fn path(&self, out: &mut BytesMut, path: &[u8]) {
        match path {
            b"/" => indexed(out, 1),
            _ => referred(out, 0, 1, path),
        }
    }

    fn status(&self, out: &mut BytesMut, status: StatusCode) {
        let index = match status.as_u16() {
            103 => 24,
            200 => 25,
            304 => 26,
            404 => 27,
            503 => 28,
            100 => 63,
            204 => 64,
            206 => 65,
            302 => 66,
            400 => 67,
            403 => 68,
            421 => 69,
            425 => 70,
            500 => 71,
            _ => return referred(out, 0, 24, status.as_str().as_bytes()),
        };
        indexed(out, index);
    }

    fn protocol(&self, out: &mut BytesMut, protocol: &[u8]) {
        literal(out, 0, b":protocol", protocol);
    }

    fn field(&self, out: &mut BytesMut, name: &HeaderName, value: &[u8], sensitive: bool) {
        match static_index(name) {
            None => {
                literal(out, if sensitive { LITERAL_SENSITIVE } else { 0 }, name.as_str().as_bytes(), value)
            }
            Some(_) if !sensitive && let Some(index) = static_value(name, value) => indexed(out, index),
            Some(index) => referred(out, if sensitive { NAME_SENSITIVE } else { 0 }, index, value),
        }
    }
}

/// A field that stands in the static table whole.
fn indexed(out: &mut BytesMut, index: u8) {
    if index < 0x3f {
        out.extend_from_slice(&[INDEXED | index]);
    } else {
        out.extend_from_slice(&[INDEXED | 0x3f, index - 0x3f]);
    }
}

/// A field whose name is in the static table.
fn referred(out: &mut BytesMut, pattern: u8, index: u8, value: &[u8]) {
    let pattern = NAME_REFERENCE | pattern;
    // One write for the common case.
    match (index.checked_sub(0x0f), value.len()) {
        (None, len) if len < 0x7f => out.extend_from_slice(&[pattern | index, len as u8]),
        (Some(more), len) if len < 0x7f => out.extend_from_slice(&[pattern | 0x0f, more, len as u8]),
        (_, len) => {
            integer::encode(out, pattern, 4, usize::from(index));
            integer::encode(out, 0, 7, len);
        }
    }
    out.extend_from_slice(value);
}

fn literal(out: &mut BytesMut, pattern: u8, name: &[u8], value: &[u8]) {
    integer::encode(out, LITERAL | pattern, 3, name.len());
    out.extend_from_slice(name);
    integer::encode(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

/// RFC 9204 §4.5.2, of the static table.
const INDEXED: u8 = 0xc0;
/// RFC 9204 §4.5.4, of the static table.
const NAME_REFERENCE: u8 = 0x50;
const NAME_SENSITIVE: u8 = 0x20;
/// RFC 9204 §4.5.6.
const LITERAL: u8 = 0x20;
const LITERAL_SENSITIVE: u8 = 0x10;
